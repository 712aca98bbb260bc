//! What do a client's datagrams bring of a `ClientHello` of DTLS?
//!
//! RFC 6347, sections 4.1 and 4.2.2; RFC 9147 has the same until keys are agreed on. A message may
//! be cut into fragments, each with its place in the message.

use super::Source;
use super::pieces::{LIMIT, Pieces};
use super::reader::Reader;

/// The parts of a `ClientHello` that have come, if any has.
#[derive(Debug, Default)]
pub(super) struct Handshake(Option<Message>);

#[derive(Debug)]
struct Message {
    client: Source,
    /// Counts the client's messages: the second hello, with a cookie, is another one.
    number: u16,
    length: usize,
    pieces: Pieces,
}

/// A part of a `ClientHello`.
struct Fragment<'p> {
    number: u16,
    /// Of the whole message.
    length: usize,
    offset: usize,
    bytes: &'p [u8],
}

/// Whether a datagram may begin with a record of the handshake, judged by the record's type and
/// version: DTLS 1.0 or 1.2, as which 1.3 poses.
pub(super) fn may_be(payload: &[u8]) -> bool {
    matches!(payload, [22, 0xfe, 0xff | 0xfd, ..])
}

impl Handshake {
    /// Whether a part of a `ClientHello` is there.
    pub fn has_part(&self) -> bool {
        self.0.is_some()
    }

    /// Adds a datagram; gives the body of the `ClientHello` when it is whole.
    pub fn datagram(&mut self, source: Source, payload: &[u8]) -> Option<Vec<u8>> {
        let mut records = Reader::new(payload);
        while let Some(record) = record(&mut records) {
            let mut fragments = Reader::new(record);
            while let Some(fragment) = fragment(&mut fragments) {
                if let Some(body) = self.fragment(source, &fragment) {
                    return Some(body);
                }
            }
        }
        None
    }

    fn fragment(&mut self, source: Source, fragment: &Fragment) -> Option<Vec<u8>> {
        let Fragment { number, length, offset, bytes } = *fragment;
        let is_same = |message: &&mut Message| {
            message.client == source && message.number == number && message.length == length
        };
        let message = match self.0.as_mut().filter(is_same) {
            Some(message) => message,
            None => {
                self.0.insert(Message { client: source, number, length, pieces: Pieces::default() })
            }
        };
        message.pieces.add(offset, bytes);
        message.pieces.prefix().get(..length).map(<[u8]>::to_vec)
    }
}

/// The content of a record of the handshake that is not encrypted; none ends the datagram.
fn record<'p>(records: &mut Reader<'p>) -> Option<&'p [u8]> {
    if !may_be(records.rest()) {
        return None;
    }
    let _type_and_version = records.take(3)?;
    let epoch = records.u16()?;
    let _number = records.take(6)?;
    let content = records.vector16()?;
    (epoch == 0).then_some(content)
}

/// A fragment of a `ClientHello`; none ends the record.
fn fragment<'p>(fragments: &mut Reader<'p>) -> Option<Fragment<'p>> {
    const CLIENT_HELLO: u8 = 1;
    let kind = fragments.u8()?;
    let length = fragments.u24()? as usize;
    let number = fragments.u16()?;
    let offset = fragments.u24()? as usize;
    let fragment_length = fragments.u24()? as usize;
    let bytes = fragments.take(fragment_length)?;
    let is_sound = length <= LIMIT && offset + fragment_length <= length;
    (kind == CLIENT_HELLO && is_sound).then_some(Fragment { number, length, offset, bytes })
}
