//! Does a capture give the same flows live as it does offline?
//!
//! Frames are written to a file, sent over a wire by tcpreplay, metered at the other end, and read
//! from the file. Columns made of times are compared to the replay's jitter, all others exactly.
//! With `FLOWMETER_CONFORMANCE` set, on all its whole Ethernet frames too. Needs root.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use flowmeter_tests::captures::{Capture, conformance, pcap};
use flowmeter_tests::meter::{Meter, number};
use flowmeter_tests::netns::{Link, WIRE};
use flowmeter_tests::packets::{icmp, sctp, tcp, udp};
use flowmeter_tests::{program, root};
use serde_json::Value;

/// Nothing ends before the run does: the replay takes another time than the capture.
const METERING: [&str; 8] = [
    "--idle-timeout=1000000",
    "--active-timeout=1000000",
    "--n-dissections=20",
    "--statistical-analysis",
    "--splt-analysis=20",
    "--group=l7-extended",
    "--sequences",
    "--max-sequence=100",
];

/// Frames a second. The wire has room for 256, and 2 ms of them must not fill it.
const RATES: [&str; 4] = ["20000", "10000", "5000", "2000"];

/// Larger frames than a wire takes.
const MTU: usize = 65_535;

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn offline(path: &Path) -> Result<Vec<Value>> {
    let output =
        Command::new(program("flowmeter")?).arg("read").args(METERING).arg(path).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| Ok(serde_json::from_slice(line)?)).collect()
}

/// Sends the capture at the highest rate at which the wire drops nothing, and meters it there.
fn live(path: &Path, frames: usize, ingress: &str) -> Result<Vec<Value>> {
    for rate in RATES {
        let link = Link::new()?;
        for host in [&link.near, &link.far] {
            // Nobody answers, and nobody speaks unasked.
            host.run("ip", &["addr", "flush", "dev", WIRE])?;
            host.run("ip", &["link", "set", WIRE, "arp", "off", "mtu", &MTU.to_string()])?;
            host.run("sysctl", &["-qw", &format!("net.ipv6.conf.{WIRE}.disable_ipv6=1")])?;
        }
        let options = ["--ingress", ingress, "--direction=ingress", "--snapshot-length=4096", WIRE];
        let meter = Meter::start(&link.far, &[&METERING[..], &options].concat())?;
        let path = path.to_string_lossy();
        link.near.run("tcpreplay", &["-q", "-i", WIRE, "--pps", rate, &path])?;
        let log = meter.stop()?;
        log.check_balance()?;
        let seen = log.report["interfaces"][0]["ingress"]["seen"].as_u64();
        if seen == Some(frames as u64) {
            let [forwarded, withheld] =
                ["dissection_forwarded", "dissection_withheld"].map(|n| number(&log.report, n));
            println!("{forwarded} packets for the dissector, {withheld} of no use to it");
            return Ok(log.flows);
        }
        println!("{seen:?} of {frames} frames arrived at {rate} a second");
    }
    bail!("the wire dropped frames at every rate: the machine is too busy for this test")
}

fn key(flow: &Value) -> String {
    let ends = ["src_ip", "src_port", "dst_ip", "dst_port"];
    let rest = ["protocol", "ip_version", "vlan_id", "outer_vlan_id", "tunnel_id", "tunnel_vni"];
    let values = ends.iter().chain(&rest).map(|name| flow[*name].to_string());
    values.collect::<Vec<_>>().join(" ")
}

fn is_time(column: &str) -> bool {
    ["_ms", "_ns", "timestamp"].iter().any(|part| column.contains(part))
}

/// What nDPI says. Offline it has a module for each part of the flows, live one, and what it learns
/// from a flow about others stays in the module. Live it gets no packet past 4096 bytes.
const DISSECTED: [&str; 7] = [
    "application_name",
    "application_category_name",
    "application_is_guessed",
    "application_confidence",
    "user_agent",
    "content_type",
    "http_status",
];

/// What is wrong with a flow, whenever it was: a certificate is valid for a time.
fn risks(flow: &Value) -> Vec<&str> {
    let all = flow["flow_risk"].as_array().into_iter().flatten().filter_map(Value::as_str);
    all.filter(|risk| !risk.contains("Expire")).collect()
}

/// Compares all columns, nDPI's risks among them; of those in [`DISSECTED`], 99 % must agree.
fn compare(live: &[Value], offline: &[Value]) -> Result<()> {
    let mut unlike = 0;
    let mut live: HashMap<String, &Value> = live.iter().map(|flow| (key(flow), flow)).collect();
    ensure!(live.len() == offline.len(), "{} flows live, {} offline", live.len(), offline.len());
    for theirs in offline {
        let ours = live.remove(&key(theirs)).with_context(|| format!("no flow {}", key(theirs)))?;
        for (column, theirs_value) in theirs.as_object().context("a row is an object")? {
            // Flows come in another order, and only live has an interface.
            if is_time(column) || column == "id" || column == "interface" {
                continue;
            }
            // The score is the risks'.
            if column == "flow_risk_score" {
                continue;
            }
            if column == "flow_risk" {
                let (live, offline) = (risks(ours), risks(theirs));
                ensure!(live == offline, "{live:?} live, {offline:?} offline: {}", key(theirs));
                continue;
            }
            let ours_value = &ours[column.as_str()];
            if DISSECTED.contains(&column.as_str()) && ours_value != theirs_value {
                println!("{column} of {}: {ours_value}, not {theirs_value}", key(theirs));
                unlike += 1;
                continue;
            }
            ensure!(
                ours_value == theirs_value,
                "{column} of {}: {ours_value} live, {theirs_value} offline",
                key(theirs)
            );
        }
        // Durations, and as many times as there are packets.
        let duration = |flow: &Value| flow["bidirectional_duration_ms"].as_f64().unwrap_or(-1.0);
        let packets = |flow: &Value| flow["ip_timestamps"].as_array().map_or(0, Vec::len);
        ensure!(packets(ours) == packets(theirs));
        ensure!((duration(theirs) > 0.0) <= (duration(ours) > 0.0) || duration(theirs) < 100.0);
    }
    ensure!(unlike * 100 <= offline.len() * DISSECTED.len(), "nDPI says so {unlike} times");
    Ok(())
}

fn same_live_and_offline(test: &str, frames: &[Vec<u8>]) -> Result<()> {
    let path = std::env::temp_dir().join(format!("flowmeter-{test}-{}.pcap", std::process::id()));
    let scratch = Scratch(path);
    fs::write(&scratch.0, pcap(frames))?;
    let offline = offline(&scratch.0)?;
    for ingress in ["xdp", "tcx"] {
        let live = live(&scratch.0, frames.len(), ingress)?;
        compare(&live, &offline).with_context(|| format!("--ingress {ingress}"))?;
    }
    println!("{} frames, {} flows: the same live and offline", frames.len(), offline.len());
    Ok(())
}

#[test]
fn packets_of_every_kind() -> Result<()> {
    if !root::available("packets_of_every_kind")? {
        return Ok(());
    }
    let mut frames = Vec::new();
    for round in 0..40_usize {
        let size = round * 31 % 1_300;
        let ends = |last: usize| {
            let port = 1_000 + round % 7;
            (format!("10.0.{last}.1:{port}"), format!("10.0.{last}.2:80"))
        };
        let (client, server) = ends(0);
        frames.extend([
            tcp().psh().from(&client).to(&server).payload(size).build(),
            tcp().ack().from(&server).to(&client).payload(size / 2).build(),
            udp().from("[fd00::1]:5").to("[fd00::2]:6").payload(size).build(),
            icmp(8, 0).from("10.0.1.1:0").to("10.0.1.2:0").payload(size).build(),
            sctp().from("10.0.1.1:0").to("10.0.1.3:0").payload(size).build(),
            udp().from(&ends(2).0).to(&ends(2).1).payload(size).vlan(7).build(),
            udp().from(&ends(3).0).to(&ends(3).1).payload(9).vlan(7).service_vlan(9).build(),
            tcp().syn().from(&ends(4).0).to(&ends(4).1).payload(size).in_vxlan(77).build(),
            tcp().fin().from(&ends(5).0).to(&ends(5).1).payload(size).in_gtp_u().build(),
            tcp().rst().from(&ends(6).0).to(&ends(6).1).payload(size).mpls(2).build(),
        ]);
        let id = round as u32;
        let fragment = |offset, more| {
            udp().from("10.0.9.1:7").to("10.0.9.2:8").payload(200).fragment(id, offset, more)
        };
        frames.extend([fragment(0, true).build(), fragment(26, false).build()]);
    }
    same_live_and_offline("every-kind", &frames)
}

#[test]
fn captures_of_the_conformance_data() -> Result<()> {
    if !root::available("captures_of_the_conformance_data")? {
        return Ok(());
    }
    let Some(captures) = conformance("captures_of_the_conformance_data")? else {
        return Ok(());
    };
    let mut frames = Vec::new();
    for path in captures {
        let capture = Capture::read(&path)?;
        frames.extend(capture.frames.into_iter().filter(|f| (14..MTU).contains(&f.len())));
    }
    same_live_and_offline("conformance", &frames)
}
