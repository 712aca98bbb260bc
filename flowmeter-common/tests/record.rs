//! Is a record what one would compute from all the packets, had one kept them?

use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::{Knobs, MILLISECOND};
use flowmeter_common::packet::{Layer, Packet, protocol};
use flowmeter_common::record::{Direction, Effect, Record, wide};
use flowmeter_common::splt::Slot;
use flowmeter_common::tcp::{CWR, FIN, PSH};
use proptest::prelude::*;

/// A packet as it comes: alone or as many.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    packet: Packet,
    from_high: bool,
    time_ns: u64,
}

/// A packet on the wire.
#[derive(Clone, Copy, Debug)]
struct Kept {
    packet: Packet,
    reverse: bool,
    time_ns: u64,
}

/// The packets that the wire has seen, with times that do not go back.
fn keep_all(arrivals: &[Arrival]) -> Vec<Kept> {
    let mut kept: Vec<Kept> = Vec::new();
    for a in arrivals {
        let newest = kept.last().map_or(0, |k| k.time_ns);
        for i in 1..=a.packet.segments {
            let (first, last) = (i == 1, i == a.packet.segments);
            let mut packet = a.packet;
            packet.segments = 1;
            if !first {
                packet.tcp_flags &= !CWR;
            }
            if !last {
                packet.tcp_flags &= !(FIN | PSH);
                packet.sizes = a.packet.segment_sizes;
            }
            kept.push(Kept {
                packet,
                reverse: a.from_high != arrivals[0].from_high,
                time_ns: a.time_ns.max(newest),
            });
        }
    }
    kept
}

/// Differences of ticks: sum of squares, shortest, longest.
fn piats(times: &[u64], knobs: &Knobs) -> ([u64; 2], u64, u64) {
    let gaps: Vec<u64> =
        times.windows(2).map(|w| w[1] / knobs.tick_ns - w[0] / knobs.tick_ns).collect();
    if times.is_empty() {
        return ([0; 2], 0, 0);
    }
    if gaps.is_empty() || !knobs.statistics {
        return ([0; 2], u64::MAX, 0);
    }
    let squares: u128 = gaps.iter().map(|&g| u128::from(g) * u128::from(g)).sum();
    (
        [squares as u64, (squares >> 64) as u64],
        gaps.iter().copied().min().unwrap_or(0),
        gaps.iter().copied().max().unwrap_or(0),
    )
}

fn naive_direction(kept: &[Kept], knobs: &Knobs) -> Direction {
    let (Some(first), Some(last)) = (kept.first(), kept.last()) else {
        return Direction::default();
    };
    let times: Vec<_> = kept.iter().map(|k| k.time_ns).collect();
    let (piat_squares, piat_min, piat_max) = piats(&times, knobs);
    let size = |k: &Kept| k.packet.sizes[knobs.accounting as usize];
    let is_tcp = |k: &&Kept| k.packet.protocol == protocol::TCP;
    let mut d = Direction {
        packets: kept.len() as u64,
        bytes: [0, 1, 2, 3].map(|l| kept.iter().map(|k| u64::from(k.packet.sizes[l])).sum()),
        first_ns: first.time_ns,
        last_ns: last.time_ns,
        last_tick: last.time_ns / knobs.tick_ns,
        piat_squares,
        piat_min,
        piat_max,
        size_min: u32::MAX,
        tcp_flags: kept.iter().filter(is_tcp).fold(0, |all, k| all | k.packet.tcp_flags),
        icmp_type: first.packet.icmp_type,
        icmp_code: first.packet.icmp_code,
        ..Direction::default()
    };
    if knobs.statistics {
        d.size_squares = kept.iter().map(|k| u64::from(size(k)).pow(2)).sum();
        d.size_min = kept.iter().map(size).min().unwrap_or(0);
        d.size_max = kept.iter().map(size).max().unwrap_or(0);
        d.flags = [0, 1, 2, 3, 4, 5, 6, 7].map(|bit| {
            kept.iter().filter(is_tcp).filter(|k| k.packet.tcp_flags >> bit & 1 != 0).count() as u32
        });
    }
    d
}

/// The record, and the SPLT slots with one packet each.
fn naive(arrivals: &[Arrival], knobs: &Knobs) -> (Record, Vec<Slot>) {
    let kept = keep_all(arrivals);
    let of =
        |reverse| -> Vec<Kept> { kept.iter().filter(|k| k.reverse == reverse).copied().collect() };
    let directions = [of(false), of(true)];
    let times: Vec<_> = kept.iter().map(|k| k.time_ns).collect();
    let (piat_squares, piat_min, piat_max) = piats(&times, knobs);
    let slots: Vec<Slot> = kept
        .iter()
        .take(knobs.splt as usize)
        .map(|k| {
            let size = k.packet.sizes[knobs.accounting as usize];
            Slot {
                time_ns: k.time_ns,
                size_direction: size | if k.reverse { Slot::REVERSE } else { 0 },
                repeat: 1,
                ip_bytes: k.packet.sizes[1],
                payload_bytes: k.packet.sizes[3],
            }
        })
        .collect();
    let first = arrivals[0];
    let record = Record {
        uid: 7,
        piat_squares,
        piat_min,
        piat_max,
        first_ticks: [0, 1].map(|d| directions[d].first().map_or(0, |k| k.time_ns / knobs.tick_ns)),
        directions: directions.map(|kept| naive_direction(&kept, knobs)),
        splt_packets: slots.len() as u32,
        splt_slots: slots.len() as u32,
        src_mac: first.packet.src_mac,
        dst_mac: first.packet.dst_mac,
        initiator_is_high: u8::from(first.from_high),
        ..Record::default()
    };
    (record, slots)
}

/// The record as the meter keeps it, and its SPLT slots as they are written.
fn metered(arrivals: &[Arrival], knobs: &Knobs) -> (Record, Vec<Slot>) {
    let mut record = Record::default();
    let mut slots = Vec::new();
    let first = &arrivals[0];
    record.begin(&FlowKey::default(), 7, 0, &first.packet, first.from_high);
    for a in arrivals {
        let before = record.packets();
        let mut effect = Effect::default();
        record.add(&a.packet, a.from_high, a.time_ns, knobs, &mut effect);
        assert_eq!(effect.number, before + 1);
        assert_eq!(effect.direction == 0, a.from_high == first.from_high, "direction");
        if effect.splt.count > 0 {
            assert_eq!(effect.splt.index as usize, slots.len());
        }
        slots.extend(&effect.splt.slots[..effect.splt.count as usize]);
    }
    (record, slots)
}

fn expand(slots: &[Slot]) -> Vec<Slot> {
    slots.iter().flat_map(|s| (0..s.repeat).map(|_| Slot { repeat: 1, ..*s })).collect()
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let sizes = || proptest::array::uniform4(0..70_000_u32);
    let gap = prop_oneof![
        4 => Just(0_i64),
        6 => 0..5 * MILLISECOND as i64,
        2 => -1_000..0_i64,
        1 => (0..63_u32).prop_flat_map(|bits| 0..=1_i64 << bits),
    ];
    let protocols =
        proptest::sample::select(vec![protocol::TCP, protocol::TCP, protocol::UDP, protocol::ICMP]);
    let arrival = (
        (sizes(), sizes(), gap),
        prop_oneof![4 => Just(1_u32), 1 => 2..60_u32],
        (any::<bool>(), any::<u8>(), any::<[u8; 2]>()),
    );
    (
        prop_oneof![Just(1_700_000_000_000_000_000_u64), Just(0), any::<u64>()],
        protocols,
        proptest::collection::vec(arrival, 1..40),
    )
        .prop_map(|(mut time_ns, protocol, all)| {
            all.into_iter()
                .map(|((sizes, full, gap), segments, (from_high, flags, icmp))| {
                    time_ns = time_ns.saturating_add_signed(gap);
                    let packet = Packet {
                        sizes,
                        segments,
                        segment_sizes: if segments > 1 { full } else { [0; 4] },
                        protocol,
                        tcp_flags: flags,
                        icmp_type: icmp[0],
                        icmp_code: icmp[1],
                        src_mac: [icmp[0]; 6],
                        dst_mac: [icmp[1]; 6],
                        ..Packet::default()
                    };
                    Arrival { packet, from_high, time_ns }
                })
                .collect()
        })
}

fn knobs() -> impl Strategy<Value = Knobs> {
    (
        prop_oneof![
            Just(Layer::Link),
            Just(Layer::Ip),
            Just(Layer::Transport),
            Just(Layer::Payload)
        ],
        prop_oneof![Just(1_u64), Just(1_000), Just(MILLISECOND), 1..=u64::MAX, Just(u64::MAX)],
        prop_oneof![Just(0_u32), 1..30_u32, Just(255)],
        any::<bool>(),
    )
        .prop_map(|(accounting, tick_ns, splt, statistics)| Knobs {
            accounting,
            tick_ns,
            splt,
            statistics,
            ..Knobs::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Super-packets included, which are their segments one by one.
    #[test]
    fn a_record_is_what_its_packets_say(arrivals in arrivals(), knobs in knobs()) {
        let (record, slots) = metered(&arrivals, &knobs);
        let (mut expected, each) = naive(&arrivals, &knobs);
        prop_assert_eq!(expand(&slots), each);
        prop_assert_eq!(record.splt_slots as usize, slots.len());
        prop_assert!(slots.len() <= record.splt_packets as usize);
        // Runs of equal packets share a slot.
        expected.splt_slots = record.splt_slots;
        prop_assert_eq!(record, expected);
    }

    /// Two packets a gap apart have its square, be it of 128 bits.
    #[test]
    fn squares_are_exact(
        gap in (0..64_u32, any::<u64>()).prop_map(|(bits, n)| n >> bits),
        others in proptest::collection::vec(0..=u64::from(u32::MAX) * 4, 0..4),
    ) {
        let knobs = Knobs { tick_ns: 1, statistics: true, ..Knobs::default() };
        let p = Packet { segments: 1, ..Packet::default() };
        let mut record = Record::default();
        let mut effect = Effect::default();
        let (mut time_ns, mut sum) = (0_u64, 0_u128);
        record.begin(&FlowKey::default(), 1, 0, &p, false);
        record.add(&p, false, 0, &knobs, &mut effect);
        for gap in others.into_iter().chain([gap]) {
            let gap = gap.min(u64::MAX - time_ns);
            time_ns += gap;
            sum += u128::from(gap) * u128::from(gap);
            record.add(&p, false, time_ns, &knobs, &mut effect);
        }
        prop_assert_eq!(wide(record.piat_squares), sum);
        prop_assert_eq!(wide(record.directions[0].piat_squares), sum);
    }
}
