//! Is a super-packet accounted as the packets that the wire sees?

use anyhow::{Context, Result, ensure};
use flowmeter::dissect;
use flowmeter_common::counter::Counter;
use flowmeter_common::event::PacketEvent;
use flowmeter_common::knobs::Knobs;
use flowmeter_common::packet::{Layer, Packet, protocol};
use flowmeter_common::record::Record;
use flowmeter_common::segment::{self, Offload};
use flowmeter_common::splt::Slot;
use flowmeter_common::tcp::{CWR, FIN, PSH};
use flowmeter_tests::host::Host;
use flowmeter_tests::kernel::{Kernel, Setup, SkbOffload};
use flowmeter_tests::packets::{Around, Builder, Over, tcp, udp};
use flowmeter_tests::root;
use proptest::prelude::*;

use crate::for_all;

/// The wire's view of a super-packet: what `tcp_gso_segment` and `__udp_gso_segment` make of it,
/// as frames of their own.
fn segments(packet: &Builder, payload: usize, size: usize, flags: u8) -> Vec<Vec<u8>> {
    let count = payload.div_ceil(size);
    let bytes: Vec<u8> = (0..payload).map(|i| i as u8).collect();
    let pieces = bytes.chunks(size).enumerate();
    pieces
        .map(|(i, piece)| {
            let first = if i == 0 { 0 } else { CWR };
            let last = if i + 1 == count { 0 } else { FIN | PSH };
            packet.clone().flags(flags & !first & !last).body(piece.to_vec()).build()
        })
        .collect()
}

/// The IP packet of a frame that is the `i`-th segment of `size` bytes: IPv4's identification and
/// TCP's sequence number count on.
fn counted(packet: &Packet, frame: &[u8], i: usize, size: usize) -> Vec<u8> {
    let mut ip = frame[packet.network_offset.into()..].to_vec();
    if packet.ip_version == 4 {
        let id = u16::from_be_bytes([ip[4], ip[5]]) + i as u16;
        ip[4..6].copy_from_slice(&id.to_be_bytes());
    }
    if packet.protocol == protocol::TCP {
        let at = packet.sizes[1] as usize - packet.sizes[2] as usize + 4;
        let mut sequence = [0; 4];
        sequence.copy_from_slice(&ip[at..at + 4]);
        let sequence = u32::from_be_bytes(sequence) + (i * size) as u32;
        ip[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
    }
    ip
}

/// What the dissector gets of an event.
fn dissected(event: &PacketEvent, bytes: &[u8]) -> Vec<Vec<u8>> {
    let ip = bytes.get(..event.captured.into()).unwrap_or(bytes);
    let mut packets = Vec::new();
    dissect::segments::each(event, ip, &mut Vec::new(), |_, packet| packets.push(packet.to_vec()));
    packets
}

/// A super-packet on its way out is accounted as the packets that the wire will see, one on its way
/// in as those that the wire has seen. On the way in the number of segments and the length on the
/// wire are often not known.
const LAYERS: [Layer; 4] = [Layer::Link, Layer::Ip, Layer::Transport, Layer::Payload];

#[test]
fn super_packets_are_accounted_as_their_segments() -> Result<()> {
    if !root::available("super_packets_are_accounted_as_their_segments")? {
        return Ok(());
    }
    let hooks = [(0, "flowmeter_tc_in"), (1, "flowmeter_tc_out")];
    for (accounting, (hook, name)) in
        LAYERS.iter().flat_map(|layer| hooks.map(|hook| (*layer, hook)))
    {
        let knobs = Knobs {
            accounting,
            n_dissections: u32::MAX,
            statistics: true,
            splt: 12,
            tick_ns: 1,
            ..Knobs::default()
        };
        let setup = Setup { knobs, snapshot: 65_535, ..Setup::default() };
        let kernel = Kernel::load(&setup, &[name, "flowmeter_reap"])?;
        let packet = (0..6_u8, any::<bool>(), any::<u8>(), 1..3_300_usize, 100..1_500_usize);
        let several = proptest::collection::vec(packet, 1..6);
        for_all(100, &several, |packets| {
            kernel.clear()?;
            let mut host = Host::new(Knobs { n_dissections: 0, ..knobs });
            host.wall_offset = setup.wall_offset;
            for (kind, back, flags, payload, size) in packets {
                let bare = match kind {
                    0 => tcp().from("10.0.0.1:1").to("10.0.0.2:2").tcp_options(3),
                    1 => tcp().from("[2001:db8::1]:1").to("[2001:db8::2]:2"),
                    2 => udp().from("10.0.0.1:1").to("10.0.0.2:2"),
                    3 => tcp().from("10.0.0.1:1").to("10.0.0.2:2").vlan(5),
                    4 => tcp().from("10.0.0.1:1").to("10.0.0.2:2").in_vxlan(9),
                    _ => tcp().from("10.0.0.3:1").to("10.0.0.4:2").within(Around::Ip(Over::V6)),
                };
                let bare = if back { bare.back() } else { bare };
                let wire = segments(&bare, payload, size, flags);
                let whole = bare.clone().flags(flags).payload(payload).build();
                let told = u32::from(hook == 1);
                let offload = (wire.len() > 1).then(|| SkbOffload {
                    size: size as u32,
                    segments: wire.len() as u32 * told,
                    wire: wire.iter().map(|frame| frame.len() as u32).sum::<u32>() * told,
                });
                kernel.tc(name, &whole, offload)?;
                let forwarded = kernel.forwarded()?;
                ensure!(forwarded.len() == 1, "{} events", forwarded.len());
                let (event, bytes) = &forwarded[0];
                let mut expected = Vec::new();
                for (i, frame) in wire.iter().enumerate() {
                    let packet = host.admit(frame).context("a segment was ignored")?;
                    let clock_ns = event.time_ns - setup.wall_offset;
                    let (_, number) = host.meter(&packet, clock_ns, event.uid);
                    ensure!(i > 0 || u64::from(event.number) == number, "{event:?}: {number}");
                    expected.push(counted(&packet, frame, i, size));
                }
                ensure!(dissected(event, bytes) == expected, "{event:?} is not the segments");
            }
            for record in kernel.resident()? {
                let mut expected = host.flows[&record.key];
                let runs = kernel.slots(record.uid, record.splt_slots)?;
                ensure!(expand(&runs) == host.slots[&record.uid], "SPLT: {runs:?}");
                // Runs of equal packets share a slot; that is all that may differ.
                expected.splt_slots = record.splt_slots;
                ensure!(record == expected, "kernel {record:#?}, segments {expected:#?}");
            }
            let sent: u64 = host.flows.values().map(Record::packets).sum();
            let counters = kernel.counters(hook)?;
            ensure!(counters.get(Counter::Seen) >= sent);
            // All had room, and all of them is wanted.
            ensure!(counters.get(Counter::Forwarded) == counters.get(Counter::Metered));
            Ok(())
        })?;
    }
    Ok(())
}

/// The slots with one packet each.
fn expand(runs: &[Slot]) -> Vec<Slot> {
    runs.iter().flat_map(|run| (0..run.repeat).map(|_| Slot { repeat: 1, ..*run })).collect()
}

/// Of a flow's first packets the dissector gets those that are wanted of a super-packet, as far as
/// there is room, each up to the snapshot length. Every one of them is counted.
#[test]
fn of_a_super_packet_the_first_packets_are_forwarded() -> Result<()> {
    if !root::available("of_a_super_packet_the_first_packets_are_forwarded")? {
        return Ok(());
    }
    let size = 350;
    let bare = tcp().from("10.0.0.1:1").to("10.0.0.2:2").tcp_options(3);
    let opening = bare.clone().payload(10).build();
    for (n_dissections, snapshot, segments, forwarded) in [
        (20, 65_535, 3, 3), // all of it
        (5, 65_535, 9, 4),  // with the first packet five
        (1, 65_535, 3, 0),  // no more is wanted
        (20, 200, 3, 3),    // each of them is cut
    ] {
        let knobs = Knobs { n_dissections, ..Knobs::default() };
        let kernel =
            Kernel::load(&Setup { knobs, snapshot, ..Setup::default() }, &["flowmeter_tc_out"])?;
        kernel.tc("flowmeter_tc_out", &opening, None)?;
        let whole = bare.clone().payload(segments * size).build();
        let offload = SkbOffload { size: size as u32, segments: segments as u32, wire: 0 };
        kernel.tc("flowmeter_tc_out", &whole, Some(offload))?;
        let events = kernel.forwarded()?;
        let (opened, _) = events.first().context("the first packet is forwarded")?;
        ensure!(opened.number == 1 && opened.segments == 1, "{opened:?}");
        let packets = events.get(1).map_or(Vec::new(), |(event, bytes)| dissected(event, bytes));
        ensure!(packets.len() == forwarded, "{} of {segments} packets", packets.len());
        let length = 402.min(snapshot as usize - 14);
        ensure!(packets.iter().all(|packet| packet.len() == length), "not {length} bytes each");
        ensure!(events.get(1).is_none_or(|(event, _)| event.number == 2));
        let counters = kernel.counters(1)?;
        let [sent, kept] = [Counter::Forwarded, Counter::Withheld].map(|c| counters.get(c));
        ensure!(sent == 1 + forwarded as u64, "{sent} forwarded");
        let wanted = (1 + segments as u64).min(n_dissections.into());
        ensure!(sent + kept == wanted, "{sent} forwarded, {kept} withheld, {wanted} wanted");
    }
    Ok(())
}

/// `split` without the wire length, as on the way in, gives the same as with it.
#[test]
fn segments_are_the_same_with_and_without_the_wire_length() {
    let packet = tcp().from("10.0.0.1:1").to("10.0.0.2:2").in_vxlan(9).payload(3_000);
    let frame = packet.build();
    let host = Host::new(Knobs::default());
    let split = |header| {
        let mut p = host.parse(&frame).expect("a whole packet");
        let offload = Offload { size: 1_400, segments: 3, length: frame.len() as u32, header };
        segment::split(&mut p, offload);
        p
    };
    let header = frame.len() as u32 - 3_000;
    assert_eq!(split(0), split(header));
}
