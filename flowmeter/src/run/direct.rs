//! How is an output written to by the thread that makes the rows?
//!
//! It waits for whoever reads, until the run is to end.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::control::Control;
use crate::notice::{Notice, Notices};
use crate::output::queue::Counts;
use crate::output::{Error, Load, Output, Sum, WAIT, describe};

/// An output, and what it has not taken yet.
pub struct Direct<L> {
    output: Box<dyn Output<L>>,
    load: L,
    written: Sum,
    lost: Sum,
    failed: Option<Error>,
    control: Arc<Control>,
    notices: Notices,
    has_reported: bool,
}

/// Bytes that are collected before they are written unasked.
const FULL: usize = 64 * 1024;

/// A reader is waited for so long once the run is to end.
const LAST: Duration = Duration::from_secs(5);

/// A reader that takes nothing for this long is reported.
const SLOW: Duration = Duration::from_secs(2);

impl<L: Load> Direct<L> {
    /// Waits until `control` says that the run is to end.
    pub fn new(output: Box<dyn Output<L>>, control: Arc<Control>, notices: Notices) -> Self {
        Self {
            output,
            load: L::default(),
            written: Sum::default(),
            lost: Sum::default(),
            failed: None,
            control,
            notices,
            has_reported: false,
        }
    }

    /// Adds what `fill` does.
    pub fn add(&mut self, fill: impl FnOnce(&mut L)) {
        fill(&mut self.load);
        if self.load.bytes() >= FULL && self.failed.is_none() {
            self.write();
        }
    }

    /// Has the output take what there is.
    pub fn flush(&mut self) {
        if self.failed.is_none() {
            self.write();
            self.begin();
        }
    }

    /// Whether the output has failed, so that the run is to end.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Where the rows are.
    pub fn counts(&self) -> Counts {
        Counts {
            written: self.written,
            waiting: self.load.left(),
            lost: self.lost,
            waiting_bytes: self.load.bytes() as u64,
            failures: u64::from(self.failed.is_some()),
        }
    }

    /// Tries once more, also after an error: it may have passed. What is left is lost.
    pub fn close(&mut self) -> Result<(), Error> {
        self.write();
        self.begin();
        self.lost += self.load.left();
        self.load.clear();
        self.failed.take().map_or(Ok(()), Err)
    }

    fn write(&mut self) {
        let mut stopped = None;
        let mut begun = Instant::now();
        loop {
            let before = self.load.left();
            let written = self.output.write(&mut self.load);
            let taken = before - self.load.left();
            self.written += taken;
            let error = match written {
                Ok(()) => return,
                Err(e) => e,
            };
            if !error.is_wait() {
                self.failed.get_or_insert(error);
                return;
            }
            if taken.rows() > 0 {
                begun = Instant::now();
            }
            let is_absent = matches!(error, Error::NoReader { .. });
            if (is_absent || begun.elapsed() > SLOW)
                && !std::mem::replace(&mut self.has_reported, true)
            {
                self.notices.send(Notice::OutputFails { why: describe(&error) });
            }
            let has_waited = |since: Instant| since.elapsed() >= LAST;
            if self.control.is_stopped() && has_waited(*stopped.get_or_insert_with(Instant::now)) {
                self.failed.get_or_insert(error);
                return;
            }
            if is_absent {
                thread::sleep(WAIT);
            }
        }
    }

    /// The output may have to stand though there is no row.
    fn begin(&mut self) {
        if let Err(e) = self.output.flush()
            && !e.is_wait()
        {
            self.failed.get_or_insert(e);
        }
    }
}
