//! What works on which kernel?

use std::time::Duration;

use serde_json::Value;

use super::kernels::Kernel;
use super::results::{Report, Tests};
use super::steps::{DOCTOR, Step, VERIFY};
use crate::verified::{Column, Table, Verdict, aligned};

/// What came of a kernel.
pub enum Outcome {
    /// It could not be had, and why.
    NotRun(String),
    /// It was booted.
    Run(Run),
}

/// What a machine with a kernel has shown.
pub struct Run {
    /// How long it took in all.
    pub took: Duration,
    /// Passed, failed and skipped tests.
    pub tests: Tests,
    /// What is wrong; nothing if all is well.
    pub faults: Vec<String>,
    /// What the verifier made of the programs.
    pub verdicts: Column,
    /// The end of what it said on its console, if it did not end with its job.
    pub last_words: String,
    release: String,
    /// How often it hung. After the first time it was booted once more.
    hangs: u32,
    /// What doctor looked at, and how it stands.
    findings: Vec<(String, String)>,
}

impl Run {
    /// Judges the report of a machine that was to run `steps`, and was ended by `error` if not by
    /// the end of its job. If it hung more than once, the report is that of a hang.
    pub fn new(
        kernel: &Kernel,
        report: &Report,
        steps: &[Step],
        error: Option<String>,
        hangs: u32,
        took: Duration,
    ) -> Self {
        let names: Vec<_> = steps.iter().map(|step| step.name).collect();
        let mut faults: Vec<_> = error.into_iter().collect();
        if hangs > 1 {
            faults.push(format!("it hung {hangs} times, and was ended"));
        }
        faults.extend(report.faults(&names));
        let mut tests = Tests::default();
        for step in steps {
            if let (Some(chosen), Some(ran)) = (step.tests, report.step(step.name)) {
                let found = ran.tests(chosen);
                faults.extend(found.fault);
                tests.sum.include(&found.sum);
                tests.skipped.extend(found.skipped);
            }
        }
        let printed = |name| report.step(name).map_or(&[][..], |step| step.output.as_slice());
        let findings = findings(printed(DOCTOR));
        let table = Table::parse(&printed(VERIFY).join("\n")).unwrap_or_default();
        let verdicts = table.column(kernel.name).cloned().unwrap_or_default();
        if findings.is_empty() {
            faults.push("doctor found nothing".into());
        }
        if verdicts.is_empty() {
            faults.push("no program was loaded".into());
        }
        let release = report.release.clone().unwrap_or_default();
        let last_words = String::new();
        Self { took, tests, faults, verdicts, last_words, release, hangs, findings }
    }
}

/// What doctor looked at and how it stands, by its list among what else was printed.
fn findings(printed: &[String]) -> Vec<(String, String)> {
    let list = printed
        .iter()
        .map(String::as_str)
        .skip_while(|line| *line != "[")
        .take_while(|line| *line != "]")
        .collect::<Vec<_>>()
        .join("\n");
    let list: Vec<Value> = serde_json::from_str(&(list + "\n]")).unwrap_or_default();
    let text = |finding: &Value, name: &str| Some(finding[name].as_str()?.to_owned());
    list.iter().filter_map(|f| Some((text(f, "what")?, text(f, "state")?))).collect()
}

/// A table of kernels and what works there.
pub fn table(outcomes: &[(Kernel, Outcome)]) -> String {
    let runs: Vec<_> = outcomes
        .iter()
        .filter_map(|(kernel, outcome)| match outcome {
            Outcome::Run(run) => Some((kernel, run)),
            Outcome::NotRun(_) => None,
        })
        .collect();
    let row = |what: &str, cell: &dyn Fn(&Run) -> String| {
        let cells = runs.iter().map(|(_, run)| cell(run));
        std::iter::once(what.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let mut rows = vec![
        std::iter::once("kernel".to_owned())
            .chain(runs.iter().map(|(kernel, _)| kernel.name.to_owned()))
            .collect(),
        row("release", &|run| run.release.clone()),
    ];
    let mut looked_at: Vec<&str> = Vec::new();
    for (what, _) in runs.iter().flat_map(|(_, run)| &run.findings) {
        // Its finding is the release.
        if what != "kernel" && !looked_at.contains(&what.as_str()) {
            looked_at.push(what);
        }
    }
    for what in looked_at {
        rows.push(row(what, &|run| {
            let found = run.findings.iter().find(|(name, _)| name == what);
            found.map(|(_, state)| state.clone()).unwrap_or_default()
        }));
    }
    rows.push(row("programs that load", &|run| {
        let loads = run.verdicts.values().filter(|verdict| verdict.loads()).count();
        format!("{loads} of {}", run.verdicts.len())
    }));
    rows.push(row("instructions, most", &|run| {
        let counts = run.verdicts.values().filter_map(|verdict| match verdict {
            Verdict::Verified(count) => Some(*count),
            Verdict::Loads | Verdict::Refused(_) => None,
        });
        counts.max().map_or("not counted".into(), |most| most.to_string())
    }));
    rows.push(row("tests passed", &|run| {
        (run.tests.sum.passed.saturating_sub(run.tests.skipped.len() as u64)).to_string()
    }));
    rows.push(row("tests skipped", &|run| run.tests.skipped.len().to_string()));
    rows.push(row("tests failed", &|run| run.tests.sum.failed.to_string()));
    rows.push(row("verdict", &|run| {
        let verdict = if run.faults.is_empty() { "good" } else { "FAILED" };
        let hung = if run.hangs == 1 { ", hung once" } else { "" };
        format!("{verdict}{hung}")
    }));
    rows.push(row("seconds", &|run| run.took.as_secs().to_string()));
    let mut text = aligned(&rows);
    for (kernel, outcome) in outcomes {
        let name = kernel.name;
        let said: Vec<_> = match outcome {
            Outcome::NotRun(why) => vec![format!("{name} was not run: {why}")],
            Outcome::Run(run) => {
                let skipped = run.tests.skipped.iter().map(|why| format!("{name} skipped: {why}"));
                // Of a long output the end is what is kept, so a panic stands there, too.
                skipped
                    .chain(run.last_words.lines().map(|line| format!("{name} console: {line}")))
                    .chain(run.faults.iter().map(|why| format!("{name} FAILED: {why}")))
                    .collect()
            }
        };
        for line in said {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::kernels::KNOWN;
    use super::super::results::Report;
    use super::super::steps::{DOCTOR, Step, VERIFY};
    use super::{Outcome, Run, table};

    fn report() -> Report {
        let mut report = Report::new("77");
        for line in [
            "@77 kernel 5.10.0-46",
            "@77 begin doctor",
            "a warning [",
            "[",
            "  {\"what\": \"XDP\", \"state\": \"limited\", \"found\": \"[\"}",
            "]",
            "@77 end doctor 0",
            "@77 begin verify",
            "| program | 5.10 |",
            "| a | loads |",
            "| b | refused |",
            "refused by 5.10: b: no",
            "@77 end verify 0",
            "@77 begin live",
            "running 2 tests",
            "skipped: `x`: no XDP",
            "test result: ok. 2 passed; 0 failed",
            "@77 end live 0",
            "@77 done",
        ] {
            report.add(line).expect("the lines are in order");
        }
        report
    }

    fn steps() -> Vec<Step> {
        let names = [(DOCTOR, None), (VERIFY, None), ("live", Some(2))];
        names.map(|(name, tests)| Step::new(name, tests, Vec::new())).into()
    }

    #[test]
    fn a_run_is_summed_up() {
        let run = Run::new(&KNOWN[0], &report(), &steps(), None, 0, Duration::from_secs(9));
        assert!(run.faults.is_empty(), "{:?}", run.faults);
        let text = table(&[
            (KNOWN[0], Outcome::Run(run)),
            (KNOWN[1], Outcome::NotRun("no package".into())),
        ]);
        let cells = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<_> = text.lines().map(cells).collect();
        for line in [
            "| kernel | 5.10 |",
            "| release | 5.10.0-46 |",
            "| XDP | limited |",
            "| programs that load | 1 of 2 |",
            "| tests passed | 1 |",
            "| tests skipped | 1 |",
            "| verdict | good |",
            "5.10 skipped: `x`: no XDP",
            "6.1 was not run: no package",
        ] {
            assert!(lines.iter().any(|l| l == line), "no `{line}` in\n{text}");
        }
    }

    #[test]
    fn a_machine_that_says_nothing_has_failed() {
        let mut run = Run::new(&KNOWN[0], &Report::new("77"), &steps(), None, 2, Duration::ZERO);
        run.last_words = "Kernel panic".into();
        for fault in [
            "it hung 2 times, and was ended",
            "live was not run",
            "doctor found nothing",
            "no program was loaded",
        ] {
            assert!(run.faults.iter().any(|f| f == fault), "{:?}", run.faults);
        }
        let text = table(&[(KNOWN[0], Outcome::Run(run))]);
        assert!(text.contains("5.10 FAILED: it hung 2 times"), "{text}");
        assert!(text.contains("5.10 console: Kernel panic"), "{text}");
    }

    #[test]
    fn a_machine_that_hung_once_is_good_and_said_to_have() {
        let run = Run::new(&KNOWN[0], &report(), &steps(), None, 1, Duration::ZERO);
        assert!(run.faults.is_empty(), "{:?}", run.faults);
        let text = table(&[(KNOWN[0], Outcome::Run(run))]);
        assert!(text.contains("good, hung once"), "{text}");
    }
}
