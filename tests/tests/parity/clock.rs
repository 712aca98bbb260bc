//! What becomes of flows when the wall clock is set, or the machine sleeps?

#![expect(unsafe_code, reason = "clocks by libc")]

use anyhow::{Context as _, Result, ensure};
use flowmeter_common::event::Why;
use flowmeter_common::knobs::{Knobs, MILLISECOND};
use flowmeter_common::lifetime::EndReason;
use flowmeter_common::record::Record;
use flowmeter_tests::kernel::{Handed, Kernel, Setup};
use flowmeter_tests::packets::udp;
use flowmeter_tests::root;

/// The time since boot, sleep included; ns.
fn boottime_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).cast_unsigned()
}

const DAY_NS: u64 = 86_400_000_000_000;

/// Sends a packet of the flow from `port`, and gives that flow's record and when it was sent, by the
/// kernel's clock.
fn send(kernel: &Kernel, port: u16) -> Result<(Record, std::ops::RangeInclusive<u64>)> {
    let before = boottime_ns();
    let packet = udp().from(&format!("10.0.0.1:{port}")).to("10.0.0.2:60000").payload(9);
    kernel.xdp("flowmeter_xdp", &packet.build(), 1)?;
    let resident = kernel.resident()?;
    let record = resident.iter().find(|r| r.key.low_port == port);
    Ok((*record.context("the flow is not there")?, before..=boottime_ns()))
}

/// The flow goes on with the wall clock that it began by, and the next has the new one.
#[test]
fn a_step_cuts_no_flow_and_the_next_one_has_it() -> Result<()> {
    if !root::available("a_step_cuts_no_flow_and_the_next_one_has_it")? {
        return Ok(());
    }
    let setup = Setup::default();
    for step in [DAY_NS, DAY_NS.wrapping_neg(), MILLISECOND / 2] {
        let kernel = Kernel::load(&setup, &["flowmeter_xdp"])?;
        let (begun, _) = send(&kernel, 1)?;
        let offset = setup.wall_offset.wrapping_add(step);
        kernel.set_wall_offset(offset)?;
        let (on, sent) = send(&kernel, 1)?;
        ensure!(on.uid == begun.uid && on.packets() == 2, "it was cut: {on:?}");
        ensure!(on.first_ns() == begun.first_ns(), "{on:?}");
        ensure!(sent.contains(&(on.last_ns() - setup.wall_offset)), "{sent:?} {on:?}");
        let (next, sent) = send(&kernel, 2)?;
        ensure!(sent.contains(&(next.first_ns() - offset)), "{sent:?} {next:?}");
        ensure!(kernel.handed()?.is_empty(), "a flow ended");
    }
    Ok(())
}

/// The record that takes the place of one past its timeout is a later flow.
#[test]
fn a_record_that_follows_another_has_the_new_wall_clock() -> Result<()> {
    if !root::available("a_record_that_follows_another_has_the_new_wall_clock")? {
        return Ok(());
    }
    let knobs = Knobs { idle_ns: 0, ..Knobs::default() };
    let setup = Setup { knobs, ..Setup::default() };
    let kernel = Kernel::load(&setup, &["flowmeter_xdp"])?;
    send(&kernel, 1)?;
    kernel.set_wall_offset(setup.wall_offset + DAY_NS)?;
    let (next, sent) = send(&kernel, 1)?;
    ensure!(sent.contains(&(next.first_ns() - setup.wall_offset - DAY_NS)), "{next:?}");
    let handed = kernel.handed()?;
    ensure!(matches!(handed[..], [Handed::Record(EndReason::Idle, _)]), "{handed:?}");
    Ok(())
}

/// The clock of lifetimes is the one that runs while the machine sleeps: userspace asks for what is
/// idle by it.
#[test]
fn the_reaper_goes_by_the_time_since_boot() -> Result<()> {
    if !root::available("the_reaper_goes_by_the_time_since_boot")? {
        return Ok(());
    }
    let setup = Setup::default();
    let kernel = Kernel::load(&setup, &["flowmeter_xdp", "flowmeter_reap"])?;
    for (later_ns, expected) in [(0, 1), (setup.knobs.idle_ns + MILLISECOND, 0)] {
        send(&kernel, 1)?;
        kernel.reap(&kernel.keys()?, boottime_ns() + later_ns, Why::Timeout)?;
        let left = kernel.resident()?.len();
        ensure!(left == expected, "{left} flows {later_ns} ns later");
    }
    Ok(())
}
