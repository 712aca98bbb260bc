//! What becomes of a batch?
//!
//! Each flow has a state, made by the module of its part.

use super::answer::{Answer, Counts};
use super::batch::{Batch, Message};
use super::flow::{Flow, Inspection};
use super::ndpi::Module;
use super::shards::Shards;
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
    /// Whether verdicts have [`Layer7::details`].
    pub details: bool,
}

/// Modules, and the flows they know.
pub struct Dissector {
    // Before the modules, to be dropped before them.
    flows: Shards<Known>,
    modules: Vec<Option<Module>>,
    max_flows: usize,
    details: bool,
}

/// A flow under dissection, and its part, whose module it must not leave.
struct Known {
    part: u32,
    flow: Flow,
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
        Ok(Self {
            flows: Shards::new(),
            modules,
            max_flows: limits.max_flows,
            details: limits.details,
        })
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
        let details = self.details;
        let known = self.flows.get_or_try_insert(message.flow, || {
            let flow = (!crowded).then(|| Flow::new(module, details)).flatten()?;
            Some(Known { part: message.part, flow })
        })?;
        // A state must not meet another module than its own.
        if known.part != message.part {
            return Some(Inspection::Refused);
        }
        Some(known.flow.inspect(module, ip, message.time_ms, message.number))
    }

    fn finish(&mut self, flow: u64) -> Option<Layer7> {
        let known = self.flows.remove(flow)?;
        let module = self.modules.get_mut(known.part as usize)?.as_mut()?;
        Some(known.flow.finish(module))
    }
}
