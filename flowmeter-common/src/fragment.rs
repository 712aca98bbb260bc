//! How do later fragments find the flow of the first?

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::packet::{Address, Packet};

/// What identifies a datagram's fragments (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Identification.
    pub id: u32,
    /// Innermost VLAN id.
    pub vlan: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Number of the interface among those metered.
    pub interface: u8,
    /// Network identifier of the tunnel it came in; 0 without.
    pub vni: u32,
    /// Outermost VLAN id of several, else 0.
    pub outer_vlan: u16,
    /// The tunnel it came in; 0 for none.
    pub tunnel: u8,
    /// Zero.
    pub reserved: u8,
}

/// What the first fragment tells the later ones.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Ports {
    /// When the first fragment was seen, by the meter's clock; ns.
    pub time_ns: u64,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Zero.
    pub reserved: [u8; 4],
}

/// A datagram's fragments come within this time, as long as Linux waits for them
/// (`ipfrag_time`), or are another's with the same identification; ns.
pub const MAX_AGE_NS: u64 = 30_000_000_000;

impl Ports {
    /// The ports of a first fragment seen at `time_ns`.
    #[inline(always)]
    pub fn of(p: &Packet, time_ns: u64) -> Self {
        Self { time_ns, src_port: p.src_port, dst_port: p.dst_port, reserved: [0; 4] }
    }

    /// Whether they may be those of a fragment seen at `now_ns`.
    #[inline(always)]
    pub fn hold(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.time_ns) <= MAX_AGE_NS
    }
}

impl FragmentKey {
    /// The key of the fragment `p`, written into `self`.
    #[inline(always)]
    pub fn set(&mut self, p: &Packet, interface: u8) {
        self.src = p.src;
        self.dst = p.dst;
        self.id = p.fragment_id;
        self.vlan = p.vlan;
        self.protocol = p.protocol;
        self.interface = interface;
        self.vni = p.vni;
        self.outer_vlan = p.outer_vlan;
        self.tunnel = p.tunnel;
        self.reserved = 0;
    }
}

/// Datagrams whose fragments are followed at a time; beyond, the least recently used is forgotten.
pub const MAX_DATAGRAMS: usize = 4096;
