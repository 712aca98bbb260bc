//! What will this run do?
//!
//! A plan is what remains of the command line once everything in it has been checked: types that
//! cannot be wrong, with units. It is taken apart by `main`; no stage sees it whole.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flowmeter_common::knobs::Knobs;

use crate::attribution::profile;
use crate::capture::kernel::{self, Direction, Ingress};
use crate::collector::pcap::Reading;
use crate::dissect::Containment;
use crate::fields::Schema;
use crate::privileges::Needs;
use crate::sink;

/// `flowmeter live`.
#[derive(Clone)]
pub struct LivePlan {
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
    /// The run ends after so many flows.
    pub max_nflows: Option<u64>,
    /// How often the balance of packets goes to standard error.
    pub performance_report: Option<Duration>,
    /// How often the balance of packets goes into the log.
    pub meter_records: Option<Duration>,
    /// How often sockets are looked up, if flows are to be attributed to processes.
    pub visibility: Option<Duration>,
    /// Sockets in memory, open and closed ones.
    pub max_sockets: usize,
    /// What is kept of processes.
    pub profiles: profile::Options,
    /// Where the flows go.
    pub output: sink::Options,
    /// The columns.
    pub schema: Arc<Schema>,
    /// Where dissection runs.
    pub containment: Containment,
    /// Whether it tells all it can.
    pub details: bool,
    /// Whether the kernel programs' log messages are shown.
    pub log_bpf: bool,
}

pub use flowmeter_common::counter::MAX_INTERFACES;

impl LivePlan {
    /// What the meter needs capabilities for once it is attached.
    pub fn needs(&self) -> Needs {
        let contained = matches!(self.containment, Containment::Child { .. });
        Needs {
            processes: self.visibility.is_some(),
            children: contained && self.knobs.n_dissections > 0,
        }
    }

    /// File descriptors that may be open at once: maps, programs, links, files, and room for what is
    /// read of processes.
    pub fn descriptors(&self) -> u64 {
        /// Of a meter without interfaces, measured, and as many again.
        const MOST: u64 = 128;
        /// Of an interface: its links at two hooks, their descriptors while they are made, and the
        /// socket that holds it promiscuous.
        const EACH: u64 = 8;
        MOST + EACH * self.interfaces.len() as u64
    }

    /// What the kernel half is to do.
    pub fn kernel(&self) -> kernel::Options {
        kernel::Options {
            interfaces: self.interfaces.clone(),
            ingress: self.ingress,
            direction: self.direction,
            knobs: self.knobs,
            max_flows: self.max_flows,
            snapshot_length: self.snapshot_length,
            promiscuous: self.promiscuous,
            attribute: self.visibility.is_some(),
            log: self.log_bpf,
        }
    }
}

/// `flowmeter read`.
#[derive(Clone)]
pub struct ReadPlan {
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
    /// Where dissection runs.
    pub containment: Containment,
    /// Whether it tells all it can.
    pub details: bool,
    /// The run ends after so many flows.
    pub max_nflows: Option<u64>,
    /// Where the flows go.
    pub output: sink::Options,
    /// The columns.
    pub schema: Arc<Schema>,
}
