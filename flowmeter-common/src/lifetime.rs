//! When does a flow end?

use crate::knobs::{MILLISECOND, Settings};
use crate::record::Record;

/// Why a flow record was closed (RFC 7012, `flowEndReason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EndReason {
    /// No packet for the idle timeout.
    Idle = 1,
    /// The record reached the active timeout; the conversation may go on in the next one.
    Active = 2,
    /// The traffic's own end was seen, or a plugin ended it.
    End = 3,
    /// The meter stopped, or the capture ended.
    Forced = 4,
    /// The record's counters were nearly full.
    Resources = 5,
}

impl EndReason {
    /// The reason with this number in RFC 7012.
    #[inline]
    pub fn from_u32(n: u32) -> Option<Self> {
        Some(match n {
            1 => Self::Idle,
            2 => Self::Active,
            3 => Self::End,
            4 => Self::Forced,
            5 => Self::Resources,
            _ => return None,
        })
    }
}

/// A direction with this many packets is closed, so that its 32-bit flag counters cannot wrap.
const MAX_PACKETS: u64 = u32::MAX as u64 - 0x1_0000;

/// Whether `clock_ns`, by the meter's clock, lies past the life of `r`, and why: the packet at that
/// time belongs to a new flow.
///
/// `NFStream`'s rule, on its clock: all times in whole milliseconds of the wall clock, idle before
/// active, a difference equal to the timeout has passed it.
#[inline(always)]
pub fn ended<S: Settings>(r: &Record, clock_ns: u64, knobs: &S) -> Option<EndReason> {
    // The exact answer costs divisions; nearly always the rough one is "no".
    if is_idle(r, clock_ns, knobs) {
        return Some(EndReason::Idle);
    }
    let now_ns = r.on_the_wall(clock_ns);
    let first = r.first_ns();
    if reached_roughly(first, now_ns, knobs.active_ns())
        && reached(first, now_ns, knobs.active_ns())
    {
        return Some(EndReason::Active);
    }
    let [forward, backward] = &r.directions;
    if forward.packets > MAX_PACKETS || backward.packets > MAX_PACKETS {
        return Some(EndReason::Resources);
    }
    None
}

/// Whether the flow of `r` is idle at `clock_ns` by the meter's clock.
#[inline(always)]
pub fn is_idle<S: Settings>(r: &Record, clock_ns: u64, knobs: &S) -> bool {
    let (last_ns, now_ns) = (r.last_ns(), r.on_the_wall(clock_ns));
    reached_roughly(last_ns, now_ns, knobs.idle_ns()) && reached(last_ns, now_ns, knobs.idle_ns())
}

/// Never "no" where [`reached`] is "yes": truncation to milliseconds can make the time passed look
/// up to one longer and a timeout that is not whole milliseconds up to one shorter.
#[inline(always)]
fn reached_roughly(since_ns: u64, now_ns: u64, timeout_ns: u64) -> bool {
    let passed = now_ns.saturating_sub(since_ns);
    passed.saturating_add(2 * MILLISECOND) >= timeout_ns
}

#[inline(always)]
fn reached(since_ns: u64, now_ns: u64, timeout_ns: u64) -> bool {
    (now_ns / MILLISECOND).saturating_sub(since_ns / MILLISECOND) >= timeout_ns / MILLISECOND
}
