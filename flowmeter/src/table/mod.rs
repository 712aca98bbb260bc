//! Where do flows live on the host?
//!
//! In a hash table over a slab, with the same flow update as the kernel's. Flows stand in the
//! order of their last packets, so that idle ones are found at the head: a packet costs the same
//! however many flows there are.

use std::hash::BuildHasher;

use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::Knobs;
use flowmeter_common::lifetime::{self, EndReason};
use flowmeter_common::packet::Packet;
use flowmeter_common::splt::Slot;
use flowmeter_common::tally::{Effect, Record};
use hashbrown::{DefaultHashBuilder, HashTable};

/// The flows that have not ended.
pub struct Table {
    knobs: Knobs,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    entries: Vec<Entry>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    begun: u64,
}

/// A flow that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Why.
    pub reason: EndReason,
    /// Its sums.
    pub record: Record,
    /// Its first packets.
    pub splt: Vec<Slot>,
}

struct Entry {
    record: Record,
    splt: Vec<Slot>,
    older: u32,
    newer: u32,
}

/// No entry.
const NONE: u32 = u32::MAX;

/// Set in the uids of flows that the host began, which no kernel record has.
const HOST_UID: u64 = 1 << 63;

impl Table {
    /// A table without flows.
    pub fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            entries: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            begun: 0,
        }
    }

    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no flow in the table.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Counts a packet seen at `now_ns` (ns since the epoch, not before the packet preceding it) in
    /// its flow, which it may begin, and hands out the flow that it finds ended in its place.
    pub fn observe(
        &mut self,
        p: &Packet,
        interface: u8,
        now_ns: u64,
        mut end: impl FnMut(Ended),
    ) -> Effect {
        let (key, from_high) = FlowKey::of(p, interface);
        let hash = self.hasher.hash_one(key);
        let found = self
            .index
            .find(hash, |&i| self.entries[i as usize].record.key == key);
        let at = match found.copied() {
            Some(at) => {
                let entry = &mut self.entries[at as usize];
                if let Some(reason) = lifetime::ended(&entry.record, now_ns, &self.knobs) {
                    let record = entry.record;
                    end(Ended {
                        reason,
                        record,
                        splt: std::mem::take(&mut entry.splt),
                    });
                    self.begun += 1;
                    let uid = HOST_UID | self.begun;
                    entry.record.begin(&key, uid, p, from_high);
                }
                self.unlink(at);
                at
            }
            None => self.insert(hash, &key, p, from_high),
        };
        self.link_newest(at);
        let entry = &mut self.entries[at as usize];
        let mut effect = Effect::default();
        entry
            .record
            .add(p, from_high, now_ns, &self.knobs, &mut effect);
        entry
            .splt
            .extend(effect.splt.slots.iter().take(effect.splt.count as usize));
        effect
    }

    /// Hands out the flows that are idle at `now_ns`.
    pub fn expire(&mut self, now_ns: u64, mut end: impl FnMut(Ended)) {
        while self.oldest != NONE {
            let at = self.oldest;
            match lifetime::ended(&self.entries[at as usize].record, now_ns, &self.knobs) {
                Some(reason) => end(self.remove(at, reason)),
                None => return,
            }
        }
    }

    /// Hands out all flows, those whose last packet is oldest first.
    pub fn drain(&mut self, mut end: impl FnMut(Ended)) {
        while self.oldest != NONE {
            end(self.remove(self.oldest, EndReason::Forced));
        }
    }

    fn insert(&mut self, hash: u64, key: &FlowKey, p: &Packet, from_high: bool) -> u32 {
        self.begun += 1;
        let mut record = Record::default();
        record.begin(key, HOST_UID | self.begun, p, from_high);
        let entry = Entry {
            record,
            splt: Vec::new(),
            older: NONE,
            newer: NONE,
        };
        let at = if let Some(at) = self.free.pop() {
            self.entries[at as usize] = entry;
            at
        } else {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index.insert_unique(hash, at, |&i| {
            hasher.hash_one(entries[i as usize].record.key)
        });
        at
    }

    fn remove(&mut self, at: u32, reason: EndReason) -> Ended {
        self.unlink(at);
        let hash = self.hasher.hash_one(self.entries[at as usize].record.key);
        if let Ok(entry) = self.index.find_entry(hash, |&i| i == at) {
            entry.remove();
        }
        self.free.push(at);
        let entry = &mut self.entries[at as usize];
        Ended {
            reason,
            record: entry.record,
            splt: std::mem::take(&mut entry.splt),
        }
    }

    fn unlink(&mut self, at: u32) {
        let (older, newer) = (
            self.entries[at as usize].older,
            self.entries[at as usize].newer,
        );
        match older {
            NONE => self.oldest = newer,
            i => self.entries[i as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            i => self.entries[i as usize].older = older,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        entry.older = self.newest;
        entry.newer = NONE;
        match self.newest {
            NONE => self.oldest = at,
            i => self.entries[i as usize].newer = at,
        }
        self.newest = at;
    }
}
