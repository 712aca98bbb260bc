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
}

/// What the first fragment tells the later ones.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Ports {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
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
    }
}

/// Datagrams whose fragments are followed at a time; beyond, the least recently used is forgotten.
pub const MAX_DATAGRAMS: usize = 4096;
