//! How does a map of millions grow without a pause?
//!
//! In shards, of which each grows at its own time. One table moves all that it has when it is full:
//! with half a million flows that takes longer than a dissector may compute for a batch, so that it
//! was taken for one that hangs, and all its flows were lost.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// The bits of a hash that name a shard. With 256 of them a shard of a million flows moves 4000.
const BITS: u32 = 8;

/// A map from flows to what is known of them.
pub struct Shards<V> {
    shards: Vec<HashMap<u64, V>>,
    len: usize,
}

impl<V> Shards<V> {
    /// An empty one.
    pub fn new() -> Self {
        let shards = (0..1 << BITS).map(|_| HashMap::new()).collect();
        Self { shards, len: 0 }
    }

    /// How many flows it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// What is known of a flow, made if it is new; `None` if it was not made.
    pub fn get_or_try_insert(
        &mut self,
        flow: u64,
        make: impl FnOnce() -> Option<V>,
    ) -> Option<&mut V> {
        match self.shards[index(flow)].entry(flow) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => {
                let value = entry.insert(make()?);
                self.len += 1;
                Some(value)
            }
        }
    }

    /// Takes out what is known of a flow.
    pub fn remove(&mut self, flow: u64) -> Option<V> {
        let value = self.shards[index(flow)].remove(&flow)?;
        self.len -= 1;
        Some(value)
    }
}

/// The shard of a flow, by the finish of `SplitMix64`. One multiplication spreads consecutive numbers
/// so evenly that all shards are full at the same time.
fn index(flow: u64) -> usize {
    let mut mixed = flow;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> (u64::BITS - BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::Shards;

    #[test]
    fn it_is_a_map() {
        let mut flows = Shards::new();
        for flow in 0..1000 {
            assert_eq!(flows.get_or_try_insert(flow, || Some(flow)).copied(), Some(flow));
        }
        assert_eq!(flows.get_or_try_insert(7, || None).copied(), Some(7), "it has it");
        assert_eq!(flows.get_or_try_insert(1000, || None), None);
        assert_eq!((flows.remove(7), flows.remove(7), flows.len()), (Some(7), None, 999));
    }

    #[test]
    fn not_all_shards_grow_at_once() {
        let mut flows = Shards::new();
        let mut most = 0;
        let capacities = |flows: &Shards<u64>| -> Vec<usize> {
            flows.shards.iter().map(hashbrown::HashMap::capacity).collect()
        };
        for batch in 0..400 {
            let before = capacities(&flows);
            for flow in batch * 512..(batch + 1) * 512 {
                flows.get_or_try_insert(flow, || Some(flow));
            }
            let moved = before.iter().zip(capacities(&flows)).filter(|(old, new)| **old != *new);
            // What a small shard moves is little.
            most = most.max(moved.map(|(old, _)| *old).sum());
        }
        assert!(most < flows.len() / 10, "{most} of {} were moved for one batch", flows.len());
    }
}
