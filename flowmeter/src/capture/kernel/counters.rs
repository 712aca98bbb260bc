//! What has the kernel half counted?

use std::time::Duration;

use aya::Ebpf;
use aya::maps::PerCpuArray;
use flowmeter_common::counter::{COUNTERS, Counter, HOOKS};

use super::{Error, maps, sys};

/// What the programs have counted, by interface and direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// By interface: ingress, egress.
    pub interfaces: Vec<[Tally; HOOKS]>,
    /// Packets seen that have no fate; less than 0 if there are fates of packets not seen.
    pub error: i64,
}

/// The counters of one interface and direction, of all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    values: [u64; COUNTERS],
}

impl Default for Tally {
    fn default() -> Self {
        Self { values: [0; COUNTERS] }
    }
}

/// Why packets are not metered; each is a counter.
pub const IGNORED: [(&str, Counter); 7] = [
    ("non_ip", Counter::NonIp),
    ("truncated", Counter::Truncated),
    ("malformed", Counter::Malformed),
    ("no_next_header", Counter::NoNextHeader),
    ("too_deep", Counter::TooDeep),
    ("orphan_fragment", Counter::OrphanFragment),
    ("filtered", Counter::Filtered),
];

impl Tally {
    /// The value of a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// Packets ignored, for whatever reason.
    pub fn ignored(&self) -> u64 {
        IGNORED.iter().map(|(_, counter)| self.get(*counter)).sum()
    }

    /// Packets ignored, by reason.
    pub fn ignored_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        IGNORED.iter().map(|(name, counter)| (*name, self.get(*counter)))
    }

    /// Packets that were metered, overflowed, ignored or lost.
    pub fn fates(&self) -> u64 {
        self.get(Counter::Metered)
            + self.get(Counter::Overflowed)
            + self.ignored()
            + self.get(Counter::Lost)
    }

    /// By how much this reading cannot be of the same counters as a later one: packets seen then
    /// that have no fate yet, or fates that were not seen.
    fn error_before(&self, later: &Self) -> i64 {
        let without_fate = self.get(Counter::Seen).saturating_sub(later.fates());
        let unseen = self.fates().saturating_sub(later.get(Counter::Seen));
        without_fate.wrapping_sub(unseen).cast_signed()
    }

    fn add(&mut self, values: &[u64; COUNTERS]) {
        for (sum, value) in self.values.iter_mut().zip(values) {
            *sum += value;
        }
    }
}

impl Balance {
    /// The sum over all interfaces and directions.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for tally in self.interfaces.iter().flatten() {
            total.add(&tally.values);
        }
        total
    }
}

/// Reads the counters while they count on.
///
/// A packet is counted as seen first and by its fate later, so a single reading is never even under
/// load. Of two readings the later one has the fates of all that the first has seen, but for those
/// in the programs' hands, and the first has no fate that the later one has not seen. What goes
/// beyond that is an error.
pub(super) fn read(ebpf: &Ebpf, interfaces: usize) -> Result<Balance, Error> {
    let mut balance = Balance { interfaces: read_once(ebpf, interfaces)?, error: 0 };
    for turn in 0..TURNS {
        let later = read_once(ebpf, interfaces)?;
        let pairs = balance.interfaces.iter().flatten().zip(later.iter().flatten());
        balance.error = pairs.map(|(first, later)| first.error_before(later)).sum();
        if balance.error == 0 || turn + 1 == TURNS {
            break;
        }
        std::thread::sleep(IN_HAND);
    }
    for tally in balance.interfaces.iter_mut().flatten() {
        // As many as have a fate: of the others it is not known yet.
        tally.values[Counter::Seen as usize] = tally.fates();
    }
    Ok(balance)
}

/// A program that has a packet in its hands may be kept from its CPU for a while.
const TURNS: usize = 20;
const IN_HAND: Duration = Duration::from_millis(1);

fn read_once(ebpf: &Ebpf, interfaces: usize) -> Result<Vec<[Tally; HOOKS]>, Error> {
    let failed = |source| Error::Map { act: "read", map: "COUNTERS", source };
    let map = ebpf.map("COUNTERS").ok_or(maps::absent("COUNTERS"))?;
    let map: PerCpuArray<_, [u64; COUNTERS]> =
        PerCpuArray::try_from(map).map_err(|e| failed(sys::map_error(&e)))?;
    let mut all = Vec::new();
    for interface in 0..interfaces {
        let mut hooks = [Tally::default(); HOOKS];
        for (hook, tally) in hooks.iter_mut().enumerate() {
            let index = (interface * HOOKS + hook) as u32;
            for values in map.get(&index, 0).map_err(|e| failed(sys::map_error(&e)))?.iter() {
                tally.add(values);
            }
        }
        all.push(hooks);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(seen: u64, metered: u64) -> Tally {
        let mut tally = Tally::default();
        tally.values[Counter::Seen as usize] = seen;
        tally.values[Counter::Metered as usize] = metered;
        tally
    }

    #[test]
    fn only_what_cannot_be_is_an_error() {
        // Three packets are in hand, and have their fate later.
        assert_eq!(tally(10, 7).error_before(&tally(15, 12)), 0);
        // Counted between the copies of the two numbers.
        assert_eq!(tally(10, 12).error_before(&tally(15, 15)), 0);
        assert_eq!(tally(10, 7).error_before(&tally(10, 8)), 2);
        assert_eq!(tally(10, 12).error_before(&tally(11, 12)), -1);
    }
}
