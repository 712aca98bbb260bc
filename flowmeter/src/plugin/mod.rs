//! What else shall be known of a flow?
//!
//! A [`Plugin`] sees each packet of a flow and gives the flow columns of its own, as `NFStream`'s
//! `NFPlugin` does. Those that come with the meter are in [`shipped`].

mod hooks;
mod set;
pub mod shipped;

use flowmeter_common::knobs::MILLISECOND;
use flowmeter_common::packet::{self, Layer};
use flowmeter_common::splt::Slot;

use crate::fields::Added;
use crate::flow::{End, Flow, Own, Side, Sums};

pub(crate) use hooks::{Event, Hooks};
pub use set::Plugins;
pub(crate) use set::{Kept, Running};

/// Sees the packets of flows, and gives flows columns.
///
/// Each worker of a run has a clone of it, as it was when the run began. A flow's packets are all
/// seen by the same clone, in order; of other flows it sees those that are its worker's.
pub trait Plugin: Send {
    /// What it keeps of each flow.
    type State: Send + 'static;

    /// Its columns, in order: as many as [`on_expire`](Self::on_expire) gives values. Their names
    /// begin with `udps.`, see [`column()`].
    fn columns(&self) -> Vec<Added>;

    /// A flow begins with this packet. `flow` has counted it.
    fn on_init(&mut self, packet: &Packet<'_>, flow: &mut Standing<'_>) -> Self::State;

    /// The flow has a further packet. `flow` has counted it.
    fn on_update(&mut self, state: &mut Self::State, packet: &Packet<'_>, flow: &mut Standing<'_>);

    /// The flow has ended, and has all that is known of it but its process. Adds the values of the
    /// columns to `values`, in their order; what is missing is not known.
    fn on_expire(&mut self, state: Self::State, flow: &mut Flow, values: &mut Vec<Own>);
}

/// A packet as plugins see it: `NFStream`'s `NFPacket`.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When it was seen; ns since the epoch, not before the packet that was seen before it.
    pub time_ns: u64,
    /// When the flow's packet before it was; ns since the epoch. None of the first.
    pub previous_ns: Option<u64>,
    /// From which end of the flow it came.
    pub direction: Side,
    /// Its sender: the flow's end, with this packet's port.
    pub src: End,
    /// Its receiver.
    pub dst: End,
    /// Its headers.
    pub headers: &'a packet::Packet,
    /// Its bytes from the innermost IP header that was metered to the end of what was captured of the
    /// frame, which may have padding behind it.
    pub ip: &'a [u8],
}

impl Packet<'_> {
    /// Time since the flow's packet before it, the difference of whole milliseconds as `NFStream`
    /// has it; 0 of the first.
    pub fn delta_ms(&self) -> u64 {
        let ms = |ns: u64| ns / MILLISECOND;
        self.previous_ns.map_or(0, |previous| ms(self.time_ns).saturating_sub(ms(previous)))
    }

    /// Its size at a layer; bytes.
    pub fn size(&self, layer: Layer) -> u32 {
        self.headers.sizes[layer as usize]
    }

    /// Its transport header and what follows, without what pads the frame. What was not captured is
    /// missing.
    pub fn transport(&self) -> &[u8] {
        let bytes = self.size(Layer::Ip).saturating_sub(self.size(Layer::Transport));
        self.part(bytes as usize)
    }

    /// Its payload, behind the transport header, without what pads the frame. What was not captured
    /// is missing.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.size(Layer::Ip).saturating_sub(self.size(Layer::Payload));
        self.part(bytes as usize)
    }

    /// The IP packet from `start` on.
    fn part(&self, start: usize) -> &[u8] {
        let end = (self.size(Layer::Ip) as usize).min(self.ip.len());
        self.ip.get(start..end).unwrap_or_default()
    }
}

/// A flow that goes on, as it stands.
#[derive(Debug)]
pub struct Standing<'a> {
    /// Its sums, with the packet at hand.
    pub sums: Sums<'a>,
    /// Its first packets, run-length coded, as far as they are kept.
    pub splt: &'a [Slot],
    ends: bool,
}

impl Standing<'_> {
    /// Has the flow end with the packet at hand, with `expiration_id` −1. All plugins see the packet,
    /// then the end.
    pub fn end(&mut self) {
        self.ends = true;
    }
}

/// A column of a plugin: `name` is what `NFStream`'s users write behind `flow.udps.`.
pub fn column(
    name: impl std::fmt::Display,
    kind: crate::fields::columns::Kind,
    unit: &'static str,
    doc: impl Into<String>,
) -> Added {
    Added { name: format!("udps.{name}"), kind, unit, doc: doc.into() }
}
