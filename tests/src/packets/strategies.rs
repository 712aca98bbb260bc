//! Which packets might come?

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{Around, Builder, Over, Transport};

/// Bytes as they might come: mostly packets, some damaged, some noise.
pub fn frames() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => packets().prop_map(|p| p.build()),
        3 => damaged(),
        1 => vec(any::<u8>(), 0..200),
    ]
}

/// Packets in anything.
pub fn packets() -> impl Strategy<Value = Builder> {
    let stack = prop_oneof![
        4 => vec(around(), 0..3),
        1 => vec(around(), 0..9),
    ];
    let cut = weighted(0.1, 0_usize..200);
    (bare(), stack, any::<bool>(), cut).prop_map(|(packet, around, padded, cut)| Builder {
        around,
        padded,
        cut,
        ..packet
    })
}

/// Packets with bytes changed.
pub fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<Index>(), any::<u8>()), 1..6);
    (packets(), changes).prop_map(|(packet, changes)| {
        let mut bytes = packet.build();
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len().min(160));
                bytes[at] = byte;
            }
        }
        bytes
    })
}

/// Packets in nothing but IP.
pub fn bare() -> impl Strategy<Value = Builder> {
    let payload = prop_oneof![
        (0_usize..1400).prop_map(|n| vec![0; n]),
        vec(any::<u8>(), 0..64),
    ];
    let fragment = weighted(0.1, (0..4_u32, 0..4_u16, any::<bool>()));
    let extensions = prop_oneof![
        8 => Just(Vec::new()),
        3 => vec(extension(), 0..4),
        1 => vec(extension(), 0..12),
    ];
    (
        (transport(), ends(), payload),
        (prop_oneof![4 => Just(0), 1 => 0..=10_u8], extensions),
        (fragment, weighted(0.05, any::<u16>())),
    )
        .prop_map(
            |((transport, (source, target), payload), (options, extensions), (f, claimed))| {
                let packet = Builder {
                    ip_options: options,
                    extensions,
                    claimed,
                    ..Builder::new(transport)
                };
                let packet = packet.between(source, target).body(payload);
                match f {
                    Some((id, offset, more)) => packet.fragment(id, offset * 64, more),
                    None => packet,
                }
            },
        )
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        4 => (any::<u8>(), 0..=10_u8)
            .prop_map(|(flags, options)| Transport::Tcp { flags, options }),
        4 => Just(Transport::Udp),
        1 => (select(vec![1_u8, 58]), any::<u8>(), any::<u8>())
            .prop_map(|(protocol, kind, code)| Transport::Icmp(protocol, kind, code)),
        1 => Just(Transport::Sctp),
        1 => any::<u8>().prop_map(Transport::Other),
    ]
}

/// Two ends of one IP version.
fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    (any::<bool>(), 0..4_u8, 0..4_u8, port(), port()).prop_map(|(v6, a, b, from, to)| {
        let end = |n: u8, port: u16| {
            if v6 {
                SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)], port))
            } else {
                SocketAddr::from(([10, 0, n, 1], port))
            }
        };
        (end(a, from), end(b, to))
    })
}

/// Ports, among them those of tunnels, which the payload belies.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        6 => select(vec![53_u16, 80, 443, 40000, 40001]),
        2 => select(vec![2152_u16, 3544, 4789, 5247, 6081, 8472, 37008]),
        1 => any::<u16>(),
    ]
}

fn extension() -> impl Strategy<Value = (u8, u8)> {
    (
        prop_oneof![8 => select(vec![0_u8, 43, 60, 135]), 1 => select(vec![44_u8, 51, 59])],
        prop_oneof![6 => 0..4_u8, 1 => any::<u8>()],
    )
}

/// Anything around a packet.
pub fn around() -> impl Strategy<Value = Around> {
    let over = || select(vec![Over::V4, Over::V4, Over::V6]);
    let tpid = select(vec![0x8100_u16, 0x88a8, 0x9100]);
    prop_oneof![
        4 => (tpid, prop_oneof![1..8_u16, any::<u16>()])
            .prop_map(|(tpid, control)| Around::Tag(tpid, control)),
        1 => (1..11_usize).prop_map(Around::Mpls),
        1 => (1..4_usize).prop_map(Around::Pseudowire),
        1 => Just(Around::Pppoe),
        1 => Just(Around::Snap),
        1 => Just(Around::Ethernet),
        2 => over().prop_map(Around::Ip),
        1 => (over(), 0..6_u8).prop_map(|(over, n)| Around::GtpU(over, n)),
        1 => over().prop_map(Around::Capwap),
        1 => over().prop_map(Around::CapwapWifi),
        1 => (over(), 0..10_u8).prop_map(|(over, n)| Around::Tzsp(over, n)),
        1 => (over(), 0..1_u32 << 24).prop_map(|(over, vni)| Around::Vxlan(over, vni)),
        1 => (over(), 0..1_u32 << 24, 0..64_u8)
            .prop_map(|(over, vni, options)| Around::Geneve(over, vni, options)),
        1 => (over(), any::<u8>()).prop_map(|(over, flags)| Around::Gre(over, flags & 0xb0)),
        1 => (over(), 1..4_u8).prop_map(|(over, kind)| Around::Erspan(over, kind)),
        1 => (over(), any::<bool>(), any::<bool>())
            .prop_map(|(over, a, o)| Around::Teredo(over, a, o)),
    ]
}
