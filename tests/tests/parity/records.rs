//! Do kernel and host keep the same of a flow?

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use flowmeter_common::knobs::{Knobs, MILLISECOND};
use flowmeter_tests::host::Host;
use flowmeter_tests::kernel::{Kernel, Setup};
use flowmeter_tests::packets::{Builder, icmp, tcp, udp};
use flowmeter_tests::root;
use proptest::prelude::*;

use crate::{by_key, ended, for_all};

/// A packet of a conversation, and the pause before it.
#[derive(Clone, Debug)]
struct Step {
    packet: Builder,
    pause: Duration,
}

/// Packets of a few conversations, in both directions, of all protocols.
fn conversations() -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![
        20 => Just(0),
        4 => 0..300_u64,
        1 => 500..3_000_u64,
    ];
    let payload = prop_oneof![1 => Just(0), 3 => 0..1200_usize];
    let step = (0..6_u8, any::<bool>(), any::<u8>(), payload, pause);
    let step = step.prop_map(|(conversation, back, flags, payload, pause)| {
        let packet = match conversation {
            0 => tcp().flags(flags).from("10.0.0.1:1234").to("10.0.0.2:80"),
            1 => tcp().flags(flags).from("[2001:db8::1]:443").to("[2001:db8::2]:50000"),
            2 => udp().from("10.0.0.1:1234").to("10.0.0.2:80").vlan(5),
            3 => icmp(flags & 8, 0).from("10.0.0.1").to("10.0.0.2"),
            4 => udp().from("192.168.0.1:99").to("192.168.0.2:53").fragment(
                u32::from(flags & 3),
                u16::from(flags & 4) * 16,
                true,
            ),
            _ => udp().from("10.9.0.1:5").to("10.9.0.2:6").in_vxlan(7),
        };
        let packet = packet.payload(payload);
        Step {
            packet: if back { packet.back() } else { packet },
            pause: Duration::from_micros(pause),
        }
    });
    proptest::collection::vec(step, 1..80)
}

/// Whole records, with times, statistics, expiry and SPLT, of the same packets at the same times.
#[test]
fn records_agree() -> Result<()> {
    if !root::available("records_agree")? {
        return Ok(());
    }
    let every_packet = Knobs {
        n_dissections: u32::MAX,
        statistics: true,
        tick_ns: 1_000,
        splt: 255,
        ..Knobs::default()
    };
    let settings = [
        every_packet,
        Knobs {
            idle_ns: 2 * MILLISECOND,
            active_ns: 5 * MILLISECOND,
            accounting: 1,
            tick_ns: 1,
            splt: 20,
            ..every_packet
        },
        Knobs {
            active_ns: 3 * MILLISECOND,
            accounting: 3,
            tick_ns: MILLISECOND,
            splt: 1,
            ..every_packet
        },
        Knobs { idle_ns: 0, accounting: 2, decode_tunnels: false, ..every_packet },
        Knobs { statistics: false, splt: 0, ..every_packet },
    ];
    for knobs in settings {
        let kernel = Kernel::load(
            &Setup { knobs, sparse: knobs.splt == 20, ..Setup::default() },
            &["flowmeter_xdp", "flowmeter_tc_in", "flowmeter_reap"],
        )?;
        let ended = Cell::new(0);
        for_all(60, &conversations(), |steps| {
            kernel.clear()?;
            let host = replay(&kernel, knobs, &steps)?;
            ended.set(ended.get() + host.ended.len());
            compare_records(&kernel, &host)
        })?;
        println!("{} records ended by timeout, {knobs:?}", ended.get());
    }
    Ok(())
}

/// Runs the packets through the kernel, then through the host at the times that the kernel's
/// packet events tell.
fn replay(kernel: &Kernel, knobs: Knobs, steps: &[Step]) -> Result<Host> {
    let mut host = Host::new(knobs);
    for (i, step) in steps.iter().enumerate() {
        if !step.pause.is_zero() {
            thread::sleep(step.pause);
        }
        let frame = step.packet.build();
        let expected = host.admit(&frame);
        if i % 2 == 0 {
            kernel.xdp("flowmeter_xdp", &frame, 1)?;
        } else {
            kernel.tc("flowmeter_tc_in", &frame, None)?;
        }
        let forwarded = kernel.forwarded()?;
        let Some(packet) = expected else {
            ensure!(forwarded.is_empty(), "an ignored packet was forwarded");
            continue;
        };
        let [(event, bytes)] = &forwarded[..] else {
            bail!("{} events for {packet:?}", forwarded.len());
        };
        let (uid, number) = host.meter(&packet, event.time_ns, event.uid);
        ensure!(
            (event.uid, u64::from(event.number)) == (uid, number),
            "{event:?} is not number {number} of {uid:x}"
        );
        ensure!(event.ip_bytes == packet.sizes[1] && event.segments == 1);
        let start = usize::from(packet.network_offset);
        let expected = &frame[start..(start + usize::from(event.captured)).min(frame.len())];
        ensure!(bytes.get(..expected.len()) == Some(expected), "forwarded bytes");
    }
    Ok(host)
}

/// Compares all records, and their SPLT slots, with the kernel's.
fn compare_records(kernel: &Kernel, host: &Host) -> Result<()> {
    let found: Vec<_> = kernel.handed()?.iter().map(ended).collect::<Result<_>>()?;
    ensure!(found == host.ended, "ended: kernel {found:?}, host {:?}", host.ended);
    let resident = by_key(kernel.resident()?);
    ensure!(resident == host.flows, "resident: kernel {resident:?}, host {:?}", host.flows);
    for record in found.iter().map(|(_, r)| r).chain(resident.values()) {
        let slots = kernel.slots(record.uid, record.splt_slots)?;
        ensure!(
            slots == host.slots[&record.uid],
            "SPLT: kernel {slots:?}, host {:?}",
            host.slots[&record.uid]
        );
    }
    Ok(())
}
