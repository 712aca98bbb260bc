//! How are the first packets of a flow kept (SPLT: sequence of packet lengths and times)?
//!
//! Run-length coded: a slot stands for `repeat` packets of one size and direction, all at one
//! instant. A super-packet of any number of segments takes at most two slots, and a flow never
//! more slots than packets.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A run of packets.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Slot {
    /// When they were seen; ns since the epoch, not before the slot preceding.
    pub time_ns: u64,
    /// Size in bytes by the accounting mode; the top bit is [`Slot::REVERSE`].
    pub size_direction: u32,
    /// Number of packets; 0 = the slot has not been written.
    pub repeat: u32,
    /// Size of each IP packet in bytes.
    pub ip_bytes: u32,
    /// Size of each payload in bytes.
    pub payload_bytes: u32,
}

impl Slot {
    /// Set in `size_direction` for packets from the responder.
    pub const REVERSE: u32 = 1 << 31;

    /// Size in bytes.
    #[inline]
    pub fn size(&self) -> u32 {
        self.size_direction & !Self::REVERSE
    }

    /// 0 from the initiator, 1 from the responder.
    #[inline]
    pub fn direction(&self) -> u8 {
        (self.size_direction >> 31) as u8
    }
}

/// Slots in one chunk of the kernel's map.
pub const CHUNK_SLOTS: usize = 16;

/// A chunk's key in the kernel's map.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ChunkKey {
    /// The flow record's id.
    pub uid: u64,
    /// Number of the chunk: slot index / [`CHUNK_SLOTS`].
    pub chunk: u32,
    /// Zero.
    pub reserved: u32,
}

/// A chunk of slots.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Chunk {
    /// The slots, in order.
    pub slots: [Slot; CHUNK_SLOTS],
}

/// The slots that a packet adds, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Index of the first slot.
    pub index: u32,
    /// How many of `slots` there are: 0, 1 or 2.
    pub count: u32,
    /// The slots.
    pub slots: [Slot; 2],
}
