//! Does `flowmeter read --compat nfstream` give NFStream's rows?
//!
//! The captures, the expected rows and the comparer are not part of the project:
//! `FLOWMETER_CONFORMANCE` names the folder that has them. Without it these tests have nothing to
//! compare with and say so.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::configurations::CONFIGURATIONS;
use flowmeter_tests::{ndpi, program};
use serde_json::Value;

#[test]
fn every_row_of_the_captures_is_nfstreams() -> Result<()> {
    compare_all("pcaps", "expected")
}

#[test]
fn every_row_of_the_quirk_probes_is_nfstreams() -> Result<()> {
    compare_all("quirks", "expected-quirks")
}

/// The share of flows with NFStream's application, at least, by the version of nDPI. NFStream has
/// 5.0, whose application names older versions do not know yet.
const APPLICATIONS: [((u32, u32), f64); 5] =
    [((4, 2), 0.70), ((4, 4), 0.73), ((4, 6), 0.80), ((4, 10), 0.93), ((5, 0), 0.999)];

/// The share of flows with NFStream's value, at least, by any nDPI from 4.2 on.
const LAYER_7: [(&str, f64); 8] = [
    ("application_name", 0.70),
    ("application_category_name", 0.65),
    ("application_is_guessed", 0.70),
    ("requested_server_name", 0.96),
    ("client_fingerprint", 0.99),
    ("server_fingerprint", 0.99),
    ("user_agent", 0.98),
    ("content_type", 0.98),
];

#[test]
fn layer_7_agrees_as_far_as_the_installed_ndpi_can() -> Result<()> {
    let Some(folder) = folder()? else { return Ok(()) };
    let (mut all, mut agree, mut master) = (0_u32, [0_u32; LAYER_7.len()], 0_u32);
    // TLS over TCP, of which nothing may be missed, and everything that has a name.
    let (mut named, mut named_right) = (0_u32, 0_u32);
    let (mut any_named, mut any_right) = (0_u32, 0_u32);
    for entry in fs::read_dir(folder.join("expected/default"))? {
        let rows = entry?.path();
        let file = rows.file_name().context("a row file has a name")?.to_string_lossy();
        let theirs = Command::new("zcat").arg(&rows).output()?.stdout;
        let ours = Command::new(program("flowmeter")?)
            .args(["read", "--compat=nfstream"])
            .arg(folder.join("pcaps").join(file.trim_end_matches(".jsonl.gz")))
            .output()?
            .stdout;
        // The rows are in the same order, which another test makes sure of.
        for (ours, theirs) in parse_rows(&ours)?.iter().zip(&parse_rows(&theirs)?) {
            all += 1;
            for ((column, _), agree) in LAYER_7.iter().zip(&mut agree) {
                *agree += u32::from(ours[*column] == theirs[*column]);
            }
            let name = |row: &Value| row["application_name"].as_str().unwrap_or("").to_owned();
            let of = |name: &str| name.split('.').next().unwrap_or("").to_owned();
            master += u32::from(of(&name(ours)) == of(&name(theirs)));
            let server = &theirs["requested_server_name"];
            if server != "" {
                any_named += 1;
                any_right += u32::from(&ours["requested_server_name"] == server);
            }
            if of(&name(theirs)) == "TLS" && theirs["protocol"] == 6 && server != "" {
                named += 1;
                named_right += u32::from(&ours["requested_server_name"] == server);
            }
        }
    }
    ensure!(all > 1000, "only {all} flows to compare");
    let ndpi = ndpi()?;
    let share = |n: u32| f64::from(n) / f64::from(all);
    println!("layer 7 of {all} flows, share with NFStream's value:");
    println!("  {:26} {:.4}", "master protocol", share(master));
    println!("  server names of TLS over TCP {named_right} of {named}");
    println!("  server names {any_right} of {any_named}");
    for ((column, least), agree) in LAYER_7.iter().zip(agree) {
        println!("  {column:26} {:.4}", share(agree));
        ensure!(share(agree) >= *least, "{column}: {:.4}, at least {least}", share(agree));
    }
    let least = APPLICATIONS.iter().filter(|(from, _)| *from <= ndpi).map(|(_, least)| *least);
    let least = least.fold(0.0, f64::max);
    ensure!(share(agree[0]) >= least, "nDPI {ndpi:?}: {:.4}, at least {least}", share(agree[0]));
    ensure!(share(master) >= 0.84 && named_right == named);
    ensure!(f64::from(any_right) >= 0.97 * f64::from(any_named), "{any_right} of {any_named}");
    Ok(())
}

/// The folder to compare with; none if there is none and none is required.
fn folder() -> Result<Option<PathBuf>> {
    let folder = std::env::var_os("FLOWMETER_CONFORMANCE").map(PathBuf::from);
    if folder.is_none() {
        let is_required = std::env::var_os("FLOWMETER_REQUIRE_CONFORMANCE").is_some();
        ensure!(!is_required, "FLOWMETER_CONFORMANCE names no folder to compare with");
        println!("left out: FLOWMETER_CONFORMANCE names no folder to compare with");
    }
    Ok(folder)
}

/// Major and minor version of the nDPI in use.
fn ndpi() -> Result<(u32, u32)> {
    let version = ndpi::version()?;
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
}

fn parse_rows(rows: &[u8]) -> Result<Vec<Value>> {
    let lines = rows.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| Ok(serde_json::from_slice(line)?)).collect()
}

/// Captures that flowcontainer's rows differ on, and why ours are not like that.
const UNLIKE_FLOWCONTAINER: [(&str, &str); 7] = [
    ("dns_fragmented.pcap", "tshark joins the fragments of a datagram and shows the last one"),
    ("capwap.pcap", "the same, and it sees the packets inside CAPWAP"),
    ("anydesk-2.pcap", "packets are out of order in time; ours never goes back"),
    ("coap_mqtt.pcap", "the same"),
    ("vnc.pcap", "tshark has the handshakes in streams of their own"),
    ("webex.pcap", "a segment that only tshark's state of the receiver tells to be sent again"),
    ("fuzz-2021-06-07-c6c72a0a56.pcap", "damaged headers"),
];

#[test]
fn sequences_are_flowcontainers() -> Result<()> {
    let Some(folder) = folder()? else { return Ok(()) };
    let (mut equal, mut all, mut unlike) = (0, 0, HashSet::new());
    for entry in fs::read_dir(folder.join("expected-flowcontainer"))? {
        let rows = entry?.path();
        let file = rows.file_name().context("a row file has a name")?.to_string_lossy();
        let capture = file.trim_end_matches(".jsonl.gz").to_owned();
        let theirs = Command::new("zcat").arg(&rows).output()?.stdout;
        // tshark shows the outer packets of tunnels.
        let ours = Command::new(program("flowmeter")?)
            .args(["read", "--compat=flowcontainer", "--n-dissections=0", "--no-decode-tunnels"])
            .arg(folder.join("pcaps").join(&capture))
            .output()?
            .stdout;
        let ours = flows_by_ends(&ours, ["src_ip", "src_port", "dst_ip", "dst_port"])?;
        for theirs in flows_by_ends(&theirs, ["src", "sport", "dst", "dport"])? {
            all += 1;
            if ours.iter().any(|ours| ours.0 == theirs.0 && have_same_sequences(&ours.1, &theirs.1))
            {
                equal += 1;
            } else {
                unlike.insert(capture.clone());
            }
        }
    }
    println!("{equal} of {all} flows have flowcontainer's sequences");
    for (capture, _) in UNLIKE_FLOWCONTAINER {
        unlike.remove(capture);
    }
    ensure!(unlike.is_empty(), "sequences differ from flowcontainer's in {unlike:?}");
    ensure!(equal * 100 > all * 98);
    Ok(())
}

type Ends = [(String, u64); 2];

/// Rows of JSON, each with its two ends in a fixed order.
fn flows_by_ends(rows: &[u8], names: [&str; 4]) -> Result<Vec<(Ends, Value)>> {
    let row = |line: &[u8]| -> Result<(Ends, Value)> {
        let row: Value = serde_json::from_slice(line)?;
        let end = |ip: &str, port: &str| {
            (row[ip].as_str().unwrap_or_default().to_owned(), row[port].as_u64().unwrap_or(0))
        };
        let [src, sport, dst, dport] = names;
        let mut ends = [end(src, sport), end(dst, dport)];
        ends.sort();
        Ok((ends, row))
    };
    rows.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(row).collect()
}

fn have_same_sequences(ours: &Value, theirs: &Value) -> bool {
    let times = |row: &Value, name: &str| -> Vec<f64> {
        row[name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    // Theirs are what is left of a time in seconds in 64 bits.
    let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6;
    let same_times = |name| {
        let (ours, theirs) = (times(ours, name), times(theirs, name));
        ours.len() == theirs.len() && ours.iter().zip(&theirs).all(is_near)
    };
    let same_span = |name, its| match (ours[name].as_f64(), theirs[its].as_f64()) {
        (Some(a), Some(b)) => is_near((&a, &b)),
        _ => false,
    };
    ["ip_lengths", "payload_lengths"].iter().all(|name| ours[*name] == theirs[*name])
        && ["ip_timestamps", "payload_timestamps"].into_iter().all(same_times)
        && same_span("start_timestamp", "time_start")
        && same_span("end_timestamp", "time_end")
}

fn compare_all(captures: &str, expected: &str) -> Result<()> {
    let Some(folder) = folder()? else { return Ok(()) };
    // Captures whose rows depend on memory beyond them.
    let undefined: HashSet<String> = fs::read_to_string(folder.join("quirks-undefined.txt"))
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    let work = std::env::temp_dir().join(format!("flowmeter-{expected}-{}", std::process::id()));
    let mut failed = Vec::new();
    for (name, options) in CONFIGURATIONS {
        let truth = folder.join(expected).join(name);
        if !truth.is_dir() {
            continue;
        }
        let (ours, theirs) = (work.join(name).join("ours"), work.join(name).join("theirs"));
        fs::create_dir_all(&ours)?;
        fs::create_dir_all(&theirs)?;
        for entry in fs::read_dir(&truth)? {
            let rows = entry?.path();
            let file = rows.file_name().context("a row file has a name")?.to_string_lossy();
            let capture = file.trim_end_matches(".jsonl.gz");
            if undefined.contains(capture) {
                continue;
            }
            std::os::unix::fs::symlink(&rows, theirs.join(&*file))?;
            let out = ours.join(format!("{capture}.jsonl"));
            read(&folder.join(captures).join(capture), options, &out)?;
        }
        if !compare(&folder, &theirs, &ours)? {
            failed.push(name);
        }
    }
    fs::remove_dir_all(&work)?;
    ensure!(failed.is_empty(), "rows differ from NFStream's in {failed:?}");
    Ok(())
}

/// Meters a capture. A damaged one is an error that NFStream does not report; its rows count.
fn read(capture: &Path, options: &[&str], out: &Path) -> Result<()> {
    fs::write(out, "")?;
    let status = Command::new(program("flowmeter")?)
        .args(["read", "--compat=nfstream"])
        .args(options)
        .arg("--output")
        .args([out, capture])
        .stderr(std::process::Stdio::null())
        .status()?;
    ensure!(matches!(status.code(), Some(0 | 1)), "{}: {status}", capture.display());
    Ok(())
}

fn compare(folder: &Path, theirs: &Path, ours: &Path) -> Result<bool> {
    let output = Command::new("python3")
        .arg(folder.join("compare.py"))
        .args([theirs, ours])
        .args(["--order", "--quiet"])
        .output()
        .context("the comparer needs python3")?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(output.status.success())
}
