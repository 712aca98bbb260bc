//! Which compiler builds the kernel programs?
//!
//! Either rustup's nightly with the source of `core`, or a rustc whose sysroot has a `core` for
//! BPF (Debian's `rustc-web`). The linker must be built for the same LLVM.

use std::path::Path;
use std::process::Command;

use crate::command::{find, output};

/// A compiler for BPF.
pub struct Toolchain {
    /// What it is, to tell the user.
    pub name: String,
    /// Major version of its LLVM.
    pub llvm: u32,
    kind: Kind,
}

enum Kind {
    /// rustup's nightly builds `core` itself.
    Nightly,
    /// This rustc has `core` for BPF.
    Prebuilt(String),
}

/// The target that kernel programs are built for.
pub const TARGET: &str = "bpfel-unknown-none";

/// What links them. It must know the LLVM of the compiler.
pub const LINKER: &str = "bpf-linker";

/// What to do if there is none.
pub const ADVICE: &str = "no Rust compiler for BPF was found; install one of:
  rustup toolchain install nightly --component rust-src
  apt-get install rustc-web libstd-rust-web-dev-bpf   (Debian)";

/// The toolchains that serve, the preferred one first.
pub fn find_all() -> Vec<Toolchain> {
    let prebuilt = ["rustc-web", "/usr/bin/rustc", "rustc"].into_iter().find_map(prebuilt);
    nightly().into_iter().chain(prebuilt).collect()
}

fn nightly() -> Option<Toolchain> {
    // Looking must not install one.
    let ask = |args: &[&str]| {
        let mut rustc = Command::new("rustc");
        rustc.arg("+nightly").env("RUSTUP_AUTO_INSTALL", "0");
        output(rustc.args(args))
    };
    let sysroot = ask(&["--print", "sysroot"])?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    if !source.is_dir() {
        return None;
    }
    Some(Toolchain {
        name: "rustup's nightly".into(),
        llvm: llvm(&ask(&["-vV"])?)?,
        kind: Kind::Nightly,
    })
}

fn prebuilt(rustc: &str) -> Option<Toolchain> {
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]))?;
    let core = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET);
    if !core.is_dir() {
        return None;
    }
    Some(Toolchain {
        name: format!("`{rustc}`"),
        llvm: llvm(&output(Command::new(rustc).arg("-vV"))?)?,
        kind: Kind::Prebuilt(rustc.into()),
    })
}

fn llvm(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

impl Toolchain {
    /// A subcommand of cargo for BPF with this toolchain.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new("cargo");
        // An outer cargo's toolchain would win over the one named here.
        for name in ["RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CARGO_ENCODED_RUSTFLAGS"] {
            command.env_remove(name);
        }
        match &self.kind {
            Kind::Nightly => {
                command.args(["+nightly", subcommand, "-Z", "build-std=core"]);
            }
            Kind::Prebuilt(rustc) => {
                command.arg(subcommand).env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            }
        }
        command.args(["--target", TARGET]).env("RUSTFLAGS", self.flags()).env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
            find(LINKER).unwrap_or_else(|| LINKER.into()),
        );
        command
    }

    /// BTF for the spin lock and the global functions, CPU v3 for 32-bit instructions. Structs are
    /// copied by loads and stores, not by a byte-wise memcpy.
    fn flags(&self) -> String {
        let arch = std::env::consts::ARCH;
        let mut flags = format!(
            "--cfg=bpf_target_arch=\"{arch}\" -Cdebuginfo=2 -Clink-arg=--btf \
             -Clink-arg=--disable-expand-memcpy-in-order -Clink-arg=-O3 \
             -Ctarget-cpu=v3"
        );
        // The kernel allows it wherever the CPU does; older LLVMs load byte by byte instead.
        if self.llvm >= 22 && matches!(arch, "x86_64" | "aarch64") {
            flags.push_str(" -Ctarget-feature=+allows-misaligned-mem-access");
        }
        flags
    }
}
