//! When is a flow long enough?

use std::time::Duration;

use flowmeter_common::packet::Layer;

use super::settings::{Invalid, Settings};
use crate::fields::Added;
use crate::flow::{Flow, Own, Side};
use crate::plugin::{Packet, Plugin, Standing};

/// Ends a flow with the packet that reaches a limit; its next packet begins a new one. With a limit
/// of packets it is `NFStream`'s `FlowSlicer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slicer {
    /// Packets of a flow.
    pub packets: Option<u64>,
    /// Bytes of a flow's frames.
    pub bytes: Option<u64>,
    /// Time since a flow's first packet.
    pub age: Option<Duration>,
}

impl Slicer {
    pub(super) fn from_settings(settings: &mut Settings<'_>) -> Result<Self, Invalid> {
        let packets = settings.number("packets", 1..=u64::MAX)?;
        let bytes = settings.number("bytes", 1..=u64::MAX)?;
        let age = settings.number("seconds", 1..=u64::MAX / 1_000_000_000)?;
        let slicer = Self { packets, bytes, age: age.map(Duration::from_secs) };
        if slicer == Self::default() { Err(settings.missing()) } else { Ok(slicer) }
    }

    fn look(&self, flow: &mut Standing<'_>) {
        let reached = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
        let is_old = || {
            let times = flow.sums.totals(Side::Both, Layer::Link);
            let age = Duration::from_nanos(times.last_ns.saturating_sub(times.first_ns));
            self.age.is_some_and(|limit| age >= limit)
        };
        let bytes = || flow.sums.0.directions.iter().map(|d| d.bytes[Layer::Link as usize]).sum();
        if reached(self.packets, flow.sums.packets())
            || self.bytes.is_some() && reached(self.bytes, bytes())
            || self.age.is_some() && is_old()
        {
            flow.end();
        }
    }
}

impl Plugin for Slicer {
    type State = ();

    fn columns(&self) -> Vec<Added> {
        Vec::new()
    }

    fn on_init(&mut self, _: &Packet<'_>, flow: &mut Standing<'_>) {
        self.look(flow);
    }

    fn on_update(&mut self, (): &mut (), _: &Packet<'_>, flow: &mut Standing<'_>) {
        self.look(flow);
    }

    fn on_expire(&mut self, (): (), _: &mut Flow, _: &mut Vec<Own>) {}
}
