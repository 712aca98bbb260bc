//! What do the packets of a test look like?
//!
//! A packet is described from the inside out: transport, ends and payload first, then what is
//! around it, each call outside of those before.
//!
//! ```
//! use flowmeter_tests::packets::tcp;
//!
//! let frame = tcp().syn().from("10.0.0.1:1234").to("10.0.0.2:80").vlan(5).in_vxlan(7).build();
//! ```
//!
//! Lengths are right unless [`Builder::claiming`] says otherwise. Checksums are 0: nothing that is
//! tested here looks at them. [`strategies`] makes arbitrary ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use flowmeter_common::link::ethertype;
use flowmeter_common::packet::protocol;
use flowmeter_common::tcp as flag;

// The path is spelled out because `flowmeter-common`'s tests include this file by its path.
#[path = "packets/strategies.rs"]
pub mod strategies;

/// A TCP segment.
pub fn tcp() -> Builder {
    Builder::new(Transport::Tcp {
        flags: 0,
        options: 0,
    })
}

/// A UDP datagram.
pub fn udp() -> Builder {
    Builder::new(Transport::Udp)
}

/// An ICMP message.
pub fn icmp(kind: u8, code: u8) -> Builder {
    Builder::new(Transport::Icmp(protocol::ICMP, kind, code))
}

/// An `ICMPv6` message.
pub fn icmpv6(kind: u8, code: u8) -> Builder {
    Builder::new(Transport::Icmp(protocol::ICMPV6, kind, code))
}

/// An SCTP packet.
pub fn sctp() -> Builder {
    Builder::new(Transport::Sctp)
}

/// A packet of another IP protocol, without a transport header of its own.
pub fn other(protocol: u8) -> Builder {
    Builder::new(Transport::Other(protocol))
}

/// A packet to be.
#[derive(Clone, Debug)]
pub struct Builder {
    transport: Transport,
    source: SocketAddr,
    target: SocketAddr,
    payload: Vec<u8>,
    ip_options: u8,
    extensions: Vec<(u8, u8)>,
    fragment: Option<Fragment>,
    claimed: Option<u16>,
    around: Vec<Around>,
    padded: bool,
    cut: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp { flags: u8, options: u8 },
    Udp,
    Icmp(u8, u8, u8),
    Sctp,
    Other(u8),
}

#[derive(Clone, Copy, Debug)]
struct Fragment {
    id: u32,
    offset: u16,
    more: bool,
}

/// What can be around a packet.
#[derive(Clone, Copy, Debug)]
pub enum Around {
    /// A tag: its ethertype and its control field.
    Tag(u16, u16),
    /// A label stack of this depth.
    Mpls(usize),
    /// A label stack of this depth and the control word of an Ethernet pseudowire.
    Pseudowire(usize),
    /// A `PPPoE` session.
    Pppoe,
    /// LLC and SNAP in an 802.3 frame.
    Snap,
    /// An Ethernet header, even where none is needed.
    Ethernet,
    /// IP in IP.
    Ip(Over),
    /// GTP-U with the extension headers of this number.
    GtpU(Over, u8),
    /// CAPWAP data of an Ethernet frame.
    Capwap(Over),
    /// CAPWAP data of an 802.11 frame.
    CapwapWifi(Over),
    /// TZSP with tags of this number.
    Tzsp(Over, u8),
    /// VXLAN of this network.
    Vxlan(Over, u32),
    /// GENEVE of this network, with options of so many words.
    Geneve(Over, u32, u8),
    /// GRE with these flags (0x80 checksum, 0x20 key, 0x10 sequence number).
    Gre(Over, u8),
    /// ERSPAN of type 1, 2 or 3.
    Erspan(Over, u8),
    /// Teredo, with authentication and origin indication or without.
    Teredo(Over, bool, bool),
}

/// The IP version that a tunnel runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// IPv4, from 192.0.2.1 to 192.0.2.2.
    V4,
    /// IPv6, from `2001:db8:ffff::1` to `2001:db8:ffff::2`.
    V6,
}

impl Builder {
    fn new(transport: Transport) -> Self {
        Self {
            transport,
            source: SocketAddr::from(([10, 0, 0, 1], 0)),
            target: SocketAddr::from(([10, 0, 0, 2], 0)),
            payload: Vec::new(),
            ip_options: 0,
            extensions: Vec::new(),
            fragment: None,
            claimed: None,
            around: Vec::new(),
            padded: false,
            cut: None,
        }
    }

    /// Sets the sender: `10.0.0.1:1234`, `[2001:db8::1]:1234`, or an address alone.
    #[must_use]
    pub fn from(mut self, end: &str) -> Self {
        self.source = parse(end);
        self
    }

    /// Sets the recipient, as [`Self::from`].
    #[must_use]
    pub fn to(mut self, end: &str) -> Self {
        self.target = parse(end);
        self
    }

    /// Sets both ends.
    #[must_use]
    pub fn between(mut self, source: SocketAddr, target: SocketAddr) -> Self {
        self.source = source;
        self.target = target;
        self
    }

    /// Turns the packet round: what was the sender is the recipient.
    #[must_use]
    pub fn back(mut self) -> Self {
        std::mem::swap(&mut self.source, &mut self.target);
        self
    }

    /// Adds TCP flags.
    #[must_use]
    pub fn flags(mut self, more: u8) -> Self {
        if let Transport::Tcp { flags, .. } = &mut self.transport {
            *flags |= more;
        }
        self
    }

    /// Sets SYN.
    #[must_use]
    pub fn syn(self) -> Self {
        self.flags(flag::SYN)
    }

    /// Sets ACK.
    #[must_use]
    pub fn ack(self) -> Self {
        self.flags(flag::ACK)
    }

    /// Sets PSH.
    #[must_use]
    pub fn psh(self) -> Self {
        self.flags(flag::PSH)
    }

    /// Sets FIN.
    #[must_use]
    pub fn fin(self) -> Self {
        self.flags(flag::FIN)
    }

    /// Sets RST.
    #[must_use]
    pub fn rst(self) -> Self {
        self.flags(flag::RST)
    }

    /// Sets CWR.
    #[must_use]
    pub fn cwr(self) -> Self {
        self.flags(flag::CWR)
    }

    /// Adds TCP options of so many words of 4 bytes, at most 10.
    #[must_use]
    pub fn tcp_options(mut self, words: u8) -> Self {
        if let Transport::Tcp { options, .. } = &mut self.transport {
            *options = words;
        }
        self
    }

    /// Gives the packet a payload of so many bytes.
    #[must_use]
    pub fn payload(self, bytes: usize) -> Self {
        let pattern = (0..bytes).map(|i| i as u8).collect();
        self.body(pattern)
    }

    /// Gives the packet this payload.
    #[must_use]
    pub fn body(mut self, payload: Vec<u8>) -> Self {
        self.payload = payload;
        self
    }

    /// Adds IPv4 options of so many words of 4 bytes, at most 10.
    #[must_use]
    pub fn ip_options(mut self, words: u8) -> Self {
        self.ip_options = words;
        self
    }

    /// Adds an IPv6 extension header: its number, and how many units of 8 bytes it has beyond the
    /// first.
    #[must_use]
    pub fn extension(mut self, header: u8, units: u8) -> Self {
        self.extensions.push((header, units));
        self
    }

    /// Makes this a fragment: with the payload alone, unless `offset` is 0.
    #[must_use]
    pub fn fragment(mut self, id: u32, offset: u16, more: bool) -> Self {
        self.fragment = Some(Fragment { id, offset, more });
        self
    }

    /// Lets the IP header claim another length: IPv4's total, IPv6's payload.
    #[must_use]
    pub fn claiming(mut self, length: u16) -> Self {
        self.claimed = Some(length);
        self
    }

    /// Puts the packet in something.
    #[must_use]
    pub fn within(mut self, around: Around) -> Self {
        self.around.push(around);
        self
    }

    /// Adds an 802.1Q tag.
    #[must_use]
    pub fn vlan(self, id: u16) -> Self {
        self.within(Around::Tag(ethertype::VLAN, id))
    }

    /// Adds an 802.1ad tag.
    #[must_use]
    pub fn service_vlan(self, id: u16) -> Self {
        self.within(Around::Tag(ethertype::SERVICE_VLAN, id))
    }

    /// Adds a label stack.
    #[must_use]
    pub fn mpls(self, labels: usize) -> Self {
        self.within(Around::Mpls(labels))
    }

    /// Puts the packet in a VXLAN over IPv4.
    #[must_use]
    pub fn in_vxlan(self, vni: u32) -> Self {
        self.within(Around::Vxlan(Over::V4, vni))
    }

    /// Puts the packet in GTP-U over IPv4.
    #[must_use]
    pub fn in_gtp_u(self) -> Self {
        self.within(Around::GtpU(Over::V4, 0))
    }

    /// Pads the frame to Ethernet's 60 bytes.
    #[must_use]
    pub fn padded(mut self) -> Self {
        self.padded = true;
        self
    }

    /// Cuts the frame after so many bytes.
    #[must_use]
    pub fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    /// The frame's bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut layer = self.ip_packet();
        for around in &self.around {
            layer = around.wrap(layer);
        }
        let mut frame = layer.ethernet().bytes;
        if self.padded {
            frame.resize(frame.len().max(60), 0);
        }
        if let Some(cut) = self.cut {
            frame.truncate(cut);
        }
        frame
    }

    fn ip_packet(&self) -> Layer {
        let (protocol, transport) = self.transport();
        match (self.source.ip(), self.target.ip()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                self.ipv4(source, target, protocol, &transport)
            }
            (source, target) => self.ipv6(to_v6(source), to_v6(target), protocol, transport),
        }
    }

    /// Protocol number, and header with payload.
    fn transport(&self) -> (u8, Vec<u8>) {
        let [s0, s1] = self.source.port().to_be_bytes();
        let [d0, d1] = self.target.port().to_be_bytes();
        let length = self.payload.len();
        let (protocol, header) = match self.transport {
            Transport::Tcp { flags, options } => {
                let offset = (5 + options) << 4;
                let mut h = vec![s0, s1, d0, d1, 0, 0, 0, 1, 0, 0, 0, 2, offset, flags, 16, 0];
                h.resize(20 + usize::from(options) * 4, 0);
                (protocol::TCP, h)
            }
            Transport::Udp => {
                let [l0, l1] = (length as u16 + 8).to_be_bytes();
                (protocol::UDP, vec![s0, s1, d0, d1, l0, l1, 0, 0])
            }
            Transport::Icmp(protocol, kind, code) => (protocol, vec![kind, code, 0, 0, 0, 1, 0, 1]),
            Transport::Sctp => (protocol::SCTP, vec![s0, s1, d0, d1, 0, 0, 0, 1, 0, 0, 0, 0]),
            Transport::Other(protocol) => (protocol, Vec::new()),
        };
        let later = self.fragment.is_some_and(|f| f.offset > 0);
        let header = if later { Vec::new() } else { header };
        (protocol, [header, self.payload.clone()].concat())
    }

    fn ipv4(&self, source: Ipv4Addr, target: Ipv4Addr, protocol: u8, data: &[u8]) -> Layer {
        let header = 20 + usize::from(self.ip_options) * 4;
        let mut h = ipv4_header(source, target, protocol, header + data.len());
        h[0] = 0x40 | (5 + self.ip_options);
        if let Some(total) = self.claimed {
            h[2..4].copy_from_slice(&total.to_be_bytes());
        }
        if let Some(f) = self.fragment {
            let field = f.offset >> 3 | if f.more { 0x2000 } else { 0 };
            h[4..6].copy_from_slice(&(f.id as u16).to_be_bytes());
            h[6..8].copy_from_slice(&field.to_be_bytes());
        }
        h.resize(header, 1); // "no operation"
        Layer {
            bytes: [&h, data].concat(),
            kind: ethertype::IPV4,
            source: source.into(),
            target: target.into(),
        }
    }

    fn ipv6(&self, source: Ipv6Addr, target: Ipv6Addr, protocol: u8, data: Vec<u8>) -> Layer {
        let mut next = protocol;
        let mut data = data;
        if let Some(f) = self.fragment {
            let [o0, o1] = (f.offset & !7 | u16::from(f.more)).to_be_bytes();
            let [i0, i1, i2, i3] = f.id.to_be_bytes();
            data = [vec![next, 0, o0, o1, i0, i1, i2, i3], data].concat();
            next = 44;
        }
        for &(header, units) in self.extensions.iter().rev() {
            let mut h = vec![next, units];
            h.resize(8 + usize::from(units) * 8, 0);
            data = [h, data].concat();
            next = header;
        }
        let mut h = ipv6_header(source, target, next, data.len());
        if let Some(length) = self.claimed {
            h[4..6].copy_from_slice(&length.to_be_bytes());
        }
        Layer {
            bytes: [h, data].concat(),
            kind: ethertype::IPV6,
            source: source.into(),
            target: target.into(),
        }
    }
}

fn parse(end: &str) -> SocketAddr {
    end.parse()
        .or_else(|_| end.parse().map(|ip: IpAddr| SocketAddr::new(ip, 0)))
        .unwrap_or_else(|_| panic!("`{end}` is neither an address with a port nor one without"))
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn ipv4_header(source: Ipv4Addr, target: Ipv4Addr, protocol: u8, total: usize) -> Vec<u8> {
    let [l0, l1] = (total as u16).to_be_bytes();
    let mut h = vec![0x45, 0, l0, l1, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    h.extend(source.octets());
    h.extend(target.octets());
    h
}

fn ipv6_header(source: Ipv6Addr, target: Ipv6Addr, next: u8, payload: usize) -> Vec<u8> {
    let [l0, l1] = (payload as u16).to_be_bytes();
    let mut h = vec![0x60, 0, 0, 0, l0, l1, next, 64];
    h.extend(source.octets());
    h.extend(target.octets());
    h
}

/// A packet with what is around it so far.
struct Layer {
    bytes: Vec<u8>,
    /// The ethertype that announces it.
    kind: u16,
    source: IpAddr,
    target: IpAddr,
}

impl Layer {
    /// The same behind `header`, as `kind`.
    fn behind(mut self, header: impl Into<Vec<u8>>, kind: u16) -> Self {
        let mut bytes = header.into();
        bytes.append(&mut self.bytes);
        Self {
            bytes,
            kind,
            ..self
        }
    }

    /// The same as an Ethernet frame, if it is not one yet.
    fn ethernet(self) -> Self {
        if self.kind == ethertype::ETHERNET {
            return self;
        }
        let [k0, k1] = self.kind.to_be_bytes();
        let header = [&mac(self.target)[..], &mac(self.source), &[k0, k1]].concat();
        self.behind(header, ethertype::ETHERNET)
    }

    /// The same as an 802.11 data frame from a station to its access point.
    fn wifi(self) -> Vec<u8> {
        let (source, target) = (mac(self.source), mac(self.target));
        let [k0, k1] = self.kind.to_be_bytes();
        let header = [
            &[0x08, 0x01, 0, 0][..],
            &[2, 0, 0, 0, 0, 0xaa],
            &source,
            &target,
            &[0, 0],
            &[0xaa, 0xaa, 3, 0, 0, 0, k0, k1],
        ];
        [header.concat(), self.bytes].concat()
    }

    /// The same in an IP packet.
    fn in_ip(self, over: Over, protocol: u8) -> Self {
        let length = self.bytes.len();
        match over {
            Over::V4 => {
                let (source, target) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
                Self {
                    source: source.into(),
                    target: target.into(),
                    ..self.behind(
                        ipv4_header(source, target, protocol, length + 20),
                        ethertype::IPV4,
                    )
                }
            }
            Over::V6 => {
                let end = |n| Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, n);
                let (source, target) = (end(1), end(2));
                Self {
                    source: source.into(),
                    target: target.into(),
                    ..self.behind(
                        ipv6_header(source, target, protocol, length),
                        ethertype::IPV6,
                    )
                }
            }
        }
    }

    /// The same in a UDP datagram.
    fn in_udp(self, over: Over, source: u16, target: u16) -> Self {
        let length = self.bytes.len() as u16 + 8;
        let header = [source, target, length, 0].map(u16::to_be_bytes).concat();
        let kind = self.kind;
        self.behind(header, kind).in_ip(over, protocol::UDP)
    }
}

/// A MAC address that belongs to an IP address.
fn mac(address: IpAddr) -> [u8; 6] {
    let [.., a, b, c, d] = to_v6(address).octets();
    [2, 0, a, b, c, d]
}

impl Around {
    fn wrap(self, inner: Layer) -> Layer {
        let kind = inner.kind;
        let [k0, k1] = kind.to_be_bytes();
        match self {
            Self::Tag(tpid, control) => {
                let [t0, t1] = control.to_be_bytes();
                inner.behind([t0, t1, k0, k1], tpid)
            }
            Self::Mpls(labels) => inner.behind(label_stack(labels), ethertype::MPLS),
            Self::Pseudowire(labels) => {
                let header = [label_stack(labels), vec![0; 4]].concat();
                inner.ethernet().behind(header, ethertype::MPLS)
            }
            Self::Pppoe => {
                let [l0, l1] = (inner.bytes.len() as u16 + 2).to_be_bytes();
                let [p0, p1] = match kind {
                    ethertype::IPV4 => [0, 0x21],
                    ethertype::IPV6 => [0, 0x57],
                    _ => [0xc0, 0x21],
                };
                inner.behind([0x11, 0, 0, 1, l0, l1, p0, p1], ethertype::PPPOE)
            }
            Self::Snap => {
                let length = inner.bytes.len() as u16 + 8;
                inner.behind([0xaa, 0xaa, 3, 0, 0, 0, k0, k1], length)
            }
            Self::Ethernet => inner.ethernet(),
            Self::Ip(over) => match kind {
                ethertype::IPV4 => inner.in_ip(over, protocol::IPV4),
                ethertype::IPV6 => inner.in_ip(over, protocol::IPV6),
                _ => inner,
            },
            Self::GtpU(over, extensions) => {
                let length = inner.bytes.len() as u16;
                inner
                    .behind(gtp_u_header(extensions, length), kind)
                    .in_udp(over, 2152, 2152)
            }
            Self::Capwap(over) => inner
                .ethernet()
                .behind([0, 0x10, 0, 0, 0, 0, 0, 0], 0)
                .in_udp(over, 40000, 5247),
            Self::CapwapWifi(over) => {
                let (source, target) = (inner.source, inner.target);
                let bytes = inner.wifi();
                Layer {
                    bytes,
                    kind: 0,
                    source,
                    target,
                }
                .behind([0, 0x10, 1, 0, 0, 0, 0, 0], 0)
                .in_udp(over, 5247, 40000)
            }
            Self::Tzsp(over, tags) => {
                let mut header = vec![1, 0, 0, 1];
                for tag in 0..tags {
                    header.extend([0x28 + tag, 2, 0, 0]);
                }
                header.push(1);
                inner
                    .ethernet()
                    .behind(header, 0)
                    .in_udp(over, 40000, 37008)
            }
            Self::Vxlan(over, vni) => {
                let [_, v0, v1, v2] = vni.to_be_bytes();
                inner
                    .ethernet()
                    .behind([8, 0, 0, 0, v0, v1, v2, 0], 0)
                    .in_udp(over, 50000, 4789)
            }
            Self::Geneve(over, vni, options) => {
                let [_, v0, v1, v2] = vni.to_be_bytes();
                let mut header = vec![options & 0x3f, 0, k0, k1, v0, v1, v2, 0];
                header.resize(8 + usize::from(options & 0x3f) * 4, 0);
                inner.behind(header, 0).in_udp(over, 50000, 6081)
            }
            Self::Gre(over, flags) => {
                let mut header = vec![flags, 0, k0, k1];
                header.resize(4 + (flags & 0xb0).count_ones() as usize * 4, 0);
                inner.behind(header, 0).in_ip(over, protocol::GRE)
            }
            Self::Erspan(over, kind) => {
                let mut header = match kind {
                    1 => vec![0, 0, 0x88, 0xbe],
                    2 => vec![0x10, 0, 0x88, 0xbe, 0, 0, 0, 1],
                    _ => vec![0x10, 0, 0x22, 0xeb, 0, 0, 0, 1],
                };
                let own = [0, 0, 8, 12];
                header.resize(header.len() + own.get(usize::from(kind)).unwrap_or(&12), 0);
                inner
                    .ethernet()
                    .behind(header, 0)
                    .in_ip(over, protocol::GRE)
            }
            Self::Teredo(over, authenticated, origin) => {
                let mut header = Vec::new();
                if authenticated {
                    // Client id and authentication value of 4 bytes each, nonce, confirmation.
                    header.extend([0, 1, 4, 4]);
                    header.resize(4 + 4 + 4 + 9, 0);
                }
                if origin {
                    header.extend([0, 0, 1, 2, 3, 4, 5, 6]);
                }
                inner.behind(header, 0).in_udp(over, 50000, 3544)
            }
        }
    }
}

fn label_stack(labels: usize) -> Vec<u8> {
    let mut bytes = [0, 1, 0, 64].repeat(labels);
    if let Some(bottom) = bytes.iter_mut().rev().nth(1) {
        *bottom |= 1;
    }
    bytes
}

fn gtp_u_header(extensions: u8, payload: u16) -> Vec<u8> {
    let flags = if extensions > 0 { 0x34 } else { 0x30 };
    let [l0, l1] = payload.to_be_bytes();
    let mut header = vec![flags, 0xff, l0, l1, 0, 0, 0, 1];
    if extensions > 0 {
        header.extend([0, 0, 0, 0x85]);
    }
    for left in (0..extensions).rev() {
        header.extend([1, 0, 0, if left > 0 { 0x85 } else { 0 }]);
    }
    header
}
