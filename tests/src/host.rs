//! What should the kernel have made of these packets?
//!
//! The same parser, the host's joining of fragments, and the same flow update, run here over a plain
//! hash map, with the times that the kernel used.

use std::collections::HashMap;

use flowmeter::table::fragments::Fragments;
use flowmeter_common::bytes::HostBytes;
use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::Knobs;
use flowmeter_common::lifetime::{self, EndReason};
use flowmeter_common::packet::{Packet, Reject};
use flowmeter_common::parse::{self, next};
use flowmeter_common::record::{Effect, Record};
use flowmeter_common::splt::Slot;

/// A meter on the host.
pub struct Host {
    knobs: Knobs,
    /// What flows that begin add to the times given; ns.
    pub wall_offset: u64,
    fragments: Fragments,
    /// The flows that have not ended.
    pub flows: HashMap<FlowKey, Record>,
    /// Records of flows that have, in order.
    pub ended: Vec<(EndReason, Record)>,
    /// The SPLT slots by record.
    pub slots: HashMap<u64, Vec<Slot>>,
}

impl Host {
    /// A meter that has seen nothing.
    pub fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            wall_offset: 0,
            fragments: Fragments::default(),
            flows: HashMap::new(),
            ended: Vec::new(),
            slots: HashMap::new(),
        }
    }

    /// The verdict on an Ethernet frame that has been captured whole.
    pub fn parse(&self, frame: &[u8]) -> Result<Packet, Reject> {
        parse::parse(
            &HostBytes::new(frame),
            0,
            next::ETHERNET,
            frame.len() as u32,
            self.knobs.decode_tunnels,
        )
    }

    /// The packet that will be metered: of later fragments with the first one's ports, `None` for
    /// those that are ignored.
    pub fn admit(&mut self, frame: &[u8]) -> Option<Packet> {
        let mut p = self.parse(frame).ok()?;
        // All comes within a second here.
        self.fragments.join(&mut p, 0).then_some(p)
    }

    /// Meters an admitted packet at `clock_ns`. If that begins a record, it is `uid`'s. Gives the
    /// uid of the packet's record, and the packet's ordinal there.
    pub fn meter(&mut self, p: &Packet, clock_ns: u64, uid: u64) -> (u64, u64) {
        let (key, from_high) = FlowKey::of(p, 0);
        let mut begun = Record::default();
        begun.begin(&key, uid, self.wall_offset, p, from_high);
        let record = self.flows.entry(key).or_insert(begun);
        if record.packets() > 0
            && let Some(why) = lifetime::ended(record, clock_ns, &self.knobs)
        {
            self.ended.push((why, *record));
            *record = begun;
        }
        let mut effect = Effect::default();
        record.add(p, from_high, clock_ns, &self.knobs, &mut effect);
        let added = &effect.splt.slots[..effect.splt.count as usize];
        self.slots.entry(record.uid).or_default().extend(added);
        (record.uid, effect.number)
    }
}
