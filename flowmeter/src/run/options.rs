//! What will a run do?

use std::path::PathBuf;
use std::time::Duration;

use derive_setters::Setters;
use flowmeter_common::knobs::Knobs;

use crate::attribution::profile;
use crate::capture::kernel::{self, Direction, Ingress};
use crate::collector::pcap::Reading;
use crate::dissect::Containment;
use crate::fields;
use crate::model::Models;
use crate::notice::Notices;
use crate::plugin::Plugins;

pub use flowmeter_common::counter::MAX_INTERFACES;

/// How interfaces are metered. [`LiveOptions::new`] has what `flowmeter live` does by default.
#[derive(Clone, Debug, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct LiveOptions {
    /// The interfaces to meter, each once; at least 1, at most [`MAX_INTERFACES`].
    pub interfaces: Vec<String>,
    /// What the kernel and the host meter by.
    pub knobs: Knobs,
    /// Flows that the kernel's table has room for.
    pub max_flows: u32,
    /// Bytes of a frame that the dissector gets.
    pub snapshot_length: u16,
    /// Where received packets are seen.
    pub ingress: Ingress,
    /// Which packets are metered.
    pub direction: Direction,
    /// Whether the interfaces take packets for others too.
    pub promiscuous: bool,
    /// The run ends after this many flows.
    pub max_nflows: Option<u64>,
    /// What else is found out about flows. With any, the kernel forwards the bytes of every packet.
    pub plugins: Plugins,
    /// What is made of flows when they have ended.
    pub models: Models,
    /// How often a report goes to the outputs, as a record.
    pub records: Option<Duration>,
    /// How often sockets are looked up, if flows are to be attributed to processes.
    pub visibility: Option<Duration>,
    /// Sockets in memory, open and closed ones.
    pub max_sockets: usize,
    /// What is kept of processes.
    pub profiles: profile::Options,
    /// Where dissection runs.
    pub containment: Containment,
    /// Whether it tells all it can.
    pub details: bool,
    /// Whether the kernel programs' log messages are passed on.
    pub log_bpf: bool,
    /// Where notices go.
    pub notices: Notices,
}

/// Bytes of a frame that the dissector gets live, by default: more than `NFStream`'s 1536,
/// since a browser's `ClientHello` on loopback or a link of large frames has as many.
pub const SNAPSHOT_LENGTH: u16 = 4_096;

impl LiveOptions {
    /// As `flowmeter live` meters these interfaces by default, but in this process: dissection in
    /// children needs a program that they can run, see [`Containment`].
    pub fn new<I: Into<String>>(interfaces: impl IntoIterator<Item = I>) -> Self {
        Self {
            interfaces: interfaces.into_iter().map(Into::into).collect(),
            knobs: Knobs::default(),
            max_flows: 131_072,
            snapshot_length: SNAPSHOT_LENGTH,
            ingress: Ingress::Auto,
            direction: Direction::Both,
            promiscuous: true,
            max_nflows: None,
            plugins: Plugins::default(),
            models: Models::default(),
            records: None,
            visibility: Some(Duration::from_millis(100)),
            max_sockets: 262_144,
            profiles: profile::Options::default(),
            containment: Containment::InProcess,
            details: false,
            log_bpf: false,
            notices: Notices::none(),
        }
    }

    /// The columns that flows metered so have, but for those of plugins and models.
    pub fn columns(&self) -> fields::Options {
        fields::Options {
            details: self.details,
            visibility: self.visibility.is_some(),
            ..fields::Options::of(&self.knobs)
        }
    }

    /// What the kernel half is to do.
    pub(super) fn kernel(&self) -> kernel::Options {
        kernel::Options {
            interfaces: self.interfaces.clone(),
            ingress: self.ingress,
            direction: self.direction,
            knobs: self.knobs,
            max_flows: self.max_flows,
            snapshot_length: self.snapshot_length,
            whole: !self.plugins.is_empty(),
            promiscuous: self.promiscuous,
            attribute: self.visibility.is_some(),
            log: self.log_bpf,
            notices: self.notices.clone(),
        }
    }
}

/// How captures are metered. [`ReadOptions::new`] has what `flowmeter read` does by default.
#[derive(Clone, Debug, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct ReadOptions {
    /// The captures, in order; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// What to meter by.
    pub knobs: Knobs,
    /// Whose rules hold.
    pub reading: Reading,
    /// Only frames that this lets through are metered; pcap-filter(7).
    pub bpf_filter: Option<String>,
    /// Bytes of a frame that the dissector gets.
    pub snapshot_length: usize,
    /// Workers; 0 for as many as there are processors.
    pub n_meters: u16,
    /// Whether the ids of flows must be known when their rows are made, as when they are digested:
    /// then there is one worker.
    pub needs_ids: bool,
    /// Where dissection runs.
    pub containment: Containment,
    /// Whether it tells all it can.
    pub details: bool,
    /// The run ends after this many flows.
    pub max_nflows: Option<u64>,
    /// What else is found out about flows.
    pub plugins: Plugins,
    /// What is made of flows when they have ended.
    pub models: Models,
    /// Where notices go.
    pub notices: Notices,
}

impl ReadOptions {
    /// As `flowmeter read` meters these captures by default, but in this process, see [`Containment`].
    pub fn new<I: Into<PathBuf>>(files: impl IntoIterator<Item = I>) -> Self {
        Self {
            files: files.into_iter().map(Into::into).collect(),
            knobs: Knobs::default(),
            reading: Reading::Right,
            bpf_filter: None,
            snapshot_length: usize::MAX,
            n_meters: 0,
            needs_ids: false,
            containment: Containment::InProcess,
            details: false,
            max_nflows: None,
            plugins: Plugins::default(),
            models: Models::default(),
            notices: Notices::none(),
        }
    }

    /// The columns that flows metered so have, but for those of plugins and models.
    pub fn columns(&self) -> fields::Options {
        let splt = self.knobs.splt;
        let as_flowcontainer = self.reading == Reading::Flowcontainer;
        fields::Options {
            details: self.details,
            extras: self.reading != Reading::Nfstream,
            as_flowcontainer,
            splt: if as_flowcontainer { 0 } else { splt },
            sequences: if as_flowcontainer { splt } else { 0 },
            ..fields::Options::of(&self.knobs)
        }
    }
}
