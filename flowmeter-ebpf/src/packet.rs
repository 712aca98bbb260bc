//! How do the programs reach the bytes of a packet?

use core::arch::asm;
use core::ptr::null_mut;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_skb_load_bytes, bpf_skc_to_mptcp_sock,
    bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::{TcContext, XdpContext};
use flowmeter_common::bytes::{MAX_HEADERS, PacketBytes};
use flowmeter_common::segment::Offload;

use crate::maps::{KNOWS_MPTCP, SOCK_COOKIE};
use crate::owner;

/// A packet at one of the hooks.
pub trait Frame {
    /// 0 at ingress, 1 at egress.
    const HOOK: u32;
    /// The program's context, for logging.
    type Context: EbpfContext;
    /// The program's context.
    fn context(&self) -> &Self::Context;
    /// The interface.
    fn ifindex(&self) -> u32;
    /// Bytes of the packet, all fragments of memory included.
    fn length(&self) -> u32;
    /// The linear part, for direct access.
    fn direct(&self) -> Direct;
    /// Copies `length` bytes at `offset`; false if they are not there.
    ///
    /// # Safety
    /// `to` must be valid for writes of `length` bytes, `length` within 1 and the size of the map
    /// value that it points into.
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> bool;
    /// The tag control field of a VLAN tag that is kept beside the packet.
    fn tag(&self) -> Option<u16>;
    /// The cookie of the socket that sends it; 0 if there is no socket, none if it has no cookie yet.
    fn cookie(&self) -> Option<u64>;
    /// How the packet is segmented on the wire, if it is a super-packet.
    fn offload(&self) -> Option<Offload>;
}

/// A packet at XDP.
pub struct XdpFrame<'a>(&'a XdpContext);

impl<'a> XdpFrame<'a> {
    /// Wraps the context.
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self(ctx)
    }
}

impl Frame for XdpFrame<'_> {
    const HOOK: u32 = 0;
    type Context = XdpContext;

    #[inline(always)]
    fn context(&self) -> &XdpContext {
        self.0
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is the kernel's and valid while the program runs.
        unsafe { (*self.0.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is the kernel's and valid while the program runs.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) as u32 }
    }

    #[inline(always)]
    fn direct(&self) -> Direct {
        Direct { data: self.0.data(), end: self.0.data_end() }
    }

    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the caller vouches for `to`; the helper checks `offset`.
        unsafe { bpf_xdp_load_bytes(self.0.ctx, offset, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn tag(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn cookie(&self) -> Option<u64> {
        Some(0)
    }

    #[inline(always)]
    fn offload(&self) -> Option<Offload> {
        None
    }
}

/// A packet at XDP before Linux 5.18, which has no helpers for packets in several pieces of memory.
/// Drivers give every packet whole there, or refuse the program.
pub struct LinearXdpFrame<'a>(&'a XdpContext);

impl<'a> LinearXdpFrame<'a> {
    /// Wraps the context.
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self(ctx)
    }
}

impl Frame for LinearXdpFrame<'_> {
    const HOOK: u32 = 0;
    type Context = XdpContext;

    #[inline(always)]
    fn context(&self) -> &XdpContext {
        self.0
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        XdpFrame(self.0).ifindex()
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        (self.0.data_end() - self.0.data()) as u32
    }

    #[inline(always)]
    fn direct(&self) -> Direct {
        XdpFrame(self.0).direct()
    }

    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // "math between pkt pointer and register with unbounded min value", hence the bound.
        let offset = opaque(u64::from(offset));
        if offset > MAX_HEADERS as u64 || offset + u64::from(length) > u64::from(self.length()) {
            return false;
        }
        let from = (self.0.data() + offset as usize) as *const _;
        // SAFETY: the caller vouches for `to`; [from, from + length) is within the packet, and the
        // helper checks what it reads. No other one copies out of a packet here.
        unsafe { bpf_probe_read_kernel(to.cast(), length, from) == 0 }
    }

    #[inline(always)]
    fn tag(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn cookie(&self) -> Option<u64> {
        Some(0)
    }

    #[inline(always)]
    fn offload(&self) -> Option<Offload> {
        None
    }
}

/// A packet at tc: `HOOK` 0 is ingress, 1 egress.
pub struct TcFrame<'a, const HOOK: u32>(&'a TcContext);

impl<'a, const HOOK: u32> TcFrame<'a, HOOK> {
    /// Wraps the context.
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self(ctx)
    }
}

impl<const N: u32> Frame for TcFrame<'_, N> {
    const HOOK: u32 = N;
    type Context = TcContext;

    #[inline(always)]
    fn context(&self) -> &TcContext {
        self.0
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is the kernel's and valid while the program runs.
        unsafe { (*self.0.skb.skb).ifindex }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn direct(&self) -> Direct {
        Direct { data: self.0.data(), end: self.0.data_end() }
    }

    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the caller vouches for `to`; the helper checks `offset`.
        unsafe { bpf_skb_load_bytes(self.0.as_ptr().cast(), offset, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn tag(&self) -> Option<u16> {
        // SAFETY: the context is the kernel's and valid while the program runs.
        let skb = unsafe { &*self.0.skb.skb };
        if skb.vlan_present != 0 { Some(skb.vlan_tci as u16) } else { None }
    }

    #[inline(always)]
    fn cookie(&self) -> Option<u64> {
        // SAFETY: the context is the kernel's and valid while the program runs.
        unsafe {
            if KNOWS_MPTCP.load() != 0 {
                let sk = (*self.0.skb.skb).__bindgen_anon_2.sk;
                // Its ways are sockets that no process has: the one that a process has leads them.
                let leader =
                    if sk.is_null() { null_mut() } else { bpf_skc_to_mptcp_sock(sk.cast()) };
                if !leader.is_null() {
                    let cookie = owner::field(leader.cast(), SOCK_COOKIE.load());
                    return (cookie != 0).then_some(cookie);
                }
            }
            Some(bpf_get_socket_cookie(self.0.as_ptr()))
        }
    }

    #[inline(always)]
    fn offload(&self) -> Option<Offload> {
        // SAFETY: the context is the kernel's and valid while the program runs.
        let skb = unsafe { &*self.0.skb.skb };
        let size = skb.gso_size;
        if size == 0 {
            return None;
        }
        let length = skb.len;
        let segments = skb.gso_segs;
        // On the way out the kernel has worked out the wire length, so the header that is
        // repeated is known without parsing. On the way in `wire_len` is not that.
        let wire = skb.wire_len;
        let header = if N == 1 && segments > 1 && wire > length {
            (wire - length) / (segments - 1)
        } else {
            0
        };
        Some(Offload { size, segments, length, header })
    }
}

/// Direct access to the linear part of a packet.
#[derive(Clone, Copy)]
pub struct Direct {
    data: usize,
    end: usize,
}

impl PacketBytes for Direct {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // "R2(id=1,off=2,r=0)": an offset that varies needs its bound where it is used.
        let offset = opaque(u64::from(offset)) as usize;
        if offset > MAX_HEADERS {
            return None;
        }
        let start = self.data + offset;
        // Hidden, because LLVM turns p + 1 > end into p >= end, of which the verifier learns nothing.
        let past = opaque((start + N) as u64) as usize;
        if past > self.end {
            return None;
        }
        // SAFETY: [past - N, past) was compared with data_end above.
        Some(unsafe { core::ptr::read_unaligned((past - N) as *const [u8; N]) })
    }
}

/// The first bytes of a packet, copied into a map.
#[repr(C)]
pub struct Window {
    bytes: [u8; MAX_HEADERS],
    length: u64,
}

impl Window {
    /// Copies the head of `frame`.
    #[inline(always)]
    pub fn fill<F: Frame>(&mut self, frame: &F, length: u32) -> bool {
        let Some(n) = at_most::<MAX_HEADERS>(length) else {
            return false;
        };
        self.length = u64::from(n);
        // SAFETY: n is within 1 and the size of `bytes`.
        unsafe { frame.copy(0, self.bytes.as_mut_ptr(), n) }
    }
}

impl PacketBytes for Window {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let offset = opaque(u64::from(offset));
        if offset > (MAX_HEADERS - N) as u64 || offset + N as u64 > self.length {
            return None;
        }
        // SAFETY: offset + N is within `bytes`, compared above.
        let from = unsafe { self.bytes.as_ptr().add(offset as usize) };
        // SAFETY: as above.
        Some(unsafe { core::ptr::read_unaligned(from.cast()) })
    }
}

/// As many of `length` bytes as there is room for, which is a power of 2; `None` if there are none.
///
/// "R3 min value is outside of the allowed memory range": before Linux 6.8 the verifier learns
/// nothing of a lower bound from a comparison with 0, so that it is added here.
#[inline(always)]
pub fn at_most<const ROOM: usize>(length: u32) -> Option<u32> {
    const { assert!(ROOM.is_power_of_two()) };
    let last = length.checked_sub(1)?.min(ROOM as u32 - 1);
    Some((opaque(u64::from(last)) as u32 & (ROOM as u32 - 1)) + 1)
}

/// Hides a value from LLVM, so that a bound check written after it survives into the byte code.
#[inline(always)]
pub fn opaque(mut value: u64) -> u64 {
    // SAFETY: moves a register onto itself. An empty asm breaks the line info.
    unsafe {
        asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags));
    }
    value
}
