//! Which Python have the tests?
//!
//! One of their own below the target folder, with what `tests/python/requirements.txt` names.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::say_and_run;
use crate::root;
use crate::run::target_dir;

fn folder() -> PathBuf {
    target_dir().join("python")
}

/// The interpreter.
pub fn program() -> PathBuf {
    folder().join("bin/python")
}

fn requirements() -> PathBuf {
    root().join("tests/python/requirements.txt")
}

/// What was required when it was installed.
fn installed() -> PathBuf {
    folder().join("requirements.txt")
}

/// Whether it is there, with what is required now.
pub fn is_ready() -> bool {
    let read = |path| fs::read_to_string(path).ok();
    program().exists() && read(installed()).is_some_and(|old| Some(old) == read(requirements()))
}

/// Makes it anew.
pub fn install() -> Result<()> {
    say_and_run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder()))?;
    let mut pip = Command::new(program());
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    say_and_run(pip.arg(requirements()))?;
    fs::copy(requirements(), installed()).context("failed to note what was installed")?;
    Ok(())
}
