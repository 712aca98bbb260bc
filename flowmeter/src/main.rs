//! The command `flowmeter`.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use flowmeter::cli::progress;
use flowmeter::cli::{self, Command, Listing};
use flowmeter::config::{LivePlan, ReadPlan};
use flowmeter::report::Report;
use flowmeter::run::{Control, Live, Read};
use flowmeter::{descriptors, dissect, doctor, fields, hangup, privileges};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    if let Some(code) = dissect::contained::child::run(std::env::args()) {
        return code;
    }
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(exit) => {
            let _ = exit.print();
            return ExitCode::from(exit.code);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {}", causes(&e));
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
    privileges::check()?;
    descriptors::reserve(plan.descriptors())?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let mut watch = Watch::start()?;
        let log = plan.log.open()?;
        let needs = plan.needs();
        let schema = Arc::clone(&plan.log.schema);
        let run = Live::attach(plan.options)?.to(log).redacting(move || schema.redacted());
        // While there is no other thread, which would keep its own.
        privileges::keep_only(needs)?;
        let control = run.control();
        if let Some(every) = plan.performance_report {
            report_every(every, &control)?;
        }
        let run = tokio::task::spawn_blocking(move || run.run());
        tokio::select! {
            ended = run => {
                let (report, ended) = ended.context("the meter panicked")?;
                print_report(report.as_ref());
                Ok(ended?)
            }
            () = watch.second_stop(&control) => Err(anyhow::anyhow!(
                "interrupted again; flows that were not written are lost"
            )),
        }
    });
    // Not even for a run that waits for whoever reads its log.
    runtime.shutdown_background();
    ended
}

/// The balance, on standard error.
fn print_report(report: Option<&Report>) {
    if let Some(report) = report {
        eprintln!("{}", report.json());
    }
}

/// Prints the balance from time to time, until the run is over.
fn report_every(every: Duration, control: &Arc<Control>) -> anyhow::Result<()> {
    let control = Arc::clone(control);
    let print = move || loop {
        thread::sleep(every);
        let Some(report) = control.report() else { break };
        print_report(Some(&report));
    };
    thread::Builder::new().name("report".into()).spawn(print)?;
    Ok(())
}

/// Reads until the captures end, or a signal asks for it; a second one does not wait. Without a
/// thread for signals, as one thread alone allocates faster.
fn read(plan: &ReadPlan) -> anyhow::Result<()> {
    let schema = Arc::clone(&plan.log.schema);
    let run =
        Read::new(plan.options.clone()).to(plan.log.open()?).redacting(move || schema.redacted());
    let control = run.control();
    let hangup = (!hangup::is_hangup_ignored()).then_some(SIGHUP);
    for number in [SIGINT, SIGTERM].into_iter().chain(hangup) {
        let stop = control.stop_flag();
        // In this order: the second one finds the flag set.
        flag::register_conditional_shutdown(number, 1, Arc::clone(&stop))
            .and_then(|_| flag::register(number, stop))
            .context("failed to watch for signals")?;
    }
    let bar = progress::Bar::show(plan, &run.progress())?;
    let (report, ended) = run.run();
    drop(bar);
    print_report(report.as_ref());
    Ok(ended?)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")
}

/// The signals that mean something to a run.
struct Watch {
    interrupt: Signal,
    terminate: Signal,
    /// None if it is ignored.
    hangup: Option<Signal>,
    has_terminal: bool,
}

impl Watch {
    /// From now on signals wait to be looked at. In a runtime.
    fn start() -> std::io::Result<Self> {
        let hangup = !hangup::is_hangup_ignored();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: hangup.then(|| signal(SignalKind::hangup())).transpose()?,
            has_terminal: std::io::stderr().is_terminal(),
        })
    }

    /// Tells the run what signals ask. SIGINT and SIGTERM ask for its end, and so does SIGHUP if it
    /// comes from a terminal that is closed; else that asks for the log to be opened anew. Comes
    /// back when the end is asked for again.
    async fn second_stop(&mut self, control: &Control) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
                () = next(&mut self.hangup) => if !self.has_terminal {
                    control.reopen();
                    continue;
                }
            }
            if control.stop() {
                return;
            }
        }
    }
}

/// The next of a signal that is handled; never, if it is not.
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
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
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("failed to write to standard output"),
    }
}

/// An error and its causes, in a line.
fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.ends_with(&cause) {
            continue; // some errors print their source themselves
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}
