//! Which names does a host announce by multicast DNS?
//!
//! `NFStream` takes a message for readable or not by rules of its own, and so does this: a library for
//! DNS reads more messages, and gives other lists.

use super::nfstream::payload;
use crate::fields::Added;
use crate::fields::columns::Kind;
use crate::flow::{Flow, Own};
use crate::plugin::{Packet, Plugin, Standing, column};

/// Names in the PTR records of answers in flows to port 5353: `NFStream`'s plugin `MDNS`, with what is
/// peculiar about it. Of IPv6 there is none, and none of a message with a record of another type
/// than it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mdns;

const PORT: u16 = 5353;

impl Mdns {
    /// Names of a flow that are kept, so that nobody fills the memory with them.
    pub const MOST: usize = 256;

    /// The names in an IPv4 packet to port 5353, in order, some of them perhaps twice. None if there is
    /// no message that `NFStream` reads. Instead of commas they have spaces.
    pub fn names(ip: &[u8]) -> Vec<String> {
        let message = payload(ip).ok().flatten();
        let found = message.and_then(|message| Reader { message, at: 0 }.pointers());
        found.unwrap_or_default().into_iter().map(|name| name.replace(',', " ")).collect()
    }

    fn look(names: &mut Vec<String>, packet: &Packet<'_>, flow: &Standing<'_>) {
        if flow.sums.dst().port != PORT || names.len() >= Self::MOST {
            return;
        }
        for name in Self::names(packet.ip) {
            if names.len() < Self::MOST && !names.contains(&name) {
                names.push(name);
            }
        }
    }
}

/// Reads a message (RFC 1035 §4.1).
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

/// Of a name's labels with a byte each, the root's not counted.
const LONGEST_NAME: usize = 255;

/// Pointers in a name, which has at most 127 labels: more are there to keep the reader busy.
const MOST_POINTERS: usize = 127;

impl<'a> Reader<'a> {
    /// What the PTR records of the answer section lead to; none if anything in the message cannot be
    /// read.
    fn pointers(mut self) -> Option<Vec<String>> {
        self.take(4)?;
        let [questions, answers, authorities, more] =
            [self.u16()?, self.u16()?, self.u16()?, self.u16()?];
        for _ in 0..questions {
            self.name()?;
            self.take(4)?;
        }
        let mut names = Vec::new();
        for _ in 0..answers {
            self.record(&mut names)?;
        }
        for _ in 0..u32::from(authorities) + u32::from(more) {
            self.record(&mut Vec::new())?;
        }
        Some(names)
    }

    /// Reads a record; one of type PTR adds the name that it leads to.
    fn record(&mut self, pointers: &mut Vec<String>) -> Option<()> {
        self.name()?;
        let kind = self.u16()?;
        self.take(6)?;
        let length = usize::from(self.u16()?);
        let start = self.at;
        let data = self.message.get(start..)?;
        let data = data.get(..length).unwrap_or(data);
        let name_at = |offset: usize| Reader { message: self.message, at: start + offset }.name();
        match kind {
            // A, NULL, AAAA, OPT.
            1 | 10 | 28 | 41 => {}
            // NS and CNAME.
            2 | 5 => _ = name_at(0)?,
            // SOA.
            6 => {
                let mut reader = Reader { message: self.message, at: start };
                reader.name()?;
                reader.name()?;
                reader.take(20)?;
            }
            // PTR.
            12 => pointers.push(name_at(0)?),
            // HINFO and TXT.
            13 | 16 => strings(data)?,
            // MX.
            15 if data.len() >= 2 => _ = name_at(2)?,
            // SRV.
            33 if data.len() >= 6 => _ = name_at(6)?,
            _ => return None,
        }
        // The end of the message, if it ends within the record.
        self.at = (start + length).min(self.message.len());
        Some(())
    }

    /// Reads a name, and goes behind it.
    fn name(&mut self) -> Option<String> {
        let (mut at, mut behind, mut first) = (self.at, None, self.at);
        let (mut text, mut length, mut pointers) = (Vec::new(), 0, 0);
        loop {
            let byte = usize::from(*self.message.get(at)?);
            match byte {
                0 => break,
                1..=63 => {
                    length += byte + 1;
                    if length > LONGEST_NAME {
                        return None;
                    }
                    if !text.is_empty() {
                        text.push(b'.');
                    }
                    text.extend_from_slice(self.message.get(at + 1..at + 1 + byte)?);
                    at += 1 + byte;
                }
                0xc0.. => {
                    let low = usize::from(*self.message.get(at + 1)?);
                    let target = (byte & 0x3f) << 8 | low;
                    behind.get_or_insert(at + 2);
                    pointers += 1;
                    // Only back, so that it has an end.
                    if target >= first || pointers > MOST_POINTERS {
                        return None;
                    }
                    (at, first) = (target, target);
                }
                _ => return None,
            }
        }
        self.at = behind.unwrap_or(at + 1);
        String::from_utf8(text).ok()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk()?))
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let taken = self.message.get(self.at..self.at + bytes)?;
        self.at += bytes;
        Some(taken)
    }
}

/// Whether these are strings with their lengths before them, each UTF-8; the last may be cut.
fn strings(mut data: &[u8]) -> Option<()> {
    while let Some((&length, behind)) = data.split_first() {
        let (string, rest) = behind.split_at(usize::from(length).min(behind.len()));
        str::from_utf8(string).ok()?;
        data = rest;
    }
    Some(())
}

impl Plugin for Mdns {
    type State = Vec<String>;

    fn columns(&self) -> Vec<Added> {
        vec![column(
            "mdns_ptr",
            Kind::TextList,
            "",
            "names in PTR records of answers, each once, at most 256",
        )]
    }

    fn on_init(&mut self, packet: &Packet<'_>, flow: &mut Standing<'_>) -> Vec<String> {
        let mut names = Vec::new();
        Self::look(&mut names, packet, flow);
        names
    }

    fn on_update(&mut self, names: &mut Vec<String>, packet: &Packet<'_>, flow: &mut Standing<'_>) {
        Self::look(names, packet, flow);
    }

    fn on_expire(&mut self, names: Vec<String>, _: &mut Flow, values: &mut Vec<Own>) {
        values.push(Own::Texts(names));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Reader;

    fn pointers(message: &[u8]) -> Option<Vec<String>> {
        Reader { message, at: 0 }.pointers()
    }

    /// A response with one PTR record, whose owner is the root and whose data this is.
    fn response(data: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 12, 0, 1, 0, 0, 0, 9];
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
        message
    }

    #[test]
    fn names_are_followed_back_and_not_for_ever() {
        assert_eq!(pointers(&response(b"\x01a\x02bc\0")), Some(vec!["a.bc".to_owned()]));
        // The first pointer leads to the root at byte 12, each further one to that before it.
        let chain = |length: u16| {
            let mut data = vec![0];
            let links = (0..length).map(|n| if n == 0 { 23 } else { 24 + 2 * (n - 1) });
            data.extend(links.flat_map(|target| (0xc000 | target).to_be_bytes()));
            // The record's data is the last of them.
            let last = data.split_off(data.len() - 2);
            let mut message =
                vec![0, 0, 0x84, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 1, 0, 0, 0, 9];
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(data);
            message.extend([0, 0, 12, 0, 1, 0, 0, 0, 9, 0, 2]);
            message.extend(last);
            pointers(&message)
        };
        assert_eq!(chain(127), Some(vec![String::new()]));
        assert_eq!(chain(128), None);
    }

    proptest! {
        #[test]
        fn no_message_is_a_fault(
            message in prop::collection::vec(
                prop_oneof![any::<u8>(), Just(0_u8), Just(1), Just(12), Just(0xc0)], 0..300,
            ),
        ) {
            let _ = pointers(&message);
            let _ = pointers(&response(&message));
        }
    }
}
