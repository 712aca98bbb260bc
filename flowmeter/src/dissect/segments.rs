//! Which packets was a super-packet on the wire?
//!
//! With segmentation offload the kernel has one packet for many. The dissector gets those of the
//! wire, with headers as segmentation makes them (Linux: `tcp_gso_segment`, `__udp_gso_segment`,
//! `inet_gso_segment`), but for the checksums, which nobody here looks at. What GRO has joined had
//! such headers too, except that its IP identifications need not have been in sequence.

use flowmeter_common::event::PacketEvent;
use flowmeter_common::tcp::{CWR, FIN, PSH};

use super::cut::{self, Shown, set_length};
use super::headers::{self, TCP, UDP};

/// Hands out the packets on the wire of which an event brings bytes, `ip`: each with how many came
/// before it in the event, from its IP header on and as far as it was captured.
pub fn each(
    event: &PacketEvent,
    ip: &[u8],
    scratch: &mut Vec<u8>,
    mut see: impl FnMut(u32, &[u8]),
) {
    if event.segments < 2 {
        see(0, cut::as_captured(ip, event.ip_bytes, Shown::Sound, scratch));
        return;
    }
    for index in 0..event.forwarded.into() {
        let Some(wire) = segment(event, ip, index, scratch) else { return };
        cut::shorten_to_fit(scratch, wire);
        see(index, scratch);
    }
}

/// Hands out all packets on the wire that an event stands for, as they were there: each with how many
/// came before it in the event, and with what is there of its bytes from its IP header on.
pub fn each_as_it_is(
    event: &PacketEvent,
    ip: &[u8],
    scratch: &mut Vec<u8>,
    mut see: impl FnMut(u32, &[u8]),
) {
    if event.segments < 2 {
        see(0, ip);
        return;
    }
    for index in 0..event.segments {
        let is_there = index < event.forwarded.into();
        match segment(event, ip, index, scratch).filter(|_| is_there) {
            Some(_) => see(index, scratch),
            None => see(index, &[]),
        }
    }
}

/// Writes one of the packets of a super-packet, and gives its length on the wire; none if nothing of
/// it is there.
fn segment(event: &PacketEvent, ip: &[u8], index: u32, packet: &mut Vec<u8>) -> Option<u32> {
    let header = usize::from(event.header);
    let full = (event.ip_bytes as usize).checked_sub(header)?;
    let is_last = index + 1 == event.segments;
    let wire = if is_last { event.last_ip_bytes } else { event.ip_bytes };
    let offset = full.checked_mul(index as usize)?;
    let payload = ip.get(header.checked_add(offset)?..).filter(|rest| !rest.is_empty())?;
    let length = (wire as usize).checked_sub(header)?.min(payload.len());
    packet.clear();
    packet.extend_from_slice(ip.get(..header)?);
    packet.extend_from_slice(&payload[..length]);
    let place = Place { index, is_last, offset: offset as u32, wire };
    // One whose headers lead to no transport is refused later.
    let _ = place.write(packet);
    packet.truncate(event.limit.into());
    Some(wire)
}

/// A segment's place in its super-packet.
struct Place {
    index: u32,
    is_last: bool,
    /// Bytes of payload before its own.
    offset: u32,
    /// Its length.
    wire: u32,
}

impl Place {
    /// Writes into the headers what differs from segment to segment.
    fn write(&self, packet: &mut [u8]) -> Option<()> {
        set_length(packet, self.wire as usize)?;
        let lead = headers::lead(packet)?;
        if packet.first()? >> 4 == 4 {
            let id: &mut [u8; 2] = packet.get_mut(4..)?.first_chunk_mut()?;
            *id = u16::from_be_bytes(*id).wrapping_add(self.index as u16).to_be_bytes();
        }
        let segment = packet.get_mut(lead.at..)?;
        match lead.layers.transport {
            TCP => {
                let sequence: &mut [u8; 4] = segment.get_mut(4..)?.first_chunk_mut()?;
                *sequence = u32::from_be_bytes(*sequence).wrapping_add(self.offset).to_be_bytes();
                let flags = segment.get_mut(13)?;
                if !self.is_last {
                    *flags &= !(FIN | PSH);
                }
                if self.index > 0 {
                    *flags &= !CWR;
                }
            }
            UDP => {
                let length = u16::try_from((self.wire as usize).checked_sub(lead.at)?).ok()?;
                segment.get_mut(4..6)?.copy_from_slice(&length.to_be_bytes());
            }
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use flowmeter_common::event::PacketEvent;
    use proptest::prelude::*;

    use super::each;
    use crate::dissect::headers::sound;
    use crate::dissect::samples::Packet;

    /// An event of a super-packet with this payload behind `header` bytes, in segments of `size`.
    fn event(header: usize, payload: usize, size: usize, limit: u16) -> PacketEvent {
        let segments = payload.div_ceil(size);
        PacketEvent {
            ip_bytes: (header + size.min(payload)) as u32,
            last_ip_bytes: (header + payload - (segments - 1) * size) as u32,
            segments: segments as u32,
            forwarded: segments as u16,
            header: header as u16,
            limit,
            ..PacketEvent::default()
        }
    }

    fn all(event: &PacketEvent, ip: &[u8]) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        each(event, ip, &mut Vec::new(), |index, packet| {
            assert_eq!(index as usize, packets.len());
            packets.push(packet.to_vec());
        });
        packets
    }

    /// What a segment is to look like, from the payload it has and the fields that count up.
    fn expected(whole: &[u8], header: usize, size: usize) -> Vec<Vec<u8>> {
        let pieces: Vec<&[u8]> = whole[header..].chunks(size).collect();
        let (version, is_tcp) = (whole[0] >> 4, whole[if whole[0] >> 4 == 4 { 9 } else { 6 }] == 6);
        let at = if version == 4 { 20 } else { 40 };
        pieces
            .iter()
            .enumerate()
            .map(|(i, piece)| {
                let mut packet = [&whole[..header], piece].concat();
                let length = packet.len() as u16;
                if version == 4 {
                    packet[2..4].copy_from_slice(&length.to_be_bytes());
                    packet[4..6]
                        .copy_from_slice(&(0xffff_u16.wrapping_add(i as u16)).to_be_bytes());
                } else {
                    packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
                }
                if is_tcp {
                    let sequence = 0xffff_fff0_u32.wrapping_add((i * size) as u32);
                    packet[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
                    let all = packet[at + 13];
                    let first = if i > 0 { 0x80 } else { 0 };
                    let last = if i + 1 < pieces.len() { 0x09 } else { 0 };
                    packet[at + 13] = all & !first & !last;
                } else {
                    let datagram = length - at as u16;
                    packet[at + 4..at + 6].copy_from_slice(&datagram.to_be_bytes());
                }
                packet
            })
            .collect()
    }

    /// A super-packet whose counters are about to wrap around.
    fn whole(is_v4: bool, is_tcp: bool, flags: u8, payload: &[u8]) -> (Vec<u8>, usize) {
        let mut packet = match (is_v4, is_tcp) {
            (true, true) => Packet::tcp(payload),
            (true, false) => Packet::udp_to(443, payload),
            (false, is_tcp) => {
                let inner =
                    if is_tcp { Packet::tcp(payload) } else { Packet::udp_to(443, payload) };
                let mut packet = Packet::udp6(b"")[..40].to_vec();
                packet[6] = if is_tcp { 6 } else { 17 };
                packet.extend(&inner[20..]);
                packet
            }
        };
        let at = if is_v4 { 20 } else { 40 };
        if is_v4 {
            packet[4..6].copy_from_slice(&[0xff, 0xff]);
        }
        if is_tcp {
            packet[at + 4..at + 8].copy_from_slice(&0xffff_fff0_u32.to_be_bytes());
            packet[at + 13] = flags;
        }
        (packet, at + if is_tcp { 20 } else { 8 })
    }

    proptest! {
        #[test]
        fn segments_are_those_of_the_wire(
            is_v4: bool,
            is_tcp: bool,
            flags: u8,
            payload in prop::collection::vec(any::<u8>(), 2..4_000),
            size in 1_usize..1_500,
        ) {
            prop_assume!(size < payload.len() && payload.len() / size < 500);
            let (packet, header) = whole(is_v4, is_tcp, flags, &payload);
            let event = event(header, payload.len(), size, u16::MAX);
            let expected = expected(&packet, header, size);
            prop_assert_eq!(&all(&event, &packet), &expected);
            // As far as bytes were captured, whatever part of the super-packet that is.
            let there = header + payload.len() / 2;
            for (got, expected) in all(&event, &packet[..there]).iter().zip(&expected) {
                let sound = sound(got).expect("a segment that was cut is made sound");
                prop_assert_eq!(&sound.bytes[header..], &expected[header..sound.bytes.len()]);
            }
        }

        /// Each segment is cut to the snapshot length.
        #[test]
        fn segments_are_cut_each(size in 100_usize..200, limit in 60_u16..250) {
            let (packet, header) = whole(true, true, 0x18, &[7; 1_000]);
            let event = event(header, 1_000, size, limit);
            let all = all(&event, &packet);
            prop_assert_eq!(all.len(), 1_000_usize.div_ceil(size));
            for got in all {
                prop_assert!(got.len() <= usize::from(limit) && sound(&got).is_some());
            }
        }

        /// The kernel's word is not doubted, but nothing of it can make this panic.
        #[test]
        fn any_event_is_taken(
            ip in prop::collection::vec(any::<u8>(), 0..100),
            version in prop::sample::select(vec![0x45_u8, 0x60]),
            numbers: [u8; 5],
            large: [u32; 2],
            is_large: bool,
        ) {
            let mut ip = ip;
            if let Some(first) = ip.first_mut() {
                *first = version;
            }
            let [ip_bytes, last_ip_bytes] =
                if is_large { large } else { [numbers[0].into(), numbers[1].into()] };
            let event = PacketEvent {
                ip_bytes,
                last_ip_bytes,
                segments: numbers[2].into(),
                forwarded: numbers[2].into(),
                header: numbers[3].into(),
                limit: numbers[4].into(),
                ..PacketEvent::default()
            };
            let length = ip.len();
            each(&event, &ip, &mut Vec::new(), |_, packet| assert!(packet.len() <= 2 * length));
        }
    }
}
