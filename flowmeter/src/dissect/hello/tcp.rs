//! Does a TCP connection start TLS?
//!
//! The `ClientHello` may be the first thing that is said, or come after a request for it
//! (`STARTTLS`, `CONNECT`): any segment may start one. Where it spans several, they are put in
//! order by their sequence numbers.

use std::borrow::Cow;

use super::Source;
use super::message::{Start, in_records};
use super::pieces::{LIMIT, Pieces};

/// A segment with sound headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'p> {
    pub source: Source,
    pub sequence: u32,
    /// It opens a connection: SYN without ACK.
    pub opens: bool,
    pub payload: &'p [u8],
}

/// Where the client's bytes start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    client: Source,
    sequence: u32,
}

/// What was seen of a connection before TLS starts in it, if it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Before {
    origin: Option<Origin>,
    /// A proxy was asked for a connection, and TLS may start in that.
    pub is_proxied: bool,
}

/// What a segment brought.
#[derive(Debug)]
pub(super) enum Seen<'p> {
    /// The body of a `ClientHello`.
    Hello(Cow<'p, [u8]>),
    /// A part of what may be one.
    Part(Stream),
    /// Nothing.
    Nothing(Before),
}

/// Looks at a segment of a connection that has no [`Stream`] yet.
pub(super) fn look<'p>(mut before: Before, segment: &Segment<'p>) -> Seen<'p> {
    let mut sequence = segment.sequence;
    if segment.opens {
        sequence = sequence.wrapping_add(1);
        before.origin = Some(Origin { client: segment.source, sequence });
    }
    if segment.payload.is_empty() {
        return Seen::Nothing(before);
    }
    let origin = before.origin.filter(|origin| origin.client == segment.source);
    let ahead = origin.map(|origin| sequence.wrapping_sub(origin.sequence) as usize);
    if let (Some(Origin { client, sequence }), Some(ahead @ 1..LIMIT)) = (origin, ahead) {
        // It came before what it follows, whatever it looks like: a hello may have records in it,
        // and bytes that look like a hello.
        return Seen::Part(Stream::new(client, sequence, ahead, segment.payload));
    }
    match in_records(segment.payload) {
        Start::Hello(body) => return Seen::Hello(body),
        Start::Partial => {
            return Seen::Part(Stream::new(segment.source, sequence, 0, segment.payload));
        }
        Start::Other => {}
    }
    before.is_proxied |= asks_proxy(segment.payload);
    if ahead == Some(0) {
        // The client begins with something else.
        before.origin = None;
    }
    Seen::Nothing(before)
}

/// Whether a client asks a proxy for a connection: in HTTP, SOCKS 5 (RFC 1928, section 3), SOCKS 4.
fn asks_proxy(payload: &[u8]) -> bool {
    match payload {
        [5, count, methods @ ..] => *count > 0 && methods.len() == usize::from(*count),
        [4, 1, _port_and_address @ .., 0] => payload.len() > 8,
        _ => payload.starts_with(b"CONNECT "),
    }
}

/// What a client sends, from where it may be a `ClientHello`.
#[derive(Debug)]
pub(super) struct Stream {
    client: Source,
    first: u32,
    pieces: Pieces,
}

impl Stream {
    fn new(client: Source, first: u32, ahead: usize, payload: &[u8]) -> Self {
        let mut pieces = Pieces::default();
        pieces.add(ahead, payload);
        Self { client, first, pieces }
    }

    /// Adds a segment, and tells what there is by now.
    pub fn add(&mut self, segment: &Segment) -> Start<'_> {
        if segment.source != self.client || segment.payload.is_empty() {
            return Start::Partial;
        }
        let sequence = segment.sequence.wrapping_add(u32::from(segment.opens));
        let ahead = sequence.wrapping_sub(self.first) as i32;
        if let Ok(ahead) = usize::try_from(ahead) {
            self.pieces.add(ahead, segment.payload);
        } else if let Some(rest) = segment.payload.get(ahead.unsigned_abs() as usize..) {
            self.pieces.add(0, rest);
        }
        in_records(self.pieces.prefix())
    }
}
