//! What does the kernel tell userspace?

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::packet::Packet;
use crate::record::Record;

/// Head of an event in the packet ring; the frame's bytes from the innermost IP header on follow.
///
/// Of a super-packet the payloads of its first segments follow, one behind the other, behind the
/// headers that they share.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PacketEvent {
    /// [`Record::uid`] of the packet's flow.
    pub uid: u64,
    /// Time of the packet; ns since the epoch.
    pub time_ns: u64,
    /// Ordinal of the packet, or of its first segment, in its flow, from 1.
    pub number: u32,
    /// Bytes of the IP packet on the wire. Of a super-packet: of each segment but the last.
    pub ip_bytes: u32,
    /// Bytes of a super-packet's last segment.
    pub last_ip_bytes: u32,
    /// How many packets this is on the wire.
    pub segments: u32,
    /// Of how many of these bytes follow, from the first.
    pub forwarded: u16,
    /// Bytes that follow.
    pub captured: u16,
    /// Bytes of headers that each segment of a super-packet has, from the IP header on.
    pub header: u16,
    /// Bytes of each packet that the dissector gets.
    pub limit: u16,
}

const _: () = assert!(size_of::<PacketEvent>() == 40);

/// What stands before a [`PacketEvent`] when every packet is forwarded.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PacketHead {
    /// The packet's headers; a fragment has the ports of the first.
    pub packet: Packet,
    /// Number of the interface among those metered.
    pub interface: u32,
    /// Zero.
    pub reserved: u32,
}

/// The kernel forwards at most this many bytes at a time, whatever the snapshot length: of a
/// super-packet, as many as the longest `ClientHello` that is read.
pub const MAX_SNAPSHOT: usize = 16_384;

/// Places in the map of settled flows: those whose further packets the dissector does not want.
pub const SETTLED_FLOWS: usize = 65_536;

/// The place of a flow in the map of settled flows. If its uid stands there, it is settled. Flows of
/// the same time have places of their own: a uid is a CPU in the upper 16 bits, and a count.
#[inline(always)]
pub fn settled_place(uid: u64) -> u32 {
    (uid ^ (uid >> 48).wrapping_mul(0x9e37)) as u32 % SETTLED_FLOWS as u32
}

/// Value of [`RecordEvent::kind`]: a flow has ended.
pub const KIND_RECORD: u32 = 1;
/// Value of [`OverflowEvent::kind`]: the flow map was full.
pub const KIND_OVERFLOW: u32 = 2;

/// An event in the record ring: a flow that has ended.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RecordEvent {
    /// [`KIND_RECORD`].
    pub kind: u32,
    /// [`EndReason`](crate::lifetime::EndReason) as a number.
    pub reason: u32,
    /// The flow.
    pub record: Record,
}

/// An event in the record ring: a packet that found no room in the flow map. Userspace meters it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OverflowEvent {
    /// [`KIND_OVERFLOW`].
    pub kind: u32,
    /// Number of the interface among those metered.
    pub interface: u32,
    /// Time of the packet by the meter's clock; ns.
    pub clock_ns: u64,
    /// What a flow that it begins adds, see [`clock`](crate::clock); ns.
    pub wall_offset: u64,
    /// The packet.
    pub packet: Packet,
}

/// What userspace hands the reaper program, as the head of the "packet" it is run on; the keys to
/// reap follow.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReapRequest {
    /// The time up to which flows have ended, by the meter's clock; ns.
    pub clock_ns: u64,
    /// 1 to reap the flows whether they have ended or not.
    pub force: u32,
    /// Number of keys.
    pub count: u32,
}

/// Why flows are to be reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A timeout may have passed: flows that have not ended stay.
    Timeout,
    /// Somebody wants these flows to end.
    Asked,
    /// The meter ends, and with it all flows.
    Shutdown,
}

impl ReapRequest {
    /// The head of a request for `count` flows.
    pub fn new(clock_ns: u64, why: Why, count: u32) -> Self {
        Self { clock_ns, force: u32::from(why != Why::Timeout), count }
    }
}

/// At most this many keys are in one [`ReapRequest`]: what fits the page that a test run has.
pub const MAX_REAP: usize = 64;
