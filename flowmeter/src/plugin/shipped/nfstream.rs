//! Which bytes do NFStream's plugins take for a packet's payload?

use flowmeter_common::packet::protocol;

/// What `NFStream`'s plugins cannot read, and some of them fail at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// The payload of UDP or TCP as NFStream's plugins see it: read as IPv4 whatever the version says, so
/// that of IPv6 there is none. UDP's own length is not looked at. None of another protocol.
pub fn payload(ip: &[u8]) -> Result<Option<&[u8]>, Unreadable> {
    let head: &[u8; 20] = ip.first_chunk().ok_or(Unreadable)?;
    let start = usize::from(head[0] & 0x0f) * 4;
    if start < 20 {
        return Err(Unreadable);
    }
    if !matches!(head[9], protocol::UDP | protocol::TCP) {
        return Ok(None);
    }
    let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let end = if total == 0 { ip.len() } else { total.min(ip.len()) };
    let fragment_offset = u16::from_be_bytes([head[6], head[7]]) & 0x1fff;
    if fragment_offset != 0 {
        return Err(Unreadable);
    }
    let segment = ip.get(start..end).ok_or(Unreadable)?;
    let header = match head[9] {
        protocol::UDP if segment.len() >= 8 => 8,
        protocol::UDP => return Err(Unreadable),
        _ => usize::from(segment.first_chunk::<20>().ok_or(Unreadable)?[12] >> 4) * 4,
    };
    if head[9] == protocol::TCP && header < 20 {
        return Err(Unreadable);
    }
    Ok(Some(segment.get(header..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::{Unreadable, payload};

    #[test]
    fn a_payload_ends_with_the_packet_not_with_the_frame() {
        let mut packet = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.resize(28, 0);
        packet.extend(b"abxx");
        assert_eq!(payload(&packet), Ok(Some(&b"ab"[..])));
        packet[3] = 0;
        assert_eq!(payload(&packet), Ok(Some(&b"abxx"[..])));
        packet[7] = 1;
        assert_eq!(payload(&packet), Err(Unreadable), "a later fragment");
        packet[9] = 47;
        assert_eq!(payload(&packet), Ok(None), "neither UDP nor TCP");
        packet[0] = 0x60;
        assert_eq!(payload(&packet), Err(Unreadable), "IPv6");
        assert_eq!(payload(&packet[..19]), Err(Unreadable));
    }
}
