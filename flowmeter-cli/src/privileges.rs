//! Which capabilities does a meter keep while it runs?
//!
//! It keeps those that the work after attaching needs; all others are dropped for good, from the
//! bounding set too, so that no child of ours has them either.

use caps::{CapSet, Capability, CapsHashSet};
use flowmeter::capture::kernel::capabilities::METERING;
use thiserror::Error;

/// Why capabilities could not be dropped.
#[derive(Debug, Error)]
#[error("failed to drop capabilities")]
pub struct Error(#[source] caps::errors::CapsError);

/// What a meter does that needs capabilities, besides metering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// It looks for the processes of sockets, among those of all users.
    pub processes: bool,
    /// It starts and kills dissectors that have another user.
    pub children: bool,
}

/// `/proc/PID/fd` of other users' processes.
const PROCESSES: &[Capability] = &[Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// A successor changes its user and drops its bounding set; the one before, which has another
/// user, is killed.
const CHILDREN: &[Capability] = &[
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_KILL,
];

/// Drops what is not needed, in this thread and those it will start. To be called while there is
/// no other.
pub fn keep_only(needs: Needs) -> Result<(), Error> {
    let mut wanted: CapsHashSet = METERING.iter().copied().collect();
    if needs.processes {
        wanted.extend(PROCESSES);
    }
    if needs.children {
        wanted.extend(CHILDREN);
    }
    let has = caps::read(None, CapSet::Permitted).map_err(Error)?;
    // Of the bounding set only who has CAP_SETPCAP can drop, and others gain nothing by it.
    if has.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding).map_err(Error)?.difference(&wanted) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(Error)?;
        }
    }
    let kept: CapsHashSet = has.intersection(&wanted).copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(Error)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(Error)?;
    caps::set(None, CapSet::Effective, &kept).map_err(Error)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(Error)
}
