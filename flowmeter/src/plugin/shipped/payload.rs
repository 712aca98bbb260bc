//! With which bytes does a flow begin?

use super::settings::{Invalid, Settings};
use crate::fields::Added;
use crate::fields::columns::Kind;
use crate::fields::value::hex;
use crate::flow::{Flow, Own, Side};
use crate::plugin::{Packet, Plugin, Standing, column};

/// The first bytes of the first packets that have a payload, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Packets, 1 to 255.
    pub packets: usize,
    /// Bytes of each, 1 to 65535.
    pub bytes: usize,
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Found {
    direction: Vec<i64>,
    bytes: Vec<String>,
}

impl Payload {
    pub(super) fn from_settings(settings: &mut Settings<'_>) -> Result<Self, Invalid> {
        let packets = settings.number("packets", 1..=255)?.unwrap_or(8) as usize;
        let bytes = settings.number("bytes", 1..=65_535)?.unwrap_or(64) as usize;
        Ok(Self { packets, bytes })
    }

    fn add(&self, found: &mut Found, packet: &Packet<'_>) {
        if found.bytes.len() >= self.packets {
            return;
        }
        let payload = packet.payload();
        if payload.is_empty() {
            return;
        }
        let bytes = payload.iter().take(self.bytes);
        found.direction.push(i64::from(packet.direction == Side::Dst2Src));
        found.bytes.push(bytes.flat_map(|byte| hex(*byte)).map(char::from).collect());
    }
}

impl Plugin for Payload {
    type State = Found;

    fn columns(&self) -> Vec<Added> {
        vec![
            column(
                "payload",
                Kind::TextList,
                "",
                "first bytes of the first packets with a payload, in hexadecimal, as captured",
            ),
            column(
                "payload_direction",
                Kind::List,
                "",
                "of each of them: 0 from the initiator, 1 from the responder",
            ),
        ]
    }

    fn on_init(&mut self, packet: &Packet<'_>, _: &mut Standing<'_>) -> Found {
        let mut found = Found::default();
        self.add(&mut found, packet);
        found
    }

    fn on_update(&mut self, found: &mut Found, packet: &Packet<'_>, _: &mut Standing<'_>) {
        self.add(found, packet);
    }

    fn on_expire(&mut self, found: Found, _: &mut Flow, values: &mut Vec<Own>) {
        values.extend([Own::Texts(found.bytes), Own::Integers(found.direction)]);
    }
}
