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
    /// no more than the kernel has and wait for their verdicts, and a few that are dead.
    flows: HashMap<u64, Watched>,
    /// With this many flows the dead ones are looked for.
    many: usize,
    scratch: Vec<u8>,
    /// Flows in the kernel that are to end.
    pub due: Vec<FlowKey>,
}

/// Fewer flows are not looked through.
const FEW: usize = 1_024;

/// No row is written this long after its flow's timeout; ns.
const LATE_NS: u64 = 60_000_000_000;

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
            many: FEW,
            scratch: Vec::new(),
            due: Vec::new(),
        })
    }

    /// Shows them a packet, or those that a super-packet was.
    pub fn packet(&mut self, event: &PacketEvent, head: &PacketHead, ip: &[u8]) {
        let (key, from_high) = FlowKey::of(&head.packet, head.interface as u8);
        self.forget_dead(event.time_ns);
        let Self { running, knobs, flows, scratch, due, .. } = self;
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

    /// A packet may come so late that its flow's row is written: then it begins a flow here that never
    /// ends. Those are dropped some time after the kernel would have ended them.
    fn forget_dead(&mut self, now_ns: u64) {
        if self.flows.len() < self.many {
            return;
        }
        let longest = self.knobs.idle_ns.saturating_add(LATE_NS);
        self.flows.retain(|_, flow| flow.record.last_ns().saturating_add(longest) > now_ns);
        self.many = FEW.max(2 * self.flows.len());
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

#[cfg(test)]
mod tests {
    use flowmeter_common::packet::ipv4_address;

    use super::*;
    use crate::plugin::Plugins;
    use crate::plugin::shipped::Shipped;

    #[test]
    fn flows_that_never_end_are_dropped() {
        let plugin: Shipped = "headers:packets=1".parse().expect("a plugin");
        let options = LiveOptions::new(["lo"]).with_plugins(plugin.add_to(Plugins::default()));
        let mut plugged = Plugged::start(&options).expect("there is a plugin");
        let packet = Packet {
            src: ipv4_address([10, 0, 0, 1]),
            dst: ipv4_address([10, 0, 0, 2]),
            segments: 1,
            ip_version: 4,
            ..Packet::default()
        };
        let head = PacketHead { packet, ..PacketHead::default() };
        let mut see = |uid, time_ns| {
            let event = PacketEvent { uid, time_ns, segments: 1, ..PacketEvent::default() };
            plugged.packet(&event, &head, &[]);
            plugged.flows.len()
        };
        let first = (0..FEW as u64).map(|uid| see(uid, 1)).last();
        assert_eq!(first, Some(FEW));
        let late = options.knobs.idle_ns + LATE_NS + 1;
        assert_eq!(see(5_000, late), 1, "all others are dead");
        assert_eq!(see(5_001, late), 2);
    }
}
