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

/// What was said so far.
#[derive(Debug, Default)]
pub struct Said {
    told: Told,
    address: Option<String>,
    kind: Option<&'static str>,
    oui: Option<String>,
}

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
    fn look(said: &mut Said, packet: &Packet<'_>, flow: &mut Standing<'_>) {
        if flow.sums.dst().port != PORT {
            return;
        }
        let Some(payload) = payload(packet.ip).filter(|payload| payload.len() >= OPTIONS) else {
            return;
        };
        let Some((kind, told)) = read(&payload[OPTIONS..]) else { return };
        let is_request = kind == Some(REQUEST);
        if is_request && payload[2] != 6 {
            return;
        }
        let set = |to: &mut Option<String>, from: Option<String>| {
            if from.is_some() {
                *to = from;
            }
        };
        let before = &mut said.told;
        set(&mut before.host_name, told.host_name);
        set(&mut before.vendor_class, told.vendor_class);
        set(&mut before.user_class, told.user_class);
        before.max_size = told.max_size.or(before.max_size);
        if is_request {
            before.options = told.options;
            before.parameters = told.parameters;
            before.requested_address = told.requested_address;
            let [a, b, c] = [payload[28], payload[29], payload[30]];
            said.oui = Some(format!("{a:02x}:{b:02x}:{c:02x}"));
            let client = Ipv4Addr::new(payload[12], payload[13], payload[14], payload[15]);
            if !client.is_unspecified() {
                said.address = Some(client.to_string());
            }
        }
        let is_last = matches!(kind, Some(ACK | NAK | INFORM | DECLINE));
        if is_last || flow.sums.src().ip.is_unspecified() && flow.sums.0.key.ip_version == 4 {
            flow.end();
        }
        said.kind.get_or_insert_with(|| kind.and_then(name).unwrap_or("0"));
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
        let text = |name, doc: &str| column(name, Kind::Text, "", doc);
        vec![
            text("dhcp_12", "host name (option 12), of the last message that has one"),
            text("dhcp_50", "address that the last REQUEST asks for (option 50)"),
            text(
                "dhcp_55",
                "parameters that the last REQUEST asks for (option 55), by their numbers",
            ),
            column("dhcp_57", Kind::Unsigned, "bytes", "largest message (option 57)"),
            text("dhcp_60", "vendor class (option 60)"),
            text("dhcp_77", "user class (option 77)"),
            column(
                "dhcp_options",
                Kind::List,
                "",
                "numbers of all options of the last REQUEST, in order",
            ),
            text("dhcp_addr", "address that the client says it has in a REQUEST"),
            text("dhcp_msg_type", "type of the first message; 0 if it has none"),
            text("dhcp_oui", "vendor's half of the client's MAC address in a REQUEST"),
        ]
    }

    fn on_init(&mut self, packet: &Packet<'_>, flow: &mut Standing<'_>) -> Box<Said> {
        let mut said = Box::default();
        Self::look(&mut said, packet, flow);
        said
    }

    fn on_update(&mut self, said: &mut Box<Said>, packet: &Packet<'_>, flow: &mut Standing<'_>) {
        Self::look(said, packet, flow);
    }

    fn on_expire(&mut self, said: Box<Said>, _: &mut Flow, values: &mut Vec<Own>) {
        let text = |text: Option<String>| text.map_or(Own::Null, Own::Text);
        let told = said.told;
        values.extend([
            text(told.host_name),
            text(told.requested_address),
            text(told.parameters),
            told.max_size.map_or(Own::Null, Own::U64),
            text(told.vendor_class),
            text(told.user_class),
            Own::Integers(told.options),
            text(said.address),
            text(said.kind.map(str::to_owned)),
            text(said.oui),
        ]);
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
