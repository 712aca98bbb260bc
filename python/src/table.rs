//! How does a whole run become a table by columns?
//!
//! In Arrow's form, which other libraries take as it is: a table has Arrow's capsule interface.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchIterator, RecordBatchReader};
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{ArrowError, SchemaRef};
use crossbeam_channel::{Sender, bounded};
use flowmeter::flow::Flow;
use flowmeter::format::arrow::Rows;
use flowmeter::output::parquet::Parquet;
use flowmeter::output::{Error, describe};
use flowmeter::run::{self, Control};
use flowmeter::{Outlet, ReadOptions};
use pyo3::exceptions::{PyKeyError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyList};

use crate::arrays::{self, Parts};
use crate::csv::Chosen;
use crate::meter::{Damage, Meter, Warnings, failed};
use crate::objects;
use crate::options::{Options, Plan, Source};

/// Batches that may wait.
const QUEUE: usize = 2;

/// Flows as a table with typed columns.
///
/// pyarrow, polars, duckdb and pandas take it as it is: `pyarrow.table(table)`, `polars.DataFrame(table)`.
#[pyclass(module = "flowmeter", frozen)]
pub struct Table {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Table {
    /// Of these batches, which have the columns of `schema`.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self { schema, batches }
    }

    /// How many flows there are.
    fn len(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The values of the column at a place.
    fn arrays(&self, place: usize) -> Vec<&ArrayRef> {
        self.batches.iter().map(|batch| batch.column(place)).collect()
    }
}

#[pymethods]
impl Table {
    /// How many flows there are.
    #[getter]
    fn num_rows(&self) -> usize {
        self.len()
    }

    /// How many columns there are.
    #[getter]
    fn num_columns(&self) -> usize {
        self.schema.fields().len()
    }

    /// The names of the columns, in order.
    #[getter]
    fn column_names(&self) -> Vec<&str> {
        self.schema.fields().iter().map(|field| field.name().as_str()).collect()
    }

    fn __len__(&self) -> usize {
        self.len()
    }

    fn __repr__(&self) -> String {
        format!("<flowmeter.Table: {} flows, {} columns>", self.len(), self.num_columns())
    }

    /// The values of a column as a list; `None` where there is none.
    fn column<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyList>> {
        let place = self.schema.index_of(name).map_err(|_| PyKeyError::new_err(name.to_owned()))?;
        objects::list(py, &self.arrays(place))
    }

    /// The columns as Arrow's C schema.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.schema.as_ref()).map_err(told)?;
        PyCapsule::new_with_value(py, schema, c"arrow_schema")
    }

    /// The table as Arrow's C stream. Whatever schema is requested, the table's own is given.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        drop(requested_schema);
        let batches = self.batches.clone().into_iter().map(Ok);
        capsule(py, RecordBatchIterator::new(batches, Arc::clone(&self.schema)))
    }

    /// Of each column its name, the type as numpy names it or else `text` or `object`, its values (the bytes
    /// of an array, or a list), and of arrays where a value is missing, if any is.
    fn _columns<'py>(&self, py: Python<'py>) -> PyResult<Vec<Parts<'py>>> {
        let fields = self.schema.fields().iter().enumerate();
        fields.map(|(place, field)| arrays::parts(py, field, &self.arrays(place))).collect()
    }

    /// Writes the table to a Parquet file, if it has rows. Gives how many.
    fn write_parquet(&self, py: Python<'_>, path: PathBuf) -> PyResult<usize> {
        if self.len() > 0 {
            py.detach(|| {
                let mut file = Parquet::create(&path, Arc::clone(&self.schema))?;
                self.batches.iter().try_for_each(|batch| file.write(batch))?;
                file.finish()
            })
            .map_err(not_written)?;
        }
        Ok(self.len())
    }
}

/// A whole run, as batches.
pub struct Batches {
    schema: SchemaRef,
    meter: Meter<RecordBatch>,
}

impl Batches {
    fn start(options: Options, chosen: &Chosen) -> PyResult<Self> {
        let Plan { source, schema, damage, .. } = options.plan()?;
        let schema = chosen.of(schema)?;
        let Source::Read(options) = source else {
            return Err(PyValueError::new_err("an interface is iterated over"));
        };
        Self::read(options, Rows::new(Arc::new(schema)), damage)
    }

    fn read(options: ReadOptions, rows: Rows, damage: Damage) -> PyResult<Self> {
        let warnings = Warnings::default();
        let run = run::Run::read(options.with_notices(warnings.notices()));
        let control = run.control();
        let schema = rows.schema();
        let (sender, batches) = bounded(QUEUE);
        let mut collected = Collected { rows, sender, control: Arc::clone(&control) };
        let outlet = Outlet::flows(move |flow| collected.add(&flow));
        let job = Box::new(move || run.to(outlet).run().map_err(failed));
        let meter = Meter::start(job, batches, control, warnings, damage)?;
        Ok(Self { schema, meter })
    }

    fn report(&self) -> Option<String> {
        self.meter.report().map(ToOwned::to_owned)
    }
}

/// Collects flows to batches, and sends what is left at last.
struct Collected {
    rows: Rows,
    sender: Sender<RecordBatch>,
    control: Arc<Control>,
}

impl Collected {
    fn add(&mut self, flow: &Flow) {
        self.rows.push(flow);
        if self.rows.is_full() {
            self.send();
        }
    }

    fn send(&mut self) {
        // Nobody wants flows any more.
        if !self.rows.is_empty() && self.sender.send(self.rows.take()).is_err() {
            self.control.stop();
        }
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        self.send();
    }
}

/// The flows of captures as a table, and the report.
#[pyfunction]
pub fn table(
    py: Python<'_>,
    options: Options,
    chosen: Chosen,
) -> PyResult<(Table, Option<String>)> {
    let mut run = Batches::start(options, &chosen)?;
    let mut batches = Vec::new();
    while let Some(batch) = run.meter.next(py)? {
        batches.push(batch);
    }
    let report = run.report();
    Ok((Table::new(run.schema, batches), report))
}

/// Writes the flows of captures to a Parquet file, if there are any. Gives how many, and the report.
#[pyfunction]
pub fn parquet_file(
    py: Python<'_>,
    options: Options,
    path: PathBuf,
    chosen: Chosen,
) -> PyResult<(u64, Option<String>)> {
    let mut run = Batches::start(options, &chosen)?;
    let mut file = None;
    let mut flows = 0;
    while let Some(batch) = run.meter.next(py)? {
        flows += batch.num_rows() as u64;
        let written = py.detach(|| add(&mut file, &path, &batch));
        written.map_err(not_written)?;
    }
    if let Some(file) = file {
        py.detach(|| file.finish()).map_err(not_written)?;
    }
    Ok((flows, run.report()))
}

/// Adds a batch to a file, which is made for the first.
fn add(file: &mut Option<Parquet>, path: &Path, batch: &RecordBatch) -> Result<(), Error> {
    let file = match file {
        Some(file) => file,
        none => none.insert(Parquet::create(path, batch.schema())?),
    };
    file.write(batch)
}

fn not_written(error: Error) -> PyErr {
    PyOSError::new_err(describe(&error))
}

/// The flows of captures as Arrow's C stream, which meters while it is read. At its end `done` is
/// called with the report.
#[pyfunction]
pub fn arrow_stream(
    py: Python<'_>,
    options: Options,
    chosen: Chosen,
    done: Py<PyAny>,
) -> PyResult<Bound<'_, PyCapsule>> {
    let run = Batches::start(options, &chosen)?;
    capsule(py, Reader { run, done: Some(done) })
}

/// Reads a run's batches, wherever it is called from.
struct Reader {
    run: Batches,
    done: Option<Py<PyAny>>,
}

impl Iterator for Reader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Whether or not the reader has the GIL, the meter waits without it.
        let next = Python::try_attach(|py| {
            let next = self.run.meter.next(py);
            if !matches!(next, Ok(Some(_)))
                && let Some(done) = self.done.take()
            {
                done.call1(py, (self.run.report(),))?;
            }
            next
        });
        let ended = || ArrowError::CDataInterface("the interpreter has ended".into());
        let next = next
            .ok_or_else(ended)
            .and_then(|next| next.map_err(|e: PyErr| ArrowError::ExternalError(Box::new(e))));
        next.transpose()
    }
}

impl RecordBatchReader for Reader {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.run.schema)
    }
}

fn capsule<R>(py: Python<'_>, reader: R) -> PyResult<Bound<'_, PyCapsule>>
where
    R: RecordBatchReader + Send + 'static,
{
    let stream = FFI_ArrowArrayStream::new(Box::new(reader));
    PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
}

/// An error of Arrow's.
pub fn told(error: ArrowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
