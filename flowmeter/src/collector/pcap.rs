//! How do the frames of a capture become flows?
//!
//! By the same parser and the same flow update as in the kernel, on the host's table; or, for
//! `--compat nfstream`, by NFStream's reading of frames, in its order.

use flowmeter_common::bytes::HostBytes;
use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::{Knobs, MILLISECOND};
use flowmeter_common::packet::{Packet, Reject};
use flowmeter_common::parse;

use crate::capture::pcap::filter::Filter;
use crate::capture::pcap::flowcontainer::Streams;
use crate::capture::pcap::{Frame, link, nfstream};
use crate::table::fragments::Fragments;
use crate::table::{Ended, Order, Seen, Table};

/// Finds the packets in frames.
pub struct Intake {
    filter: Option<Filter>,
    decode_tunnels: bool,
    reading: Reading,
    fragments: Fragments,
    /// Of flowcontainer's reading.
    streams: Streams,
    /// Time of the newest packet; time never goes back.
    newest_ns: u64,
    /// What became of the frames.
    pub tally: Tally,
}

/// Meters packets. `T` is what the observer keeps of each flow.
pub struct Collector<T> {
    reading: Reading,
    share: Share,
    table: Table<T>,
    scanned_ms: u64,
}

/// A packet of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Number of its frame, from 1.
    pub frame: u64,
    /// When it was seen, or the one before if that was later; ns since the epoch.
    pub now_ns: u64,
    /// The flow it is of.
    pub key: FlowKey,
    /// Whether its source is the key's high end.
    pub from_high: bool,
    /// Bytes of its frame on the wire, from its IP header on.
    pub wire: u32,
    /// Its headers.
    pub packet: Packet,
}

/// Whose rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Ours.
    Right,
    /// NFStream 6.6.0's.
    Nfstream,
    /// Ours, but flowcontainer 7.4's on what is left out and what a stream is.
    Flowcontainer,
}

/// What became of the frames of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames read.
    pub seen: u64,
    /// Frames metered.
    pub metered: u64,
    /// Of these, the ones that are older than one before them, and count as being of its time.
    pub late: u64,
    /// By at most this much; ns.
    pub latest_ns: u64,
    /// Frames that the filter did not let through.
    pub filtered: u64,
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
    /// Packets that `--compat flowcontainer` leaves out.
    pub ignored_as_flowcontainer: u64,
}

/// Which flows a collector has, where several share them out. All of them see all packets,
/// since all need the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The collector's number, below `of`.
    pub worker: u64,
    /// How many there are.
    pub of: u64,
    /// In how many parts flows are shared out; at least `of`. A flow's part does not depend on `of`.
    pub parts: u64,
}

impl Share {
    /// All flows, in one part.
    pub const WHOLE: Self = Self { worker: 0, of: 1, parts: 1 };

    /// Parts enough for as many workers as a disk can feed.
    pub const PARTS: u64 = 8;

    /// The part of a flow. Flows between the same two hosts are in the same one: dissectors learn
    /// from one about the next.
    pub fn part(self, key: &FlowKey) -> u64 {
        if self.parts == 1 { 0 } else { key.spread_hosts() % self.parts }
    }

    /// Whether the flows of a part are the collector's.
    pub fn has_part(self, part: u64) -> bool {
        part % self.of == self.worker
    }

    fn has(self, key: &FlowKey) -> bool {
        self.of == 1 || self.has_part(self.part(key))
    }
}

/// Where a flow stands in the order of all flows that end, which is the same for any sharing out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// The frame at which it was found ended; the end of the capture comes last.
    pub frame: u64,
    /// 0 if it was idle, 1 if its next packet cut it, 2 if it ended with this packet. (NFStream's scan
    /// comes after the packet: 3.)
    pub cut: u8,
    /// Its last packet's frame.
    pub last: u64,
}

impl Tally {
    /// Why frames were not metered, and how many.
    pub fn ignored(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("filtered", self.filtered),
            ("non_ip", self.non_ip),
            ("truncated", self.truncated),
            ("malformed", self.malformed),
            ("no_next_header", self.no_next_header),
            ("too_deep", self.too_deep),
            ("orphan_fragment", self.orphan_fragment),
            ("unknown_link", self.unknown_link),
            ("as_nfstream", self.ignored_as_nfstream),
            ("as_flowcontainer", self.ignored_as_flowcontainer),
        ]
        .into_iter()
    }
}

/// What becomes of a flow after a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    #[default]
    GoesOn,
    /// It ends now.
    Ends,
}

/// Sees what comes out of a capture.
pub trait Observer<T> {
    /// A packet was counted in its flow. `ip` has it from its IP header on, as far as it was captured.
    /// Says whether the flow ends with it.
    fn packet(&mut self, found: &Found, flow: Seen<'_, T>, ip: &[u8]) -> Next;
    /// A flow has ended.
    fn ended(&mut self, rank: Rank, ended: Ended<T>);
}

impl Intake {
    /// Nothing was seen yet.
    pub fn new(knobs: &Knobs, reading: Reading, filter: Option<Filter>) -> Self {
        Self {
            filter,
            decode_tunnels: knobs.decode_tunnels,
            reading,
            fragments: Fragments::default(),
            streams: Streams::default(),
            newest_ns: 0,
            tally: Tally::default(),
        }
    }

    /// The packet of a frame; none if the frame is ignored, which is counted. A frame that is
    /// ignored does not move the clock.
    #[inline]
    pub fn packet(&mut self, frame: &Frame<'_>) -> Option<Found> {
        self.tally.seen += 1;
        if let Some(filter) = &mut self.filter
            && !filter.passes(frame)
        {
            self.tally.filtered += 1;
            return None;
        }
        let mut packet = self.parse(frame)?;
        let time_ns = frame.time_ns.max(0).cast_unsigned();
        let now_ns = self.newest_ns.max(time_ns);
        let (mut key, from_high) = FlowKey::of(&packet, 0);
        if self.reading == Reading::Flowcontainer {
            let stream = self.streams.key(frame.bytes, &mut packet, &key, from_high, now_ns);
            self.tally.ignored_as_flowcontainer += u64::from(stream.is_none());
            key = stream?;
        }
        self.tally.metered += 1;
        if time_ns < now_ns {
            self.tally.late += 1;
            self.tally.latest_ns = self.tally.latest_ns.max(now_ns - time_ns);
        }
        self.newest_ns = now_ns;
        let wire = frame.wire.saturating_sub(packet.network_offset.into());
        Some(Found { frame: self.tally.seen, now_ns, key, from_high, wire, packet })
    }

    fn parse(&mut self, frame: &Frame<'_>) -> Option<Packet> {
        if self.reading == Reading::Nfstream {
            let (bytes, tunnels) = (frame.bytes, self.decode_tunnels);
            let packet = nfstream::parse(bytes, frame.wire, frame.link, tunnels);
            self.tally.ignored_as_nfstream += u64::from(packet.is_none());
            return packet;
        }
        let Some(start) = link::start(frame.link, frame.bytes) else {
            self.tally.unknown_link += 1;
            return None;
        };
        let bytes = HostBytes::new(frame.bytes);
        let tunnels = self.decode_tunnels;
        let parsed = start
            .and_then(|(offset, first)| parse::parse(&bytes, offset, first, frame.wire, tunnels));
        match parsed {
            Ok(mut packet) => {
                let time_ns = self.newest_ns.max(frame.time_ns.max(0).cast_unsigned());
                if self.fragments.join(&mut packet, time_ns) {
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

/// NFStream looks for idle flows this often, and takes this many at a time.
const SCAN_MS: u64 = 10;
const SCAN_FLOWS: usize = 1000;

impl<T: Default> Collector<T> {
    /// A collector without flows.
    pub fn new(knobs: Knobs, reading: Reading, share: Share) -> Self {
        let order = match reading {
            Reading::Right | Reading::Flowcontainer => Order::LastPacket,
            Reading::Nfstream => Order::Nfstream,
        };
        Self { reading, share, table: Table::new(knobs, order), scanned_ms: 0 }
    }

    /// Flows that have not ended.
    pub fn resident(&self) -> usize {
        self.table.len()
    }

    /// Meters a packet, if its flow is one of this collector's; its time counts in any case. `ip`
    /// has its bytes from the IP header on.
    #[inline]
    pub fn packet(&mut self, found: &Found, ip: &[u8], see: &mut impl Observer<T>) {
        let Found { frame, now_ns, ref key, from_high, ref packet, .. } = *found;
        let rank = |cut, last| Rank { frame, cut, last };
        if self.reading != Reading::Nfstream {
            self.table.scan(now_ns, usize::MAX, |flow| see.ended(rank(0, flow.last), flow));
        }
        if self.share.has(key) {
            let identity = (*key, from_high);
            let seen = self.table.observe(packet, identity, now_ns, frame, |flow| {
                see.ended(rank(1, flow.last), flow);
            });
            let place = seen.place;
            if see.packet(found, seen, ip) == Next::Ends {
                let flow = self.table.end(place);
                see.ended(rank(2, flow.last), flow);
            }
        }
        let now_ms = now_ns / MILLISECOND;
        if self.reading == Reading::Nfstream && now_ms.saturating_sub(self.scanned_ms) >= SCAN_MS {
            self.scanned_ms = now_ms;
            self.table.scan(now_ns, SCAN_FLOWS, |flow| see.ended(rank(3, flow.last), flow));
        }
    }

    /// Hands out all flows that have not ended: the capture has.
    pub fn finish(&mut self, see: &mut impl Observer<T>) {
        self.table.drain(|flow| {
            see.ended(Rank { frame: u64::MAX, cut: 0, last: flow.last }, flow);
        });
    }
}
