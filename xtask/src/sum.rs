//! How many tests have passed, by what their programs print?

use anyhow::{Result, bail};

/// What the test programs have reported.
#[derive(Default)]
pub struct Sum {
    pub passed: u64,
    pub failed: u64,
    ignored: u64,
    /// Tests of the program that runs now.
    running: u64,
}

impl Sum {
    /// Adds a line like `running 3 tests` or `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    pub fn add(&mut self, line: &str) {
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
    pub fn end(&mut self) {
        self.failed += std::mem::take(&mut self.running);
    }

    /// Adds what others have reported.
    pub fn include(&mut self, others: &Self) {
        self.passed += others.passed;
        self.failed += others.failed;
        self.ignored += others.ignored;
    }

    /// Whether that is good enough. A test that was left out is a failure.
    pub fn verdict(&self, cargo_succeeded: bool) -> Result<()> {
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
pub fn started(line: &str) -> Option<u64> {
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
