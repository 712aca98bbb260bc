//! Which number has a process where the meter looks?
//!
//! A process has one in its pid namespace and in each above. The kernel's helpers give that of the
//! first, procfs those of the namespace that it was mounted for.

use core::ffi::c_void;

use crate::maps::{
    PID_LEVEL, PID_NAMESPACE, PID_NUMBERS, PID_SPACE_NUMBER, TASK_LEADER, TASK_PID, UPID_SPACE,
};
use crate::owner::read;

/// Namespaces below the first (Linux, `MAX_PID_NS_LEVEL`).
const MAX_LEVEL: u32 = 32;
/// `struct upid`: a number, and the namespace that it is of.
const UPID: u32 = 16;

/// The number of a task's thread group, which in the first namespace is `first`; 0 if it has none
/// where the meter looks.
#[inline(always)]
pub fn shown(task: *const c_void, first: u32) -> u32 {
    if PID_NAMESPACE.load() == 0 { first } else { search(task as u64) }
}

/// Not inlined: it is a loop in each program that reports processes.
#[inline(never)]
fn search(task: u64) -> u32 {
    if TASK_PID.load() == 0 || PID_SPACE_NUMBER.load() == 0 {
        return 0;
    }
    let leader: u64 = read(task as *const c_void, TASK_LEADER.load());
    let pid: u64 = read(leader as *const c_void, TASK_PID.load());
    let deepest: u32 = read(pid as *const c_void, PID_LEVEL.load());
    for level in 0..=MAX_LEVEL {
        if level > deepest {
            break;
        }
        let number = PID_NUMBERS.load() + level * UPID;
        let space: u64 = read(pid as *const c_void, number + UPID_SPACE.load());
        let is_shown =
            read::<u32>(space as *const c_void, PID_SPACE_NUMBER.load()) == PID_NAMESPACE.load();
        if is_shown {
            return read(pid as *const c_void, number);
        }
    }
    0
}
