//! The command `flowmeter`: options, privileges, signals and messages around the library's runs.

mod args;
mod descriptors;
mod doctor;
mod metrics;
mod notices;
mod plan;
mod privileges;
mod progress;
mod signals;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use flowmeter::capture::kernel::capabilities;
use flowmeter::report::Report;
use flowmeter::run::{Control, Failed, Run};
use flowmeter::{dissect, fields};

use crate::args::{Command, Listing};
use crate::metrics::{Keeper, MetricsFile};
use crate::plan::{LivePlan, ReadPlan};

fn main() -> ExitCode {
    if let Some(code) = dissect::contained::child::run(std::env::args()) {
        return code;
    }
    let command = match args::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(exit) => {
            let _ = exit.print();
            return ExitCode::from(exit.code);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {}", notices::causes(&e));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Live(plan) => live(*plan),
        Command::Read(plan) => read(&plan),
        Command::Fields(Listing::Table) => print(&fields::list::table()),
        Command::Fields(Listing::Json) => print(&format!("{:#}\n", fields::list::json())),
        Command::Doctor(listing) => doctor(listing),
    }
}

/// Meters until a signal asks for the end.
fn live(plan: LivePlan) -> anyhow::Result<()> {
    capabilities::check()?;
    descriptors::reserve(plan.descriptors())?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let mut watch = signals::Watch::start()?;
        let listener = plan.metrics.listen.map(metrics::listen).transpose()?;
        let file = plan.metrics.file.as_deref().map(MetricsFile::new);
        file.iter().try_for_each(MetricsFile::check)?;
        let log = plan.log.open()?;
        let needs = plan.needs();
        let schema = Arc::clone(&plan.log.schema);
        let run = Run::live(plan.options)?.to(log).redacting(move || schema.redacted());
        // While there is no other thread, which would keep its own.
        privileges::keep_only(needs)?;
        // With the rights that are left.
        file.iter().try_for_each(MetricsFile::check)?;
        let control = run.control();
        if let Some(every) = plan.performance_report {
            report_every(every, &control)?;
        }
        let keep = |file: MetricsFile| file.keep(Arc::clone(&control));
        let keeper = file.map(keep).transpose().context("failed to start a thread")?;
        if let Some(listener) = listener {
            tokio::spawn(metrics::serve(listener, Arc::clone(&control)));
        }
        let run = tokio::task::spawn_blocking(move || run.run());
        tokio::select! {
            ended = run => {
                finish(ended.context("the meter panicked")?, keeper)
            }
            () = watch.second_stop(&control) => Err(anyhow::anyhow!(
                "interrupted again; flows that are not yet written are lost"
            )),
        }
    });
    // Not even for a run that waits for whoever reads its log.
    runtime.shutdown_background();
    ended
}

/// Reads until the captures end, or a signal asks for it.
fn read(plan: &ReadPlan) -> anyhow::Result<()> {
    let schema = Arc::clone(&plan.log.schema);
    let run =
        Run::read(plan.options.clone()).to(plan.log.open()?).redacting(move || schema.redacted());
    signals::stop(&run.control()).context("failed to watch for signals")?;
    let bar = progress::Bar::show(plan, &run.progress())?;
    let ended = run.run();
    drop(bar);
    finish(ended, None)
}

/// Prints the last balance, however the run has ended, and writes it to the file of figures.
fn finish<E>(ended: Result<Report, Failed<E>>, keeper: Option<Keeper>) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let (report, ended) = match ended {
        Ok(report) => (Some(Box::new(report)), Ok(())),
        Err(failed) => (failed.report, Err(failed.error.into())),
    };
    if let Some(report) = report {
        print_report(&report);
        if let Some(keeper) = keeper {
            keeper.finish(&report);
        }
    }
    ended
}

/// The balance, on standard error.
fn print_report(report: &Report) {
    eprintln!("{}", report.json());
}

/// Prints the balance from time to time, until the run is over.
fn report_every(every: Duration, control: &Arc<Control>) -> anyhow::Result<()> {
    let control = Arc::clone(control);
    let print = move || loop {
        thread::sleep(every);
        let Some(report) = control.report() else { break };
        print_report(&report);
    };
    thread::Builder::new().name("report".into()).spawn(print)?;
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")
}

/// Prints how the machine stands; fails if `flowmeter live` does not work.
fn doctor(listing: Listing) -> anyhow::Result<()> {
    let findings = doctor::examine();
    match listing {
        Listing::Table => print(&doctor::table(&findings))?,
        Listing::Json => print(&format!("{:#}\n", doctor::json(&findings)))?,
    }
    anyhow::ensure!(doctor::is_well(&findings), "`flowmeter live` does not work here");
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("failed to write to standard output"),
    }
}
