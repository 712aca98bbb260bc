//! What time is it, by the meter's clock and on the wall?

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use flowmeter_common::clock::word;

use crate::maps::CLOCK;

/// The time since boot, sleep included; ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// What a flow that begins now adds to get the time on the wall; ns.
#[inline(always)]
pub fn wall_offset() -> u64 {
    // SAFETY: the word is the map's. Userspace writes whole words.
    CLOCK.get_ptr(word::WALL_OFFSET).map_or(0, |offset| unsafe { offset.read_volatile() })
}

/// Leaves the time in the map: in a time namespace userspace is shown another one.
#[inline(always)]
pub fn answer() {
    if let Some(answer) = CLOCK.get_ptr_mut(word::ANSWER) {
        // SAFETY: the word is the map's. Userspace asks once at a time.
        unsafe { answer.write_volatile(now()) };
    }
}
