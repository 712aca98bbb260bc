//! What has the kernel half counted?

use aya::Ebpf;
use aya::maps::PerCpuArray;
use flowmeter_common::counter::{COUNTERS, Counter, HOOKS};

use super::{Error, maps, sys};

/// What the programs have counted, by interface and direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// By interface: ingress, egress.
    pub interfaces: Vec<[Tally; HOOKS]>,
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

    /// `seen − (metered + overflowed + ignored + lost)`: 0 at any quiescent point.
    pub fn error(&self) -> i64 {
        let accounted = self.get(Counter::Metered)
            + self.get(Counter::Overflowed)
            + self.ignored()
            + self.get(Counter::Lost);
        self.get(Counter::Seen).wrapping_sub(accounted).cast_signed()
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

pub(super) fn read(ebpf: &Ebpf, interfaces: usize) -> Result<Balance, Error> {
    let failed = |source| Error::Map { act: "read", map: "COUNTERS", source };
    let map = ebpf.map("COUNTERS").ok_or(maps::absent("COUNTERS"))?;
    let map: PerCpuArray<_, [u64; COUNTERS]> =
        PerCpuArray::try_from(map).map_err(|e| failed(sys::map_error(&e)))?;
    let mut balance = Balance::default();
    for interface in 0..interfaces {
        let mut hooks = [Tally::default(); HOOKS];
        for (hook, tally) in hooks.iter_mut().enumerate() {
            let index = (interface * HOOKS + hook) as u32;
            for values in map.get(&index, 0).map_err(|e| failed(sys::map_error(&e)))?.iter() {
                tally.add(values);
            }
        }
        balance.interfaces.push(hooks);
    }
    Ok(balance)
}
