//! What is whole of a text that comes in pieces?
//!
//! Pieces may come in any order, twice and overlapping. The first to bring a byte decides what it
//! is, as in most TCP stacks.

use std::ops::Range;

/// At most this many bytes are kept, and with them the longest `ClientHello` that is read.
pub(super) const LIMIT: usize = 16 * 1024;

/// At most this many gaps; a piece that would make another is refused.
const MAX_GAPS: usize = 128;

/// The bytes that have come.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// What of them is there: in order, apart from one another.
    there: Vec<Range<usize>>,
}

impl Pieces {
    /// Adds a piece, cut to what is kept.
    pub fn add(&mut self, offset: usize, piece: &[u8]) {
        let end = offset.saturating_add(piece.len()).min(LIMIT);
        if offset >= end {
            return;
        }
        // The parts that it touches become one with it.
        let first = self.there.partition_point(|part| part.end < offset);
        let past = self.there.partition_point(|part| part.start <= end);
        if first == past && self.there.len() > MAX_GAPS {
            return;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let mut at = offset;
        let mut whole = offset..end;
        for part in self.there.drain(first..past) {
            copy(&mut self.bytes, at..part.start.min(end), offset, piece);
            at = at.max(part.end);
            whole = whole.start.min(part.start)..whole.end.max(part.end);
        }
        copy(&mut self.bytes, at..end, offset, piece);
        self.there.insert(first, whole);
    }

    /// All that is there from the start without a gap.
    pub fn prefix(&self) -> &[u8] {
        match self.there.first() {
            Some(part) if part.start == 0 => &self.bytes[..part.end],
            _ => &[],
        }
    }
}

/// Copies a part of a piece to where it belongs, `range` counting in `bytes`.
fn copy(bytes: &mut [u8], range: Range<usize>, offset: usize, piece: &[u8]) {
    if range.start < range.end {
        let from = range.start - offset..range.end - offset;
        bytes[range].copy_from_slice(&piece[from]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LIMIT, MAX_GAPS, Pieces};

    #[test]
    fn the_first_to_bring_a_byte_decides() {
        let mut pieces = Pieces::default();
        pieces.add(2, b"cd");
        assert_eq!(pieces.prefix(), b"");
        pieces.add(5, b"f");
        pieces.add(1, b"XXXXXXX");
        pieces.add(0, b"YYY");
        assert_eq!(pieces.prefix(), b"YXcdXfXX");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut pieces = Pieces::default();
        pieces.add(usize::MAX, b"far");
        pieces.add(LIMIT, b"past");
        pieces.add(LIMIT - 1, b"half");
        pieces.add(0, &vec![7; 2 * LIMIT]);
        assert_eq!(pieces.prefix().len(), LIMIT);

        let mut gaps = Pieces::default();
        for at in (1..LIMIT).step_by(2) {
            gaps.add(at, b"x");
        }
        assert_eq!(gaps.there.len(), MAX_GAPS + 1);
        gaps.add(0, &[7; 5]);
        assert_eq!(gaps.prefix(), [7, b'x', 7, b'x', 7, b'x']);
    }

    proptest! {
        /// Against bytes that are put down one by one.
        #[test]
        fn pieces_are_as_bytes(adds in prop::collection::vec((0_usize..40, 0_usize..20), 0..12)) {
            let mut pieces = Pieces::default();
            let mut naive = [None; 64];
            for (number, (offset, length)) in adds.into_iter().enumerate() {
                pieces.add(offset, &vec![number as u8; length]);
                for slot in &mut naive[offset..offset + length] {
                    slot.get_or_insert(number as u8);
                }
            }
            let prefix: Vec<u8> = naive.iter().map_while(|slot| *slot).collect();
            prop_assert_eq!(pieces.prefix(), prefix);
        }
    }
}
