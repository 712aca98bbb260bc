//! Whose peer is it, when several processes or sockets have one port?
//!
//! A datagram that is never answered leaves no cookie on its flow, and its address is that of all
//! the sockets of a `SO_REUSEPORT` group, or of a socket that forked workers share. The process
//! that takes it out of its socket knows the peer; it is reported once per socket, peer and process.
//! Ports that one process has alone cost a look at what is kept of the socket, and report nothing.

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_socket_cookie, bpf_getsockopt,
};
use aya_ebpf::macros::btf_map;
use flowmeter_common::owner::HEARD;
use flowmeter_common::packet::{Address, ipv4_address};

use crate::owner::{Kept, emit, join, kept, namespace, unkept};

/// A peer of a socket.
#[repr(C)]
pub struct Peer {
    cookie: u64,
    address: Address,
    port: u32,
    reserved: u32,
}

/// The process that was reported last, its thread group. Forgetting one only reports it again.
#[btf_map]
pub static PEERS: LruHashMap<Peer, u32, 16_384> = LruHashMap::new();

const SOL_SOCKET: i32 = 1;
const SO_REUSEPORT: i32 = 15;

/// What a program can know of a socket's port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Whether other sockets may have it.
    Asked,
    /// Nothing: `bpf_getsockopt` is not for these hooks before Linux 5.13.
    Unknown,
}

/// A process takes a datagram out of a socket.
///
/// # Safety
/// `ctx` must be the context of a cgroup program at `recvmsg4` or `recvmsg6`, as `ip_version` says.
#[inline(always)]
pub unsafe fn heard(ctx: *mut bpf_sock_addr, ip_version: u8, port: Port) {
    // SAFETY: the caller vouches for `ctx`.
    let sock: *mut bpf_sock = unsafe { (*ctx).__bindgen_anon_1.sk };
    if sock.is_null() {
        return;
    }
    let Some(kept) = kept(sock.cast()) else {
        unkept();
        return;
    };
    // SAFETY: has no preconditions.
    let user = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    if kept.is_alone == 0 {
        let is_shared = port == Port::Unknown || is_in_group(ctx);
        kept.is_alone = if is_shared { Kept::SHARED } else { Kept::ALONE };
    }
    // A worker has the socket from the process that bound it.
    if [kept.hearer, kept.binder].iter().any(|other| *other != 0 && *other != user) {
        kept.is_alone = Kept::SHARED;
    }
    kept.hearer = user;
    if kept.is_alone == Kept::ALONE {
        return;
    }
    // SAFETY: the caller vouches for `ctx`.
    let peer = unsafe {
        Peer {
            cookie: bpf_get_socket_cookie(ctx.cast()),
            address: if ip_version == 4 {
                ipv4_address((*ctx).user_ip4.to_ne_bytes())
            } else {
                let [a, b, c, d] = (*ctx).user_ip6;
                [join(a, b), join(c, d)]
            },
            port: u32::from(u16::from_be((*ctx).user_port as u16)),
            reserved: 0,
        }
    };
    // SAFETY: the value is an integer; a torn one only tells of a peer again.
    if unsafe { PEERS.get(&peer) }.is_some_and(|told| *told == user) {
        return;
    }
    let is_told = emit(peer.cookie, HEARD, |event| {
        event.netns = namespace(ctx.cast());
        event.ip_version = ip_version;
        event.remote = peer.address;
        event.remote_port = peer.port as u16;
        // SAFETY: the caller vouches for `ctx`, and its socket is not null.
        (event.protocol, event.local_port) =
            unsafe { ((*sock).protocol as u8, (*sock).src_port as u16) };
        Some(())
    });
    if is_told {
        // Without room it is told of again.
        let _ = PEERS.insert(&peer, &user, 0);
    }
}

/// Whether others may have the socket's port.
#[inline(always)]
fn is_in_group(ctx: *mut bpf_sock_addr) -> bool {
    let mut value = 0_i32;
    let to = (&raw mut value).cast();
    // SAFETY: the context is the kernel's, and `value` has room for the option.
    let failed = unsafe { bpf_getsockopt(ctx.cast(), SOL_SOCKET, SO_REUSEPORT, to, 4) };
    // Before Linux 6.1 this option cannot be asked for: then each peer is told of.
    failed != 0 || value != 0
}
