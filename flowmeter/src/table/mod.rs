//! Where do flows live on the host?
//!
//! In a hash table over a slab, with the same flow update as the kernel's. Flows stand in the
//! order of their last packets, so that idle ones are found at the head: a packet costs the same
//! however many flows there are.

pub mod fragments;

use std::hash::BuildHasher;

use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::Knobs;
use flowmeter_common::lifetime::{self, EndReason};
use flowmeter_common::packet::Packet;
use flowmeter_common::record::{Effect, Record};
use flowmeter_common::splt::Slot;
use hashbrown::{DefaultHashBuilder, HashTable};

/// The flows that have not ended, each with a `T` of its stage's.
pub struct Table<T> {
    knobs: Knobs,
    order: Order,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    begun: u64,
    wall_offset: u64,
}

/// In which order flows stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By their last packets: whoever is idle longest is first.
    LastPacket,
    /// By their first packets, and IPv4 and IPv6 not kept apart: `NFStream`'s cache.
    Nfstream,
}

/// A flow that has ended.
#[derive(Clone, Debug)]
pub struct Ended<T> {
    /// Why.
    pub reason: EndReason,
    /// Its sums.
    pub record: Record,
    /// Its first packets.
    pub splt: Vec<Slot>,
    /// What its stage keeps of it.
    pub attached: T,
    /// Number of its last packet among those observed.
    pub last: u64,
}

/// What a packet has done to the flow that it was counted in.
#[derive(Debug)]
pub struct Seen<'a, T> {
    /// The packet's ordinal in its flow, from 1.
    pub number: u64,
    /// Its sums, with the packet.
    pub record: &'a Record,
    /// Its first packets.
    pub splt: &'a [Slot],
    /// What its stage keeps of it.
    pub attached: &'a mut T,
    /// Where it stands.
    pub place: Place,
}

/// Where a flow stands in a table, until another one is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Place(u32);

struct Entry<T> {
    record: Record,
    splt: Vec<Slot>,
    attached: T,
    last: u64,
    older: u32,
    newer: u32,
}

impl<T: Default> Entry<T> {
    fn close(&mut self, reason: EndReason) -> Ended<T> {
        Ended {
            reason,
            record: self.record,
            splt: std::mem::take(&mut self.splt),
            attached: std::mem::take(&mut self.attached),
            last: self.last,
        }
    }
}

impl Order {
    /// What of a key tells flows apart.
    fn identity(self, key: &FlowKey) -> FlowKey {
        match self {
            Self::LastPacket => *key,
            Self::Nfstream => FlowKey { ip_version: 0, ..*key },
        }
    }
}

/// No entry.
const NONE: u32 = u32::MAX;

/// Set in the uids of flows that the host began, which no kernel record has.
const HOST_UID: u64 = 1 << 63;

/// Whether the host began the flow with this uid, not the kernel.
pub fn is_hosts(uid: u64) -> bool {
    uid & HOST_UID != 0
}

impl<T: Default> Table<T> {
    /// A table without flows.
    pub fn new(knobs: Knobs, order: Order) -> Self {
        Self {
            knobs,
            order,
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            entries: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            begun: 0,
            wall_offset: 0,
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

    /// Has flows that begin from now on take the wall clock for so much ahead of the meter's; ns.
    /// At first it is 0: they are the same.
    pub fn set_wall_offset(&mut self, wall_offset: u64) {
        self.wall_offset = wall_offset;
    }

    /// Counts a packet seen at `clock_ns` (by the meter's clock, not before the packet preceding it)
    /// in the flow of its key, which it may begin, and hands out the flow that it finds ended in its
    /// place. `number` is the caller's for the packet, see [`Ended::last`].
    /// Returns what that did.
    #[inline]
    pub fn observe(
        &mut self,
        p: &Packet,
        (key, from_high): (FlowKey, bool),
        clock_ns: u64,
        number: u64,
        end: impl FnMut(Ended<T>),
    ) -> Seen<'_, T> {
        let (number, at) = self.count(p, (key, from_high), clock_ns, number, end);
        let Entry { record, splt, attached, .. } = &mut self.entries[at as usize];
        Seen { number, record, splt, attached, place: Place(at) }
    }

    /// The packet's ordinal in its flow, and where that stands: what fits two registers.
    fn count(
        &mut self,
        p: &Packet,
        (key, from_high): (FlowKey, bool),
        clock_ns: u64,
        number: u64,
        mut end: impl FnMut(Ended<T>),
    ) -> (u64, u32) {
        let identity = self.order.identity(&key);
        let hash = self.hasher.hash_one(identity);
        let (entries, order) = (&self.entries, self.order);
        let found =
            self.index.find(hash, |&i| order.identity(&entries[i as usize].record.key) == identity);
        let at = if let Some(at) = found.copied() {
            let entry = &mut self.entries[at as usize];
            let ended = lifetime::ended(&entry.record, clock_ns, &self.knobs);
            if let Some(reason) = ended {
                end(entry.close(reason));
                self.begun += 1;
                let uid = HOST_UID | self.begun;
                entry.record.begin(&key, uid, self.wall_offset, p, from_high);
            }
            if ended.is_some() || self.order == Order::LastPacket {
                self.unlink(at);
                self.link_newest(at);
            }
            at
        } else {
            let at = self.insert(hash, &key, p, from_high);
            self.link_newest(at);
            at
        };
        let entry = &mut self.entries[at as usize];
        entry.last = number;
        let mut effect = Effect::default();
        entry.record.add(p, from_high, clock_ns, &self.knobs, &mut effect);
        if effect.splt.count > 0 {
            entry.splt.extend(effect.splt.slots.iter().take(effect.splt.count as usize));
        }
        (effect.number, at)
    }

    /// Takes out the flow that was seen last.
    pub fn end(&mut self, Place(at): Place) -> Ended<T> {
        self.remove(at, EndReason::End)
    }

    /// Hands out up to `most` flows from the head of the order, as long as the first one is idle at
    /// `clock_ns`. In [`Order::LastPacket`] these are all that are idle; `NFStream`'s order lets a
    /// long-lived flow at the head hide those behind it.
    pub fn scan(&mut self, clock_ns: u64, most: usize, mut end: impl FnMut(Ended<T>)) {
        for _ in 0..most {
            if self.oldest == NONE {
                return;
            }
            let oldest = &self.entries[self.oldest as usize].record;
            if !lifetime::is_idle(oldest, clock_ns, &self.knobs) {
                return;
            }
            end(self.remove(self.oldest, EndReason::Idle));
        }
    }

    /// Hands out the flows at the head of the order until there are no more than `most`.
    pub fn shed(&mut self, most: usize, mut end: impl FnMut(Ended<T>)) {
        while self.index.len() > most {
            end(self.remove(self.oldest, EndReason::Resources));
        }
    }

    /// Hands out all flows, those whose last packet is oldest first.
    pub fn drain(&mut self, mut end: impl FnMut(Ended<T>)) {
        while self.oldest != NONE {
            end(self.remove(self.oldest, EndReason::Forced));
        }
    }

    fn insert(&mut self, hash: u64, key: &FlowKey, p: &Packet, from_high: bool) -> u32 {
        self.begun += 1;
        let mut record = Record::default();
        record.begin(key, HOST_UID | self.begun, self.wall_offset, p, from_high);
        let entry = Entry {
            record,
            splt: Vec::new(),
            attached: T::default(),
            last: 0,
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
        let (entries, hasher, order) = (&self.entries, &self.hasher, self.order);
        self.index.insert_unique(hash, at, |&i| {
            hasher.hash_one(order.identity(&entries[i as usize].record.key))
        });
        at
    }

    fn remove(&mut self, at: u32, reason: EndReason) -> Ended<T> {
        self.unlink(at);
        let identity = self.order.identity(&self.entries[at as usize].record.key);
        let hash = self.hasher.hash_one(identity);
        if let Ok(entry) = self.index.find_entry(hash, |&i| i == at) {
            entry.remove();
        }
        self.free.push(at);
        self.entries[at as usize].close(reason)
    }

    fn unlink(&mut self, at: u32) {
        let (older, newer) = (self.entries[at as usize].older, self.entries[at as usize].newer);
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
