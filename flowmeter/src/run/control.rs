//! What can be asked of a run while it goes on?

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Sender, bounded};

use crate::report::Report;

/// Asks a run for something, from any thread.
#[derive(Debug, Default)]
pub struct Control {
    stop: Arc<AtomicBool>,
    reopen: AtomicBool,
    /// Whoever waits for a report; none when there will be none.
    asked: Mutex<Option<Vec<Sender<Report>>>>,
}

impl Control {
    /// Of a run that can give reports while it goes on.
    pub(super) fn with_reports() -> Self {
        Self { asked: Mutex::new(Some(Vec::new())), ..Self::default() }
    }

    /// The run is to end, and to write what it has. Returns whether that was asked for before.
    pub fn stop(&self) -> bool {
        self.stop.swap(true, Relaxed)
    }

    /// What is set when the run is to end.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// The outputs may have been renamed, and are to begin anew.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    /// What a run that meters interfaces has counted. Waits for its next look around, some 5 ms;
    /// none if it is over. One that reads captures has none before its end, see
    /// [`Progress`](super::Progress).
    pub fn report(&self) -> Option<Report> {
        let (sender, receiver) = bounded(1);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.push(sender);
        receiver.recv().ok()
    }

    /// Whether the run is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Whether the outputs are to begin anew; once for each time it is asked for.
    pub(super) fn wants_reopened(&self) -> bool {
        self.reopen.swap(false, Relaxed)
    }

    /// Those who wait for a report.
    pub(super) fn asked(&self) -> Vec<Sender<Report>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// A run's own hold of its control. When it is gone, even by a panic, the run is over and nobody gets
/// a report any more.
#[derive(Debug)]
pub(super) struct Hold(pub Arc<Control>);

impl Drop for Hold {
    fn drop(&mut self) {
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
