//! Until when does what was reported about a socket hold, if events were lost since?

use std::collections::VecDeque;

/// The times in which events may have been lost; ns since the epoch.
///
/// A socket that was open when one began may have been closed in it, and another may have its
/// address since. So what was reported before holds until then; less a moment, since a use of a socket
/// is reported after the packet that it is used for: that may have come before the loss, and the
/// report of it may have been lost.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// From a [moment](PATIENCE_NS) before the last event before a loss to the first one after it, in
    /// order.
    spans: VecDeque<(u64, u64)>,
    /// Events lost so far.
    lost: u64,
    /// When the last event happened.
    newest_ns: u64,
}

/// Losses so close to each other are one; ns. Under overload there are many between few events.
const TOGETHER_NS: u64 = 1_000_000_000;

/// A connection or a datagram may wait for so long until a process takes it; ns.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Gaps in memory. Then the first two are taken for one, and what is between them as told in it.
const MAX: usize = 256;

impl Gaps {
    /// Takes in that an event happened, or that there are no more now, and how many were lost before.
    pub(super) fn take_in(&mut self, time_ns: u64, lost: u64) {
        if lost > self.lost {
            self.lost = lost;
            self.add(self.newest_ns.saturating_sub(PATIENCE_NS), time_ns);
        }
        self.newest_ns = self.newest_ns.max(time_ns);
    }

    /// Until when a socket reported at `reported_ns`, and not reported as closed, was there for certain.
    pub(super) fn certain_until(&self, reported_ns: u64) -> u64 {
        let next = self.spans.partition_point(|(_, to)| *to <= reported_ns);
        self.spans.get(next).map_or(u64::MAX, |(from, _)| reported_ns.max(*from))
    }

    fn add(&mut self, from: u64, to: u64) {
        match self.spans.back_mut() {
            Some((_, end)) if from <= end.saturating_add(TOGETHER_NS) => *end = to.max(*end),
            _ => self.spans.push_back((from, to)),
        }
        if self.spans.len() > MAX
            && let Some((from, _)) = self.spans.pop_front()
            && let Some(first) = self.spans.front_mut()
        {
            first.0 = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn what_was_told_holds_until_the_next_loss() {
        let mut gaps = Gaps::default();
        gaps.take_in(10 * S, 0);
        assert_eq!(gaps.certain_until(10 * S), u64::MAX);
        gaps.take_in(20 * S, 3);
        gaps.take_in(30 * S, 3);
        gaps.take_in(40 * S, 4);
        // Before the first, in it, between the two, and after both.
        let until = [5, 15, 20, 25, 40].map(|second| gaps.certain_until(second * S));
        assert_eq!(until, [9 * S, 15 * S, 29 * S, 29 * S, u64::MAX]);
    }

    #[test]
    fn who_takes_a_packet_may_be_told_of_only_in_the_gap() {
        let mut gaps = Gaps::default();
        gaps.take_in(10 * S, 0);
        gaps.take_in(11 * S, 1);
        let came = 10 * S - PATIENCE_NS / 2;
        assert!(gaps.certain_until(S) < came, "a listener is reported, its worker was not");
        assert_eq!(gaps.certain_until(came), came, "reported by itself");
    }

    #[test]
    fn losses_between_many_events_are_one() {
        let mut gaps = Gaps::default();
        gaps.take_in(S, 0);
        for event in 1..1000 {
            gaps.take_in(S + event, event);
        }
        assert_eq!(gaps.spans, [(0, S + 999)]);
        assert_eq!(gaps.certain_until(S + 500), S + 500, "reported in it");
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_uncertain() {
        let mut gaps = Gaps::default();
        // Every second event comes after a loss.
        for event in 0..1000 {
            gaps.take_in((10 + event * 10) * S, event.div_ceil(2));
        }
        assert_eq!(gaps.spans.len(), MAX);
        assert_eq!(gaps.certain_until(15 * S), 15 * S);
        assert_eq!(gaps.certain_until(9_985 * S), 9_989 * S);
        assert_eq!(gaps.certain_until(9_995 * S), 9_995 * S);
        assert_eq!(gaps.certain_until(10_000 * S), u64::MAX);
    }
}
