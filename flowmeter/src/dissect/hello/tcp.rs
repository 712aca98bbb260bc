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

/// Where the client's bytes start, if it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    client: Source,
    sequence: u32,
}

/// What a segment brought.
#[derive(Debug)]
pub(super) enum Seen<'p> {
    /// The body of a `ClientHello`.
    Hello(Cow<'p, [u8]>),
    /// A part of what may be one.
    Part(Stream),
    /// Nothing; what is known of the connection.
    Nothing(Option<Origin>),
}

/// Looks at a segment of a connection that has no [`Stream`] yet.
pub(super) fn look<'p>(mut origin: Option<Origin>, segment: &Segment<'p>) -> Seen<'p> {
    let mut sequence = segment.sequence;
    if segment.opens {
        sequence = sequence.wrapping_add(1);
        origin = Some(Origin { client: segment.source, sequence });
    }
    if segment.payload.is_empty() {
        return Seen::Nothing(origin);
    }
    match in_records(segment.payload) {
        Start::Hello(body) => return Seen::Hello(body),
        Start::Partial => {
            return Seen::Part(Stream::new(segment.source, sequence, 0, segment.payload));
        }
        Start::Other => {}
    }
    let Some(Origin { client, sequence: first }) = origin else { return Seen::Nothing(None) };
    if client != segment.source {
        return Seen::Nothing(origin);
    }
    match sequence.wrapping_sub(first) as usize {
        // The client begins with something else.
        0 => Seen::Nothing(None),
        // It came before what it follows.
        ahead if ahead < LIMIT => Seen::Part(Stream::new(client, first, ahead, segment.payload)),
        _ => Seen::Nothing(origin),
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
