//! How do the flows of a run come to Python?
//!
//! The meter runs in a thread of its own, without the GIL, and sends flows in batches. Whoever iterates
//! waits for them, without the GIL too.

use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use flowmeter::fields::Schema;
use flowmeter::flow::Flow;
use flowmeter::notice::Level;
use flowmeter::report::Of;
use flowmeter::run::{self, Control, Failed};
use flowmeter::{Notice, Notices, Outlet, Plugins, Report};
use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use crate::flow::{NFlow, Shape};
use crate::options::{Options, Source};
use crate::plugins::{Outcome, PythonPlugins};

/// Flows in a batch of a capture. Live they are sent one by one.
const BATCH: usize = 64;
/// Batches that may wait.
const QUEUE: usize = 64;
/// How often signals are looked for while nothing comes.
const LOOK: Duration = Duration::from_millis(100);

/// A run of the meter, whose flows are iterated over.
#[pyclass(module = "flowmeter._engine", weakref)]
pub struct Run {
    shape: Arc<Shape>,
    outcome: Arc<Outcome>,
    has_plugins: bool,
    control: Arc<Control>,
    flows: Option<Receiver<Vec<Flow>>>,
    batch: std::vec::IntoIter<Flow>,
    meter: Option<JoinHandle<Result<Report, Error>>>,
    warnings: Warnings,
    report: Option<String>,
}

/// Why a run ended, and its last report.
type Error = (String, Option<Box<Report>>);

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

fn warn(py: Python<'_>, text: &str) -> PyResult<()> {
    // It has no zero bytes, or they are the capture's name's.
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)
}

/// What an error means for whoever wants the flows. What is wrong with a capture behind some frames
/// that were read is a warning, as NFStream gives those and says nothing.
pub fn verdict(py: Python<'_>, error: &str, report: Option<&Report>) -> PyResult<()> {
    let is_begun = |report: &Report| match &report.of {
        Of::Read(read) => read.tally.seen > 0,
        Of::Live(_) => false,
    };
    if report.is_some_and(is_begun) {
        return warn(py, error);
    }
    Err(PyValueError::new_err(error.to_owned()))
}

/// Collects flows, and sends those that are left at last.
struct Batches {
    sender: Sender<Vec<Flow>>,
    batch: Vec<Flow>,
    size: usize,
    control: Arc<Control>,
}

impl Batches {
    fn add(&mut self, flow: Flow) {
        self.batch.push(flow);
        if self.batch.len() >= self.size {
            self.send();
        }
    }

    fn send(&mut self) {
        let next = Vec::with_capacity(self.size);
        let batch = std::mem::replace(&mut self.batch, next);
        // Nobody wants flows any more.
        if !batch.is_empty() && self.sender.send(batch).is_err() {
            self.control.stop();
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.send();
    }
}

/// Starts a run. `plugins` are of the class `NFPlugin`.
#[pyfunction]
pub fn meter(py: Python<'_>, options: Options, plugins: Vec<Py<PyAny>>) -> PyResult<Run> {
    let has_plugins = !plugins.is_empty();
    let outcome = Arc::new(Outcome::default());
    let mut source = options.source(Plugins::default());
    let shape = Arc::new(Shape::new(Schema::new(source.columns())));
    if has_plugins {
        let ours = PythonPlugins::new(py, &plugins, Arc::clone(&shape), Arc::clone(&outcome))?;
        let ours = Plugins::default().with(ours).prompt();
        match &mut source {
            Source::Read(options) => {
                options.plugins = ours;
                // The plugins' own state is one.
                options.n_meters = 1;
            }
            Source::Live(options) => options.plugins = ours,
        }
    }
    let warnings = Warnings::default();
    let (sender, flows) = bounded(QUEUE);
    let spawn = |run: Box<dyn FnOnce() -> Result<Report, Error> + Send>| {
        let meter = Builder::new().name("flowmeter".into()).spawn(move || below_a_frame(run));
        meter.map_err(|e| PyRuntimeError::new_err(format!("failed to start a thread: {e}")))
    };
    let (control, meter) = match source {
        Source::Read(options) => {
            let run = run::Run::read(options.with_notices(warnings.notices()));
            let control = run.control();
            let outlet = outlet(sender, BATCH, Arc::clone(&control));
            (control, spawn(Box::new(move || run.to(outlet).run().map_err(failed)))?)
        }
        Source::Live(options) => {
            let interface = options.interfaces.join(", ");
            let options = options.with_notices(warnings.notices());
            let run = py.detach(|| run::Run::live(options)).map_err(|e| {
                PyValueError::new_err(format!("cannot meter {interface}: {}", causes(&e)))
            })?;
            let control = run.control();
            let outlet = outlet(sender, 1, Arc::clone(&control));
            (control, spawn(Box::new(move || run.to(outlet).run().map_err(failed)))?)
        }
    };
    let _ = outcome.control.set(Arc::clone(&control));
    Ok(Run {
        shape,
        outcome,
        has_plugins,
        control,
        flows: Some(flows),
        batch: Vec::new().into_iter(),
        meter: Some(meter),
        warnings,
        report: None,
    })
}

/// Runs the meter in a thread that Python knows, below a frame of Python's: else each call of a plugin
/// would make the thread known, and have Python map its stack.
fn below_a_frame(run: Box<dyn FnOnce() -> Result<Report, Error> + Send>) -> Result<Report, Error> {
    let ended = Arc::new(Mutex::new(None));
    let (run, result) = (Mutex::new(Some(run)), Arc::clone(&ended));
    let called = Python::attach(|py| {
        let call = PyCFunction::new_closure(py, None, None, move |arguments, _| {
            if let Some(run) = lock(&run).take() {
                *lock(&result) = Some(arguments.py().detach(run));
            }
        })?;
        py.import("flowmeter.plugin")?.getattr("_call")?.call1((call,)).map(drop)
    });
    let ended = lock(&ended).take();
    ended.unwrap_or_else(|| {
        let why = called.err().map_or("the meter did not run".to_owned(), |e| e.to_string());
        Err((why, None))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn outlet(sender: Sender<Vec<Flow>>, size: usize, control: Arc<Control>) -> Outlet {
    let mut batches = Batches { sender, batch: Vec::new(), size, control };
    Outlet::flows(move |flow| batches.add(flow))
}

fn failed<E: std::error::Error>(failed: Failed<E>) -> Error {
    (causes(&failed.error), failed.report)
}

/// An error with what led to it.
pub fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[pymethods]
impl Run {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Py<NFlow>>> {
        loop {
            if let Some(flow) = self.batch.next() {
                if !self.has_plugins {
                    return Py::new(py, NFlow::new(&self.shape, flow, None)).map(Some);
                }
                let Some(object) = self.outcome.finished(flow.record.uid) else {
                    // Live the kernel may have had no room for it, or for any of its packets.
                    let udps = py.import("flowmeter.flow")?.getattr("UDPS")?.call0()?.unbind();
                    return Py::new(py, NFlow::new(&self.shape, flow, Some(udps))).map(Some);
                };
                object.try_borrow_mut(py)?.flow.id = flow.id;
                return Ok(Some(object));
            }
            let Some(flows) = &self.flows else { return Ok(None) };
            match py.detach(|| flows.recv_timeout(LOOK)) {
                Ok(batch) => {
                    self.batch = batch.into_iter();
                    self.warnings.say(py)?;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.warnings.say(py)?;
                    self.look_for_signals(py)?;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.flows = None;
                    self.end(py)?;
                }
            }
        }
    }

    /// Ends the run. Flows that were not iterated over are gone.
    fn close(&mut self, py: Python<'_>) {
        self.control.stop();
        self.flows = None;
        self.batch = Vec::new().into_iter();
        if let Some(meter) = self.meter.take() {
            let ended = py.detach(|| meter.join());
            self.keep_report(ended.ok());
        }
    }

    /// The last report, as JSON; none before the end.
    #[getter]
    fn report(&self) -> Option<String> {
        self.report.clone()
    }
}

impl Drop for Run {
    /// Who has not closed it wants nothing more of it.
    fn drop(&mut self) {
        self.control.stop();
    }
}

impl Run {
    /// SIGINT ends the run; flows that it has come yet.
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
        let Some(meter) = self.meter.take() else { return Ok(()) };
        let ended = py.detach(|| meter.join());
        let was_asked = self.control.is_stopped();
        let Ok(ended) = ended else {
            return Err(PyRuntimeError::new_err(
                "the meter panicked, which is a fault of flowmeter",
            ));
        };
        let verdict = match &ended {
            Err((text, report)) if !was_asked => verdict(py, text, report.as_deref()),
            _ => Ok(()),
        };
        self.keep_report(Some(ended));
        self.outcome.take_error().map_or(verdict, Err).and(self.warnings.say(py))
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
