//! How do flows that have been through Python become a table?
//!
//! What was metered is collected by columns. What plugins have set, deleted or keep stays an object until
//! the end, when it is known which type all values of a column have.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema as ArrowSchema};
use flowmeter::fields::Value;
use flowmeter::fields::anonymize::Anonymizer;
use flowmeter::format::arrow::Rows;
use hashbrown::HashMap;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::csv::{Chosen, random_key};
use crate::flow::{NFlow, PROCESS, UDPS_PREFIX};
use crate::infer::{Object, Type, plain};
use crate::objects;
use crate::options::Options;
use crate::table::{Table, told};

/// Bytes of plugins' values behind which a batch is full.
const BYTES: usize = 64 << 20;

/// Collects flows.
#[pyclass(module = "flowmeter._engine")]
pub struct Collector {
    rows: Rows,
    batches: Vec<RecordBatch>,
    /// Flows in these and in `rows`.
    flows: usize,
    /// Bytes of plugins' values in `rows`.
    bytes: usize,
    /// The attributes of flows in order, once there is one.
    order: Vec<String>,
    /// Where the columns of all flows are among those that are collected.
    places: Vec<Option<usize>>,
    /// What was set in a flow, by its column; none if it was deleted.
    patches: HashMap<usize, Vec<(usize, Option<Py<PyAny>>)>>,
    /// What plugins keep, and what they have set that is not metered: the flow and the value, by name, in
    /// order of appearance.
    kept: Vec<(String, Vec<(usize, Py<PyAny>)>)>,
    /// Names of the columns, in order; none for all.
    columns: Option<Vec<String>>,
    hidden: Option<(Vec<String>, Anonymizer)>,
}

#[pymethods]
impl Collector {
    #[new]
    fn new(options: Options, chosen: Chosen) -> PyResult<Self> {
        // Those of models are among what flows keep by now.
        let all = options.plan()?.schema.without_added();
        let is_kept = |name: &String| name.starts_with(UDPS_PREFIX);
        let is_wanted = |name: &str| match &chosen.columns {
            Some(columns) => columns.iter().any(|column| column == name),
            None => true,
        };
        let names: Vec<String> = all.names().map(ToOwned::to_owned).collect();
        let wanted: Vec<&String> = names.iter().filter(|name| is_wanted(name)).collect();
        let places = names.iter().map(|name| wanted.iter().position(|w| *w == name)).collect();
        let mut schema = all.select(&wanted).map_err(crate::options::unknown)?;
        let mut hidden = None;
        if !chosen.columns_to_anonymize.is_empty() {
            let key = random_key()?;
            let names = &chosen.columns_to_anonymize;
            let ours: Vec<&String> = names.iter().filter(|name| !is_kept(name)).collect();
            schema = schema.anonymize(&ours, key.clone()).map_err(crate::options::unknown)?;
            hidden = Some((names.clone(), key));
        }
        Ok(Self {
            rows: Rows::new(Arc::new(schema)),
            batches: Vec::new(),
            flows: 0,
            bytes: 0,
            order: Vec::new(),
            places,
            patches: HashMap::new(),
            kept: Vec::new(),
            columns: chosen.columns,
            hidden,
        })
    }

    /// Adds a flow.
    fn add(&mut self, flow: PyRef<'_, NFlow>) -> PyResult<()> {
        let py = flow.py();
        self.rows.push(&flow.flow);
        if self.order.is_empty() {
            self.order = flow.shape.names().map(ToOwned::to_owned).collect();
        }
        for (place, value) in &flow.overlay {
            let value = value.as_ref().map(|value| value.clone_ref(py));
            match (flow.shape.column(*place), value) {
                (Some(column), value) => {
                    if let Some(column) = self.places.get(column).copied().flatten() {
                        self.patches.entry(column).or_default().push((self.flows, value));
                    }
                }
                (None, Some(value)) => {
                    let name = self.order.get(*place).cloned().unwrap_or_default();
                    self.keep(&name, plain(value.into_bound(py))?);
                }
                (None, None) => {}
            }
        }
        if let Some(udps) = &flow.udps {
            let own = udps.bind(py).getattr("__dict__")?.cast_into::<PyDict>()?;
            for (name, value) in own {
                self.keep(&format!("{UDPS_PREFIX}{}", name.str()?.to_cow()?), plain(value)?);
            }
        }
        self.flows += 1;
        if self.rows.is_full() || self.bytes >= BYTES {
            self.bytes = 0;
            self.batches.push(self.rows.take());
        }
        Ok(())
    }

    /// The table of what was collected, which is empty then.
    fn table(&mut self, py: Python<'_>) -> PyResult<Table> {
        if !self.rows.is_empty() {
            self.batches.push(self.rows.take());
        }
        let mut columns = self.metered(py)?;
        for (name, kept) in std::mem::take(&mut self.kept) {
            let mut values = vec![None; self.flows];
            for (row, value) in kept {
                values[row] = self.digested(&name, Some(value.into_bound(py)))?;
            }
            columns.push(self.inferred(&name, &values)?);
        }
        self.assembled(columns)
    }
}

/// A column with its values in each batch.
type Column = (Field, Vec<ArrayRef>);

impl Collector {
    fn keep(&mut self, name: &str, value: Bound<'_, PyAny>) {
        if self.columns.as_ref().is_some_and(|columns| !columns.iter().any(|c| c == name)) {
            return;
        }
        // About, as it is not known yet what it becomes.
        self.bytes += 8 * value.len().unwrap_or(1);
        let kept = (self.flows, value.unbind());
        match self.kept.iter_mut().find(|(known, _)| known == name) {
            Some((_, all)) => all.push(kept),
            None => self.kept.push((name.to_owned(), vec![kept])),
        }
    }

    /// The columns that were metered, with what was set in them. One that was deleted from all flows is
    /// not there, unless it was asked for.
    fn metered(&mut self, py: Python<'_>) -> PyResult<Vec<Column>> {
        let schema = self.rows.schema();
        let mut columns = Vec::new();
        for (place, field) in schema.fields().iter().enumerate() {
            let patches = self.patches.remove(&place).unwrap_or_default();
            let is_gone = patches.len() == self.flows && patches.iter().all(|(_, v)| v.is_none());
            if !patches.is_empty() && is_gone && self.columns.is_none() {
                continue;
            }
            let arrays = self.batches.iter().map(|batch| Arc::clone(batch.column(place)));
            if patches.is_empty() {
                columns.push((field.as_ref().clone(), arrays.collect()));
                continue;
            }
            let mut values = Vec::with_capacity(self.flows);
            for array in arrays {
                values.extend(objects::of(py, &array)?.into_iter().map(Some));
            }
            for (row, value) in patches {
                let value = value.map(|value| plain(value.into_bound(py))).transpose()?;
                values[row] = self.digested(field.name(), value)?;
            }
            columns.push(self.inferred(field.name(), &values)?);
        }
        Ok(columns)
    }

    /// A value, or its digest if the column is hidden.
    fn digested<'py>(&self, name: &str, value: Object<'py>) -> PyResult<Object<'py>> {
        let Some((hidden, key)) = &self.hidden else { return Ok(value) };
        let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(None) };
        if !hidden.iter().any(|hidden| hidden == name) {
            return Ok(Some(value));
        }
        let text = value.str()?;
        let digest = key.digest(&Value::Str(&text.to_string_lossy()));
        Ok(Some(PyString::new(value.py(), digest.as_str()).into_any()))
    }

    /// A column of the type that its values have.
    fn inferred(&self, name: &str, values: &[Object<'_>]) -> PyResult<Column> {
        let kind = values.iter().map(Type::of).fold(Type::Nothing, Type::with);
        let mut arrays = Vec::with_capacity(self.batches.len());
        let mut start = 0;
        for batch in &self.batches {
            let end = start + batch.num_rows();
            arrays.push(kind.array(&values[start..end])?);
            start = end;
        }
        Ok((Field::new(name, kind.data_type(), true), arrays))
    }

    /// Where a column stands among others, as in `NFlow.keys()`: what plugins keep before the process.
    fn rank(&self, name: &str) -> usize {
        let is_kept = name.starts_with(UDPS_PREFIX);
        let name = if is_kept { PROCESS } else { name };
        let place = self.order.iter().position(|known| known == name);
        place.map_or(usize::MAX, |place| 2 * place + usize::from(!is_kept))
    }

    /// The columns in the order that was asked for.
    fn assembled(&mut self, mut columns: Vec<Column>) -> PyResult<Table> {
        if let Some(names) = &self.columns {
            let mut found = Vec::with_capacity(names.len());
            for name in names {
                match columns.iter().position(|(field, _)| field.name() == name) {
                    Some(place) => found.push(columns.swap_remove(place)),
                    None if self.flows == 0 => {
                        found.push((Field::new(name, DataType::Null, true), Vec::new()));
                    }
                    None => {
                        let text = format!("columns has {name:?}, which no flow has.");
                        return Err(PyValueError::new_err(text));
                    }
                }
            }
            columns = found;
        } else {
            columns.sort_by_key(|(field, _)| self.rank(field.name()));
        }
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let schema = Arc::new(ArrowSchema::new(fields));
        let batches = (0..self.batches.len()).map(|n| {
            let arrays = arrays.iter().map(|batches: &Vec<ArrayRef>| Arc::clone(&batches[n]));
            RecordBatch::try_new(Arc::clone(&schema), arrays.collect()).map_err(told)
        });
        let batches = batches.collect::<PyResult<_>>()?;
        Ok(Table::new(schema, batches))
    }
}
