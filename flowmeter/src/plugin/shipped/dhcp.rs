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

/// What was said so far, by the numbers of the options.
#[derive(Debug, Default)]
pub struct Said {
    host_name: Option<String>,
    requested_address: Option<String>,
    parameters: Option<String>,
    max_size: Option<u64>,
    vendor_class: Option<String>,
    user_class: Option<String>,
    options: Vec<i64>,
    address: Option<String>,
    kind: Option<&'static str>,
    oui: Option<String>,
}

/// A message whose options have been read.
#[derive(Default)]
struct Message {
    host_name: Option<String>,
    requested_address: Option<String>,
    parameters: Option<String>,
    max_size: Option<u64>,
    vendor_class: Option<String>,
    user_class: Option<String>,
    options: Vec<i64>,
    kind: Option<u8>,
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
        let Some(message) = read(&payload[OPTIONS..]) else { return };
        let is_request = message.kind == Some(REQUEST);
        if is_request && payload[2] != 6 {
            return;
        }
        let set = |to: &mut Option<String>, from: Option<String>| {
            if from.is_some() {
                *to = from;
            }
        };
        set(&mut said.host_name, message.host_name);
        set(&mut said.vendor_class, message.vendor_class);
        set(&mut said.user_class, message.user_class);
        said.max_size = message.max_size.or(said.max_size);
        if is_request {
            let [a, b, c] = [payload[28], payload[29], payload[30]];
            said.oui = Some(format!("{a:02x}:{b:02x}:{c:02x}"));
            said.options = message.options;
            said.parameters = message.parameters;
            said.requested_address = message.requested_address;
            let client = Ipv4Addr::new(payload[12], payload[13], payload[14], payload[15]);
            if !client.is_unspecified() {
                said.address = Some(client.to_string());
            }
        }
        let is_last = matches!(message.kind, Some(ACK | NAK | INFORM | DECLINE));
        if is_last || flow.sums.src().ip.is_unspecified() && flow.sums.0.key.ip_version == 4 {
            flow.end();
        }
        said.kind.get_or_insert_with(|| message.kind.and_then(name).unwrap_or("0"));
    }
}

fn name(kind: u8) -> Option<&'static str> {
    KINDS.get(usize::from(kind).checked_sub(1)?).copied()
}

/// Reads a message's options; none if `NFStream` could not.
fn read(mut rest: &[u8]) -> Option<Message> {
    let mut message = Message::default();
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
        message.options.push(code.into());
        match code {
            12 if !value.is_empty() => {
                message.host_name = Some(String::from_utf8_lossy(value).into_owned());
            }
            50 => message.requested_address = Some(address(value)?),
            53 => message.kind = Some(kind(value)?),
            55 => {
                let codes: Vec<_> = value.iter().map(u8::to_string).collect();
                message.parameters = Some(codes.join(","));
            }
            57 => message.max_size = Some(number(value)?.try_into().ok()?),
            60 => message.vendor_class = Some(str::from_utf8(value).ok()?.to_owned()),
            77 => message.user_class = Some(str::from_utf8(value).ok()?.to_owned()),
            _ => {}
        }
    }
    Some(message)
}

/// A number of any length, if it has no more than 128 bits.
fn number(value: &[u8]) -> Option<u128> {
    value.iter().try_fold(0_u128, |number, byte| {
        (number >> 120 == 0).then_some(number << 8 | u128::from(*byte))
    })
}

fn kind(value: &[u8]) -> Option<u8> {
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
        values.extend([
            text(said.host_name),
            text(said.requested_address),
            text(said.parameters),
            said.max_size.map_or(Own::Null, Own::U64),
            text(said.vendor_class),
            text(said.user_class),
            Own::Integers(said.options),
            text(said.address),
            text(said.kind.map(str::to_owned)),
            text(said.oui),
        ]);
    }
}
