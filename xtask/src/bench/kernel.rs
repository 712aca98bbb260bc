//! What does a packet cost in the kernel?
//!
//! `BPF_PROG_TEST_RUN` runs a program on one packet again and again. Each figure is the least of
//! several runs, with the harness' own share in it: the floor is a program that only says
//! `XDP_PASS`.

use anyhow::{Context as _, Result, bail};
use aya::programs::{Program, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use flowmeter_common::globals::Globals;

use crate::command::is_root;
use crate::ebpf;

/// Packets in a run, and runs.
const PACKETS: u32 = 1_000_000;
const RUNS: usize = 9;

/// What the project wants, as a ratio to the floor.
const EXISTING_GOAL: f64 = 6.0;
const NEW_GOAL: f64 = 25.0;

/// Settings of the programs.
#[derive(Clone, Copy, Default)]
struct Settings {
    globals: Globals,
    max_flows: u32,
}

impl Settings {
    fn with(self, set: impl FnOnce(&mut Globals)) -> Self {
        let mut globals = self.globals;
        set(&mut globals);
        Self { globals, ..self }
    }
}

pub fn bench() -> Result<()> {
    if !is_root() {
        bail!("running kernel programs needs root");
    }
    let object = std::fs::read(ebpf::object())
        .with_context(|| format!("no `{}`; run `cargo xtask ebpf`", ebpf::object().display()))?;
    let bench = Bench { object };
    let quiet = Settings { max_flows: 131_072, ..Settings::default() };
    let statistics = quiet.with(|globals| globals.statistics = 1);
    let tcp = tcp(1);
    let floor = bench.run("flowmeter_pass", quiet, &tcp)?;
    println!("{:44} {:>7} {:>7}", "", "ns", "ratio");
    let row = |what: &str, ns: f64, goal: Option<f64>| {
        let ratio = ns / floor;
        let verdict = match goal {
            Some(goal) if ratio <= goal => format!("  goal {goal}: met"),
            Some(goal) => format!("  goal {goal}: missed"),
            None => String::new(),
        };
        println!("{what:44} {ns:>7.0} {ratio:>7.2}{verdict}");
    };
    row("XDP_PASS", floor, None);
    row("parse: TCP", bench.run("flowmeter_parse", quiet, &tcp)?, None);
    row(
        "parse: off the fast path (two tags)",
        bench.run("flowmeter_parse", quiet, &tagged())?,
        None,
    );
    row("existing flow", bench.run("flowmeter_xdp", quiet, &tcp)?, None);
    let existing = bench.run("flowmeter_xdp", statistics, &tcp)?;
    row("existing flow, statistics", existing, Some(EXISTING_GOAL));
    let tc = bench.run("flowmeter_tc_out", statistics, &tcp)?;
    row("existing flow, statistics, tc egress", tc, None);
    let new = bench.new_flow(statistics, existing)?;
    row("new flow, statistics", new, Some(NEW_GOAL));
    let splt = statistics.with(|globals| globals.splt = 20);
    row("new flow, statistics, SPLT 20", bench.new_flow(splt, existing)?, None);
    let dissected = statistics.with(|globals| globals.n_dissections = 255);
    row("new flow, statistics, dissected", bench.new_flow(dissected, existing)?, None);
    let full = Settings { max_flows: 1, ..statistics };
    row("map and ring full", bench.full(full)?, None);
    Ok(())
}

struct Bench {
    object: Vec<u8>,
}

impl Bench {
    fn load(&self, settings: Settings) -> Result<Ebpf> {
        let quiet = 0_u8;
        let splt = settings.max_flows.saturating_mul(settings.globals.splt.div_ceil(16)).max(1);
        let mut loader = EbpfLoader::new();
        for (global, value) in settings.globals.table() {
            loader.override_global(global, value, true);
        }
        loader
            .override_global("AYA_LOG_LEVEL", &quiet, false)
            .map_max_entries("FLOWS", settings.max_flows)
            .map_max_entries("SPLT", splt)
            .load(&self.object)
            .context("failed to load the object")
    }

    /// ns a packet of a program that sees one packet again and again.
    fn run(&self, name: &str, settings: Settings, packet: &[u8]) -> Result<f64> {
        let mut ebpf = self.load(settings)?;
        let program = load(&mut ebpf, name)?;
        let mut least = f64::INFINITY;
        for _ in 0..RUNS {
            least = least.min(time(program, packet, PACKETS)?);
        }
        Ok(least)
    }

    /// ns of a packet that begins a flow. One packet cannot be new twice, so each is a run of its
    /// own; what such a run costs more than one of an existing flow is the difference.
    fn new_flow(&self, settings: Settings, existing: f64) -> Result<f64> {
        let mut ebpf = self.load(settings)?;
        let program = load(&mut ebpf, "flowmeter_xdp")?;
        let old = tcp(0);
        time(program, &old, 1)?;
        let mut differences = Vec::new();
        for round in 0..RUNS as u32 {
            let (mut begun, mut known) = (0.0, 0.0);
            let flows = 10_000;
            for n in 0..flows {
                begun += time(program, &tcp(1 + round * flows + n), 1)?;
                known += time(program, &old, 1)?;
            }
            differences.push((begun - known) / f64::from(flows));
        }
        Ok(existing + super::median(&mut differences))
    }

    /// ns of a packet that finds no room anywhere.
    fn full(&self, settings: Settings) -> Result<f64> {
        let mut ebpf = self.load(settings)?;
        let program = load(&mut ebpf, "flowmeter_xdp")?;
        time(program, &tcp(1), 1)?;
        time(program, &tcp(2), PACKETS)?; // fills the ring
        let mut least = f64::INFINITY;
        for _ in 0..RUNS {
            least = least.min(time(program, &tcp(2), PACKETS)?);
        }
        Ok(least)
    }
}

fn load<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program `{name}`"))?;
    match program {
        Program::Xdp(p) => p.load()?,
        Program::SchedClassifier(p) => p.load()?,
        _ => bail!("program `{name}` cannot be run on a packet"),
    }
    Ok(program)
}

/// Mean ns of a packet.
fn time(program: &mut Program, packet: &[u8], repeat: u32) -> Result<f64> {
    let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::new() };
    let duration = match program {
        Program::Xdp(p) => <Xdp as TestRun>::test_run(p, options)?.duration,
        Program::SchedClassifier(p) => <SchedClassifier as TestRun>::test_run(p, options)?.duration,
        _ => bail!("a program of another kind"),
    };
    Ok(duration.as_nanos() as f64)
}

/// A TCP segment of the flow with this number: 500 bytes, ACK.
fn tcp(flow: u32) -> Vec<u8> {
    let mut frame = vec![0; 14];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame.extend(ip_tcp(flow));
    frame
}

/// The same behind two VLAN tags.
fn tagged() -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x88, 0xa8, 0, 7, 0x81, 0x00, 0, 5, 0x08, 0x00]);
    frame.extend(ip_tcp(1));
    frame
}

fn ip_tcp(flow: u32) -> Vec<u8> {
    let mut packet = vec![0; 486];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&486_u16.to_be_bytes());
    packet[8..10].copy_from_slice(&[64, 6]);
    packet[12..16].copy_from_slice(&(0x0a00_0000 + flow).to_be_bytes());
    packet[16..20].copy_from_slice(&[192, 168, 0, 1]);
    packet[20..24].copy_from_slice(&[0x04, 0xd2, 0x00, 0x50]);
    packet[32..34].copy_from_slice(&[0x50, 0x10]);
    packet
}
