//! Is this the start of a `ClientHello`, and is it whole?
//!
//! A handshake message has a type and a length before its body: RFC 8446, section 4. TLS over TCP
//! cuts messages into records (section 5.1), QUIC does not.

use std::borrow::Cow;

use super::pieces::LIMIT;
use super::reader::Reader;

/// What a stream starts with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start<'b> {
    /// A `ClientHello`, of which this is the body.
    Hello(Cow<'b, [u8]>),
    /// What may become one with more bytes.
    Partial,
    /// Something else.
    Other,
}

/// Bytes of a message's type and length.
const HEADER: usize = 4;
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Of a stream of records.
pub(super) fn in_records(stream: &[u8]) -> Start<'_> {
    let mut reader = Reader::new(stream);
    let mut message = Vec::new();
    loop {
        if !may_be_record(reader.rest()) {
            return Start::Other;
        }
        let (Some(_), Some(length)) = (reader.take(3), reader.u16()) else {
            return Start::Partial;
        };
        // An empty record of a handshake is forbidden, and could go on for ever.
        if length == 0 {
            return Start::Other;
        }
        let available = reader.rest().len().min(length.into());
        let Some(fragment) = reader.take(available) else { return Start::Other };
        let is_whole = available == usize::from(length);
        if message.is_empty() {
            // The usual case: one record has it all.
            match in_message(fragment) {
                Start::Partial if is_whole => message.extend_from_slice(fragment),
                start => return start,
            }
            continue;
        }
        message.extend_from_slice(fragment);
        match in_message(&message) {
            Start::Hello(body) => return Start::Hello(Cow::Owned(body.into_owned())),
            Start::Partial if is_whole => {}
            Start::Partial => return Start::Partial,
            Start::Other => return Start::Other,
        }
    }
}

/// Of a stream of messages.
pub(super) fn in_message(stream: &[u8]) -> Start<'_> {
    let mut reader = Reader::new(stream);
    match reader.u8() {
        None => return Start::Partial,
        Some(CLIENT_HELLO) => {}
        Some(_) => return Start::Other,
    }
    let Some(length) = reader.u24() else { return Start::Partial };
    let length = length as usize;
    if length > LIMIT - HEADER {
        return Start::Other;
    }
    reader.take(length).map_or(Start::Partial, |body| Start::Hello(Cow::Borrowed(body)))
}

/// Whether a record of the handshake may start like this, as far as there is something. Of the
/// version only the first byte is fixed: the second has been 0 to 4.
fn may_be_record(bytes: &[u8]) -> bool {
    let is = |at: usize, fits: fn(u8) -> bool| bytes.get(at).is_none_or(|&byte| fits(byte));
    is(0, |kind| kind == HANDSHAKE_RECORD) && is(1, |major| major == 3) && is(2, |minor| minor <= 4)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{LIMIT, Start, in_message, in_records};
    use crate::dissect::hello::samples::specified;

    #[test]
    fn a_message_in_any_number_of_records_is_found_when_it_is_whole() {
        let body = specified().body();
        for size in [1, 2, 3, 4, 5, 100, 10_000] {
            let records = specified().records(size);
            for length in 0..records.len() {
                assert_eq!(in_records(&records[..length]), Start::Partial, "{size}: {length}");
            }
            let followed = [&records[..], b"more"].concat();
            assert_eq!(in_records(&followed), Start::Hello(Cow::Borrowed(&body)), "{size}");
        }
    }

    #[test]
    fn other_streams_are_told_at_once() {
        for other in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x02",
            b"\x16\x03\x05",
            b"\x17\x03\x03",
            b"\x16\x03\x01\0\0",
            b"\x16\x03\x03\0\x10\x02",           // a ServerHello
            b"\x16\x03\x01\x40\0\x01\0\x3f\xfd", // too long
            b"\x16\x03\x01\0\x01\x01\x17",       // half of it and then application data
        ] {
            assert_eq!(in_records(other), Start::Other, "{other:x?}");
        }
        let longest = (LIMIT as u32 - 4).to_be_bytes();
        assert_eq!(in_message(&[1, longest[1], longest[2], longest[3]]), Start::Partial);
    }
}
