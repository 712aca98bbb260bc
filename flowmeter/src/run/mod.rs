//! How are the stages wired?
//!
//! [`live`] meters interfaces, [`read`] captures; both give their flows to [`Outlet`]s.

pub mod annotator;
mod control;
mod direct;
mod failed;
mod hooks;
mod ledger;
mod line;
pub mod live;
mod options;
mod outlet;
mod outlets;
mod plugged;
mod progress;
pub mod read;
mod workers;

pub use control::Control;
pub use failed::Failed;
pub use live::Live;
pub use options::{LiveOptions, MAX_INTERFACES, ReadOptions, SNAPSHOT_LENGTH};
pub use outlet::Outlet;
pub use progress::{Progress, total};
pub use read::Read;

/// Where every use of the meter begins.
#[derive(Debug)]
pub enum Run {}

impl Run {
    /// Attaches the kernel half to interfaces: packets are seen from now on. [`Live::to`] says where
    /// the flows go, [`Live::run`] meters. Needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
    #[expect(clippy::doc_markdown, reason = "the names of capabilities")]
    pub fn live(options: LiveOptions) -> Result<Live, live::Error> {
        Live::attach(options)
    }

    /// A run that meters captures. [`Read::to`] says where the flows go, [`Read::run`] meters;
    /// nothing is opened before.
    pub fn read(options: ReadOptions) -> Read {
        Read::new(options)
    }
}
