//! What the tests of flowmeter have in common.

pub mod captures;
pub mod configurations;
pub mod hello;
pub mod host;
pub mod kernel;
pub mod meter;
pub mod ndpi;
pub mod netns;
pub mod nfstream;
pub mod packets;
pub mod piped;
pub mod root;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// A program of this workspace, as `cargo build` leaves it beside the tests.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("a test has a path")?;
    let program = test.parent().and_then(|deps| deps.parent()).map(|dir| dir.join(name));
    let program = program.context("the test is not where cargo puts it")?;
    ensure!(
        program.is_file(),
        "no `{}`; run `cargo build --workspace`, or the tests by `cargo xtask test`",
        program.display()
    );
    Ok(program)
}
