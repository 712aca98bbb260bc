//! Are a super-packet's parts the packets that the wire sees?

use flowmeter_common::bytes::HostBytes;
use flowmeter_common::packet::Packet;
use flowmeter_common::parse::{next, parse};
use flowmeter_common::segment::{Offload, split};
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
