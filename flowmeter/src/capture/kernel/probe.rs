//! What can the kernel half do on this machine?

use std::fs;
use std::path::Path;

use aya::EbpfLoader;
use aya::programs::Program;

use super::{OBJECT, owners, sys};

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

/// `CAP_NET_ADMIN`, `CAP_SYS_ADMIN`, `CAP_PERFMON`, `CAP_BPF` (Linux, `capability.h`).
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

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
            (State::Limited, "before 6.6 there is no tcx: clsact is used, and its qdisc stays")
        }
        _ => (State::Missing, "kernel 5.18 or later is needed: XDP with several buffers, BTF"),
    };
    Finding::new("kernel", state, release, advice)
}

fn capabilities() -> Finding {
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    let effective = status.map_or(0, |status| status.capeff);
    let has = |capability: u32| effective >> capability & 1 == 1;
    let wanted = [("CAP_BPF", BPF), ("CAP_NET_ADMIN", NET_ADMIN), ("CAP_PERFMON", PERFMON)];
    let missing: Vec<_> = wanted
        .into_iter()
        .filter(|(_, capability)| !has(*capability) && !has(SYS_ADMIN))
        .map(|(name, _)| name)
        .collect();
    if missing.is_empty() {
        return Finding::new("capabilities", State::Works, "sufficient", "");
    }
    let found = format!("{} missing", missing.join(", "));
    Finding::new("capabilities", State::Missing, found, "run as root; `flowmeter read` needs none")
}

fn btf() -> Finding {
    let there = Path::new("/sys/kernel/btf/vmlinux").exists();
    let (state, found) = if there { (State::Works, "there") } else { (State::Limited, "absent") };
    let advice = "a kernel with CONFIG_DEBUG_INFO_BTF is needed to attribute flows at the socket";
    Finding::new("kernel BTF", state, found, advice)
}

/// Loads each program and lets go of it.
fn programs() -> Vec<Finding> {
    let advice = "the kernel's message says why; without it `flowmeter live` does not work";
    if OBJECT.is_empty() {
        let found = "not built in";
        return vec![Finding::new(
            "kernel programs",
            State::Missing,
            found,
            "build with `cargo xtask run`",
        )];
    }
    let mut ebpf = match EbpfLoader::new().map_max_entries("FLOWS", 64).load(OBJECT) {
        Ok(ebpf) => ebpf,
        Err(e) => {
            let found = sys::message(&e);
            return vec![Finding::new("kernel programs", State::Missing, found, advice)];
        }
    };
    let hooks = [
        ("XDP", "flowmeter_xdp"),
        ("tc ingress", "flowmeter_tc_in"),
        ("tc egress", "flowmeter_tc_out"),
        ("reaper", "flowmeter_reap"),
    ];
    let mut findings: Vec<Finding> = hooks
        .into_iter()
        .map(|(what, name)| {
            let loaded = match ebpf.program_mut(name) {
                Some(Program::Xdp(p)) => p.load().and_then(|()| p.info()),
                Some(Program::SchedClassifier(p)) => p.load().and_then(|()| p.info()),
                _ => return Finding::new(what, State::Missing, "not in the object", advice),
            };
            match loaded {
                Ok(info) => {
                    let verified = info.verified_instruction_count().unwrap_or(0);
                    let found = format!("loads, {verified} instructions verified");
                    Finding::new(what, State::Works, found, "")
                }
                Err(e) => Finding::new(what, State::Missing, sys::message(&e), advice),
            }
        })
        .collect();
    let advice = "short connections may have no process";
    findings.extend(owners::attach(&mut ebpf).into_iter().map(|hook| match hook.failed {
        None => Finding::new(hook.name, State::Works, "attaches", ""),
        Some(why) => Finding::new(hook.name, State::Limited, why, advice),
    }));
    findings
}

/// VLAN tags that the NIC takes off before XDP are lost to it.
fn offload() -> Finding {
    let found = "tags that a NIC strips in hardware are not seen at XDP";
    let advice =
        "on VLAN trunks turn it off (`ethtool -K IFACE rxvlan off`) or use `--ingress tcx`";
    Finding::new("VLAN offload", State::Limited, found, advice)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
