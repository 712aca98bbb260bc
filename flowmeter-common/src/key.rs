//! Which flow does a packet belong to?

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::packet::Packet;

/// The identity of a bidirectional flow (biflow, RFC 5103), the same for both directions: the two
/// ends in a fixed order, `low` before `high`.
///
/// As `NFStream`'s, it has addresses, ports, protocol, VLAN and tunnel. It also has what keeps
/// strangers apart: the IP version, the outer VLAN, the VXLAN/GENEVE network and the interface.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowKey {
    /// Address of the low end, as in [`Packet::src`].
    pub low: [u32; 4],
    /// Address of the high end.
    pub high: [u32; 4],
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

impl FlowKey {
    /// The key of `p` on `interface`, written into `self`, and whether the packet's source is the
    /// high end. A packet between one end and itself has its source at the low end.
    #[inline(always)]
    pub fn set(&mut self, p: &Packet, interface: u8) -> bool {
        let from_high = is_above(p);
        if from_high {
            self.low = p.dst;
            self.high = p.src;
            self.low_port = p.dst_port;
            self.high_port = p.src_port;
        } else {
            self.low = p.src;
            self.high = p.dst;
            self.low_port = p.src_port;
            self.high_port = p.dst_port;
        }
        self.vni = p.vni;
        self.vlan = p.vlan;
        self.outer_vlan = p.outer_vlan;
        self.protocol = p.protocol;
        self.ip_version = p.ip_version;
        self.tunnel = p.tunnel;
        self.interface = interface;
        from_high
    }

    /// Whether `other` is the same key. Without a `memcmp`, which BPF has only as a loop.
    #[inline(always)]
    pub fn same(&self, other: &Self) -> bool {
        let [a0, a1, a2, a3] = self.low;
        let [b0, b1, b2, b3] = other.low;
        let [c0, c1, c2, c3] = self.high;
        let [d0, d1, d2, d3] = other.high;
        let addresses = (a0 ^ b0)
            | (a1 ^ b1)
            | (a2 ^ b2)
            | (a3 ^ b3)
            | (c0 ^ d0)
            | (c1 ^ d1)
            | (c2 ^ d2)
            | (c3 ^ d3);
        let words = (self.low_port ^ other.low_port)
            | (self.high_port ^ other.high_port)
            | (self.vlan ^ other.vlan)
            | (self.outer_vlan ^ other.outer_vlan);
        let bytes = (self.protocol ^ other.protocol)
            | (self.ip_version ^ other.ip_version)
            | (self.tunnel ^ other.tunnel)
            | (self.interface ^ other.interface);
        addresses | (self.vni ^ other.vni) | u32::from(words) | u32::from(bytes) == 0
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
    let [s0, s1, s2, s3] = p.src;
    let [d0, d1, d2, d3] = p.dst;
    if s0 != d0 {
        return s0 > d0;
    }
    if s1 != d1 {
        return s1 > d1;
    }
    if s2 != d2 {
        return s2 > d2;
    }
    if s3 != d3 {
        return s3 > d3;
    }
    p.src_port > p.dst_port
}
