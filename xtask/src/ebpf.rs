//! How are the kernel programs built?

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::command::run;
use crate::root;
use crate::toolchain::{TARGET, Toolchain};

/// Where the object with the programs is.
pub fn object() -> PathBuf {
    root().join("target/bpf/flowmeter.o")
}

/// Builds the programs. Returns where they are.
pub fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let target = root().join("target/bpf");
    let mut command = toolchain.cargo();
    command.current_dir(root().join("flowmeter-ebpf")).arg("--quiet");
    run(command.arg("--target-dir").arg(&target))
        .with_context(|| format!("failed to build the kernel programs with {}", toolchain.name))?;
    let built = target.join(TARGET).join("release/flowmeter");
    // Only if it changed: what embeds it is built anew by its time.
    let bytes = std::fs::read(&built).with_context(|| format!("no `{}`", built.display()))?;
    if std::fs::read(object()).ok().as_deref() != Some(&bytes) {
        std::fs::write(object(), bytes).context("failed to write the object")?;
    }
    Ok(object())
}
