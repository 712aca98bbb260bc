//! What happens between a capture file and a line in the log?
//!
//! The same stages as live, in one thread: read → meter → dissect → write.

use std::sync::Arc;

use flowmeter_common::knobs::MILLISECOND;
use thiserror::Error;

use crate::attribution::Owners;
use crate::capture::pcap::{self, Capture};
use crate::collector::pcap::{Collector, Observer};
use crate::config::ReadPlan;
use crate::dissect::{self, Layer7};
use crate::record::Flow;
use crate::sink::{self, Sink};
use crate::table::Ended;

/// Why a run ended before it should have.
#[derive(Debug, Error)]
pub enum Error {
    /// A capture.
    #[error(transparent)]
    Capture(#[from] pcap::Error),
    /// The log.
    #[error(transparent)]
    Sink(#[from] sink::Error),
    /// The dissector.
    #[error("failed to start the dissector")]
    Dissector(#[from] dissect::Error),
}

/// Meters captures. A damaged one is metered as far as it can be read; the error comes when all
/// that was metered is written.
pub fn read(plan: &ReadPlan) -> Result<(), Error> {
    let mut stages = Stages {
        dissector: Dissector::new(plan.knobs.n_dissections)?,
        sink: sink::open(plan.output.clone(), Arc::clone(&plan.schema))?,
        next_id: 0,
        max_nflows: plan.max_nflows.unwrap_or(u64::MAX),
        failed: None,
    };
    let mut collector = Collector::new(plan.knobs, plan.reading);
    let mut damaged = None;
    for file in &plan.files {
        let read = Capture::open(file).and_then(|mut capture| {
            while !stages.is_done() && capture.next(|frame| collector.frame(&frame, &mut stages))? {
            }
            Ok(())
        });
        if let Err(e) = read {
            damaged.get_or_insert(e);
        }
        if stages.is_done() {
            break;
        }
    }
    collector.finish(&mut stages);
    stages.close()?;
    damaged.map_or(Ok(()), |e| Err(e.into()))
}

struct Stages {
    dissector: Dissector,
    sink: Box<dyn Sink>,
    next_id: u64,
    max_nflows: u64,
    failed: Option<sink::Error>,
}

impl Stages {
    /// Whether nothing more is to be written: there are flows enough, or the log is broken.
    fn is_done(&self) -> bool {
        self.next_id >= self.max_nflows || self.failed.is_some()
    }

    fn close(mut self) -> Result<(), sink::Error> {
        self.failed.take().map_or(Ok(()), Err)?;
        self.sink.flush()
    }
}

impl Observer<Kept> for Stages {
    fn packet(&mut self, kept: &mut Kept, number: u64, time_ns: u64, ip: &[u8]) {
        self.dissector.inspect(kept, ip, time_ns / MILLISECOND, number as u32);
    }

    fn ended(&mut self, ended: Ended<Kept>) {
        if self.is_done() {
            return;
        }
        let flow = Flow {
            id: self.next_id,
            reason: ended.reason,
            record: ended.record,
            splt: ended.splt,
            layer7: self.dissector.finish(ended.attached),
            owners: Owners::default(),
            interface: None,
        };
        self.next_id += 1;
        if let Err(e) = self.sink.write(&flow) {
            self.failed.get_or_insert(e);
        }
    }
}

/// The dissector of this thread, and what it keeps of a flow.
#[cfg(feature = "ndpi")]
mod dissector {
    use super::{Layer7, dissect};
    use crate::dissect::ndpi::{FlowState, Module};

    /// What the dissector knows of a flow.
    pub type Kept = Option<FlowState>;

    pub struct Dissector(Option<Module>);

    impl Dissector {
        pub fn new(n_dissections: u32) -> Result<Self, dissect::Error> {
            let wanted = n_dissections > 0;
            Ok(Self(wanted.then(|| Module::new(n_dissections)).transpose()?))
        }

        pub fn inspect(&mut self, kept: &mut Kept, ip: &[u8], time_ms: u64, number: u32) {
            let Some(module) = &mut self.0 else { return };
            if kept.is_none() {
                *kept = module.flow();
            }
            if let Some(flow) = kept {
                module.inspect(flow, ip, time_ms, number);
            }
        }

        pub fn finish(&mut self, kept: Kept) -> Option<Layer7> {
            Some(self.0.as_mut()?.finish(kept?))
        }
    }
}

/// Without nDPI there is no verdict.
#[cfg(not(feature = "ndpi"))]
mod dissector {
    use super::{Layer7, dissect};

    /// Nothing.
    pub type Kept = ();

    pub struct Dissector;

    impl Dissector {
        #[expect(clippy::unnecessary_wraps, reason = "with nDPI it can fail")]
        pub fn new(_: u32) -> Result<Self, dissect::Error> {
            Ok(Self)
        }

        #[expect(clippy::unused_self, reason = "with nDPI it is used")]
        pub fn inspect(&mut self, _: &mut Kept, _: &[u8], _: u64, _: u32) {}

        #[expect(clippy::unused_self, reason = "with nDPI it is used")]
        pub fn finish(&mut self, _: Kept) -> Option<Layer7> {
            None
        }
    }
}

use dissector::{Dissector, Kept};
