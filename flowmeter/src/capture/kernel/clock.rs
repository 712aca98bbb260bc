//! What time is it by the programs' clock, and how far is the wall clock from that?
//!
//! The programs measure time since boot, sleep included, which never steps. [`Clock`] is the same
//! in this process, [`WallClock`] has the programs follow what the wall clock is set to.

use std::sync::atomic::Ordering;

use aya::Ebpf;
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use flowmeter_common::clock::word;

use super::words::Words;
use super::{Error, sys, xdp};

/// The programs' clock. The default is that of a process in no time namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// How far this process is shown the time since boot ahead of what it is; ns.
    ahead_ns: i64,
}

/// Twice asked, the time is hardly that exact: less is no time namespace's.
const NAMESPACE_NS: i64 = 1_000_000;

/// Less than this is no step of the wall clock but what it takes to read two clocks. Nor does it
/// add up: the clock's rate is the same for both.
const STEP_NS: i64 = 100_000;

/// The best of this many tries is taken for the truth.
const TRIES: usize = 8;

impl Clock {
    /// The time since boot, sleep included; ns.
    pub fn now_ns(self) -> u64 {
        sys::boottime_ns().saturating_sub(self.ahead_ns).cast_unsigned()
    }

    /// Wall clock minus [`Self::now_ns`]; right to about 100 ns.
    pub fn wall_offset_ns(self) -> i64 {
        let (_, offset) = (0..TRIES).map(|_| self.sample()).min().unwrap_or_default();
        offset
    }

    /// How long it took to find an offset, within which it is uncertain, and the offset; ns.
    fn sample(self) -> (i64, i64) {
        let before = sys::boottime_ns();
        let wall = sys::realtime_ns().cast_signed();
        let took = sys::boottime_ns() - before;
        (took, wall - (before + took / 2) + self.ahead_ns)
    }

    /// Asks the kernel what time it is, which nobody is shown another of.
    fn ask(ebpf: &mut Ebpf, words: &Words) -> Result<Self, Error> {
        let program: &mut Xdp = xdp(ebpf, "flowmeter_clock")?;
        let failed = |e: ProgramError| Error::Clock(Box::new(e));
        let mut best = (i64::MAX, 0);
        for _ in 0..TRIES {
            let before = sys::boottime_ns();
            // A frame must have this many bytes.
            let options = TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::new() };
            program.test_run(options).map_err(failed)?;
            let took = sys::boottime_ns() - before;
            let answer = words.get(word::ANSWER).map_or(0, |word| word.load(Ordering::Relaxed));
            best = best.min((took, before + took / 2 - answer.cast_signed()));
        }
        let (_, ahead_ns) = best;
        Ok(if ahead_ns.abs() < NAMESPACE_NS { Self::default() } else { Self { ahead_ns } })
    }
}

/// The wall clock as flows that begin have it.
pub(super) struct WallClock {
    pub(super) clock: Clock,
    words: Words,
    offset_ns: i64,
    first_ns: i64,
}

impl WallClock {
    /// Tells the programs, which are loaded and not attached yet.
    pub(super) fn start(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let words = Words::of(ebpf, "CLOCK", word::COUNT)?;
        let clock = Clock::ask(ebpf, &words)?;
        let offset_ns = clock.wall_offset_ns();
        let wall = Self { clock, words, offset_ns, first_ns: offset_ns };
        wall.publish();
        Ok(wall)
    }

    /// Looks whether the wall clock has been set since the last call, and tells the programs. Gives
    /// how far; ns.
    pub(super) fn follow(&mut self) -> Option<i64> {
        let (took, offset) = self.clock.sample();
        if (offset - self.offset_ns).abs() <= STEP_NS.saturating_add(took) {
            return None;
        }
        let offset_ns = self.clock.wall_offset_ns();
        let step = offset_ns - self.offset_ns;
        if step.abs() <= STEP_NS {
            return None;
        }
        self.offset_ns = offset_ns;
        self.publish();
        Some(step)
    }

    /// How far the wall clock has been set since the start; ns.
    pub(super) fn since_start(&self) -> i64 {
        self.offset_ns - self.first_ns
    }

    fn publish(&self) {
        if let Some(word) = self.words.get(word::WALL_OFFSET) {
            word.store(self.offset_ns.cast_unsigned(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_what_the_wall_clock_is_ahead_of_the_clock() {
        let clock = Clock::default();
        let before = sys::realtime_ns();
        let now = clock.now_ns().wrapping_add_signed(clock.wall_offset_ns());
        let after = sys::realtime_ns();
        let slack = STEP_NS.cast_unsigned();
        assert!((before - slack..=after + slack).contains(&now), "{before} {now} {after}");
    }

    #[test]
    fn what_a_namespace_adds_is_taken_off() {
        // Behind, since the machine may have been there for less than an hour.
        const HOUR: i64 = 3_600_000_000_000;
        let (plain, behind) = (Clock::default(), Clock { ahead_ns: -HOUR });
        let difference = behind.now_ns() - plain.now_ns();
        assert!(difference.abs_diff(HOUR.cast_unsigned()) < 1_000_000_000, "{difference}");
        let difference = plain.wall_offset_ns() - behind.wall_offset_ns();
        assert!((difference - HOUR).abs() < STEP_NS, "{difference}");
    }
}
