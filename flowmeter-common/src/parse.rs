//! How does a frame become a [`Packet`]?
//!
//! In two ways that give the same answer. [`fast`] takes what nearly every frame is, Ethernet
//! with at most one VLAN tag, IP without extension headers or fragments, and a transport, in one
//! inlined go over the packet itself. Everything else takes [`link_step`] and [`network_step`] in
//! turn until the walk is done. In the kernel each of the steps is a global function over a copy
//! of the headers, verified once; inlined, with tunnels, they exceed the verifier's million
//! instructions.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::bytes::PacketBytes;
use crate::link::{self, Follow, ethertype};
use crate::network;
use crate::packet::{FRAGMENT_LATER, FRAGMENT_NONE, Packet, Reject, protocol};
use crate::transport;
use crate::tunnel::{self, Carried};

/// Rounds of [`link_step`] and [`network_step`] before a frame is [`Reject::TooDeep`]: each IP
/// header takes one.
pub const MAX_ROUNDS: u32 = 6;

/// What stands at the walk's offset.
pub mod next {
    /// The walk is over.
    pub const DONE: u32 = 0;
    /// An Ethernet header. Also where the walk starts on Ethernet links.
    pub const ETHERNET: u32 = 1;
    /// An IP header; its first nibble says which. Also where the walk starts on links without a
    /// header of their own (tun, raw IP captures).
    pub const IP: u32 = 2;
    /// An 802.11 data frame.
    pub const WIFI: u32 = 3;
    /// Added to an ethertype: the header that it announces. Also where the walk starts on links
    /// with a header of another kind, once that has been read.
    pub const ETHERTYPE: u32 = 0x1_0000;
}

/// The state of a walk through a frame's headers. Plain data: in the kernel it lives in a
/// per-CPU map, between calls of global functions.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Walk {
    /// The innermost packet found so far.
    pub packet: Packet,
    /// The packet around it, which is the answer if the inner one cannot be metered.
    pub outer: Packet,
    /// 1 if there is an outer packet.
    pub has_outer: u32,
    /// Where the walk stands, in bytes from the frame's start.
    pub offset: u32,
    /// What stands there, see [`next`].
    pub next: u32,
    /// The frame's length on the wire.
    pub wire: u32,
}

impl Walk {
    /// A walk that starts at `offset` with the header `next`.
    #[inline(always)]
    pub fn start(&mut self, offset: u32, next: u32, wire: u32) {
        self.packet = Packet { segments: 1, sizes: [wire, 0, 0, 0], ..Packet::default() };
        self.has_outer = 0;
        self.offset = offset;
        self.next = next;
        self.wire = wire;
    }

    /// Goes on behind the packet found, which is kept as the outer one.
    #[inline(always)]
    fn descend(&mut self, offset: u32, next: u32) {
        self.outer = self.packet;
        self.has_outer = 1;
        self.offset = offset;
        self.next = next;
        let [wire, ..] = self.packet.sizes;
        self.packet.sizes = [wire, 0, 0, 0];
        self.packet.src_port = 0;
        self.packet.dst_port = 0;
        self.packet.tcp_flags = 0;
        self.packet.icmp_type = 0;
        self.packet.icmp_code = 0;
    }

    /// Ends the walk: with the outer packet if there is one, else with the reason.
    #[inline(always)]
    pub fn give_up(&mut self, why: Reject) -> Result<(), Reject> {
        self.next = next::DONE;
        if self.has_outer == 0 {
            return Err(why);
        }
        self.packet = self.outer;
        Ok(())
    }
}

/// Parses a frame that starts with `first` (see [`next`]) at `offset`. The whole of the parser,
/// as the host runs it.
///
/// `wire` is the frame's length on the wire, of which `b` may hold less.
pub fn parse<B: PacketBytes>(
    b: &B,
    offset: u32,
    first: u32,
    wire: u32,
    decode_tunnels: bool,
) -> Result<Packet, Reject> {
    let mut packet = Packet::default();
    if fast(b, offset, first, wire, decode_tunnels, &mut packet) {
        return Ok(packet);
    }
    let mut walk = Walk::default();
    walk.start(offset, first, wire);
    deep(b, decode_tunnels, &mut walk)?;
    Ok(walk.packet)
}

/// The whole walk in one call; the kernel makes the same rounds through global functions.
pub fn deep<B: PacketBytes>(b: &B, decode_tunnels: bool, w: &mut Walk) -> Result<(), Reject> {
    for _ in 0..MAX_ROUNDS {
        let step = match link_step(b, w) {
            Ok(()) => network_step(b, decode_tunnels, w),
            Err(why) => Err(why),
        };
        if let Err(why) = step {
            return w.give_up(why);
        }
        if w.next == next::DONE {
            return Ok(());
        }
    }
    w.give_up(Reject::TooDeep)
}

/// Parses a frame on the beaten track and says whether it was one. If not, `p` means nothing;
/// if so, it is the same as the walk's.
#[inline(always)]
pub fn fast<B: PacketBytes>(
    b: &B,
    offset: u32,
    first: u32,
    wire: u32,
    decode_tunnels: bool,
    p: &mut Packet,
) -> bool {
    *p = Packet { segments: 1, sizes: [wire, 0, 0, 0], ..Packet::default() };
    fast_inner(b, offset, first, wire, decode_tunnels, p).is_some()
}

#[inline(always)]
fn fast_inner<B: PacketBytes>(
    b: &B,
    offset: u32,
    first: u32,
    wire: u32,
    decode_tunnels: bool,
    p: &mut Packet,
) -> Option<()> {
    if first != next::ETHERNET {
        return None;
    }
    let mut at = link::ethernet(b, offset, p).ok()?;
    if link::is_vlan(at.ethertype) {
        at = link::vlan(b, at.offset, p).ok()?;
    }
    let t = match at.ethertype {
        ethertype::IPV4 => network::ipv4(b, at.offset, wire, p).ok()?,
        ethertype::IPV6 => network::ipv6(b, at.offset, wire, p).ok()?,
        _ => return None,
    };
    if p.fragment != FRAGMENT_NONE
        || network::is_extension(t.protocol) && p.ip_version == 6
        || matches!(t.protocol, protocol::IPV4 | protocol::IPV6)
        || !transport::read(b, t, p)
        || decode_tunnels && tunnel::is_candidate(p)
    {
        return None;
    }
    Some(())
}

/// Goes from a link header to IP, over tags, labels and `PPPoE`. Does nothing where IP is next.
#[inline(always)]
pub fn link_step<B: PacketBytes>(b: &B, w: &mut Walk) -> Result<(), Reject> {
    let mut at = match w.next {
        next::IP | next::DONE => return Ok(()),
        next::ETHERNET => link::ethernet(b, w.offset, &mut w.packet)?,
        next::WIFI => link::wifi(b, w.offset, &mut w.packet)?,
        kind => Follow { offset: w.offset, ethertype: kind as u16 },
    };
    at = link::tags(b, at, &mut w.packet)?;
    w.offset = at.offset;
    w.next = match at.ethertype {
        ethertype::ETHERNET => next::ETHERNET,
        _ => next::IP,
    };
    Ok(())
}

/// Reads IP and transport, and goes on into IP-in-IP and tunnels. Does nothing where a link
/// header is next.
#[inline(always)]
pub fn network_step<B: PacketBytes>(
    b: &B,
    decode_tunnels: bool,
    w: &mut Walk,
) -> Result<(), Reject> {
    if w.next != next::IP {
        return Ok(());
    }
    let p = &mut w.packet;
    let [first, _] = b.read::<2>(w.offset).ok_or(Reject::Truncated)?;
    let t = match first >> 4 {
        4 => network::ipv4(b, w.offset, w.wire, p)?,
        6 => {
            let t = network::ipv6(b, w.offset, w.wire, p)?;
            network::extensions(b, t, p)?
        }
        _ => return Err(Reject::NonIp),
    };
    if p.fragment == FRAGMENT_LATER {
        transport::fragment(t, p);
        w.next = next::DONE;
        return Ok(());
    }
    let _complete = transport::read(b, t, p);
    if matches!(t.protocol, protocol::IPV4 | protocol::IPV6) && p.fragment == FRAGMENT_NONE {
        w.descend(t.offset, next::IP);
        return Ok(());
    }
    w.next = next::DONE;
    if !decode_tunnels || p.fragment != FRAGMENT_NONE || !tunnel::is_candidate(p) {
        return Ok(());
    }
    if let Some(found) = tunnel::decode(b, p) {
        let next = match found.carried {
            Carried::Ethernet => next::ETHERNET,
            Carried::Wifi => next::WIFI,
            Carried::Ip => next::IP,
        };
        w.descend(found.offset, next);
        w.packet.tunnel = found.id;
        w.packet.vni = found.vni;
    }
    Ok(())
}
