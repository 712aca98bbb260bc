//! How far is it?

use std::io::{IsTerminal as _, stderr, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use flowmeter::output::Destination;
use flowmeter::run::{Progress, total};
use indicatif::{ProgressBar, ProgressStyle};

use crate::plan::ReadPlan;

/// A line on standard error, if that is a terminal: bytes, packets a second, time left. It is gone
/// with this value.
pub struct Bar {
    shown: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

/// How often it changes.
const EVERY: Duration = Duration::from_millis(100);

impl Bar {
    /// Shows how far the run of a plan is.
    pub fn show(plan: &ReadPlan, progress: &Arc<Progress>) -> std::io::Result<Self> {
        let to_terminal = plan.log.output.destination == Destination::Stdout;
        if !stderr().is_terminal() || to_terminal && stdout().is_terminal() {
            return Ok(Self { shown: None });
        }
        let bar = total(&plan.options.files).map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = if bar.length().is_some() {
            "{bar:30} {binary_bytes} of {binary_total_bytes}, {msg}, {eta} left"
        } else {
            "{spinner} {binary_bytes}, {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let (progress, ends) = (Arc::clone(progress), Arc::clone(&is_over));
        let show = move || {
            let since = Instant::now();
            while !ends.load(Relaxed) {
                let rate = progress.frames() as f64 / since.elapsed().as_secs_f64();
                bar.set_position(progress.bytes());
                bar.set_message(format!("{rate:.0} packets/s"));
                thread::park_timeout(EVERY);
            }
            bar.finish_and_clear();
        };
        let thread = thread::Builder::new().name("progress".into()).spawn(show)?;
        Ok(Self { shown: Some((is_over, thread)) })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some((is_over, thread)) = self.shown.take() {
            is_over.store(true, Relaxed);
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
