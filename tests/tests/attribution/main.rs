//! Does every flow have the process that it belongs to?
//!
//! The generators write down themselves who did what; the meters' logs are compared with that.

#![expect(unsafe_code, reason = "signals by libc")]

mod containers;
mod fragments;
mod hands;
mod namespaces;
mod overload;
mod programs;
mod shared;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::meter::{Log, Meter, number, patience};
use flowmeter_tests::netns::{Host, Link, WIRE};
use flowmeter_tests::root;
use serde_json::Value;

const SERVE: &str = include_str!("serve.py");
const SHORT: &str = include_str!("short.py");
const LONG: &str = include_str!("long.py");
const HANDED: &str = include_str!("handed.py");

/// The meter's options, but for the interface. Processes are found by default.
const OPTIONS: [&str; 1] = ["--n-dissections=0"];

/// The port that the servers have.
const PORT: &str = "7";

/// The same as it is in a log.
const SERVED: u64 = 7;

/// What a generator says of a flow.
#[derive(Debug)]
struct Truth {
    protocol: u64,
    /// The client's.
    port: u64,
    pid: u64,
    name: String,
}

/// How a log compares.
#[derive(Debug, Default, PartialEq, Eq)]
struct Score {
    right: usize,
    /// Flows without a process.
    none: usize,
    /// Flows with another process.
    wrong: Vec<String>,
    /// What was done but has no flow, or several.
    missing: usize,
    /// Ports used twice, which say nothing.
    reused: usize,
}

/// An end of a flow.
#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

fn truths(text: &str) -> Result<Vec<Truth>> {
    let line = |line: &str| -> Result<Truth> {
        let mut words = line.split(' ');
        let mut word = || words.next().with_context(|| format!("`{line}`"));
        Ok(Truth {
            protocol: word()?.parse()?,
            port: word()?.parse()?,
            pid: word()?.parse()?,
            name: word()?.to_owned(),
        })
    };
    text.lines().map(line).collect()
}

/// Looks each flow up that a generator tells of. The client's end is the destination of one that
/// was there before the meter, if the server's packet was the first that was seen.
fn score(log: &Log, truths: &[Truth], side: Side) -> Score {
    score_among(log, truths, truths, side)
}

/// The same, where the log is of `all` that was done.
fn score_among<'a>(
    log: &Log,
    truths: impl IntoIterator<Item = &'a Truth>,
    all: impl IntoIterator<Item = &'a Truth>,
    side: Side,
) -> Score {
    let mut flows: HashMap<(u64, u64), Vec<(&Value, &str)>> = HashMap::new();
    for flow in &log.flows {
        let ends = [("src_port", "src", "dst"), ("dst_port", "dst", "src")];
        for (port, client, server) in ends.into_iter().filter(|(port, ..)| flow[*port] != SERVED) {
            let end = if matches!(side, Side::Client) { client } else { server };
            let key = (number(flow, "protocol"), number(flow, port));
            flows.entry(key).or_default().push((flow, end));
        }
    }
    let mut used: HashMap<(u64, u64), usize> = HashMap::new();
    for truth in all {
        *used.entry((truth.protocol, truth.port)).or_default() += 1;
    }
    let mut score = Score::default();
    for truth in truths {
        let key = (truth.protocol, truth.port);
        if used[&key] > 1 {
            score.reused += 1;
            continue;
        }
        let Some(&[(flow, end)]) = flows.get(&key).map(Vec::as_slice) else {
            score.missing += 1;
            continue;
        };
        let (pid, name) =
            (&flow[format!("{end}_process_pid")], &flow[format!("{end}_process_name")]);
        if pid.is_null() {
            score.none += 1;
        } else if *pid == truth.pid && *name == truth.name.as_str() {
            score.right += 1;
        } else {
            let method = &flow["attribution_method"];
            score.wrong.push(format!("{truth:?}: {pid} {name} by {method}"));
        }
    }
    score
}

impl Score {
    /// Fails unless all of it is right.
    fn check(&self, what: &str) -> Result<()> {
        println!("{what}: {} right, {} on ports used twice", self.right, self.reused);
        let is_right = self.none + self.missing + self.wrong.len() == 0 && self.right > 0;
        ensure!(is_right && self.reused * 10 < self.right, "{what}: {self:#?}");
        Ok(())
    }
}

/// The server with workers, and its log.
struct Servers {
    child: Child,
    log: PathBuf,
}

impl Servers {
    /// Starts it and waits until it listens.
    fn start(host: &Host, address: &str, workers: u32) -> Result<Self> {
        Self::with_sockets(host, address, workers, "udp")
    }

    /// The same; each worker has sockets of its own for "none", "udp" or "all" (UDP and TCP).
    fn with_sockets(host: &Host, address: &str, workers: u32, own: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let count = |is_own| if is_own { workers as usize } else { 1 };
        let (listeners, datagrams) = (count(own == "all"), count(own != "none"));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("fm-serve-{}-{number}", std::process::id()));
        let mut command = host.command("setsid");
        let workers = workers.to_string();
        command.args(["python3", "-c", SERVE, address, PORT, &workers]).arg(&log).arg(own);
        let child = command.spawn()?;
        let servers = Self { child, log };
        let sockets = |list: &str| -> Result<usize> {
            let listed = host.run("ss", &[list])?.stdout;
            let listed = String::from_utf8_lossy(&listed).into_owned();
            Ok(listed.lines().filter(|line| line.contains(&format!(":{PORT} "))).count())
        };
        eventually(|| Ok(sockets("-Hltn")? == listeners && sockets("-Hlun")? == datagrams))?;
        Ok(servers)
    }

    /// What it has served.
    fn truths(&self) -> Result<Vec<Truth>> {
        truths(&fs::read_to_string(&self.log).context("the server has served nobody")?)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // SAFETY: the child has not been waited for, so the group of its number is its own.
        unsafe { libc::kill(-self.child.id().cast_signed(), libc::SIGKILL) };
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}

/// Processes with long connections; gone with the value.
struct Talkers {
    child: Child,
    stdin: Option<ChildStdin>,
    truths: Vec<Truth>,
}

impl Talkers {
    /// Starts them and waits until all are connected.
    fn start(host: &Host, address: &str, processes: usize) -> Result<Self> {
        let mut child = host
            .command("python3")
            .args(["-c", LONG, address, PORT, &processes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("it is piped")?);
        let mut talkers = Self { child, stdin, truths: Vec::new() };
        for line in stdout.lines().take(processes) {
            talkers.truths.extend(truths(&line?)?);
        }
        ensure!(talkers.truths.len() == processes, "they did not connect");
        Ok(talkers)
    }
}

impl Drop for Talkers {
    fn drop(&mut self) {
        self.stdin.take();
        let _ = self.child.wait();
    }
}

fn eventually(mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience();
    while !is()? {
        ensure!(Instant::now() < deadline, "in vain");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn options<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&OPTIONS[..], more, &[WIRE]].concat()
}

/// A program of a millisecond, again and again.
const RUN: &str = "for i in $(seq 200); do bash -c ': > /dev/tcp/10.9.0.2/7' \"number $i\"; done";

#[test]
fn programs_are_known_however_short_they_live() -> Result<()> {
    if !root::available("programs_are_known_however_short_they_live")? {
        return Ok(());
    }
    let link = Link::new()?;
    let _servers = Servers::start(&link.far, "0.0.0.0", 4)?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    link.near.run("bash", &["-c", RUN])?;
    let log = meter.stop()?;
    let flows: Vec<_> = log.flows.iter().filter(|flow| flow["dst_port"] == SERVED).collect();
    ensure!(flows.len() == 200, "{} flows", flows.len());
    for flow in &flows {
        let text = |column: &str| flow[column].as_str().unwrap_or_default().to_owned();
        ensure!(text("process_exe").ends_with("bash"), "{flow:#}");
        ensure!(text("process_cmdline").contains("/dev/tcp/10.9.0.2/7 number "), "{flow:#}");
        ensure!(flow["process_args"][1] == "-c" && flow["process_user"] == "root", "{flow:#}");
        ensure!(number(flow, "process_ppid") > 0, "{flow:#}");
    }
    Ok(())
}

/// Sends, becomes another program, and sends again.
const BECOME: &str = "
import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'x', ('10.9.0.2', 7001))
os.execv('/bin/bash', ['bash', '-c', 'echo x > /dev/udp/10.9.0.2/7002; sleep 1'])
";

#[test]
fn a_process_that_becomes_another_program_has_each_at_its_time() -> Result<()> {
    if !root::available("a_process_that_becomes_another_program_has_each_at_its_time")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    link.near.python(BECOME, &[])?;
    let log = meter.stop()?;
    for (port, exe, argument) in [(7001, "python", "execv"), (7002, "bash", "sleep 1")] {
        let flow = log.the(|flow| flow["dst_port"] == port)?;
        let text = |column: &str| flow[column].as_str().unwrap_or_default().to_owned();
        ensure!(text("process_exe").contains(exe), "{flow:#}");
        ensure!(text("process_cmdline").contains(argument), "{flow:#}");
    }
    Ok(())
}

#[test]
fn a_thousand_short_lives_of_each_kind_are_all_known_at_both_ends() -> Result<()> {
    if !root::available("a_thousand_short_lives_of_each_kind_are_all_known_at_both_ends")? {
        return Ok(());
    }
    for (client, server, count) in [("10.9.0.2", "0.0.0.0", "1000"), ("fd09::2", "::", "300")] {
        let link = Link::new()?;
        let near = Meter::start(&link.near, &options(&[]))?;
        let far = Meter::start(&link.far, &options(&[]))?;
        let servers = Servers::start(&link.far, server, 4)?;
        let did = truths(&link.near.python(SHORT, &[client, PORT, count, count, "4"])?)?;
        ensure!(did.len() == 2 * count.parse::<usize>()?, "{} of them lived", did.len());
        let (near, far) = (near.stop()?, far.stop()?);
        score(&near, &did, Side::Client).check(&format!("clients to {client}"))?;
        score(&far, &servers.truths()?, Side::Server).check(&format!("workers at {client}"))?;
        near.check_balance()?;
        far.check_balance()?;
    }
    Ok(())
}

#[test]
fn workers_that_share_a_socket_for_datagrams_are_told_apart() -> Result<()> {
    if !root::available("workers_that_share_a_socket_for_datagrams_are_told_apart")? {
        return Ok(());
    }
    let link = Link::new()?;
    let far = Meter::start(&link.far, &options(&[]))?;
    let servers = Servers::with_sockets(&link.far, "0.0.0.0", 4, "none")?;
    link.near.python(SHORT, &["10.9.0.2", PORT, "0", "500", "4"])?;
    score(&far.stop()?, &servers.truths()?, Side::Server).check("workers")
}

#[test]
fn servers_with_a_port_in_common_are_told_apart() -> Result<()> {
    if !root::available("servers_with_a_port_in_common_are_told_apart")? {
        return Ok(());
    }
    let link = Link::new()?;
    let near = Meter::start(&link.near, &options(&[]))?;
    let far = Meter::start(&link.far, &options(&[]))?;
    let loopback = Meter::start(&link.far, &[&OPTIONS[..], &["lo"]].concat())?;
    let servers = Servers::with_sockets(&link.far, "0.0.0.0", 2, "all")?;
    let did = truths(&link.near.python(SHORT, &["10.9.0.2", PORT, "500", "0", "4"])?)?;
    let served = servers.truths()?;
    let own = truths(&link.far.python(SHORT, &["127.0.0.1", PORT, "500", "0", "4"])?)?;
    let (near, far, loopback) = (near.stop()?, far.stop()?, loopback.stop()?);
    score(&near, &did, Side::Client).check("clients")?;
    score(&far, &served, Side::Server).check("servers")?;
    score(&loopback, &own, Side::Client).check("clients on the same host")?;
    let served = servers.truths()?.split_off(served.len());
    score(&loopback, &served, Side::Server).check("servers on the same host")?;
    for name in ["serve-0", "serve-1"] {
        ensure!(served.iter().any(|truth| truth.name == name), "{name} was idle");
    }
    Ok(())
}

#[test]
fn long_talks_keep_their_processes_while_short_ones_come_and_go() -> Result<()> {
    if !root::available("long_talks_keep_their_processes_while_short_ones_come_and_go")? {
        return Ok(());
    }
    let link = Link::new()?;
    let servers = Servers::start(&link.far, "0.0.0.0", 60)?;
    // Some of them are there before the meters are.
    let mut talkers = vec![Talkers::start(&link.near, "10.9.0.2", 2)?];
    let near = Meter::start(&link.near, &options(&[]))?;
    let far = Meter::start(&link.far, &options(&[]))?;
    talkers.push(Talkers::start(&link.near, "10.9.0.2", 48)?);
    let did = link.near.python(SHORT, &["10.9.0.2", PORT, "5000", "0", "4"])?;
    let mut did = truths(&did)?;
    for talkers in &mut talkers {
        did.append(&mut talkers.truths);
    }
    let (near, far) = (near.stop()?, far.stop()?);
    score(&near, &did, Side::Client).check("clients")?;
    score(&far, &servers.truths()?, Side::Server).check("workers")?;
    Ok(())
}

#[test]
fn a_socket_belongs_to_whom_it_was_handed() -> Result<()> {
    if !root::available("a_socket_belongs_to_whom_it_was_handed")? {
        return Ok(());
    }
    let link = Link::new()?;
    let _servers = Servers::start(&link.far, "0.0.0.0", 2)?;
    let near = Meter::start(&link.near, &options(&[]))?;
    let told = link.near.python(HANDED, &["10.9.0.2"])?;
    let log = near.stop()?;
    ensure!(told.lines().count() == 7, "{told}");
    for line in told.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, port, pid, name] = words[..] else { continue };
        let (port, pid): (u64, u64) = (port.parse()?, pid.parse()?);
        let flow = log.the(|f| f["src_port"] == port)?;
        let is_right = flow["src_process_pid"] == pid && flow["src_process_name"] == name;
        ensure!(is_right, "{line}: {} {}", flow["src_process_pid"], flow["src_process_name"]);
        ensure!(flow["attribution_method"] == "socket", "{what}: {flow:#}");
    }
    Ok(())
}

#[test]
fn both_ends_of_the_loopback_are_known() -> Result<()> {
    if !root::available("both_ends_of_the_loopback_are_known")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &[&OPTIONS[..], &["lo"]].concat())?;
    let servers = Servers::start(&link.near, "0.0.0.0", 4)?;
    let did = link.near.python(SHORT, &["127.0.0.1", PORT, "200", "200", "4"])?;
    let log = meter.stop()?;
    score(&log, &truths(&did)?, Side::Client).check("clients")?;
    score(&log, &servers.truths()?, Side::Server).check("workers")?;
    log.check_balance()
}

#[test]
fn raw_sockets_have_processes() -> Result<()> {
    if !root::available("raw_sockets_have_processes")? {
        return Ok(());
    }
    let link = Link::new()?;
    let near = Meter::start(&link.near, &options(&[]))?;
    let far = Meter::start(&link.far, &options(&[]))?;
    link.near.run("ping", &["-c", "2", "-i", "0.2", "10.9.0.2"])?;
    let (near, far) = (near.stop()?, far.stop()?);
    let is_echo = |f: &Value| f["protocol"] == 1 && number(f, "bidirectional_packets") > 1;
    let (near, far) = (near.the(is_echo)?, far.the(is_echo)?);
    ensure!(near["src_process_name"] == "ping", "{near:#}");
    // The kernel answers.
    ensure!(far["dst_process_pid"].is_null() && far["src_process_pid"].is_null(), "{far:#}");
    Ok(())
}

/// Both hosts ask each other, so that each answers first and asks later in one flow.
#[test]
fn the_kernels_answers_do_not_take_a_flow_from_who_asks() -> Result<()> {
    if !root::available("the_kernels_answers_do_not_take_a_flow_from_who_asks")? {
        return Ok(());
    }
    let link = Link::new()?;
    let near = Meter::start(&link.near, &options(&[]))?;
    for (host, address) in [
        (&link.far, "10.9.0.1"),
        (&link.near, "10.9.0.2"),
        (&link.far, "fd09::1"),
        (&link.near, "fd09::2"),
    ] {
        host.run("ping", &["-c", "2", "-i", "0.2", address])?;
    }
    let near = near.stop()?;
    for (address, other) in [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")] {
        let is_between = |f: &Value, a, b| f["src_ip"] == a && f["dst_ip"] == b;
        let flow = near.the(|f| is_between(f, address, other) || is_between(f, other, address))?;
        ensure!(number(flow, "bidirectional_packets") >= 8, "{flow:#}");
        // Neighbours may have looked for each other first, either way.
        let (ours, theirs) =
            if flow["src_ip"] == address { ("src", "dst") } else { ("dst", "src") };
        let is_right = flow[format!("{ours}_process_name")] == "ping"
            && flow[format!("{theirs}_process_pid")].is_null();
        ensure!(is_right, "{flow:#}");
    }
    Ok(())
}

#[test]
fn without_hooks_it_polls_and_says_so() -> Result<()> {
    if !root::available("without_hooks_it_polls_and_says_so")? {
        return Ok(());
    }
    let link = Link::new()?;
    let servers = Servers::start(&link.far, "0.0.0.0", 4)?;
    let meter =
        Meter::start_without_hooks(&link.near, &options(&["--system-visibility-poll-ms=100"]))?;
    for hook in ["cgroup/sock_create", "tp_btf/sock_send_length"] {
        let is_said = meter.warnings.iter().any(|line| line.contains(hook));
        ensure!(is_said, "{hook}: {:?}", meter.warnings);
    }
    // A line for each reason, not for each hook.
    ensure!(meter.warnings.len() == 2, "{:?}", meter.warnings);
    let talkers = Talkers::start(&link.near, "10.9.0.2", 2)?;
    let did = truths(&link.near.python(SHORT, &["10.9.0.2", PORT, "1000", "1000", "4"])?)?;
    let log = meter.stop()?;
    let [polls, failed] = ["polls", "polls_failed"].map(|n| number(&log.report["procfs"], n));
    ensure!(polls > 1 && failed == 0, "{:#}", log.report);
    // What lives for longer than between two polls is found.
    score(&log, &talkers.truths, Side::Client).check("long")?;
    drop((talkers, servers));
    let short = score(&log, &did, Side::Client);
    println!("by polling alone: {} of {} right", short.right, short.right + short.none);
    ensure!(short.wrong.is_empty() && short.none > short.right, "{short:#?}");
    Ok(())
}
