//! What must hold before a change lands?

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{is_root, say_and_run};
use crate::run::target_dir;
use crate::setup::Purpose;
use crate::sum::Sum;
use crate::vm::{self, kernels};
use crate::{Committed, api, ebpf, python, root, setup, tidy, verify};

/// Runs every check and test, also after one that failed: who changed something wants to know all.
pub fn test(conformance: Option<PathBuf>) -> Result<()> {
    let toolchain = setup::setup(Purpose::Test)?;
    let object = ebpf::build(&toolchain)?;
    let cargo = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(args).current_dir(root()).env("FLOWMETER_BPF_OBJECT", &object);
        command
    };
    let mut tests = cargo(&["test", "--workspace", "--no-fail-fast"]);
    if is_root() {
        tests.env("FLOWMETER_REQUIRE_ROOT", "1");
    }
    let beside = root().join("../shared/conformance");
    if let Some(folder) = conformance.or_else(|| beside.is_dir().then_some(beside)) {
        let folder =
            folder.canonicalize().with_context(|| format!("no folder `{}`", folder.display()))?;
        tests.env("FLOWMETER_CONFORMANCE", folder);
    }

    tests.env("FLOWMETER_NFSTREAM", python::program());

    let mut failed = Vec::new();
    let mut check = |name: &'static str, result: Result<()>| {
        if let Err(e) = result {
            eprintln!("xtask: {name}: {e:#}");
            failed.push(name);
        }
    };
    check("format", say_and_run(&mut cargo(&["fmt", "--all", "--check"])));
    check(
        "format of the kernel half",
        say_and_run(cargo(&["fmt", "--check"]).current_dir(root().join("flowmeter-ebpf"))),
    );
    check("tidy", tidy::tidy());
    check("the library's API", api::api(Committed::Compare));
    let mut clippy = cargo(&["clippy", "--workspace", "--all-targets", "--quiet"]);
    check("clippy", say_and_run(clippy.args(["--", "--deny", "warnings"])));
    let mut pages = cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
    check("documentation", say_and_run(pages.env("RUSTDOCFLAGS", "--deny warnings")));
    check("warnings in the kernel half", ebpf::deny_warnings(&toolchain));
    let mut without_ndpi =
        cargo(&["clippy", "--package", "flowmeter", "--package", "flowmeter-cli"]);
    without_ndpi.args(["--no-default-features", "--all-targets", "--quiet"]);
    without_ndpi.args(["--", "--deny", "warnings"]);
    check("build without nDPI", say_and_run(&mut without_ndpi));
    let mut without_ndpi = cargo(&["test", "--package", "flowmeter", "--no-default-features"]);
    without_ndpi.args(["--quiet", "--lib", "dissect::"]);
    check("dissection without nDPI", say_and_run(&mut without_ndpi));
    // Nobody builds them otherwise until something is to be found.
    let mut fuzz = cargo(&["check", "--quiet", "--manifest-path", "fuzz/Cargo.toml"]);
    check("fuzz targets", say_and_run(fuzz.env("CARGO_TARGET_DIR", target_dir().join("fuzz"))));
    if is_root() {
        check("verify", verify::verify(Committed::Compare));
    } else {
        eprintln!("xtask: verify is left out: loading kernel programs needs root");
    }
    // Tests in other crates run the program.
    check("build", say_and_run(&mut cargo(&["build", "--workspace", "--quiet"])));
    let mut sum = Sum::default();
    check("tests", run_tests(tests, &mut sum));
    // They need no root, but take long.
    if is_root() || is_set("CI") {
        check("other kernels", other_kernels(&mut sum));
    } else {
        eprintln!(
            "xtask: other kernels are left out: that takes long; `cargo xtask vm` tries them"
        );
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Whether an environment variable is set to something but 0.
fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}

/// Runs tests in virtual machines with those kernels that every change is tried on.
fn other_kernels(sum: &mut Sum) -> Result<()> {
    let must = is_set("CI") || is_set("FLOWMETER_REQUIRE_ROOT");
    let missing = if must { vm::Missing::Fail } else { vm::Missing::Report };
    let kernels = kernels::named(&kernels::ALWAYS)?;
    let (others, verdict) = vm::run(&kernels, Committed::Compare, missing, "")?;
    sum.include(&others);
    verdict
}

/// Runs cargo's tests and adds up what they report.
fn run_tests(mut command: Command, sum: &mut Sum) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("failed to run cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("failed to read cargo's output")?;
        // What a test prints need not be UTF-8.
        let line = String::from_utf8_lossy(&line);
        sum.add(&line);
        writeln!(std::io::stdout(), "{line}")?;
    }
    let status = child.wait()?;
    sum.end();
    sum.verdict(status.success())
}
