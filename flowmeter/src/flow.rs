//! What is a finished flow, and what follows from its sums?
//!
//! The table and the kernel keep integers: sums, sums of squares, extremes. Here they become what
//! a reader asks for: both directions together, means, deviations. The integer part is exact; only
//! the last division and the root are rounded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use flowmeter_common::lifetime::EndReason;
use flowmeter_common::packet::{Address, Layer, protocol};
use flowmeter_common::record::{Direction, Record, wide};
use flowmeter_common::splt::Slot;
use flowmeter_common::tcp;

use crate::attribution::{Owner, Owners, Peer};
use crate::dissect::Layer7;

/// A finished flow with all that is known of it.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Position in the order of emission, from 0.
    pub id: u64,
    /// Why the record was closed.
    pub reason: EndReason,
    /// The sums.
    pub record: Record,
    /// The first packets, run-length coded, in order. A slot with `repeat` 0 was lost.
    pub splt: Vec<Slot>,
    /// The dissector's verdict; `None` if there is none (dissection off, or its packets lost).
    pub layer7: Option<Layer7>,
    /// Whose sockets the flow belongs to.
    pub owners: Owners,
    /// The interface that the flow was seen on; `None` offline.
    pub interface: Option<Arc<str>>,
    /// What is at the interface's other end, if that is in another network namespace.
    pub peer: Option<Arc<Peer>>,
    /// What plugins have found out, in the order of their columns.
    pub own: Vec<Own>,
}

/// A value that a plugin has made.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Own {
    /// Not known, or without meaning for this flow.
    #[default]
    Null,
    /// A count.
    U64(u64),
    /// A number that may be negative.
    I64(i64),
    /// A number with a fraction.
    F64(f64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// Numbers that may be negative.
    Integers(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
}

/// What follows from the sums of a flow, finished or not.
#[derive(Clone, Copy, Debug)]
pub struct Sums<'a>(pub &'a Record);

/// Where a flow comes from that no process is known of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel itself answered: to a ping, or to a connection that nobody takes.
    Kernel,
    /// This host has sent packets on that came from no socket of its own: of others, or of its
    /// containers.
    Forwarded,
    /// It cannot be told.
    Unknown,
}

impl Origin {
    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Forwarded => "forwarded",
            Self::Unknown => "unknown",
        }
    }
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its address.
    pub ip: IpAddr,
    /// Its port; 0 for protocols without.
    pub port: u16,
    /// The MAC address of the flow's first packet on this side, zeros on links without.
    pub mac: [u8; 6],
}

/// Whose packets are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Both directions together.
    Both,
    /// From the initiator, `src`.
    Src2Dst,
    /// From the responder, `dst`.
    Dst2Src,
}

/// The sums of one side of a flow. All zero where there was no packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets on the wire.
    pub packets: u64,
    /// Bytes by [`Layer`].
    pub bytes: [u64; 4],
    /// Time of the first packet; ns since the epoch.
    pub first_ns: u64,
    /// Time of the last packet; ns since the epoch.
    pub last_ns: u64,
    /// Packet sizes in bytes at the layer asked for.
    pub sizes: Moments,
    /// Inter-arrival times in ticks; one fewer than there are packets.
    pub piats: Moments,
    /// Packets with each TCP flag, in the order of [`flowmeter_common::tcp::FLAGS`].
    pub flags: [u64; 8],
}

/// What the mean and the deviation of a series are computed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// Number of values.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The sum of their squares.
    pub squares: u128,
    /// The smallest, 0 if there is none.
    pub min: u64,
    /// The largest, 0 if there is none.
    pub max: u64,
}

impl Flow {
    /// A flow that has ended, and of which no more is known than what was counted.
    pub fn new(reason: EndReason, record: Record, splt: Vec<Slot>) -> Self {
        Self {
            id: 0,
            reason,
            record,
            splt,
            layer7: None,
            owners: Owners::default(),
            interface: None,
            peer: None,
            own: Vec::new(),
        }
    }

    /// The initiator: the sender of the first packet.
    pub fn src(&self) -> End {
        self.sums().src()
    }

    /// The responder.
    pub fn dst(&self) -> End {
        self.sums().dst()
    }

    /// What follows from its sums.
    pub fn sums(&self) -> Sums<'_> {
        Sums(&self.record)
    }

    /// The owner of the local end: the initiator's where it is known, else the responder's, and one
    /// at the other end of the interface's cable only if no process of this host has sent anything.
    /// When both ends are on this host, both are in [`Self::owners`].
    pub fn local_owner(&self) -> Option<&Owner> {
        let both = || [&self.owners.src, &self.owners.dst].into_iter().flatten();
        let is_sender = self.record.directions.iter().any(|d| d.cookie != 0) && !self.is_kernels();
        both().find(|owner| !owner.is_peers).or_else(|| both().next().filter(|_| !is_sender))
    }

    /// The owner of the initiator's end.
    pub fn src_owner(&self) -> Option<&Owner> {
        self.owners.src.as_ref()
    }

    /// The owner of the responder's end.
    pub fn dst_owner(&self) -> Option<&Owner> {
        self.owners.dst.as_ref()
    }

    /// What is known of a flow that no process is known of.
    pub fn origin(&self) -> Option<Origin> {
        if self.local_owner().is_some() {
            return None;
        }
        if self.record.directions.iter().any(|d| d.socketless != 0) {
            return Some(Origin::Forwarded);
        }
        Some(if self.is_kernels() { Origin::Kernel } else { Origin::Unknown })
    }

    /// Whether this host's packets are by a socket of no process: the kernel has some for its own
    /// answers.
    fn is_kernels(&self) -> bool {
        let is_answer = |d: &Direction| match self.record.key.protocol {
            protocol::ICMP | protocol::ICMPV6 => true,
            // A socket that ever was open has sent more than that.
            protocol::TCP => d.tcp_flags & (tcp::RST | tcp::SYN | tcp::PSH | tcp::FIN) == tcp::RST,
            _ => false,
        };
        self.record.directions.iter().any(|d| d.cookie != 0 && is_answer(d))
    }

    /// As [`Sums::totals`].
    pub fn totals(&self, side: Side, layer: Layer) -> Totals {
        self.sums().totals(side, layer)
    }

    /// As [`Sums::all_totals`].
    pub fn all_totals(&self, layer: Layer) -> [Totals; 3] {
        self.sums().all_totals(layer)
    }
}

impl Sums<'_> {
    /// The initiator: the sender of the first packet.
    pub fn src(self) -> End {
        self.end(self.0.initiator_is_high != 0, self.0.src_mac)
    }

    /// The responder.
    pub fn dst(self) -> End {
        self.end(self.0.initiator_is_high == 0, self.0.dst_mac)
    }

    /// Packets in both directions.
    pub fn packets(self) -> u64 {
        self.0.packets()
    }

    /// The sums of one side; `sizes` are those at `layer`, which must be the accounting mode that
    /// the flow was metered with: squares and extremes are kept for no other.
    pub fn totals(self, side: Side, layer: Layer) -> Totals {
        let [forward, backward] = &self.0.directions;
        let [forward_tick, backward_tick] = self.0.first_ticks;
        match side {
            Side::Src2Dst => direction(forward, forward_tick, layer),
            Side::Dst2Src => direction(backward, backward_tick, layer),
            Side::Both => {
                let [both, ..] = self.all_totals(layer);
                both
            }
        }
    }

    /// The sums of all sides, in the order of [`Side`].
    pub fn all_totals(self, layer: Layer) -> [Totals; 3] {
        let [f, b] = [Side::Src2Dst, Side::Dst2Src].map(|side| self.totals(side, layer));
        [self.both(&f, &b), f, b]
    }

    fn both(self, f: &Totals, b: &Totals) -> Totals {
        let [forward, backward] = &self.0.directions;
        let mut sizes = Moments {
            count: f.sizes.count + b.sizes.count,
            sum: f.sizes.sum + b.sizes.sum,
            squares: f.sizes.squares + b.sizes.squares,
            min: f.sizes.min,
            max: f.sizes.max.max(b.sizes.max),
        };
        if b.packets > 0 {
            sizes.min = sizes.min.min(b.sizes.min);
        }
        let packets = f.packets + b.packets;
        let [first_tick, _] = self.0.first_ticks;
        Totals {
            packets,
            bytes: std::array::from_fn(|i| f.bytes[i] + b.bytes[i]),
            first_ns: f.first_ns,
            last_ns: f.last_ns.max(b.last_ns),
            sizes,
            piats: piats(
                packets,
                forward.last_tick.max(backward.last_tick).saturating_sub(first_tick),
                self.0.piat_squares,
                [self.0.piat_min, self.0.piat_max],
            ),
            flags: std::array::from_fn(|i| f.flags[i] + b.flags[i]),
        }
    }

    fn end(self, high: bool, mac: [u8; 6]) -> End {
        let key = &self.0.key;
        let (words, port) = if high { (key.high, key.high_port) } else { (key.low, key.low_port) };
        End { ip: address(words, key.ip_version), port, mac }
    }
}

impl Moments {
    /// The arithmetic mean, 0 without values.
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        self.sum as f64 / self.count as f64
    }

    /// The sample standard deviation, 0 for fewer than two values.
    ///
    /// Its square is (n·Σx² − (Σx)²) / (n·(n−1)). The difference of two nearly equal numbers is
    /// taken of integers, where it is exact; in floating point it would be noise.
    pub fn stddev(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let (n, sum) = (u128::from(self.count), u128::from(self.sum));
        let below = (n * (n - 1)) as f64;
        let above = match n.checked_mul(self.squares) {
            Some(product) => product.saturating_sub(sum * sum) as f64,
            // Inter-arrival times of centuries. What is left is right to a few digits.
            None => (n as f64 * self.squares as f64 - sum as f64 * sum as f64).max(0.0),
        };
        (above / below).sqrt()
    }
}

fn direction(d: &Direction, first_tick: u64, layer: Layer) -> Totals {
    if d.packets == 0 {
        return Totals::default();
    }
    Totals {
        packets: d.packets,
        bytes: d.bytes,
        first_ns: d.first_ns,
        last_ns: d.last_ns,
        sizes: Moments {
            count: d.packets,
            sum: d.bytes[layer as usize],
            squares: u128::from(d.size_squares),
            min: u64::from(d.size_min),
            max: u64::from(d.size_max),
        },
        piats: piats(
            d.packets,
            d.last_tick.saturating_sub(first_tick),
            d.piat_squares,
            [d.piat_min, d.piat_max],
        ),
        flags: d.flags.map(u64::from),
    }
}

/// The inter-arrival times' sum telescopes: it is the last tick less the first.
fn piats(packets: u64, sum: u64, squares: [u64; 2], [min, max]: [u64; 2]) -> Moments {
    if packets < 2 {
        return Moments::default();
    }
    Moments { count: packets - 1, sum, squares: wide(squares), min, max }
}

/// The words of a key are the address's bytes as they stood in the packet.
fn address([first, second]: Address, ip_version: u8) -> IpAddr {
    let mut bytes = [0; 16];
    let (head, tail) = bytes.split_at_mut(8);
    head.copy_from_slice(&first.to_ne_bytes());
    tail.copy_from_slice(&second.to_ne_bytes());
    match (ip_version, bytes) {
        (4, [a, b, c, d, ..]) => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(bytes).into(),
    }
}

/// `NFStream`'s number for the end of a flow: 0 idle (and the end of the capture), 1 active
/// timeout, −1 ended by itself. A record cut because its counters were full is like one cut for
/// its age: the conversation goes on in the next.
pub fn expiration_id(reason: EndReason) -> i64 {
    match reason {
        EndReason::Idle | EndReason::Forced => 0,
        EndReason::Active | EndReason::Resources => 1,
        EndReason::End => -1,
    }
}

/// The name of `flowEndReason` in the IPFIX registry (RFC 5102 §5.11.3).
pub fn end_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Idle => "idle timeout",
        EndReason::Active => "active timeout",
        EndReason::End => "end of flow detected",
        EndReason::Forced => "forced end",
        EndReason::Resources => "lack of resources",
    }
}

/// Flows for tests, metered from packets as the table and the kernel do it.
#[cfg(test)]
pub mod example {
    use flowmeter_common::key::FlowKey;
    use flowmeter_common::knobs::Knobs;
    use flowmeter_common::packet::{Packet, ipv4_address};
    use flowmeter_common::record::Effect;

    use super::*;

    /// The client's TCP packet with `sizes` by layer.
    pub fn request(sizes: [u32; 4], tcp_flags: u8) -> Packet {
        Packet {
            src: ipv4_address([10, 0, 0, 1]),
            dst: ipv4_address([192, 0, 2, 7]),
            src_port: 40_000,
            dst_port: 443,
            src_mac: [2, 0, 0, 0, 0, 0xaa],
            dst_mac: [2, 0, 0, 0xbb, 0, 1],
            protocol: 6,
            ip_version: 4,
            segments: 1,
            sizes,
            tcp_flags,
            ..Packet::default()
        }
    }

    /// The server's.
    pub fn response(sizes: [u32; 4], tcp_flags: u8) -> Packet {
        let p = request(sizes, tcp_flags);
        Packet {
            src: p.dst,
            dst: p.src,
            src_port: p.dst_port,
            dst_port: p.src_port,
            src_mac: p.dst_mac,
            dst_mac: p.src_mac,
            ..p
        }
    }

    /// The flow of these packets, each with its time in ns.
    pub fn flow(packets: &[(u64, Packet)], knobs: &Knobs) -> Flow {
        let mut record = Record::default();
        let mut splt = Vec::new();
        for (i, (now_ns, p)) in packets.iter().enumerate() {
            let (key, from_high) = FlowKey::of(p, 0);
            if i == 0 {
                record.begin(&key, 1, 0, p, from_high);
            }
            let mut effect = Effect::default();
            record.add(p, from_high, *now_ns, knobs, &mut effect);
            let added = effect.splt;
            splt.extend_from_slice(&added.slots[..added.count as usize]);
        }
        Flow::new(EndReason::Idle, record, splt)
    }

    /// A SYN of 60 bytes, its answer of 100 bytes 1.7 ms later, and a further 300 bytes 20.1 ms
    /// after that, beginning 0.5 ms into a millisecond.
    pub fn handshake(knobs: &Knobs) -> Flow {
        const START: u64 = 1_700_000_000_000_500_000;
        flow(
            &[
                (START, request([60, 46, 26, 6], 0x02)),
                (START + 1_700_000, response([100, 86, 66, 46], 0x12)),
                (START + 21_800_000, request([300, 286, 266, 246], 0x18)),
            ],
            knobs,
        )
    }
}

#[cfg(test)]
mod tests {
    use flowmeter_common::knobs::Knobs;
    use flowmeter_common::owner::Ids;
    use proptest::prelude::*;

    use super::example::{flow, handshake, request, response};
    use super::*;
    use crate::attribution::Method;

    const STATISTICS: Knobs = Knobs {
        statistics: true,
        idle_ns: 0,
        active_ns: 0,
        accounting: Layer::Link,
        tick_ns: 1_000_000,
        splt: 0,
        n_dissections: 0,
        decode_tunnels: true,
    };

    #[test]
    fn initiator_is_src_whichever_end_is_high() {
        let sizes = [60, 46, 26, 6];
        let there = flow(&[(0, request(sizes, 2))], &STATISTICS);
        let back = flow(&[(0, response(sizes, 2))], &STATISTICS);
        let client = End { ip: [10, 0, 0, 1].into(), port: 40_000, mac: [2, 0, 0, 0, 0, 0xaa] };
        let server = End { ip: [192, 0, 2, 7].into(), port: 443, mac: [2, 0, 0, 0xbb, 0, 1] };
        assert_eq!((there.src(), there.dst()), (client, server));
        assert_eq!((back.src(), back.dst()), (server, client));
    }

    #[test]
    fn the_local_end_is_not_that_of_a_cables_other_end() {
        let owner = |pid, is_peers| {
            let (name, ids) = ("one".to_owned(), Ids::default());
            let (method, start_ticks) = (Method::Socket, 1);
            let (reported, user, shared, profile) = (None, None, None, None);
            Some(Owner {
                pid,
                name,
                method,
                start_ticks,
                reported,
                ids,
                user,
                shared,
                is_peers,
                profile,
            })
        };
        let mut flow = flow(&[(0, request([60, 46, 26, 6], 2))], &STATISTICS);
        let mut local = |src, dst| {
            flow.owners = Owners { src, dst };
            flow.local_owner().map(|owner| owner.pid)
        };
        assert_eq!(local(owner(1, false), owner(2, false)), Some(1));
        assert_eq!(local(owner(1, true), owner(2, false)), Some(2), "a container asks the host");
        assert_eq!(local(owner(1, true), None), Some(1));
        assert_eq!(local(None, None), None);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "one rounding on each side, the same")]
    fn sums_of_a_handshake() {
        let f = handshake(&STATISTICS);
        let both = f.totals(Side::Both, Layer::Link);
        assert_eq!(both.packets, 3);
        assert_eq!(both.bytes, [460, 418, 358, 298]);
        assert_eq!(both.last_ns - both.first_ns, 21_800_000);
        assert_eq!(both.flags, [0, 2, 0, 1, 2, 0, 0, 0]);
        // 60, 100 and 300 bytes: squares 3,600 + 10,000 + 90,000.
        let sizes = Moments { count: 3, sum: 460, squares: 103_600, min: 60, max: 300 };
        assert_eq!(both.sizes, sizes);
        // At 0.5, 2.2 and 22.3 ms, so 2 and 20 whole milliseconds.
        let piats = Moments { count: 2, sum: 22, squares: 404, min: 2, max: 20 };
        assert_eq!(both.piats, piats);
        assert_eq!(both.piats.mean(), 11.0);
        assert_eq!(both.piats.stddev(), 162_f64.sqrt());

        let there = f.totals(Side::Src2Dst, Layer::Link);
        assert_eq!(there.sizes.mean(), 180.0);
        assert_eq!(there.sizes.stddev(), 28_800_f64.sqrt());
        assert_eq!((there.piats.min, there.piats.max, there.piats.stddev()), (22, 22, 0.0));
        let back = f.totals(Side::Dst2Src, Layer::Link);
        assert_eq!(
            (back.sizes.min, back.sizes.stddev(), back.piats),
            (100, 0.0, Moments::default())
        );
    }

    #[test]
    fn direction_without_packets_is_all_zero() {
        let f = flow(&[(5, request([60, 46, 26, 6], 2))], &STATISTICS);
        assert_eq!(f.totals(Side::Dst2Src, Layer::Link), Totals::default());
        let both = f.totals(Side::Both, Layer::Link);
        assert_eq!((both.sizes.min, both.sizes.max, both.piats), (60, 60, Moments::default()));
    }

    #[test]
    fn segments_of_a_super_packet_are_packets() {
        let mut p = request([154, 140, 120, 100], 0x18);
        p.segments = 3;
        p.segment_sizes = [1_514, 1_500, 1_480, 1_460];
        let f = flow(&[(0, p)], &STATISTICS);
        let t = f.totals(Side::Both, Layer::Link);
        assert_eq!((t.packets, t.bytes[0]), (3, 3_182));
        assert_eq!((t.sizes.min, t.sizes.max), (154, 1_514));
        assert_eq!(t.piats, Moments { count: 2, ..Moments::default() });
    }

    /// `NFStream`'s way: Welford's running mean and deviation, in floating point.
    fn welford(values: &[u64]) -> (f64, f64) {
        let (mut mean, mut m2) = (0.0, 0.0);
        for (i, &x) in values.iter().enumerate() {
            let before = x as f64 - mean;
            mean += before / (i + 1) as f64;
            m2 += before * (x as f64 - mean);
        }
        let n = values.len() as f64;
        (mean, if n < 2.0 { 0.0 } else { (m2 / (n - 1.0)).sqrt() })
    }

    fn assert_near(a: f64, b: f64, scale: f64) {
        assert!((a - b).abs() <= 1e-9 * scale.max(b.abs()), "{a} is not {b}");
    }

    proptest! {
        #[test]
        fn exact_sums_agree_with_welford(
            packets in prop::collection::vec((0_u64..5_000_000_000, 1_u32..65_536, any::<bool>()), 1..80),
        ) {
            let mut now = 1_700_000_000_000_000_000;
            let mut timed = Vec::new();
            for (gap, size, back) in packets {
                now += gap;
                let sizes = [size; 4];
                let back = back && !timed.is_empty();
                timed.push((now, if back { response(sizes, 16) } else { request(sizes, 16) }));
            }
            let f = flow(&timed, &STATISTICS);
            for side in [Side::Both, Side::Src2Dst, Side::Dst2Src] {
                let of_side: Vec<_> = timed.iter().filter(|(_, p)| match side {
                    Side::Both => true,
                    Side::Src2Dst => p.src_port == 40_000,
                    Side::Dst2Src => p.src_port == 443,
                }).collect();
                let sizes: Vec<u64> = of_side.iter().map(|(_, p)| u64::from(p.sizes[0])).collect();
                let piats: Vec<u64> = of_side
                    .windows(2)
                    .map(|w| w[1].0 / 1_000_000 - w[0].0 / 1_000_000)
                    .collect();
                let t = f.totals(side, Layer::Link);
                for (moments, values) in [(t.sizes, sizes), (t.piats, piats)] {
                    let (mean, stddev) = welford(&values);
                    prop_assert_eq!(moments.count, values.len() as u64);
                    prop_assert_eq!(moments.min, values.iter().copied().min().unwrap_or(0));
                    prop_assert_eq!(moments.max, values.iter().copied().max().unwrap_or(0));
                    assert_near(moments.mean(), mean, 0.0);
                    // Welford's own rounding is relative to the values, not to their deviation.
                    assert_near(moments.stddev(), stddev, mean);
                }
            }
        }
    }
}
