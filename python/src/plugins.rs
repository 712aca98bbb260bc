//! How do plugins that are written in Python see packets?

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use flowmeter::Control;
use flowmeter::fields::Added;
use flowmeter::flow::{Flow, Own};
use flowmeter::plugin::{Packet, Plugin, Standing};
use flowmeter_common::lifetime::EndReason;
use hashbrown::HashMap;
use pyo3::prelude::*;

use crate::flow::{NFlow, Shape};
use crate::packet::{EndTexts, Maker};

/// The plugins of a streamer, as one of the engine's.
#[derive(Clone)]
pub struct PythonPlugins(Arc<Shared>);

struct Shared {
    plugins: Vec<Methods>,
    shape: Arc<Shape>,
    packets: Maker,
    udps: Py<PyAny>,
    outcome: Arc<Outcome>,
}

/// What came of calls into Python.
#[derive(Default)]
pub struct Outcome {
    /// The first error that a plugin has raised: nothing is called after it.
    error: Mutex<Option<PyErr>>,
    /// Ends the run then.
    pub control: OnceLock<Arc<Control>>,
    /// Flows that have ended, by the numbers of their records, until they are given an id.
    finished: Mutex<HashMap<u64, Py<NFlow>>>,
}

/// A plugin's methods. Those that it has not written itself are not called.
struct Methods {
    name: String,
    on_init: Option<Py<PyAny>>,
    on_update: Option<Py<PyAny>>,
    on_expire: Option<Py<PyAny>>,
}

/// A flow that plugins have seen.
pub struct Watched {
    flow: Py<NFlow>,
    ends: [EndTexts; 2],
    packets_in_lists: usize,
}

impl Outcome {
    /// The error that ended the run, once.
    pub fn take_error(&self) -> Option<PyErr> {
        lock(&self.error).take()
    }

    /// The object of the flow with this number; none if plugins have seen nothing of it.
    pub fn finished(&self, uid: u64) -> Option<Py<NFlow>> {
        lock(&self.finished).remove(&uid)
    }

    fn has_failed(&self) -> bool {
        lock(&self.error).is_some()
    }

    fn fail(&self, error: PyErr) {
        lock(&self.error).get_or_insert(error);
        if let Some(control) = self.control.get() {
            control.stop();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PythonPlugins {
    /// Of these objects.
    pub fn new(
        py: Python<'_>,
        plugins: &[Py<PyAny>],
        shape: Arc<Shape>,
        outcome: Arc<Outcome>,
    ) -> PyResult<Self> {
        let base = py.import("flowmeter.plugin")?.getattr("NFPlugin")?;
        let method = |plugin: &Bound<'_, PyAny>, name: &str| -> PyResult<Option<Py<PyAny>>> {
            let class = plugin.get_type().getattr(name)?;
            let is_inherited = class.is(&base.getattr(name)?);
            // One that was set on the object stands before its class's.
            let is_own =
                plugin.hasattr("__dict__")? && plugin.getattr("__dict__")?.contains(name)?;
            Ok((is_own || !is_inherited).then_some(plugin.getattr(name)?.unbind()))
        };
        let methods = plugins.iter().map(|plugin| {
            let plugin = plugin.bind(py);
            Ok(Methods {
                name: plugin.get_type().name()?.to_string(),
                on_init: method(plugin, "on_init")?,
                on_update: method(plugin, "on_update")?,
                on_expire: method(plugin, "on_expire")?,
            })
        });
        Ok(Self(Arc::new(Shared {
            plugins: methods.collect::<PyResult<_>>()?,
            shape,
            packets: Maker::new(py)?,
            udps: py.import("flowmeter.flow")?.getattr("UDPS")?.unbind(),
            outcome,
        })))
    }

    /// Does what plugins have asked for by setting attributes: ends the flow, and has its packets show
    /// other addresses.
    fn obey(&self, py: Python<'_>, watched: &mut Watched, standing: &mut Standing<'_>) {
        let outdated: Vec<_> = match watched.flow.try_borrow(py) {
            Ok(flow) if flow.is_as_metered() => return,
            Ok(flow) => {
                if flow.wants_end(py) {
                    standing.end();
                }
                let sides = watched.ends.iter_mut().zip(["src", "dst"]);
                let replaced = sides
                    .map(|(end, side)| end.replace(|part| flow.set(py, &format!("{side}_{part}"))));
                replaced.flatten().collect()
            }
            Err(e) => return self.0.outcome.fail(e.into()),
        };
        // Nobody has the flow by now: what is dropped may run code that looks at it.
        drop(outdated);
    }

    /// Calls a method of each, with the arguments; what one raises ends the run.
    fn call<'py>(
        &self,
        py: Python<'py>,
        name: &'static str,
        method: impl Fn(&Methods) -> Option<&Py<PyAny>>,
        packet: impl FnOnce() -> PyResult<Option<Bound<'py, PyAny>>>,
        flow: &Py<NFlow>,
    ) {
        let shared = &self.0;
        if shared.plugins.iter().all(|plugin| method(plugin).is_none()) {
            return;
        }
        let packet = match packet() {
            Ok(packet) => packet,
            Err(e) => return shared.outcome.fail(e),
        };
        for plugin in &shared.plugins {
            let Some(method) = method(plugin) else { continue };
            let called = match &packet {
                Some(packet) => method.call1(py, (packet, flow)),
                None => method.call1(py, (flow,)),
            };
            if let Err(e) = called {
                let note = format!("in {name} of {}", plugin.name);
                // Python 3.11 and later show it.
                let _ = e.value(py).call_method1("add_note", (note,));
                return shared.outcome.fail(e);
            }
        }
    }
}

impl Plugin for PythonPlugins {
    type State = Option<Watched>;

    /// Its values are attributes of the flow's object.
    fn columns(&self) -> Vec<Added> {
        Vec::new()
    }

    fn on_init(&mut self, packet: &Packet<'_>, standing: &mut Standing<'_>) -> Option<Watched> {
        let shared = &self.0;
        if shared.outcome.has_failed() {
            return None;
        }
        Python::attach(|py| {
            let flow = Flow::new(EndReason::Idle, *standing.sums.0, standing.splt.to_vec());
            let udps = match shared.udps.call0(py) {
                Ok(udps) => udps,
                Err(e) => {
                    shared.outcome.fail(e);
                    return None;
                }
            };
            let flow = match Py::new(py, NFlow::new(&shared.shape, flow, Some(udps))) {
                Ok(flow) => flow,
                Err(e) => {
                    shared.outcome.fail(e);
                    return None;
                }
            };
            let ends = [standing.sums.src(), standing.sums.dst()];
            let ends = ends.map(|end| EndTexts::new(py, &end));
            let make = || shared.packets.packet(py, packet, &ends).map(Some);
            self.call(py, "on_init", |methods| methods.on_init.as_ref(), make, &flow);
            let mut watched = Watched { flow, ends, packets_in_lists: standing.splt.len() };
            self.obey(py, &mut watched, standing);
            Some(watched)
        })
    }

    fn on_update(
        &mut self,
        watched: &mut Option<Watched>,
        packet: &Packet<'_>,
        standing: &mut Standing<'_>,
    ) {
        let shared = &self.0;
        let Some(watched) = watched else { return };
        if shared.outcome.has_failed() {
            return;
        }
        Python::attach(|py| {
            let outdated = {
                let mut flow = match watched.flow.try_borrow_mut(py) {
                    Ok(flow) => flow,
                    Err(e) => return shared.outcome.fail(e.into()),
                };
                flow.flow.record = *standing.sums.0;
                if watched.packets_in_lists != standing.splt.len() {
                    watched.packets_in_lists = standing.splt.len();
                    flow.flow.splt = standing.splt.to_vec();
                }
                flow.forget()
            };
            // Nobody has the flow by now: what is dropped may run code that looks at it.
            drop(outdated);
            let make = || shared.packets.packet(py, packet, &watched.ends).map(Some);
            self.call(py, "on_update", |methods| methods.on_update.as_ref(), make, &watched.flow);
            self.obey(py, watched, standing);
        });
    }

    fn on_expire(&mut self, watched: Option<Watched>, flow: &mut Flow, _: &mut Vec<Own>) {
        let shared = &self.0;
        let Some(watched) = watched else { return };
        if shared.outcome.has_failed() {
            return;
        }
        Python::attach(|py| {
            let outdated = {
                let mut object = match watched.flow.try_borrow_mut(py) {
                    Ok(object) => object,
                    Err(e) => return shared.outcome.fail(e.into()),
                };
                object.flow = flow.clone();
                object.forget()
            };
            drop(outdated);
            self.call(
                py,
                "on_expire",
                |methods| methods.on_expire.as_ref(),
                || Ok(None),
                &watched.flow,
            );
            lock(&shared.outcome.finished).insert(flow.record.uid, watched.flow);
        });
    }
}
