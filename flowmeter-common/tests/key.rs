//! Do both directions have the same key, and strangers another?

use flowmeter_common::key::FlowKey;
use flowmeter_common::packet::Packet;
use proptest::prelude::*;

/// Packets between few ends, so that equal addresses and ports happen.
fn packet() -> impl Strategy<Value = Packet> {
    // Bits in both halves of each word.
    let address = || proptest::array::uniform2((0..4_u64).prop_map(|n| n & 1 | (n & 2) << 31));
    (
        (address(), address(), 0..3_u16, 0..3_u16),
        (0..2_u16, 0..2_u16, 0..2_u32, 0..2_u8, 0..2_u8, 0..2_u8),
    )
        .prop_map(
            |(
                (src, dst, src_port, dst_port),
                (vlan, outer_vlan, vni, protocol, ip_version, tunnel),
            )| Packet {
                src,
                dst,
                src_port,
                dst_port,
                vlan,
                outer_vlan,
                vni,
                protocol,
                ip_version,
                tunnel,
                ..Packet::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn both_directions_have_one_key(p in packet(), interface: u8) {
        let back = Packet {
            src: p.dst,
            dst: p.src,
            src_port: p.dst_port,
            dst_port: p.src_port,
            ..p
        };
        let (key, from_high) = FlowKey::of(&p, interface);
        let (back_key, back_from_high) = FlowKey::of(&back, interface);
        prop_assert_eq!(key, back_key);
        let to_itself = p.src == p.dst && p.src_port == p.dst_port;
        prop_assert_eq!(back_from_high, !to_itself && !from_high);
        prop_assert!(!(to_itself && from_high));
    }

    #[test]
    fn comparison_in_words_is_comparison(a in packet(), b in packet(), i in 0..2_u8, j in 0..2_u8) {
        let ((a, _), (b, _)) = (FlowKey::of(&a, i), FlowKey::of(&b, j));
        prop_assert_eq!(a.same(&b), a == b);
        prop_assert!(a.same(&a));
    }

    #[test]
    fn one_field_more_is_another_key(p in packet(), field in 0..11_usize) {
        let (a, _) = FlowKey::of(&p, 0);
        let mut b = a;
        match field {
            0 => b.low[1] ^= 1 << 32,
            1 => b.high[0] ^= 1 << 31,
            2 => b.vni ^= 1,
            3 => b.low_port ^= 1 << 15,
            4 => b.high_port ^= 1,
            5 => b.vlan ^= 1,
            6 => b.outer_vlan ^= 1,
            7 => b.protocol ^= 1 << 7,
            8 => b.ip_version ^= 1,
            9 => b.tunnel ^= 1,
            _ => b.interface ^= 1,
        }
        prop_assert!(!a.same(&b));
    }
}
