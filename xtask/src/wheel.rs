//! How does the Python package become a wheel?

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::say_and_run;
use crate::run::target_dir;
use crate::setup::{self, Purpose};
use crate::{ebpf, python, root};

/// Sets up, builds it, and gives its path. It is for this kind of machine: nDPI and libpcap are those
/// that are installed.
pub fn wheel() -> Result<PathBuf> {
    let toolchain = setup::setup(Purpose::Test)?;
    let object = ebpf::build(&toolchain)?;
    let folder = target_dir().join("wheels");
    // Those of other versions are not to be taken for it.
    let _ = std::fs::remove_dir_all(&folder);
    let mut maturin = Command::new(python::program());
    maturin.args(["-m", "maturin", "build", "--release", "--compatibility", "linux", "--quiet"]);
    maturin.arg("--out").arg(&folder).arg("--interpreter").arg(python::program());
    maturin.current_dir(root().join("python")).env("FLOWMETER_BPF_OBJECT", object);
    say_and_run(&mut maturin)?;
    let mut made = std::fs::read_dir(&folder)?;
    Ok(made.next().context("maturin has made no wheel")??.path())
}
