//! What do a client's datagrams bring of a `ClientHello` in QUIC?
//!
//! It is in CRYPTO frames in Initial packets, in pieces and in any order: RFC 9000, sections 17.2.2
//! and 19.6. Some clients shuffle them on purpose.

mod keys;
mod version;

use super::Source;
use super::message::{Start, in_message};
use super::pieces::Pieces;
use super::reader::Reader;
use keys::Keys;
use version::Version;

/// A client, as its Initials show it.
pub(super) struct Connection {
    /// With the connection id they are made from; none before the first packet that they open.
    keys: Option<(Vec<u8>, Keys)>,
    client: Source,
    pieces: Pieces,
}

/// Connection ids are not longer in any version known: RFC 9000, section 17.2.
const MAX_ID: usize = 20;

/// A packet that says it is an Initial.
struct Initial<'p> {
    version: &'static Version,
    destination: &'p [u8],
    bytes: &'p [u8],
    number_at: usize,
}

/// Whether a datagram may begin with an Initial, judged by form, version and packet type.
pub(super) fn may_be(payload: &[u8]) -> bool {
    let mut reader = Reader::new(payload);
    let (Some(first), Some(number)) = (reader.u8(), reader.u32()) else { return false };
    let version = if first & 0x80 == 0 { None } else { Version::of(number) };
    version.is_some_and(|version| first >> 4 & 3 == version.initial)
}

impl Connection {
    /// Of which nothing is known but who may be its client.
    pub fn new(client: Source) -> Self {
        Self { keys: None, client, pieces: Pieces::default() }
    }

    /// Whether a packet of the client is there.
    pub fn has_part(&self) -> bool {
        self.keys.is_some()
    }

    /// Adds a datagram; gives the body of the `ClientHello` when it is whole.
    pub fn datagram(&mut self, source: Source, payload: &[u8]) -> Option<Vec<u8>> {
        if source != self.client {
            return None;
        }
        let mut rest = payload;
        while may_be(rest) {
            // What was captured may end within the second of two.
            let Some(initial) = initial(rest) else { break };
            rest = &rest[initial.bytes.len()..];
            if let Some(frames) = self.open(&initial) {
                self.frames(&frames);
            }
        }
        match in_message(self.pieces.prefix()) {
            Start::Hello(body) => Some(body.into_owned()),
            Start::Partial | Start::Other => None,
        }
    }

    /// The keys stay those of the client's first Initial, except that after a Retry they are made
    /// anew: RFC 9001, section 5.2.
    fn open(&mut self, initial: &Initial) -> Option<Vec<u8>> {
        if let Some((id, keys)) = &self.keys {
            let frames = keys.open(initial.bytes, initial.number_at);
            if frames.is_some() || id == initial.destination {
                return frames;
            }
        }
        let keys = Keys::new(initial.version, initial.destination)?;
        let frames = keys.open(initial.bytes, initial.number_at)?;
        self.keys = Some((initial.destination.to_vec(), keys));
        Some(frames)
    }

    /// Takes in the CRYPTO frames up to the first frame that has no place in an Initial.
    fn frames(&mut self, frames: &[u8]) -> Option<()> {
        const PADDING: u64 = 0;
        const PING: u64 = 1;
        const ACK: u64 = 2;
        const ACK_ECN: u64 = 3;
        const CRYPTO: u64 = 6;
        let mut frames = Reader::new(frames);
        loop {
            match frames.varint()? {
                PADDING | PING => {}
                kind @ (ACK | ACK_ECN) => {
                    let (_largest, _delay) = (frames.varint()?, frames.varint()?);
                    let ranges = frames.varint()?;
                    let counters = if kind == ACK_ECN { 3 } else { 0 };
                    for _ in 0..ranges.checked_mul(2)?.checked_add(1 + counters)? {
                        frames.varint()?;
                    }
                }
                CRYPTO => {
                    let offset = frames.varint()?;
                    let length = frames.varint()?;
                    let bytes = frames.take(usize::try_from(length).ok()?)?;
                    self.pieces.add(usize::try_from(offset).ok()?, bytes);
                }
                _ => return None,
            }
        }
    }
}

/// The first packet of a datagram, which may be followed by others.
fn initial(datagram: &[u8]) -> Option<Initial<'_>> {
    let mut reader = Reader::new(datagram);
    let _first = reader.u8()?;
    let version = Version::of(reader.u32()?)?;
    let destination = reader.vector8().filter(|id| id.len() <= MAX_ID)?;
    let _source = reader.vector8().filter(|id| id.len() <= MAX_ID)?;
    let token = reader.varint()?;
    reader.take(usize::try_from(token).ok()?)?;
    let length = usize::try_from(reader.varint()?).ok()?;
    let number_at = datagram.len() - reader.rest().len();
    reader.take(length)?;
    let bytes = &datagram[..number_at + length];
    Some(Initial { version, destination, bytes, number_at })
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("pieces", &self.pieces).finish_non_exhaustive()
    }
}

/// An Initial of a client, for tests.
#[cfg(test)]
pub(super) fn sealed(version: u32, destination: &[u8], number: u16, frames: &[u8]) -> Vec<u8> {
    let known = Version::of(version).expect("a known version");
    let keys = Keys::new(known, destination).expect("keys");
    let mut header = vec![0xc0 | known.initial << 4];
    header.extend(version.to_be_bytes());
    header.push(destination.len() as u8);
    header.extend(destination);
    header.extend([1, b's', 2, b't', b'o']);
    keys.seal(&header, number, frames)
}
