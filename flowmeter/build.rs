//! Finds the object with the kernel programs, which `cargo xtask ebpf` builds.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=FLOWMETER_BPF_OBJECT");
    let named = env::var_os("FLOWMETER_BPF_OBJECT").map(PathBuf::from);
    let object = named
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/flowmeter.o"));
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("flowmeter.o");
    let bytes = fs::read(&object).unwrap_or_else(|e| {
        println!(
            "cargo::warning=`{}`: {e}; `flowmeter live` will not work; run `cargo xtask ebpf`",
            object.display()
        );
        Vec::new()
    });
    if let Err(e) = fs::write(&out, bytes) {
        println!("cargo::error=failed to write `{}`: {e}", out.display());
    }
}
