//! What do signals ask of a run?

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
