//! What does a virtual machine report?
//!
//! Its second serial port brings what the steps print, and between that the job's own lines, which
//! begin with a mark that was made up for this one run: no other output can be taken for them.

use anyhow::{Result, bail};

use crate::sum::Sum;

/// A step of the job, as far as it got.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name in the plan.
    pub name: String,
    /// What it printed.
    pub output: Vec<String>,
    /// Its exit code, once it has ended.
    pub code: Option<i32>,
}

/// What has been read of a machine's report.
pub struct Report {
    mark: String,
    /// The kernel's release, which is the first that it says.
    pub release: Option<String>,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// Whether the job has come to its end.
    pub is_done: bool,
}

/// What a line was.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Of what a step printed.
    Output,
    /// One of the job's own.
    Mark,
}

impl Report {
    /// Nothing yet, of a job that marks its lines so.
    pub fn new(mark: &str) -> Self {
        let mark = format!("@{mark} ");
        Self { mark, release: None, steps: Vec::new(), is_done: false }
    }

    /// Takes the next line.
    pub fn add(&mut self, line: &str) -> Result<Line> {
        let Some(said) = line.strip_prefix(&self.mark) else {
            if let Some(step) = self.running() {
                step.output.push(line.to_owned());
            }
            return Ok(Line::Output);
        };
        match said.split(' ').collect::<Vec<_>>()[..] {
            ["kernel", release] if self.release.is_none() => {
                self.release = Some(release.to_owned());
            }
            ["begin", name] if self.running().is_none() => {
                let (name, output) = (name.to_owned(), Vec::new());
                self.steps.push(Step { name, output, code: None });
            }
            ["end", name, code] => match (self.running(), code.parse()) {
                (Some(step), Ok(code)) if step.name == name => step.code = Some(code),
                _ => bail!("the machine's report is damaged at `{said}`"),
            },
            ["done"] if self.running().is_none() => self.is_done = true,
            _ => bail!("the machine's report is damaged at `{said}`"),
        }
        Ok(Line::Mark)
    }

    fn running(&mut self) -> Option<&mut Step> {
        self.steps.last_mut().filter(|step| step.code.is_none())
    }

    /// The step of this name; of one that was run once more, the last.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().rev().find(|step| step.name == name)
    }

    /// What of the steps `planned` is not as it should be.
    pub fn faults(&self, planned: &[&str]) -> Vec<String> {
        let mut faults = Vec::new();
        for name in planned {
            match self.step(name).map(|step| step.code) {
                Some(Some(0)) => {}
                Some(Some(code)) => faults.push(format!("{name} failed with exit code {code}")),
                Some(None) => faults.push(format!("the machine ended during {name}")),
                None => faults.push(format!("{name} was not run")),
            }
        }
        if faults.is_empty() && !self.is_done {
            faults.push("the machine ended before its job".into());
        }
        faults
    }
}

impl Step {
    /// What the test program of this step reports. One that ran other tests than `chosen`, because
    /// one of them is called otherwise by now, is a fault.
    pub fn tests(&self, chosen: usize) -> Tests {
        let mut tests = Tests::default();
        let mut started = 0;
        for line in &self.output {
            started += crate::sum::started(line).unwrap_or(0);
            tests.sum.add(line);
            tests.skipped.extend(line.strip_prefix("skipped: ").map(str::to_owned));
        }
        tests.sum.end();
        if started != chosen as u64 {
            tests.fault = Some(format!("{}: {started} tests ran, not {chosen}", self.name));
        }
        tests
    }
}

/// What tests in a machine report.
#[derive(Default)]
pub struct Tests {
    /// Passed and failed.
    pub sum: Sum,
    /// What was left out, and why: the kernel lacks it. It is among those that passed.
    pub skipped: Vec<String>,
    /// Other tests than the chosen ones ran.
    pub fault: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn what_is_run_once_more_counts_as_it_ends() {
        let fails = ["@77 begin live", "@77 end live 101"];
        let passes = ["@77 begin live", "@77 end live 0", "@77 done"];
        assert!(report(&[&fails[..], &passes].concat()).faults(&["live"]).is_empty());
        let twice = [&fails[..], &fails, &["@77 done"]].concat();
        assert_eq!(report(&twice).faults(&["live"]), ["live failed with exit code 101"]);
    }

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::new("77");
        for line in lines {
            report.add(line).expect("the test's lines are in order");
        }
        report
    }

    const GOOD: &[&str] =
        &["@77 kernel 6.1.0", "@77 begin a", "running 2 tests", "", "@77 end a 0", "@77 done"];

    #[test]
    fn a_job_that_went_well_has_no_faults() {
        let report = report(GOOD);
        assert_eq!(report.release.as_deref(), Some("6.1.0"));
        assert!(report.faults(&["a"]).is_empty());
        assert_eq!(report.steps[0].output, ["running 2 tests", ""]);
    }

    #[test]
    fn what_is_missing_is_a_fault() {
        assert_eq!(report(&GOOD[..5]).faults(&["a"]), ["the machine ended before its job"]);
        assert_eq!(report(&GOOD[..4]).faults(&["a"]), ["the machine ended during a"]);
        assert_eq!(report(&GOOD[..1]).faults(&["a"]), ["a was not run"]);
        assert_eq!(report(GOOD).faults(&["a", "b"]), ["b was not run"]);
        let failed = report(&["@77 begin a", "@77 end a 101", "@77 done"]);
        assert_eq!(failed.faults(&["a"]), ["a failed with exit code 101"]);
    }

    #[test]
    fn only_the_mark_makes_a_line_the_jobs() {
        let report = report(&["@77 begin a", "@78 end a 0", "end a 0", "x @77 end a 0"]);
        assert_eq!(report.steps[0].code, None);
        assert_eq!(report.steps[0].output.len(), 3);
    }

    #[test]
    fn a_report_in_disorder_is_an_error() {
        for lines in [
            &["@77 end a 0"][..],
            &["@77 begin a", "@77 end b 0"],
            &["@77 begin a", "@77 begin b"],
            &["@77 begin a", "@77 done"],
            &["@77 begin a", "@77 end a x"],
            &["@77 kernel 1", "@77 kernel 2"],
        ] {
            let mut report = Report::new("77");
            assert!(lines.iter().any(|line| report.add(line).is_err()), "{lines:?}");
        }
    }

    #[test]
    fn tests_are_counted_and_must_be_those_chosen() {
        let ran = report(&[
            "@77 begin a",
            "running 2 tests",
            "skipped: `x` needs what this kernel has not",
            // The processes may be asked for at any time.
            "watch: /proc/9/task/9: Name: @77 State: S (sleeping) PPid: 1 in do_wait",
            "watch: end",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured",
        ]);
        let tests = ran.steps[0].tests(2);
        assert_eq!((tests.sum.passed, tests.sum.failed, tests.fault), (2, 0, None));
        assert_eq!(tests.skipped, ["`x` needs what this kernel has not"]);
        assert!(ran.steps[0].tests(3).fault.is_some());
        let crashed = report(&["@77 begin a", "running 2 tests"]);
        assert_eq!(crashed.steps[0].tests(2).sum.failed, 2);
    }
}
