//! How are the stages wired?
//!
//! [`live`] meters interfaces, [`read`] captures; both give their flows to [`Outlet`]s.

pub mod annotator;
mod control;
mod direct;
mod hooks;
mod ledger;
mod line;
pub mod live;
mod options;
mod outlet;
mod outlets;
mod progress;
pub mod read;
mod workers;

pub use control::Control;
pub use live::Live;
pub use options::{LiveOptions, MAX_INTERFACES, ReadOptions, SNAPSHOT_LENGTH};
pub use outlet::Outlet;
pub use progress::{Progress, total};
pub use read::Read;
