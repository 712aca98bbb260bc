//! Do a packet's headers tell the truth about its length?
//!
//! nDPI 4.2 reads out of bounds, and can be crashed, when they do not. What passes here is cut to
//! the length its IP header states, and can be taken apart.

use std::ops::ControlFlow;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Extension headers followed in an IPv6 packet; one with more is refused.
const MAX_EXTENSIONS: usize = 8;

/// A packet whose headers are sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sound<'p> {
    /// From its IP header on, without what follows it in the frame.
    pub bytes: &'p [u8],
    /// Same as `bytes.len()`, which its header states in 16 bits.
    pub length: u16,
    /// What must stay the same for a flow's life.
    pub layers: Layers,
    /// From its transport header on.
    segment: &'p [u8],
}

/// A packet's transport, as far as it tells who said what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport<'p> {
    /// A segment.
    Tcp {
        /// Of the sender.
        port: u16,
        /// Of the payload's first byte, or of SYN.
        sequence: u32,
        /// SYN without ACK.
        opens: bool,
        payload: &'p [u8],
    },
    /// A datagram; if it is fragmented, its first fragment.
    Udp {
        /// Of the sender.
        port: u16,
        payload: &'p [u8],
    },
}

impl<'p> Sound<'p> {
    /// The sender's address; IPv4's is followed by zeros.
    pub fn source(&self) -> [u8; 16] {
        let mut address = [0; 16];
        let place = if self.layers.ip_version == 4 { 12..16 } else { 8..24 };
        if let Some(bytes) = self.bytes.get(place) {
            address[..bytes.len()].copy_from_slice(bytes);
        }
        address
    }

    /// The sender's port and the receiver's, if it is TCP or UDP.
    pub fn ports(&self) -> Option<[u16; 2]> {
        let ports = self.segment.first_chunk::<4>()?;
        let [s0, s1, d0, d1] = *ports;
        matches!(self.layers.transport, TCP | UDP)
            .then_some([u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])])
    }

    /// Its transport, if that is TCP or UDP.
    pub fn transport(&self) -> Option<Transport<'p>> {
        const SYN_ACK: u8 = 0x12;
        const SYN: u8 = 0x02;
        let port = u16::from_be_bytes(*self.segment.first_chunk()?);
        match self.layers.transport {
            TCP => {
                let header = self.segment.first_chunk::<20>()?;
                Some(Transport::Tcp {
                    port,
                    sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                    opens: header[13] & SYN_ACK == SYN,
                    payload: self.segment.get(usize::from(header[12] >> 4) * 4..)?,
                })
            }
            UDP => {
                let header = self.segment.first_chunk::<8>()?;
                let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
                let payload = self.segment.get(8..length.min(self.segment.len()))?;
                Some(Transport::Udp { port, payload })
            }
            _ => None,
        }
    }
}

/// The protocols that carry a packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layers {
    ip_version: u8,
    /// Its number in the IP header.
    pub transport: u8,
}

/// Where a packet's headers lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    pub layers: Layers,
    /// Bytes before the transport header.
    pub at: usize,
    /// It is the first fragment of several.
    more_fragments: bool,
}

/// The packet, if its headers are sound.
pub(super) fn sound(packet: &[u8]) -> Option<Sound<'_>> {
    let length = stated_length(packet)?;
    let bytes = packet.get(..usize::from(length))?;
    let Lead { layers, at, more_fragments } = lead(bytes)?;
    let segment = bytes.get(at..)?;
    is_sound(layers.transport, segment, more_fragments).then_some(Sound {
        bytes,
        length,
        layers,
        segment,
    })
}

/// The length that the IP header states, itself included.
pub(super) fn stated_length(packet: &[u8]) -> Option<u16> {
    match packet.first()? >> 4 {
        4 => packet.get(2..4)?.first_chunk().map(|field| u16::from_be_bytes(*field)),
        // A jumbogram states 0 and cannot be given to nDPI, whose lengths have 16 bits. Here it is
        // taken for a packet without a payload, and the check of its transport header refuses it.
        6 => u16::from_be_bytes(*packet.get(4..6)?.first_chunk()?).checked_add(40),
        _ => None,
    }
}

/// Follows a packet's headers to its transport header, if it has one.
pub(super) fn lead(packet: &[u8]) -> Option<Lead> {
    match packet.first()? >> 4 {
        4 => lead_v4(packet),
        6 => lead_v6(packet),
        _ => None,
    }
}

fn lead_v4(packet: &[u8]) -> Option<Lead> {
    let header = packet.first_chunk::<20>()?;
    let at = usize::from(header[0] & 0x0f) * 4;
    if at < 20 || at > packet.len() {
        return None;
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    // A later fragment has no transport header, and nDPI does not reassemble.
    if fragment & 0x1fff != 0 {
        return None;
    }
    let layers = Layers { ip_version: 4, transport: header[9] };
    Some(Lead { layers, at, more_fragments: fragment & 0x2000 != 0 })
}

fn lead_v6(packet: &[u8]) -> Option<Lead> {
    let header = packet.first_chunk::<40>()?;
    let mut next = header[6];
    let mut rest = &packet[40..];
    let mut more_fragments = false;
    for _ in 0..=MAX_EXTENSIONS {
        match extension(next, rest, &mut more_fragments)? {
            ControlFlow::Continue((following, behind)) => (next, rest) = (following, behind),
            ControlFlow::Break(()) => {
                let layers = Layers { ip_version: 6, transport: next };
                return Some(Lead { layers, at: packet.len() - rest.len(), more_fragments });
            }
        }
    }
    None
}

/// Steps over an IPv6 extension header, or stops at anything else; `None` if it is not sound.
///
/// Steps over exactly what nDPI steps over: what it reads as a transport header has to be what we
/// checked as one.
fn extension<'p>(
    kind: u8,
    rest: &'p [u8],
    more_fragments: &mut bool,
) -> Option<ControlFlow<(), (u8, &'p [u8])>> {
    let length = match kind {
        // Hop-by-hop, routing, destination options: RFC 8200, sections 4.3, 4.4 and 4.6.
        // Mobility: RFC 6275, section 6.1.1. It carries nothing, but nDPI reads on behind it.
        0 | 43 | 60 | 135 => (usize::from(*rest.get(1)?) + 1) * 8,
        // Fragment: section 4.5.
        44 => {
            let header = rest.first_chunk::<8>()?;
            let field = u16::from_be_bytes([header[2], header[3]]);
            if field & 0xfff8 != 0 {
                return None;
            }
            *more_fragments = field & 1 != 0;
            8
        }
        // What follows an authentication header (51) nDPI does not look at.
        _ => return Some(ControlFlow::Break(())),
    };
    let following = *rest.first()?;
    Some(ControlFlow::Continue((following, rest.get(length..)?)))
}

/// The transport header fits and its lengths are in bounds. Other protocols have none we know.
fn is_sound(protocol: u8, segment: &[u8], more_fragments: bool) -> bool {
    match protocol {
        TCP => segment.first_chunk::<20>().is_some_and(|header| {
            let data = usize::from(header[12] >> 4) * 4;
            data >= 20 && data <= segment.len()
        }),
        UDP => segment.first_chunk::<8>().is_some_and(|header| {
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            // The first fragment of a datagram states the length of the whole.
            length >= 8 && (length <= segment.len() || more_fragments)
        }),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use crate::dissect::samples::{Packet, dns_query, http_get, tls_client_hello};

    /// What of a packet is sound, as bytes.
    fn sound(packet: &[u8]) -> Option<&[u8]> {
        let sound = super::sound(packet)?;
        assert_eq!(sound.bytes.len(), usize::from(sound.length));
        Some(sound.bytes)
    }

    #[test]
    fn whole_packets_pass_and_lose_their_padding() {
        for packet in [tls_client_hello(), dns_query(), http_get()] {
            assert_eq!(sound(&packet), Some(&packet[..]));
            let mut padded = packet.clone();
            padded.extend([0; 20]);
            assert_eq!(sound(&padded), Some(&packet[..]));
        }
    }

    #[test]
    fn a_packet_cut_anywhere_is_refused() {
        for packet in [tls_client_hello(), dns_query(), Packet::udp6(b"payload")] {
            for length in 0..packet.len() {
                assert_eq!(sound(&packet[..length]), None, "cut to {length}");
            }
        }
    }

    /// One byte of a sound packet changed into a lie.
    fn lie(packet: &[u8], at: usize, value: u8) -> Option<usize> {
        let mut packet = packet.to_vec();
        packet[at] = value;
        sound(&packet).map(<[u8]>::len)
    }

    #[test]
    fn lying_headers_are_refused() {
        let tcp = http_get();
        assert_eq!(lie(&tcp, 0, 0x55), None, "IP version");
        assert_eq!(lie(&tcp, 0, 0x44), None, "IP header length below 5 words");
        assert_eq!(lie(&tcp, 2, 0xff), None, "IP total length beyond the packet");
        assert_eq!(lie(&tcp, 32, 0x40), None, "TCP data offset below 5 words");
        assert_eq!(lie(&tcp[..], 7, 1), None, "a later fragment");

        let udp = dns_query();
        assert_eq!(lie(&udp, 24, 0xff), None, "UDP length beyond the packet");
        assert_eq!(lie(&udp, 25, 7), None, "UDP length below its header");

        let mut short = Packet::tcp(b"");
        short[32] = 0x60;
        assert_eq!(sound(&short), None, "TCP options beyond the packet");
    }

    /// An IPv6 packet with eight bytes of such an extension header before its UDP header.
    fn extended(kind: u8) -> Vec<u8> {
        let udp = Packet::udp6(b"payload");
        let mut packet = udp[..40].to_vec();
        packet[5] += 8;
        packet[6] = kind;
        packet.extend([17, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(&udp[40..]);
        packet
    }

    #[test]
    fn extension_headers_are_followed() {
        for kind in [0, 43, 44, 60, 135] {
            let packet = extended(kind);
            assert_eq!(sound(&packet), Some(&packet[..]), "{kind}");
            // The length field of UDP, behind the extension.
            assert_eq!(lie(&packet, 52, 0xff), None, "{kind}: UDP length beyond the packet");
        }
        assert_eq!(lie(&extended(0), 41, 200), None, "options beyond the packet");
        assert_eq!(lie(&extended(44), 43, 8), None, "a later fragment");

        let mut endless = Packet::udp6(b"")[..40].to_vec();
        endless[5] = 160;
        endless[6] = 0;
        endless.extend([0; 160]);
        assert_eq!(sound(&endless), None, "nothing but options");
    }

    /// nDPI takes the authentication header for the transport, so that the flow is none of UDP.
    #[test]
    fn an_authentication_header_is_not_followed() {
        let with_ah = extended(51);
        let layers = |packet| super::sound(packet).map(|sound| sound.layers);
        assert!(layers(&with_ah).is_some());
        assert_ne!(layers(&with_ah), layers(&Packet::udp6(b"payload")));
    }
}
