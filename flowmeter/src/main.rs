//! The command `flowmeter`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use flowmeter::cli::{self, Command, Listing};
use flowmeter::config::LivePlan;
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
        Command::Read(plan) => Ok(read::read(&plan)?),
        Command::Fields(Listing::Table) => print(&fields::list::table()),
        Command::Fields(Listing::Json) => print(&format!("{:#}\n", fields::list::json())),
        Command::Doctor(listing) => doctor(listing),
    }
}

/// Meters until a signal, SIGINT or SIGTERM, asks for the end. A second one does not wait for the
/// flows to be written.
fn live(plan: LivePlan) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let attached = engine::attach(&plan)?;
        // While there is no other thread, which would keep its own.
        privileges::keep_only(plan.needs())?;
        let mut meter = tokio::task::spawn_blocking(move || engine::live(&plan, attached, &seen));
        loop {
            tokio::select! {
                ended = &mut meter => return Ok(ended.context("the meter panicked")??),
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.swap(true, Ordering::Relaxed) {
                anyhow::bail!("interrupted again; flows that were not written are lost");
            }
        }
    })
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
