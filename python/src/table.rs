//! How does a whole run become a table?

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
use flowmeter::{Outlet, Plugins, Report};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::options::{Options, Source};
use crate::run::{Warnings, causes, verdict};

/// How a run has ended.
type Ended = Result<Report, Failed<run::read::Error>>;

/// How often it is looked whether the run is over, or a signal has come.
const LOOK: Duration = Duration::from_millis(2);

/// Why libpcap does not take a filter; none if it does.
#[pyfunction]
pub fn filter_error(expression: &str) -> Option<String> {
    Filter::new(expression).err().map(|e| e.to_string())
}

/// Writes the flows of captures to a file as CSV. Gives how many there were.
#[pyfunction]
pub fn csv_file(
    py: Python<'_>,
    options: Options,
    path: PathBuf,
    columns_to_anonymize: Vec<String>,
) -> PyResult<u64> {
    let source = options.source(Plugins::default());
    let schema = Arc::new(schema(&source, &columns_to_anonymize)?);
    let format = Kind::Csv.of(schema);
    let destination = output::Options::new(Destination::File(path));
    let file = Later { destination, format: Arc::clone(&format), files: None };
    let outlet = Outlet::rows("the file", format, Box::new(file));
    read(py, source, outlet)
}

/// The flows of captures as CSV in memory, and how many there were.
#[pyfunction]
pub fn csv_text(
    py: Python<'_>,
    options: Options,
    columns_to_anonymize: Vec<String>,
) -> PyResult<(Bound<'_, PyBytes>, u64)> {
    let source = options.source(Plugins::default());
    let schema = Arc::new(schema(&source, &columns_to_anonymize)?);
    let format = Kind::Csv.of(schema);
    let text = Arc::new(Mutex::new(format.head()));
    let outlet = Outlet::rows("memory", format, Box::new(Memory(Arc::clone(&text))));
    let flows = read(py, source, outlet)?;
    let text = text.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((PyBytes::new(py, &text), flows))
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

fn schema(source: &Source, hidden: &[String]) -> PyResult<Schema> {
    let schema = Schema::new(source.columns());
    if hidden.is_empty() {
        return Ok(schema);
    }
    let key = Anonymizer::random().map_err(|e| PyOSError::new_err(e.to_string()))?;
    schema.anonymize(hidden, key).map_err(|e| PyValueError::new_err(e.to_string()))
}

/// Runs the meter, without the GIL. SIGINT ends it; what was metered until then is in the table.
fn read(py: Python<'_>, source: Source, outlet: Outlet) -> PyResult<u64> {
    let Source::Read(options) = source else {
        return Err(PyValueError::new_err("an interface is iterated over"));
    };
    let warnings = Warnings::default();
    let run = run::Run::read(options.with_notices(warnings.notices())).to(outlet);
    let control = run.control();
    let ended = py.detach(|| wait_for(run, &control));
    warnings.say(py)?;
    match ended {
        Ok(Ok(report)) => Ok(report.given.flows),
        Ok(Err(Failed { error, report })) => {
            let given = report.as_ref().map_or(0, |report| report.given.flows);
            match error {
                run::read::Error::Output(_) => Err(PyOSError::new_err(causes(&error))),
                _ if control.is_stopped() => Ok(given),
                _ => verdict(py, &causes(&error), report.as_deref()).map(|()| given),
            }
        }
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
