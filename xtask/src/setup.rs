//! What must be on the machine?

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{exists, output, privileged, say_and_run};
use crate::toolchain::{self, ADVICE, Toolchain};

/// Debian's packages for building and running.
const PACKAGES: &[&str] = &["build-essential", "pkg-config", "libndpi-dev", "zlib1g-dev"];

/// Debian's packages that the tests run: real servers, clients and references.
const TEST_PACKAGES: &[&str] = &[
    "iproute2",
    "iputils-ping",
    "iperf3",
    "tshark",
    "tcpdump",
    "ethtool",
    "openssl",
    "curl",
    "nginx-light",
    "dnsmasq-base",
    "dnsutils",
    "socat",
    "procps",
];

/// Installs what is missing, saying so, and gives the toolchain for the kernel programs.
pub fn setup(tests: bool) -> Result<Toolchain> {
    packages(PACKAGES)?;
    if tests {
        packages(TEST_PACKAGES)?;
    }
    if toolchain::find().is_none() {
        eprintln!("xtask: no Rust compiler for BPF; trying Debian's");
        install(&["rustc-web".into(), "libstd-rust-web-dev-bpf".into()])
            .with_context(|| ADVICE.to_owned())?;
    }
    let toolchain = toolchain::find().with_context(|| ADVICE.to_owned())?;
    linker(&toolchain)?;
    Ok(toolchain)
}

/// Installs those packages that are not there.
fn packages(names: &[&str]) -> Result<()> {
    if !exists("dpkg-query") {
        eprintln!("xtask: not a Debian; make sure of {}", names.join(", "));
        return Ok(());
    }
    let missing: Vec<String> =
        names.iter().filter(|name| !is_installed(name)).map(ToString::to_string).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn is_installed(package: &str) -> bool {
    output("dpkg-query", &["-W", "-f=${Status}", package])
        .is_some_and(|status| status.ends_with("ok installed"))
}

fn install(packages: &[String]) -> Result<()> {
    if !exists("apt-get") {
        bail!("install {} with your package manager", packages.join(", "));
    }
    say_and_run(privileged("apt-get").args(["update", "-q"]))?;
    let mut command = privileged("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y"]);
    say_and_run(command.arg("--no-install-recommends").args(packages))
}

/// Installs bpf-linker for the toolchain's LLVM. Which one it was built for is noted beside it,
/// since it does not say.
fn linker(toolchain: &Toolchain) -> Result<()> {
    let llvm = toolchain.llvm;
    let stamp = crate::root().join("target/bpf-linker.llvm");
    let noted = std::fs::read_to_string(&stamp).ok();
    if output("bpf-linker", &["--version"]).is_some() {
        match noted.as_deref().map(str::trim) {
            Some(version) if version == llvm.to_string() => return Ok(()),
            // One that was here before us: the build will tell if it does not fit.
            None => return Ok(()),
            Some(_) => {}
        }
    }
    let config = format!("llvm-config-{llvm}");
    if !exists(&config) {
        install(&[format!("llvm-{llvm}-dev")]).with_context(|| {
            format!("bpf-linker needs LLVM {llvm}, which {} uses", toolchain.name)
        })?;
    }
    let prefix = output(&config, &["--prefix"]).unwrap_or_default();
    let mut command = Command::new("cargo");
    command.args(["install", "bpf-linker", "--locked", "--force", "--no-default-features"]);
    command.args(["--features", &format!("llvm-{llvm}")]).env("LLVM_PREFIX", prefix.trim());
    say_and_run(&mut command)?;
    std::fs::create_dir_all(crate::root().join("target"))?;
    std::fs::write(&stamp, llvm.to_string()).context("failed to note bpf-linker's LLVM")
}
