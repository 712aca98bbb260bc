//! What is kept of a flow, and how does a packet change it?

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::key::FlowKey;
use crate::knobs::Settings;
use crate::packet::Packet;
use crate::packet::protocol;
use crate::splt::{Added, Slot};
use crate::tcp;

/// One direction of a flow. Sums and sums of squares are integers; means and deviations are
/// computed from them in userspace, exactly.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Direction {
    /// Packets on the wire.
    pub packets: u64,
    /// Bytes by [`Layer`](crate::packet::Layer).
    pub bytes: [u64; 4],
    /// Sum of the squared sizes, by the accounting mode; bytes².
    pub size_squares: u64,
    /// Time of the first packet; ns since the epoch.
    pub first_ns: u64,
    /// Time of the last packet; ns since the epoch.
    pub last_ns: u64,
    /// Time of the last packet in whole ticks.
    pub last_tick: u64,
    /// Sum of the squared inter-arrival times as a 128-bit number, low word first; ticks².
    pub piat_squares: [u64; 2],
    /// Shortest inter-arrival time in ticks; means something from 2 packets on.
    pub piat_min: u64,
    /// Longest inter-arrival time in ticks.
    pub piat_max: u64,
    /// Cookie of the socket that sent these packets; 0 if it is not on this host, or not known.
    pub cookie: u64,
    /// Smallest packet in bytes, by the accounting mode.
    pub size_min: u32,
    /// Largest packet in bytes, by the accounting mode.
    pub size_max: u32,
    /// Packets with each TCP flag, in the order of [`tcp::FLAGS`].
    pub flags: [u32; 8],
    /// All TCP flags seen, OR'd.
    pub tcp_flags: u8,
    /// Type of the first ICMP packet.
    pub icmp_type: u8,
    /// Code of the first ICMP packet.
    pub icmp_code: u8,
    /// 1 if this host has sent a packet of these that came from no socket: it forwarded it.
    pub socketless: u8,
    /// 1 if that socket has sent only what the kernel itself sends too, of ICMP: see
    /// [`Packet::is_kernels`].
    pub is_kernels: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<Direction>() == 160);

/// A biflow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Record {
    /// The flow's identity, repeated because the kernel re-uses map elements.
    pub key: FlowKey,
    /// A number of this record alone, for as long as the meter runs.
    pub uid: u64,
    /// From the initiator (the sender of the first packet), and from the responder.
    pub directions: [Direction; 2],
    /// Sum of the squared inter-arrival times of both directions together, as
    /// [`Direction::piat_squares`].
    pub piat_squares: [u64; 2],
    /// Shortest inter-arrival time of both directions together; ticks.
    pub piat_min: u64,
    /// Longest inter-arrival time of both directions together; ticks.
    pub piat_max: u64,
    /// What the record's times are ahead of the meter's clock, see [`clock`](crate::clock); ns.
    pub wall_offset: u64,
    /// First ticks of the flow, for the closed form of the inter-arrival sum.
    pub first_ticks: [u64; 2],
    /// Packets that SPLT slots stand for.
    pub splt_packets: u32,
    /// SPLT slots in use.
    pub splt_slots: u32,
    /// The initiator's MAC address, from the first packet.
    pub src_mac: [u8; 6],
    /// The responder's MAC address, from the first packet.
    pub dst_mac: [u8; 6],
    /// 1 if the initiator is the high end of the key.
    pub initiator_is_high: u8,
    /// What is wrong with this record, see [`mark`].
    pub marks: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Record>() == 456);

/// Bits of [`Record::marks`]: how a record falls short, said in the log.
pub mod mark {
    /// A timeout passed but the ring to userspace was full, so the record went on.
    pub const LATE_EXPIRY: u8 = 1 << 0;
    /// An SPLT chunk found no room.
    pub const SPLT_LOST: u8 = 1 << 1;
    /// Packets for the dissector were lost on the way.
    pub const DISSECTION_LOST: u8 = 1 << 2;
}

/// What [`Record::add`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Effect {
    /// 0 if the packet is the initiator's, 1 if the responder's.
    pub direction: u32,
    /// Ordinal of the packet in its flow, from 1 (of a super-packet: of its first segment).
    pub number: u64,
    /// The packet's time, as it is in the record; ns since the epoch.
    pub time_ns: u64,
    /// 1 if the socket that sends these packets is not known yet, and may be found: not after too
    /// many packets that had none.
    pub wants_socket: u32,
    /// Zero.
    pub reserved: u32,
    /// SPLT slots to write.
    pub splt: Added,
}

/// A direction is taken for one without a socket after this many packets.
const SOCKETLESS: u64 = 64;

impl Record {
    /// Makes this the record of a new flow with no packet yet. Its times will be `wall_offset` ahead
    /// of the meter's clock.
    #[inline(always)]
    pub fn begin(
        &mut self,
        key: &FlowKey,
        uid: u64,
        wall_offset: u64,
        p: &Packet,
        from_high: bool,
    ) {
        *self = Self {
            key: *key,
            uid,
            wall_offset,
            src_mac: p.src_mac,
            dst_mac: p.dst_mac,
            initiator_is_high: u8::from(from_high),
            ..Self::default()
        };
    }

    /// Adds a packet seen at `clock_ns` by the meter's clock, and says in `effect` what that did. A
    /// time before the newest is taken as the newest.
    #[inline(always)]
    pub fn add<S: Settings>(
        &mut self,
        p: &Packet,
        from_high: bool,
        clock_ns: u64,
        knobs: &S,
        effect: &mut Effect,
    ) {
        let now_ns = self.on_the_wall(clock_ns);
        let reverse = u8::from(from_high) != self.initiator_is_high;
        let [forward, backward] = &mut self.directions;
        let newest_ns = forward.last_ns.max(backward.last_ns);
        let newest_tick = forward.last_tick.max(backward.last_tick);
        let before = forward.packets + backward.packets;
        let now_ns = now_ns.max(newest_ns);
        let tick = tick_of(now_ns, newest_tick, knobs.tick_ns().max(1));
        let [forward_first, backward_first] = &mut self.first_ticks;
        let (d, first_tick) =
            if reverse { (backward, backward_first) } else { (forward, forward_first) };
        let size = layer(&p.sizes, knobs.accounting());

        if d.packets == 0 {
            d.first_ns = now_ns;
            *first_tick = tick;
            d.icmp_type = p.icmp_type;
            d.icmp_code = p.icmp_code;
            d.size_min = u32::MAX;
            d.piat_min = u64::MAX;
        } else if knobs.statistics() {
            let piat = tick - d.last_tick;
            add_square(&mut d.piat_squares, piat);
            d.piat_min = d.piat_min.min(piat);
            d.piat_max = d.piat_max.max(piat);
        }
        if before == 0 {
            self.piat_min = u64::MAX;
        } else if knobs.statistics() {
            let piat = tick - newest_tick;
            add_square(&mut self.piat_squares, piat);
            self.piat_min = self.piat_min.min(piat);
            self.piat_max = self.piat_max.max(piat);
        }

        d.last_ns = now_ns;
        d.last_tick = tick;
        d.packets += 1;
        let [b0, b1, b2, b3] = &mut d.bytes;
        let [s0, s1, s2, s3] = p.sizes;
        *b0 += u64::from(s0);
        *b1 += u64::from(s1);
        *b2 += u64::from(s2);
        *b3 += u64::from(s3);
        if knobs.statistics() {
            d.size_squares += u64::from(size) * u64::from(size);
            d.size_min = d.size_min.min(size);
            d.size_max = d.size_max.max(size);
        }
        if p.protocol == protocol::TCP {
            d.tcp_flags |= p.tcp_flags;
            if knobs.statistics() {
                tcp::count(&mut d.flags, p.tcp_flags, p.segments);
            }
        }
        if p.segments > 1 {
            let more = p.segments - 1;
            add_segments(d, p, more, knobs);
            if knobs.statistics() {
                d.piat_min = 0;
                self.piat_min = 0;
            }
        }

        effect.direction = u32::from(reverse);
        let is_unknown = d.cookie == 0 && d.packets < SOCKETLESS;
        effect.wants_socket = u32::from(is_unknown || d.is_kernels != 0 && !p.is_kernels());
        effect.number = before + 1;
        effect.time_ns = now_ns;
        effect.splt.count = 0;
        if self.splt_packets < knobs.splt() {
            self.add_splt(p, reverse, now_ns, knobs, &mut effect.splt);
        }
    }

    /// Takes room for the slots of `p` and says what to write there.
    #[inline(always)]
    fn add_splt<S: Settings>(
        &mut self,
        p: &Packet,
        reverse: bool,
        time_ns: u64,
        knobs: &S,
        added: &mut Added,
    ) {
        let top = if reverse { Slot::REVERSE } else { 0 };
        let slot = |sizes: &[u32; 4], repeat| {
            let [_, ip_bytes, _, payload_bytes] = *sizes;
            let size_direction = layer(sizes, knobs.accounting()) | top;
            Slot { time_ns, size_direction, repeat, ip_bytes, payload_bytes }
        };
        added.index = self.splt_slots;
        added.count = 1;
        let [first, second] = &mut added.slots;
        if p.segments > 1 {
            let left = knobs.splt() - self.splt_packets;
            let run = (p.segments - 1).min(left);
            *first = slot(&p.segment_sizes, run);
            *second = slot(&p.sizes, 1);
            let last = (left - run).min(1);
            added.count += last;
            self.splt_packets += run + last;
        } else {
            *first = slot(&p.sizes, 1);
            self.splt_packets += 1;
        }
        self.splt_slots += added.count;
    }

    /// A time by the meter's clock, as the record has it; ns since the epoch.
    #[inline(always)]
    pub fn on_the_wall(&self, clock_ns: u64) -> u64 {
        clock_ns.wrapping_add(self.wall_offset)
    }

    /// A time of the record by the meter's clock, by which it can be compared with others; ns.
    #[inline(always)]
    pub fn by_the_clock(&self, time_ns: u64) -> u64 {
        time_ns.wrapping_sub(self.wall_offset)
    }

    /// Time of the newest packet; ns since the epoch.
    #[inline(always)]
    pub fn last_ns(&self) -> u64 {
        let [forward, backward] = &self.directions;
        forward.last_ns.max(backward.last_ns)
    }

    /// Time of the first packet; ns since the epoch.
    #[inline(always)]
    pub fn first_ns(&self) -> u64 {
        let [forward, _] = &self.directions;
        forward.first_ns
    }

    /// Packets of both directions.
    #[inline(always)]
    pub fn packets(&self) -> u64 {
        let [forward, backward] = &self.directions;
        forward.packets + backward.packets
    }
}

/// Adds the `more` equal segments of a super-packet that precede its last one: all at one
/// instant, so `more` inter-arrival times of 0.
#[inline(always)]
fn add_segments<S: Settings>(d: &mut Direction, p: &Packet, more: u32, knobs: &S) {
    let more = u64::from(more);
    d.packets += more;
    let [b0, b1, b2, b3] = &mut d.bytes;
    let [s0, s1, s2, s3] = p.segment_sizes;
    *b0 += u64::from(s0) * more;
    *b1 += u64::from(s1) * more;
    *b2 += u64::from(s2) * more;
    *b3 += u64::from(s3) * more;
    if knobs.statistics() {
        let size = layer(&p.segment_sizes, knobs.accounting());
        d.size_squares += u64::from(size) * u64::from(size) * more;
        d.size_min = d.size_min.min(size);
        d.size_max = d.size_max.max(size);
    }
}

/// `now_ns` in whole ticks, given a tick that is not after it. The same as `now_ns / tick_ns`, and
/// mostly without a 64-bit division, which is the dearest instruction here.
#[inline(always)]
fn tick_of(now_ns: u64, earlier: u64, tick_ns: u64) -> u64 {
    let since = now_ns.wrapping_sub(earlier.wrapping_mul(tick_ns));
    if since < tick_ns {
        return earlier;
    }
    if since >> 32 == 0 {
        // Here tick_ns <= since, so both fit 32 bits.
        return earlier + u64::from(since as u32 / (tick_ns as u32).max(1));
    }
    now_ns / tick_ns.max(1)
}

/// The size at the layer of the accounting mode.
#[inline(always)]
fn layer(sizes: &[u32; 4], accounting: u32) -> u32 {
    let [link, ip, transport, payload] = *sizes;
    match accounting {
        0 => link,
        1 => ip,
        2 => transport,
        _ => payload,
    }
}

/// Adds `x`² to a 128-bit sum. Nearly always the square fits 64 bits; BPF has no wider multiply.
#[inline(always)]
fn add_square(sum: &mut [u64; 2], x: u64) {
    let (low, high) = if x >> 32 == 0 {
        (x * x, 0)
    } else {
        let (a, b) = (x >> 32, x & 0xffff_ffff);
        let (cross, base) = (a * b, b * b);
        let (low, carry) = base.overflowing_add(cross << 33);
        (low, (a * a).wrapping_add(cross >> 31).wrapping_add(u64::from(carry)))
    };
    let [sum_low, sum_high] = sum;
    let (total, carry) = sum_low.overflowing_add(low);
    *sum_low = total;
    *sum_high = sum_high.wrapping_add(high).wrapping_add(u64::from(carry));
}

/// A 128-bit sum as the host computes with it.
#[inline]
pub fn wide([low, high]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}
