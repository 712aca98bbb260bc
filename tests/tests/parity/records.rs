//! Do kernel and host keep the same of a flow?

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::{Knobs, MILLISECOND};
use flowmeter_common::packet::Layer;
use flowmeter_tests::host::Host;
use flowmeter_tests::kernel::{Kernel, Setup};
use flowmeter_tests::packets::{Builder, icmp, tcp, udp};
use flowmeter_tests::root;
use proptest::prelude::*;

use crate::{by_key, ended, for_all};

/// A packet of a conversation, and what is before it: a pause, and a step of the wall clock.
#[derive(Clone, Debug)]
struct Step {
    packet: Builder,
    pause: Duration,
    set_by_ns: i64,
}

const HOUR_NS: i64 = 3_600_000_000_000;

/// Packets of a few conversations, in both directions, of all protocols.
fn conversations() -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![
        20 => Just(0),
        4 => 0..300_u64,
        1 => 500..3_000_u64,
    ];
    let payload = prop_oneof![1 => Just(0), 3 => 0..1200_usize];
    let set_by_ns = prop_oneof![
        20 => Just(0),
        1 => -2_000_000..2_000_000_i64,
        1 => -HOUR_NS..HOUR_NS,
    ];
    let step = (0..6_u8, any::<bool>(), any::<u8>(), payload, pause, set_by_ns);
    let step = step.prop_map(|(conversation, back, flags, payload, pause, set_by_ns)| {
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
            set_by_ns,
        }
    });
    proptest::collection::vec(step, 1..80)
}

/// Whole records, with times, statistics, expiry and SPLT, of the same packets at the same times,
/// while the wall clock is set again and again.
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
            accounting: Layer::Ip,
            tick_ns: 1,
            splt: 20,
            ..every_packet
        },
        Knobs {
            active_ns: 3 * MILLISECOND,
            accounting: Layer::Payload,
            tick_ns: MILLISECOND,
            splt: 1,
            ..every_packet
        },
        Knobs { idle_ns: 0, accounting: Layer::Transport, decode_tunnels: false, ..every_packet },
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
    host.wall_offset = Setup::default().wall_offset;
    kernel.set_wall_offset(host.wall_offset)?;
    for (i, step) in steps.iter().enumerate() {
        if !step.pause.is_zero() {
            thread::sleep(step.pause);
        }
        if step.set_by_ns != 0 {
            host.wall_offset = host.wall_offset.wrapping_add_signed(step.set_by_ns);
            kernel.set_wall_offset(host.wall_offset)?;
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
        // The event's time is as the flow has it, which may have begun before a step.
        let (key, _) = FlowKey::of(&packet, 0);
        let before = host.flows.get(&key).filter(|_| event.number > 1);
        let wall_offset = before.map_or(host.wall_offset, |record| record.wall_offset);
        let clock_ns = event.time_ns.wrapping_sub(wall_offset);
        let (uid, number) = host.meter(&packet, clock_ns, event.uid);
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
