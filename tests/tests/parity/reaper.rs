//! Does each flow leave the map once, and whole?

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, bail, ensure};
use flowmeter_common::counter::Counter;
use flowmeter_common::event::{MAX_REAP, Why};
use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::{Knobs, MILLISECOND};
use flowmeter_common::lifetime::EndReason;
use flowmeter_common::packet::Packet;
use flowmeter_common::record::Record;
use flowmeter_tests::host::Host;
use flowmeter_tests::kernel::{Handed, Kernel, Setup};
use flowmeter_tests::packets::udp;
use flowmeter_tests::root;

use crate::{balance, by_key, ended};

/// Flows of one UDP packet each, on the ports 1 to `n`.
fn begin_flows(kernel: &Kernel, n: u16) -> Result<()> {
    for port in 1..=n {
        let packet = udp().from(&format!("10.0.0.1:{port}")).to("10.0.0.2:9");
        kernel.xdp("flowmeter_xdp", &packet.build(), 1)?;
    }
    Ok(())
}

#[test]
fn the_reaper_takes_ended_flows_only() -> Result<()> {
    if !root::available("the_reaper_takes_ended_flows_only")? {
        return Ok(());
    }
    let setup = Setup::default();
    let kernel = Kernel::load(&setup, &["flowmeter_xdp", "flowmeter_reap"])?;
    begin_flows(&kernel, 2)?;
    let mut records = kernel.resident()?;
    records.sort_unstable_by_key(Record::last_ns);
    let [early, late] = records[..] else {
        bail!("not two flows but {records:?}");
    };
    let keys = [early.key, late.key];
    // In whole milliseconds, as the rule is.
    let last = |r: &Record| r.last_ns() / MILLISECOND * MILLISECOND;
    let idle = |r: &Record| r.by_the_clock(last(r) + setup.knobs.idle_ns);

    assert_eq!(kernel.reap(&keys, idle(&early) - MILLISECOND, Why::Timeout)?, 2);
    assert!(kernel.handed()?.is_empty());

    // The first flow alone, unless both began within a millisecond: ask for it only.
    assert_eq!(kernel.reap(&keys[..1], idle(&early), Why::Timeout)?, 1);
    let handed: Vec<_> = kernel.handed()?.iter().map(ended).collect::<Result<_>>()?;
    assert_eq!(handed, [(EndReason::Idle, early)]);
    assert_eq!(kernel.resident()?, [late]);

    // A key that is gone is dealt with; a shutdown takes what has not ended.
    assert_eq!(kernel.reap(&keys, 0, Why::Shutdown)?, 2);
    let handed: Vec<_> = kernel.handed()?.iter().map(ended).collect::<Result<_>>()?;
    assert_eq!(handed, [(EndReason::Forced, late)]);
    assert!(kernel.resident()?.is_empty());
    Ok(())
}

/// With a full ring the reaper stops, and takes the rest when there is room: each flow once.
#[test]
fn the_reaper_waits_for_room() -> Result<()> {
    if !root::available("the_reaper_waits_for_room")? {
        return Ok(());
    }
    let setup = Setup { record_ring: 4096, ..Setup::default() };
    let kernel = Kernel::load(&setup, &["flowmeter_xdp", "flowmeter_reap"])?;
    begin_flows(&kernel, MAX_REAP as u16)?;
    let expected = by_key(kernel.resident()?);
    let keys: Vec<_> = expected.keys().copied().collect();
    let (mut done, mut calls, mut taken) = (0, 0, Vec::new());
    while done < keys.len() {
        let n = kernel.reap(&keys[done..], 0, Why::Shutdown)? as usize;
        ensure!(n > 0, "an empty ring has no room for a record");
        done += n;
        calls += 1;
        let handed = kernel.handed()?;
        assert_eq!(handed.len(), n);
        taken.extend(handed.iter().filter_map(Handed::record).copied());
    }
    assert!(calls > 1, "64 records fit a ring of one page");
    assert_eq!(taken.len(), keys.len());
    assert_eq!(by_key(taken), expected);
    assert!(kernel.resident()?.is_empty());
    Ok(())
}

/// Rounds over the hot flows that each sender makes.
const ROUNDS: u32 = 400;
/// Packets of one flow at once.
const REPEAT: u32 = 500;

/// The reaper takes hot flows away under the packets' noses, and every packet is in exactly one
/// record, or counted as what became of it.
#[test]
fn no_packet_is_lost_or_doubled_while_its_flow_is_reaped() -> Result<()> {
    if !root::available("no_packet_is_lost_or_doubled_while_its_flow_is_reaped")? {
        return Ok(());
    }
    let setup = Setup {
        knobs: Knobs { n_dissections: 0, statistics: true, ..Knobs::default() },
        record_ring: 1 << 24,
        ..Setup::default()
    };
    let kernel = Kernel::load(&setup, &["flowmeter_xdp", "flowmeter_reap"])?;
    let frames: Vec<_> = (1..=4)
        .map(|port| udp().from(&format!("10.0.0.1:{port}")).to("10.0.0.2:9").build())
        .collect();
    let host = Host::new(setup.knobs);
    let keys: Vec<_> = frames
        .iter()
        .filter_map(|frame| host.parse(frame).ok())
        .map(|p: Packet| FlowKey::of(&p, 0).0)
        .collect();
    let done = AtomicBool::new(false);

    let send = || -> Result<()> {
        for _ in 0..ROUNDS {
            for frame in &frames {
                kernel.xdp("flowmeter_xdp", frame, REPEAT)?;
            }
        }
        Ok(())
    };
    let handed = thread::scope(|scope| -> Result<Vec<Handed>> {
        let reaper = scope.spawn(|| -> Result<Vec<Handed>> {
            let mut handed = Vec::new();
            while !done.load(Ordering::Relaxed) {
                kernel.reap(&keys, 0, Why::Shutdown)?;
                handed.extend(kernel.handed()?);
            }
            handed.extend(kernel.handed()?);
            Ok(handed)
        });
        let senders = [scope.spawn(send), scope.spawn(send)];
        for sender in senders {
            sender.join().expect("a sender does not panic")?;
        }
        done.store(true, Ordering::Relaxed);
        reaper.join().expect("the reaper does not panic")
    })?;

    let sent = u64::from(ROUNDS) * u64::from(REPEAT) * frames.len() as u64 * 2;
    let records = handed.iter().filter_map(Handed::record);
    let taken: u64 = records.clone().map(Record::packets).sum();
    let overflowed = handed.len() as u64 - records.clone().count() as u64;
    let resident: u64 = kernel.resident()?.iter().map(Record::packets).sum();
    let counters = kernel.counters(0)?;
    balance::check(&counters)?;
    println!(
        "{sent} packets sent: {taken} in {} records reaped, {resident} resident, {overflowed} overflowed",
        records.clone().count()
    );
    assert_eq!(counters.get(Counter::Seen), sent);
    assert_eq!(counters.get(Counter::Overflowed), overflowed);
    assert_eq!(counters.get(Counter::Metered), taken + resident);
    // No number is given twice, or a record would be mistaken for another.
    let mut uids: Vec<_> = records.map(|r| r.uid).collect();
    uids.sort_unstable();
    let count = uids.len();
    uids.dedup();
    assert_eq!(uids.len(), count);
    assert!(count > 100, "the reaper hardly ran: {count} records");
    Ok(())
}
