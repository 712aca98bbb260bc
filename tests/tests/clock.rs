//! Are a flow's times right, whatever becomes of the clocks?

#![expect(unsafe_code, reason = "clocks by libc")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::meter::{Meter, number};
use flowmeter_tests::netns::{Link, WIRE};
use flowmeter_tests::root;
use serde_json::Value;

fn wall_ms() -> Result<u64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64)
}

/// Sends a datagram from its own port, and says which process it is.
const SEND: &str = "
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.9.0.1', int(sys.argv[1])))
s.sendto(b'x', ('10.9.0.2', 9))
print(os.getpid())
";

/// Sends when it is asked to, and stays.
const ASKED: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.9.0.1', 4001))
input()
s.sendto(b'x', ('10.9.0.2', 9))
sys.stdin.read()
";

/// Runs a program in a time namespace of its own, as the same process.
const ELSEWHEN: &str = "
set -e
f=$(mktemp)
unshare --time=$f --boottime 1000000 --monotonic 50000 true
exec 9<$f
umount -l $f
rm $f
exec nsenter --time=/proc/self/fd/9 \"$@\"
";

/// In a time namespace a process is shown other clocks than the kernel's programs.
#[test]
fn a_meter_in_a_time_namespace_has_the_right_time() -> Result<()> {
    let _alone = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    if !root::available("a_meter_in_a_time_namespace_has_the_right_time")? {
        return Ok(());
    }
    let link = Link::new()?;
    // Of a process that was there before it, only procfs can tell what it is.
    let mut early = link.near.command("python3");
    early.args(["-c", ASKED]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut early = early.spawn()?;
    let args = ["--system-visibility-mode=1", "--n-dissections=0", "--idle-timeout=5", WIRE];
    let meter = Meter::start_by(&link.near, &["sh", "-c", ELSEWHEN, "sh"], &args)?;
    let before = wall_ms()?;
    let pid: u64 = link.near.python(SEND, &["4000"])?.parse()?;
    let after = wall_ms()?;
    let mut stdin = early.stdin.take().context("it is piped")?;
    stdin.write_all(b"\n")?;
    let is_there = |flows: &[Value], port| flows.iter().any(|flow| flow["src_port"] == port);
    let flows = meter.wait_for(|flows| is_there(flows, 4000) && is_there(flows, 4001))?;
    drop(stdin);
    early.wait()?;
    let of_early = flows.iter().find(|flow| flow["src_port"] == 4001).context("it is there")?;
    let text = |column: &str| of_early[column].as_str().unwrap_or_default();
    ensure!(of_early["src_process_pid"] == early.id(), "{of_early:#}");
    ensure!(text("process_exe").contains("python"), "{of_early:#}");
    ensure!(text("process_cmdline").contains("input()"), "{of_early:#}");
    let flow = flows.iter().find(|flow| flow["src_port"] == 4000).context("it is there")?;
    let lived = wall_ms()? - before;
    let first = number(flow, "bidirectional_first_seen_ms");
    ensure!((before - 1..=after + 1).contains(&first), "{first} not in {before} to {after}");
    ensure!(lived >= 5000, "idle after {lived} ms: {flow:#}");
    ensure!(flow["flow_end_reason"] == "idle timeout", "{flow:#}");
    ensure!(flow["src_process_pid"] == pid, "{pid}: {flow:#}");
    meter.stop()?.check_balance()
}

/// One test at a time: the clock is the machine's.
static CLOCK: Mutex<()> = Mutex::new(());

/// Sets the wall clock ahead by so much.
fn set_clock(by_s: i64) -> Result<()> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    time.tv_sec += by_s;
    // SAFETY: `time` is valid for reads.
    let failed = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) };
    ensure!(failed == 0, "the clock cannot be set: {}", std::io::Error::last_os_error());
    Ok(())
}

/// A ping that goes on while the clock is set a day ahead, and one that begins thereafter. Only where
/// that does no harm, as in a virtual machine: with `FLOWMETER_MAY_SET_CLOCK=1`.
#[test]
fn a_clock_that_is_set_cuts_no_flow_and_dates_the_next() -> Result<()> {
    const DAY_S: i64 = 86_400;
    let _alone = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    if !root::available("a_clock_that_is_set_cuts_no_flow_and_dates_the_next")? {
        return Ok(());
    }
    if !root::is_set("FLOWMETER_MAY_SET_CLOCK") {
        println!("skipped: it sets the machine's clock, and FLOWMETER_MAY_SET_CLOCK is not set");
        return Ok(());
    }
    let link = Link::new()?;
    let args = ["--system-visibility-mode=1", "--n-dissections=0", WIRE];
    let mut meter = Meter::start(&link.near, &args)?;
    let before = wall_ms()?;
    let ping = ["-c", "40", "-i", "0.1", "10.9.0.2"];
    let mut ping = link.near.command("ping").args(ping).stdout(Stdio::piped()).spawn()?;
    let mut answers = BufReader::new(ping.stdout.take().context("it is piped")?).lines();
    ensure!(answers.any(|line| line.is_ok_and(|line| line.contains("bytes from"))), "no answer");
    set_clock(DAY_S)?;
    let said = meter.wait_for_message(|line| line.contains("the wall clock was set by +"));
    let set = wall_ms()?;
    let pid: u64 = link.near.python(SEND, &["4000"])?.parse()?;
    // It writes until it ends.
    let count = answers.count();
    ping.wait()?;
    ensure!(count >= 20, "{count} lines: it was set too late");
    let log = meter.stop();
    set_clock(-DAY_S)?;
    said?;
    let log = log?;
    let echo = log.the(|flow| flow["protocol"] == 1)?;
    // With the answer to a datagram that nobody takes.
    ensure!(number(echo, "bidirectional_packets") >= 80, "{echo:#}");
    ensure!(number(echo, "bidirectional_duration_ms") < 20_000, "{echo:#}");
    let first = number(echo, "bidirectional_first_seen_ms");
    ensure!((before - 1..before + 10_000).contains(&first), "{before}: {echo:#}");
    let next = log.the(|flow| flow["src_port"] == 4000)?;
    let first = number(next, "bidirectional_first_seen_ms");
    ensure!((set - 1..set + 10_000).contains(&first), "{set}: {next:#}");
    ensure!(next["src_process_pid"] == pid, "{pid}: {next:#}");
    let step = log.report["clock_step_ns"].as_i64().context("no step in the report")?;
    // It takes a moment to set it.
    ensure!((step - DAY_S * 1_000_000_000).abs() < 1_000_000_000, "{step}");
    log.check_balance()
}
