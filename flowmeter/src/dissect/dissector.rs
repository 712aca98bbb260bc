//! What becomes of a batch?
//!
//! Each flow has a state, made by the module of its part. [`Flow`] is the one place where a packet
//! meets all that looks at it.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::answer::{Answer, Counts};
use super::batch::{Batch, Message};
use super::ndpi::{FlowState, Inspection, Module};
use super::{Error, Layer7};

/// How much is dissected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets of a flow after which nDPI gives up. At least 1.
    pub n_dissections: u32,
    /// Flows under dissection at a time; some 1.5 KB each.
    pub max_flows: usize,
    /// The parts whose flows come here, as bits. Each has a module, so that what nDPI learns from
    /// one flow about others stays in its part.
    pub parts: u64,
}

/// Modules, and the flows they know.
pub struct Dissector {
    // Before the modules, to be dropped before them.
    flows: HashMap<u64, Flow>,
    modules: Vec<Option<Module>>,
    max_flows: usize,
}

/// All that is known of a flow under dissection.
struct Flow {
    part: u32,
    ndpi: FlowState,
}

impl Flow {
    fn new(part: u32, module: &Module) -> Option<Self> {
        Some(Self { part, ndpi: module.flow()? })
    }

    fn inspect(&mut self, module: &mut Module, message: &Message, ip: &[u8]) -> Inspection {
        module.inspect(&mut self.ndpi, ip, message.time_ms, message.number)
    }

    fn finish(self, module: &mut Module) -> Layer7 {
        module.finish(self.ndpi)
    }
}

impl Dissector {
    /// Takes some 30 ms for each part.
    pub fn new(limits: &Limits) -> Result<Self, Error> {
        let parts = u64::BITS - limits.parts.leading_zeros();
        let modules = (0..parts)
            .map(|part| {
                let wanted = limits.parts & (1 << part) != 0;
                wanted.then(|| Module::new(limits.n_dissections)).transpose()
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { flows: HashMap::new(), modules, max_flows: limits.max_flows })
    }

    /// Does what a batch says.
    pub fn work(&mut self, batch: &Batch) -> Answer {
        let mut answer = Answer::default();
        let mut counts = Counts::default();
        for (message, ip) in batch.iter() {
            if message.is_finish() {
                answer.verdicts.push(self.finish(message.flow));
                continue;
            }
            match self.inspect(message, ip) {
                Some(Inspection::Wanting) => counts.inspected += 1,
                Some(Inspection::Settled) => {
                    counts.inspected += 1;
                    answer.settled.push(message.flow);
                }
                Some(Inspection::Refused) => counts.refused += 1,
                None => counts.crowded += 1,
            }
        }
        counts.flows = self.flows.len() as u64;
        answer.counts = counts;
        answer
    }

    /// Inspects a packet; `None` if its flow is new and finds no room.
    fn inspect(&mut self, message: &Message, ip: &[u8]) -> Option<Inspection> {
        let crowded = self.flows.len() >= self.max_flows;
        let module = self.modules.get_mut(message.part as usize)?.as_mut()?;
        let flow = match self.flows.entry(message.flow) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if crowded => return None,
            Entry::Vacant(entry) => entry.insert(Flow::new(message.part, module)?),
        };
        // A state must not meet another module than its own.
        if flow.part != message.part {
            return Some(Inspection::Refused);
        }
        Some(flow.inspect(module, message, ip))
    }

    fn finish(&mut self, flow: u64) -> Option<Layer7> {
        let flow = self.flows.remove(&flow)?;
        let module = self.modules.get_mut(flow.part as usize)?.as_mut()?;
        Some(flow.finish(module))
    }
}
