//! What does the parser say about a frame?

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address as it stands in the packet: network byte order, loaded as native words. An IPv4
/// address fills the first four bytes in memory and leaves the rest zero.
///
/// Words of one size throughout, since a load that spans several stores has to wait for them.
pub type Address = [u64; 2];

/// The address with these bytes.
#[inline(always)]
pub fn ipv4_address(bytes: [u8; 4]) -> Address {
    let [a, b, c, d] = bytes;
    [u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]), 0]
}

/// A metered packet: who sends to whom, how large it is on each layer, and what its headers say.
///
/// Addresses are kept as they stand in the packet, see [`Address`]. `src` and `dst` are the packet's
/// direction, not the flow's.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Packet {
    /// Source address of the innermost IP header.
    pub src: Address,
    /// Destination address of the innermost IP header.
    pub dst: Address,
    /// Size in bytes by [`Layer`]. Of a super-packet: of its last segment.
    pub sizes: [u32; 4],
    /// Size by layer of each segment of a super-packet but the last; zeros otherwise.
    pub segment_sizes: [u32; 4],
    /// How many packets this is on the wire: 1, or more for a GSO/GRO super-packet.
    pub segments: u32,
    /// VXLAN or GENEVE network identifier (24 bits), 0 without.
    pub vni: u32,
    /// IPv4 identification or IPv6 fragment identification, of fragments only.
    pub fragment_id: u32,
    /// Where the innermost IP header starts, in bytes from the frame's start.
    pub network_offset: u16,
    /// Where the transport payload starts, in bytes from the frame's start; 0 if unknown.
    pub payload_offset: u16,
    /// Source port, in host byte order; 0 for protocols without.
    pub src_port: u16,
    /// Destination port, in host byte order; 0 for protocols without.
    pub dst_port: u16,
    /// Innermost 802.1Q VLAN id (12 bits), 0 for untagged and priority-tagged frames.
    pub vlan: u16,
    /// Outermost VLAN id of a frame with several tags (802.1ad, Q-in-Q), else 0.
    pub outer_vlan: u16,
    /// Source MAC address, zeros on links without.
    pub src_mac: [u8; 6],
    /// Destination MAC address, zeros on links without.
    pub dst_mac: [u8; 6],
    /// IP protocol number of the innermost header, after IPv6 extension headers.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Which tunnel was decoded, see [`crate::tunnel`]; 0 for none.
    pub tunnel: u8,
    /// TCP flags, byte 13 of the header (RFC 9293 §3.1); 0 for other protocols.
    pub tcp_flags: u8,
    /// ICMP or `ICMPv6` type; 0 for other protocols.
    pub icmp_type: u8,
    /// ICMP or `ICMPv6` code; 0 for other protocols.
    pub icmp_code: u8,
    /// [`FRAGMENT_NONE`], [`FRAGMENT_FIRST`] or [`FRAGMENT_LATER`].
    pub fragment: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

impl Packet {
    /// Whether the kernel itself sends such packets of ICMP: answers, errors, neighbour discovery.
    /// What asks (RFC 792, RFC 950, RFC 4443, RFC 4620) programs send alone.
    pub fn is_kernels(&self) -> bool {
        match self.protocol {
            protocol::ICMP => !matches!(self.icmp_type, 8 | 13 | 15 | 17),
            protocol::ICMPV6 => !matches!(self.icmp_type, 128 | 139),
            _ => false,
        }
    }

    /// Bytes on the wire, of all segments.
    #[inline(always)]
    pub fn link_bytes(&self) -> u64 {
        let ([last, ..], [full, ..]) = (self.sizes, self.segment_sizes);
        u64::from(full) * u64::from(self.segments.saturating_sub(1)) + u64::from(last)
    }
}

const _: () = assert!(size_of::<Packet>() == 112);

/// Not a fragment, or an IPv6 atomic fragment (RFC 6946).
pub const FRAGMENT_NONE: u8 = 0;
/// The fragment at offset 0, which has the transport header.
pub const FRAGMENT_FIRST: u8 = 1;
/// A fragment at another offset: its ports are those of the first.
pub const FRAGMENT_LATER: u8 = 2;

/// Protocol numbers that the meter looks into.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213).
    pub const IPV6: u8 = 41;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 47;
    /// `ICMPv6`.
    pub const ICMPV6: u8 = 58;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
    /// UDP-Lite (RFC 3828).
    pub const UDP_LITE: u8 = 136;
}

/// The layers at which sizes are kept, in the order of `NFStream`'s `accounting_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Layer {
    /// The whole frame as on the wire, without preamble and frame check sequence.
    Link = 0,
    /// The innermost IP packet with its header.
    Ip = 1,
    /// From the transport header on.
    Transport = 2,
    /// What the transport header carries.
    Payload = 3,
}

/// Why a frame is not metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reject {
    /// Neither IPv4 nor IPv6: ARP, LLDP, spanning tree, PPP control, …
    NonIp = 1,
    /// The capture ends inside a header that is needed.
    Truncated = 2,
    /// A header contradicts itself, e.g. an IPv4 header length below 20.
    Malformed = 3,
    /// IPv6 "no next header" (59): there is no transport.
    NoNextHeader = 4,
    /// More tags, labels, extension headers or tunnels than the parser follows, or headers beyond
    /// [`MAX_HEADERS`](crate::bytes::MAX_HEADERS).
    TooDeep = 5,
}

impl Reject {
    /// The reason with this number, as [`Reject`] `as u8` gives it.
    pub fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::NonIp,
            2 => Self::Truncated,
            3 => Self::Malformed,
            4 => Self::NoNextHeader,
            5 => Self::TooDeep,
            _ => return None,
        })
    }
}
