//! What is in the headers of a flow's first packets?

use flowmeter_common::packet::{FRAGMENT_LATER, protocol};

use super::push_filled;
use super::settings::{Invalid, Settings};
use crate::fields::Added;
use crate::fields::columns::Kind;
use crate::flow::{Flow, Own};
use crate::plugin::{Packet, Plugin, Standing, column};

/// Time to live, TCP window and sequence number of the first packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Packets in a list, 1 to 65535; −1 where there is none, or no such field.
    pub packets: usize,
}

/// The lists, as long as there are packets.
#[derive(Debug, Default)]
pub struct Lists {
    ttl: Vec<i64>,
    window: Vec<i64>,
    sequence: Vec<i64>,
}

impl Headers {
    pub(super) fn from_settings(settings: &mut Settings<'_>) -> Result<Self, Invalid> {
        let packets = settings.number("packets", 1..=65_535)?.unwrap_or(8) as usize;
        Ok(Self { packets })
    }

    fn add(self, lists: &mut Lists, packet: &Packet<'_>) {
        if lists.ttl.len() >= self.packets {
            return;
        }
        let headers = packet.headers;
        // RFC 791 §3.1, RFC 8200 §3.
        let place = if headers.ip_version == 4 { 8 } else { 7 };
        lists.ttl.push(packet.ip.get(place).map_or(-1, |ttl| i64::from(*ttl)));
        let is_tcp = headers.protocol == protocol::TCP && headers.fragment != FRAGMENT_LATER;
        let tcp = if is_tcp { packet.transport() } else { &[] };
        // RFC 9293 §3.1.
        let sequence = tcp.get(4..).and_then(<[u8]>::first_chunk);
        let window = tcp.get(14..).and_then(<[u8]>::first_chunk);
        lists.sequence.push(sequence.map_or(-1, |bytes| u32::from_be_bytes(*bytes).into()));
        lists.window.push(window.map_or(-1, |bytes| u16::from_be_bytes(*bytes).into()));
    }
}

impl Plugin for Headers {
    type State = Lists;

    fn columns(&self) -> Vec<Added> {
        let list = |name, unit, doc| column(name, Kind::List, unit, doc);
        vec![
            list("ttl", "hops", "time to live or hop limit of each packet"),
            list("tcp_window", "bytes", "TCP window of each packet, not scaled"),
            list("tcp_sequence", "", "TCP sequence number of each packet"),
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
        let Lists { ttl, window, sequence } = lists;
        push_filled([ttl, window, sequence], self.packets, values);
    }
}
