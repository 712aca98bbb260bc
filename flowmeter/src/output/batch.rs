//! Which rows are on their way to an output?

use std::collections::VecDeque;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use super::Load;

/// Rows, in the order in which they are to be written, and how much of them the output has.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// This many bytes at the front have been taken.
    taken: usize,
    /// Where the first row begins that has not been taken whole.
    first: usize,
    rows: VecDeque<Row>,
    /// Of the rows that have not been taken whole.
    left: Sum,
}

#[derive(Debug)]
struct Row {
    /// Where its bytes end.
    end: usize,
    /// Packets of its flow; of a record that is none, `None`.
    packets: Option<u64>,
}

/// What rows stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Flows.
    pub flows: u64,
    /// Their packets.
    pub packets: u64,
    /// Records that are no flows.
    pub records: u64,
}

impl Sum {
    /// A flow of this many packets.
    pub fn flow(packets: u64) -> Self {
        Self { flows: 1, packets, records: 0 }
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.flows + self.records
    }
}

impl Add for Sum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            flows: self.flows.wrapping_add(other.flows),
            packets: self.packets.wrapping_add(other.packets),
            records: self.records.wrapping_add(other.records),
        }
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Sum {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            flows: self.flows.wrapping_sub(other.flows),
            packets: self.packets.wrapping_sub(other.packets),
            records: self.records.wrapping_sub(other.records),
        }
    }
}

impl SubAssign for Sum {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Row {
    fn sum(&self) -> Sum {
        match self.packets {
            Some(packets) => Sum::flow(packets),
            None => Sum { records: 1, ..Sum::default() },
        }
    }
}

impl Batch {
    /// Adds a flow of this many packets, whose row `fill` appends.
    pub fn flow<T>(&mut self, packets: u64, fill: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let filled = fill(&mut self.bytes);
        self.add(Some(packets));
        filled
    }

    /// Adds a record that is no flow, if `fill` says that it has appended one.
    pub fn record(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> bool) {
        if fill(&mut self.bytes) {
            self.add(None);
        }
    }

    fn add(&mut self, packets: Option<u64>) {
        let row = Row { end: self.bytes.len(), packets };
        self.left += row.sum();
        self.rows.push_back(row);
    }

    /// The bytes that have not been taken.
    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// The same of the first `flows` flows alone, and of the records among them.
    pub fn first(&self, flows: u64) -> &[u8] {
        if flows >= self.left.flows {
            return self.rest();
        }
        let mut left = flows;
        let mut end = self.taken;
        for row in &self.rows {
            if row.packets.is_some() {
                if left == 0 {
                    break;
                }
                left -= 1;
            }
            end = row.end;
        }
        self.bytes.get(self.taken..end).unwrap_or_default()
    }

    /// Whether all has been taken.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// This many more bytes have been taken. Gives the rows that are whole now.
    pub fn take(&mut self, bytes: usize) -> Sum {
        self.taken = (self.taken + bytes).min(self.bytes.len());
        let before = self.left;
        if self.taken == self.bytes.len() {
            self.clear();
            return before;
        }
        while let Some(row) = self.rows.front().filter(|row| row.end <= self.taken) {
            self.left -= row.sum();
            self.first = row.end;
            self.rows.pop_front();
        }
        before - self.left
    }

    /// How many bytes of the first row have been taken.
    pub fn begun(&self) -> usize {
        self.taken - self.first
    }

    /// Of the first row the output has no bytes any more.
    pub fn take_back(&mut self) {
        self.taken = self.first;
    }
}

impl Load for Batch {
    fn left(&self) -> Sum {
        self.left
    }

    fn bytes(&self) -> usize {
        self.bytes.len() - self.taken
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.rows.clear();
        (self.taken, self.first) = (0, 0);
        self.left = Sum::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::default();
        let add =
            |text: &'static str| move |out: &mut Vec<u8>| out.extend_from_slice(text.as_bytes());
        batch.flow(3, add("one\n"));
        batch.record(|out| {
            out.extend_from_slice(b"meter\n");
            true
        });
        batch.record(|_| false);
        batch.flow(4, add("two\n"));
        batch
    }

    #[test]
    fn rows_are_taken_when_all_their_bytes_are() {
        let mut batch = batch();
        assert_eq!(batch.left(), Sum { flows: 2, packets: 7, records: 1 });
        assert_eq!(batch.take(3), Sum::default());
        assert_eq!((batch.begun(), batch.rest()), (3, &b"\nmeter\ntwo\n"[..]));
        assert_eq!(batch.take(3), Sum::flow(3));
        assert_eq!(batch.begun(), 2);
        batch.take_back();
        assert_eq!(batch.rest(), b"meter\ntwo\n");
        assert_eq!(batch.take(10), Sum { flows: 1, packets: 4, records: 1 });
        assert!(batch.is_empty() && batch.rest().is_empty() && batch.begun() == 0);
        assert_eq!(batch.left(), Sum::default());
    }

    #[test]
    fn flows_are_counted_out_with_the_records_among_them() {
        let batch = batch();
        assert_eq!(batch.first(0), b"");
        assert_eq!(batch.first(1), b"one\nmeter\n");
        assert_eq!(batch.first(2), b"one\nmeter\ntwo\n");
    }
}
