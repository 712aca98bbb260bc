//! Do kernel and host join the same fragments, however many datagrams are under way?

use std::collections::HashMap;

use anyhow::{Result, ensure};
use flowmeter_common::counter::Counter;
use flowmeter_common::fragment::{SETS, WAYS};
use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::Knobs;
use flowmeter_tests::host::Host;
use flowmeter_tests::kernel::{Kernel, Setup};
use flowmeter_tests::packets::{Builder, udp};
use flowmeter_tests::root;

/// So many that some are forgotten, and more than the 4,096 of which none was.
const DATAGRAMS: u16 = 6_000;

/// The datagram with this number: each is of a flow of its own.
fn datagram(number: u16) -> Builder {
    let ends = if number.is_multiple_of(2) {
        [format!("10.0.0.1:{number}"), "10.0.0.2:9".to_owned()]
    } else {
        [format!("[2001:db8::1]:{number}"), "[2001:db8::2]:9".to_owned()]
    };
    udp().from(&ends[0]).to(&ends[1]).payload(16)
}

/// All first fragments, then all later ones, so that for each of these all datagrams are under way,
/// some of them begun anew. The same ones are orphans, and the same flows have the others.
#[test]
fn the_same_datagrams_are_forgotten() -> Result<()> {
    if !root::available("the_same_datagrams_are_forgotten")? {
        return Ok(());
    }
    let knobs = Knobs { n_dissections: 0, ..Knobs::default() };
    let setup = Setup { knobs, max_flows: 1 << 15, ..Setup::default() };
    let kernel = Kernel::load(&setup, &["flowmeter_xdp", "flowmeter_tc_in"])?;
    let mut host = Host::new(knobs);
    let (mut packets, mut orphans) = (HashMap::<FlowKey, u64>::new(), 0);
    let mut see = |number: u16, offset| {
        let frame = datagram(number).fragment(number.into(), offset, offset == 0).build();
        if number.is_multiple_of(3) {
            kernel.tc("flowmeter_tc_in", &frame, None)?;
        } else {
            kernel.xdp("flowmeter_xdp", &frame, 1)?;
        }
        match host.admit(&frame) {
            Some(packet) => *packets.entry(FlowKey::of(&packet, 0).0).or_default() += 1,
            None => orphans += 1,
        }
        anyhow::Ok(())
    };
    for number in 0..DATAGRAMS {
        see(number, 0)?;
        if number.is_multiple_of(7) {
            see(number / 2, 0)?;
        }
    }
    for number in 0..DATAGRAMS {
        see(number, 64)?;
    }
    let resident: HashMap<_, _> =
        kernel.resident()?.iter().map(|record| (record.key, record.packets())).collect();
    for (key, count) in &packets {
        let found = resident.get(key);
        ensure!(found == Some(count), "kernel {found:?} packets, host {count}: {key:?}");
    }
    ensure!(resident.len() == packets.len(), "kernel {} flows", resident.len());
    let found = kernel.counters(0)?.get(Counter::OrphanFragment);
    ensure!(found == orphans, "kernel {found} orphans, host {orphans}");
    // Some sets were full, and most were not.
    ensure!(orphans > 0 && orphans < u64::from(DATAGRAMS) / 4, "{orphans} orphans");
    ensure!(usize::from(DATAGRAMS) < SETS * WAYS, "all would be forgotten");
    Ok(())
}
