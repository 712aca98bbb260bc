//! How does the shared parser run under the verifier?
//!
//! The fast path is inlined over direct packet access. The rest goes through the two steps of the
//! walk as global functions: the verifier checks each once instead of in every combination. They
//! take no argument (LLVM drops unused ones, and the verifier then misses them); their state is
//! the CPU's scratch.

use flowmeter_common::packet::Reject;
use flowmeter_common::parse::{self, MAX_ROUNDS, next};

use crate::maps::{DECODE_TUNNELS, PARSED, SCRATCH, Scratch, interface};
use crate::packet::Frame;

/// Parses the frame into `scratch.walk.packet`. Says which path it took: true is the fast one.
#[inline(always)]
pub fn parse<F: Frame>(
    frame: &F,
    link: u32,
    length: u32,
    scratch: &mut Scratch,
) -> Result<bool, Reject> {
    let tunnels = DECODE_TUNNELS.load() != 0;
    if parse::fast(&frame.direct(), 0, link, length, tunnels, &mut scratch.walk.packet) {
        return Ok(true);
    }
    scratch.walk.start(0, link, length);
    if !scratch.window.fill(frame, length) {
        return Err(Reject::Truncated);
    }
    match Reject::from_u8(flowmeter_deep() as u8) {
        Some(why) => Err(why),
        None => Ok(false),
    }
}

/// The whole walk on this CPU's scratch: 0 or a [`Reject`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowmeter_deep() -> u32 {
    let Some(scratch) = scratch() else {
        return Reject::Malformed as u32;
    };
    for _ in 0..MAX_ROUNDS {
        let mut failed = flowmeter_link_step();
        if failed == 0 {
            failed = flowmeter_network_step();
        }
        if let Some(why) = Reject::from_u8(failed as u8) {
            return give_up(scratch, why);
        }
        if scratch.walk.next == next::DONE {
            return 0;
        }
    }
    give_up(scratch, Reject::TooDeep)
}

#[inline(always)]
fn give_up(scratch: &mut Scratch, why: Reject) -> u32 {
    match scratch.walk.give_up(why) {
        Ok(()) => 0,
        Err(why) => why as u32,
    }
}

/// [`parse::link_step`] on this CPU's scratch: 0 or a [`Reject`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowmeter_link_step() -> u32 {
    let Some(scratch) = scratch() else {
        return Reject::Malformed as u32;
    };
    match parse::link_step(&scratch.window, &mut scratch.walk) {
        Ok(()) => 0,
        Err(why) => why as u32,
    }
}

/// [`parse::network_step`] on this CPU's scratch: 0 or a [`Reject`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowmeter_network_step() -> u32 {
    let Some(scratch) = scratch() else {
        return Reject::Malformed as u32;
    };
    match parse::network_step(&scratch.window, DECODE_TUNNELS.load() != 0, &mut scratch.walk) {
        Ok(()) => 0,
        Err(why) => why as u32,
    }
}

/// This CPU's scratch.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the value is this CPU's alone, and the programs do not interrupt each other on a
    // CPU: XDP and tc run with bottom halves off.
    SCRATCH.get_ptr_mut(0).map(|s| unsafe { &mut *s })
}

/// Parses and leaves the verdict for userspace.
#[inline(always)]
pub fn verdict<F: Frame>(frame: &F) -> Option<()> {
    let scratch = scratch()?;
    let interface = interface(frame.ifindex())?;
    let result = parse(frame, interface.link, frame.length(), scratch);
    // SAFETY: tests and benchmarks run one packet at a time.
    let out = unsafe { &mut *PARSED.get_ptr_mut(0)? };
    match result {
        Ok(fast) => {
            out.reject = 0;
            out.fast = u32::from(fast);
            out.packet = scratch.walk.packet;
        }
        Err(why) => out.reject = why as u32,
    }
    Some(())
}
