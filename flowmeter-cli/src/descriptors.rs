//! Can this process open as many files as it needs?
//!
//! Asked before anything is opened. What fails for want of a descriptor halfway fails anywhere: an
//! interface is not found, a hook is not attached, a process cannot be read.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// There are too few.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "too few file descriptors: this process is limited to {limit}, and `flowmeter live` needs \
     {needed}; raise the limit (`ulimit -n {needed}`, or `LimitNOFILE={needed}` in a unit)"
)]
pub struct TooFew {
    limit: u64,
    needed: u64,
}

/// Raises the limit to what is needed, if it is lower and the kernel allows it.
pub fn reserve(needed: u64) -> Result<(), TooFew> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let Some(limit) = current.filter(|limit| *limit < needed) else { return Ok(()) };
    if maximum.is_none_or(|maximum| needed <= maximum) {
        let raised = Rlimit { current: Some(needed), maximum };
        return setrlimit(Resource::Nofile, raised).map_err(|_| TooFew { limit, needed });
    }
    Err(TooFew { limit: maximum.unwrap_or(limit), needed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_suffices_and_more_than_there_can_be_does_not() {
        assert_eq!(reserve(1), Ok(()));
        // The kernel knows no such limit: see fs.nr_open.
        assert!(reserve(u64::MAX - 1).is_err());
    }
}
