//! What does a meter cost the host that it meters?
//!
//! iperf3 between two namespaces over veth, with nothing attached and with a meter at each kind of
//! hook. XDP on veth switches off the other end's offloads, which is most of what it costs there.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{is_root, say_and_run};
use crate::run::target_dir;
use crate::{ebpf, root};

pub(super) const NEAR: &str = "fm-bench-near";
const FAR: &str = "fm-bench-far";

pub fn bench(seconds: u32) -> Result<()> {
    if !is_root() {
        bail!("network namespaces need root");
    }
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--quiet", "--package", "flowmeter-cli"]);
    say_and_run(build.current_dir(root()).env("FLOWMETER_BPF_OBJECT", ebpf::object()))?;
    let _wire = Wire::new()?;
    let _server = Running(inside(FAR, "iperf3", &["-s"]).stdout(Stdio::null()).spawn()?);
    sleep(Duration::from_secs(1));
    let bare = throughput(seconds)?;
    println!("{:34} {bare:>8.2} Gbit/s", "no meter");
    for (what, options) in [
        ("tcx + tcx", &["--ingress=tcx"][..]),
        (
            "tcx + tcx, statistics, SPLT 20",
            &["--ingress=tcx", "--statistical-analysis", "--splt-analysis=20"],
        ),
        ("XDP + tcx", &["--ingress=xdp"]),
        (
            "XDP + tcx, statistics, SPLT 20",
            &["--ingress=xdp", "--statistical-analysis", "--splt-analysis=20"],
        ),
    ] {
        let program = target_dir().join("release/flowmeter");
        let mut meter =
            inside(NEAR, &program.to_string_lossy(), &["live", "wire", "-o", "/dev/null"]);
        // What finding processes costs, `bench owner` tells.
        let meter = meter.arg("--system-visibility-mode=0").args(options).stderr(Stdio::null());
        let running = Running(meter.spawn().context("failed to start the meter")?);
        sleep(Duration::from_secs(3));
        let metered = throughput(seconds)?;
        drop(running);
        sleep(Duration::from_secs(1));
        println!("{what:34} {metered:>8.2} Gbit/s, {:.2} of none", metered / bare);
    }
    Ok(())
}

/// Gbit/s of one TCP connection: the median of three.
fn throughput(seconds: u32) -> Result<f64> {
    let mut rates = Vec::new();
    for _ in 0..3 {
        let time = seconds.to_string();
        let output =
            inside(NEAR, "iperf3", &["-c", "10.9.0.2", "-t", &time, "-f", "g"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.ends_with("receiver"));
        let words: Vec<&str> = line.context("iperf3 says nothing")?.split_whitespace().collect();
        let unit = words.iter().position(|w| w.ends_with("bits/sec")).context("no rate")?;
        let rate = unit.checked_sub(1).and_then(|i| words.get(i)).context("no rate")?;
        rates.push(rate.parse().with_context(|| format!("`{rate}` is no rate"))?);
    }
    Ok(super::median(&mut rates))
}

pub(super) fn inside(host: &str, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host, program]).args(args).stdin(Stdio::null());
    command
}

/// A process, ended with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two namespaces and the wire between them, gone with the value.
pub(super) struct Wire;

impl Wire {
    pub(super) fn new() -> Result<Self> {
        let wire = Self;
        for host in [NEAR, FAR] {
            ip(&["netns", "add", host])?;
        }
        ip(&[
            "link", "add", "wire", "netns", NEAR, "type", "veth", "peer", "name", "wire", "netns",
            FAR,
        ])?;
        for (host, address) in [(NEAR, "10.9.0.1/24"), (FAR, "10.9.0.2/24")] {
            ip(&["-n", host, "addr", "add", address, "dev", "wire"])?;
            ip(&["-n", host, "link", "set", "wire", "up"])?;
        }
        Ok(wire)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for host in [NEAR, FAR] {
            let _ = ip(&["netns", "del", host]);
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(args).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "`ip {}` failed", args.join(" "));
    Ok(())
}
