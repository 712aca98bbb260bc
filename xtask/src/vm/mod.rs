//! Does flowmeter work on its users' kernels?
//!
//! Each is booted by an emulator, with this machine's files below a layer that is thrown away, and
//! the programs and tests that have been built here run there. Nothing is installed, and nobody
//! needs to be root.

pub mod kernels;

mod image;
mod machine;
mod modules;
mod monitor;
mod packages;
mod results;
mod steps;
mod summary;

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Instant;

use anyhow::{Result, bail};

use self::kernels::Kernel;
use self::machine::End;
use self::packages::Unpacked;
use self::results::Report;
use self::steps::Step;
use self::summary::{Outcome, Run};
use crate::run::target_dir;
use crate::sum::Sum;
use crate::{Committed, verify};

/// Kernels that must be run where it matters.
const FEWEST: usize = 2;

/// What if kernels cannot be had?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is said.
    Report,
    /// If too many cannot be had, that is a failure.
    Fail,
}

/// Tries everything on the kernels, one after the other, or of the tests those in whose name is
/// `only`. The second value says whether all is well.
pub fn run(
    kernels: &[Kernel],
    committed: Committed,
    missing: Missing,
    only: &str,
) -> Result<(Sum, Result<()>)> {
    let steps = steps::plan(committed == Committed::Update, only)?;
    let mut outcomes = Vec::new();
    for kernel in kernels {
        let outcome = match packages::fetch(kernel, &target_dir().join("vm")) {
            Ok(unpacked) => Outcome::Run(try_on(kernel, &unpacked, &steps)?),
            Err(e) => Outcome::NotRun(format!("{e:#}")),
        };
        outcomes.push((*kernel, outcome));
    }
    if committed == Committed::Update {
        update(&outcomes)?;
    }
    print!("{}", summary::table(&outcomes));
    let mut sum = Sum::default();
    let (mut run, mut failed) = (0, Vec::new());
    for (kernel, outcome) in &outcomes {
        if let Outcome::Run(outcome) = outcome {
            run += 1;
            sum.include(&outcome.tests.sum);
            if !outcome.faults.is_empty() {
                failed.push(kernel.name);
            }
        }
    }
    Ok((sum, verdict(run, &failed, missing)))
}

/// Whether it is good enough that `run` kernels were run, and those failed.
fn verdict(run: usize, failed: &[&str], missing: Missing) -> Result<()> {
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    if missing == Missing::Fail && run < FEWEST {
        bail!("{run} kernels were run; it takes {FEWEST} to say something");
    }
    Ok(())
}

/// Boots the kernel and has it run the steps; once more if it hangs, for all to see.
fn try_on(kernel: &Kernel, unpacked: &Unpacked, steps: &[Step]) -> Result<Run> {
    let begun = Instant::now();
    let name = kernel.name;
    let folder = target_dir().join("vm").join(name);
    fs::create_dir_all(&folder)?;
    let console = folder.join("console.log");
    let mut hangs = 0;
    loop {
        eprintln!("xtask: booting {} ({name})", unpacked.package);
        // Of this boot alone: the state of a hasher is random.
        let mark = format!("{:016x}", RandomState::new().hash_one(name));
        let initial = image::write(unpacked, &steps::script(steps, &mark), &folder)?;
        let mut report = Report::new(&mark);
        let show = |line: &str| println!("[{name}] {line}");
        let end = machine::run(unpacked, &initial, &console, &mut report, show);
        let last_words = match end {
            Ok(End::Done) => String::new(),
            Ok(End::Hung) | Err(_) => machine::tail(&console),
        };
        if !last_words.is_empty() {
            println!("[{name}] the end of its console:\n{last_words}");
        }
        let is_booted_again = is_booted_again(&end, hangs);
        if matches!(end, Ok(End::Hung)) {
            hangs += 1;
        }
        if !is_booted_again {
            let error = end.err().map(|e| format!("{e:#}"));
            let mut run = Run::new(kernel, &report, steps, error, hangs, begun.elapsed());
            run.last_words = last_words;
            return Ok(run);
        }
        println!("[{name}] once more: it hung");
        fs::rename(&console, folder.join("hung.log"))?;
    }
}

/// Whether a machine that has ended so, after it hung that often before, is booted again. Once in a
/// while an emulated one hangs, and nobody knows yet why; all else that ends it is a failure.
fn is_booted_again(end: &Result<End>, hangs: u32) -> bool {
    matches!(end, Ok(End::Hung)) && hangs == 0
}

/// Writes the columns of the kernels that have told all of their programs.
fn update(outcomes: &[(Kernel, Outcome)]) -> Result<()> {
    let mut table = verify::committed()?;
    for (kernel, outcome) in outcomes {
        if let Outcome::Run(run) = outcome
            && !run.verdicts.is_empty()
        {
            table.set(kernel.name, run.verdicts.clone());
        }
    }
    verify::commit(&table)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::machine::End;
    use super::{Missing, is_booted_again, verdict};

    #[test]
    fn only_the_first_hang_is_no_failure() {
        assert!(is_booted_again(&Ok(End::Hung), 0));
        assert!(!is_booted_again(&Ok(End::Hung), 1));
        assert!(!is_booted_again(&Ok(End::Done), 0));
        assert!(!is_booted_again(&Err(anyhow!("it ended by itself")), 0));
    }

    #[test]
    fn one_that_fails_fails_all() {
        assert!(verdict(3, &["6.1"], Missing::Report).is_err());
        assert!(verdict(3, &[], Missing::Fail).is_ok());
    }

    #[test]
    fn too_few_are_a_failure_where_it_matters() {
        assert!(verdict(0, &[], Missing::Report).is_ok());
        assert!(verdict(2, &[], Missing::Fail).is_ok());
        assert!(verdict(1, &[], Missing::Fail).is_err());
    }
}
