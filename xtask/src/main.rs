//! What the project does to itself. `cargo xtask --help` lists it.

mod api;
mod bench;
mod command;
mod ebpf;
mod fuzz;
mod mutate;
mod python;
mod run;
mod setup;
mod source;
mod sum;
mod test;
mod tidy;
mod toolchain;
mod verified;
mod verify;
mod vm;
mod wheel;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::run::Profile;
use crate::setup::Purpose;

#[derive(Parser)]
#[command(about = "The project's own tasks: building, checking, measuring")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing for building and running.
    Setup {
        /// Install what the tests need, too.
        #[arg(long)]
        tests: bool,
        /// Only say what is missing, and fail if something is.
        #[arg(long)]
        check: bool,
    },
    /// Build the kernel programs into target/bpf/flowmeter.o.
    Ebpf,
    /// Set up and build flowmeter for speed; prints the program's path.
    Build,
    /// Set up and build the Python package; prints the wheel's path.
    Wheel,
    /// Set up, build and run flowmeter: `cargo xtask run -- live eth0`.
    Run {
        /// Build quickly rather than for speed.
        #[arg(long)]
        debug: bool,
        /// Arguments for flowmeter.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Set up, and run every check and test.
    Test {
        /// A folder of captures and the rows expected from them.
        #[arg(long, value_name = "DIR")]
        conformance: Option<PathBuf>,
    },
    /// Load each kernel program and compare what the verifier makes of it with the committed table.
    Verify {
        /// Rewrite this kernel's column.
        #[arg(long)]
        update: bool,
    },
    /// Try everything on other kernels, in virtual machines.
    ///
    /// Debian's kernels are downloaded, not installed, and kept in target/vm; remove that to have
    /// the newest ones.
    Vm {
        /// 5.10, 6.1, 6.12 or 7.x; all of them by default.
        kernel: Vec<String>,
        /// Rewrite their columns of xtask/verified.txt.
        #[arg(long)]
        update: bool,
        /// Run only the tests with this in their names, as in `attribution::hands`.
        #[arg(long, value_name = "TEXT", default_value = "")]
        only: String,
    },
    /// Compare the library's public API with flowmeter/api.txt.
    Api {
        /// Rewrite that file.
        #[arg(long)]
        update: bool,
    },
    /// Check the rules of ARCHITECTURE.md that the compiler does not.
    Tidy,
    /// Look for inputs that make the readers fail.
    Fuzz {
        /// capture, parse or engine; all of them by default.
        target: Option<String>,
        /// How many minutes for each.
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// A folder of captures to start from.
        #[arg(long, value_name = "DIR")]
        captures: Option<PathBuf>,
    },
    /// Meter damaged packets, with the dissector and without, and compare.
    Mutate {
        /// How many million packets.
        #[arg(long, default_value_t = 50)]
        millions: u64,
        /// Seed for the random damage: the same number gives the same packets.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// A folder of captures to damage.
        #[arg(long, value_name = "DIR")]
        captures: PathBuf,
    },
    /// Measure how fast it is.
    Bench {
        /// What to measure.
        #[command(subcommand)]
        what: bench::Bench,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup { tests, check } => {
            let purpose = if tests { Purpose::Test } else { Purpose::Run };
            if check { setup::check(purpose) } else { setup::setup(purpose).map(drop) }
        }
        Task::Ebpf => {
            setup::setup(Purpose::Run).and_then(|toolchain| ebpf::build(&toolchain)).map(drop)
        }
        Task::Build => run::build(Profile::Release).map(|path| println!("{}", path.display())),
        Task::Wheel => wheel::wheel().map(|path| println!("{}", path.display())),
        Task::Run { debug, args } => {
            let profile = if debug { Profile::Debug } else { Profile::Release };
            run::run(profile, &args)
        }
        Task::Test { conformance } => test::test(conformance),
        Task::Verify { update } => verify::verify(Committed::by(update)),
        Task::Vm { kernel, update, only } => vm(&kernel, Committed::by(update), &only),
        Task::Api { update } => api::api(Committed::by(update)),
        Task::Tidy => tidy::tidy(),
        Task::Fuzz { target, minutes, captures } => {
            fuzz::fuzz(target.as_deref(), minutes, captures)
        }
        Task::Mutate { millions, seed, captures } => mutate::mutate(millions, seed, &captures),
        Task::Bench { what } => setup::setup(Purpose::Run)
            .and_then(|toolchain| ebpf::build(&toolchain))
            .and_then(|_| bench::bench(&what)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// What becomes of a committed file that a task writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Committed {
    /// It is compared with what there is now.
    Compare,
    /// It is written again.
    Update,
}

impl Committed {
    /// By `--update`.
    fn by(update: bool) -> Self {
        if update { Self::Update } else { Self::Compare }
    }
}

/// Sets up, builds, and tries the kernels of these names.
fn vm(names: &[String], committed: Committed, only: &str) -> anyhow::Result<()> {
    let kernels = vm::kernels::named(names)?;
    let toolchain = setup::setup(Purpose::Test)?;
    ebpf::build(&toolchain)?;
    let (sum, verdict) = vm::run(&kernels, committed, vm::Missing::Report, only)?;
    println!("{} passed, {} failed", sum.passed, sum.failed);
    verdict
}

/// The top of the project.
fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask is a folder of the project").into()
}
