//! What do plugins see of a flow that the kernel meters?
//!
//! Every packet, as the kernel forwards it; the flow's sums are kept here once more, packet by
//! packet, as they stood at each. The record that counts is the kernel's.

use flowmeter_common::event::{PacketEvent, PacketHead};
use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::Knobs;
use flowmeter_common::lifetime::EndReason;
use flowmeter_common::packet::Packet;
use flowmeter_common::record::{Effect, Record, mark};
use flowmeter_common::splt::Slot;
use flowmeter_common::tcp::{CWR, FIN, PSH};
use hashbrown::HashMap;

use super::options::LiveOptions;
use crate::collector::pcap::Next;
use crate::dissect::segments;
use crate::flow::Flow;
use crate::plugin::{Event, Hooks as _, Kept, Running};
use crate::table::Ended;

/// The plugins of a live run, and the flows that they have seen.
pub struct Plugged {
    running: Running,
    knobs: Knobs,
    /// By the number of the kernel's record. Each leaves when its row is written, so that there are
    /// no more than the kernel has and wait for their verdicts.
    flows: HashMap<u64, Watched>,
    scratch: Vec<u8>,
    /// Flows in the kernel that are to end.
    pub due: Vec<FlowKey>,
}

/// A flow as plugins see it.
#[derive(Default)]
struct Watched {
    record: Record,
    splt: Vec<Slot>,
    kept: Kept,
    /// A plugin has ended it.
    is_over: bool,
}

impl Plugged {
    /// None without plugins.
    pub fn start(options: &LiveOptions) -> Option<Self> {
        let plugins = &options.plugins;
        (!plugins.is_empty()).then(|| Self {
            running: plugins.start(),
            knobs: options.knobs,
            flows: HashMap::new(),
            scratch: Vec::new(),
            due: Vec::new(),
        })
    }

    /// Shows them a packet, or those that a super-packet was.
    pub fn packet(&mut self, event: &PacketEvent, head: &PacketHead, ip: &[u8]) {
        let (key, from_high) = FlowKey::of(&head.packet, head.interface as u8);
        let Self { running, knobs, flows, scratch, due } = self;
        let flow = flows.entry(event.uid).or_insert_with(|| {
            let mut flow = Watched::default();
            flow.record.begin(&key, event.uid, 0, &head.packet, from_high);
            flow
        });
        segments::each_as_it_is(event, ip, scratch, |index, ip| {
            let headers = segment(&head.packet, index);
            let mut effect = Effect::default();
            flow.record.add(&headers, from_high, event.time_ns, knobs, &mut effect);
            flow.splt.extend(effect.splt.slots.iter().take(effect.splt.count as usize));
            let event = Event { time_ns: event.time_ns, headers: &headers, from_high, ip };
            let next = running.packet(&event, &flow.record, &flow.splt, &mut flow.kept);
            if next == Next::Ends && !std::mem::replace(&mut flow.is_over, true) {
                due.push(key);
            }
        });
    }

    /// The kernel has handed a flow out. That it was made to for a plugin is the plugin's end.
    pub fn ended(&mut self, ended: &mut Ended<()>) {
        let Some(flow) = self.flows.get(&ended.record.uid).filter(|flow| flow.is_over) else {
            return;
        };
        if ended.reason == EndReason::Forced {
            ended.reason = EndReason::End;
        } else {
            // What has its key by now is another flow.
            self.due.retain(|key| *key != flow.record.key);
        }
    }

    /// Has them say what they know of a flow that is to be written.
    pub fn expired(&mut self, flow: &mut Flow) {
        match self.flows.remove(&flow.record.uid) {
            Some(watched) => self.running.expired(watched.kept, flow),
            // None of its packets was forwarded.
            None => flow.record.marks |= mark::DISSECTION_LOST,
        }
    }
}

/// The headers of one of the packets that a super-packet was, see [`segments`].
fn segment(whole: &Packet, index: u32) -> Packet {
    let is_last = index + 1 >= whole.segments;
    let mut packet = Packet { segments: 1, segment_sizes: [0; 4], ..*whole };
    if !is_last {
        packet.sizes = whole.segment_sizes;
        packet.tcp_flags &= !(FIN | PSH);
    }
    if index > 0 {
        packet.tcp_flags &= !CWR;
    }
    packet
}
