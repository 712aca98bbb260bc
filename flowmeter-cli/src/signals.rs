//! Which signals mean something to a run?

#![expect(unsafe_code, reason = "std does not say how a signal is handled")]

use std::io::{self, IsTerminal as _};
use std::ptr;
use std::sync::Arc;

use flowmeter::run::Control;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals of a live run, as they come.
pub struct Watch {
    interrupt: Signal,
    terminate: Signal,
    /// None if it is ignored.
    hangup: Option<Signal>,
    has_terminal: bool,
}

impl Watch {
    /// From now on signals wait to be looked at. In a runtime.
    pub fn start() -> io::Result<Self> {
        let hangup = !is_hangup_ignored();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: hangup.then(|| signal(SignalKind::hangup())).transpose()?,
            has_terminal: io::stderr().is_terminal(),
        })
    }

    /// Passes on to the run what signals ask for. SIGINT and SIGTERM ask for its end, and so does
    /// SIGHUP from a terminal that is closed; any other SIGHUP asks for the log to be opened anew.
    /// Returns when the end is asked for again.
    pub async fn second_stop(&mut self, control: &Control) {
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

/// From now on the first signal asks the run to end, and a second one ends the process. Without a
/// thread, as one thread alone allocates faster.
pub fn stop(control: &Control) -> io::Result<()> {
    let hangup = (!is_hangup_ignored()).then_some(SIGHUP);
    for number in [SIGINT, SIGTERM].into_iter().chain(hangup) {
        let stop = control.stop_flag();
        // In this order: the second one finds the flag set.
        flag::register_conditional_shutdown(number, 1, Arc::clone(&stop))?;
        flag::register(number, stop)?;
    }
    Ok(())
}

/// Whether this process was started with SIGHUP ignored, as by `nohup`: then it stays so, since a
/// handler would undo what the user asked for.
fn is_hangup_ignored() -> bool {
    // SAFETY: all zeros are a sigaction: no handler, no flags, an empty mask.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `now` is a valid place for one sigaction, and nothing is changed.
    let read = unsafe { libc::sigaction(SIGHUP, ptr::null(), &raw mut now) };
    read == 0 && now.sa_sigaction == libc::SIG_IGN
}
