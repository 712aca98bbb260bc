//! Is a terminal's hangup meant for this process?

#![expect(unsafe_code, reason = "std does not tell how a signal is handled")]

use std::ptr;

/// Whether this process was started with SIGHUP ignored, as by `nohup`: then it stays so, since a
/// handler would undo what the user asked for.
pub fn is_hangup_ignored() -> bool {
    // SAFETY: all zeros are a sigaction: no handler, no flags, an empty mask.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `now` is a valid place for one sigaction, and nothing is changed.
    let told = unsafe { libc::sigaction(libc::SIGHUP, ptr::null(), &raw mut now) };
    told == 0 && now.sa_sigaction == libc::SIG_IGN
}
