//! What must hold before a change lands?

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{is_root, say_and_run};
use crate::setup::Purpose;
use crate::{ebpf, root, setup, tidy, verify};

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
    let mut clippy = cargo(&["clippy", "--workspace", "--all-targets", "--quiet"]);
    check("clippy", say_and_run(clippy.args(["--", "--deny", "warnings"])));
    check("warnings in the kernel half", ebpf::deny_warnings(&toolchain));
    let mut without_ndpi = cargo(&["clippy", "--package", "flowmeter", "--no-default-features"]);
    without_ndpi.args(["--all-targets", "--quiet", "--", "--deny", "warnings"]);
    check("build without nDPI", say_and_run(&mut without_ndpi));
    let mut without_ndpi = cargo(&["test", "--package", "flowmeter", "--no-default-features"]);
    without_ndpi.args(["--quiet", "--lib", "dissect::"]);
    check("dissection without nDPI", say_and_run(&mut without_ndpi));
    if is_root() {
        check("verify", verify::verify(false));
    } else {
        eprintln!("xtask: verify is left out: loading kernel programs needs root");
    }
    // Tests in other crates run the program.
    check("build", say_and_run(&mut cargo(&["build", "--workspace", "--quiet"])));
    check("tests", run_tests(tests));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs cargo's tests and adds up what they report.
fn run_tests(mut command: Command) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("failed to run cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut sum = Sum::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("failed to read cargo's output")?;
        // What a test prints need not be UTF-8.
        let line = String::from_utf8_lossy(&line);
        sum.add(&line);
        writeln!(std::io::stdout(), "{line}")?;
    }
    let status = child.wait()?;
    sum.end();
    println!("{} passed, {} failed", sum.passed, sum.failed);
    sum.verdict(status.success())
}

/// What the test programs have reported.
#[derive(Default)]
struct Sum {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Tests of the program that runs now.
    running: u64,
}

impl Sum {
    /// Adds a line like `running 3 tests` or `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    fn add(&mut self, line: &str) {
        if let Some(count) = started(line) {
            self.end();
            self.running = count;
            return;
        }
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        self.running = 0;
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

    /// Counts the tests of a program that ended without a result: it crashed, and nobody knows
    /// which of them passed.
    fn end(&mut self) {
        self.failed += std::mem::take(&mut self.running);
    }

    /// Whether that is good enough. A test that was left out is a failure.
    fn verdict(&self, cargo_succeeded: bool) -> Result<()> {
        if !cargo_succeeded || self.failed > 0 {
            bail!("tests failed");
        }
        if self.ignored > 0 {
            bail!("{} tests are ignored; run them or take them out", self.ignored);
        }
        if self.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

/// The number in `running 3 tests`.
fn started(line: &str) -> Option<u64> {
    let (count, tests) = line.strip_prefix("running ")?.split_once(' ')?;
    matches!(tests, "test" | "tests").then(|| count.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::Sum;

    fn sum(lines: &[&str]) -> Sum {
        let mut sum = Sum::default();
        for line in lines {
            sum.add(line);
        }
        sum.end();
        sum
    }

    const TWO_PASS: &[&str] = &[
        "running 2 tests",
        "test a ... ok",
        "test b ... ok",
        "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s",
    ];

    #[test]
    fn results_add_up() {
        let sum = sum(&[TWO_PASS, TWO_PASS].concat());
        assert_eq!((sum.passed, sum.failed), (4, 0));
        assert!(sum.verdict(true).is_ok());
    }

    #[test]
    fn a_test_that_fails_or_is_ignored_fails_all() {
        let failed = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured";
        let ignored = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured";
        assert_eq!(sum(&[failed]).failed, 1);
        assert!(sum(&[failed]).verdict(false).is_err());
        assert!(sum(&[ignored]).verdict(true).is_err());
        assert!(sum(&TWO_PASS[3..]).verdict(false).is_err());
    }

    #[test]
    fn no_tests_are_a_failure() {
        assert!(sum(&[]).verdict(true).is_err());
    }

    #[test]
    fn a_program_that_crashed_has_failed() {
        let crashed = ["running 3 tests", "test a ... ok"];
        let then = sum(&[&crashed, TWO_PASS].concat());
        assert_eq!((then.passed, then.failed), (2, 3));
        assert_eq!(sum(&crashed).failed, 3);
    }
}
