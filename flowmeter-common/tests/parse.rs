//! Does the parser find what is in a packet, and bear what is not one?

use flowmeter_common::bytes::HostBytes;
use flowmeter_common::link::ethertype;
use flowmeter_common::packet::{FRAGMENT_LATER, FRAGMENT_NONE, Packet, ipv4_address, protocol};
use flowmeter_common::parse::{Walk, deep, fast, next, parse};
use flowmeter_common::tunnel;
use proptest::prelude::*;

#[expect(dead_code, reason = "each test uses a part of the builder")]
#[path = "../../tests/src/packets.rs"]
mod packets;

use packets::{Around, Builder, Over, strategies, tcp, udp};

/// What puts something around a packet.
type Tunnel = fn(Over) -> Around;
type Wrap = fn(Builder) -> Builder;

fn whole(frame: &[u8]) -> Packet {
    let wire = frame.len() as u32;
    parse(&HostBytes::new(frame), 0, next::ETHERNET, wire, true).expect("a whole packet")
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever the fast path takes, it takes as the walk does.
    #[test]
    fn both_ways_give_the_same_answer(
        frame in strategies::frames(),
        more in prop_oneof![Just(0), any::<u16>()],
        decode_tunnels: bool,
    ) {
        let wire = frame.len() as u32 + u32::from(more);
        let bytes = HostBytes::new(&frame);
        let mut packet = Packet::default();
        if fast(&bytes, 0, next::ETHERNET, wire, decode_tunnels, &mut packet) {
            let mut walk = Walk::default();
            walk.start(0, next::ETHERNET, wire);
            prop_assert_eq!(deep(&bytes, decode_tunnels, &mut walk), Ok(()));
            prop_assert_eq!(packet, walk.packet);
        }
    }

    /// On any bytes, from any start, the parser ends, and what it says holds together.
    #[test]
    fn any_bytes_are_borne(
        frame in prop_oneof![
            strategies::frames(),
            proptest::collection::vec(any::<u8>(), 0..600),
        ],
        offset in prop_oneof![3 => Just(0), 1 => 0..64_u32],
        first in prop_oneof![
            Just(next::ETHERNET),
            Just(next::IP),
            Just(next::WIFI),
            any::<u16>().prop_map(|kind| next::ETHERTYPE + u32::from(kind)),
            Just(next::ETHERTYPE + u32::from(ethertype::VLAN)),
        ],
        wire in prop_oneof![Just(0), 0..2_000_u32, any::<u32>()],
        decode_tunnels: bool,
    ) {
        let Ok(p) = parse(&HostBytes::new(&frame), offset, first, wire, decode_tunnels) else {
            return Ok(());
        };
        let [link, ip, transport, payload] = p.sizes;
        prop_assert_eq!(link, wire);
        prop_assert!(ip > transport && transport >= payload, "{:?}", p.sizes);
        prop_assert!(usize::from(p.network_offset) < frame.len());
        prop_assert!(p.payload_offset > p.network_offset);
        prop_assert!(matches!(p.ip_version, 4 | 6));
        prop_assert!(p.vlan < 4096 && p.outer_vlan < 4096);
        prop_assert!(decode_tunnels || (p.tunnel, p.vni) == (0, 0));
        prop_assert_eq!((p.segments, p.segment_sizes, p.reserved), (1, [0; 4], [0; 5]));
        if !matches!(p.protocol, protocol::TCP | protocol::UDP) || p.fragment == FRAGMENT_LATER {
            prop_assert_eq!((p.src_port, p.dst_port), (0, 0));
        }
        if p.protocol != protocol::TCP {
            prop_assert_eq!(p.tcp_flags, 0);
        }
        if p.fragment == FRAGMENT_NONE {
            prop_assert_eq!(p.fragment_id, 0);
        }
    }
}

/// A tunnel changes where a packet stands, how long its frame is and what is said of the tunnel:
/// the rest is as if the packet came alone.
#[test]
fn a_tunnelled_packet_is_the_packet_itself() {
    let bare = [
        tcp().syn().from("10.0.0.1:1234").to("10.0.0.2:80").payload(100),
        udp().from("[2001:db8::1]:5000").to("[2001:db8::2]:53").payload(30),
    ];
    let tunnels: [(u8, u32, Tunnel); 15] = [
        (0, 0, Around::Ip),
        (tunnel::GTP_U, 0, |over| Around::GtpU(over, 0)),
        (tunnel::GTP_U, 0, |over| Around::GtpU(over, 4)),
        (tunnel::CAPWAP, 0, Around::Capwap),
        (tunnel::CAPWAP, 0, Around::CapwapWifi),
        (tunnel::TZSP, 0, |over| Around::Tzsp(over, 0)),
        (tunnel::TZSP, 0, |over| Around::Tzsp(over, 7)),
        (tunnel::VXLAN, 0x00ab_cdef, |over| Around::Vxlan(over, 0x00ab_cdef)),
        (tunnel::GENEVE, 7, |over| Around::Geneve(over, 7, 20)),
        (tunnel::GRE, 0, |over| Around::Gre(over, 0)),
        (tunnel::GRE, 0, |over| Around::Gre(over, 0xb0)),
        (tunnel::ERSPAN, 0, |over| Around::Erspan(over, 1)),
        (tunnel::ERSPAN, 0, |over| Around::Erspan(over, 2)),
        (tunnel::ERSPAN, 0, |over| Around::Erspan(over, 3)),
        (tunnel::TEREDO, 0, |over| Around::Teredo(over, true, true)),
    ];
    for packet in &bare {
        let alone = whole(&packet.build());
        for over in [Over::V4, Over::V6] {
            for (id, vni, tunnel) in tunnels {
                if id == tunnel::TEREDO && alone.ip_version == 4 {
                    continue; // carries IPv6 only
                }
                let around = tunnel(over);
                let frame = packet.clone().within(around).build();
                let found = whole(&frame);
                let moved = (frame.len() - packet.build().len()) as u16;
                let expected = Packet {
                    tunnel: id,
                    vni,
                    sizes: [frame.len() as u32, alone.sizes[1], alone.sizes[2], alone.sizes[3]],
                    network_offset: alone.network_offset + moved,
                    payload_offset: alone.payload_offset + moved,
                    // Those of the Ethernet header nearest to the packet.
                    src_mac: found.src_mac,
                    dst_mac: found.dst_mac,
                    ..alone
                };
                assert_eq!(found, expected, "{around:?}");
            }
        }
    }
}

/// Not one byte of what the builder was told is lost on the way through the parser.
#[test]
fn a_described_packet_is_found_as_described() {
    let frame = tcp()
        .syn()
        .ack()
        .from("10.0.0.1:1234")
        .to("10.0.0.2:80")
        .tcp_options(3)
        .ip_options(2)
        .payload(100)
        .vlan(5)
        .service_vlan(100)
        .build();
    let expected = Packet {
        src: ipv4_address([10, 0, 0, 1]),
        dst: ipv4_address([10, 0, 0, 2]),
        sizes: [14 + 8 + 28 + 32 + 100, 28 + 32 + 100, 32 + 100, 100],
        segments: 1,
        network_offset: 22,
        payload_offset: 22 + 28 + 32,
        src_port: 1234,
        dst_port: 80,
        vlan: 5,
        outer_vlan: 100,
        src_mac: [2, 0, 10, 0, 0, 1],
        dst_mac: [2, 0, 10, 0, 0, 2],
        protocol: protocol::TCP,
        ip_version: 4,
        tcp_flags: 0x12,
        ..Packet::default()
    };
    assert_eq!(whole(&frame), expected);
}

/// What is around a packet without being a tunnel leaves the packet what it is.
#[test]
fn tags_and_labels_lead_to_the_packet() {
    let bare = udp().from("10.0.0.1:1").to("10.0.0.2:2").payload(8);
    let around: [(&str, Wrap); 6] = [
        ("MPLS", |p| p.mpls(8)),
        ("pseudowire", |p| p.within(Around::Pseudowire(1))),
        ("PPPoE", |p| p.within(Around::Pppoe)),
        ("SNAP", |p| p.within(Around::Snap)),
        ("priority tag", |p| p.vlan(0xe000)),
        ("PPPoE in priority tags", |p| p.within(Around::Pppoe).vlan(0).service_vlan(0)),
    ];
    let alone = whole(&bare.build());
    for (name, wrap) in around {
        let frame = wrap(bare.clone()).build();
        let found = whole(&frame);
        let moved = (frame.len() - bare.build().len()) as u16;
        let expected = Packet {
            sizes: [frame.len() as u32, 36, 16, 8],
            network_offset: alone.network_offset + moved,
            payload_offset: alone.payload_offset + moved,
            ..alone
        };
        assert_eq!(found, expected, "{name}");
    }
}
