//! Does the meter see what passes, whoever else is at the hook, and say so where it does not?
//!
//! tc programs of others that let everything pass, and by that end the chain, or drop everything.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::meter::{Meter, number};
use flowmeter_tests::netns::{Host, Link, WIRE};
use flowmeter_tests::root;

const FOREIGN: &str = include_str!("foreign.py");

/// Leaves the packet to the next program: `TC_ACT_UNSPEC`, `TCX_NEXT`.
const NEXT: &str = "-1";
/// Passes the packet on, past the rest of the chain: `TC_ACT_OK`, `TCX_PASS`.
const PASS: &str = "0";
/// `TC_ACT_SHOT`, `TCX_DROP`.
const DROP: &str = "2";

/// A tc program at the wire, gone with the value unless it is a filter of clsact.
struct Foreign(Child);

impl Foreign {
    /// Attaches it at `hook`, "before" or "after" all others by tcx, or with a priority by clsact.
    fn attach(host: &Host, hook: &str, place: &str, verdict: &str) -> Result<Self> {
        Self::attach_many(host, hook, place, verdict, "1")
    }

    /// Leaves no room for others in tcx, so that they must come by clsact.
    fn fill(host: &Host, hook: &str) -> Result<Self> {
        // Linux, `bpf_mprog_max()`.
        Self::attach_many(host, hook, "after", NEXT, "63")
    }

    fn attach_many(
        host: &Host,
        hook: &str,
        place: &str,
        verdict: &str,
        count: &str,
    ) -> Result<Self> {
        let mut command = host.command("python3");
        command.args(["-c", FOREIGN, WIRE, hook, place, verdict, count]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("it is piped")?;
        let foreign = Self(child);
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready)?;
        ensure!(ready == "ready\n", "{hook} {place} {verdict} was not attached");
        Ok(foreign)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Whether the kernel has tcx, as Linux has from 6.6 on.
fn has_tcx() -> Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    Ok((numbers.next(), numbers.next()) >= (Some(6), Some(6)))
}

/// A hundred echo requests and their replies are metered while programs of others are there, some
/// since before the meter and some only after it.
fn sees_all(ingress: &str, before: &[[&str; 3]], later: &[[&str; 3]]) -> Result<()> {
    sees_all_of(&Link::new()?, ingress, before, later)
}

fn sees_all_of(
    link: &Link,
    ingress: &str,
    before: &[[&str; 3]],
    later: &[[&str; 3]],
) -> Result<()> {
    let attach =
        |&[hook, place, verdict]: &[&str; 3]| Foreign::attach(&link.near, hook, place, verdict);
    let before = before.iter().map(attach).collect::<Result<Vec<_>>>()?;
    let options = ["--n-dissections=0", "--ingress", ingress, WIRE];
    let meter = Meter::start(&link.near, &options)?;
    let later = later.iter().map(attach).collect::<Result<Vec<_>>>()?;
    link.near.run("ping", &["-q", "-c", "100", "-i", "0.002", "10.9.0.2"])?;
    let log = meter.stop()?;
    drop((before, later));
    let echo = log.the(|flow| flow["protocol"] == 1)?;
    for column in ["src2dst_packets", "dst2src_packets"] {
        ensure!(number(echo, column) == 100, "{column}: {echo:#}");
    }
    log.check_balance()
}

#[test]
fn whoever_was_first_in_tcx_is_not_any_more() -> Result<()> {
    if !root::available("whoever_was_first_in_tcx_is_not_any_more")? {
        return Ok(());
    }
    if !has_tcx()? {
        println!("skipped: this kernel has no tcx");
        return Ok(());
    }
    let both = [["ingress", "before", PASS], ["egress", "before", PASS]];
    sees_all("tcx", &both, &[])?;
    sees_all("xdp", &both, &[])
}

#[test]
fn who_comes_later_comes_behind() -> Result<()> {
    if !root::available("who_comes_later_comes_behind")? {
        return Ok(());
    }
    if has_tcx()? {
        sees_all("tcx", &[], &[["ingress", "after", PASS], ["egress", "after", PASS]])?;
    }
    sees_all("tcx", &[], &[["ingress", "2", PASS], ["egress", "2", PASS]])
}

#[test]
fn filters_of_the_first_priority_come_behind_too() -> Result<()> {
    if !root::available("filters_of_the_first_priority_come_behind_too")? {
        return Ok(());
    }
    sees_all("tcx", &[["ingress", "1", PASS], ["egress", "1", PASS]], &[])
}

#[test]
fn by_clsact_it_comes_first_too() -> Result<()> {
    if !root::available("by_clsact_it_comes_first_too")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut full = Vec::new();
    if has_tcx()? {
        for hook in ["ingress", "egress"] {
            full.push(Foreign::fill(&link.near, hook)?);
        }
    }
    for priority in ["1", "50000"] {
        let both = [["ingress", priority, PASS], ["egress", priority, PASS]];
        sees_all_of(&link, "tcx", &both, &[])?;
    }
    drop(full);
    Ok(())
}

/// Waits for a warning of the hook with these words in it, while there is traffic.
fn wait_for_warning(meter: &mut Meter, link: &Link, hook: &str, words: &str) -> Result<()> {
    let ping = ["-q", "-i", "0.005", "-w", "600", "10.9.0.2"];
    let mut traffic = link.near.command("ping").args(ping).stdout(Stdio::null()).spawn()?;
    let warned = meter.wait_for_message(|line| line.contains(hook) && line.contains(words));
    traffic.kill()?;
    traffic.wait()?;
    warned
}

#[test]
fn a_hook_that_others_blind_is_reported() -> Result<()> {
    if !root::available("a_hook_that_others_blind_is_reported")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut meter = Meter::start(&link.near, &["--n-dissections=0", "--ingress=tcx", WIRE])?;
    link.near.run("ping", &["-q", "-c", "10", "-i", "0.005", "10.9.0.2"])?;
    // Of two filters of the first priority, the newer one comes first.
    let place = if has_tcx()? { "before" } else { "1" };
    let foreign = Foreign::attach(&link.near, "egress", place, PASS)?;
    wait_for_warning(&mut meter, &link, "tc egress of `wire`", "sees less")?;
    drop(foreign);
    if has_tcx()? {
        wait_for_warning(&mut meter, &link, "tc egress of `wire`", "again")?;
    }
    let log = meter.stop()?;
    let counts = &log.report["interfaces"][0];
    let (sent, seen) = (number(counts, "tx_packets"), number(&counts["egress"], "seen"));
    ensure!(seen > 0 && sent > seen + 128, "{counts:#}");
    ensure!(number(counts, "tx_bytes") > number(&counts["egress"], "seen_bytes"), "{counts:#}");
    log.check_balance()
}

#[test]
fn packets_that_others_drop_behind_the_hook_are_reported() -> Result<()> {
    if !root::available("packets_that_others_drop_behind_the_hook_are_reported")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut meter = Meter::start(&link.near, &["--n-dissections=0", "--ingress=tcx", WIRE])?;
    link.near.run("ping", &["-q", "-c", "10", "-i", "0.005", "10.9.0.2"])?;
    let place = if has_tcx()? { "after" } else { "2" };
    let _foreign = Foreign::attach(&link.near, "egress", place, DROP)?;
    wait_for_warning(&mut meter, &link, "tc egress of `wire`", "sees more")?;
    meter.stop()?.check_balance()
}
