//! How is a packet dissected of which not all was captured?
//!
//! nDPI takes no packet that is shorter than its headers say, so the copy that it gets states the
//! lengths of what is there. The sequence number stays, so that what was cut off is a gap in the
//! stream. A length beyond the packet on the wire is a lie, and is left for `headers` to refuse.

use super::headers::{self, Lead, TCP, UDP};

/// How much of a packet that was cut is shown to nDPI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// All that can be read rightly.
    #[default]
    Sound,
    /// What `NFStream` 6.6.0's nDPI takes: all that is there of TCP, even half a name, and nothing of
    /// UDP, whose own length says more.
    AsNfstream,
}

/// The packet `ip`, which had `wire` bytes from its IP header on, with lengths that what is there of
/// it can keep. What was captured whole is not copied.
pub fn as_captured<'p>(
    ip: &'p [u8],
    wire: u32,
    shown: Shown,
    scratch: &'p mut Vec<u8>,
) -> &'p [u8] {
    if cut_from(ip, wire).is_none() {
        return ip;
    }
    scratch.clear();
    scratch.extend_from_slice(ip);
    match shown {
        Shown::Sound => shorten_to_fit(scratch, wire),
        Shown::AsNfstream => {
            // Where this fails there is no IP header to read, and the packet is refused.
            let _ = set_length(scratch, ip.len());
        }
    }
    scratch
}

/// With [`Shown::Sound`], in place.
pub(super) fn shorten_to_fit(packet: &mut [u8], wire: u32) {
    if let Some(stated) = cut_from(packet, wire) {
        // What has no transport header that could be read is refused, whatever its lengths.
        let _ = shorten(packet, stated);
    }
}

/// The length of the packet on the wire, if not all of it is there.
fn cut_from(ip: &[u8], wire: u32) -> Option<usize> {
    let stated = usize::from(headers::stated_length(ip)?);
    (stated > ip.len() && stated <= wire as usize).then_some(stated)
}

/// Writes the lengths of what is there into the headers, which state more: `stated` bytes.
fn shorten(packet: &mut [u8], stated: usize) -> Option<()> {
    let Lead { layers, at, .. } = headers::lead(packet)?;
    let before = stated.checked_sub(at)?;
    let segment = packet.get_mut(at..)?;
    let kept = match layers.transport {
        UDP => shorten_udp(segment, before)?,
        TCP => shorten_tcp(segment, before)?,
        _ => segment.len(),
    };
    set_length(packet, at + kept)
}

/// Returns how many bytes of the datagram are kept.
fn shorten_udp(datagram: &mut [u8], before: usize) -> Option<usize> {
    let kept = 8 + whole_lines(datagram.get(8..)?);
    let field: &mut [u8; 2] = datagram.get_mut(4..)?.first_chunk_mut()?;
    // That of a fragment is of the whole datagram, and stays.
    if (kept..=before).contains(&usize::from(u16::from_be_bytes(*field))) {
        *field = u16::try_from(kept).ok()?.to_be_bytes();
    }
    Some(kept)
}

/// Returns how many bytes of the segment are kept.
fn shorten_tcp(segment: &mut [u8], before: usize) -> Option<usize> {
    let there = segment.len();
    let byte = segment.get_mut(12)?;
    let header = usize::from(*byte >> 4) * 4;
    if (there + 1..=before).contains(&header) {
        // It was cut within its options: those that are there to the last word stay.
        let words = there / 4;
        *byte = (words as u8) << 4 | *byte & 0x0f;
        return Some(words * 4);
    }
    Some(header + whole_lines(segment.get(header..)?))
}

/// How much of a payload that was cut is kept: of HTTP and its like the lines that are whole, since
/// the part of a host's name that is there would be taken for the name.
fn whole_lines(payload: &[u8]) -> usize {
    let word =
        payload.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    let is_text = word >= 3 && matches!(payload.get(word), Some(b' ' | b'/'));
    let end = if is_text { payload.iter().rposition(|byte| *byte == b'\n') } else { None };
    end.map_or(payload.len(), |newline| newline + 1)
}

/// Writes the packet's length into its IP header.
pub(super) fn set_length(packet: &mut [u8], length: usize) -> Option<()> {
    let (field, length) = match packet.first()? >> 4 {
        4 => (2..4, length),
        _ => (4..6, length.checked_sub(40)?),
    };
    packet.get_mut(field)?.copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Shown, as_captured};
    use crate::dissect::headers::{Transport, sound};
    use crate::dissect::samples::{Packet, dns_query, tls_client_hello};

    /// Bytes of payload of the packet as it is dissected; none if it is refused.
    fn payload(packet: &[u8], wire: usize) -> Option<usize> {
        let mut scratch = Vec::new();
        let copy = as_captured(packet, wire as u32, Shown::Sound, &mut scratch);
        let sound = sound(copy)?;
        match sound.transport()? {
            Transport::Tcp { payload, .. } | Transport::Udp { payload, .. } => Some(payload.len()),
        }
    }

    /// The sample as its headers would be with options, or behind an extension header.
    fn samples() -> Vec<(Vec<u8>, usize)> {
        let mut timestamps = Packet::tcp(b"\x17\x03\x03 sealed");
        timestamps.splice(40..40, [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        timestamps[32] = 0x80;
        timestamps[3] += 12;
        let mut extended = Packet::udp6(b"payload");
        extended.splice(40..40, [17, 0, 1, 4, 0, 0, 0, 0]);
        (extended[5], extended[6]) = (extended[5] + 8, 0);
        vec![
            (tls_client_hello(), 40),
            (timestamps, 52),
            (dns_query(), 28),
            (Packet::udp6(b"payload"), 48),
            (extended, 56),
        ]
    }

    #[test]
    fn a_packet_cut_anywhere_behind_its_headers_is_dissected() {
        for (packet, headers) in samples() {
            for there in headers..=packet.len() {
                let got = payload(&packet[..there], packet.len());
                assert_eq!(got, Some(there - headers), "{there} of {}", packet.len());
            }
        }
    }

    /// Half a host's name is shown of TCP, and of UDP nothing.
    #[test]
    fn as_nfstream_takes_it_what_is_there_of_tcp_goes_and_of_udp_nothing() {
        let shown = |packet: &[u8], there: usize, shown| {
            let mut scratch = Vec::new();
            let copy = as_captured(&packet[..there], packet.len() as u32, shown, &mut scratch);
            sound(copy).map(|sound| sound.bytes.len())
        };
        let request = Packet::tcp(b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n");
        let (line, half) = (40 + 16, 40 + 28);
        assert_eq!(shown(&request, half, Shown::AsNfstream), Some(half));
        assert_eq!(shown(&request, half, Shown::Sound), Some(line));
        let query = dns_query();
        let there = query.len() - 1;
        assert_eq!(shown(&query, there, Shown::AsNfstream), None);
        assert_eq!(shown(&query, there, Shown::Sound), Some(there));
        assert_eq!(shown(&query, query.len(), Shown::AsNfstream), Some(query.len()));
    }

    #[test]
    fn a_tcp_header_cut_within_its_options_has_no_payload() {
        let (packet, _) = samples().remove(1);
        for there in 0..52 {
            let expected = (there >= 40).then_some(0);
            assert_eq!(payload(&packet[..there], packet.len()), expected, "{there}");
        }
    }

    #[test]
    fn lengths_beyond_the_wire_are_lies() {
        for (packet, headers) in samples() {
            let cut = packet.len() - 1;
            assert_eq!(payload(&packet[..cut], cut), None, "the IP length");
            if packet.len() - headers == 7 || packet[9] == 17 {
                // UDP's length, beyond the IP packet.
                let mut liar = packet.clone();
                liar[headers - 3] += 1;
                assert_eq!(payload(&liar[..cut], packet.len()), None, "the UDP length");
            }
        }
    }

    #[test]
    fn padding_is_no_part_of_the_packet() {
        let query = dns_query();
        assert_eq!(
            payload(&[&query[..], &[0; 9]].concat(), query.len() + 9),
            Some(query.len() - 28)
        );
    }

    #[test]
    fn a_line_that_was_cut_is_not_shown() {
        let request = b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n";
        let search = b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n\r\n";
        for (packet, headers, line) in
            [(Packet::tcp(request), 40, 16), (Packet::udp_to(1900, search), 28, 21)]
        {
            for there in headers..packet.len() - 2 {
                let expected = if there < headers + line { there - headers } else { line };
                let got = payload(&packet[..there], packet.len());
                assert_eq!(got, Some(expected), "{there} of {}", packet.len());
            }
            assert_eq!(payload(&packet, packet.len()), Some(packet.len() - headers));
        }
    }

    #[test]
    fn the_first_fragment_keeps_the_length_of_its_datagram() {
        let mut first = dns_query();
        first[6] = 0x20;
        first[24] = 0x10;
        assert!(payload(&first[..40], first.len()).is_some());
    }

    proptest! {
        /// Whatever stands in it, a packet gets no longer, and a lie no truer.
        #[test]
        fn any_bytes_are_taken(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120),
            version in prop::sample::select(vec![4_u8, 6]),
            length in 0_u8..200,
            wire in 0_u32..200,
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 0x0f;
            }
            let field = if version == 4 { 3 } else { 5 };
            if let Some(low) = bytes.get_mut(field) {
                *low = length;
            }
            let mut scratch = Vec::new();
            let copy = as_captured(&bytes, wire, Shown::Sound, &mut scratch).to_vec();
            prop_assert_eq!(copy.len(), bytes.len());
            let is_changed = copy != bytes;
            prop_assert!(!is_changed || (bytes.len()..=wire as usize).contains(
                &usize::from(crate::dissect::headers::stated_length(&bytes).unwrap_or(0))
            ));
        }
    }
}
