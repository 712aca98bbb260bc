//! What dissects the flows of a worker?
//!
//! An nDPI module for each part of the flows it has, so that what nDPI learns from one flow about
//! others does not depend on the number of workers.

use flowmeter_common::key::FlowKey;

use crate::collector::pcap::Share;
use crate::dissect::flow::Flow;
use crate::dissect::ndpi::Module;
use crate::dissect::{self, Layer7};

/// What the dissector knows of a flow.
pub type Kept = Option<Flow>;

/// The dissector of one thread.
pub struct Dissector {
    share: Share,
    /// By part; none for those of other workers, or if nothing is to be dissected.
    modules: Vec<Option<Module>>,
}

impl Dissector {
    pub fn new(n_dissections: u32, share: Share) -> Result<Self, dissect::Error> {
        let modules = (0..share.parts)
            .map(|part| {
                let wanted = n_dissections > 0 && share.has_part(part);
                wanted.then(|| Module::new(n_dissections)).transpose()
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { share, modules })
    }

    pub fn inspect(
        &mut self,
        key: &FlowKey,
        kept: &mut Kept,
        ip: &[u8],
        time_ms: u64,
        number: u32,
    ) {
        let Some(module) = self.module(key) else { return };
        if kept.is_none() {
            *kept = Flow::new(module);
        }
        if let Some(flow) = kept {
            flow.inspect(module, ip, time_ms, number);
        }
    }

    pub fn finish(&mut self, key: &FlowKey, kept: Kept) -> Option<Layer7> {
        let flow = kept?;
        Some(flow.finish(self.module(key)?))
    }

    fn module(&mut self, key: &FlowKey) -> Option<&mut Module> {
        self.modules.get_mut(self.share.part(key) as usize)?.as_mut()
    }
}
