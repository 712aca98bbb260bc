//! Is the process right in every hand that a socket passes through, by every call?

use std::collections::BTreeMap;
use std::fmt::Write as _;

use flowmeter_tests::netns::Background;

use super::*;

const HANDS: &str = include_str!("hands.py");
const PEER: &str = include_str!("peer.py");

/// What the generator says of a socket.
#[derive(Debug)]
struct Case<'a> {
    hand: &'a str,
    /// Transport and family.
    way: String,
    protocol: u64,
    /// 0 if there is none.
    port: u64,
    peer: &'a str,
    pid: u64,
    name: &'a str,
    /// Programs that have used it.
    users: u64,
}

/// How a row compares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    /// No process.
    None,
    Wrong,
}

impl<'a> Case<'a> {
    /// All that it says; what it has skipped is printed.
    fn all(told: &'a str) -> Result<Vec<Self>> {
        let (skipped, cases): (Vec<_>, Vec<_>) =
            told.lines().partition(|line| line.starts_with("skipped: "));
        for line in skipped {
            println!("{line}");
        }
        cases.into_iter().map(Self::parse).collect()
    }

    fn parse(line: &'a str) -> Result<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [hand, transport, family, protocol, port, peer, pid, name, users] = words[..] else {
            anyhow::bail!("`{line}`");
        };
        Ok(Self {
            hand,
            way: format!("{transport} {family}"),
            protocol: protocol.parse()?,
            port: port.parse()?,
            peer,
            pid: pid.parse()?,
            name,
            users: users.parse()?,
        })
    }

    /// Its flow, and which end of it is here.
    fn flow<'b>(&self, log: &'b Log) -> Option<(&'b Value, &'static str)> {
        let ends = [("src", "dst"), ("dst", "src")];
        log.flows.iter().filter(|flow| flow["protocol"] == self.protocol).find_map(|flow| {
            let is = |(here, there): &(&str, &str)| {
                flow[format!("{here}_port")] == self.port
                    && flow[format!("{there}_ip")] == self.peer
            };
            ends.iter().find(|end| is(end)).map(|(here, _)| (flow, *here))
        })
    }

    fn verdict(&self, flow: &Value, end: &str) -> Verdict {
        let pid = &flow[format!("{end}_process_pid")];
        if pid.is_null() {
            return Verdict::None;
        }
        let shared = (self.users > 1).then(|| format!("first of {}", self.users));
        let is_right = *pid == self.pid
            && flow[format!("{end}_process_name")] == self.name
            && flow["attribution_shared"].as_str() == shared.as_deref();
        if is_right { Verdict::Right } else { Verdict::Wrong }
    }
}

/// Two hosts, of which the far one has many addresses and the peer.
fn hosts() -> Result<(Link, Background)> {
    let link = Link::new()?;
    link.far.run("ip", &["route", "add", "local", "10.9.1.0/24", "dev", "lo"])?;
    link.far.run("ip", &["-6", "route", "add", "local", "fd0a::/64", "dev", "lo"])?;
    link.near.run("ip", &["route", "add", "10.9.1.0/24", "via", "10.9.0.2"])?;
    link.near.run("ip", &["-6", "route", "add", "fd0a::/64", "via", "fd09::2"])?;
    let peer = Background::start(&link.far, "python3", &["-c", PEER])?;
    eventually(|| {
        let listed = link.far.run("ss", &["-Hltn"])?.stdout;
        Ok(String::from_utf8_lossy(&listed).contains(":6 "))
    })?;
    Ok((link, peer))
}

/// Compares all that the generator did, and prints a table of it.
fn check(place: &str, told: &str, log: &Log) -> Result<()> {
    let mut table: BTreeMap<String, String> = BTreeMap::new();
    let mut bad = Vec::new();
    let doctor = std::process::Command::new(flowmeter_tests::program("flowmeter")?)
        .arg("doctor")
        .output()?;
    let tells_all = String::from_utf8_lossy(&doctor.stdout).contains("fentry/tcp_splice_read");
    if !tells_all {
        println!("skipped: who only reads, by splice alone: this kernel refuses fentry");
    }
    let mut all = 0;
    for case in Case::all(told)? {
        if !tells_all && matches!(case.hand, "drains" | "hands-drain") {
            continue;
        }
        all += 1;
        let (mark, found) = match case.flow(log) {
            Some((flow, end)) => match case.verdict(flow, end) {
                Verdict::Right => ("", None),
                verdict => {
                    let mark = if verdict == Verdict::None { "-" } else { "!" };
                    let columns = [&format!("{end}_process_pid"), &format!("{end}_process_name")];
                    let rest = ["attribution_method", "attribution_shared", "attribution_others"];
                    let columns = columns.into_iter().map(String::as_str).chain(rest);
                    let values: Vec<_> = columns.map(|column| flow[column].to_string()).collect();
                    (mark, Some(values.join(" ")))
                }
            },
            None => ("?", Some("no flow".to_owned())),
        };
        let _ = write!(table.entry(case.way.clone()).or_default(), " {mark}{}", case.hand);
        bad.extend(found.map(|found| format!("{case:?}: {found}")));
    }
    for (way, hands) in &table {
        println!("{place} {way}:{hands}");
    }
    println!("{place}: {} of {all} right (- none, ! wrong, ? no flow)", all - bad.len());
    ensure!(all > 100 && bad.is_empty(), "{bad:#?}");
    Ok(())
}

#[test]
fn on_the_host() -> Result<()> {
    if !root::available("hands::on_the_host")? {
        return Ok(());
    }
    let (link, _peer) = hosts()?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    let told = link.near.python(HANDS, &["host"])?;
    check("host", &told, &meter.stop()?)
}

#[test]
fn in_a_container() -> Result<()> {
    if !root::available("hands::in_a_container")? {
        return Ok(());
    }
    let (link, _peer) = hosts()?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    let cgroup = format!("/fm-hands.slice/docker-{}.scope", "5a".repeat(32));
    let told = link.near.python(HANDS, &["container", &cgroup])?;
    let log = meter.stop()?;
    check("container", &told, &log)?;
    for case in Case::all(&told)? {
        let (flow, end) = case.flow(&log).context("it was there")?;
        ensure!(flow[format!("{end}_cgroup")] == cgroup.as_str(), "{case:?}: {flow:#}");
    }
    Ok(())
}

#[test]
fn in_another_network_namespace() -> Result<()> {
    if !root::available("hands::in_another_network_namespace")? {
        return Ok(());
    }
    let (link, _peer) = hosts()?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    let path = format!("/run/netns/{}", link.near.name());
    let told = link.near.python(HANDS, &["setns", &path])?;
    check("setns", &told, &meter.stop()?)
}

/// A connection by two ways, the second of which the kernel opens itself.
const TWO_WAYS: &str = "
import os, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.connect(('10.9.0.2', 7))
if os.fork() == 0:
    open('/proc/self/comm', 'w').write('heir')
    for i in range(20):
        s.sendall(b'x')
        time.sleep(0.05)
    print(os.getpid(), flush=True)
    os._exit(0)
os.wait()
";

#[test]
fn all_ways_of_mptcp_are_of_who_has_its_socket() -> Result<()> {
    if !root::available("all_ways_of_mptcp_are_of_who_has_its_socket")? {
        return Ok(());
    }
    let (link, _peer) = hosts()?;
    link.near.run("ip", &["address", "add", "10.9.0.11/24", "dev", WIRE])?;
    let endpoint = ["mptcp", "endpoint", "add", "10.9.0.11", "dev", WIRE, "subflow"];
    let tells = fs::read_to_string("/proc/kallsyms")?.contains("bpf_mptcp_sock_from_subflow");
    if !tells || link.near.run("ip", &endpoint).is_err() {
        println!("skipped: this kernel does not tell whose a way of MPTCP is");
        return Ok(());
    }
    link.near.run("ip", &["mptcp", "limits", "set", "subflow", "2"])?;
    link.far.run("ip", &["mptcp", "limits", "set", "subflow", "2"])?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    let pid: u64 = link.near.python(TWO_WAYS, &[])?.parse()?;
    let log = meter.stop()?;
    for from in ["10.9.0.1", "10.9.0.11"] {
        let flow = log.the(|flow| flow["src_ip"] == from && flow["dst_port"] == SERVED)?;
        let is_right = flow["src_process_pid"] == pid && flow["src_process_name"] == "heir";
        ensure!(is_right && flow["attribution_method"] == "socket", "{flow:#}");
    }
    Ok(())
}
