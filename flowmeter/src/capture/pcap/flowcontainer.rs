//! Which packets does flowcontainer see, and in which streams?
//!
//! For `--compat flowcontainer`. It asks tshark for TCP and UDP, without mDNS, SSDP and
//! `tcp.analysis.retransmission`, and takes tshark's streams for flows. The rules on
//! retransmissions are those of Wireshark 4.0's documentation of its TCP analysis (User's Guide,
//! section 7.5), as far as single packets can show them.

use flowmeter_common::key::FlowKey;
use flowmeter_common::packet::{FRAGMENT_LATER, Packet, protocol};
use hashbrown::HashMap;

/// The streams so far.
#[derive(Default)]
pub struct Streams {
    tcp: HashMap<FlowKey, Stream>,
}

/// A TCP stream.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// Streams before it between the same ends.
    number: u32,
    /// By [`FlowKey`]'s ends: the low one's segments, and the high one's.
    ends: [End; 2],
    /// From the initiator's SYN to the first ACK of his; ns.
    first_rtt: Option<u64>,
    syn_ns: u64,
    is_closed: bool,
}

/// What one end has sent.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    base: Option<u32>,
    /// The byte after the last one sent.
    next: Option<u32>,
    next_ns: u64,
    ack: Option<u32>,
    ack_ns: u64,
    duplicate_acks: u32,
    window: u16,
}

/// What the analysis needs of a TCP header (RFC 9293).
#[derive(Clone, Copy, Debug)]
struct Segment {
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    /// Bytes of payload.
    length: u32,
    time_ns: u64,
}

mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

const MDNS: u16 = 5353;
const SSDP: u16 = 1900;

impl Streams {
    /// The key of a packet's stream; none if flowcontainer leaves the packet out. Takes the word of
    /// UDP's header for its length.
    pub fn key(
        &mut self,
        frame: &[u8],
        p: &mut Packet,
        key: &FlowKey,
        from_high: bool,
        time_ns: u64,
    ) -> Option<FlowKey> {
        // Streams know neither VLANs nor tunnels.
        let mut key = FlowKey { vlan: 0, outer_vlan: 0, tunnel: 0, vni: 0, interface: 0, ..*key };
        let has_port = |port| key.low_port == port || key.high_port == port;
        match p.protocol {
            _ if p.fragment == FRAGMENT_LATER => None,
            protocol::UDP if has_port(MDNS) || has_port(SSDP) => None,
            protocol::UDP => {
                let header = frame.get(usize::from(p.payload_offset).checked_sub(8)?..)?;
                let [_, _, _, _, l0, l1, ..] = *header.first_chunk::<8>()?;
                let [_, _, _, payload] = &mut p.sizes;
                *payload = u32::from(u16::from_be_bytes([l0, l1])).saturating_sub(8);
                Some(key)
            }
            protocol::TCP => {
                let segment = segment(frame, p, time_ns)?;
                let stream = self.tcp.entry(key).or_default();
                if stream.is_reused_by(&segment, from_high) {
                    *stream = Stream { number: stream.number + 1, ..Stream::default() };
                }
                if stream.add(&segment, from_high) {
                    return None;
                }
                // Tells streams between the same ends apart.
                key.vni = stream.number;
                Some(key)
            }
            _ => None,
        }
    }
}

/// The segment of a packet whose TCP header is there.
fn segment(frame: &[u8], p: &Packet, time_ns: u64) -> Option<Segment> {
    let [_, _, transport, payload] = p.sizes;
    let header = transport.checked_sub(payload)?;
    let start = u32::from(p.payload_offset).checked_sub(header)?;
    let header: &[u8; 16] = frame.get(start as usize..)?.first_chunk()?;
    let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, _, flags, w0, w1] = *header;
    Some(Segment {
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
        window: u16::from_be_bytes([w0, w1]),
        length: payload,
        time_ns,
    })
}

/// Whether `a` comes before `b` (RFC 9293, section 3.4).
fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

impl Segment {
    fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The sequence numbers that it takes.
    fn span(&self) -> u32 {
        self.length + u32::from(self.has(flag::SYN | flag::FIN))
    }
}

impl Stream {
    /// A SYN with another number than the stream's, or after its end, begins a new one.
    fn is_reused_by(&self, s: &Segment, from_high: bool) -> bool {
        let base = self.ends[usize::from(from_high)].base;
        let is_syn = s.flags & (flag::SYN | flag::ACK) == flag::SYN;
        is_syn && base.is_some_and(|base| base != s.seq || self.is_closed)
    }

    /// Adds a segment, and says whether it is a retransmission.
    fn add(&mut self, s: &Segment, from_high: bool) -> bool {
        self.measure(s);
        self.is_closed |= s.has(flag::FIN | flag::RST);
        let first_rtt = self.first_rtt;
        let [low, high] = &mut self.ends;
        let (end, peer) = if from_high { (high, low) } else { (low, high) };
        end.base.get_or_insert(if s.has(flag::SYN) { s.seq } else { s.seq.wrapping_sub(1) });
        if !s.has(flag::SYN) {
            peer.base.get_or_insert(s.ack.wrapping_sub(1));
        }

        let is_plain = !s.has(flag::SYN | flag::FIN | flag::RST);
        let is_probe = s.length == 1 && end.next == Some(s.seq) && peer.window == 0;
        let is_keep_alive =
            is_plain && s.length <= 1 && end.next.is_some_and(|n| s.seq == n.wrapping_sub(1));
        let is_duplicate_ack = is_plain
            && s.length == 0
            && s.window != 0
            && s.window == end.window
            && end.next == Some(s.seq)
            && end.ack == Some(s.ack);
        if end.ack != Some(s.ack) {
            end.duplicate_acks = 0;
        } else if is_duplicate_ack && !is_probe {
            end.duplicate_acks += 1;
        }
        let is_again = s.span() > 0 && !is_keep_alive && is_again(s, end, peer, first_rtt);

        let next = s.seq.wrapping_add(s.span());
        if !is_probe && end.next.is_none_or(|old| is_before(old, next)) {
            end.next = Some(next);
            end.next_ns = s.time_ns;
        }
        if s.has(flag::ACK) {
            end.ack = Some(s.ack);
            end.ack_ns = s.time_ns;
        }
        end.window = s.window;
        is_again
    }

    fn measure(&mut self, s: &Segment) {
        match s.flags & (flag::SYN | flag::ACK) {
            flag::SYN => self.syn_ns = s.time_ns,
            flag::ACK if self.syn_ns > 0 && self.first_rtt.is_none() => {
                self.first_rtt = Some(s.time_ns.saturating_sub(self.syn_ns));
            }
            _ => {}
        }
    }
}

/// Acknowledged or older data is a retransmission, unless it comes so soon after newer data that
/// the network may have changed the order.
fn is_again(s: &Segment, end: &End, peer: &End, first_rtt: Option<u64>) -> bool {
    const REORDERED_NS: u64 = 3_000_000;
    const FAST_NS: u64 = 20_000_000;
    let last = s.seq.wrapping_add(s.length);
    if s.length > 0 && peer.ack.is_some_and(|ack| !is_before(ack, last)) {
        return true;
    }
    let Some(next) = end.next else { return false };
    if !is_before(s.seq, next) || s.length > 1 && s.seq == next.wrapping_sub(1) {
        return false;
    }
    let is_fast = peer.duplicate_acks >= 2
        && peer.ack == Some(s.seq)
        && s.time_ns.saturating_sub(peer.ack_ns) < FAST_NS;
    let is_soon = s.time_ns.saturating_sub(end.next_ns) < first_rtt.unwrap_or(REORDERED_NS);
    is_fast || !(is_soon && next != s.seq.wrapping_add(s.span()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn segment(seq: u32, ack: u32, flags: u8, length: u32, time_ms: u64) -> Segment {
        Segment { seq, ack, flags, window: 1000, length, time_ns: time_ms * MS }
    }

    /// A stream after its handshake, with a round trip of 10 ms.
    fn open() -> Stream {
        let mut stream = Stream::default();
        assert!(!stream.add(&segment(100, 0, flag::SYN, 0, 1), false));
        assert!(!stream.add(&segment(500, 101, flag::SYN | flag::ACK, 0, 10), true));
        assert!(!stream.add(&segment(101, 501, flag::ACK, 0, 11), false));
        stream
    }

    #[test]
    fn what_comes_again_is_left_out() {
        let mut stream = open();
        assert!(!stream.add(&segment(101, 501, flag::ACK, 50, 20), false));
        assert!(stream.add(&segment(101, 501, flag::ACK, 50, 220), false), "the same again");
        assert!(!stream.add(&segment(151, 501, flag::ACK, 50, 230), false), "new data");
    }

    #[test]
    fn what_was_overtaken_is_not() {
        let mut stream = open();
        assert!(!stream.add(&segment(201, 501, flag::ACK, 50, 20), false));
        assert!(!stream.add(&segment(101, 501, flag::ACK, 50, 21), false), "overtaken");
        assert!(stream.add(&segment(151, 501, flag::ACK, 50, 90), false), "too late for that");
    }

    #[test]
    fn a_keep_alive_is_not() {
        let mut stream = open();
        assert!(!stream.add(&segment(101, 501, flag::ACK, 50, 20), false));
        assert!(!stream.add(&segment(150, 501, flag::ACK, 1, 9_000), false));
    }

    #[test]
    fn a_new_syn_begins_a_new_stream() {
        let stream = open();
        assert!(stream.is_reused_by(&segment(7_000, 0, flag::SYN, 0, 50), false));
        assert!(!stream.is_reused_by(&segment(100, 0, flag::SYN, 0, 50), false), "the same again");
        assert!(!stream.is_reused_by(&segment(9, 0, flag::SYN | flag::ACK, 0, 50), true));
    }
}
