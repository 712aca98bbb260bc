//! What do the IP headers say, and where does the transport start?

use crate::bytes::PacketBytes;
use crate::packet::{FRAGMENT_FIRST, FRAGMENT_LATER, FRAGMENT_NONE, Packet, Reject};

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
    p.src = [u32::from_ne_bytes([s0, s1, s2, s3]), 0, 0, 0];
    p.dst = [u32::from_ne_bytes([d0, d1, d2, d3]), 0, 0, 0];
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
    let addresses = b.read::<32>(offset + 8).ok_or(Reject::Truncated)?;
    let [version, _, _, _, l0, l1, next, _] = h;
    if version >> 4 != 6 {
        return Err(Reject::Malformed);
    }
    let mut length = u32::from(u16::from_be_bytes([l0, l1]));
    if length == 0 {
        length = wire.saturating_sub(offset + 40);
    }
    let (src, dst) = split(&addresses);
    p.src = src;
    p.dst = dst;
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

/// Source and destination from the 32 bytes of an IPv6 header's addresses.
#[inline(always)]
fn split(a: &[u8; 32]) -> ([u32; 4], [u32; 4]) {
    let [
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        s6,
        s7,
        s8,
        s9,
        s10,
        s11,
        s12,
        s13,
        s14,
        s15, //
        d0,
        d1,
        d2,
        d3,
        d4,
        d5,
        d6,
        d7,
        d8,
        d9,
        d10,
        d11,
        d12,
        d13,
        d14,
        d15,
    ] = *a;
    let w = u32::from_ne_bytes;
    (
        [w([s0, s1, s2, s3]), w([s4, s5, s6, s7]), w([s8, s9, s10, s11]), w([s12, s13, s14, s15])],
        [w([d0, d1, d2, d3]), w([d4, d5, d6, d7]), w([d8, d9, d10, d11]), w([d12, d13, d14, d15])],
    )
}
