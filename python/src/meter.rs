//! How does what the meter makes come to Python?
//!
//! The meter runs in a thread of its own, without the GIL, and sends what it makes through a channel.
//! Whoever wants it waits without the GIL too.

use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use flowmeter::notice::Level;
use flowmeter::report::Of;
use flowmeter::run::{Control, Failed};
use flowmeter::{Notice, Notices, Report};
use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;

/// How often signals are looked for while nothing comes.
const LOOK: Duration = Duration::from_millis(100);

/// Why a run ended, and its last report.
pub type Error = (String, Option<Box<Report>>);

/// A run that goes on in a thread of its own.
pub type Job = Box<dyn FnOnce() -> Result<Report, Error> + Send>;

/// A meter that runs, and what comes of it.
pub struct Meter<T> {
    control: Arc<Control>,
    items: Option<Receiver<T>>,
    thread: Option<JoinHandle<Result<Report, Error>>>,
    warnings: Warnings,
    damage: Damage,
    report: Option<String>,
}

/// What an error behind the first frames of a capture is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// A warning: NFStream gives the flows before it, and says nothing.
    Warns,
    /// An error.
    Raises,
}

impl<T: Send> Meter<T> {
    /// Has `job` run. What it makes comes through `items`, and its warnings are among `warnings`.
    pub fn start(
        job: Job,
        items: Receiver<T>,
        control: Arc<Control>,
        warnings: Warnings,
        damage: Damage,
    ) -> PyResult<Self> {
        let thread = Builder::new().name("flowmeter".into()).spawn(job);
        let thread = thread
            .map_err(|e| PyRuntimeError::new_err(format!("failed to start a thread: {e}")))?;
        let (items, thread) = (Some(items), Some(thread));
        Ok(Self { control, items, thread, warnings, damage, report: None })
    }

    /// What comes next; none at the end.
    pub fn next(&mut self, py: Python<'_>) -> PyResult<Option<T>> {
        loop {
            let Some(items) = &self.items else { return Ok(None) };
            match py.detach(|| items.recv_timeout(LOOK)) {
                Ok(item) => {
                    self.warnings.say(py)?;
                    return Ok(Some(item));
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.warnings.say(py)?;
                    self.look_for_signals(py)?;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.items = None;
                    self.end(py)?;
                }
            }
        }
    }

    /// Ends the run. What has not been taken is gone.
    pub fn close(&mut self, py: Python<'_>) {
        self.control.stop();
        self.items = None;
        if let Some(thread) = self.thread.take() {
            let ended = py.detach(|| thread.join());
            self.keep_report(ended.ok());
        }
    }

    /// The last report, as JSON; none before the end.
    pub fn report(&self) -> Option<&str> {
        self.report.as_deref()
    }

    /// Who gives reports while it goes on.
    pub fn reports(&self) -> Reports {
        Reports(Arc::clone(&self.control))
    }

    /// SIGINT ends the run; what it has made comes yet.
    fn look_for_signals(&self, py: Python<'_>) -> PyResult<()> {
        match py.check_signals() {
            Err(e) if e.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py) => {
                self.control.stop();
                Ok(())
            }
            other => other,
        }
    }

    fn end(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = py.detach(|| thread.join());
        let was_asked = self.control.is_stopped();
        let Ok(ended) = ended else {
            return Err(PyRuntimeError::new_err(
                "the meter panicked, which is a fault of flowmeter",
            ));
        };
        let verdict = match &ended {
            Err((text, report)) if !was_asked => verdict(py, text, report.as_deref(), self.damage),
            _ => Ok(()),
        };
        self.keep_report(Some(ended));
        verdict.and(self.warnings.say(py))
    }

    fn keep_report(&mut self, ended: Option<Result<Report, Error>>) {
        let report = match ended {
            Some(Ok(report)) => Some(Box::new(report)),
            Some(Err((_, report))) => report,
            None => None,
        };
        self.report = report.map(|report| report.json().to_string());
    }
}

impl<T> Drop for Meter<T> {
    /// Who has not closed it wants nothing more of it.
    fn drop(&mut self) {
        self.control.stop();
    }
}

/// Gives reports of an interface's run.
#[pyclass(module = "flowmeter._engine", frozen)]
pub struct Reports(Arc<Control>);

#[pymethods]
impl Reports {
    /// What has been counted until now, as JSON; none if the run is over.
    fn ask(&self, py: Python<'_>) -> Option<String> {
        let report = py.detach(|| self.0.report());
        report.map(|report| report.json().to_string())
    }
}

/// What is missing or lost, until it is said as a warning of Python's.
#[derive(Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Takes the meter's notices.
    pub fn notices(&self) -> Notices {
        let warnings = Arc::clone(&self.0);
        Notices::new(move |notice: Notice| {
            if notice.level() == Level::Warning {
                lock(&warnings).push(notice.to_string());
            }
        })
    }

    /// Says those that have come. An error if Python is to take warnings for such.
    pub fn say(&self, py: Python<'_>) -> PyResult<()> {
        let texts = std::mem::take(&mut *lock(&self.0));
        texts.iter().try_for_each(|text| warn(py, text))
    }
}

/// A warning of Python's.
pub fn warn(py: Python<'_>, text: &str) -> PyResult<()> {
    // It has no zero bytes, or they are the capture's name's.
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)
}

/// What an error means for whoever wants the flows.
pub fn verdict(
    py: Python<'_>,
    error: &str,
    report: Option<&Report>,
    damage: Damage,
) -> PyResult<()> {
    let is_begun = |report: &Report| match &report.of {
        Of::Read(read) => read.tally.seen > 0,
        Of::Live(_) => false,
    };
    if damage == Damage::Warns && report.is_some_and(is_begun) {
        return warn(py, error);
    }
    Err(PyValueError::new_err(error.to_owned()))
}

/// Why a run has failed, in a line, and what it had counted.
pub fn failed<E: std::error::Error>(failed: Failed<E>) -> Error {
    (causes(&failed.error), failed.report)
}

/// An error with what led to it.
pub fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What is in it, whatever has happened to another thread.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
