//! Which flow does a packet belong to?

use core::hash::{Hash, Hasher};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::packet::{Address, Packet};

/// The identity of a bidirectional flow (biflow, RFC 5103), the same for both directions: the two
/// ends in a fixed order, `low` before `high`.
///
/// As `NFStream`'s, it has addresses, ports, protocol, VLAN and tunnel. It also has what keeps
/// strangers apart: the IP version, the outer VLAN, the VXLAN/GENEVE network and the interface.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowKey {
    /// Address of the low end, as in [`Packet::src`].
    pub low: Address,
    /// Address of the high end.
    pub high: Address,
    /// VXLAN or GENEVE network identifier.
    pub vni: u32,
    /// Port of the low end, host byte order.
    pub low_port: u16,
    /// Port of the high end, host byte order.
    pub high_port: u16,
    /// Innermost VLAN id.
    pub vlan: u16,
    /// Outermost VLAN id of a frame with several tags.
    pub outer_vlan: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Tunnel kind, see [`crate::tunnel`].
    pub tunnel: u8,
    /// Number of the interface among those metered; 0 offline.
    pub interface: u8,
}

const _: () = assert!(size_of::<FlowKey>() == 48);

/// In words: field by field it takes longer than all else in a table.
impl Hash for FlowKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let words: &[u64; 6] = zerocopy::transmute_ref!(self);
        for word in words {
            state.write_u64(*word);
        }
    }
}

impl FlowKey {
    /// The key of `p` on `interface`, written into `self`, and whether the packet's source is the
    /// high end. A packet between one end and itself has its source at the low end.
    #[inline(always)]
    pub fn set(&mut self, p: &Packet, interface: u8) -> bool {
        let from_high = is_above(p);
        let ([low0, low1], [high0, high1]) =
            if from_high { (p.dst, p.src) } else { (p.src, p.dst) };
        let (low_port, high_port) =
            if from_high { (p.dst_port, p.src_port) } else { (p.src_port, p.dst_port) };
        let ports = join(low_port, high_port);
        let tags = join(p.vlan, p.outer_vlan);
        let kinds = u32::from_ne_bytes([p.protocol, p.ip_version, p.tunnel, interface]);
        // In words of eight bytes, as the map and `same` read it.
        *self = zerocopy::transmute!([
            low0,
            low1,
            high0,
            high1,
            join_words(p.vni, ports),
            join_words(tags, kinds),
        ]);
        from_high
    }

    /// Whether `other` is the same key. Without a `memcmp`, which BPF has only as a loop.
    #[inline(always)]
    pub fn same(&self, other: &Self) -> bool {
        let [a0, a1, a2, a3, a4, a5]: &[u64; 6] = zerocopy::transmute_ref!(self);
        let [b0, b1, b2, b3, b4, b5]: &[u64; 6] = zerocopy::transmute_ref!(other);
        (a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2) | (a3 ^ b3) | (a4 ^ b4) | (a5 ^ b5) == 0
    }

    /// A number that spreads pairs of hosts evenly, the same on every machine: for sharing flows
    /// out.
    #[inline]
    pub fn spread_hosts(&self) -> u64 {
        let ([a, b], [c, d]) = (self.low, self.high);
        let mix =
            |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let sum = [a, b, c, d].into_iter().fold(0, mix).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sum ^ sum >> 32
    }

    /// As [`Self::set`], by value.
    #[inline]
    pub fn of(p: &Packet, interface: u8) -> (Self, bool) {
        let mut key = Self::default();
        let from_high = key.set(p, interface);
        (key, from_high)
    }
}

/// Whether the packet's source (address, port) stands above its destination. Any total order
/// serves, so words are compared as loaded.
#[inline(always)]
fn is_above(p: &Packet) -> bool {
    let ([s0, s1], [d0, d1]) = (p.src, p.dst);
    if s0 != d0 {
        return s0 > d0;
    }
    if s1 != d1 {
        return s1 > d1;
    }
    p.src_port > p.dst_port
}

/// Two halves as they stand in memory, the first one first.
#[inline(always)]
fn join(first: u16, second: u16) -> u32 {
    zerocopy::transmute!([first, second])
}

/// Two halves as they stand in memory, the first one first.
#[inline(always)]
fn join_words(first: u32, second: u32) -> u64 {
    zerocopy::transmute!([first, second])
}
