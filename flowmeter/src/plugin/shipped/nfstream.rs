//! Which bytes do NFStream's plugins take for a packet's payload?

use flowmeter_common::packet::protocol;

/// The payload of UDP or TCP as NFStream's plugins see it: read as IPv4 whatever the version says, so
/// that of IPv6 there is none. UDP's own length is not looked at. None where NFStream finds none, or
/// would end its meter.
pub fn payload(ip: &[u8]) -> Option<&[u8]> {
    let head: &[u8; 20] = ip.first_chunk()?;
    let start = usize::from(head[0] & 0x0f) * 4;
    if start < 20 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let end = if total == 0 { ip.len() } else { total.min(ip.len()) };
    let fragment_offset = u16::from_be_bytes([head[6], head[7]]) & 0x1fff;
    if fragment_offset != 0 {
        return None;
    }
    let segment = ip.get(start..end)?;
    match head[9] {
        protocol::UDP => segment.get(8..),
        protocol::TCP => {
            let header = usize::from(segment.first_chunk::<20>()?[12] >> 4) * 4;
            if header < 20 { None } else { Some(segment.get(header..).unwrap_or_default()) }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::payload;

    #[test]
    fn a_payload_ends_with_the_packet_not_with_the_frame() {
        let mut packet = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.resize(28, 0);
        packet.extend(b"abxx");
        assert_eq!(payload(&packet), Some(&b"ab"[..]));
        packet[3] = 0;
        assert_eq!(payload(&packet), Some(&b"abxx"[..]));
        packet[7] = 1;
        assert_eq!(payload(&packet), None, "a later fragment");
        packet[0] = 0x60;
        assert_eq!(payload(&packet), None, "IPv6");
        assert_eq!(payload(&packet[..19]), None);
    }
}
