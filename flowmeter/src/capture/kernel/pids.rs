//! Of which pid namespace are the numbers of processes?
//!
//! Of the one that procfs shows: then what the kernel tells and what procfs tells is the same, and
//! whoever reads the log where the meter ran finds its processes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// The number of the first pid namespace (Linux, `PROC_PID_INIT_INO`).
const FIRST: u64 = 0xefff_fffc;

/// No namespace has this number: no process has one that is known to be of procfs'.
const NONE: u32 = u32::MAX;

/// The number of the namespace that procfs shows; 0 if that is the first, or if there is no procfs.
pub(super) fn namespace() -> u32 {
    // A namespace's first process is in no other. Whoever may not look at it is in the same, if
    // procfs has no number above its own.
    match number("/proc/1/ns/pid").or_else(|_| own()) {
        Ok(FIRST) => 0,
        Ok(number) => u32::try_from(number).unwrap_or(NONE),
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(_) => NONE,
    }
}

fn own() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let is_own = numbers.is_none_or(|numbers| numbers.split_whitespace().count() == 1);
    if is_own { number("/proc/self/ns/pid") } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

fn number(path: &str) -> io::Result<u64> {
    fs::metadata(path).map(|metadata| metadata.ino())
}
