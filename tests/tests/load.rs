//! Do the books close, and does every packet count, while much is asked of the meter for long?
//!
//! 50,000 new flows a second; half a minute of a reader that is stopped, and of a full disk. Needs root.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::captures::pcap;
use flowmeter_tests::meter::number;
use flowmeter_tests::netns::{Link, WIRE};
use flowmeter_tests::packets::udp;
use flowmeter_tests::piped::{Disk, FLOOD, Folder, Piped, WAITING, check};
use flowmeter_tests::root;
use serde_json::Value;

/// For so long an output takes nothing.
const LONG: Duration = Duration::from_secs(30);

/// Frames of so many flows, one each.
fn capture(folder: &Folder, flows: u32) -> Result<String> {
    let frames: Vec<Vec<u8>> = (0..flows)
        .map(|n| {
            let (port, net) = (1024 + n % 60_000, n / 60_000);
            udp().from(&format!("10.9.{}.2:{port}", 10 + net)).to("10.9.0.1:9").payload(10).build()
        })
        .collect();
    let path = folder.0.join("flows.pcap");
    fs::write(&path, pcap(&frames))?;
    Ok(path.to_string_lossy().into_owned())
}

/// Sends a capture's frames so many times, to the meter's end of the wire.
fn replay(link: &Link, capture: &str, per_second: u32, times: u32) -> Result<Child> {
    let mut command = link.far.command("tcpreplay");
    command.args(["-q", "--preload-pcap", "-i", WIRE]);
    command.args(["--pps", &per_second.to_string(), "--loop", &times.to_string(), capture]);
    Ok(command.stdout(Stdio::null()).spawn()?)
}

/// A wire on which nobody speaks unasked.
fn quiet() -> Result<Link> {
    let link = Link::new()?;
    for host in [&link.near, &link.far] {
        host.run("ip", &["link", "set", WIRE, "arp", "off"])?;
        host.run("sysctl", &["-qw", &format!("net.ipv6.conf.{WIRE}.disable_ipv6=1")])?;
    }
    Ok(link)
}

/// Packets that the meter's end of the wire has received.
fn received(link: &Link) -> Result<u64> {
    let wire = link.near.run("cat", &[&format!("/sys/class/net/{WIRE}/statistics/rx_packets")])?;
    Ok(String::from_utf8(wire.stdout)?.trim().parse()?)
}

const METERING: [&str; 4] =
    ["--direction=ingress", "--system-visibility-mode=0", "--idle-timeout=1", "--ingress=tcx"];

#[test]
fn the_books_close_at_fifty_thousand_new_flows_a_second() -> Result<()> {
    const FLOWS: u32 = 200_000;
    const TIMES: u32 = 4;
    if !root::available("the_books_close_at_fifty_thousand_new_flows_a_second")? {
        return Ok(());
    }
    let (link, folder) = (quiet()?, Folder::new("many")?);
    let capture = capture(&folder, FLOWS)?;
    let log = folder.0.join("log").to_string_lossy().into_owned();
    let more = ["--columns=id,src_port", "--performance-report=0.1", "--output", &log];
    let mut meter = Piped::start(&link, &[&METERING[..], &more].concat())?;
    // What was sent before the wire became quiet.
    let unasked = received(&link)?;
    let (begun, before) = (Instant::now(), meter.reports()?.len());
    let status = replay(&link, &capture, 50_000, TIMES)?.wait()?;
    ensure!(status.success(), "tcpreplay failed");
    let seconds = begun.elapsed().as_secs_f64();
    let during = meter.reports()?.len() - before;
    println!("{:.0} new flows/s, {during} reports", f64::from(FLOWS * TIMES) / seconds);
    ensure!(during >= 50, "{during} reports");
    meter.signal(libc::SIGINT);
    let (code, report) = meter.ended()?;
    ensure!(code == Some(0), "{:#?}", meter.said()?);
    for report in meter.reports()? {
        ensure!(report["balance_error"] == 0, "{report:#}");
        let handled = ["exported", "withheld", "unwritten", "waiting", "resident"];
        let handled: u64 =
            handled.iter().map(|name| number(&report, &format!("packets_{name}"))).sum();
        ensure!(number(&report, "packets_processed") == handled, "{report:#}");
        // Counted apart from each other; every flow is a packet.
        for what in ["unwritten", "waiting", "withheld"] {
            let flows = number(&report, &format!("flows_{what}"));
            ensure!(flows == number(&report, &format!("packets_{what}")), "{report:#}");
        }
        let [expired, exported] = ["flows_expired", "packets_exported"].map(|n| number(&report, n));
        ensure!(expired == exported, "{report:#}");
    }
    let sent = u64::from(FLOWS * TIMES);
    let found = ["packets_processed", "packets_ignored", "packets_lost"];
    let found: u64 = found.iter().map(|name| number(&report, name)).sum();
    // The wire itself has room for 256 frames, and drops what comes while both CPUs are busy.
    let received = received(&link)? - unasked;
    println!("{sent} sent, {received} received, {found} found");
    ensure!(found == received, "{found} of {received} packets: {report:#}");
    Ok(())
}

#[test]
fn a_reader_stopped_for_half_a_minute_costs_no_packet() -> Result<()> {
    if !root::available("a_reader_stopped_for_half_a_minute_costs_no_packet")? {
        return Ok(());
    }
    let (link, folder) = (quiet()?, Folder::new("stopped")?);
    let capture = capture(&folder, 60_000)?;
    let more = ["--output-queue=16", "--performance-report=1"];
    let mut meter = Piped::start(&link, &[&METERING[..], &more].concat())?;
    let begun = Instant::now();
    let mut load = replay(&link, &capture, 10_000, 6)?;
    let rows = folder.0.join("rows");
    let stdout = meter.stdout.take().context("it is piped")?;
    let mut reader = Command::new("cat").stdin(stdout).stdout(File::create(&rows)?).spawn()?;
    let ask = |signal: &str| Command::new("kill").args([signal, &reader.id().to_string()]).status();
    ensure!(ask("-STOP")?.success());
    thread::sleep(LONG.saturating_sub(begun.elapsed()));
    ensure!(ask("-CONT")?.success());
    ensure!(load.wait()?.success(), "tcpreplay failed");
    meter.wait_for_last(|report| {
        number(report, "packets_processed") > 0
            && number(report, "flows_waiting") == 0
            && number(report, "packets_resident") == 0
    })?;
    meter.signal(libc::SIGINT);
    let (code, report) = meter.ended()?;
    ensure!(reader.wait()?.success());
    let rows = BufReader::new(File::open(rows)?).lines().count() as u64;
    for report in meter.reports()? {
        check(&report)?;
        ensure!(number(&report, "expiry_late") == 0, "{report:#}");
    }
    ensure!(code == Some(0) && number(&report, "flows_unwritten") > 0, "{report:#}");
    ensure!(number(&report, "flows_expired") == rows, "{rows} rows: {report:#}");
    let all = rows + number(&report, "flows_unwritten");
    ensure!(number(&report, "packets_processed") == all, "{report:#}");
    ensure!(meter.said()?.iter().filter(|line| line.contains("rows are lost")).count() == 1);
    Ok(())
}

#[test]
fn a_disk_full_for_half_a_minute_costs_nothing() -> Result<()> {
    if !root::available("a_disk_full_for_half_a_minute_costs_nothing")? {
        return Ok(());
    }
    let unwritten = unwritten_by_a_full_disk("64")?;
    ensure!(unwritten == 0, "{unwritten} flows were lost, though there was room for them");
    Ok(())
}

#[test]
fn a_disk_full_for_half_a_minute_costs_what_the_queue_has_no_room_for() -> Result<()> {
    if !root::available("a_disk_full_for_half_a_minute_costs_what_the_queue")? {
        return Ok(());
    }
    let unwritten = unwritten_by_a_full_disk("1")?;
    ensure!(unwritten > 0, "the queue had room for all");
    Ok(())
}

/// Flows that are lost to a disk that is full for half a minute, with a queue of so many MiB.
fn unwritten_by_a_full_disk(queue: &str) -> Result<u64> {
    let (link, folder) = (quiet()?, Folder::new(&format!("half-{queue}"))?);
    let disk = Disk::new(&format!("half-disk-{queue}"))?;
    let capture = capture(&folder, 60_000)?;
    let log = disk.path().join("log");
    let path = log.to_string_lossy().into_owned();
    let queue = format!("--output-queue={queue}");
    let columns = "--columns=id,src_ip,src_port";
    let more = [&queue, columns, "--performance-report=1", "--output", &path];
    let mut meter = Piped::start(&link, &[&METERING[..], &more].concat())?;
    let filler = disk.path().join("filler");
    let full = File::create(&filler)?.write_all(&vec![0; 1 << 20]);
    ensure!(full.is_err(), "the disk has room");
    let begun = Instant::now();
    let mut load = replay(&link, &capture, 10_000, 6)?;
    meter.wait_for("No space left")?;
    thread::sleep(LONG.saturating_sub(begun.elapsed()));
    ensure!(!meter.has_said("takes rows again")?, "it was not full for long");
    let more = ["-o", "remount,size=64m"];
    ensure!(Command::new("mount").args(more).arg(disk.path()).status()?.success());
    ensure!(load.wait()?.success(), "tcpreplay failed");
    meter.wait_for("takes rows again")?;
    meter.signal(libc::SIGINT);
    let (code, report) = meter.ended()?;
    for report in meter.reports()? {
        check(&report)?;
        ensure!(number(&report, "expiry_late") == 0, "{report:#}");
    }
    let text = fs::read_to_string(&log)?;
    let rows = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let written = number(&report, "flows_expired");
    ensure!(code == Some(0) && written == rows.len() as u64, "{} rows: {report:#}", rows.len());
    let unwritten = number(&report, "flows_unwritten");
    // Every flow is a packet.
    ensure!(number(&report, "packets_processed") == written + unwritten, "{report:#}");
    ensure!(meter.said()?.iter().filter(|line| line.contains("No space left")).count() == 1);
    Ok(unwritten)
}

#[test]
fn a_run_that_waits_for_its_output_loses_no_row() -> Result<()> {
    if !root::available("a_run_that_waits_for_its_output_loses_no_row")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut meter = Piped::start(&link, &WAITING)?;
    link.near.python(FLOOD, &["60"])?;
    meter.wait_until_held_up()?;
    let stdout = meter.stdout.take().context("it is piped")?;
    let reader = thread::spawn(|| BufReader::new(stdout).lines().map_while(Result::ok).count());
    meter.wait_for_report(|report| {
        number(report, "packets_processed") >= 6_000 && number(report, "flows_waiting") == 0
    })?;
    meter.signal(libc::SIGINT);
    let (code, report) = meter.ended()?;
    let rows = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    check(&report)?;
    ensure!(code == Some(0) && number(&report, "flows_unwritten") == 0, "{report:#}");
    ensure!(number(&report, "flows_expired") == rows as u64, "{rows} rows: {report:#}");
    Ok(())
}

#[test]
fn a_run_that_waits_for_an_output_that_never_comes_ends_when_it_is_asked_to() -> Result<()> {
    if !root::available("a_run_that_waits_for_an_output_that_never_comes")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut meter = Piped::start(&link, &WAITING)?;
    link.near.python(FLOOD, &["60"])?;
    meter.wait_until_held_up()?;
    meter.signal(libc::SIGINT);
    let (_, report) = meter.ended()?;
    check(&report)?;
    ensure!(number(&report, "packets_processed") >= 6_000, "{report:#}");
    ensure!(number(&report, "flows_unwritten") > 0, "{report:#}");
    Ok(())
}

#[test]
fn a_run_that_is_to_stop_when_its_output_is_full_does_and_says_so() -> Result<()> {
    if !root::available("a_run_that_is_to_stop_when_its_output_is_full_does")? {
        return Ok(());
    }
    let link = Link::new()?;
    let options = ["--output-queue=1", "--when-full=stop", "--idle-timeout=0"];
    let mut meter = Piped::start(&link, &options)?;
    link.near.python(FLOOD, &["60"])?;
    // Whoever reads comes late, and gets what waits.
    let stdout = meter.stdout.take().context("it is piped")?;
    let reader = thread::spawn(move || -> Vec<String> {
        thread::sleep(Duration::from_secs(2));
        BufReader::new(stdout).lines().map_while(Result::ok).collect()
    });
    let (code, report) = meter.ended()?;
    let rows = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    check(&report)?;
    ensure!(code == Some(1) && meter.has_said("its queue is full")?, "{:#?}", meter.said()?);
    ensure!(number(&report, "flows_unwritten") > 0, "{report:#}");
    ensure!(number(&report, "flows_expired") == rows.len() as u64, "{report:#}");
    let bytes: usize = rows.iter().map(String::len).sum();
    ensure!(bytes > 900_000, "only {bytes} bytes of a queue of 1 MiB: {report:#}");
    ensure!(!meter.has_said("takes rows again")?, "{:#?}", meter.said()?);
    Ok(())
}
