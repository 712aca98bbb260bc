//! What are the first packets of a flow like?

use flowmeter_common::packet::Layer;

use super::push_filled;
use super::settings::{Invalid, Settings};
use crate::fields::Added;
use crate::fields::columns::Kind;
use crate::flow::{Flow, Own, Side};
use crate::plugin::{Packet, Plugin, Standing, column};

/// Direction, size and inter-arrival time of the first packets: `NFStream`'s plugin `SPLT`. Unlike
/// `--splt-analysis` it has an accounting mode of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splt {
    /// Packets in a list, 1 to 65535; −1 where there is none.
    pub length: usize,
    /// What counts as a packet's size.
    pub layer: Layer,
}

/// The lists, as long as there are packets.
#[derive(Debug, Default)]
pub struct Lists {
    direction: Vec<i64>,
    size: Vec<i64>,
    piat_ms: Vec<i64>,
}

impl Splt {
    pub(super) fn from_settings(settings: &mut Settings<'_>) -> Result<Self, Invalid> {
        let length = settings.number("length", 1..=65_535)?.unwrap_or(20) as usize;
        let layer = match settings.number("accounting_mode", 0..=3)? {
            None | Some(0) => Layer::Link,
            Some(1) => Layer::Ip,
            Some(2) => Layer::Transport,
            Some(_) => Layer::Payload,
        };
        Ok(Self { length, layer })
    }

    fn add(&self, lists: &mut Lists, packet: &Packet<'_>) {
        if lists.size.len() < self.length {
            lists.direction.push(i64::from(packet.direction == Side::Dst2Src));
            lists.size.push(i64::from(packet.size(self.layer)));
            lists.piat_ms.push(packet.delta_ms().cast_signed());
        }
    }
}

impl Plugin for Splt {
    type State = Lists;

    fn columns(&self) -> Vec<Added> {
        let list = |name, unit, doc| column(name, Kind::List, unit, doc);
        vec![
            list("splt_direction", "", "0 from the initiator, 1 from the responder"),
            list("splt_ps", "bytes", "size of each packet"),
            list("splt_piat_ms", "ms", "time since the flow's packet before it"),
        ]
    }

    fn on_init(&mut self, packet: &Packet<'_>, _: &mut Standing<'_>) -> Lists {
        let mut lists = Lists::default();
        self.add(&mut lists, packet);
        lists
    }

    fn on_update(&mut self, lists: &mut Lists, packet: &Packet<'_>, _: &mut Standing<'_>) {
        self.add(lists, packet);
    }

    fn on_expire(&mut self, lists: Lists, _: &mut Flow, values: &mut Vec<Own>) {
        let Lists { direction, size, piat_ms } = lists;
        push_filled([direction, size, piat_ms], self.length, values);
    }
}
