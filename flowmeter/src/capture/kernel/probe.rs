//! What can the kernel half do on this machine?

use std::fs;
use std::path::Path;

use aya::EbpfLoader;
use aya::programs::{ProgramError, ProgramInfo};
use flowmeter_common::globals::Globals;

use super::capabilities::{self, Missing};
use super::{Error, OBJECT, attach, classifier, layout, owners, sys};

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do, if anything.
    pub advice: &'static str,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Works,
    /// Something is done without.
    Limited,
    /// `flowmeter live` does not work.
    Missing,
}

impl Finding {
    /// A finding, with advice that is given only if it does not work.
    pub fn new(
        what: &'static str,
        state: State,
        found: impl Into<String>,
        advice: &'static str,
    ) -> Self {
        let advice = if state == State::Works { "" } else { advice };
        Self { what, state, found: found.into(), advice }
    }
}

/// Looks.
pub fn probe() -> Vec<Finding> {
    let mut findings = vec![kernel(), capabilities(), btf()];
    findings.extend(programs());
    findings.push(offload());
    findings
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (state, advice) = match version {
        (6, 6..) | (7.., _) => (State::Works, ""),
        (5, 18..) | (6, _) => {
            (State::Limited, "Linux before 6.6 has no tcx: clsact is used, and its qdisc stays")
        }
        (5, 10..) => (
            State::Limited,
            "Linux before 6.6 has no tcx: clsact is used, and its qdisc stays; before 5.18 XDP \
             cannot take frames larger than a page: interfaces with such an MTU are metered at tc",
        ),
        _ => (
            State::Limited,
            "flowmeter is tested on Linux 5.10 and later; see below for what loads",
        ),
    };
    Finding::new("kernel", state, release, advice)
}

fn capabilities() -> Finding {
    let advice = "run as root; `flowmeter read` needs no capabilities";
    match capabilities::check() {
        Ok(()) => Finding::new("capabilities", State::Works, "sufficient", ""),
        Err(Missing(missing)) => {
            let found = format!("{} missing", missing.join(", "));
            Finding::new("capabilities", State::Missing, found, advice)
        }
    }
}

fn btf() -> Finding {
    let there = Path::new("/sys/kernel/btf/vmlinux").exists();
    let (state, found) = if there { (State::Works, "present") } else { (State::Limited, "absent") };
    let advice = "attributing flows at the socket needs a kernel with CONFIG_DEBUG_INFO_BTF";
    Finding::new("kernel BTF", state, found, advice)
}

/// Loads each program and lets go of it.
fn programs() -> Vec<Finding> {
    if OBJECT.is_empty() {
        let (found, advice) = ("not built in", "build with `cargo xtask run`");
        return vec![Finding::new("kernel programs", State::Missing, found, advice)];
    }
    let mut loader = EbpfLoader::new();
    // As `live` sets them, or else the programs are not the same to the verifier.
    let offsets = layout::offsets().unwrap_or_default();
    for (global, offset) in &offsets {
        loader.override_global(global, offset, true);
    }
    let globals = Globals { attribute: 1, ..Globals::default() };
    for (global, value) in globals.table() {
        loader.override_global(global, value, true);
    }
    loader.map_max_entries("FLOWS", 64);
    let mut ebpf = match loader.load(OBJECT) {
        Ok(ebpf) => ebpf,
        Err(e) => {
            let (found, advice) = (sys::message(&e), "without them `flowmeter live` does not work");
            return vec![Finding::new("kernel programs", State::Missing, found, advice)];
        }
    };
    let xdp = attach::xdp_program(&mut ebpf)
        .and_then(|name| super::xdp(&mut ebpf, name))
        .map(|program| text(program.info()));
    let mut tc = |name| classifier(&mut ebpf, name).map(|program| text(program.info()));
    let (tc_in, tc_out) = (tc(attach::TC_IN), tc(attach::TC_OUT));
    let reaper = super::xdp(&mut ebpf, "flowmeter_reap").map(|program| text(program.info()));
    // One of the two is enough for what arrives.
    let ingress = if xdp.is_ok() || tc_in.is_ok() { State::Limited } else { State::Missing };
    let mut findings = vec![
        loaded("XDP", xdp, ingress, "received packets are metered at tc ingress"),
        loaded(
            "tc ingress",
            tc_in,
            ingress,
            "received packets are metered only where the driver has XDP",
        ),
        loaded("tc egress", tc_out, State::Missing, "`--direction ingress` works without it"),
        loaded("reaper", reaper, State::Missing, "without it `flowmeter live` does not work"),
    ];
    let advice = "short connections may have no process";
    findings.extend(owners::attach(&mut ebpf).all.into_iter().map(|hook| match hook.failed {
        None => Finding::new(hook.name, State::Works, "attaches", ""),
        Some(why) => Finding::new(hook.name, State::Limited, why, advice),
    }));
    findings
}

/// How a program is that was to be loaded, and how it stands if it was not.
fn loaded(
    what: &'static str,
    result: Result<String, Error>,
    otherwise: State,
    advice: &'static str,
) -> Finding {
    match result {
        Ok(found) => Finding::new(what, State::Works, found, ""),
        Err(Error::Program { source, .. }) => {
            Finding::new(what, otherwise, source.to_string(), advice)
        }
        Err(e) => Finding::new(what, State::Missing, e.to_string(), ""),
    }
}

/// What is known of a program that is loaded.
fn text(info: Result<ProgramInfo, ProgramError>) -> String {
    // Before Linux 5.16 it is not said.
    match info.ok().and_then(|info| info.verified_instruction_count()) {
        Some(verified) => format!("loads, {verified} instructions verified"),
        None => "loads".to_owned(),
    }
}

/// VLAN tags that the NIC takes off before XDP are lost to it.
fn offload() -> Finding {
    let found = "XDP does not see tags that a NIC strips in hardware";
    let advice =
        "on VLAN trunks turn stripping off (`ethtool -K IFACE rxvlan off`) or use `--ingress tcx`";
    Finding::new("VLAN offload", State::Limited, found, advice)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
