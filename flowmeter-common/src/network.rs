//! What do the IP headers say, and where does the transport start?

use crate::bytes::PacketBytes;
use crate::packet::{FRAGMENT_FIRST, FRAGMENT_LATER, FRAGMENT_NONE, Packet, Reject, ipv4_address};

/// IPv6 extension headers that are followed before one more means [`Reject::TooDeep`].
pub const MAX_EXTENSIONS: u32 = 8;

/// What an IP header leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Offset of the transport header from the frame's start.
    pub offset: u32,
    /// Bytes from there to the end of the IP packet, as its header says.
    pub length: u32,
    /// IP protocol number.
    pub protocol: u8,
}

/// Reads the IPv4 header at `offset` (RFC 791).
///
/// `wire` is the frame's length on the wire: a total length of 0 (segmentation offload, or a
/// packet beyond 64 KiB) or below the header's own means all of the frame from here on.
#[inline(always)]
pub fn ipv4<B: PacketBytes>(
    b: &B,
    offset: u32,
    wire: u32,
    p: &mut Packet,
) -> Result<Transport, Reject> {
    let h = b.read::<20>(offset).ok_or(Reject::Truncated)?;
    let [vihl, _, l0, l1, i0, i1, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = h;
    if vihl >> 4 != 4 || vihl & 15 < 5 {
        return Err(Reject::Malformed);
    }
    let header = u32::from(vihl & 15) * 4;
    let mut total = u32::from(u16::from_be_bytes([l0, l1]));
    if total < header {
        total = wire.saturating_sub(offset).max(header);
    }
    p.src = ipv4_address([s0, s1, s2, s3]);
    p.dst = ipv4_address([d0, d1, d2, d3]);
    p.ip_version = 4;
    p.network_offset = offset as u16;
    let fragment = u16::from_be_bytes([f0, f1]);
    let more = fragment & 0x2000 != 0;
    p.fragment = match (fragment & 0x1fff, more) {
        (0, false) => FRAGMENT_NONE,
        (0, true) => FRAGMENT_FIRST,
        _ => FRAGMENT_LATER,
    };
    p.fragment_id =
        if p.fragment == FRAGMENT_NONE { 0 } else { u32::from(u16::from_be_bytes([i0, i1])) };
    size(p, total, total - header);
    Ok(Transport { offset: offset + header, length: total - header, protocol })
}

/// Reads the fixed IPv6 header at `offset` (RFC 8200). Extension headers are [`extensions`]' part.
///
/// A payload length of 0 means all of the frame from here on: a jumbogram (RFC 2675) or
/// segmentation offload.
#[inline(always)]
pub fn ipv6<B: PacketBytes>(
    b: &B,
    offset: u32,
    wire: u32,
    p: &mut Packet,
) -> Result<Transport, Reject> {
    let h = b.read::<8>(offset).ok_or(Reject::Truncated)?;
    let words = [8, 16, 24, 32].map(|at| b.read::<8>(offset + at));
    let [Some(s0), Some(s1), Some(d0), Some(d1)] = words else {
        return Err(Reject::Truncated);
    };
    let [version, _, _, _, l0, l1, next, _] = h;
    if version >> 4 != 6 {
        return Err(Reject::Malformed);
    }
    let mut length = u32::from(u16::from_be_bytes([l0, l1]));
    if length == 0 {
        length = wire.saturating_sub(offset + 40);
    }
    p.src = [u64::from_ne_bytes(s0), u64::from_ne_bytes(s1)];
    p.dst = [u64::from_ne_bytes(d0), u64::from_ne_bytes(d1)];
    p.ip_version = 6;
    p.network_offset = offset as u16;
    p.fragment = FRAGMENT_NONE;
    p.fragment_id = 0;
    size(p, length + 40, length);
    Ok(Transport { offset: offset + 40, length, protocol: next })
}

/// Whether `next` is an extension header that [`extensions`] follows: hop-by-hop, routing,
/// fragment, destination options, mobility; or "no next header".
///
/// An authentication header (51) is a protocol of its own here, as it is for `NFStream`.
#[inline(always)]
pub fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 59 | 60 | 135)
}

/// Follows the IPv6 extension headers at `t` to the transport (RFC 8200 §4).
#[inline(always)]
pub fn extensions<B: PacketBytes>(
    b: &B,
    mut t: Transport,
    p: &mut Packet,
) -> Result<Transport, Reject> {
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(t.protocol) {
            break;
        }
        if t.protocol == 59 {
            return Err(Reject::NoNextHeader);
        }
        let [next, length, o0, o1, i0, i1, i2, i3] =
            b.read::<8>(t.offset).ok_or(Reject::Truncated)?;
        let mut bytes = 8;
        if t.protocol == 44 {
            let field = u16::from_be_bytes([o0, o1]);
            if field & 0xfff9 != 0 {
                p.fragment = if field & 0xfff8 == 0 { FRAGMENT_FIRST } else { FRAGMENT_LATER };
                p.fragment_id = u32::from_be_bytes([i0, i1, i2, i3]);
            }
        } else {
            bytes += u32::from(length) * 8;
        }
        if bytes > t.length {
            return Err(Reject::Malformed);
        }
        t = Transport { offset: t.offset + bytes, length: t.length - bytes, protocol: next };
        if p.fragment == FRAGMENT_LATER {
            break; // what follows is the middle of something
        }
    }
    if is_extension(t.protocol) && p.fragment != FRAGMENT_LATER {
        return Err(Reject::TooDeep);
    }
    let [_, ip, _, _] = p.sizes;
    size(p, ip, t.length);
    Ok(t)
}

/// Notes the sizes of the IP packet and of its transport part.
#[inline(always)]
fn size(p: &mut Packet, ip: u32, transport: u32) {
    let [link, _, _, payload] = p.sizes;
    p.sizes = [link, ip, transport, payload];
}
