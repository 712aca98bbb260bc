//! How are flowcontainer's sequences written?
//!
//! One value for each packet (or each with payload): lengths, negative from the responder, and
//! times as seconds since the epoch, with as many decimals as they have.

use flowmeter_common::splt::Slot;

use super::value::{Value, push_integer};

/// A sequence of a flow's packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sequence<'a> {
    /// The packets, run-length coded.
    pub slots: &'a [Slot],
    /// At most this many packets.
    pub limit: u32,
    /// What is shown of each.
    pub measure: Measure,
    /// Which packets are in it.
    pub packets: Packets,
    /// Whether the initiator's lengths are the negative ones.
    pub is_reversed: bool,
    /// Bytes that a length has more, or fewer, than ours.
    pub extra: i64,
}

/// What a sequence shows of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Length of the IP packet in bytes.
    IpLength,
    /// Length of the payload in bytes.
    PayloadLength,
    /// When it was seen.
    Time,
}

/// Which packets a sequence has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    /// All.
    All,
    /// Those with payload.
    WithPayload,
}

impl Sequence<'_> {
    /// Hands the values to `visit`: integers, or times as [`Value::Seconds`].
    pub fn values(self, mut visit: impl FnMut(Value<'static>)) {
        let mut left = self.limit;
        for slot in self.slots.iter().take_while(|slot| slot.repeat > 0) {
            let count = slot.repeat.min(left);
            left -= count;
            if self.packets == Packets::WithPayload && slot.payload_bytes == 0 {
                continue;
            }
            for _ in 0..count {
                visit(self.value(slot));
            }
        }
    }

    fn value(self, slot: &Slot) -> Value<'static> {
        let length = match self.measure {
            Measure::IpLength => slot.ip_bytes,
            Measure::PayloadLength => slot.payload_bytes,
            Measure::Time => return Value::Seconds(slot.time_ns),
        };
        let is_negative = (slot.direction() == 1) != self.is_reversed;
        let length = i64::from(length) + self.extra;
        Value::I64(if is_negative { -length } else { length })
    }

    /// Appends the sequence, as JSON and Python write lists.
    pub fn push(self, out: &mut Vec<u8>, comma: &[u8]) {
        out.push(b'[');
        let inside = out.len();
        self.values(|value| {
            value.push_json(out);
            out.extend_from_slice(comma);
        });
        if out.len() > inside {
            out.truncate(out.len() - comma.len());
        }
        out.push(b']');
    }
}

/// A time in ns as seconds, rounded as a number of 53 bits is.
pub fn seconds(ns: u64) -> f64 {
    (ns / 1_000_000_000) as f64 + (ns % 1_000_000_000) as f64 / 1e9
}

/// Appends a time in ns as seconds, exactly.
pub fn push_seconds(out: &mut Vec<u8>, ns: u64) {
    push_integer(out, (ns / 1_000_000_000).cast_signed());
    let mut digits = [b'0'; 9];
    let mut rest = ns % 1_000_000_000;
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
    out.push(b'.');
    out.extend_from_slice(&digits[..(9 - zeros).max(1)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(measure: Measure, packets: Packets, limit: u32) -> String {
        let slots = [
            Slot { time_ns: 1_500_000_000, repeat: 1, ip_bytes: 60, ..Slot::default() },
            Slot {
                time_ns: 2_000_000_001,
                size_direction: Slot::REVERSE,
                repeat: 2,
                ip_bytes: 1_500,
                payload_bytes: 1_460,
            },
            Slot::default(),
            Slot { time_ns: 3, repeat: 1, ip_bytes: 60, ..Slot::default() },
        ];
        let sequence =
            Sequence { slots: &slots, limit, measure, packets, is_reversed: false, extra: 0 };
        let mut out = Vec::new();
        sequence.push(&mut out, b", ");
        String::from_utf8(out).expect("digits are UTF-8")
    }

    #[test]
    fn lengths_have_signs_and_a_lost_slot_ends_them() {
        assert_eq!(text(Measure::IpLength, Packets::All, 10), "[60, -1500, -1500]");
        assert_eq!(text(Measure::PayloadLength, Packets::WithPayload, 10), "[-1460, -1460]");
        assert_eq!(text(Measure::IpLength, Packets::All, 2), "[60, -1500]");
        assert_eq!(text(Measure::PayloadLength, Packets::WithPayload, 1), "[]");
    }

    #[test]
    fn times_are_exact_seconds() {
        assert_eq!(text(Measure::Time, Packets::All, 10), "[1.5, 2.000000001, 2.000000001]");
        let mut out = Vec::new();
        push_seconds(&mut out, 1_600_000_000_000_000_000);
        assert_eq!(out, b"1600000000.0");
    }
}
