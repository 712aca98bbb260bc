//! Does any input make the readers fail?
//!
//! Runs the targets in `fuzz/` with cargo-fuzz, on corpora seeded from a folder of captures. A
//! finding becomes a file in `fuzz/regressions`, with a name that says what it is, before the mend.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{find, output, say_and_run};
use crate::root;

/// The targets.
const TARGETS: [&str; 4] = ["capture", "parse", "engine", "plugins"];

/// Larger captures make poor seeds: one input is one run.
const LARGEST_SEED: u64 = 64 * 1024;

/// Frames of a capture that become seeds of the parser, and of plugins.
const FRAMES: usize = 8;

/// Bytes before an Ethernet frame's packet.
const ETHERNET: usize = 14;

/// Link types by their numbers in the parser's target.
const LINKS: [u32; 16] = [1, 0, 9, 12, 14, 50, 101, 104, 105, 108, 113, 127, 228, 229, 276, 147];

/// Fuzzes one target or all, this many minutes each.
pub fn fuzz(target: Option<&str>, minutes: u64, captures: Option<PathBuf>) -> Result<()> {
    if let Some(name) = target
        && !TARGETS.contains(&name)
    {
        bail!("no target is named `{name}`; there are {}", TARGETS.join(", "));
    }
    if find("cargo-fuzz").is_none() {
        say_and_run(Command::new("cargo").args(["install", "cargo-fuzz", "--locked"]))?;
    }
    let beside = root().join("../shared/conformance");
    seed(&root().join("tests/captures/plugins"))?;
    if let Some(folder) = captures.or_else(|| beside.is_dir().then_some(beside)) {
        seed(&folder)?;
    }
    for name in TARGETS.into_iter().filter(|name| target.is_none_or(|target| target == *name)) {
        let mut command = Command::new("cargo");
        command.args(["fuzz", "run", name, "--"]).args([
            &format!("-max_total_time={}", minutes * 60),
            "-max_len=65536",
            "-timeout=20",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ]);
        // Sanitizers and coverage are not stable, but the stable compiler has them.
        let is_nightly = output(Command::new("rustc").arg("--version"))
            .is_some_and(|version| version.contains("nightly"));
        if !is_nightly {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        say_and_run(command.current_dir(root()))?;
    }
    Ok(())
}

/// Makes seeds of all captures below a folder.
fn seed(folder: &Path) -> Result<()> {
    let corpus = root().join("fuzz/corpus");
    for target in TARGETS {
        std::fs::create_dir_all(corpus.join(target)).context("failed to make the corpus")?;
    }
    let mut number: usize = 0;
    for file in ["pcaps", "quirks", "."].iter().flat_map(|below| files(&folder.join(below))) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_capture = [".pcap", ".pcapng", ".cap"].iter().any(|end| name.ends_with(end));
        let is_small = file.metadata().is_ok_and(|meta| meta.len() <= LARGEST_SEED);
        if !is_capture || !is_small {
            continue;
        }
        let bytes = std::fs::read(&file)?;
        std::fs::write(corpus.join("capture").join(&name), &bytes)?;
        number += 1;
        let with_choice = [&[(number * 37) as u8][..], &bytes].concat();
        std::fs::write(corpus.join("engine").join(&name), with_choice)?;
        let for_plugins = [&[number as u8 & 0x7f][..], &bytes].concat();
        std::fs::write(corpus.join("plugins").join(&name), for_plugins)?;
        for (i, frame) in frames(&bytes).into_iter().take(FRAMES).enumerate() {
            let packet = frame.get(2 + ETHERNET..).unwrap_or_default();
            let name = format!("{name}-{i}");
            std::fs::write(corpus.join("plugins").join(&name), [&[0x80][..], packet].concat())?;
            std::fs::write(corpus.join("parse").join(name), frame)?;
        }
    }
    eprintln!("xtask: {number} captures are seeds");
    Ok(())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// The frames of a classic pcap in this machine's byte order, as seeds of the parser: link type,
/// options, frame.
fn frames(file: &[u8]) -> Vec<Vec<u8>> {
    let word = |at: usize| file.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b));
    let mut frames = Vec::new();
    if !matches!(word(0), Some(0xa1b2_c3d4 | 0xa1b2_3c4d)) {
        return frames;
    }
    let link = LINKS.iter().position(|link| word(20) == Some(*link)).unwrap_or(0) as u8;
    let mut at = 24;
    while let Some(length) = word(at + 8) {
        let Some(frame) = file.get(at + 16..at + 16 + length as usize) else { break };
        frames.push([&[link, 1][..], frame].concat());
        at += 16 + length as usize;
    }
    frames
}
