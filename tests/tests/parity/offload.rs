//! Is a super-packet accounted as the packets that the wire sees?

use anyhow::{Context, Result, ensure};
use flowmeter_common::counter::Counter;
use flowmeter_common::knobs::Knobs;
use flowmeter_common::segment::{self, Offload};
use flowmeter_common::splt::Slot;
use flowmeter_common::tally::Record;
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
    (0..count)
        .map(|i| {
            let first = if i == 0 { 0 } else { CWR };
            let last = if i + 1 == count { 0 } else { FIN | PSH };
            packet
                .clone()
                .flags(flags & !first & !last)
                .payload(size.min(payload - i * size))
                .build()
        })
        .collect()
}

/// A super-packet on its way out is accounted as the packets that the wire will see, one on its way
/// in as those that the wire has seen. On the way in the number of segments and the length on the
/// wire are often not known.
#[test]
fn super_packets_are_accounted_as_their_segments() -> Result<()> {
    if !root::available("super_packets_are_accounted_as_their_segments")? {
        return Ok(());
    }
    let hooks = [(0, "flowmeter_tc_in"), (1, "flowmeter_tc_out")];
    for (accounting, (hook, name)) in (0..4).flat_map(|a| hooks.map(|hook| (a, hook))) {
        let knobs = Knobs {
            accounting,
            n_dissections: u32::MAX,
            statistics: true,
            splt: 12,
            tick_ns: 1,
            ..Knobs::default()
        };
        let setup = Setup { knobs, ..Setup::default() };
        let kernel = Kernel::load(&setup, &[name, "flowmeter_reap"])?;
        let packet = (0..6_u8, any::<bool>(), any::<u8>(), 1..3_300_usize, 100..1_500_usize);
        let several = proptest::collection::vec(packet, 1..6);
        for_all(100, &several, |packets| {
            kernel.clear()?;
            let mut host = Host::new(Knobs { n_dissections: 0, ..knobs });
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
                let (event, _) = &forwarded[0];
                for (i, frame) in wire.iter().enumerate() {
                    let packet = host.admit(frame).context("a segment was ignored")?;
                    ensure!(
                        i > 0 || event.ip_bytes == packet.sizes[1],
                        "{event:?} is not of the first segment"
                    );
                    host.meter(&packet, event.time_ns, event.uid);
                }
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
            Ok(())
        })?;
    }
    Ok(())
}

/// The slots with one packet each.
fn expand(runs: &[Slot]) -> Vec<Slot> {
    runs.iter().flat_map(|run| (0..run.repeat).map(|_| Slot { repeat: 1, ..*run })).collect()
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
