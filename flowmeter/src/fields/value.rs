//! How is a column's value written?

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use flowmeter_common::splt::Slot;

use super::TimeUnit;
use super::sequence::{Sequence, push_seconds};
use crate::flow::Own;

/// The value of a column in one flow. Made and written without allocating.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Not known, or without meaning for this flow.
    Null,
    /// A count.
    U64(u64),
    /// A number that may be negative.
    I64(i64),
    /// A number with a fraction.
    F64(f64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Str(&'a str),
    /// An address, written as `inet_ntop` writes it.
    Ip(IpAddr),
    /// A MAC address or the first bytes of one, written in hexadecimal with colons.
    Mac([u8; 6]),
    /// The vendor's half of a MAC address.
    Oui([u8; 3]),
    /// The first packets of the flow.
    List(List<'a>),
    /// The packets of the flow, as flowcontainer has them.
    Sequence(Sequence<'a>),
    /// Texts, written as JSON writes a list of them.
    Texts(&'a [String]),
    /// Numbers.
    Numbers(&'a [u64]),
    /// Numbers that may be negative.
    Integers(&'a [i64]),
    /// Major and minor number of a device, with a colon between.
    Device([u32; 2]),
    /// A time in ns, written as seconds with all their decimals.
    Seconds(u64),
}

impl<'a> From<&'a Own> for Value<'a> {
    fn from(own: &'a Own) -> Self {
        match own {
            Own::U64(n) => Self::U64(*n),
            Own::I64(n) => Self::I64(*n),
            Own::F64(x) if x.is_finite() => Self::F64(*x),
            // Neither JSON nor CSV has a number for it.
            Own::Null | Own::F64(_) => Self::Null,
            Own::Bool(b) => Self::Bool(*b),
            Own::Text(text) => Self::Str(text),
            Own::Integers(numbers) => Self::Integers(numbers),
            Own::Texts(texts) => Self::Texts(texts),
        }
    }
}

impl Value<'_> {
    /// Appends the value as JSON.
    pub fn push_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::U64(n) => push_integer(out, *n),
            Self::I64(n) => push_integer(out, *n),
            Self::F64(x) => push_float(out, *x),
            Self::Bool(b) => push(out, b),
            Self::Str(s) => push(out, s),
            Self::Ip(_) | Self::Mac(_) | Self::Oui(_) | Self::Device(_) => {
                out.push(b'"');
                self.push_text(out);
                out.push(b'"');
            }
            Self::List(list) => list.push(out, b","),
            Self::Sequence(sequence) => sequence.push(out, b","),
            Self::Texts(texts) => push(out, texts),
            Self::Numbers(numbers) => push(out, numbers),
            Self::Integers(numbers) => push_integers(out, numbers, b","),
            Self::Seconds(ns) => push_seconds(out, *ns),
        }
    }

    /// Appends the value as text without quotes, as Python's `str` gives it; nothing for
    /// [`Value::Null`].
    pub fn push_text(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::U64(n) => push_integer(out, *n),
            Self::I64(n) => push_integer(out, *n),
            Self::F64(x) => push_float(out, *x),
            Self::Bool(b) => out.extend_from_slice(if *b { b"True" } else { b"False" }),
            Self::Str(s) => out.extend_from_slice(s.as_bytes()),
            Self::Ip(IpAddr::V4(ip)) => push_ipv4(out, ip.octets()),
            Self::Ip(IpAddr::V6(ip)) => push_ipv6(out, ip),
            Self::Mac(mac) => push_hex(out, mac),
            Self::Oui(oui) => push_hex(out, oui),
            Self::Device([major, minor]) => {
                push_integer(out, *major);
                out.push(b':');
                push_integer(out, *minor);
            }
            Self::List(list) => list.push(out, b", "),
            Self::Sequence(sequence) => sequence.push(out, b", "),
            Self::Texts(texts) => push(out, texts),
            Self::Numbers(numbers) => push(out, numbers),
            Self::Integers(numbers) => push_integers(out, numbers, b", "),
            Self::Seconds(ns) => push_seconds(out, *ns),
        }
    }
}

/// What is shown of each of the first packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// 0 from the initiator, 1 from the responder.
    Direction,
    /// Size in bytes by the accounting mode.
    Size,
    /// Time since the flow's previous packet.
    Piat,
}

/// One property of the first packets of a flow: always `length` values, −1 where there was no
/// packet.
///
/// A slot that was lost ends the list: the packets behind it would stand in the wrong places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct List<'a> {
    /// The packets, run-length coded.
    pub slots: &'a [Slot],
    /// Number of values.
    pub length: u32,
    /// Which property.
    pub part: Part,
    /// The unit in which times between packets are counted.
    pub unit: TimeUnit,
}

impl List<'_> {
    /// Hands the values to `visit` in runs of equal ones, each with its length. The lengths add up
    /// to that of the list. Values are integers, or numbers with a fraction for times in a unit
    /// finer than ms.
    pub fn runs(self, mut visit: impl FnMut(Value<'static>, usize)) {
        let mut left = self.length as usize;
        let mut run = |value, count: usize| {
            let count = count.min(left);
            left -= count;
            if count > 0 {
                visit(value, count);
            }
            left > 0
        };
        let tick = |slot: &Slot| slot.time_ns / self.unit.tick_ns();
        let mut before = self.slots.first().map_or(0, tick);
        for slot in self.slots {
            let count = slot.repeat as usize;
            if count == 0 {
                break;
            }
            let is_more = match self.part {
                Part::Direction => run(Value::U64(u64::from(slot.direction())), count),
                Part::Size => run(Value::U64(u64::from(slot.size())), count),
                Part::Piat => {
                    let piat = tick(slot).saturating_sub(before);
                    before = tick(slot);
                    run(self.unit.value(piat), 1) && run(self.unit.value(0), count - 1)
                }
            };
            if !is_more {
                break;
            }
        }
        run(Value::I64(-1), usize::MAX);
    }

    /// Each run is formatted once and then copied: most lists are mostly filling.
    fn push(self, out: &mut Vec<u8>, comma: &[u8]) {
        out.push(b'[');
        let inside = out.len();
        self.runs(|value, count| {
            let start = out.len();
            value.push_json(out);
            out.extend_from_slice(comma);
            let mut missing = (count - 1) * (out.len() - start);
            while missing > 0 {
                let copied = missing.min(out.len() - start);
                out.extend_from_within(start..start + copied);
                missing -= copied;
            }
        });
        if out.len() > inside {
            out.truncate(out.len() - comma.len());
        }
        out.push(b']');
    }
}

fn push_integers(out: &mut Vec<u8>, numbers: &[i64], comma: &[u8]) {
    out.push(b'[');
    for (i, number) in numbers.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(comma);
        }
        push_integer(out, *number);
    }
    out.push(b']');
}

/// An integer. Most are of one digit.
#[inline]
pub(super) fn push_integer<N: itoa::Integer + TryInto<u8> + Copy>(out: &mut Vec<u8>, n: N) {
    match n.try_into() {
        Ok(digit @ 0..=9) => out.push(b'0' + digit),
        _ => out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes()),
    }
}

/// A float. Most are 0, or small and whole.
fn push_float(out: &mut Vec<u8>, x: f64) {
    if x.fract() == 0.0 && x.abs() < 1e15 && (x != 0.0 || x.is_sign_positive()) {
        push_integer(out, x as i64);
        out.extend_from_slice(b".0");
    } else {
        push(out, &x);
    }
}

/// Numbers and strings as `serde_json` writes them: the shortest digits that read back as the same
/// number, `86.0` for a whole one.
fn push<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("memory takes every write, a scalar has no bad keys");
}

fn push_ipv4(out: &mut Vec<u8>, octets: [u8; 4]) {
    for (i, octet) in octets.into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        push_integer(out, octet);
    }
}

/// As `inet_ntop`, whose `::1.2.3.4` std writes as `::102:304`.
fn push_ipv6(out: &mut Vec<u8>, ip: &Ipv6Addr) {
    let number = ip.to_bits();
    if (0x1_0000..1 << 32).contains(&number) {
        out.extend_from_slice(b"::");
        push_ipv4(out, (number as u32).to_be_bytes());
        return;
    }
    write!(out, "{ip}").expect("memory takes every write");
}

fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for (i, byte) in bytes.iter().enumerate() {
        if i > 0 {
            out.push(b':');
        }
        out.extend(hex(*byte));
    }
}

/// The two digits of a byte in hexadecimal.
pub(crate) fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: Value) -> String {
        let mut out = Vec::new();
        value.push_text(&mut out);
        String::from_utf8(out).expect("text is UTF-8")
    }

    fn json(value: Value) -> String {
        let mut out = Vec::new();
        value.push_json(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    fn list(slots: &[Slot], length: u32, part: Part) -> Value<'_> {
        Value::List(List { slots, length, part, unit: TimeUnit::Ms })
    }

    #[test]
    fn addresses_are_written_as_inet_ntop_does() {
        for address in [
            "0.0.0.0",
            "203.0.113.9",
            "::",
            "::1",
            "::ffff",
            "::1.2.3.4",
            "::ffff:1.2.3.4",
            "::ffff:0:102:304",
            "64:ff9b::102:304",
            "1:0:0:2::3",
            "2001:db8:0:1:1:1:1:1",
            "fe80::1:2:3",
        ] {
            let ip: IpAddr = address.parse().expect("an address");
            assert_eq!(text(Value::Ip(ip)), address);
            assert_eq!(json(Value::Ip(ip)), format!("\"{address}\""));
        }
    }

    #[test]
    fn numbers() {
        for (x, written) in [(86.0, "86.0"), (0.1, "0.1"), (1.0 / 3.0, "0.3333333333333333")] {
            assert_eq!(json(Value::F64(x)), written);
        }
        assert_eq!(json(Value::U64(u64::MAX)), "18446744073709551615");
        assert_eq!(json(Value::I64(-1)), "-1");
        assert_eq!(json(Value::Integers(&[60, -1])), "[60,-1]");
        assert_eq!(text(Value::Integers(&[60, -1])), "[60, -1]");
        assert_eq!(json(Value::from(&Own::F64(f64::NAN))), "null");
        assert_eq!((json(Value::Null), text(Value::Null)), ("null".into(), String::new()));
        assert_eq!(
            (json(Value::Bool(true)), text(Value::Bool(true))),
            ("true".into(), "True".into())
        );
    }

    #[test]
    fn runs_become_packets() {
        let runs = [
            Slot { size_direction: 60, repeat: 1, ..Slot::default() },
            Slot {
                time_ns: 7_000_000,
                size_direction: 0x5ea | Slot::REVERSE,
                repeat: 3,
                ..Slot::default()
            },
        ];
        assert_eq!(json(list(&runs, 6, Part::Direction)), "[0,1,1,1,-1,-1]");
        assert_eq!(json(list(&runs, 6, Part::Size)), "[60,1514,1514,1514,-1,-1]");
        assert_eq!(json(list(&runs, 6, Part::Piat)), "[0,7,0,0,-1,-1]");
        assert_eq!(text(list(&runs, 2, Part::Size)), "[60, 1514]");
        assert_eq!(json(list(&[], 2, Part::Size)), "[-1,-1]");
    }

    #[test]
    fn lost_slot_ends_the_list() {
        let runs = [
            Slot { size_direction: 60, repeat: 1, ..Slot::default() },
            Slot::default(),
            Slot { time_ns: 7_000_000, size_direction: 61, repeat: 1, ..Slot::default() },
        ];
        assert_eq!(json(list(&runs, 3, Part::Size)), "[60,-1,-1]");
    }
}
