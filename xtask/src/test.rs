//! What must hold before a change lands?

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{is_root, say_and_run};
use crate::{ebpf, root, setup, tidy, verify};

/// Runs every check and test.
pub fn test(conformance: Option<PathBuf>) -> Result<()> {
    let toolchain = setup::setup(true)?;
    let object = ebpf::build(&toolchain)?;
    let cargo = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(args).current_dir(root()).env("FLOWMETER_BPF_OBJECT", &object);
        command
    };
    say_and_run(&mut cargo(&["fmt", "--all", "--check"]))?;
    say_and_run(cargo(&["fmt", "--check"]).current_dir(root().join("flowmeter-ebpf")))?;
    tidy::tidy()?;
    say_and_run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))?;
    say_and_run(&mut cargo(&[
        "check",
        "--package",
        "flowmeter",
        "--no-default-features",
        "--quiet",
    ]))?;
    verify::verify(false)?;

    say_and_run(&mut cargo(&["build", "--workspace", "--quiet"]))?;
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
    run_tests(tests)
}

/// Runs cargo's tests and adds up what they report. A test that was left out is a failure.
fn run_tests(mut command: Command) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("failed to run cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut sum = Sum::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("failed to read cargo's output")?;
        sum.add(&line);
        writeln!(std::io::stdout(), "{line}")?;
    }
    let status = child.wait()?;
    println!("{} passed, {} failed", sum.passed, sum.failed);
    if !status.success() || sum.failed > 0 {
        bail!("tests failed");
    }
    if sum.ignored > 0 {
        bail!("{} tests are ignored; run them or take them out", sum.ignored);
    }
    if sum.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

#[derive(Default)]
struct Sum {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Sum {
    /// Adds a line like `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            let mut words = part.split(' ');
            let number = words.next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                _ => {}
            }
        }
    }
}
