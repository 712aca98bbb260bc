//! How are models run on many flows?

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use ort::session::Session;

use super::{Error, Loaded, Models, runtime};
use crate::flow::{Flow, Own};
use crate::notice::{Notice, Notices};

/// Flows that are given to a model together: more are not faster.
const BATCH: usize = 256;

/// The models of a worker.
pub struct Running {
    models: Vec<Ready>,
    /// Columns that stand before theirs.
    columns_before: usize,
    failures: Arc<AtomicU64>,
    notices: Notices,
}

struct Ready {
    model: Arc<Loaded>,
    session: Session,
    has_failed: bool,
}

impl Models {
    /// Makes them ready for a worker. `columns_before` are those of plugins.
    pub(crate) fn start(&self, columns_before: usize, notices: &Notices) -> Result<Running, Error> {
        let ready = |model: &super::Model| {
            let model = Arc::clone(&model.0);
            let session = runtime::session(&model.bytes)
                .map_err(|e| Error::Invalid { file: model.file.clone(), why: e.to_string() })?;
            Ok(Ready { model, session, has_failed: false })
        };
        let models = self.models.iter().map(ready).collect::<Result<_, _>>()?;
        let (failures, notices) = (Arc::clone(&self.failures), notices.clone());
        Ok(Running { models, columns_before, failures, notices })
    }
}

impl Running {
    /// Adds the values of all models' columns to the flows.
    fn score<T>(&mut self, flows: &mut [(T, Flow)]) {
        for (_, flow) in &mut *flows {
            flow.own.resize(self.columns_before, Own::Null);
        }
        let Self { models, failures, notices, .. } = self;
        for ready in models {
            let at_a_time = ready.model.inputs.fixed_rows.unwrap_or(flows.len()).max(1);
            for flows in flows.chunks_mut(at_a_time) {
                let Err(why) = ready.score(flows) else { continue };
                let refused = ready.score_apart(flows);
                failures.fetch_add(refused, Relaxed);
                if refused > 0 && !std::mem::replace(&mut ready.has_failed, true) {
                    let model = ready.model.file.display().to_string();
                    notices.send(Notice::ModelFails { model, why });
                }
            }
        }
    }
}

impl Ready {
    /// Adds the values of the model's columns; nothing, if it fails.
    fn score<T>(&mut self, flows: &mut [(T, Flow)]) -> Result<(), String> {
        let columns = self.model.outputs.columns.len();
        let all = self.values(flows)?;
        for ((_, flow), values) in flows.iter_mut().zip(all) {
            let end = flow.own.len() + columns;
            flow.own.extend(values.into_iter().flatten());
            flow.own.resize(end, Own::Null);
        }
        Ok(())
    }

    /// The same, of flows that the model refuses together: those that it refuses alone, too, get nulls,
    /// whichever flows they came with. Gives how many these are.
    fn score_apart<T>(&mut self, flows: &mut [(T, Flow)]) -> u64 {
        let middle = flows.len() / 2;
        if middle == 0 {
            let columns = self.model.outputs.columns.len();
            for (_, flow) in &mut *flows {
                flow.own.resize(flow.own.len() + columns, Own::Null);
            }
            return flows.len() as u64;
        }
        let (first, last) = flows.split_at_mut(middle);
        let mut half = |flows: &mut [_]| match self.score(flows) {
            Ok(()) => 0,
            Err(_) => self.score_apart(flows),
        };
        half(first) + half(last)
    }

    /// The columns of each flow; none of one that the model needs more of.
    fn values<T>(&mut self, flows: &[(T, Flow)]) -> Result<Vec<Option<Vec<Own>>>, String> {
        let Loaded { schema, inputs, outputs, .. } = &*self.model;
        let said = |e: ort::Error| e.to_string();
        let (values, are_known) = inputs.of_flows(schema, flows).map_err(said)?;
        let given = self.session.run(values).map_err(said)?;
        let rows = outputs.rows(&given, flows.len())?;
        let known = |(row, is_known): (Vec<Own>, bool)| is_known.then_some(row);
        Ok(rows.into_iter().zip(are_known).map(known).collect())
    }
}

/// Flows that wait for models, in order, each with what goes along with it.
pub struct Scorer<T> {
    running: Running,
    waiting: Vec<(T, Flow)>,
}

impl<T> Scorer<T> {
    /// With no flows.
    pub fn new(running: Running) -> Self {
        Self { running, waiting: Vec::new() }
    }

    /// Adds a flow. Whether there are enough for the models to be run.
    pub fn add(&mut self, along: T, flow: Flow) -> bool {
        self.waiting.push((along, flow));
        self.waiting.len() >= BATCH
    }

    /// How many flows wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Runs the models on those that wait.
    pub fn scored(&mut self) -> Vec<(T, Flow)> {
        let mut flows = std::mem::take(&mut self.waiting);
        if !flows.is_empty() {
            self.running.score(&mut flows);
        }
        flows
    }
}
