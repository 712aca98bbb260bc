//! The command `flowmeter`.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use flowmeter::cli::{self, Command, Listing};
use flowmeter::config::{LivePlan, ReadPlan};
use flowmeter::signals::Signals;
use flowmeter::{dissect, doctor, engine, fields, privileges, read};
use tokio::signal::unix::{SignalKind, signal};

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
        Command::Read(plan) => read(*plan),
        Command::Fields(Listing::Table) => print(&fields::list::table()),
        Command::Fields(Listing::Json) => print(&format!("{:#}\n", fields::list::json())),
        Command::Doctor(listing) => doctor(listing),
    }
}

/// Meters until a signal asks for the end.
fn live(plan: LivePlan) -> anyhow::Result<()> {
    until_signalled(move || {
        let attached = engine::attach(&plan)?;
        // While there is no other thread, which would keep its own.
        privileges::keep_only(plan.needs())?;
        Ok(move |signals: &Arc<Signals>| Ok(engine::live(&plan, attached, signals)?))
    })
}

/// Reads until the captures end, or a signal asks for it.
fn read(plan: ReadPlan) -> anyhow::Result<()> {
    until_signalled(move || Ok(move |signals: &Arc<Signals>| Ok(read::read(&plan, signals)?)))
}

/// Does what `prepare` returns in another thread. SIGINT and SIGTERM ask it to end; a second one
/// does not wait for that. SIGHUP does too if it comes from a terminal that is closed, and else asks
/// for the log to be opened anew.
fn until_signalled<W>(prepare: impl FnOnce() -> anyhow::Result<W>) -> anyhow::Result<()>
where
    W: FnOnce(&Arc<Signals>) -> anyhow::Result<()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let has_terminal = std::io::stderr().is_terminal();
    let ended = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let signals = Arc::new(Signals::default());
        let work = prepare()?;
        let seen = Arc::clone(&signals);
        let mut run = tokio::task::spawn_blocking(move || work(&seen));
        loop {
            tokio::select! {
                ended = &mut run => return ended.context("the meter panicked")?,
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => if !has_terminal {
                    signals.reopen();
                    continue;
                }
            }
            if signals.stop() {
                anyhow::bail!("interrupted again; flows that were not written are lost");
            }
        }
    });
    // Not even for a run that waits for whoever reads its log.
    runtime.shutdown_background();
    ended
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
