//! Where does the IP header of a frame start, and what do its tags say?

use crate::bytes::PacketBytes;
use crate::packet::{Packet, Reject};

/// Ethertypes (IEEE 802 registry) that the parser knows.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// The service tag in use before 802.1ad.
    pub const OLD_SERVICE_VLAN: u16 = 0x9100;
    /// MPLS unicast.
    pub const MPLS: u16 = 0x8847;
    /// MPLS with upstream-assigned label.
    pub const MPLS_UPSTREAM: u16 = 0x8848;
    /// `PPPoE` session.
    pub const PPPOE: u16 = 0x8864;
    /// Transparent Ethernet bridging: an Ethernet frame follows (GRE, GENEVE).
    pub const ETHERNET: u16 = 0x6558;
}

/// Tags (VLAN, MPLS stack and `PPPoE` count one each) that are followed before one more means
/// [`Reject::TooDeep`].
pub const MAX_TAGS: u32 = 6;
/// MPLS labels in one stack that are followed.
pub const MAX_LABELS: u32 = 8;

/// PPP protocol numbers of IP (RFC 1332, RFC 5072).
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;

/// What follows a link header: where, and of which type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Offset of the next header from the frame's start.
    pub offset: u32,
    /// Its ethertype.
    pub ethertype: u16,
}

/// Reads an Ethernet II or 802.3/LLC/SNAP header at `offset` and notes the MAC addresses.
#[inline(always)]
pub fn ethernet<B: PacketBytes>(b: &B, offset: u32, p: &mut Packet) -> Result<Follow, Reject> {
    let h = b.read::<14>(offset).ok_or(Reject::Truncated)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = h;
    p.dst_mac = [d0, d1, d2, d3, d4, d5];
    p.src_mac = [s0, s1, s2, s3, s4, s5];
    let kind = u16::from_be_bytes([t0, t1]);
    if kind >= 1536 {
        return Ok(Follow { offset: offset + 14, ethertype: kind });
    }
    snap(b, offset + 14)
}

/// Reads LLC and SNAP (RFC 1042); other LLC is not IP.
#[inline(always)]
pub fn snap<B: PacketBytes>(b: &B, offset: u32) -> Result<Follow, Reject> {
    let [dsap, ssap, control, _, _, _, t0, t1] = b.read::<8>(offset).ok_or(Reject::NonIp)?;
    if dsap != 0xaa || ssap != 0xaa || control != 3 {
        return Err(Reject::NonIp);
    }
    Ok(Follow { offset: offset + 8, ethertype: u16::from_be_bytes([t0, t1]) })
}

/// Whether `kind` announces a VLAN tag.
#[inline(always)]
pub fn is_vlan(kind: u16) -> bool {
    kind == ethertype::VLAN
        || kind == ethertype::SERVICE_VLAN
        || kind == ethertype::OLD_SERVICE_VLAN
}

/// Reads the VLAN tag behind a tag ethertype: notes its id, and as the outer one that before it.
#[inline(always)]
pub fn vlan<B: PacketBytes>(b: &B, offset: u32, p: &mut Packet) -> Result<Follow, Reject> {
    let [t0, t1, e0, e1] = b.read::<4>(offset).ok_or(Reject::Truncated)?;
    note_tag(p, u16::from_be_bytes([t0, t1]));
    Ok(Follow { offset: offset + 4, ethertype: u16::from_be_bytes([e0, e1]) })
}

/// Notes a tag control field, from the frame or from the NIC's metadata, outermost first.
#[inline(always)]
pub fn note_tag(p: &mut Packet, control: u16) {
    let id = control & 0x0fff;
    if id == 0 {
        return; // 802.1p priority tag: no VLAN
    }
    if p.outer_vlan == 0 {
        p.outer_vlan = p.vlan;
    }
    p.vlan = id;
}

/// Follows VLAN tags, MPLS and `PPPoE` from `at` to what they carry: IP, Ethernet (MPLS
/// pseudowire with control word, RFC 4448) or something that is not IP.
#[inline(always)]
pub fn tags<B: PacketBytes>(b: &B, mut at: Follow, p: &mut Packet) -> Result<Follow, Reject> {
    for _ in 0..MAX_TAGS {
        at = match at.ethertype {
            kind if is_vlan(kind) => vlan(b, at.offset, p)?,
            ethertype::MPLS | ethertype::MPLS_UPSTREAM => return mpls(b, at.offset),
            ethertype::PPPOE => pppoe(b, at.offset)?,
            ethertype::IPV4 | ethertype::IPV6 | ethertype::ETHERNET => return Ok(at),
            _ => return Err(Reject::NonIp),
        };
    }
    match at.ethertype {
        ethertype::IPV4 | ethertype::IPV6 | ethertype::ETHERNET => Ok(at),
        _ => Err(Reject::TooDeep),
    }
}

/// Follows a label stack (RFC 3032) to its bottom. MPLS does not say what it carries: the first
/// nibble does (RFC 4928): 4 and 6 are IP, 0 is a pseudowire's control word before Ethernet.
#[inline(always)]
fn mpls<B: PacketBytes>(b: &B, mut offset: u32) -> Result<Follow, Reject> {
    for _ in 0..MAX_LABELS {
        let [_, _, bottom, _] = b.read::<4>(offset).ok_or(Reject::Truncated)?;
        offset += 4;
        if bottom & 1 != 0 {
            let [first, _] = b.read::<2>(offset).ok_or(Reject::Truncated)?;
            return match first >> 4 {
                4 => Ok(Follow { offset, ethertype: ethertype::IPV4 }),
                6 => Ok(Follow { offset, ethertype: ethertype::IPV6 }),
                0 => Ok(Follow { offset: offset + 4, ethertype: ethertype::ETHERNET }),
                _ => Err(Reject::NonIp),
            };
        }
    }
    Err(Reject::TooDeep)
}

/// Reads a `PPPoE` session header and the PPP protocol behind it (RFC 2516 §5).
#[inline(always)]
fn pppoe<B: PacketBytes>(b: &B, offset: u32) -> Result<Follow, Reject> {
    let [_, _, _, _, _, _, p0, p1] = b.read::<8>(offset).ok_or(Reject::Truncated)?;
    let ethertype = ppp(u16::from_be_bytes([p0, p1])).ok_or(Reject::NonIp)?;
    Ok(Follow { offset: offset + 8, ethertype })
}

/// The ethertype of a PPP protocol number, if it is IP.
#[inline(always)]
pub fn ppp(protocol: u16) -> Option<u16> {
    match protocol {
        PPP_IPV4 => Some(ethertype::IPV4),
        PPP_IPV6 => Some(ethertype::IPV6),
        _ => None,
    }
}

/// Reads the header of an 802.11 data frame and its LLC/SNAP (IEEE 802.11 §9.3.2.1).
///
/// Some controllers send the frame control field with its bytes swapped inside CAPWAP; both orders
/// are understood.
#[inline(always)]
pub fn wifi<B: PacketBytes>(b: &B, offset: u32, p: &mut Packet) -> Result<Follow, Reject> {
    let [f0, f1] = b.read::<2>(offset).ok_or(Reject::Truncated)?;
    let is_data = |f: u8| f & 0x0f == 0x08;
    let (kind, flags) = if is_data(f0) { (f0, f1) } else { (f1, f0) };
    if !is_data(kind) || kind & 0x40 != 0 {
        return Err(Reject::NonIp); // management, control, or data without a body
    }
    let first = b.read::<6>(offset + 4).ok_or(Reject::Truncated)?;
    let second = b.read::<6>(offset + 10).ok_or(Reject::Truncated)?;
    let third = b.read::<6>(offset + 16).ok_or(Reject::Truncated)?;
    let (to_ds, from_ds) = (flags & 1 != 0, flags & 2 != 0);
    if flags & 0x40 != 0 {
        return Err(Reject::NonIp); // protected: the body is encrypted
    }
    let mut header = 24;
    p.dst_mac = if to_ds { third } else { first };
    p.src_mac = if from_ds && !to_ds { third } else { second };
    if to_ds && from_ds {
        p.src_mac = b.read::<6>(offset + 24).ok_or(Reject::Truncated)?;
        header += 6;
    }
    if kind & 0x80 != 0 {
        header += 2; // QoS control
    }
    snap(b, offset + header)
}
