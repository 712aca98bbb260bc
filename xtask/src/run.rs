//! How is flowmeter run from the source tree?

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{privileged, run as run_command};
use crate::setup::Purpose;
use crate::{ebpf, root, setup};

/// How the host half is built.
#[derive(Clone, Copy)]
pub enum Profile {
    Debug,
    Release,
}

/// Sets up and builds flowmeter; returns the program.
pub fn build(profile: Profile) -> Result<PathBuf> {
    let toolchain = setup::setup(Purpose::Run)?;
    let object = ebpf::build(&toolchain)?;
    let mut build = Command::new("cargo");
    build.args(["build", "--package", "flowmeter-cli"]);
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => {
            build.arg("--release");
            "release"
        }
    };
    run_command(build.current_dir(root()).env("FLOWMETER_BPF_OBJECT", &object))?;
    Ok(target_dir().join(folder).join("flowmeter"))
}

/// Sets up, builds, and becomes flowmeter.
pub fn run(profile: Profile, args: &[String]) -> Result<()> {
    let binary = build(profile)?;
    let needs_root = args.first().is_some_and(|command| command == "live");
    let program = binary.to_string_lossy();
    let mut command =
        if needs_root { privileged(&program)? } else { Command::new(program.as_ref()) };
    // Only returns if it fails.
    let error = command.args(args).exec();
    bail!("failed to run `{program}`: {error}")
}

/// Where cargo builds the workspace.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}
