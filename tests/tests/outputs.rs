//! Does an output that does not take rows cost live metering anything?
//!
//! A reader that is slow, stopped or gone, a fifo that nobody reads, a disk that is full: no packet is
//! lost, and what could not be written is counted and said. Needs root.

#![expect(unsafe_code, reason = "signals by libc")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::meter::{Meter, number, patience};
use flowmeter_tests::netns::{Link, WIRE};
use flowmeter_tests::{program, root};
use serde_json::Value;

/// A flow of one packet from each of so many ports to each of ten, all in a fraction of a second.
const FLOOD: &str = "
import socket, sys
for source in range(int(sys.argv[1])):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('10.9.0.1', 20000 + source))
    for port in range(9000, 9100):
        s.sendto(b'x', ('10.9.0.2', port))
    s.close()
";

/// A meter whose standard output is a pipe.
struct Piped {
    child: Child,
    stdout: Option<ChildStdout>,
    /// What it says, line by line.
    said: Arc<Mutex<Vec<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Piped {
    fn start(link: &Link, args: &[&str]) -> Result<Self> {
        let mut command = link.near.command(&program("flowmeter")?.to_string_lossy());
        command.arg("live").args(args).args(["--n-dissections=0", WIRE]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().context("standard error is piped")?;
        let stdout = child.stdout.take();
        let said = Arc::<Mutex<Vec<String>>>::default();
        let listener = thread::spawn({
            let said = Arc::clone(&said);
            move || listen(stderr, &said)
        });
        let meter = Self { child, stdout, said, listener: Some(listener) };
        meter.wait_for("flowmeter: metering")?;
        Ok(meter)
    }

    /// Waits until it says a line with this in it.
    fn wait_for(&self, text: &str) -> Result<()> {
        let deadline = Instant::now() + patience();
        while !self.has_said(text)? {
            ensure!(Instant::now() < deadline, "no `{text}` in: {:#?}", self.said()?);
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn has_said(&self, text: &str) -> Result<bool> {
        Ok(self.said()?.iter().any(|line| line.contains(text)))
    }

    fn said(&self) -> Result<Vec<String>> {
        Ok(self.said.lock().map_err(|_| anyhow::anyhow!("the listener panicked"))?.clone())
    }

    /// Waits until its reports satisfy `enough`.
    fn wait_for_report(&self, enough: impl Fn(&Value) -> bool) -> Result<()> {
        let deadline = Instant::now() + patience();
        while !self.reports()?.iter().any(&enough) {
            ensure!(Instant::now() < deadline, "in vain: {:#?}", self.said()?);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn reports(&self) -> Result<Vec<Value>> {
        let lines = self.said()?;
        Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so the pid is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Waits for its end, and gives its exit code and last report.
    fn ended(&mut self) -> Result<(Option<i32>, Value)> {
        let deadline = Instant::now() + patience() * 2;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "it does not end: {:#?}", self.said()?);
            thread::sleep(Duration::from_millis(10));
        };
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let report = self.reports()?.pop().with_context(|| format!("{:#?}", self.said()))?;
        Ok((status.code(), report))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(stderr: ChildStderr, said: &Mutex<Vec<String>>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Ok(mut said) = said.lock() {
            said.push(line);
        }
    }
}

/// Fails unless every packet is where the report says.
fn check(report: &Value) -> Result<()> {
    let packets = |name: &str| number(report, name);
    let handled = ["exported", "withheld", "unwritten", "waiting", "resident"];
    let handled: u64 = handled.iter().map(|name| packets(&format!("packets_{name}"))).sum();
    ensure!(packets("packets_processed") == handled, "{report:#}");
    ensure!(report["balance_error"] == 0, "{report:#}");
    ensure!(packets("packets_lost") == 0, "{report:#}");
    Ok(())
}

#[test]
fn a_reader_that_is_stopped_costs_no_packet_and_what_it_did_not_get_is_counted() -> Result<()> {
    if !root::available("a_reader_that_is_stopped_costs_no_packet")? {
        return Ok(());
    }
    let link = Link::new()?;
    let options = ["--output-queue=1", "--idle-timeout=0", "--performance-report=0.2"];
    let mut meter = Piped::start(&link, &options)?;
    link.near.python(FLOOD, &["100"])?;
    meter.wait_for("rows are lost from now on")?;
    meter.wait_for_report(|report| report["packets_processed"].as_u64() >= Some(10_000))?;
    meter.wait_for_report(|report| report["flows_unwritten"].as_u64() > Some(0))?;
    for report in meter.reports()? {
        check(&report)?;
        ensure!(number(&report, "expiry_late") == 0, "{report:#}");
    }
    // It ends soon, though nobody reads.
    meter.signal(libc::SIGINT);
    let (_, report) = meter.ended()?;
    check(&report)?;
    let mut rows = String::new();
    meter.stdout.take().context("it is piped")?.read_to_string(&mut rows)?;
    let whole = rows.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
    ensure!(number(&report, "flows_expired") == whole as u64, "{whole} rows: {report:#}");
    ensure!(number(&report, "packets_waiting") == 0, "{report:#}");
    ensure!(meter.said()?.iter().filter(|line| line.contains("rows are lost")).count() == 1);
    Ok(())
}

#[test]
fn a_reader_that_goes_ends_the_run_and_no_row_is_claimed_that_it_did_not_get() -> Result<()> {
    if !root::available("a_reader_that_goes_ends_the_run")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut meter = Piped::start(&link, &["--idle-timeout=0"])?;
    let flood = link.near.command("python3").args(["-c", FLOOD, "50"]).spawn()?;
    let mut reader = BufReader::new(meter.stdout.take().context("it is piped")?);
    let mut line = String::new();
    for _ in 0..100 {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "{:#?}", meter.said()?);
    }
    drop(reader);
    let mut flood = flood;
    flood.wait()?;
    let (code, report) = meter.ended()?;
    ensure!(code == Some(1) && meter.has_said("was closed by its reader")?, "{:#?}", meter.said()?);
    check(&report)?;
    ensure!(number(&report, "flows_unwritten") > 0, "{report:#}");
    Ok(())
}

#[test]
fn a_fifo_without_a_reader_is_told_of_and_signals_end_the_run() -> Result<()> {
    if !root::available("a_fifo_without_a_reader_is_told_of")? {
        return Ok(());
    }
    let link = Link::new()?;
    let folder = Folder::new("fifo")?;
    let fifo = folder.0.join("log");
    ensure!(Command::new("mkfifo").arg(&fifo).status()?.success());
    let path = fifo.to_string_lossy().into_owned();
    let options = ["--idle-timeout=0", "--output", &path];
    let mut meter = Piped::start(&link, &options)?;
    meter.wait_for("nobody reads")?;
    link.near.python(FLOOD, &["1"])?;
    meter.signal(libc::SIGINT);
    let (_, report) = meter.ended()?;
    check(&report)?;
    ensure!(number(&report, "flows_unwritten") >= 100, "{report:#}");
    // One that comes later gets what waited.
    let mut meter = Piped::start(&link, &options)?;
    link.near.python(FLOOD, &["1"])?;
    meter.wait_for("nobody reads")?;
    let read = thread::spawn(move || -> Result<usize> {
        Ok(BufReader::new(File::open(fifo)?).lines().map_while(Result::ok).count())
    });
    meter.wait_for("takes rows again")?;
    meter.signal(libc::SIGINT);
    let (code, report) = meter.ended()?;
    check(&report)?;
    let rows = read.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    ensure!(code == Some(0) && rows >= 100, "{rows} rows: {report:#}");
    ensure!(number(&report, "flows_expired") == rows as u64, "{rows} rows: {report:#}");
    Ok(())
}

/// A folder of a test's own, gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let name = format!("flowmeter-outputs-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A disk of 256 KiB, gone with the value.
struct Disk(Folder);

impl Disk {
    fn new(name: &str) -> Result<Self> {
        let folder = Folder::new(name)?;
        let mount = ["-t", "tmpfs", "-o", "size=256k", "flowmeter"];
        ensure!(Command::new("mount").args(mount).arg(&folder.0).status()?.success(), "no tmpfs");
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        &self.0.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_nothing() -> Result<()> {
    if !root::available("a_disk_that_is_full_for_a_while_costs_nothing")? {
        return Ok(());
    }
    let link = Link::new()?;
    let disk = Disk::new("disk")?;
    let filler = disk.path().join("filler");
    let log = disk.path().join("log");
    let path = log.to_string_lossy().into_owned();
    let options = [
        "--idle-timeout=0",
        "--performance-report=0.2",
        "--columns=id,src_port,dst_port",
        "--output",
        &path,
    ];
    let mut meter = Piped::start(&link, &options)?;
    let full = File::create(&filler)?.write_all(&vec![0; 1 << 20]);
    ensure!(full.is_err(), "the disk has room");
    link.near.python(FLOOD, &["20"])?;
    meter.wait_for("No space left")?;
    meter.wait_for_report(|report| report["packets_processed"].as_u64() >= Some(2_000))?;
    fs::remove_file(&filler)?;
    meter.wait_for("takes rows again")?;
    meter.signal(libc::SIGINT);
    let (code, report) = meter.ended()?;
    check(&report)?;
    let text = fs::read_to_string(&log)?;
    let rows = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let written = number(&report, "flows_expired");
    ensure!(code == Some(0) && written == rows.len() as u64 && written >= 2_000, "{report:#}");
    ensure!(number(&report, "flows_unwritten") == 0, "{report:#}");
    // Once, however often it was tried.
    ensure!(meter.said()?.iter().filter(|line| line.contains("No space left")).count() == 1);
    Ok(())
}

#[test]
fn a_disk_that_stays_full_leaves_what_it_took_and_the_books_say_no_more() -> Result<()> {
    if !root::available("a_disk_that_stays_full_leaves_what_it_took")? {
        return Ok(());
    }
    let link = Link::new()?;
    let disk = Disk::new("full")?;
    let log = disk.path().join("log");
    let path = log.to_string_lossy().into_owned();
    let mut meter = Piped::start(&link, &["--idle-timeout=0", "--output", &path])?;
    link.near.python(FLOOD, &["20"])?;
    meter.wait_for("No space left")?;
    meter.signal(libc::SIGINT);
    let (_, report) = meter.ended()?;
    check(&report)?;
    let text = fs::read_to_string(&log)?;
    let rows = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    ensure!(number(&report, "flows_expired") == rows.len() as u64, "{} rows", rows.len());
    ensure!(number(&report, "flows_unwritten") > 0, "{report:#}");
    Ok(())
}

#[test]
fn the_books_close_at_every_moment_of_a_load() -> Result<()> {
    if !root::available("the_books_close_at_every_moment_of_a_load")? {
        return Ok(());
    }
    let link = Link::new()?;
    let options = ["--idle-timeout=0", "--performance-report=0.05", "--output=/dev/null"];
    let mut meter = Piped::start(&link, &options)?;
    let mut floods = Vec::new();
    while meter.reports()?.len() < 50 {
        floods.retain_mut(|flood: &mut Child| !matches!(flood.try_wait(), Ok(Some(_))));
        if floods.len() < 2 {
            floods.push(link.near.command("python3").args(["-c", FLOOD, "100"]).spawn()?);
        }
        thread::sleep(Duration::from_millis(20));
    }
    meter.signal(libc::SIGINT);
    let (code, _) = meter.ended()?;
    for mut flood in floods {
        flood.wait()?;
    }
    let reports = meter.reports()?;
    ensure!(code == Some(0) && reports.len() >= 50);
    reports.iter().try_for_each(check)
}

#[test]
fn a_reader_that_is_slow_gets_all_that_the_queue_can_hold() -> Result<()> {
    if !root::available("a_reader_that_is_slow_gets_all")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut meter = Piped::start(&link, &["--idle-timeout=0", "--performance-report=0.2"])?;
    let mut stdout = meter.stdout.take().context("it is piped")?;
    let reader = thread::spawn(move || -> Result<usize> {
        let (mut rows, mut piece) = (0, [0; 2048]);
        loop {
            let n = stdout.read(&mut piece)?;
            if n == 0 {
                return Ok(rows);
            }
            rows += piece.iter().take(n).filter(|byte| **byte == b'\n').count();
            thread::sleep(Duration::from_micros(500));
        }
    });
    link.near.python(FLOOD, &["30"])?;
    meter.wait_for_report(|report| {
        report["packets_processed"].as_u64() >= Some(3_000)
            && report["flows_waiting"].as_u64() == Some(0)
    })?;
    meter.signal(libc::SIGINT);
    let (code, report) = meter.ended()?;
    check(&report)?;
    let rows = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    ensure!(code == Some(0) && number(&report, "flows_unwritten") == 0, "{report:#}");
    ensure!(number(&report, "flows_expired") == rows as u64, "{rows} rows: {report:#}");
    Ok(())
}

/// The helper of other tests, so that its messages are checked here too.
#[test]
fn the_last_report_names_the_log() -> Result<()> {
    if !root::available("the_last_report_names_the_log")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &["--n-dissections=0", WIRE])?;
    let path = format!("`{}`", meter.log().display());
    let log = meter.stop()?;
    ensure!(log.report["outputs"][0]["name"] == path.as_str(), "{:#}", log.report);
    ensure!(log.report["outputs"][0]["flows_lost"] == 0, "{:#}", log.report);
    Ok(())
}
