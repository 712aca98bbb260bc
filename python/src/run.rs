//! How do the flows of a run come to Python?
//!
//! In batches, as objects that are made when they are asked for.

use std::sync::{Arc, Mutex};

use crossbeam_channel::{Sender, bounded};
use flowmeter::fields::{Added, Value};
use flowmeter::flow::Flow;
use flowmeter::run::{self, Control};
use flowmeter::{Outlet, Plugins, Report};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use crate::flow::{NFlow, Shape, UDPS_PREFIX, to_python};
use crate::meter::{Error, Job, Meter, Reports, Warnings, causes, failed, lock};
use crate::options::{Options, Plan, Source};
use crate::plugins::{Outcome, PythonPlugins};

/// Flows in a batch of a capture. Live they are sent one by one.
const BATCH: usize = 64;
/// Batches that may wait.
const QUEUE: usize = 64;

/// A run of the meter, whose flows are iterated over.
#[pyclass(module = "flowmeter._engine", weakref)]
pub struct Run {
    shape: Arc<Shape>,
    outcome: Arc<Outcome>,
    has_plugins: bool,
    /// Names of what models give, as flows' udps have them.
    of_models: Vec<String>,
    batch: std::vec::IntoIter<Flow>,
    meter: Meter<Vec<Flow>>,
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
    let Plan { mut source, schema, of_models, damage } = options.plan()?;
    let shape = Arc::new(Shape::new(schema.without_added()));
    let name = |added: Added| added.name.trim_start_matches(UDPS_PREFIX).to_owned();
    let of_models = of_models.into_iter().map(name).collect();
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
    let (control, job): (_, Job) = match source {
        Source::Read(options) => {
            let run = run::Run::read(options.with_notices(warnings.notices()));
            let control = run.control();
            let outlet = outlet(sender, BATCH, Arc::clone(&control));
            (control, Box::new(move || run.to(outlet).run().map_err(failed)))
        }
        Source::Live(options) => {
            let interface = options.interfaces.join(", ");
            let options = options.with_notices(warnings.notices());
            let run = py.detach(|| run::Run::live(options)).map_err(|e| {
                PyValueError::new_err(format!("cannot meter {interface}: {}", causes(&e)))
            })?;
            let control = run.control();
            let outlet = outlet(sender, 1, Arc::clone(&control));
            (control, Box::new(move || run.to(outlet).run().map_err(failed)))
        }
    };
    let _ = outcome.control.set(Arc::clone(&control));
    let job = Box::new(move || below_a_frame(job));
    let meter = Meter::start(job, flows, control, warnings, damage)?;
    Ok(Run { shape, outcome, has_plugins, of_models, batch: Vec::new().into_iter(), meter })
}

/// Runs the meter in a thread that Python knows, below a frame of Python's: else each call of a plugin
/// would make the thread known, and have Python map its stack.
fn below_a_frame(run: Job) -> Result<Report, Error> {
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

fn outlet(sender: Sender<Vec<Flow>>, size: usize, control: Arc<Control>) -> Outlet {
    let mut batches = Batches { sender, batch: Vec::new(), size, control };
    Outlet::flows(move |flow| batches.add(flow))
}

#[pymethods]
impl Run {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Py<NFlow>>> {
        loop {
            if let Some(flow) = self.batch.next() {
                return self.object(py, flow).map(Some);
            }
            match self.meter.next(py) {
                Ok(Some(batch)) => self.batch = batch.into_iter(),
                ended => return self.outcome.take_error().map_or(ended, Err).map(|_| None),
            }
        }
    }

    /// Ends the run. Flows that were not iterated over are gone.
    fn close(&mut self, py: Python<'_>) {
        self.batch = Vec::new().into_iter();
        self.meter.close(py);
    }

    /// Who gives reports while it goes on.
    #[getter]
    fn reports(&self) -> Reports {
        self.meter.reports()
    }

    /// The last report, as JSON; none before the end.
    #[getter]
    fn report(&self) -> Option<&str> {
        self.meter.report()
    }
}

impl Run {
    /// The flow as Python has it.
    fn object(&self, py: Python<'_>, flow: Flow) -> PyResult<Py<NFlow>> {
        if !self.has_plugins && self.of_models.is_empty() {
            return Py::new(py, NFlow::new(&self.shape, flow, None));
        }
        let given: Vec<_> = flow.own.iter().map(|own| to_python(py, &Value::from(own))).collect();
        let object = self.with_udps(py, flow)?;
        if let Some(udps) = object.try_borrow(py)?.udps() {
            for (name, value) in self.of_models.iter().zip(given) {
                udps.setattr(py, name.as_str(), value?)?;
            }
        }
        Ok(object)
    }

    /// The flow with what plugins keep of it.
    fn with_udps(&self, py: Python<'_>, flow: Flow) -> PyResult<Py<NFlow>> {
        let Some(object) = self.outcome.finished(flow.record.uid) else {
            // Live the kernel may have had no room for it, or for any of its packets.
            let udps = py.import("flowmeter.flow")?.getattr("UDPS")?.call0()?.unbind();
            return Py::new(py, NFlow::new(&self.shape, flow, Some(udps)));
        };
        object.try_borrow_mut(py)?.flow.id = flow.id;
        Ok(object)
    }
}
