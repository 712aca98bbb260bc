//! How is flowmeter run from the source tree?

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{privileged, run as run_command};
use crate::{ebpf, root, setup};

/// Sets up, builds, and becomes flowmeter.
pub fn run(args: &[String]) -> Result<()> {
    let toolchain = setup::setup(false)?;
    let object = ebpf::build(&toolchain)?;
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--package", "flowmeter"]);
    run_command(build.current_dir(root()).env("FLOWMETER_BPF_OBJECT", &object))?;
    let binary = root().join("target/release/flowmeter");
    let needs_root = args.first().is_some_and(|command| command == "live");
    let program = binary.to_string_lossy();
    let mut command =
        if needs_root { privileged(&program) } else { Command::new(program.as_ref()) };
    // Only returns if it fails.
    let error = command.args(args).exec();
    bail!("failed to run `{program}`: {error}")
}
