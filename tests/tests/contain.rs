//! Can what dissects hurt the meter, or the host?
//!
//! Rights are read back from `/proc`; children are killed and stopped while packets flow, and no
//! packet is missing afterwards.

#![expect(unsafe_code, reason = "signals by libc")]

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::meter::{Meter, number, patience};
use flowmeter_tests::netns::{Link, WIRE};
use flowmeter_tests::{program, root};

/// A DNS query from each of so many source ports, every few milliseconds.
const ASK: &str = "
import socket, sys, time
count, first = map(int, sys.argv[1:3])
query = b'\\x12\\x34\\x01\\x00\\x00\\x01\\0\\0\\0\\0\\0\\0\\x03www\\x07example\\x03org\\0\\0\\x01\\0\\x01'
for i in range(count):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('10.9.0.1', first + i))
    s.sendto(query, ('10.9.0.2', 53))
    s.close()
    time.sleep(0.002)
";

/// A field of `/proc/PID/status`.
fn status(pid: i32, field: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {field} in {text}"))?.trim().to_owned())
}

/// The dissectors of a meter: children by any of its threads.
fn dissectors(meter: i32) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{meter}/task"))? {
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Ok(found)
}

/// Waits for a dissector that is closed and not among those `before`.
fn closed_dissector(meter: i32, before: &[i32]) -> Result<i32> {
    let deadline = Instant::now() + patience();
    loop {
        for pid in dissectors(meter)? {
            if !before.contains(&pid) && status(pid, "Seccomp").is_ok_and(|mode| mode == "2") {
                return Ok(pid);
            }
        }
        ensure!(Instant::now() < deadline, "no dissector is there");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn parent_and_child_have_no_right_too_many() -> Result<()> {
    if !root::available("parent_and_child_have_no_right_too_many")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &[WIRE])?;
    let child = closed_dissector(meter.pid(), &[])?;
    let none = "0000000000000000";
    for (field, wanted) in [
        ("Seccomp", "2"),
        ("NoNewPrivs", "1"),
        ("CapInh", none),
        ("CapPrm", none),
        ("CapEff", none),
        ("CapBnd", none),
        ("CapAmb", none),
        ("Uid", "65534\t65534\t65534\t65534"),
        ("Gid", "65534\t65534\t65534\t65534"),
        ("Groups", ""),
    ] {
        ensure!(
            status(child, field)? == wanted,
            "the child's {field} is {}",
            status(child, field)?
        );
    }
    // DAC_READ_SEARCH, SYS_PTRACE.
    let processes = 1_u64 << 2 | 1 << 19;
    // KILL, SETGID, SETUID, SETPCAP, NET_ADMIN, PERFMON, BPF.
    let kept = 1_u64 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 38 | 1 << 39;
    has_only(&meter, kept | processes)?;
    meter.stop()?.check_balance()?;
    let meter = Meter::start(&link.near, &["--system-visibility-mode=0", WIRE])?;
    has_only(&meter, kept)?;
    meter.stop()?.check_balance()
}

/// Fails if a thread of the meter has another capability than these.
fn has_only(meter: &Meter, kept: u64) -> Result<()> {
    for task in fs::read_dir(format!("/proc/{}/task", meter.pid()))? {
        let task = task?.file_name().to_string_lossy().parse()?;
        for field in ["CapPrm", "CapEff", "CapBnd"] {
            let bits = u64::from_str_radix(&status(task, field)?, 16)?;
            ensure!(bits & !kept == 0, "{field} of the meter is {bits:x}");
        }
    }
    Ok(())
}

/// Ends dissectors by `signal` so many times under load; every packet is in the log.
fn disturb(signal: i32, times: u32) -> Result<()> {
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &["--n-dissections=3", WIRE])?;
    let mut load = link.near.command("python3").args(["-c", ASK, "3000", "20000"]).spawn()?;
    let mut slowest = Duration::ZERO;
    let mut disturbed = Vec::new();
    for _ in 0..times {
        let since = Instant::now();
        let child = closed_dissector(meter.pid(), &disturbed)?;
        slowest = slowest.max(since.elapsed());
        // SAFETY: it takes numbers; the pid is a child of the meter we started.
        ensure!(unsafe { libc::kill(child, signal) } == 0, "the dissector is gone");
        disturbed.push(child);
    }
    ensure!(load.wait()?.success(), "the load failed");
    println!("signal {signal}: replaced within {slowest:?} at the most");
    let log = meter.stop()?;
    log.check_balance()?;
    let asked = log.flows.iter().filter(|flow| flow["dst_port"] == 53).count();
    ensure!(asked == 3000, "{asked} flows of 3000");
    let counted = ["dissector_crashes", "dissector_hangs"].map(|name| number(&log.report, name));
    let times = u64::from(times);
    let wanted = if signal == libc::SIGKILL { [times, 0] } else { [0, times] };
    ensure!(counted == wanted, "{counted:?} for {wanted:?}: {:#}", log.report);
    Ok(())
}

#[test]
fn a_killed_dissector_costs_no_packet() -> Result<()> {
    if !root::available("a_killed_dissector_costs_no_packet")? {
        return Ok(());
    }
    disturb(libc::SIGKILL, 20)
}

#[test]
fn a_stopped_dissector_costs_no_packet() -> Result<()> {
    if !root::available("a_stopped_dissector_costs_no_packet")? {
        return Ok(());
    }
    disturb(libc::SIGSTOP, 20)
}

#[test]
fn a_dissector_started_by_hand_ends() -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let mut by_hand = Command::new(program("flowmeter")?);
    let output = by_hand.arg0("flowmeter-dissect").arg("nonsense").output()?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    Ok(())
}
