//! How does the dissector learn of packets and of flows that ended?
//!
//! In batches: records of one layout, the packets' bytes one behind the other. They stand in memory
//! as they go to another process.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Messages in the order they were given.
#[derive(Debug, Default)]
pub struct Batch {
    /// What happened.
    pub messages: Vec<Message>,
    /// The packets' bytes, from their IP headers on.
    pub bytes: Vec<u8>,
}

/// A packet of a flow, or its end.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq)]
#[repr(C)]
pub struct Message {
    /// The flow.
    pub flow: u64,
    /// When the packet was seen; ms since the epoch.
    pub time_ms: u64,
    /// The packet's number in its flow, from 1; 0 is the flow's end.
    pub number: u32,
    /// Its bytes in the batch.
    pub length: u32,
    /// The part the flow belongs to.
    pub part: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Message>() == 32);

/// What stands before a batch.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Messages that follow.
    pub messages: u32,
    /// Bytes of packets behind them.
    pub bytes: u32,
}

impl Batch {
    /// Adds a packet.
    pub fn packet(&mut self, flow: u64, part: u32, number: u32, time_ms: u64, ip: &[u8]) {
        let length = ip.len() as u32;
        self.messages.push(Message { flow, time_ms, number, length, part, reserved: 0 });
        self.bytes.extend_from_slice(ip);
    }

    /// Adds the end of a flow.
    pub fn finish(&mut self, flow: u64) {
        let end = Message { flow, time_ms: 0, number: 0, length: 0, part: 0, reserved: 0 };
        self.messages.push(end);
    }

    /// Each message with its packet; stops where the bytes run out.
    pub fn iter(&self) -> impl Iterator<Item = (&Message, &[u8])> {
        let mut rest = &self.bytes[..];
        self.messages.iter().map_while(move |message| {
            let (ip, behind) = rest.split_at_checked(message.length as usize)?;
            rest = behind;
            Some((message, ip))
        })
    }

    /// The flows that end in it, in order.
    pub fn finished(&self) -> impl Iterator<Item = u64> {
        self.messages.iter().filter(|message| message.is_finish()).map(|message| message.flow)
    }

    /// Its packets.
    pub fn packets(&self) -> u64 {
        self.messages.iter().filter(|message| !message.is_finish()).count() as u64
    }

    /// What stands before it.
    pub fn header(&self) -> Header {
        Header { messages: self.messages.len() as u32, bytes: self.bytes.len() as u32 }
    }

    /// Forgets all, but keeps the memory.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.bytes.clear();
    }
}

impl Message {
    /// Whether the flow ended.
    pub fn is_finish(&self) -> bool {
        self.number == 0
    }
}
