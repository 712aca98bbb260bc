//! Where do plugins see packets?
//!
//! At a hook that the engine is compiled for: without plugins it is a call of nothing, and gone.

use flowmeter_common::packet;
use flowmeter_common::record::Record;
use flowmeter_common::splt::Slot;

use crate::collector::pcap::Next;
use crate::flow::Flow;

/// A packet that has been counted.
pub struct Event<'a> {
    /// When it was seen; ns since the epoch.
    pub time_ns: u64,
    /// Its headers.
    pub headers: &'a packet::Packet,
    /// Whether its source is the high end of the flow's key.
    pub from_high: bool,
    /// Its bytes from the IP header on.
    pub ip: &'a [u8],
}

/// What is done with each packet and each flow.
pub trait Hooks {
    /// What is kept of each flow.
    type Kept: Default + Send;

    /// Whether packets' bytes are looked at.
    const WANTS_BYTES: bool;

    /// A packet was counted in a flow.
    fn packet(
        &mut self,
        event: &Event<'_>,
        record: &Record,
        splt: &[Slot],
        kept: &mut Self::Kept,
    ) -> Next;

    /// Whether they are to know of a flow's end before they see the next packet.
    #[inline]
    fn is_prompt(&self) -> bool {
        false
    }

    /// A flow has ended.
    fn expired(&mut self, kept: Self::Kept, flow: &mut Flow);
}

/// No plugins.
impl Hooks for () {
    type Kept = ();

    const WANTS_BYTES: bool = false;

    #[inline]
    fn packet(&mut self, _: &Event<'_>, _: &Record, _: &[Slot], (): &mut ()) -> Next {
        Next::GoesOn
    }

    #[inline]
    fn expired(&mut self, (): (), _: &mut Flow) {}
}
