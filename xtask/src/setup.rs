//! What must be on the machine?

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{find, output, privileged, say_and_run};
use crate::python;
use crate::toolchain::{self, ADVICE, LINKER, Toolchain};

/// Debian's packages for building and running.
const RUN_PACKAGES: &[&str] =
    &["build-essential", "pkg-config", "libndpi-dev", "libpcap-dev", "zlib1g-dev"];

/// Debian's packages that the tests run: real servers, clients and references.
const TEST_PACKAGES: &[&str] = &[
    "iproute2",
    "iputils-ping",
    "iperf3",
    "tshark",
    "tcpdump",
    "tcpreplay",
    "ethtool",
    "openssl",
    "curl",
    "nginx-light",
    "dnsmasq-base",
    "bind9-dnsutils",
    "socat",
    "procps",
    "python3-venv",
    "prometheus",
    // Other kernels.
    "qemu-system-x86",
    "busybox-static",
    "cpio",
    "xz-utils",
];

/// Packages that start a service when they are installed.
const SERVICES: [(&str, &str); 2] = [("nginx-light", "nginx"), ("prometheus", "prometheus")];

/// Parts of the Rust toolchain that the checks use: cargo's name, rustup's and Debian's.
const COMPONENTS: &[(&str, &str, &str)] =
    &[("fmt", "rustfmt", "rustfmt-web"), ("clippy", "clippy", "rust-web-clippy")];

/// A compiler for BPF in Debian.
const COMPILER_PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];

/// What the machine is to be ready for.
#[derive(Clone, Copy, PartialEq)]
pub enum Purpose {
    /// Building and running.
    Run,
    /// The checks and tests too.
    Test,
}

/// Something that is missing.
#[derive(PartialEq)]
enum Need {
    Packages(Vec<&'static str>),
    /// A part of the Rust toolchain, by rustup's and Debian's name.
    Component(&'static str, &'static str),
    Compiler,
    /// A Python of the tests' own, with NFStream.
    Python,
    /// The linker for that compiler.
    Linker {
        compiler: String,
        llvm: u32,
    },
}

/// Installs what is missing, saying so, and gives the toolchain for the kernel programs.
pub fn setup(purpose: Purpose) -> Result<Toolchain> {
    let mut apt = Apt::default();
    let mut before = Vec::new();
    loop {
        // What was installed may need more: a compiler its linker.
        let (needs, toolchain) = look(purpose);
        if let Some(toolchain) = toolchain.filter(|_| needs.is_empty()) {
            return Ok(toolchain);
        }
        if needs == before {
            let needs: Vec<String> = needs.iter().map(Need::to_string).collect();
            bail!("still missing after installing: {}", needs.join("; "));
        }
        for need in &needs {
            eprintln!("xtask: missing: {need}");
            need.install(&mut apt)?;
        }
        before = needs;
    }
}

/// Says what is missing and installs nothing. Fails if something is.
pub fn check(purpose: Purpose) -> Result<()> {
    let (needs, toolchain) = look(purpose);
    for need in &needs {
        println!("missing: {need}");
    }
    if let Some(Toolchain { name, llvm, .. }) = toolchain {
        println!("compiler for BPF: {name}, LLVM {llvm}");
    }
    if !needs.is_empty() {
        bail!("`cargo xtask setup` installs what is missing");
    }
    Ok(())
}

/// What is missing, and the toolchain for the kernel programs if there is one.
fn look(purpose: Purpose) -> (Vec<Need>, Option<Toolchain>) {
    let mut names = RUN_PACKAGES.to_vec();
    let mut needs = Vec::new();
    if purpose == Purpose::Test {
        names.extend(TEST_PACKAGES);
        for (subcommand, rustup, debian) in COMPONENTS {
            if output(Command::new("cargo").args([subcommand, "--version"])).is_none() {
                needs.push(Need::Component(rustup, debian));
            }
        }
    }
    let has_python = python::is_ready();
    if purpose == Purpose::Test && !has_python {
        needs.push(Need::Python);
    }
    let packages = missing_packages(&names);
    if !packages.is_empty() {
        // They come first: the others may need them.
        needs.insert(0, Need::Packages(packages));
    }
    let linker = Linker::find();
    let mut toolchains = toolchain::find_all();
    // One that the linker suits saves building another.
    let suited = toolchains.iter().position(|toolchain| linker.suits(toolchain.llvm));
    if toolchains.is_empty() {
        needs.push(Need::Compiler);
        return (needs, None);
    }
    let toolchain = toolchains.swap_remove(suited.unwrap_or(0));
    if suited.is_none() {
        needs.push(Need::Linker { compiler: toolchain.name.clone(), llvm: toolchain.llvm });
    }
    (needs, Some(toolchain))
}

impl Need {
    fn install(&self, apt: &mut Apt) -> Result<()> {
        match self {
            Self::Packages(names) => apt.install(names),
            Self::Component(rustup, _) if has_rustup() => {
                say_and_run(Command::new("rustup").args(["component", "add", rustup]))
            }
            Self::Component(_, debian) => apt.install(&[debian]),
            Self::Python => python::install(),
            Self::Compiler => apt.install(COMPILER_PACKAGES).context(ADVICE),
            Self::Linker { llvm, .. } => {
                install_linker(*llvm, apt).with_context(|| self.to_string())
            }
        }
    }
}

/// Whether rustup has charge of the cargo that is on the path, as far as one can tell.
fn has_rustup() -> bool {
    output(Command::new("rustup").arg("--version")).is_some()
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages(names) => write!(f, "packages {}", names.join(" ")),
            Self::Component(name, _) => write!(f, "Rust component {name}"),
            Self::Python => f.write_str("NFStream, which the tests compare with"),
            Self::Compiler => f.write_str(ADVICE),
            Self::Linker { compiler, llvm } => {
                write!(f, "{LINKER} built for LLVM {llvm}, which {compiler} uses")
            }
        }
    }
}

/// Those packages that are not installed; none where there are no Debian packages.
fn missing_packages(names: &[&'static str]) -> Vec<&'static str> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f=${Package} ${Status}\n"]).args(names);
    // It fails if it does not know one of them, and prints the others.
    let Ok(output) = query.stderr(Stdio::null()).output() else {
        eprintln!("xtask: not a Debian; make sure of {}", names.join(", "));
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let installed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, status)| status.ends_with("ok installed"))
        .map(|(name, _)| name)
        .collect();
    let mut missing = names.to_vec();
    missing.retain(|name| !installed.contains(name));
    missing
}

/// Debian's packages, whose lists are fetched once a run.
#[derive(Default)]
struct Apt {
    is_updated: bool,
}

impl Apt {
    fn install(&mut self, packages: &[&str]) -> Result<()> {
        if find("apt-get").is_none() {
            bail!("install {} with your package manager", packages.join(", "));
        }
        if !self.is_updated {
            say_and_run(privileged("apt-get")?.args(["update", "-q"]))?;
            self.is_updated = true;
        }
        // Not by this process' environment: sudo may drop it.
        let mut command = privileged("env")?;
        command.arg("DEBIAN_FRONTEND=noninteractive");
        command.args(["apt-get", "install", "-q", "-y", "--no-install-recommends"]);
        say_and_run(command.args(packages))?;
        // The tests run the programs by themselves; what was not there before is not to listen now.
        let services = SERVICES.iter().filter(|(package, _)| packages.contains(package));
        for (_, service) in services.filter(|_| Path::new("/run/systemd/system").is_dir()) {
            say_and_run(privileged("systemctl")?.args(["disable", "--now", service]))?;
        }
        Ok(())
    }
}

/// The linker that is there.
#[derive(Debug, PartialEq)]
enum Linker {
    Missing,
    /// One that has its LLVM inside: it does not say which.
    Static,
    /// One that loads this major version of LLVM.
    Llvm(u32),
}

impl Linker {
    fn find() -> Self {
        let Some(path) = find(LINKER) else {
            return Self::Missing;
        };
        // Its LLVM may have been removed since.
        if output(Command::new(&path).arg("--version")).is_none() {
            return Self::Missing;
        }
        let libraries = output(Command::new("ldd").arg(&path)).unwrap_or_default();
        loaded_llvm(&libraries).map_or(Self::Static, Self::Llvm)
    }

    /// Whether it reads what a compiler with this LLVM writes: LLVM reads its older versions. One
    /// that has LLVM inside is taken at its word; the build tells if it does not fit.
    fn suits(&self, llvm: u32) -> bool {
        match self {
            Self::Missing => false,
            Self::Static => true,
            Self::Llvm(own) => *own >= llvm,
        }
    }
}

/// The major version in `libLLVM.so.22.1` or, before LLVM 18, `libLLVM-17.so.1`.
fn loaded_llvm(libraries: &str) -> Option<u32> {
    let (_, name) = libraries.split_once("libLLVM")?;
    let version = name.trim_start_matches(".so.").trim_start_matches('-');
    let end = version.find(|c: char| !c.is_ascii_digit())?;
    version.get(..end)?.parse().ok()
}

fn install_linker(llvm: u32, apt: &mut Apt) -> Result<()> {
    let config = format!("llvm-config-{llvm}");
    if find(&config).is_none() {
        apt.install(&[&format!("llvm-{llvm}-dev")])
            .with_context(|| format!("no LLVM {llvm} here; https://apt.llvm.org may have it"))?;
    }
    let prefix = output(Command::new(&config).arg("--prefix"))
        .with_context(|| format!("failed to run `{config}`"))?;
    let mut command = Command::new("cargo");
    command.args(["install", LINKER, "--locked", "--force"]);
    command.args(["--no-default-features", "--features"]);
    command.arg(format!("llvm-{llvm}")).env("LLVM_PREFIX", prefix.trim());
    say_and_run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::{Linker, loaded_llvm};

    #[test]
    fn a_linker_reads_its_own_llvm_and_older_ones() {
        assert!(Linker::Llvm(22).suits(22));
        assert!(Linker::Llvm(23).suits(22));
        assert!(!Linker::Llvm(21).suits(22));
        assert!(!Linker::Missing.suits(22));
    }

    #[test]
    fn the_loaded_llvm_is_in_the_librarys_name() {
        let new = "\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x00007f)\n";
        let old = "\tlibLLVM-17.so.1 => /lib/libLLVM-17.so.1 (0x00007f)\n";
        assert_eq!(loaded_llvm(new), Some(22));
        assert_eq!(loaded_llvm(old), Some(17));
        assert_eq!(loaded_llvm("\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n"), None);
    }
}
