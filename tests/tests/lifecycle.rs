//! How does a run end, and what does it leave?
//!
//! By signals, by an interface that goes, by a reader that does not read: whatever was metered is
//! written, or the run says that it is not.

#![expect(unsafe_code, reason = "signals by libc")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use flowmeter_tests::captures::pcap;
use flowmeter_tests::meter::{Meter, number, patience};
use flowmeter_tests::netns::{Link, WIRE};
use flowmeter_tests::packets::udp;
use flowmeter_tests::{program, root};

/// A file of a test's own, gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("flowmeter-lifecycle-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn lines(&self) -> Result<usize> {
        Ok(fs::read_to_string(&self.0)?.lines().count())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// So many datagrams, each of a flow of its own.
fn datagrams(count: usize) -> Vec<u8> {
    let frames: Vec<_> = (0..count)
        .map(|n| {
            let from = format!("10.0.{}.1:{}", n / 60_000, 1_000 + n % 60_000);
            udp().from(&from).to("10.1.0.1:9").payload(10).build()
        })
        .collect();
    pcap(&frames)
}

fn flowmeter(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(program("flowmeter")?);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: the child has not been waited for, so the pid is its own.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
}

fn ended(child: &mut Child) -> Result<ExitStatus> {
    let deadline = Instant::now() + patience();
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    bail!("it does not end");
}

fn said(child: &mut Child) -> Result<String> {
    let mut text = String::new();
    child.stderr.take().context("standard error is piped")?.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_stream_that_is_interrupted_is_written() -> Result<()> {
    for number in [libc::SIGINT, libc::SIGTERM] {
        let log = Scratch::new("stream.jsonl");
        let output = log.0.to_string_lossy().into_owned();
        let mut command = flowmeter(&["read", "-", "-o", &output])?;
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("standard input is piped")?;
        input.write_all(&datagrams(500))?;
        input.flush()?;
        // The log is there as soon as it reads; what was given is in the pipe by then.
        while !log.0.exists() {
            ensure!(child.try_wait()?.is_none(), "{}", said(&mut child)?);
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(300));
        signal(&child, number);
        let status = ended(&mut child)?;
        ensure!(status.success(), "{status}: {}", said(&mut child)?);
        ensure!(log.lines()? == 500, "{} rows", log.lines()?);
    }
    Ok(())
}

/// A command that is started as `nohup` starts it.
fn without_hangup(mut command: Command, args: &[&str]) -> Result<Command> {
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(program("flowmeter")?).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

#[test]
fn a_hangup_that_is_ignored_does_not_end_a_read() -> Result<()> {
    let log = Scratch::new("nohup.jsonl");
    let output = log.0.to_string_lossy().into_owned();
    let mut command = without_hangup(Command::new("sh"), &["read", "-", "-o", &output])?;
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().context("standard input is piped")?;
    let capture = datagrams(100);
    let (first, rest) = capture.split_at(capture.len() / 2);
    input.write_all(first)?;
    while !log.0.exists() {
        ensure!(child.try_wait()?.is_none(), "{}", said(&mut child)?);
        thread::sleep(Duration::from_millis(5));
    }
    // Its handlers stand before its log does.
    signal(&child, libc::SIGHUP);
    thread::sleep(Duration::from_millis(300));
    let fed = input.write_all(rest);
    drop(input);
    let status = ended(&mut child)?;
    let text = said(&mut child)?;
    ensure!(status.success() && log.lines()? == 100, "{fed:?}, {status}: {text}");
    Ok(())
}

#[test]
fn a_hangup_that_is_ignored_stays_so_live() -> Result<()> {
    if !root::available("a_hangup_that_is_ignored_stays_so_live")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut command = without_hangup(link.near.command("sh"), &["live", WIRE])?;
    let mut child = command.spawn()?;
    let mut messages = BufReader::new(child.stderr.take().context("standard error is piped")?);
    let mut text = String::new();
    while !text.contains("flowmeter: metering") {
        ensure!(messages.read_line(&mut text)? > 0, "{text}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    signal(&child, libc::SIGINT);
    ensure!(ended(&mut child)?.success());
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.context("it is told")?.trim(), 16)?;
    ensure!(ignored >> (libc::SIGHUP - 1) & 1 == 1, "{status}");
    Ok(())
}

/// The balance that a read has printed.
fn balance(stderr: &[u8]) -> Result<serde_json::Value> {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().find(|line| line.starts_with('{'));
    Ok(serde_json::from_str(line.with_context(|| format!("no balance in: {text}"))?)?)
}

#[test]
fn a_log_that_cannot_be_written_leaves_a_balance() -> Result<()> {
    let capture = Scratch::new("full.pcap");
    fs::write(&capture.0, datagrams(3_000))?;
    let path = capture.0.to_string_lossy().into_owned();
    for workers in ["--n-meters=1", "--n-meters=2"] {
        let args = ["read", &path, "--n-dissections=0", workers, "-o", "/dev/full"];
        let output = flowmeter(&args)?.output()?;
        let report = balance(&output.stderr)?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(report["balance_error"] == 0, "{report:#}");
        // Nothing was, and the report does not say that it was.
        ensure!(number(&report, "flows_expired") == 0, "{report:#}");
        ensure!(number(&report, "packets_exported") == 0, "{report:#}");
        ensure!(number(&report, "flows_unwritten") > 0, "{report:#}");
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(text.contains("failed to write to `/dev/full`: No space left"), "{text}");
    }
    let args = ["read", &path, "--format=csv", "-o", "/nowhere/flows.csv"];
    let report = balance(&flowmeter(&args)?.output()?.stderr)?;
    ensure!(number(&report, "packets_exported") == 0 && report["balance_error"] == 0, "{report:#}");
    Ok(())
}

#[test]
fn an_empty_capture_has_a_balance() -> Result<()> {
    let capture = Scratch::new("empty.pcap");
    fs::write(&capture.0, pcap(&[]))?;
    let output = flowmeter(&["read", &capture.0.to_string_lossy()])?.output()?;
    ensure!(output.status.success(), "{output:?}");
    let report = balance(&output.stderr)?;
    ensure!(report["packets_seen"] == 0 && report["balance_error"] == 0, "{report:#}");
    Ok(())
}

#[test]
fn rows_of_a_stream_do_not_wait_for_its_end() -> Result<()> {
    let log = Scratch::new("rows.jsonl");
    let output = log.0.to_string_lossy().into_owned();
    let mut command = flowmeter(&["read", "-", "--idle-timeout=0", "-o", &output])?;
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("standard input is piped")?;
    let capture = datagrams(100);
    let (first, rest) = capture.split_at(capture.len() / 2);
    input.write_all(first)?;
    thread::sleep(Duration::from_millis(500));
    input.write_all(rest)?;
    let deadline = Instant::now() + patience();
    while log.lines().unwrap_or(0) < 10 {
        ensure!(Instant::now() < deadline, "{:?} rows", log.lines());
        thread::sleep(Duration::from_millis(20));
    }
    drop(input);
    ensure!(ended(&mut child)?.success() && log.lines()? == 100);
    Ok(())
}

#[test]
fn a_second_signal_does_not_wait_for_a_reader_that_does_not_read() -> Result<()> {
    let capture = Scratch::new("unread.pcap");
    fs::write(&capture.0, datagrams(20_000))?;
    let path = capture.0.to_string_lossy().into_owned();
    let mut child = flowmeter(&["read", &path, "--idle-timeout=0"])?.spawn()?;
    thread::sleep(Duration::from_millis(500));
    signal(&child, libc::SIGINT);
    thread::sleep(Duration::from_millis(300));
    ensure!(child.try_wait()?.is_none(), "it should wait: {}", said(&mut child)?);
    signal(&child, libc::SIGINT);
    let status = ended(&mut child)?;
    ensure!(status.code() == Some(1), "{status}");
    Ok(())
}

#[test]
fn a_capture_is_not_overwritten() -> Result<()> {
    let capture = Scratch::new("input.pcap");
    let bytes = datagrams(10);
    fs::write(&capture.0, &bytes)?;
    let link = Scratch::new("link.csv");
    std::os::unix::fs::symlink(&capture.0, &link.0)?;
    let path = capture.0.to_string_lossy().into_owned();
    for output in [&path, &link.0.to_string_lossy().into_owned()] {
        let output = flowmeter(&["read", "/dev/null", &path, "-o", output])?.output()?;
        ensure!(output.status.code() == Some(2), "{output:?}");
        ensure!(String::from_utf8_lossy(&output.stderr).contains("is one of the captures"));
        ensure!(fs::read(&capture.0)? == bytes);
    }
    Ok(())
}

#[test]
fn a_capture_with_a_number_is_not_overwritten() -> Result<()> {
    let capture = Scratch::new("ring.3.pcap");
    let bytes = datagrams(10);
    fs::write(&capture.0, &bytes)?;
    let path = capture.0.to_string_lossy().into_owned();
    let output = path.replace(".3.pcap", ".pcap");
    let output = flowmeter(&["read", &path, "--flows-per-file=2", "-o", &output])?.output()?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    ensure!(fs::read(&capture.0)? == bytes);
    Ok(())
}

#[test]
fn frames_as_long_as_tcpdump_keeps_them_are_read() -> Result<()> {
    let capture = Scratch::new("long.pcap");
    let mut frames = vec![udp().from("10.0.0.1:5").to("10.0.0.2:6").payload(10).build(); 3];
    frames[1].resize(262_144, 0);
    fs::write(&capture.0, pcap(&frames))?;
    let output = flowmeter(&["read", &capture.0.to_string_lossy()])?.output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && text.contains("\"packets_seen\":3"), "{text}");
    Ok(())
}

/// A flow of one packet to each of ten thousand ports.
const FLOOD: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in range(10000, 20000):
    s.sendto(b'x', ('10.9.0.2', port))
";

#[test]
fn a_flood_leaves_no_more_flows_in_memory_than_it_may() -> Result<()> {
    if !root::available("a_flood_leaves_no_more_flows_in_memory_than_it_may")? {
        return Ok(());
    }
    let link = Link::new()?;
    let options = ["--max-flows=500", "--meter-records=1", "--n-dissections=0", WIRE];
    let meter = Meter::start(&link.near, &options)?;
    link.near.python(FLOOD, &[])?;
    let records = meter.wait_for(|lines| {
        lines.iter().any(|line| line["packets_processed"].as_u64() >= Some(10_000))
    })?;
    let resident = |record: &serde_json::Value| record["flows_in_userspace"].as_u64();
    ensure!(records.iter().filter_map(resident).all(|flows| flows <= 500), "too many");
    let log = meter.stop()?;
    log.check_balance()?;
    let early = log.flows.iter().filter(|flow| flow["flow_end_reason"] == "lack of resources");
    ensure!(early.count() > 8_000 && number(&log.report, "packets_lost") == 0);
    Ok(())
}

#[test]
fn captures_out_of_order_are_told_of() -> Result<()> {
    let (old, new) = (Scratch::new("old.pcap"), Scratch::new("new.pcap"));
    let mut capture = datagrams(10);
    fs::write(&new.0, &capture)?;
    // The seconds of each packet, after the file's header, behind one another.
    let length = (capture.len() - 24) / 10;
    for packet in capture[24..].chunks_exact_mut(length) {
        packet[..4].copy_from_slice(&1_600_000_000_u32.to_le_bytes());
    }
    fs::write(&old.0, &capture)?;
    let paths = [&new, &old].map(|file| file.0.to_string_lossy().into_owned());
    let output = flowmeter(&["read", &paths[0], &paths[1]])?.output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        text.contains("10 packets are older") && text.contains("\"packets_late\":10"),
        "{text}"
    );
    let output = flowmeter(&["read", &paths[1], &paths[0]])?.output()?;
    ensure!(!String::from_utf8_lossy(&output.stderr).contains("older"));
    Ok(())
}

#[test]
fn a_meter_whose_interface_goes_ends_with_an_error() -> Result<()> {
    if !root::available("a_meter_whose_interface_goes_ends_with_an_error")? {
        return Ok(());
    }
    let link = Link::new()?;
    let log = Scratch::new("gone.jsonl");
    let mut command = link.near.command(&program("flowmeter")?.to_string_lossy());
    command.args(["live", WIRE, "-o"]).arg(&log.0).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut messages = BufReader::new(child.stderr.take().context("standard error is piped")?);
    let mut text = String::new();
    while !text.contains("flowmeter: metering") {
        ensure!(messages.read_line(&mut text)? > 0, "{text}");
    }
    // Not before it was metered: the reply.
    link.near.run("ping", &["-c1", "-W5", "10.9.0.2"])?;
    link.near.run("ip", &["link", "del", WIRE])?;
    let status = ended(&mut child)?;
    messages.read_to_string(&mut text)?;
    ensure!(status.code() == Some(1), "{status}: {text}");
    ensure!(text.contains("no interface is left"), "{text}");
    ensure!(fs::read_to_string(&log.0)?.contains("\"dst_ip\":\"10.9.0.2\""), "the flow is lost");
    Ok(())
}

#[test]
fn a_renamed_log_is_begun_anew() -> Result<()> {
    if !root::available("a_renamed_log_is_begun_anew")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &["--idle-timeout=0.1", WIRE])?;
    link.near.run("ping", &["-c1", "-W5", "10.9.0.2"])?;
    meter.wait_for(|flows| flows.iter().any(|flow| flow["dst_ip"] == "10.9.0.2"))?;
    let old = Scratch::new("renamed.jsonl");
    fs::rename(meter.log(), &old.0)?;
    // A file that is where it was is gone on with.
    meter.signal(libc::SIGHUP);
    let deadline = Instant::now() + patience();
    while !meter.log().exists() {
        ensure!(Instant::now() < deadline, "no new log");
        thread::sleep(Duration::from_millis(20));
    }
    meter.signal(libc::SIGHUP);
    link.near.run("ping", &["-c1", "-W5", "10.9.0.2"])?;
    meter.wait_for(|flows| flows.iter().any(|flow| flow["dst_ip"] == "10.9.0.2"))?;
    meter.stop()?;
    ensure!(old.lines()? > 0);
    Ok(())
}
