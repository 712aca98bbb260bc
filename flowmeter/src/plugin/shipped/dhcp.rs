//! What does a DHCP client say of itself?

use std::net::{Ipv4Addr, Ipv6Addr};

use super::nfstream::payload;
use crate::fields::Added;
use crate::fields::columns::Kind;
use crate::flow::{Flow, Own};
use crate::plugin::{Packet, Plugin, Standing, column};

/// Options of DHCP (RFC 2131, RFC 2132) in flows to port 67: `NFStream`'s plugin `DHCP`, with what is
/// peculiar about it. What would end `NFStream`'s meter is a packet that says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dhcp;

/// What a message changes of what is known of its flow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// New values of columns, by the columns' names behind `udps.`.
    pub values: Vec<(&'static str, Own)>,
    /// The message's type, 1 to 8; none if it has none. The flow's first one is its type.
    pub kind: Option<u8>,
    /// The flow ends with the message, whoever has sent it.
    pub ends: bool,
}

/// The values so far, in the order of [`COLUMNS`].
#[derive(Debug, Default)]
pub struct Said([Own; 10]);

/// What options say.
#[derive(Debug, Default)]
struct Told {
    host_name: Option<String>,
    requested_address: Option<String>,
    parameters: Option<String>,
    max_size: Option<u64>,
    vendor_class: Option<String>,
    user_class: Option<String>,
    /// Their numbers.
    options: Vec<i64>,
}

const COLUMNS: [(&str, Kind, &str, &str); 10] = [
    ("dhcp_12", Kind::Text, "", "host name (option 12), of the last message that has one"),
    ("dhcp_50", Kind::Text, "", "address that the last REQUEST asks for (option 50)"),
    (
        "dhcp_55",
        Kind::Text,
        "",
        "parameters that the last REQUEST asks for (option 55), by their numbers",
    ),
    ("dhcp_57", Kind::Unsigned, "bytes", "largest message (option 57)"),
    ("dhcp_60", Kind::Text, "", "vendor class (option 60)"),
    ("dhcp_77", Kind::Text, "", "user class (option 77)"),
    ("dhcp_options", Kind::List, "", "numbers of all options of the last REQUEST, in order"),
    ("dhcp_addr", Kind::Text, "", "address that the client says it has in a REQUEST"),
    (TYPE, Kind::Text, "", "type of the first message; 0 if it has none"),
    ("dhcp_oui", Kind::Text, "", "vendor's half of the client's MAC address in a REQUEST"),
];

const TYPE: &str = "dhcp_msg_type";
const PORT: u16 = 67;
/// Where the options are, behind the magic cookie.
const OPTIONS: usize = 240;

const DECLINE: u8 = 4;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const INFORM: u8 = 8;

/// As Python writes them.
const KINDS: [&str; 8] = [
    "MsgType.DISCOVER",
    "MsgType.OFFER",
    "MsgType.REQUEST",
    "MsgType.DECLINE",
    "MsgType.ACK",
    "MsgType.NACK",
    "MsgType.RELEASE",
    "MsgType.INFORM",
];

impl Dhcp {
    /// Reads the message in an IPv4 packet to port 67. None if there is none that `NFStream` reads.
    pub fn changes(ip: &[u8]) -> Option<Changes> {
        let payload = payload(ip).ok()??;
        let (kind, told) = read(payload.get(OPTIONS..)?)?;
        let is_request = kind == Some(REQUEST);
        if is_request && payload[2] != 6 {
            return None;
        }
        let mut values = Vec::new();
        let mut set = |name, value: Option<Own>| values.extend(value.map(|value| (name, value)));
        set("dhcp_12", told.host_name.map(Own::Text));
        set("dhcp_57", told.max_size.map(Own::U64));
        set("dhcp_60", told.vendor_class.map(Own::Text));
        set("dhcp_77", told.user_class.map(Own::Text));
        if is_request {
            let text = |text: Option<String>| Some(text.map_or(Own::Null, Own::Text));
            set("dhcp_50", text(told.requested_address));
            set("dhcp_55", text(told.parameters));
            set("dhcp_options", Some(Own::Integers(told.options)));
            let [a, b, c] = [payload[28], payload[29], payload[30]];
            set("dhcp_oui", Some(Own::Text(format!("{a:02x}:{b:02x}:{c:02x}"))));
            let client = Ipv4Addr::new(payload[12], payload[13], payload[14], payload[15]);
            set("dhcp_addr", (!client.is_unspecified()).then(|| Own::Text(client.to_string())));
        }
        let ends = matches!(kind, Some(ACK | NAK | INFORM | DECLINE));
        Some(Changes { values, kind, ends })
    }

    fn look(said: &mut Said, packet: &Packet<'_>, flow: &mut Standing<'_>) {
        if flow.sums.dst().port != PORT {
            return;
        }
        let Some(changes) = Self::changes(packet.ip) else { return };
        for (name, value) in changes.values {
            said.set(name, value);
        }
        if said.get(TYPE) == Some(&Own::Null) {
            let kind = changes.kind.and_then(name).unwrap_or("0");
            said.set(TYPE, Own::Text(kind.to_owned()));
        }
        if changes.ends || flow.sums.src().ip.is_unspecified() && flow.sums.0.key.ip_version == 4 {
            flow.end();
        }
    }
}

impl Said {
    fn new() -> Self {
        let mut said = Self::default();
        said.set("dhcp_options", Own::Integers(Vec::new()));
        said
    }

    fn get(&self, name: &str) -> Option<&Own> {
        self.0.get(COLUMNS.iter().position(|column| column.0 == name)?)
    }

    fn set(&mut self, name: &str, value: Own) {
        let place = COLUMNS.iter().position(|column| column.0 == name);
        if let Some(slot) = place.and_then(|place| self.0.get_mut(place)) {
            *slot = value;
        }
    }
}

fn name(kind: u8) -> Option<&'static str> {
    KINDS.get(usize::from(kind).checked_sub(1)?).copied()
}

/// Reads a message's type and options; none if `NFStream` could not.
fn read(mut rest: &[u8]) -> Option<(Option<u8>, Told)> {
    let (mut kind, mut told) = (None, Told::default());
    while let Some((&code, behind)) = rest.split_first() {
        match code {
            0 => {
                rest = behind;
                continue;
            }
            255 => break,
            _ => {}
        }
        let (&length, behind) = behind.split_first()?;
        let (value, behind) = behind.split_at(usize::from(length).min(behind.len()));
        rest = behind;
        told.options.push(code.into());
        match code {
            12 if !value.is_empty() => {
                told.host_name = Some(String::from_utf8_lossy(value).into_owned());
            }
            50 => told.requested_address = Some(address(value)?),
            53 => kind = Some(message_type(value)?),
            55 => {
                let codes: Vec<_> = value.iter().map(u8::to_string).collect();
                told.parameters = Some(codes.join(","));
            }
            57 => told.max_size = Some(number(value)?.try_into().ok()?),
            60 => told.vendor_class = Some(str::from_utf8(value).ok()?.to_owned()),
            77 => told.user_class = Some(str::from_utf8(value).ok()?.to_owned()),
            _ => {}
        }
    }
    Some((kind, told))
}

/// A number of any length, if it has no more than 128 bits.
fn number(value: &[u8]) -> Option<u128> {
    value.iter().try_fold(0_u128, |number, byte| {
        (number >> 120 == 0).then_some(number << 8 | u128::from(*byte))
    })
}

fn message_type(value: &[u8]) -> Option<u8> {
    let kind = u8::try_from(number(value)?).ok()?;
    name(kind).map(|_| kind)
}

/// An address as Python takes it from a number.
fn address(value: &[u8]) -> Option<String> {
    let number = number(value)?;
    Some(match u32::try_from(number) {
        Ok(number) => Ipv4Addr::from_bits(number).to_string(),
        Err(_) => Ipv6Addr::from_bits(number).to_string(),
    })
}

impl Plugin for Dhcp {
    type State = Box<Said>;

    fn columns(&self) -> Vec<Added> {
        COLUMNS.map(|(name, kind, unit, doc)| column(name, kind, unit, doc)).into()
    }

    fn on_init(&mut self, packet: &Packet<'_>, flow: &mut Standing<'_>) -> Box<Said> {
        let mut said = Box::new(Said::new());
        Self::look(&mut said, packet, flow);
        said
    }

    fn on_update(&mut self, said: &mut Box<Said>, packet: &Packet<'_>, flow: &mut Standing<'_>) {
        Self::look(said, packet, flow);
    }

    fn on_expire(&mut self, said: Box<Said>, _: &mut Flow, values: &mut Vec<Own>) {
        values.extend(said.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::read;
    use crate::plugin::shipped::nfstream::payload;

    #[test]
    fn options_are_read_to_their_end() {
        let (kind, told) =
            read(b"\x35\x01\x03\0\x0c\x02ab\x37\x02\x01\x0f\xff\x0c").expect("options");
        assert_eq!((kind, told.host_name.as_deref()), (Some(3), Some("ab")));
        assert_eq!((told.parameters.as_deref(), told.options), (Some("1,15"), vec![53, 12, 55]));
        assert!(read(b"\x35\x01\x09").is_none(), "no such type");
        assert!(read(b"\x0c").is_none(), "no length");
    }

    proptest! {
        #[test]
        fn no_packet_is_a_fault(
            packet in prop::collection::vec(
                prop_oneof![any::<u8>(), Just(0x45_u8), Just(53), Just(50), Just(255)], 0..300,
            ),
        ) {
            let _ = payload(&packet);
            let _ = read(&packet);
        }
    }
}
