//! Does the meter live, and count right, whatever stands in the packets?
//!
//! Takes conversations out of captures, damages their packets, and gives them to `flowmeter read`
//! twice: with the dissector and without. Every row must be the same but for layer 7. The dissector
//! may crash, which is counted; the meter may not. `cargo xtask mutate` runs it.

use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use flowmeter_tests::captures::Capture;
use serde_json::Value;

/// Packets given to one run of flowmeter.
const ROUND: u64 = 1_000_000;

/// Frames in a row out of one capture, whose hosts get new addresses.
const WINDOW: usize = 200;

/// Larger frames are not worth their time.
const LARGEST: usize = 4096;

/// Columns that do not depend on dissection.
const COLUMNS: &str = "id,src_ip,src_port,dst_ip,dst_port,protocol,ip_version,vlan_id,tunnel_id,\
    bidirectional_packets,bidirectional_bytes,src2dst_packets,src2dst_bytes,dst2src_packets,\
    dst2src_bytes,bidirectional_first_seen_ms,bidirectional_last_seen_ms,flow_end_reason,\
    src2dst_payload_bytes,dst2src_payload_bytes,src2dst_tcp_flags,dst2src_tcp_flags";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = |what| -> Result<u64> {
        let text = args
            .next()
            .with_context(|| format!("usage: mutate PACKETS SEED CAPTURE…: no {what}"))?;
        text.parse().with_context(|| format!("`{text}` is no number"))
    };
    let (packets, seed) = (number("PACKETS")?, number("SEED")?);
    let paths: Vec<PathBuf> = args.map(Into::into).collect();
    let captures: Vec<Vec<Vec<u8>>> = paths
        .iter()
        .filter_map(|path| Capture::read(path).ok())
        .map(|capture| capture.frames.into_iter().filter(|f| f.len() <= LARGEST).collect())
        .filter(|frames: &Vec<_>| !frames.is_empty())
        .collect();
    ensure!(!captures.is_empty(), "there are no Ethernet frames in these captures");
    let since = Instant::now();
    let mut total = Outcome::default();
    for round in 0..packets.div_ceil(ROUND) {
        let seed = seed.wrapping_add(round);
        let outcome = run(&captures, seed).with_context(|| format!("seed {seed}"))?;
        total.add(&outcome);
        println!(
            "{} packets, {} flows, {} dissected, {} refused, {} crashes, {} hangs, {:.0} packets/s",
            total.packets,
            total.flows,
            total.dissected,
            total.refused,
            total.crashes,
            total.hangs,
            total.packets as f64 / since.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    packets: u64,
    flows: u64,
    dissected: u64,
    refused: u64,
    crashes: u64,
    hangs: u64,
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.flows += other.flows;
        self.dissected += other.dissected;
        self.refused += other.refused;
        self.crashes += other.crashes;
        self.hangs += other.hangs;
    }
}

/// Gives the same packets to two meters, and compares their rows.
fn run(captures: &[Vec<Vec<u8>>], seed: u64) -> Result<Outcome> {
    let mut with = start(&["--n-meters=1"])?;
    let mut without = start(&["--n-meters=1", "--n-dissections=0"])?;
    let inputs = [&mut with, &mut without].map(|child| child.stdin.take());
    let outputs = [&mut with, &mut without].map(|child| child.stdout.take());
    let reports = [&mut with, &mut without].map(|child| child.stderr.take());
    thread::scope(|scope| {
        let writers = inputs.map(|input| {
            scope.spawn(move || write(captures, seed, input.context("its input is piped")?))
        });
        let reports = reports.map(|report| {
            scope.spawn(move || -> Result<String> {
                let mut text = String::new();
                report.context("its errors are piped")?.read_to_string(&mut text)?;
                Ok(text)
            })
        });
        let [mut ours, mut theirs] =
            outputs.map(|output| output.map(|o| BufReader::new(o).lines()));
        let (ours, theirs) = (ours.as_mut().context("piped")?, theirs.as_mut().context("piped")?);
        let mut flows = 0;
        loop {
            match (ours.next().transpose()?, theirs.next().transpose()?) {
                (None, None) => break,
                (ours, theirs) => ensure!(
                    ours == theirs,
                    "row {flows} is {ours:?} with the dissector, {theirs:?} without"
                ),
            }
            flows += 1;
        }
        for writer in writers {
            writer.join().ok().context("the writer panicked")??;
        }
        let mut texts = Vec::new();
        for report in reports {
            texts.push(report.join().ok().context("the reader panicked")??);
        }
        for (child, text) in [&mut with, &mut without].into_iter().zip(&texts) {
            let status = child.wait()?;
            ensure!(status.success(), "the meter ended with {status}: {text}");
        }
        let report = texts.iter().map(|text| report(text)).collect::<Result<Vec<_>>>()?;
        let number = |name: &str| report[0][name].as_u64().unwrap_or(0);
        for name in ["packets_processed", "packets_exported", "flows_expired", "balance_error"] {
            ensure!(report[0][name] == report[1][name], "{name}: {} {}", report[0], report[1]);
        }
        ensure!(number("balance_error") == 0 && number("flows_expired") == flows);
        Ok(Outcome {
            packets: number("packets_seen"),
            flows,
            dissected: number("packets_dissected"),
            refused: number("packets_refused"),
            crashes: number("dissector_crashes"),
            hangs: number("dissector_hangs"),
        })
    })
}

fn start(options: &[&str]) -> Result<Child> {
    let here = std::env::current_exe()?;
    let program = here.with_file_name("flowmeter");
    Command::new(&program)
        .args(["read", "-", "--columns", COLUMNS])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to run `{}`", program.display()))
}

/// The balance, which is the last line.
fn report(text: &str) -> Result<Value> {
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("no balance in `{text}`"))
}

/// Writes a round of packets as a capture, the same for the same seed.
fn write(captures: &[Vec<Vec<u8>>], seed: u64, input: ChildStdin) -> Result<()> {
    let mut random = Rng::with_seed(seed);
    let mut out = BufWriter::with_capacity(1 << 18, input);
    let mut written = || -> io::Result<()> {
        for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
            out.write_all(&field.to_le_bytes())?;
        }
        let mut left = ROUND;
        let mut time_us = 0_u64;
        while left > 0 {
            let frames = &captures[random.usize(..captures.len())];
            let first = random.usize(..frames.len());
            let window = &frames[first..frames.len().min(first + WINDOW)];
            // Not much damage, so that it comes late too.
            let damage = random.u32(..8);
            let hosts = random.u16(..);
            for frame in window.iter().take(left as usize) {
                let mut frame = frame.clone();
                move_hosts(&mut frame, hosts);
                if random.u32(..8) < damage {
                    mutate(&mut random, &mut frame, captures);
                }
                time_us += 10;
                left -= 1;
                record(&mut out, time_us, &frame)?;
            }
        }
        out.flush()
    };
    match written() {
        // The meter has ended early, and says why.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn record(out: &mut impl Write, time_us: u64, frame: &[u8]) -> io::Result<()> {
    let seconds = 1_700_000_000 + time_us / 1_000_000;
    let length = frame.len() as u32;
    for field in [seconds as u32, (time_us % 1_000_000) as u32, length, length] {
        out.write_all(&field.to_le_bytes())?;
    }
    out.write_all(frame)
}

/// Where the IP header starts behind an Ethernet header without tags.
const IP: usize = 14;

/// Gives the hosts of an IP packet other addresses, so that its flow is a new one.
fn move_hosts(frame: &mut [u8], by: u16) {
    let addresses = match frame.get(12..15) {
        Some([0x08, 0x00, _]) => [IP + 12, IP + 16],
        Some([0x86, 0xdd, _]) => [IP + 12, IP + 28],
        _ => return,
    };
    for at in addresses {
        if let Some(bytes) = frame.get_mut(at + 1..at + 3) {
            bytes.iter_mut().zip(by.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        }
    }
}

/// Damages a frame in one to four ways.
fn mutate(random: &mut Rng, frame: &mut Vec<u8>, captures: &[Vec<Vec<u8>>]) {
    const NUMBERS: [u16; 12] =
        [0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x4000, 0xff00];
    for _ in 0..=random.u32(..4) {
        if frame.len() <= IP + 28 {
            return;
        }
        // Seldom in the headers: what they make unsound is not dissected.
        let first = if random.u32(..5) == 0 { IP } else { IP + 28 };
        let at = random.usize(first..frame.len());
        match random.u32(..10) {
            0 => frame[at] ^= 1 << random.u32(..8),
            1 => frame[at] = random.u8(..),
            2 => frame[at] = NUMBERS[random.usize(..6)] as u8,
            3 => {
                let number = NUMBERS[random.usize(..NUMBERS.len())].to_be_bytes();
                if let Some(bytes) = frame.get_mut(at..at + 2) {
                    bytes.copy_from_slice(&number);
                }
            }
            4 => frame.truncate(at),
            5 => {
                let more = random.usize(1..64);
                frame.extend((0..more).map(|_| random.u8(..)));
            }
            6 => {
                // A part once more.
                let end = (at + random.usize(1..64)).min(frame.len());
                let part = frame[at..end].to_vec();
                frame.splice(at..at, part);
            }
            7 => {
                // Another packet's payload.
                let others = &captures[random.usize(..captures.len())];
                let other = &others[random.usize(..others.len())];
                if let Some(payload) = other.get(IP + 28..) {
                    frame.truncate(at);
                    frame.extend_from_slice(payload);
                }
            }
            8 => {
                let end = (at + random.usize(1..32)).min(frame.len());
                frame[at..end].fill(0);
            }
            _ => {
                let end = (at + random.usize(1..16)).min(frame.len());
                frame.drain(at..end);
            }
        }
    }
    frame.truncate(LARGEST);
    // Mostly the lengths are made to fit, or nothing of it would be dissected.
    if random.u32(..10) > 0 {
        fit_lengths(frame);
    }
}

/// Makes the lengths in the IP and UDP headers those of the frame.
fn fit_lengths(frame: &mut [u8]) {
    const UDP: u8 = 17;
    let (field, before, protocol, header) = match frame.get(12..IP + 1) {
        Some([0x08, 0x00, version]) => (IP + 2, IP, IP + 9, usize::from(version & 15) * 4),
        Some([0x86, 0xdd, _]) => (IP + 4, IP + 40, IP + 6, 40),
        _ => return,
    };
    let length = frame.len();
    let set = |frame: &mut [u8], at: usize, behind: usize| {
        if let Some(bytes) = frame.get_mut(at..at + 2) {
            bytes.copy_from_slice(&(length.saturating_sub(behind) as u16).to_be_bytes());
        }
    };
    set(frame, field, before);
    if frame.get(protocol) == Some(&UDP) {
        set(frame, IP + header + 4, IP + header);
    }
}
