//! How are the kernel programs built?

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{run, say_and_run};
use crate::root;
use crate::toolchain::{TARGET, Toolchain};

/// Where the object with the programs is.
pub fn object() -> PathBuf {
    root().join("target/bpf/flowmeter.o")
}

/// Builds the programs. Returns where they are.
pub fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let mut command = cargo(toolchain, "build");
    run(command.args(["--release", "--quiet"])).with_context(|| {
        format!(
            "failed to build the kernel programs with {}; if the linker cannot read its input, \
             it was built for another LLVM than {}",
            toolchain.name, toolchain.llvm
        )
    })?;
    let built = target_dir().join(TARGET).join("release/flowmeter");
    // Only if it changed: what embeds it is built anew by its time.
    let bytes = std::fs::read(&built).with_context(|| format!("no `{}`", built.display()))?;
    if std::fs::read(object()).ok().as_deref() != Some(&bytes) {
        std::fs::write(object(), bytes).context("failed to write the object")?;
    }
    Ok(object())
}

/// Fails if the compiler warns of the programs. This generates no code, and leaves alone what
/// [`build`] has built: a flag for the whole build would have all of it built anew.
pub fn deny_warnings(toolchain: &Toolchain) -> Result<()> {
    let mut command = cargo(toolchain, "rustc");
    command.args(["--profile", "check", "--bin", "flowmeter", "--quiet"]);
    say_and_run(command.args(["--", "-Dwarnings"]))
}

fn cargo(toolchain: &Toolchain, subcommand: &str) -> Command {
    let mut command = toolchain.cargo(subcommand);
    command.current_dir(root().join("flowmeter-ebpf")).arg("--target-dir").arg(target_dir());
    command
}

fn target_dir() -> PathBuf {
    root().join("target/bpf")
}
