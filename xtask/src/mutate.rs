//! Does the meter live through packets of which none is as it was?
//!
//! `tests/src/bin/mutate.rs` makes the packets, and compares what becomes of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{run, say_and_run};
use crate::root;
use crate::run::target_dir;

/// Runs it on the captures of a folder.
pub fn mutate(millions: u64, seed: u64, captures: &Path) -> Result<()> {
    let mut build = Command::new("cargo");
    build.args([
        "build",
        "--release",
        "--package",
        "flowmeter-cli",
        "--package",
        "flowmeter-tests",
    ]);
    say_and_run(build.current_dir(root()))?;
    let list = || format!("failed to list `{}`", captures.display());
    let entries = std::fs::read_dir(captures).with_context(list)?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()
        .with_context(list)?;
    paths.sort();
    let packets = millions * 1_000_000;
    let mut command = Command::new(target_dir().join("release/mutate"));
    run(command.args([packets.to_string(), seed.to_string()]).args(paths))
}
