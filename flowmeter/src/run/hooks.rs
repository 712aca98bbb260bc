//! Does a hook see what its interface counts?
//!
//! A hook may never fire though it was attached, and whoever comes before it, now or later, may let
//! nothing through. What is not seen is not metered, so it is reported, while it is so and once.
//!
//! The two counts differ for good reasons too, which the bounds leave room for: an interface may
//! count a super-packet as one, count seconds late, or count padding and checksums that the hook
//! does not see.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use flowmeter_common::counter::Counter;

use crate::capture::kernel::{self, Hook, Interface, Kernel, Tally, Traffic};

/// Compares each hook with its interface.
#[derive(Debug)]
pub struct HookWatch {
    next: Instant,
    hooks: Vec<Watched>,
}

/// How often hooks are looked at.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Watched {
    interface: usize,
    hook: Hook,
    history: History,
    sight: Sight,
}

/// A hook sees more or less of its interface's packets than it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    interface: String,
    hook: Hook,
    sight: Sight,
    counts: Counts,
}

/// How much a hook sees of what its interface counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// What there is, as far as is known.
    All,
    /// Nothing yet.
    None,
    /// Clearly less.
    Part,
    /// Clearly more than is sent.
    More,
}

impl HookWatch {
    /// Watches the hooks of these programs.
    pub fn new(kernel: &Kernel) -> Self {
        let hooks = kernel.hooks().enumerate().flat_map(|(interface, (_, hooks))| {
            hooks.iter().map(move |&hook| Watched {
                interface,
                hook,
                history: History::default(),
                sight: Sight::All,
            })
        });
        Self { next: Instant::now() + EVERY, hooks: hooks.collect() }
    }

    /// What has changed since the last look.
    pub fn look(&mut self, kernel: &Kernel) -> Result<Vec<Change>, kernel::Error> {
        if Instant::now() < self.next {
            return Ok(Vec::new());
        }
        self.next = Instant::now() + EVERY;
        // The interfaces first: what the programs count in between does no harm.
        let traffic: Vec<_> = kernel.interfaces.iter().map(Interface::traffic_since).collect();
        let balance = kernel.balance()?;
        let mut changes = Vec::new();
        for watched in &mut self.hooks {
            let at = watched.interface;
            let (Some(interface), Some(Some(traffic)), Some(tallies)) =
                (kernel.interfaces.get(at), traffic.get(at), balance.interfaces.get(at))
            else {
                continue;
            };
            watched.history.push(Counts::of(watched.hook, *traffic, tallies));
            let judged = watched.history.judge();
            let Some((sight, counts)) = judged.filter(|(sight, _)| *sight != watched.sight) else {
                continue;
            };
            // A bond counts what its idle members receive and drop.
            let is_usual = sight == Sight::Part && interface.bond;
            if is_usual && watched.hook == Hook::TcIngress || watched.is_excused(sight) {
                continue;
            }
            watched.sight = sight;
            let (interface, hook) = (interface.name.to_string(), watched.hook);
            changes.push(Change { interface, hook, sight, counts });
        }
        Ok(changes)
    }
}

impl Watched {
    /// Whether it means nothing at this hook: what is received may well be more than was counted.
    fn is_excused(&self, sight: Sight) -> bool {
        sight == Sight::More && self.hook != Hook::TcEgress
    }
}

/// What the interface has counted and the hook has seen since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    counted: Volume,
    seen: Volume,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Volume {
    packets: u64,
    bytes: u64,
}

impl Counts {
    fn of(hook: Hook, traffic: Traffic, [ingress, egress]: &[Tally; 2]) -> Self {
        let (packets, bytes, tally) = match hook {
            Hook::Xdp | Hook::TcIngress => (traffic.rx_packets, traffic.rx_bytes, ingress),
            Hook::TcEgress => (traffic.tx_packets, traffic.tx_bytes, egress),
        };
        let seen =
            Volume { packets: tally.get(Counter::Seen), bytes: tally.get(Counter::SeenBytes) };
        Self { counted: Volume { packets, bytes }, seen }
    }
}

impl Volume {
    fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

/// The counts of the last looks, the newest last.
#[derive(Debug, Default)]
struct History(VecDeque<Counts>);

/// Looks that are compared.
const SPAN: usize = 20;
/// Fewer say nothing.
const LEAST_SPAN: usize = 6;
/// Looks by which either count may be late: there are network cards that tell theirs every two
/// seconds.
const LATE: usize = 4;

/// Packets that an interface may have counted before the hook must have seen one.
const UNSEEN: u64 = 16;
/// Fewer packets say nothing of shares.
const ENOUGH: u64 = 128;

impl History {
    fn push(&mut self, counts: Counts) {
        if self.0.len() > SPAN + LATE {
            self.0.pop_front();
        }
        self.0.push_back(counts);
    }

    /// What the last looks say, and the counts that say it; nothing if they say nothing new.
    fn judge(&self) -> Option<(Sight, Counts)> {
        let newest = *self.0.back()?;
        // A packet may be counted at a look and seen only after it.
        let counted = self.0.get(self.0.len().checked_sub(2)?)?.counted;
        if newest.seen.packets == 0 && counted.packets >= UNSEEN {
            return Some((Sight::None, Counts { counted, ..newest }));
        }
        if self.0.len() <= LEAST_SPAN + LATE {
            return None;
        }
        let (oldest, late) = (*self.0.front()?, *self.0.get(LATE)?);
        let early = *self.0.get(self.0.len() - 1 - LATE)?;
        // The one over a time that is longer by as much as the other may be late.
        let least =
            Counts { counted: counted.since(late.counted), seen: newest.seen.since(oldest.seen) };
        if least.counted.packets >= ENOUGH && least.is_part() {
            return Some((Sight::Part, least));
        }
        let second = *self.0.get(1)?;
        let most = Counts {
            counted: newest.counted.since(oldest.counted),
            seen: early.seen.since(second.seen),
        };
        // There are interfaces that count nothing.
        if most.seen.packets >= ENOUGH && newest.counted.bytes > 0 && most.is_more() {
            return Some((Sight::More, most));
        }
        let is_all = least.counted.packets >= ENOUGH && least.is_all();
        is_all.then_some((Sight::All, least))
    }
}

impl Counts {
    /// In packets, of which the hook counts those on the wire; and in bytes, in case the interface
    /// counts super-packets as one.
    fn is_part(&self) -> bool {
        self.seen.packets * 8 < self.counted.packets * 7 || self.seen.bytes * 2 < self.counted.bytes
    }

    /// The headers that a super-packet saves are hardly more than its payload.
    fn is_more(&self) -> bool {
        self.seen.bytes > self.counted.bytes * 2 && self.seen.packets > self.counted.packets * 2
    }

    /// Less than this is nearly too little or too much, of which nothing is said.
    fn is_all(&self) -> bool {
        self.seen.packets * 16 >= self.counted.packets * 15 && !self.is_more() && !self.is_part()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, hook, .. } = self;
        let (seen, counted) = (self.counts.seen, self.counts.counted);
        match self.sight {
            Sight::All => {
                write!(f, "{hook} of `{interface}` sees what the interface counts again")
            }
            Sight::None => write!(
                f,
                "{hook} of `{interface}` has seen none of {} packets; they are not metered (for \
                 received packets, try the other --ingress)",
                counted.packets
            ),
            Sight::Part => write!(
                f,
                "{hook} of `{interface}` sees less than the interface counts, lately {} of {} \
                 packets and {} of {} bytes; the rest are not metered: another program comes \
                 first and keeps them (`bpftool net` and `tc filter` list programs), or they \
                 bypass the hook",
                seen.packets, counted.packets, seen.bytes, counted.bytes
            ),
            Sight::More => write!(
                f,
                "{hook} of `{interface}` sees more than the interface sends, lately {} packets \
                 and {} bytes against {} and {}; all are metered, although another program or \
                 the queue drops some or sends them elsewhere",
                seen.packets, seen.bytes, counted.packets, counted.bytes
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One look: packets and bytes counted and seen since the one before.
    type Look = [u64; 4];

    /// What is reported over these looks, by the number of the look.
    fn story(looks: impl IntoIterator<Item = Look>) -> Vec<(usize, Sight)> {
        let (mut history, mut total) = (History::default(), Counts::default());
        let (mut sight, mut told) = (Sight::All, Vec::new());
        for (number, [counted, counted_bytes, seen, seen_bytes]) in looks.into_iter().enumerate() {
            total.counted.packets += counted;
            total.counted.bytes += counted_bytes;
            total.seen.packets += seen;
            total.seen.bytes += seen_bytes;
            history.push(total);
            if let Some((now, _)) = history.judge()
                && now != sight
            {
                sight = now;
                told.push((number, now));
            }
        }
        told
    }

    const SAME: Look = [100, 100_000, 100, 100_000];
    const UNSEEN: Look = [100, 100_000, 0, 0];

    fn many(look: Look) -> std::iter::RepeatN<Look> {
        std::iter::repeat_n(look, 60)
    }

    #[test]
    fn what_is_the_same_is_not_reported() {
        assert_eq!(story(many(SAME)), []);
        // Super-packets counted as one, without the headers that they save.
        assert_eq!(story(many([10, 140_000, 100, 146_000])), []);
        // Small packets counted with padding and checksum.
        assert_eq!(story(many([1000, 64_000, 1000, 42_000])), []);
        // Hardly anything.
        assert_eq!(story(many([2, 200, 1, 100])), []);
        // Nothing.
        assert_eq!(story(many([0; 4])), []);
        // An interface that counts nothing.
        assert_eq!(story(many([0, 0, 1000, 100_000])), []);
    }

    #[test]
    fn counts_that_come_late_are_not_reported() {
        let burst = [[0, 0, 100_000, 9_000_000], [0; 4], [0; 4], [100_000, 9_000_000, 0, 0]];
        assert_eq!(story(burst.into_iter().cycle().take(100)), []);
        let quiet = many(SAME).chain(many([0; 4])).chain(burst).chain(many([0; 4]));
        assert_eq!(story(quiet), []);
        // The hook's may be late too.
        let busy = [[100_000, 9_000_000, 0, 0], [0, 0, 100_000, 9_000_000]];
        assert_eq!(story(many(SAME).chain(busy).chain(many(SAME))), []);
    }

    #[test]
    fn a_hook_that_never_fires_is_reported_at_the_next_look() {
        assert_eq!(story(many(UNSEEN)), [(1, Sight::None)]);
    }

    #[test]
    fn a_hook_that_goes_blind_is_reported_and_so_is_its_end() {
        let told = story(many(SAME).chain(many(UNSEEN)).chain(many(SAME)));
        let [(blind, Sight::Part), (again, Sight::All)] = told[..] else { panic!("{told:?}") };
        assert!((60..75).contains(&blind) && (120..155).contains(&again), "{told:?}");
    }

    #[test]
    fn a_good_part_that_is_missing_is_reported() {
        let told = story(many(SAME).chain(many([100, 100_000, 60, 60_000])));
        assert!(matches!(told[..], [(60..100, Sight::Part)]), "{told:?}");
        // In bytes, where packets are more than super-packets.
        let told = story(many([10, 140_000, 100, 146_000]).chain(many([10, 140_000, 30, 43_800])));
        assert!(matches!(told[..], [(60..100, Sight::Part)]), "{told:?}");
    }

    #[test]
    fn what_does_not_leave_is_reported() {
        let told = story(many(SAME).chain(many([0, 0, 100, 100_000])).chain(many(SAME)));
        let [(60..100, Sight::More), (120..155, Sight::All)] = told[..] else { panic!("{told:?}") };
    }
}
