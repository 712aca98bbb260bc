//! What will this run do?
//!
//! A plan is what remains of the command line once everything in it has been checked: types that
//! cannot be wrong, with units.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flowmeter::dissect::Containment;
use flowmeter::fields::Schema;
use flowmeter::format::Kind;
use flowmeter::output::{self, Files, queue};
use flowmeter::run::{LiveOptions, Outlet, ReadOptions};

use crate::metrics;
use crate::privileges::Needs;

/// `flowmeter live`.
pub struct LivePlan {
    /// How to meter.
    pub options: LiveOptions,
    /// How often the balance of packets goes to standard error.
    pub performance_report: Option<Duration>,
    /// Where the figures can be read.
    pub metrics: Metrics,
    /// Where the flows go.
    pub log: LogPlan,
}

/// Where Prometheus can read the figures.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// At this address, by HTTP.
    pub listen: Option<SocketAddr>,
    /// In this file.
    pub file: Option<PathBuf>,
}

/// `flowmeter read`.
pub struct ReadPlan {
    /// How to meter.
    pub options: ReadOptions,
    /// Where the flows go.
    pub log: LogPlan,
}

/// Where flows go, and how.
#[derive(Clone)]
pub struct LogPlan {
    /// Where to.
    pub output: output::Options,
    /// How.
    pub format: Kind,
    /// The columns.
    pub schema: Arc<Schema>,
    /// What may wait for it live.
    pub queue: queue::Options,
}

impl LogPlan {
    /// Opens it.
    pub fn open(&self) -> Result<Outlet, output::Error> {
        let format = self.format.of(Arc::clone(&self.schema));
        let files = Files::open(self.output.clone(), format.as_ref())?;
        let name = match &self.output.destination {
            output::Destination::Stdout => "standard output".to_owned(),
            output::Destination::File(path) => format!("`{}`", path.display()),
        };
        Ok(Outlet::rows(&name, format, Box::new(files)).with_queue(self.queue))
    }

    /// Whether this capture would be overwritten.
    pub fn would_overwrite(&self, file: &Path) -> bool {
        self.output.would_overwrite(file)
    }
}

impl LivePlan {
    /// What the meter needs capabilities for once it is attached.
    pub fn needs(&self) -> Needs {
        let contained = matches!(self.options.containment, Containment::Child { .. });
        Needs {
            processes: self.options.visibility.is_some(),
            children: contained && self.options.knobs.n_dissections > 0,
        }
    }

    /// File descriptors that may be open at once: maps, programs, links, files, and room for what is
    /// read of processes.
    pub fn descriptors(&self) -> u64 {
        /// Twice what a meter without interfaces needs, measured.
        const MOST: u64 = 128;
        /// Of an interface: its links at two hooks, their descriptors while they are made, and the
        /// socket that holds it promiscuous.
        const EACH: u64 = 8;
        let metrics = if self.metrics.listen.is_some() { metrics::DESCRIPTORS } else { 0 };
        MOST + metrics + EACH * self.options.interfaces.len() as u64
    }
}

/// What dissectors run: this program, even if its file was replaced since.
pub fn this_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}
