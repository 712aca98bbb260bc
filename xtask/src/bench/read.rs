//! How fast are captures metered?
//!
//! On captures made here, always the same ones: many short flows, few long ones, a mix, and as many
//! concurrent flows as there are packets. Against tcpdump, which only reads; softflowd, which keeps
//! five counters a flow; and NFStream, where the tests' Python has it (`FLOWMETER_PYTHON` names
//! another interpreter).

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::command::{find, output, say_and_run};
use crate::run::target_dir;
use crate::{ebpf, python, root};

/// Runs of each; the fastest counts.
const RUNS: usize = 3;

/// Meters a capture as flowmeter does: flows are made and thrown away.
const NFSTREAM: &str = "
import sys
from nfstream import NFStreamer
if __name__ == '__main__':
    for flow in NFStreamer(source=sys.argv[1], statistical_analysis=True, splt_analysis=20,
                           n_dissections=int(sys.argv[2]), n_meters=1):
        pass
";

pub fn bench(megabytes: u64) -> Result<()> {
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--quiet", "--package", "flowmeter-cli"]);
    say_and_run(build.current_dir(root()).env("FLOWMETER_BPF_OBJECT", ebpf::object()))?;
    let flowmeter = target_dir().join("release/flowmeter").to_string_lossy().into_owned();
    let folder = target_dir().join("bench");
    std::fs::create_dir_all(&folder)?;
    let script = folder.join("with_nfstream.py");
    std::fs::write(&script, NFSTREAM)?;
    let script = script.to_string_lossy().into_owned();
    let interpreter = std::env::var("FLOWMETER_PYTHON")
        .unwrap_or_else(|_| python::program().to_string_lossy().into_owned());
    for kind in [Kind::Short, Kind::Long, Kind::Mix, Kind::Many] {
        let capture = make(&folder, kind, megabytes)?;
        let path = capture.path.to_string_lossy().into_owned();
        println!("\n{}: {} packets, {} flows", kind.name(), capture.packets, capture.flows);
        let read = |n: &'static str, workers: &'static str| {
            [
                "read",
                &path,
                n,
                workers,
                "--statistical-analysis",
                "--splt-analysis=20",
                "-o/dev/null",
            ]
        };
        let plain = ["read", &path, "--n-dissections=0", "--n-meters=1", "-o/dev/null"];
        let (one, two) =
            (read("--n-dissections=0", "--n-meters=1"), read("--n-dissections=0", "--n-meters=2"));
        let (one_dissected, two_dissected) = (
            read("--n-dissections=20", "--n-meters=1"),
            read("--n-dissections=20", "--n-meters=2"),
        );
        let subjects: [(&str, &str, &[&str]); 9] = [
            ("tcpdump -w /dev/null", "tcpdump", &["-r", &path, "-w", "/dev/null"]),
            ("softflowd", "softflowd", &["-r", &path, "-d", "-n", "127.0.0.1:9"]),
            ("NFStream, statistics, SPLT 20", &interpreter, &[&script, &path, "0"]),
            ("NFStream, and nDPI", &interpreter, &[&script, &path, "20"]),
            ("flowmeter, core columns", &flowmeter, &plain),
            ("flowmeter, statistics, SPLT 20", &flowmeter, &one),
            ("the same, 2 workers", &flowmeter, &two),
            ("flowmeter, and nDPI", &flowmeter, &one_dissected),
            ("the same, 2 workers", &flowmeter, &two_dissected),
        ];
        let mut baselines: Vec<(&str, f64)> = Vec::new();
        for (what, program, args) in subjects {
            // NFStream takes minutes where flowmeter takes a second.
            let is_slow = program == interpreter && matches!(kind, Kind::Many);
            if is_slow || !is_there(program, what) {
                println!("  {what:32} left out");
                continue;
            }
            let runs = if program == interpreter { 1 } else { RUNS };
            let (seconds, kilobytes) = measure(program, args, runs)?;
            let ratios: Vec<String> = baselines
                .iter()
                .map(|(name, baseline)| format!("  {:.2} × {name}", baseline / seconds))
                .collect();
            println!(
                "  {what:32} {:>7.3} Mpackets/s {:>7.0} MB/s {:>8} KB {:>6} B/flow{}",
                capture.packets as f64 / seconds / 1e6,
                capture.bytes as f64 / seconds / 1e6,
                kilobytes,
                kilobytes * 1024 / capture.flows.max(1),
                ratios.concat(),
            );
            match what {
                "softflowd" => baselines.push(("softflowd", seconds)),
                "NFStream, statistics, SPLT 20" => baselines.push(("NFStream", seconds)),
                "NFStream, and nDPI" => baselines.push(("NFStream with nDPI", seconds)),
                "flowmeter, statistics, SPLT 20" | "flowmeter, and nDPI" => {
                    baselines.retain(|(name, _)| *name != "1 worker");
                    baselines.push(("1 worker", seconds));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn is_there(program: &str, what: &str) -> bool {
    if what.starts_with("NFStream") {
        return output(Command::new(program).args(["-c", "import nfstream"])).is_some();
    }
    program.contains('/') || find(program).is_some()
}

/// Seconds of the fastest run, and peak memory.
fn measure(program: &str, args: &[&str], runs: usize) -> Result<(f64, u64)> {
    let (mut best, mut memory) = (f64::INFINITY, 0);
    for _ in 0..runs {
        let begun = Instant::now();
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to run `{program}`"))?;
        let status = format!("/proc/{}/status", child.id());
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "`{program}` failed: {status}");
                break;
            }
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|p| p.trim().trim_end_matches(" kB").parse().ok());
            memory = memory.max(peak.unwrap_or(0));
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        best = best.min(begun.elapsed().as_secs_f64());
    }
    Ok((best, memory))
}

#[derive(Clone, Copy)]
enum Kind {
    Short,
    Long,
    Mix,
    Many,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
            Self::Mix => "mix",
            Self::Many => "many",
        }
    }

    /// Payload sizes, and packets a flow on average.
    fn shape(self) -> (&'static [usize], f64) {
        match self {
            Self::Short => (&[0, 0, 40, 300, 1000], 10.7),
            Self::Long => (&[0, 1448, 1448, 1448], 4_000.0),
            Self::Mix => (&[0, 0, 100, 500, 1448], 22.3),
            // Flows that stay: a packet each, within the idle timeout.
            Self::Many => (&[50], 1.0),
        }
    }
}

struct Made {
    path: PathBuf,
    packets: u64,
    flows: u64,
    bytes: u64,
}

struct Conversation {
    client: [u8; 4],
    server: [u8; 4],
    client_port: u16,
    server_port: u16,
    udp: bool,
    left: u64,
}

/// Writes a capture of the size, the same one every time.
fn make(folder: &Path, kind: Kind, megabytes: u64) -> Result<Made> {
    let path = folder.join(format!("{}.pcap", kind.name()));
    let mut out = BufWriter::new(File::create(&path).context("failed to write a capture")?);
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        out.write_all(&field.to_le_bytes())?;
    }
    let (sizes, mean) = kind.shape();
    let mut random = Random(7);
    let mut active: Vec<Conversation> = Vec::new();
    let (mut packets, mut flows, mut bytes) = (0, 0, 24);
    let mut time_us = 1_600_000_000_000_000_u64;
    while bytes < megabytes * 1_000_000 {
        if active.is_empty() || active.len() < 2000 && random.unit() < 1.0 / mean {
            let n = random.next();
            active.push(Conversation {
                client: [10, (n >> 8) as u8 & 15, (n >> 16) as u8, (n >> 24) as u8],
                server: [192, 168, (n >> 32) as u8 & 15, (n >> 40) as u8],
                client_port: 1024 + (n >> 48) as u16 % 60_000,
                server_port: [80, 443, 53, 22, 8080][(random.next() % 5) as usize],
                udp: random.next().is_multiple_of(5),
                left: 2 + (-random.unit().max(1e-9).ln() * (mean - 2.0)) as u64,
            });
            flows += 1;
        }
        let at = (random.next() % active.len() as u64) as usize;
        let payload = sizes[(random.next() % sizes.len() as u64) as usize];
        let frame = frame(&active[at], random.next().is_multiple_of(2), payload);
        time_us += 1 + random.next() % 60;
        let length = frame.len() as u32;
        let seconds = (time_us / 1_000_000) as u32;
        for field in [seconds, (time_us % 1_000_000) as u32, length, length] {
            out.write_all(&field.to_le_bytes())?;
        }
        out.write_all(&frame)?;
        packets += 1;
        bytes += 16 + u64::from(length);
        active[at].left -= 1;
        if active[at].left == 0 {
            active.swap_remove(at);
        }
    }
    out.flush()?;
    Ok(Made { path, packets, flows, bytes })
}

fn frame(c: &Conversation, forth: bool, payload: usize) -> Vec<u8> {
    let (src, dst, src_port, dst_port) = if forth {
        (c.client, c.server, c.client_port, c.server_port)
    } else {
        (c.server, c.client, c.server_port, c.client_port)
    };
    let header = if c.udp { 8 } else { 20 };
    let total = (20 + header + payload) as u16;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, if c.udp { 17 } else { 6 }, 0, 0]);
    frame.extend(src);
    frame.extend(dst);
    frame.extend(src_port.to_be_bytes());
    frame.extend(dst_port.to_be_bytes());
    if c.udp {
        frame.extend((8 + payload as u16).to_be_bytes());
        frame.extend([0, 0]);
    } else {
        let flags = if payload > 0 { 0x18 } else { 0x10 };
        frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 255, 255, 0, 0, 0, 0]);
    }
    frame.resize(34 + header + payload, b'x');
    frame
}

/// `SplitMix64`: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
