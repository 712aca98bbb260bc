//! What does the kernel count, so that nothing is lost silently?
//!
//! At any quiescent point, for each interface and direction:
//! `seen = metered + overflowed + ignored + lost`.

use crate::packet::Reject;

/// What is counted, for each interface and direction; packets on the wire unless stated otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Packets that the program saw.
    Seen = 0,
    /// Their bytes, as on the wire.
    SeenBytes = 1,
    /// Metered in the kernel's flow map.
    Metered = 2,
    /// Handed to userspace to be metered there, because the flow map was full or the flow's record
    /// changed hands too often while this packet waited.
    Overflowed = 3,
    /// Ignored: neither IPv4 nor IPv6.
    NonIp = 4,
    /// Ignored: the frame ends inside a header.
    Truncated = 5,
    /// Ignored: a header contradicts itself.
    Malformed = 6,
    /// Ignored: IPv6 without a next header.
    NoNextHeader = 7,
    /// Ignored: beyond the parser's limits.
    TooDeep = 8,
    /// Ignored: a later fragment whose first was not seen.
    OrphanFragment = 9,
    /// Ignored: rejected by the user's filter.
    Filtered = 10,
    /// Lost: neither the flow map nor the record ring had room.
    Lost = 11,
    /// Flows begun in the kernel's map; not packets.
    FlowsBegun = 12,
    /// Records that packets handed to userspace (the sweep's are counted there); not packets.
    RecordsOut = 13,
    /// Times a timeout had passed but the record ring was full; not packets.
    ExpiryLate = 14,
    /// Packets for the dissector that found the packet ring full. They are metered all the same.
    DissectionLost = 15,
    /// SPLT slots that found no room. Their packets are metered all the same.
    SpltLost = 16,
    /// Packets sent to the dissector.
    Forwarded = 17,
    /// Packets among the first of their flows that the dissector does not get: it is done with the
    /// flow, or they begin beyond [`MAX_SNAPSHOT`](crate::event::MAX_SNAPSHOT) of a super-packet.
    Withheld = 18,
}

/// Number of [`Counter`]s, and some room.
pub const COUNTERS: usize = 24;

/// Interfaces that one meter can have.
pub const MAX_INTERFACES: usize = 16;

/// Directions of an interface: 0 ingress, 1 egress.
pub const HOOKS: usize = 2;

/// The counters of one interface and direction.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// By [`Counter`].
    pub values: [u64; COUNTERS],
}

impl Counters {
    /// Adds `n`.
    #[inline(always)]
    pub fn add(&mut self, counter: Counter, n: u64) {
        if let Some(value) = self.values.get_mut(counter as usize) {
            *value = value.wrapping_add(n);
        }
    }

    /// The counter's value.
    #[inline]
    pub fn get(&self, counter: Counter) -> u64 {
        self.values.get(counter as usize).copied().unwrap_or(0)
    }
}

impl From<Reject> for Counter {
    #[inline(always)]
    fn from(why: Reject) -> Self {
        match why {
            Reject::NonIp => Self::NonIp,
            Reject::Truncated => Self::Truncated,
            Reject::Malformed => Self::Malformed,
            Reject::NoNextHeader => Self::NoNextHeader,
            Reject::TooDeep => Self::TooDeep,
        }
    }
}
