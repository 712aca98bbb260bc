//! Which packet does a tunnel carry?
//!
//! A tunnel is decoded only where its header proves it; a plain UDP flow that happens to use a
//! tunnel's port stays a plain UDP flow. Where the carried packet cannot be metered (ARP in
//! VXLAN, say), the tunnel's own packet is.

use crate::bytes::PacketBytes;
use crate::link::ethertype;
use crate::packet::{Packet, protocol};

/// `tunnel_id` of GTP-U v1 T-PDUs (3GPP TS 29.281), UDP port 2152.
pub const GTP_U: u8 = 1;
/// `tunnel_id` of CAPWAP data (RFC 5415), UDP port 5247.
pub const CAPWAP: u8 = 2;
/// `tunnel_id` of TZSP, UDP port 37008.
pub const TZSP: u8 = 3;
/// `tunnel_id` of VXLAN (RFC 7348), UDP ports 4789 and 8472.
pub const VXLAN: u8 = 4;
/// `tunnel_id` of GENEVE (RFC 8926), UDP port 6081.
pub const GENEVE: u8 = 5;
/// `tunnel_id` of GRE (RFC 2784, RFC 2890).
pub const GRE: u8 = 6;
/// `tunnel_id` of ERSPAN types I to III over GRE.
pub const ERSPAN: u8 = 7;
/// `tunnel_id` of Teredo (RFC 4380), UDP port 3544.
pub const TEREDO: u8 = 8;

/// GTP-U extension headers that are followed.
const MAX_GTP_EXTENSIONS: u32 = 4;
/// TZSP tags that are followed.
const MAX_TZSP_TAGS: u32 = 8;

/// What a tunnel's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// An Ethernet frame.
    Ethernet,
    /// An 802.11 data frame.
    Wifi,
    /// An IP packet; its first nibble says which.
    Ip,
}

/// A decoded tunnel header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its `tunnel_id`.
    pub id: u8,
    /// Where the carried packet starts, in bytes from the frame's start.
    pub offset: u32,
    /// What it is.
    pub carried: Carried,
    /// VXLAN or GENEVE network identifier, else 0.
    pub vni: u32,
}

/// Whether the packet's protocol and ports are those of a tunnel, so that [`decode`] is worth it.
#[inline(always)]
pub fn is_candidate(p: &Packet) -> bool {
    match p.protocol {
        protocol::GRE => true,
        protocol::UDP => is_tunnel_port(p.dst_port) || is_tunnel_port(p.src_port),
        _ => false,
    }
}

#[inline(always)]
fn is_tunnel_port(port: u16) -> bool {
    matches!(port, 2152 | 3544 | 4789 | 5247 | 6081 | 8472 | 37008)
}

/// Decodes the tunnel of the packet in `p`, if it is one.
#[inline(always)]
pub fn decode<B: PacketBytes>(b: &B, p: &Packet) -> Option<Tunnel> {
    // The payload offset of GRE is where its header starts: the transport has none of its own.
    let at = u32::from(p.payload_offset);
    if p.protocol == protocol::GRE {
        return gre(b, at);
    }
    let has = |port| p.dst_port == port || p.src_port == port;
    if has(2152) {
        gtp_u(b, at)
    } else if has(5247) {
        capwap(b, at)
    } else if has(37008) {
        tzsp(b, at)
    } else if p.dst_port == 4789 || p.dst_port == 8472 {
        vxlan(b, at)
    } else if p.dst_port == 6081 {
        geneve(b, at)
    } else if has(3544) {
        teredo(b, at)
    } else {
        None
    }
}

#[inline(always)]
fn gtp_u<B: PacketBytes>(b: &B, at: u32) -> Option<Tunnel> {
    let [flags, kind] = b.read::<2>(at)?;
    if flags >> 5 != 1 || kind != 0xff {
        return None;
    }
    let mut offset = at + 8;
    if flags & 7 != 0 {
        let [next] = b.read::<1>(offset + 3)?;
        offset += 4;
        if flags & 4 != 0 {
            offset = gtp_u_extensions(b, offset, next)?;
        }
    }
    let [first, _] = b.read::<2>(offset)?;
    matches!(first >> 4, 4 | 6).then_some(Tunnel {
        id: GTP_U,
        offset,
        carried: Carried::Ip,
        vni: 0,
    })
}

/// Follows extension headers: length in units of 4 bytes, …, type of the next one.
#[inline(always)]
fn gtp_u_extensions<B: PacketBytes>(b: &B, mut offset: u32, mut next: u8) -> Option<u32> {
    for _ in 0..MAX_GTP_EXTENSIONS {
        if next == 0 {
            return Some(offset);
        }
        let [words] = b.read::<1>(offset)?;
        if words == 0 {
            return None;
        }
        offset += u32::from(words) * 4;
        [next] = b.read::<1>(offset - 1)?;
    }
    (next == 0).then_some(offset)
}

#[inline(always)]
fn capwap<B: PacketBytes>(b: &B, at: u32) -> Option<Tunnel> {
    let [preamble, length, binding, flags] = b.read::<4>(at)?;
    // A fragment's frame starts only in the first one, whose offset (bytes 6, 7) is 0.
    if preamble != 0 || (flags & 0x80 != 0 && b.read::<2>(at + 6)? != [0, 0]) {
        return None;
    }
    let header = u32::from(length >> 3) * 4;
    if header < 8 {
        return None;
    }
    let carried = if binding & 1 != 0 { Carried::Wifi } else { Carried::Ethernet };
    Some(Tunnel { id: CAPWAP, offset: at + header, carried, vni: 0 })
}

#[inline(always)]
fn tzsp<B: PacketBytes>(b: &B, at: u32) -> Option<Tunnel> {
    let [version, kind, p0, p1] = b.read::<4>(at)?;
    if version != 1 || kind > 1 {
        return None;
    }
    let carried = match u16::from_be_bytes([p0, p1]) {
        1 => Carried::Ethernet,
        0x12 => Carried::Wifi,
        _ => return None,
    };
    let mut offset = at + 4;
    for _ in 0..MAX_TZSP_TAGS {
        let [tag] = b.read::<1>(offset)?;
        offset += match tag {
            0 => 1,
            1 => {
                return Some(Tunnel { id: TZSP, offset: offset + 1, carried, vni: 0 });
            }
            _ => {
                let [length] = b.read::<1>(offset + 1)?;
                2 + u32::from(length)
            }
        };
    }
    None
}

#[inline(always)]
fn vxlan<B: PacketBytes>(b: &B, at: u32) -> Option<Tunnel> {
    let [flags, _, _, _, v0, v1, v2, reserved] = b.read::<8>(at)?;
    // I, and G of the group policy extension (draft-smith-vxlan-group-policy).
    if flags & 0x7f != 0x08 || reserved != 0 {
        return None;
    }
    let vni = u32::from_be_bytes([0, v0, v1, v2]);
    Some(Tunnel { id: VXLAN, offset: at + 8, carried: Carried::Ethernet, vni })
}

#[inline(always)]
fn geneve<B: PacketBytes>(b: &B, at: u32) -> Option<Tunnel> {
    let [first, _, p0, p1, v0, v1, v2, _] = b.read::<8>(at)?;
    if first >> 6 != 0 {
        return None;
    }
    let carried = carried_by(u16::from_be_bytes([p0, p1]))?;
    let vni = u32::from_be_bytes([0, v0, v1, v2]);
    Some(Tunnel { id: GENEVE, offset: at + 8 + u32::from(first & 0x3f) * 4, carried, vni })
}

#[inline(always)]
fn gre<B: PacketBytes>(b: &B, at: u32) -> Option<Tunnel> {
    let [flags, version, p0, p1] = b.read::<4>(at)?;
    if version & 7 != 0 {
        return None; // version 1 carries PPP (RFC 2637)
    }
    let bit = |mask: u8| if flags & mask != 0 { 4 } else { 0 };
    let offset = at + 4 + bit(0x80) + bit(0x20) + bit(0x10);
    match u16::from_be_bytes([p0, p1]) {
        // ERSPAN: type I has no header and no sequence number, type II has 8 bytes of it.
        0x88be => {
            let header = if flags & 0x10 != 0 { 8 } else { 0 };
            let offset = offset + header;
            Some(Tunnel { id: ERSPAN, offset, carried: Carried::Ethernet, vni: 0 })
        }
        // Type III: 12 bytes, and 8 more with the O bit.
        0x22eb => {
            let [options] = b.read::<1>(offset + 11)?;
            let offset = offset + 12 + if options & 1 != 0 { 8 } else { 0 };
            Some(Tunnel { id: ERSPAN, offset, carried: Carried::Ethernet, vni: 0 })
        }
        kind => Some(Tunnel { id: GRE, offset, carried: carried_by(kind)?, vni: 0 }),
    }
}

#[inline(always)]
fn teredo<B: PacketBytes>(b: &B, at: u32) -> Option<Tunnel> {
    let mut offset = at;
    // Authentication (RFC 4380 §5.1.1), then origin indication; both optional.
    let [a, kind, id, value] = b.read::<4>(offset)?;
    if [a, kind] == [0, 1] {
        offset += 4 + u32::from(id) + u32::from(value) + 9;
    }
    if b.read::<2>(offset)? == [0, 0] {
        offset += 8;
    }
    let [first, _] = b.read::<2>(offset)?;
    (first >> 4 == 6).then_some(Tunnel { id: TEREDO, offset, carried: Carried::Ip, vni: 0 })
}

#[inline(always)]
fn carried_by(kind: u16) -> Option<Carried> {
    match kind {
        ethertype::IPV4 | ethertype::IPV6 => Some(Carried::Ip),
        ethertype::ETHERNET => Some(Carried::Ethernet),
        _ => None,
    }
}
