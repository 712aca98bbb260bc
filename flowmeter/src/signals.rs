//! What do signals ask of a run?

#![expect(unsafe_code, reason = "std does not tell how a signal is handled")]

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What was asked for so far.
#[derive(Debug, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    reopen: AtomicBool,
}

impl Signals {
    /// The run is to end, and to write what it has. Returns whether that was asked for before.
    pub fn stop(&self) -> bool {
        self.stop.swap(true, Relaxed)
    }

    /// What is set when the run is to end.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// The log may have been renamed, and is to be opened anew.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    /// Whether the run is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Whether the log is to be opened anew; once for each time it is asked for.
    pub fn wants_reopened(&self) -> bool {
        self.reopen.swap(false, Relaxed)
    }
}

/// Whether this process was started with SIGHUP ignored, as by `nohup`: then it stays so, since a
/// handler would undo what the user asked for.
pub fn is_hangup_ignored() -> bool {
    // SAFETY: all zeros are a sigaction: no handler, no flags, an empty mask.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `now` is a valid place for one sigaction, and nothing is changed.
    let told = unsafe { libc::sigaction(libc::SIGHUP, ptr::null(), &raw mut now) };
    told == 0 && now.sa_sigaction == libc::SIG_IGN
}
