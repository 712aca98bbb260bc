//! Does an output that does not take rows cost live metering anything?
//!
//! A reader that is slow, stopped or gone, a fifo that nobody reads, a disk that is full: no packet is
//! lost, and what could not be written is counted and said. Needs root.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::meter::{Meter, number};
use flowmeter_tests::netns::{Link, WIRE};
use flowmeter_tests::piped::{Disk, FLOOD, Folder, Piped, check};
use flowmeter_tests::root;
use serde_json::Value;

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
