//! What do frames of a link type start with?

use flowmeter_common::link::{ethertype, ppp};
use flowmeter_common::packet::Reject;
use flowmeter_common::parse::next;

/// Link types (tcpdump.org, `LINKTYPE_`) that are read.
mod kind {
    pub const NULL: i32 = 0;
    pub const ETHERNET: i32 = 1;
    pub const PPP: i32 = 9;
    pub const RAW_BSD: i32 = 12;
    pub const RAW_OPENBSD: i32 = 14;
    pub const PPP_SERIAL: i32 = 50;
    pub const RAW: i32 = 101;
    pub const CISCO_HDLC: i32 = 104;
    pub const WIFI: i32 = 105;
    pub const LOOP: i32 = 108;
    pub const LINUX_COOKED: i32 = 113;
    pub const RADIOTAP: i32 = 127;
    pub const IPV4: i32 = 228;
    pub const IPV6: i32 = 229;
    pub const LINUX_COOKED_2: i32 = 276;
}

/// Where the parser starts in a frame of `link`, and with what (see [`next`]). `None` if the link
/// type is not known.
pub fn start(link: i32, bytes: &[u8]) -> Option<Result<(u32, u32), Reject>> {
    Some(match link {
        kind::ETHERNET => Ok((0, next::ETHERNET)),
        kind::RAW | kind::RAW_BSD | kind::RAW_OPENBSD | kind::IPV4 | kind::IPV6 => {
            Ok((0, next::IP))
        }
        // Four bytes of address family, in the capturing machine's order or network order: the
        // IP header itself says which version it is.
        kind::NULL | kind::LOOP => Ok((4, next::IP)),
        kind::LINUX_COOKED => at(bytes, 14, 16),
        kind::LINUX_COOKED_2 => at(bytes, 0, 20),
        kind::PPP | kind::PPP_SERIAL => serial(bytes),
        kind::CISCO_HDLC => match bytes.first() {
            Some(0x0f | 0x8f) => at(bytes, 2, 4),
            _ => serial(bytes),
        },
        kind::WIFI => Ok((0, next::WIFI)),
        kind::RADIOTAP => match bytes {
            [_, _, l0, l1, ..] => Ok((u32::from(u16::from_le_bytes([*l0, *l1])), next::WIFI)),
            _ => Err(Reject::Truncated),
        },
        _ => return None,
    })
}

/// An ethertype at `field`, and what it announces at `offset`.
fn at(bytes: &[u8], field: usize, offset: u32) -> Result<(u32, u32), Reject> {
    match bytes.get(field..).and_then(<[u8]>::first_chunk) {
        Some(ethertype) => {
            Ok((offset, next::ETHERTYPE + u32::from(u16::from_be_bytes(*ethertype))))
        }
        None => Err(Reject::Truncated),
    }
}

/// PPP, with or without address and control (RFC 1661, RFC 1662), or Cisco HDLC in its place.
fn serial(bytes: &[u8]) -> Result<(u32, u32), Reject> {
    let (field, offset) = match bytes {
        [0xff, 0x03, ..] => (2, 4),
        [0x0f | 0x8f, _, ..] => return at(bytes, 2, 4),
        _ => (0, 2),
    };
    let protocol: Option<&[u8; 2]> = bytes.get(field..).and_then(<[u8]>::first_chunk);
    let protocol = u16::from_be_bytes(*protocol.ok_or(Reject::Truncated)?);
    match ppp(protocol) {
        Some(ethertype::IPV4 | ethertype::IPV6) => Ok((offset, next::IP)),
        _ => Err(Reject::NonIp),
    }
}
