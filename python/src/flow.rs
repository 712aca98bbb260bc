//! What is a flow to Python?
//!
//! An object with NFStream's attributes. They are made when they are asked for; what was set or
//! deleted stands before what was metered.

use std::sync::Arc;

use flowmeter::fields::Schema;
use flowmeter::fields::sequence::seconds;
use flowmeter::fields::value::Value;
use flowmeter::flow::Flow;
use hashbrown::HashMap;
use pyo3::exceptions::PyAttributeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt, PyList, PyString};

/// The attributes that flows of a run can have, by their names.
pub struct Shape {
    schema: Schema,
    /// In order: the columns of the run, and NFStream's others where they would stand.
    slots: Vec<Slot>,
    places: HashMap<String, usize>,
}

/// An attribute.
struct Slot {
    name: String,
    /// Its column, if the run has it. The others are there when they have been set.
    column: Option<usize>,
}

impl Shape {
    /// Of flows with these columns.
    pub fn new(schema: Schema) -> Self {
        let slot =
            |(column, name): (usize, &str)| Slot { name: name.to_owned(), column: Some(column) };
        let mut slots: Vec<_> = schema.names().enumerate().map(slot).collect();
        let mut next = 0;
        for name in every_column().names() {
            if let Some(place) = slots.iter().position(|slot| slot.name == name) {
                next = place + 1;
            } else {
                slots.insert(next, Slot { name: name.to_owned(), column: None });
                next += 1;
            }
        }
        let places = slots.iter().enumerate().map(|(i, slot)| (slot.name.clone(), i)).collect();
        Self { schema, slots, places }
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(|slot| slot.name.as_str())
    }

    /// Which column of the run the attribute at a place is.
    pub fn column(&self, place: usize) -> Option<usize> {
        self.slots.get(place)?.column
    }
}

/// NFStream's columns.
fn every_column() -> Schema {
    Schema::new(flowmeter::fields::Options {
        statistics: true,
        splt: 1,
        visibility: true,
        extras: false,
        ..flowmeter::fields::Options::DEFAULT
    })
}

/// A flow: NFStream's `NFlow`.
#[pyclass(name = "NFlow", module = "flowmeter.flow", weakref)]
pub struct NFlow {
    /// Its columns.
    pub shape: Arc<Shape>,
    /// As metered.
    pub flow: Flow,
    /// What was set, by its place; none if it was deleted.
    pub overlay: HashMap<usize, Option<Py<PyAny>>>,
    /// What plugins keep of it, if there are any.
    pub udps: Option<Py<PyAny>>,
}

/// Attributes that the next packet does not write anew.
const LASTING: [&str; 15] = [
    "expiration_id",
    "src_ip",
    "src_mac",
    "src_oui",
    "src_port",
    "dst_ip",
    "dst_mac",
    "dst_oui",
    "dst_port",
    "protocol",
    "ip_version",
    "vlan_id",
    "tunnel_id",
    "bidirectional_first_seen_ms",
    "src2dst_first_seen_ms",
];

const UDPS: &str = "udps";

/// What the names of plugins' columns begin with.
pub const UDPS_PREFIX: &str = "udps.";

/// The first attribute behind those of plugins.
pub const PROCESS: &str = "system_process_pid";

impl NFlow {
    /// A flow as metered.
    pub fn new(shape: &Arc<Shape>, flow: Flow, udps: Option<Py<PyAny>>) -> Self {
        Self { shape: Arc::clone(shape), flow, overlay: HashMap::new(), udps }
    }

    /// Takes out what was set of what a further packet has changed. It is to be dropped when the flow
    /// is not borrowed.
    pub fn forget(&mut self) -> Vec<Py<PyAny>> {
        if self.overlay.is_empty() {
            return Vec::new();
        }
        let places = &self.shape.places;
        let lasting: Vec<_> = LASTING.iter().filter_map(|name| places.get(*name)).collect();
        let is_outdated = |place: &usize, value: &mut Option<_>| {
            value.is_some() && !lasting.contains(&place) && self.shape.column(*place).is_some()
        };
        self.overlay.extract_if(is_outdated).filter_map(|(_, value)| value).collect()
    }

    /// What plugins keep of it, if there is anything.
    pub fn udps(&self) -> Option<&Py<PyAny>> {
        self.udps.as_ref()
    }

    /// Whether nothing was set or deleted.
    pub fn is_as_metered(&self) -> bool {
        self.overlay.is_empty()
    }

    /// What was set of an attribute.
    pub fn set(&self, py: Python<'_>, name: &str) -> Option<Py<PyAny>> {
        let set = self.overlay.get(self.shape.places.get(name)?)?.as_ref();
        set.map(|value| value.clone_ref(py))
    }

    /// Whether a plugin has set `expiration_id` to −1.
    pub fn wants_end(&self, py: Python<'_>) -> bool {
        let set = self.set(py, "expiration_id");
        set.and_then(|value| value.extract::<i64>(py).ok()) == Some(-1)
    }

    /// The value at a place; none if it was deleted, or never there.
    fn value<'py>(&self, py: Python<'py>, place: usize) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.overlay.is_empty()
            && let Some(set) = self.overlay.get(&place)
        {
            return Ok(set.as_ref().map(|value| value.bind(py).clone()));
        }
        let Some(column) = self.shape.column(place) else { return Ok(None) };
        let mut object = Ok(py.None().into_bound(py));
        self.shape.schema.value(&self.flow, column, |value| object = to_python(py, value));
        object.map(Some)
    }

    /// Names and values of what is there, those of plugins before the process.
    fn items<'py>(
        &self,
        py: Python<'py>,
        mut see: impl FnMut(Bound<'py, PyString>, Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<()> {
        for (place, name) in self.shape.names().enumerate() {
            if name == PROCESS {
                self.own_items(py, &mut see)?;
            }
            if let Some(value) = self.value(py, place)? {
                see(PyString::new(py, name), value)?;
            }
        }
        Ok(())
    }

    /// Names and values of plugins.
    fn own_items<'py>(
        &self,
        py: Python<'py>,
        mut see: impl FnMut(Bound<'py, PyString>, Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<()> {
        if let Some(udps) = &self.udps {
            let own = udps.bind(py).getattr("__dict__")?.cast_into::<PyDict>()?;
            for (name, value) in own {
                see(PyString::new(py, &format!("udps.{name}")), value)?;
            }
        }
        Ok(())
    }

    fn missing(name: &str) -> PyErr {
        PyAttributeError::new_err(format!("'NFlow' object has no attribute '{name}'"))
    }
}

#[pymethods]
impl NFlow {
    fn __getattribute__<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let text = name.to_cow()?;
        let flow = slf.try_borrow()?;
        if let Some(place) = flow.shape.places.get(text.as_ref()) {
            return flow.value(py, *place)?.ok_or_else(|| Self::missing(&text));
        }
        if text == UDPS {
            let udps = flow.udps.as_ref().ok_or_else(|| Self::missing(&text))?;
            return Ok(udps.bind(py).clone());
        }
        drop(flow);
        // Methods, and what every object has.
        py.get_type::<PyAny>().getattr("__getattribute__")?.call1((slf, name))
    }

    fn __setattr__(slf: &Bound<'_, Self>, name: &str, value: Py<PyAny>) -> PyResult<()> {
        let mut flow = slf.try_borrow_mut()?;
        let before = if name == UDPS && flow.udps.is_some() {
            flow.udps.replace(value)
        } else {
            let place = *flow.shape.places.get(name).ok_or_else(|| Self::missing(name))?;
            flow.overlay.insert(place, Some(value)).flatten()
        };
        drop(flow);
        // What is dropped may run code that looks at the flow.
        drop(before);
        Ok(())
    }

    fn __delattr__(slf: &Bound<'_, Self>, name: &str) -> PyResult<()> {
        let mut flow = slf.try_borrow_mut()?;
        let before = if name == UDPS {
            Some(flow.udps.take().ok_or_else(|| Self::missing(name))?)
        } else {
            let place = *flow.shape.places.get(name).ok_or_else(|| Self::missing(name))?;
            let is_metered = flow.shape.column(place).is_some();
            match flow.overlay.insert(place, None) {
                Some(None) => return Err(Self::missing(name)),
                None if !is_metered => return Err(Self::missing(name)),
                before => before.flatten(),
            }
        };
        drop(flow);
        drop(before);
        Ok(())
    }

    /// For the garbage collector: what plugins keep may lead back to the flow.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.udps)?;
        for value in self.overlay.values() {
            visit.call(value)?;
        }
        Ok(())
    }

    fn __clear__(&mut self) {
        self.udps = None;
        self.overlay.clear();
    }

    /// Names of the attributes, in order; those of plugins as `udps.NAME`.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let names = PyList::empty(py);
        self.items(py, |name, _| names.append(name))?;
        Ok(names)
    }

    /// Values of the attributes, in the order of `keys()`.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let values = PyList::empty(py);
        self.items(py, |_, value| values.append(value))?;
        Ok(values)
    }

    /// Pairs of names and values.
    #[pyo3(name = "items")]
    fn all_items(&self, py: Python<'_>) -> PyResult<Vec<(Py<PyString>, Py<PyAny>)>> {
        let mut items = Vec::new();
        self.items(py, |name, value| {
            items.push((name.unbind(), value.unbind()));
            Ok(())
        })?;
        Ok(items)
    }

    /// Values by names; those of plugins as `udps.NAME`.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let values = PyDict::new(py);
        self.items(py, |name, value| values.set_item(name, value))?;
        Ok(values)
    }

    fn __str__(&self, py: Python<'_>) -> PyResult<String> {
        let mut parts = Vec::new();
        self.items(py, |name, value| {
            parts.push(format!("{name}={}", value.str()?));
            Ok(())
        })?;
        Ok(format!("NFlow({})", parts.join(",\n      ")))
    }

    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyDict>, Option<Py<PyAny>>))> {
        let values = PyDict::new(py);
        for (place, name) in self.shape.names().enumerate() {
            if let Some(value) = self.value(py, place)? {
                values.set_item(name, value)?;
            }
        }
        let restore = py.import("flowmeter._engine")?.getattr("restore")?;
        Ok((restore, (values, self.udps.as_ref().map(|udps| udps.clone_ref(py)))))
    }
}

/// The flow that was pickled.
#[pyfunction]
pub fn restore(values: &Bound<'_, PyDict>, udps: Option<Py<PyAny>>) -> PyResult<NFlow> {
    use flowmeter_common::lifetime::EndReason;
    use flowmeter_common::record::Record;

    // All columns, as any of them may be among the values.
    let all = flowmeter::fields::Options {
        statistics: true,
        splt: 1,
        sequences: 1,
        visibility: true,
        details: true,
        ..flowmeter::fields::Options::DEFAULT
    };
    let shape = Arc::new(Shape::new(Schema::new(all)));
    let flow = Flow::new(EndReason::Idle, Record::default(), Vec::new());
    let mut restored = NFlow::new(&shape, flow, udps);
    for (name, place) in &shape.places {
        restored.overlay.insert(*place, values.get_item(name)?.map(Bound::unbind));
    }
    Ok(restored)
}

/// A value as Python has it.
pub fn to_python<'py>(py: Python<'py>, value: &Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::U64(n) => PyInt::new(py, *n).into_any(),
        Value::I64(n) => PyInt::new(py, *n).into_any(),
        Value::F64(x) => PyFloat::new(py, *x).into_any(),
        Value::Bool(b) => b.into_pyobject(py)?.to_owned().into_any(),
        Value::Str(text) => PyString::new(py, text).into_any(),
        Value::Seconds(ns) => PyFloat::new(py, seconds(*ns)).into_any(),
        Value::Texts(texts) => PyList::new(py, *texts)?.into_any(),
        Value::Numbers(numbers) => PyList::new(py, *numbers)?.into_any(),
        Value::Integers(numbers) => PyList::new(py, *numbers)?.into_any(),
        Value::List(list) => {
            let mut objects = Objects::new(py);
            list.runs(|value, count| objects.add(&value, count));
            objects.list()?
        }
        Value::Sequence(sequence) => {
            let mut objects = Objects::new(py);
            sequence.values(|value| objects.add(&value, 1));
            objects.list()?
        }
        Value::Ip(_) | Value::Mac(_) | Value::Oui(_) | Value::Device(_) => {
            let mut text = Vec::new();
            value.push_text(&mut text);
            PyString::new(py, &String::from_utf8_lossy(&text)).into_any()
        }
    })
}

/// A list in the making.
struct Objects<'py> {
    list: Bound<'py, PyList>,
    result: PyResult<()>,
}

impl<'py> Objects<'py> {
    fn new(py: Python<'py>) -> Self {
        Self { list: PyList::empty(py), result: Ok(()) }
    }

    /// Adds so many of a value.
    fn add(&mut self, value: &Value<'_>, count: usize) {
        for _ in 0..count {
            if self.result.is_ok() {
                let object = to_python(self.list.py(), value);
                self.result = object.and_then(|object| self.list.append(object));
            }
        }
    }

    fn list(self) -> PyResult<Bound<'py, PyAny>> {
        self.result.map(|()| self.list.into_any())
    }
}
