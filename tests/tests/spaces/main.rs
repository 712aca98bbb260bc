//! Does the meter tell the truth from within namespaces, and with less than root has?

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::meter::{Meter, number};
use flowmeter_tests::netns::{Host, Link, WIRE};
use flowmeter_tests::{program, root};

const HOLLOW: &str = include_str!("hollow.py");
const BEHIND: &str = include_str!("behind.py");

/// A command in the network namespace of a host alone: all else, `/sys` too, is of this machine.
fn entered(host: &Host, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", host.name())).arg(program).stdin(Stdio::null());
    command
}

#[test]
fn interfaces_are_those_of_the_network_namespace() -> Result<()> {
    if !root::available("interfaces_are_those_of_the_network_namespace")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut hollow = link.near.command("python3");
    let mut hollow =
        hollow.args(["-c", HOLLOW]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(hollow.stdout.take().context("it is piped")?);
    let mut asked = hollow.stdin.take().context("it is piped")?;
    let mut line = String::new();
    said.read_line(&mut line)?;
    ensure!(line == "ready\n", "no tun: {line}");

    let command = entered(&link.near, &program("flowmeter")?.to_string_lossy());
    let meter = Meter::start_command(command, &["--n-dissections=0", "hollow", WIRE])?;
    for _ in 0..10 {
        writeln!(asked)?;
        said.read_line(&mut line)?;
    }
    ensure!(line.ends_with("answered\n"), "{line}");
    link.near.run("ping", &["-q", "-c", "10", "-i", "0.01", "10.9.0.2"])?;
    let log = meter.stop()?;
    drop(asked);
    hollow.wait()?;

    let to_hollow = |flow: &&serde_json::Value| flow["dst_port"] == 7;
    ensure!(log.flows.iter().filter(to_hollow).count() == 10, "{:#?}", log.flows);
    for flow in log.flows.iter().filter(to_hollow) {
        let packets = ["src2dst_packets", "dst2src_packets"].map(|column| number(flow, column));
        ensure!(packets == [1, 1] && flow["interface"] == "hollow", "{flow:#}");
    }
    let interfaces = log.report["interfaces"].as_array().context("a list")?;
    for interface in interfaces {
        for (counted, direction) in [("rx_packets", "ingress"), ("tx_packets", "egress")] {
            let (counted, seen) = (number(interface, counted), &interface[direction]);
            ensure!(counted >= 10 && number(seen, "seen") >= 10, "{interface:#}");
            let is_hollow = interface["name"] == "hollow";
            ensure!(!is_hollow || seen["ignored"]["non_ip"] == 0, "{interface:#}");
        }
    }
    log.check_balance()
}

#[test]
fn an_interface_made_anew_is_another() -> Result<()> {
    if !root::available("an_interface_made_anew_is_another")? {
        return Ok(());
    }
    let link = Link::new()?;
    let index = link.near.run("cat", &[&format!("/sys/class/net/{WIRE}/ifindex")])?.stdout;
    let index = String::from_utf8(index)?.trim().to_owned();
    let mut meter = Meter::start(&link.near, &["--n-dissections=0", WIRE])?;
    let anew = format!(
        "link del {WIRE}\nlink add name {WIRE} index {index} type veth peer name other\n\
         link set {WIRE} up\n"
    );
    let mut ip = Command::new("ip");
    let mut ip = ip.args(["-n", link.near.name(), "-batch", "-"]).stdin(Stdio::piped()).spawn()?;
    ip.stdin.take().context("it is piped")?.write_all(anew.as_bytes())?;
    ensure!(ip.wait()?.success(), "no such interface can be made");
    meter.wait_for_message(|line| line.contains(&format!("interface `{WIRE}` is gone")))?;
    meter.wait_for_message(|line| line.contains("no interface is left"))
}

#[test]
fn a_renamed_interface_is_the_same() -> Result<()> {
    if !root::available("a_renamed_interface_is_the_same")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut meter =
        Meter::start(&link.near, &["--n-dissections=0", "--performance-report=1", WIRE])?;
    let report = |line: &str| line.contains("\"tx_packets\":");
    meter.wait_for_message(report)?;
    link.near.run("ip", &["link", "set", WIRE, "down"])?;
    link.near.run("ip", &["link", "set", WIRE, "name", "cord"])?;
    link.near.run("ip", &["link", "set", "cord", "up"])?;
    link.near.run("ping", &["-q", "-c", "10", "-i", "0.01", "10.9.0.2"])?;
    // It was looked for after this.
    meter.wait_for_message(report)?;
    meter.wait_for_message(report)?;
    let log = meter.stop()?;
    let interface = &log.report["interfaces"][0];
    ensure!(number(interface, "tx_packets") >= 10, "{interface:#}");
    ensure!(number(log.the(|flow| flow["protocol"] == 1)?, "bidirectional_packets") == 20);
    log.check_balance()
}

#[test]
fn the_container_at_the_other_end_is_named() -> Result<()> {
    const ID: &str = "5f3a0c7d9e1b2a4c6d8e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e";
    const POD: &str = "3b1c4d5e-6f70-4819-8a2b-3c4d5e6f7081";
    if !root::available("the_container_at_the_other_end_is_named")? {
        return Ok(());
    }
    let link = Link::new()?;
    let cgroup = format!("/fm-behind/pod{POD}/crio-{ID}");
    let mut behind = link.far.command("python3");
    behind.args(["-c", BEHIND, &cgroup]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut behind = behind.spawn()?;
    let mut netns = String::new();
    BufReader::new(behind.stdout.take().context("it is piped")?).read_line(&mut netns)?;
    let netns: u64 = netns.trim().parse()?;

    let meter = Meter::start(&link.near, &["--n-dissections=0", "lo", WIRE])?;
    link.far.run("ping", &["-q", "-c", "1", "10.9.0.1"])?;
    let pid: u64 = link.far.python(SPEAK, &["10.9.0.1", "4003"])?.parse()?;
    link.near.run("ping", &["-q", "-c", "1", "127.0.0.1"])?;
    let log = meter.stop()?;
    drop(behind.stdin.take());
    ensure!(behind.wait()?.success(), "its cgroup is left");
    let flow = log.the(|flow| flow["dst_port"] == 4003)?;
    ensure!(flow["src_process_pid"] == pid && flow["attribution_method"] == "socket", "{flow:#}");
    let echo =
        |flow: &serde_json::Value| flow["src2dst_icmp_type"] == 8 && flow["interface"] == WIRE;
    let flow = log.the(echo)?;
    let wanted = [
        ("peer_netns", serde_json::json!(netns)),
        ("peer_container_runtime", "cri-o".into()),
        ("peer_container_id", ID.into()),
        ("peer_pod_uid", POD.into()),
    ];
    for (column, wanted) in wanted {
        ensure!(flow[column] == wanted, "{column}, not {wanted}: {flow:#}");
    }
    let flow = log.the(|flow| flow["protocol"] == 1 && flow["interface"] == "lo")?;
    ensure!(flow["peer_netns"].is_null() && flow["peer_container_id"].is_null(), "{flow:#}");
    log.check_balance()
}

/// The one line that `flowmeter live` ends with, started by another program.
fn refusal(host: &Host, by: &[&str]) -> Result<String> {
    let (first, rest) = by.split_first().context("a program")?;
    let mut command = host.command(first);
    command.args(rest).arg(program("flowmeter")?).args(["live", WIRE]);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it ran: {said}");
    ensure!(said.lines().count() == 1, "more than one line: {said}");
    Ok(said)
}

#[test]
fn missing_capabilities_are_named() -> Result<()> {
    if !root::available("missing_capabilities_are_named")? {
        return Ok(());
    }
    let link = Link::new()?;
    for capability in ["perfmon", "net_admin", "bpf"] {
        let set = format!("-{capability},-sys_admin");
        let by = ["setpriv", &format!("--bounding-set={set}"), &format!("--inh-caps={set}")];
        let said = refusal(&link.near, &by)?;
        let name = format!("CAP_{} missing", capability.to_uppercase());
        ensure!(said.starts_with(&format!("error: {name}")), "{said}");
        ensure!(said.contains("run as root"), "{said}");
    }
    Ok(())
}

#[test]
fn too_few_descriptors_are_said_before_anything_fails() -> Result<()> {
    if !root::available("too_few_descriptors_are_said_before_anything_fails")? {
        return Ok(());
    }
    let link = Link::new()?;
    for few in ["8", "16", "40", "100", "130"] {
        let said = refusal(&link.near, &["prlimit", &format!("--nofile={few}")])?;
        let wanted = format!("too few file descriptors: this process is limited to {few}, ");
        ensure!(said.contains(&wanted) && said.contains("ulimit -n"), "{few}: {said}");
    }
    // Where it may, it raises the limit itself.
    let mut command = link.near.command("prlimit");
    command.arg("--nofile=64:4096").arg(program("flowmeter")?);
    let meter = Meter::start_command(command, &[WIRE])?;
    ensure!(meter.warnings.is_empty(), "{:?}", meter.warnings);
    let open = std::fs::read_dir(format!("/proc/{}/fd", meter.pid()))?.count();
    ensure!((32..100).contains(&open), "{open} descriptors");
    meter.stop()?.check_balance()
}

/// Sends a datagram, and says which number the process has for itself.
const SPEAK: &str = "\
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b'x')
print(os.getpid())
";

#[test]
fn processes_are_numbered_as_procfs_does() -> Result<()> {
    if !root::available("processes_are_numbered_as_procfs_does")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut command = link.near.command("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(program("flowmeter")?);
    let meter = Meter::start_command(command, &["--n-dissections=0", WIRE])?;
    let target = meter.pid().to_string();
    let speak = ["--target", &target, "--pid", "--net", "python3", "-c", SPEAK, "10.9.0.2", "4001"];
    let inside = Command::new("nsenter").args(speak).output()?;
    ensure!(inside.status.success(), "{inside:?}");
    let inside: u64 = String::from_utf8(inside.stdout)?.trim().parse()?;
    link.near.python(SPEAK, &["10.9.0.2", "4002"])?;
    let log = meter.stop()?;

    let flow = log.the(|flow| flow["dst_port"] == 4001)?;
    ensure!(flow["src_process_pid"] == inside, "{inside}: {flow:#}");
    ensure!(flow["attribution_method"] == "socket", "{flow:#}");
    let exe = flow["src_process_exe"].as_str().unwrap_or_default();
    ensure!(exe.contains("python3"), "{flow:#}");
    // Nothing of a namespace within has a number for what is outside.
    let flow = log.the(|flow| flow["dst_port"] == 4002)?;
    ensure!(flow["src_process_pid"].is_null() && flow["system_process_pid"] == -1, "{flow:#}");
    ensure!(flow["src_process_name"] == "python3", "{flow:#}");
    log.check_balance()
}
