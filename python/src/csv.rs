//! How does a whole run become text?

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use flowmeter::capture::pcap::filter::Filter;
use flowmeter::fields::Schema;
use flowmeter::fields::anonymize::Anonymizer;
use flowmeter::format::{Format, Kind};
use flowmeter::output::{self, Batch, Destination, Files, Load as _, Output};
use flowmeter::run::{self, Control, Failed};
use flowmeter::{Outlet, Report};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::meter::{Damage, Warnings, causes, verdict};
use crate::options::{Options, Source, unknown};

/// How a run has ended.
type Ended = Result<Report, Failed<run::read::Error>>;

/// How often it is looked whether the run is over, or a signal has come.
const LOOK: Duration = Duration::from_millis(2);

/// Why libpcap does not take a filter; none if it does.
#[pyfunction]
pub fn filter_error(expression: &str) -> Option<String> {
    Filter::new(expression).err().map(|e| e.to_string())
}

/// Writes the flows of captures to a file as CSV. Gives how many there were, and the report.
#[pyfunction]
pub fn csv_file(
    py: Python<'_>,
    options: Options,
    path: PathBuf,
    chosen: Chosen,
) -> PyResult<(u64, Option<String>)> {
    let plan = options.plan()?;
    let schema = chosen.of(plan.schema)?;
    let source = plan.source.with_needs_ids(schema.is_anonymized("id"));
    let format = Kind::Csv.of(Arc::new(schema));
    let destination = output::Options::new(Destination::File(path));
    let file = Later { destination, format: Arc::clone(&format), files: None };
    let outlet = Outlet::rows("the file", format, Box::new(file));
    read(py, source, plan.damage, outlet)
}

/// The flows of captures as CSV in memory, how many there were, and the report.
#[pyfunction]
pub fn csv_text(
    py: Python<'_>,
    options: Options,
    chosen: Chosen,
) -> PyResult<(Bound<'_, PyBytes>, u64, Option<String>)> {
    let plan = options.plan()?;
    let schema = chosen.of(plan.schema)?;
    let source = plan.source.with_needs_ids(schema.is_anonymized("id"));
    let format = Kind::Csv.of(Arc::new(schema));
    let text = Arc::new(Mutex::new(format.head()));
    let outlet = Outlet::rows("memory", format, Box::new(Memory(Arc::clone(&text))));
    let (flows, report) = read(py, source, plan.damage, outlet)?;
    let text = text.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((PyBytes::new(py, &text), flows, report))
}

/// A file that is opened for its first row: without flows it stays as it was.
struct Later {
    destination: output::Options,
    format: Arc<dyn Format>,
    files: Option<Files>,
}

impl Output for Later {
    fn write(&mut self, batch: &mut Batch) -> Result<(), output::Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let files = match &mut self.files {
            Some(files) => files,
            none => {
                let files = Files::open(self.destination.clone(), self.format.as_ref())?;
                none.insert(files)
            }
        };
        files.write(batch)
    }
}

/// Rows in memory.
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Output for Memory {
    fn write(&mut self, batch: &mut Batch) -> Result<(), output::Error> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(batch.rest());
        batch.clear();
        Ok(())
    }
}

/// Which columns are wanted, and how.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Chosen {
    /// Their names in order; none for all.
    pub columns: Option<Vec<String>>,
    /// Those whose values are hidden.
    pub columns_to_anonymize: Vec<String>,
}

impl Chosen {
    /// The columns of `all` that are wanted.
    pub fn of(&self, all: Schema) -> PyResult<Schema> {
        let schema = match &self.columns {
            Some(names) => all.select(names).map_err(unknown)?,
            None => all,
        };
        if self.columns_to_anonymize.is_empty() {
            return Ok(schema);
        }
        schema.anonymize(&self.columns_to_anonymize, random_key()?).map_err(unknown)
    }
}

/// A key for this table alone.
pub fn random_key() -> PyResult<Anonymizer> {
    Anonymizer::random().map_err(|e| PyOSError::new_err(e.to_string()))
}

/// Runs the meter, without the GIL. SIGINT ends it; what was metered until then is in the table.
fn read(
    py: Python<'_>,
    source: Source,
    damage: Damage,
    outlet: Outlet,
) -> PyResult<(u64, Option<String>)> {
    let Source::Read(options) = source else {
        return Err(PyValueError::new_err("an interface is iterated over"));
    };
    let warnings = Warnings::default();
    let run = run::Run::read(options.with_notices(warnings.notices())).to(outlet);
    let control = run.control();
    let ended = py.detach(|| wait_for(run, &control));
    warnings.say(py)?;
    let given = |report: Option<&Report>| {
        let flows = report.map_or(0, |report| report.given.flows);
        (flows, report.map(|report| report.json().to_string()))
    };
    match ended {
        Ok(Ok(report)) => Ok(given(Some(&report))),
        Ok(Err(Failed { error, report })) => match error {
            run::read::Error::Output(_) => Err(PyOSError::new_err(causes(&error))),
            _ if control.is_stopped() => Ok(given(report.as_deref())),
            _ => {
                verdict(py, &causes(&error), report.as_deref(), damage)?;
                Ok(given(report.as_deref()))
            }
        },
        Err(_) => Err(PyRuntimeError::new_err("the meter panicked, which is a fault of flowmeter")),
    }
}

/// Lets a run go on in another thread, and this one look for signals.
fn wait_for(run: run::Read, control: &Control) -> thread::Result<Ended> {
    thread::scope(|scope| {
        let meter = scope.spawn(|| run.run());
        while !meter.is_finished() {
            thread::sleep(LOOK);
            let asked = Python::attach(|py| {
                let signals = py.check_signals();
                signals.is_err()
            });
            if asked {
                control.stop();
            }
        }
        meter.join()
    })
}
