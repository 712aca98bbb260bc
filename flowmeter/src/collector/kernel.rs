//! How is the kernel's half of the meter emptied?
//!
//! By polling: rings are drained every tick, the flow map is walked slice by slice so that a
//! silent flow is found within a second of its timeout. Nothing here waits.

use std::time::{Duration, Instant};

use flowmeter_common::event::{OverflowEvent, PacketEvent, PacketHead, Why};
use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::Knobs;
use flowmeter_common::lifetime;

use crate::capture::kernel::{
    Balance, Drained, Error, FlowMap, Kernel, PacketRing, RecordRing, Slice, SpltMap,
};
use crate::notice::{Notice, Notices};
use crate::table::{Ended, Order, Table};

/// Empties the kernel's maps and rings.
pub struct Collector {
    kernel: Kernel,
    flows: FlowMap,
    records: RecordRing,
    packets: PacketRing,
    splt: Option<SpltMap>,
    knobs: Knobs,
    /// Flows of packets that found no room in the kernel.
    overflow: Table<()>,
    max_overflow: usize,
    /// Ended flows on their way to the engine; room that is used again.
    ended: Vec<Ended<()>>,
    due: Vec<FlowKey>,
    pass: Pass,
    /// Flows that were still in the kernel at the end.
    left: usize,
    notices: Notices,
}

/// Sees what the kernel hands out, in an order in which every packet of a flow comes before its
/// end.
pub trait Observer {
    /// A packet for the dissector, from its IP header on. It has a head if every packet is forwarded.
    fn packet(&mut self, event: &PacketEvent, head: Option<&PacketHead>, ip: &[u8]);
    /// A flow has ended.
    fn ended(&mut self, ended: Ended<()>);
}

/// A walk over the flow map.
struct Pass {
    begun: Instant,
    slices: usize,
    /// Slices of the last whole pass.
    last: usize,
    running: bool,
}

/// A silent flow is found within this time of its timeout.
const PASS: Duration = Duration::from_millis(900);

/// In how many ticks a pass is done at the latest, so that none of them is long.
const PASS_TICKS: usize = 40;

/// Passes over the map at the end.
const MAX_PASSES: usize = 100;

/// Events taken from a ring in one tick, so that the others get their turn.
const MAX_EVENTS: usize = 16_384;

impl Collector {
    /// Takes the kernel half over.
    ///
    /// Of the flows that it has no room for, `max_overflow` are metered here at a time; those that
    /// were idle longest are ended early for want of resources.
    pub fn new(
        mut kernel: Kernel,
        knobs: Knobs,
        max_overflow: usize,
        notices: Notices,
    ) -> Result<Self, Error> {
        Ok(Self {
            flows: kernel.flow_map()?,
            records: kernel.record_ring()?,
            packets: kernel.packet_ring()?,
            splt: if knobs.splt > 0 { Some(kernel.splt_map(knobs.splt)?) } else { None },
            kernel,
            knobs,
            overflow: Table::new(knobs, Order::LastPacket),
            max_overflow,
            ended: Vec::new(),
            due: Vec::new(),
            pass: Pass { begun: Instant::now(), slices: 0, last: 0, running: true },
            left: 0,
            notices,
        })
    }

    /// The kernel half.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// What the kernel has counted.
    pub fn balance(&self) -> Result<Balance, Error> {
        self.kernel.balance()
    }

    /// Flows that could not be taken out of the kernel at the end.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Flows that are metered here because the kernel had no room.
    pub fn overflowed(&self) -> usize {
        self.overflow.len()
    }

    /// Drains the rings and walks on over the map. Returns how many events there were: the caller
    /// may rest a while if few.
    pub fn tick(&mut self, see: &mut impl Observer) -> Result<usize, Error> {
        self.follow_wall_clock();
        let events = self.drain(see)?;
        self.kernel.tell_log();
        self.sweep()?;
        let clock_ns = self.kernel.clock().now_ns();
        let ended = &mut self.ended;
        self.overflow.scan(clock_ns, usize::MAX, |flow| ended.push(flow));
        self.hand_out(see);
        Ok(events)
    }

    /// Takes flows out of the kernel that somebody wants to end, and out of `keys` as far as there was
    /// room for them. What their ends say is that they were forced.
    pub fn end(&mut self, keys: &mut Vec<FlowKey>) -> Result<(), Error> {
        if !keys.is_empty() {
            let done = self.kernel.reap(keys, self.kernel.clock().now_ns(), Why::Asked)?;
            keys.drain(..done.min(keys.len()));
        }
        Ok(())
    }

    /// Looks at the wall clock, so that a step is followed within a tick.
    fn follow_wall_clock(&mut self) {
        if let Some(step_ns) = self.kernel.follow_wall_clock() {
            self.notices.send(Notice::ClockSet { step_ns });
        }
    }

    /// Takes the programs off and hands out everything that is resident.
    pub fn finish(&mut self, see: &mut impl Observer) -> Result<(), Error> {
        self.kernel.detach();
        // One pass does it; the bound is against what cannot be.
        for _ in 0..MAX_PASSES {
            while self.drain(see)? > 0 {}
            let keys = self.keys()?;
            if keys.is_empty() {
                break;
            }
            let clock_ns = self.kernel.clock().now_ns();
            let left = take_all(
                &mut (&mut *self, &mut *see),
                &keys,
                |(collector, _), keys| collector.kernel.reap(keys, clock_ns, Why::Shutdown),
                |(collector, see)| collector.drain(*see),
            )?;
            if left > 0 {
                break;
            }
        }
        self.left = self.keys()?.len();
        if self.left > 0 {
            self.notices.send(Notice::FlowsLeft(self.left));
        }
        let ended = &mut self.ended;
        self.overflow.drain(|flow| ended.push(flow));
        self.hand_out(see);
        Ok(())
    }

    /// The flows in the kernel.
    fn keys(&mut self) -> Result<Vec<FlowKey>, Error> {
        let mut keys = Vec::new();
        while self.flows.slice(|key, _| keys.push(*key))? == Slice::More {}
        Ok(keys)
    }

    /// Empties the rings: records first into memory, then packets to the observer, then the
    /// records. Whatever a record's flow sent to the dissector was in the packet ring before the
    /// record was in its own, so it is seen before.
    fn drain(&mut self, see: &mut impl Observer) -> Result<usize, Error> {
        let mut events = 0;
        let (ended, overflow) = (&mut self.ended, &mut self.overflow);
        let most = self.max_overflow;
        let first = ended.len();
        let mut take = |drained: Drained<'_>| match drained {
            Drained::Record(reason, record) => {
                ended.push(Ended {
                    reason,
                    record: *record,
                    splt: Vec::new(),
                    attached: (),
                    last: 0,
                });
            }
            Drained::Overflow(OverflowEvent {
                interface, clock_ns, wall_offset, packet, ..
            }) => {
                let key = FlowKey::of(packet, *interface as u8);
                overflow.set_wall_offset(*wall_offset);
                _ = overflow.observe(packet, key, *clock_ns, 0, |flow| ended.push(flow));
                overflow.shed(most, |flow| ended.push(flow));
            }
        };
        while events < MAX_EVENTS && self.records.next(&mut take) {
            events += 1;
        }
        if let Some(splt) = &mut self.splt {
            for flow in self.ended.iter_mut().skip(first) {
                if flow.record.splt_slots > 0 && flow.splt.is_empty() {
                    flow.splt = splt.slots(&flow.record)?;
                }
            }
        }
        let mut packets = 0;
        while packets < MAX_EVENTS
            && self.packets.next(|event, head, ip| see.packet(event, head, ip))
        {
            packets += 1;
        }
        // With packets left over, records may only follow them.
        while packets >= MAX_EVENTS
            && !self.ended.is_empty()
            && self.packets.next(|event, head, ip| see.packet(event, head, ip))
        {
            packets += 1;
        }
        self.hand_out(see);
        Ok(events + packets)
    }

    fn hand_out(&mut self, see: &mut impl Observer) {
        for flow in self.ended.drain(..) {
            see.ended(flow);
        }
    }

    /// Goes on over the flow map and has the flows reaped that have ended.
    fn sweep(&mut self) -> Result<(), Error> {
        if !self.pass.running {
            if self.pass.begun.elapsed() < PASS {
                return Ok(());
            }
            self.pass =
                Pass { begun: Instant::now(), slices: 0, last: self.pass.slices, running: true };
        }
        let clock_ns = self.kernel.clock().now_ns();
        for _ in 0..self.pass.last.div_ceil(PASS_TICKS).max(2) {
            let (due, knobs) = (&mut self.due, &self.knobs);
            let slice = self.flows.slice(|key, record| {
                if lifetime::is_idle(record, clock_ns, knobs) {
                    due.push(*key);
                }
            })?;
            self.pass.slices += 1;
            if slice == Slice::Last {
                self.pass.running = false;
                break;
            }
        }
        if !self.due.is_empty() {
            // Keys left over because the ring is full come again with the next pass.
            self.kernel.reap(&self.due, clock_ns, Why::Timeout)?;
            self.due.clear();
        }
        Ok(())
    }
}

/// Rounds without any progress after which the rest is given up, and the rest between them.
const MAX_IDLE: u32 = 100;
const IDLE: Duration = Duration::from_millis(1);

/// Has `reap` take all flows of `keys` out of the kernel, as far as the ring has room, and `drain`
/// make that room. Gives how many were left when neither got any further.
fn take_all<S, E>(
    state: &mut S,
    keys: &[FlowKey],
    mut reap: impl FnMut(&mut S, &[FlowKey]) -> Result<usize, E>,
    mut drain: impl FnMut(&mut S) -> Result<usize, E>,
) -> Result<usize, E> {
    let mut left = keys;
    let mut idle = 0;
    while !left.is_empty() && idle < MAX_IDLE {
        let mut progress = reap(state, left)?;
        left = left.get(progress..).unwrap_or_default();
        loop {
            let events = drain(state)?;
            if events == 0 {
                break;
            }
            progress += events;
        }
        if progress > 0 {
            idle = 0;
        } else {
            idle += 1;
            std::thread::sleep(IDLE);
        }
    }
    Ok(left.len())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_full_ring_is_drained_and_reaping_goes_on() {
        // A ring with room for two, and keys for seven.
        let (mut taken, keys) = (0, [FlowKey::default(); 7]);
        let mut ring = 0;
        let left = take_all(
            &mut ring,
            &keys,
            |ring, keys| {
                let done = keys.len().min(2 - *ring);
                *ring += done;
                Ok::<_, Infallible>(done)
            },
            |ring| {
                taken += *ring;
                Ok(std::mem::take(ring))
            },
        );
        assert_eq!((left, taken), (Ok(0), 7));
    }

    #[test]
    fn flows_that_cannot_be_taken_are_left_and_counted() {
        let keys = [FlowKey::default(); 7];
        let mut reaped = 0;
        // The first two go; after that the reaper does nothing, and the ring is empty.
        let left = take_all(
            &mut reaped,
            &keys,
            |reaped, _| {
                Ok::<_, Infallible>(if *reaped == 0 {
                    *reaped = 2;
                    2
                } else {
                    0
                })
            },
            |_| Ok(0),
        );
        assert_eq!(left, Ok(5));
    }
}
