//! How do the frames of a capture become flows?
//!
//! By the same parser and the same flow update as in the kernel, on the host's table; or, for
//! `--compat nfstream`, by NFStream's reading of frames, in its order.

use flowmeter_common::bytes::HostBytes;
use flowmeter_common::knobs::{Knobs, MILLISECOND};
use flowmeter_common::packet::{Packet, Reject};
use flowmeter_common::parse;

use crate::capture::pcap::{Frame, link, nfstream};
use crate::table::fragments::Fragments;
use crate::table::{Ended, Order, Table};

/// Meters frames. `T` is what the observer keeps of each flow.
pub struct Collector<T> {
    knobs: Knobs,
    reading: Reading,
    table: Table<T>,
    fragments: Fragments,
    /// Time of the newest packet; time never goes back.
    newest_ns: u64,
    scanned_ms: u64,
    ended: Vec<Ended<T>>,
    /// What became of the frames.
    pub tally: Tally,
}

/// Whose rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Ours.
    Right,
    /// NFStream 6.6.0's.
    Nfstream,
}

/// What became of the frames of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames read.
    pub seen: u64,
    /// Frames metered.
    pub metered: u64,
    /// Frames that were not IP.
    pub non_ip: u64,
    /// Frames that end inside a header.
    pub truncated: u64,
    /// Frames whose headers contradict themselves.
    pub malformed: u64,
    /// IPv6 without a next header.
    pub no_next_header: u64,
    /// Frames beyond the parser's limits.
    pub too_deep: u64,
    /// Later fragments whose first was not seen.
    pub orphan_fragment: u64,
    /// Frames of a link type that is not read.
    pub unknown_link: u64,
    /// Frames that `--compat nfstream` ignores, whatever the reason.
    pub ignored_as_nfstream: u64,
}

/// Sees what comes out of a capture.
pub trait Observer<T> {
    /// A packet of a flow, from its IP header on, as far as it was captured. `number` is its
    /// ordinal in the flow, from 1.
    fn packet(&mut self, kept: &mut T, number: u64, time_ns: u64, ip: &[u8]);
    /// A flow has ended.
    fn ended(&mut self, ended: Ended<T>);
}

/// NFStream looks for idle flows this often, and takes so many at a time.
const SCAN_MS: u64 = 10;
const SCAN_FLOWS: usize = 1000;

impl<T: Default> Collector<T> {
    /// A collector without flows.
    pub fn new(knobs: Knobs, reading: Reading) -> Self {
        let order = match reading {
            Reading::Right => Order::LastPacket,
            Reading::Nfstream => Order::Nfstream,
        };
        Self {
            knobs,
            reading,
            table: Table::new(knobs, order),
            fragments: Fragments::default(),
            newest_ns: 0,
            scanned_ms: 0,
            ended: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Flows that have not ended.
    pub fn resident(&self) -> usize {
        self.table.len()
    }

    /// Meters a frame.
    pub fn frame(&mut self, frame: &Frame<'_>, see: &mut impl Observer<T>) {
        self.tally.seen += 1;
        let Some(packet) = self.parse(frame) else { return };
        self.tally.metered += 1;
        // A packet that is not metered does not move the clock.
        self.newest_ns = self.newest_ns.max(frame.time_ns.max(0).cast_unsigned());
        let now_ns = self.newest_ns;
        let ended = &mut self.ended;
        if self.reading == Reading::Right {
            self.table.scan(now_ns, usize::MAX, |flow| ended.push(flow));
        }
        let (effect, kept) = self.table.observe(&packet, 0, now_ns, |flow| ended.push(flow));
        if effect.number <= u64::from(self.knobs.n_dissections) {
            let ip = frame.bytes.get(usize::from(packet.network_offset)..).unwrap_or_default();
            see.packet(kept, effect.number, now_ns, ip);
        }
        let now_ms = now_ns / MILLISECOND;
        if self.reading == Reading::Nfstream && now_ms.saturating_sub(self.scanned_ms) >= SCAN_MS {
            self.scanned_ms = now_ms;
            self.table.scan(now_ns, SCAN_FLOWS, |flow| ended.push(flow));
        }
        for flow in self.ended.drain(..) {
            see.ended(flow);
        }
    }

    /// Hands out all flows that have not ended: the capture has.
    pub fn finish(&mut self, see: &mut impl Observer<T>) {
        self.table.drain(|flow| see.ended(flow));
    }

    fn parse(&mut self, frame: &Frame<'_>) -> Option<Packet> {
        if self.reading == Reading::Nfstream {
            let (bytes, tunnels) = (frame.bytes, self.knobs.decode_tunnels);
            let packet = nfstream::parse(bytes, frame.wire, frame.link, tunnels);
            self.tally.ignored_as_nfstream += u64::from(packet.is_none());
            return packet;
        }
        let Some(start) = link::start(frame.link, frame.bytes) else {
            self.tally.unknown_link += 1;
            return None;
        };
        let bytes = HostBytes::new(frame.bytes);
        let tunnels = self.knobs.decode_tunnels;
        let parsed = start
            .and_then(|(offset, first)| parse::parse(&bytes, offset, first, frame.wire, tunnels));
        match parsed {
            Ok(mut packet) => {
                if self.fragments.join(&mut packet) {
                    return Some(packet);
                }
                self.tally.orphan_fragment += 1;
            }
            Err(Reject::NonIp) => self.tally.non_ip += 1,
            Err(Reject::Truncated) => self.tally.truncated += 1,
            Err(Reject::Malformed) => self.tally.malformed += 1,
            Err(Reject::NoNextHeader) => self.tally.no_next_header += 1,
            Err(Reject::TooDeep) => self.tally.too_deep += 1,
        }
        None
    }
}
