//! How far is it?

use std::io::{IsTerminal as _, stderr, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::config::ReadPlan;
use crate::sink::Destination;

/// A line on standard error, if that is a terminal: bytes, packets a second, time left.
pub struct Progress {
    bar: Option<ProgressBar>,
    read: Arc<AtomicU64>,
    frames: u64,
    since: Instant,
}

/// The line is looked at after so many frames.
const FRAMES: u64 = 8192;

impl Progress {
    /// Of the files of a plan.
    pub fn of(plan: &ReadPlan) -> Self {
        let rows_there = plan.output.destination == Destination::Stdout && stdout().is_terminal();
        let mut progress = Self::none();
        if stderr().is_terminal() && !rows_there {
            let bar = total(&plan.files).map_or_else(ProgressBar::no_length, ProgressBar::new);
            let template = if bar.length().is_some() {
                "{bar:30} {binary_bytes} of {binary_total_bytes}, {msg}, {eta} left"
            } else {
                "{spinner} {binary_bytes}, {msg}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            progress.bar = Some(bar);
        }
        progress
    }

    fn none() -> Self {
        Self { bar: None, read: Arc::default(), frames: 0, since: Instant::now() }
    }

    /// Counts the bytes read.
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    /// A frame was read.
    #[inline]
    pub fn frame(&mut self) {
        self.frames += 1;
        if self.frames.is_multiple_of(FRAMES) {
            self.show();
        }
    }

    fn show(&self) {
        let Some(bar) = &self.bar else { return };
        let rate = self.frames as f64 / self.since.elapsed().as_secs_f64();
        bar.set_position(self.read.load(Relaxed));
        bar.set_message(format!("{rate:.0} packets/s"));
    }

    /// All was read.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Bytes of all files together; none if that cannot be told.
pub fn total(files: &[PathBuf]) -> Option<u64> {
    let size = |file: &PathBuf| {
        let is_file = |meta: &std::fs::Metadata| meta.is_file();
        Some(Path::new(file).metadata().ok().filter(is_file)?.len())
    };
    files.iter().map(size).sum()
}
