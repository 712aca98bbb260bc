//! Are a super-packet's parts the packets that the wire sees?

use flowmeter_common::bytes::HostBytes;
use flowmeter_common::event::MAX_SNAPSHOT;
use flowmeter_common::packet::{Packet, protocol};
use flowmeter_common::parse::{next, parse};
use flowmeter_common::segment::{Extent, Offload, extent, split};
use proptest::prelude::*;

#[expect(dead_code, reason = "each test uses a part of the builder")]
#[path = "../../tests/src/packets.rs"]
mod packets;

use packets::{Around, Builder, Over, tcp, udp};

fn whole(frame: &[u8]) -> Packet {
    let wire = frame.len() as u32;
    parse(&HostBytes::new(frame), 0, next::ETHERNET, wire, true).expect("a whole packet")
}

fn kinds() -> Vec<Builder> {
    let v4 = || tcp().ack().from("10.0.0.1:1").to("10.0.0.2:2");
    let v6 = || udp().from("[2001:db8::1]:1").to("[2001:db8::2]:2");
    vec![
        v4(),
        v4().tcp_options(10).ip_options(3),
        v4().vlan(5).service_vlan(6),
        v4().in_vxlan(7),
        v4().within(Around::Gre(Over::V6, 0xb0)),
        v6(),
        v6().extension(0, 1),
        v6().within(Around::Ip(Over::V4)),
        v6().within(Around::Geneve(Over::V6, 7, 4)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn parts_are_packets(
        packet in proptest::sample::select(kinds()),
        payload in 1..64_000_usize,
        size in 1..9_000_usize,
        known_header: bool,
    ) {
        let frame = packet.clone().payload(payload).build();
        let mut found = whole(&frame);
        let length = frame.len() as u32;
        let segments = payload.div_ceil(size) as u32;
        split(&mut found, Offload {
            size: size as u32,
            segments: if known_header { segments } else { 0 },
            length,
            header: if known_header { length - payload as u32 } else { 0 },
        });

        let last = payload - (segments as usize - 1) * size;
        let mut expected = whole(&packet.clone().payload(last).build());
        if segments > 1 {
            expected.segments = segments;
            expected.segment_sizes = whole(&packet.clone().payload(size).build()).sizes;
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(
            found.link_bytes(),
            u64::from(segments) * u64::from(length - payload as u32) + payload as u64
        );
    }
}

const HEADER: u32 = 52;

/// A super-packet of TCP.
fn packet(segments: u32, full: u32, last: u32) -> Packet {
    Packet {
        segments,
        protocol: protocol::TCP,
        sizes: [0, HEADER + last, 32 + last, last],
        segment_sizes: [0, HEADER + full, 32 + full, full],
        ..Packet::default()
    }
}

#[test]
fn as_many_packets_go_as_are_wanted_and_fit() {
    let of = |p: &Packet, most, limit| {
        let Extent { segments, bytes } = extent(p, most, limit);
        (segments, bytes)
    };
    let three = packet(3, 1_000, 400);
    assert_eq!(of(&three, 20, 4_096), (3, HEADER + 2_400));
    assert_eq!(of(&three, 3, 4_096), (3, HEADER + 2_400));
    assert_eq!(of(&three, 2, 4_096), (2, HEADER + 2_000));
    assert_eq!(of(&three, 20, 200), (3, 2_000 + 200));
    // The 17th is there in part, beyond the 16,000 bytes of those before it.
    let room = MAX_SNAPSHOT as u32;
    assert_eq!(of(&packet(40, 1_000, 1), 255, 65_535), (17, room));
    assert_eq!(of(&packet(40, 1_000, 1), 255, 300), (17, 16_300));
    // A jumbo frame may fill the room alone.
    assert_eq!(of(&packet(2, 60_000, 60_000), 20, 65_535), (1, room));
    let single = Packet { segments: 1, segment_sizes: [0; 4], ..three };
    assert_eq!(of(&single, 20, 65_535), (1, HEADER + 400));
    assert_eq!(of(&single, 20, 64), (1, 64));
    let sctp = Packet { protocol: protocol::SCTP, ..three };
    assert_eq!(of(&sctp, 20, 65_535), (1, HEADER + 1_000));
}

/// Whatever the sizes, every packet that goes has a byte of payload or its snapshot there, and
/// nothing goes that is not needed.
#[test]
fn bytes_and_packets_fit_each_other() {
    for full in [1_u32, 7, 536, 1_448, 8_948, 16_331, 16_332, 16_333, 65_483] {
        for last in [1, full.div_ceil(2), full] {
            for (count, most) in [(2, 1), (2, 20), (9, 20), (400, 255)] {
                for limit in [HEADER + 1, 500, 4_096, 65_535] {
                    let p = packet(count, full, last);
                    let Extent { segments, bytes } = extent(&p, most, limit);
                    assert!((1..=most.min(count)).contains(&segments));
                    assert!(bytes <= MAX_SNAPSHOT as u32);
                    assert!(bytes > HEADER + full * (segments - 1), "{p:?} {limit}");
                    let next = HEADER + full * segments;
                    assert!(segments == most.min(count) || next >= MAX_SNAPSHOT as u32);
                }
            }
        }
    }
}
