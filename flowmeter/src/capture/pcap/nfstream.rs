//! What does NFStream 6.6.0 make of a frame?
//!
//! For `--compat nfstream` only. It reproduces, by its observed behaviour, what the parser proper
//! does otherwise: unknown ethertypes taken for IP, sizes of 16 bits, IPv6 lost in truncated
//! captures, later fragments ignored, one level of three tunnels. `docs/compat.md` lists it all.

use flowmeter_common::packet::{Address, FRAGMENT_NONE, Packet, ipv4_address, protocol};

/// The captured bytes; beyond them are zeros (NFStream reads whatever memory follows).
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u8(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.u8(at), self.u8(at + 1)])
    }

    fn mac(&self, at: usize) -> [u8; 6] {
        std::array::from_fn(|i| self.u8(at + i))
    }

    fn ipv4(&self, at: usize) -> Address {
        ipv4_address(std::array::from_fn(|i| self.u8(at + i)))
    }

    fn ipv6(&self, at: usize) -> Address {
        let word = |at| u64::from_ne_bytes(std::array::from_fn(|i| self.u8(at + i)));
        [word(at), word(at + 8)]
    }
}

/// What has been found before the IP header that counts.
#[derive(Default)]
struct Found {
    src_mac: [u8; 6],
    dst_mac: [u8; 6],
    vlan: u16,
    tunnel: u8,
    /// Fragment field and protocol, taken only where the type is IPv4: else those of the header
    /// before stay.
    fragment: u16,
    next: u8,
}

/// The packet of a frame, `None` if NFStream ignores it.
pub fn parse(bytes: &[u8], wire: u32, link: i32, decode_tunnels: bool) -> Option<Packet> {
    let b = Bytes(bytes);
    let cap = bytes.len();
    let mut found = Found::default();
    let (mut at, mut kind) = link_header(&b, cap, 0, link, &mut found)?;
    let (version, offset) = loop {
        match ip_header(&b, cap, at, kind, &mut found)? {
            Ip::Inner(inner) => at = inner,
            Ip::Udp { version, transport } if decode_tunnels => {
                match tunnel(&b, cap, transport, &mut found)? {
                    Inside::Nothing => break (version, at),
                    Inside::Ip(inner, version) => break (version, inner),
                    Inside::Ethernet(inner) => {
                        (at, kind) = link_header(&b, cap, inner, link, &mut found)?;
                    }
                    Inside::Typed(inner, ethertype) => (at, kind) = (inner, ethertype),
                }
            }
            Ip::Udp { version, .. } | Ip::Other { version } => break (version, at),
        }
    };
    packet(&b, cap, version, offset, wire, &found)
}

/// Where the network layer starts, and the ethertype that is said to be there.
fn link_header(
    b: &Bytes<'_>,
    cap: usize,
    start: usize,
    link: i32,
    found: &mut Found,
) -> Option<(usize, u16)> {
    if cap < start + 28 {
        return None;
    }
    let (at, kind) = match link {
        1 => {
            found.dst_mac = b.mac(start);
            found.src_mac = b.mac(start + 6);
            let at = start + 14;
            match b.u16(start + 12) {
                1..=1500 => {
                    if b.u8(at) == 0xaa || b.u8(at + 1) == 0xaa {
                        // The type is taken byte-swapped, so it is never IP, VLAN, …
                        (at + 8, b.u16(at + 6).swap_bytes())
                    } else if b.u8(at) == 0x42 || b.u8(at + 1) == 0x42 {
                        return None;
                    } else {
                        (at, 0)
                    }
                }
                0..=1535 => (at, 0),
                kind => (at, kind),
            }
        }
        0 => {
            let is_ipv4 = [0, 1, 2, 3].map(|i| b.u8(start + i)) == [0, 0, 0, 2];
            (start + 4, if is_ipv4 { 0x0800 } else { 0x86dd })
        }
        50 => (start + 4, b.u16(start + 2)),
        104 | 9 => {
            if matches!(b.u8(0), 0x0f | 0x8f) {
                (start + 4, b.u16(start + 2))
            } else {
                (start + 2, b.u16(start))
            }
        }
        228 => (start, 0x0800),
        229 => (start, 0x86dd),
        113 => (start + 16, b.u16(start + 14)),
        12 | 101 => match b.u8(start) >> 4 {
            4 => (start, 0x0800),
            6 => (start, 0x86dd),
            _ => (start, 0),
        },
        127 => radiotap(b, cap, start, found)?,
        _ => return None,
    };
    tags(b, cap, at, kind, found)
}

fn radiotap(b: &Bytes<'_>, cap: usize, start: usize, found: &mut Found) -> Option<(usize, u16)> {
    let length = usize::from(b.u16(start + 2).swap_bytes());
    if b.u8(start + 16) & 0x50 == 0x50 || cap < start + length + 24 {
        return None;
    }
    let at = start + length;
    let control = b.u16(at).swap_bytes();
    if control >> 2 & 3 != 2 {
        return None;
    }
    // The header is taken to have 26 bytes with one of the DS bits, and none otherwise.
    let header = if (control & 0x100 != 0) == (control & 0x200 != 0) { 0 } else { 26 };
    found.src_mac = b.mac(at + 10);
    found.dst_mac = b.mac(at + 16);
    if cap < at + header + 8 {
        return None;
    }
    let kind = if b.u8(at + header) == 0xaa { b.u16(at + header + 6) } else { 0 };
    Some((at + header + 8, kind))
}

fn tags(
    b: &Bytes<'_>,
    cap: usize,
    mut at: usize,
    mut kind: u16,
    found: &mut Found,
) -> Option<(usize, u16)> {
    loop {
        match kind {
            0x8100 => {
                if at + 4 >= cap {
                    return None;
                }
                loop {
                    found.vlan = b.u16(at) & 0x0fff;
                    kind = b.u16(at + 2);
                    at += 4;
                    if kind != 0x8100 || at + 4 >= cap {
                        break;
                    }
                }
                if kind == 0x8100 {
                    return None;
                }
            }
            0x8847 | 0x8848 => {
                if at + 4 >= cap {
                    return None;
                }
                kind = 0x0800;
                let mut bottom = b.u8(at + 2) & 1;
                at += 4;
                while bottom == 0 && at + 4 < cap {
                    bottom = b.u8(at + 2) & 1;
                    at += 4;
                }
            }
            0x8864 => {
                kind = 0x0800;
                at += 8;
            }
            _ => return Some((at, kind)),
        }
    }
}

enum Ip {
    /// IP in IP: the inner header is there.
    Inner(usize),
    /// UDP, whose header is there.
    Udp { version: u8, transport: usize },
    /// Anything else.
    Other { version: u8 },
}

fn ip_header(b: &Bytes<'_>, cap: usize, at: usize, kind: u16, found: &mut Found) -> Option<Ip> {
    if cap < at + 20 {
        return None;
    }
    if kind == 0x0800 {
        // Also if the header turns out to be IPv6.
        found.fragment = b.u16(at + 6);
        found.next = b.u8(at + 9);
    }
    let version = b.u8(at) >> 4;
    let transport = match version {
        4 => {
            let header = usize::from(b.u8(at) & 15) * 4;
            if matches!(b.u8(at + 9), 4 | 41) && header != 0 {
                return Some(Ip::Inner(at + header));
            }
            if found.fragment & 0x1fff != 0 {
                return None;
            }
            at + header
        }
        6 => {
            let length = usize::from(b.u16(at + 4));
            if cap < at + 40 + length {
                return None;
            }
            let (position, left, protocol) =
                extensions(b, cap - at - 40, at + 40, length, b.u8(at + 6))?;
            found.next = protocol;
            if matches!(protocol, 4 | 41) {
                return Some(Ip::Inner(position));
            }
            // The transport's length is taken for the header's.
            at + left
        }
        _ => return None,
    };
    Some(if found.next == protocol::UDP {
        Ip::Udp { version, transport }
    } else {
        Ip::Other { version }
    })
}

/// Walks IPv6 extension headers: position, length and protocol of the transport.
fn extensions(
    b: &Bytes<'_>,
    mut l3: usize,
    mut at: usize,
    mut l4: usize,
    mut next: u8,
) -> Option<(usize, usize, u8)> {
    while l3 > 1 && matches!(next, 0 | 43 | 44 | 59 | 60 | 135) {
        match next {
            59 => return None,
            44 => {
                if l4 < 8 || l3 < 5 {
                    return None;
                }
                l3 -= 5;
                next = b.u8(at);
                if b.u16(at + 2) >> 3 != 0 {
                    return None;
                }
                l4 -= 8;
                at += 8;
            }
            _ => {
                if l4 < 2 {
                    return None;
                }
                let n = usize::from(b.u8(at + 1)) * 8 + 8;
                if n > l3 || l4 < n {
                    return None;
                }
                l3 -= n;
                next = b.u8(at);
                l4 -= n;
                at += n;
            }
        }
    }
    Some((at, l4, next))
}

enum Inside {
    Nothing,
    Ip(usize, u8),
    Ethernet(usize),
    Typed(usize, u16),
}

fn tunnel(b: &Bytes<'_>, cap: usize, udp: usize, found: &mut Found) -> Option<Inside> {
    if cap < udp + 8 {
        return None;
    }
    let ports = [b.u16(udp), b.u16(udp + 2)];
    let payload = udp + 8;
    if ports.contains(&2152) {
        return gtp(b, cap, udp, found);
    }
    if ports.contains(&37008) {
        if cap < udp + 12 {
            return None;
        }
        found.tunnel = 3;
        let head = [0, 1, 2, 3].map(|i| b.u8(payload + i));
        let mut at = payload;
        if head == [1, 0, 0, 1] && at + 4 < cap {
            at += 4;
            if b.u8(at) > 1 {
                if at + 1 >= cap {
                    return None;
                }
                at += usize::from(b.u8(at + 1));
            } else {
                at += 1;
            }
            if at >= cap {
                return None;
            }
            return Some(Inside::Ethernet(at));
        }
    } else if ports.contains(&5247) && payload + 1 < cap && b.u8(payload).is_multiple_of(16) {
        let at = payload + usize::from(b.u8(payload + 1) & 0xf8) / 2;
        if at + 32 < cap {
            found.src_mac = b.mac(at + 10);
            found.dst_mac = b.mac(at + 16);
            found.tunnel = 2;
            return Some(Inside::Typed(at + 32, b.u16(at + 30)));
        }
    }
    Some(Inside::Nothing)
}

fn gtp(b: &Bytes<'_>, cap: usize, udp: usize, found: &mut Found) -> Option<Inside> {
    if udp + 16 >= cap {
        return Some(Inside::Nothing);
    }
    let mut at = udp + 8;
    let flags = b.u8(at);
    if flags >> 5 != 1 || b.u8(at + 1) != 0xff {
        return Some(Inside::Nothing);
    }
    at += 8 + if flags & 7 != 0 { 4 } else { 0 };
    if flags & 4 != 0 {
        while at < cap {
            let n = usize::from(b.u8(at)) * 4;
            at += n;
            if at >= cap || n == 0 {
                return Some(Inside::Nothing);
            }
            if b.u8(at - 1) == 0 {
                break;
            }
        }
    }
    if at >= cap {
        return Some(Inside::Nothing);
    }
    found.tunnel = 1;
    let version = b.u8(at) >> 4;
    let header = if version == 6 { 40 } else { 20 };
    if !matches!(version, 4 | 6) || cap < at + header {
        return None;
    }
    Some(Inside::Ip(at, version))
}

/// The packet itself.
fn packet(
    b: &Bytes<'_>,
    cap: usize,
    version: u8,
    at: usize,
    wire: u32,
    found: &Found,
) -> Option<Packet> {
    let size = (cap - at) & 0xffff;
    let (total, transport, l4, proto, src, dst);
    if version == 4 {
        let header = usize::from(b.u8(at) & 15) * 4;
        total = usize::from(b.u16(at + 2));
        l4 = total.wrapping_sub(header) & 0xffff;
        if size < 20 || header > size || total.max(size) < header + l4 {
            return None;
        }
        transport = at + header;
        proto = b.u8(at + 9);
        src = b.ipv4(at + 12);
        dst = b.ipv4(at + 16);
    } else {
        let length = usize::from(b.u16(at + 4));
        if size < 40 || size < 40 + length {
            return None;
        }
        (transport, l4, proto) = extensions(b, size - 40, at + 40, length, b.u8(at + 6))?;
        total = (length + 40) & 0xffff;
        if transport - at > size || total.max(size) < transport - at + l4 {
            return None;
        }
        src = b.ipv6(at + 8);
        dst = b.ipv6(at + 24);
    }
    let mut p = Packet {
        src,
        dst,
        segments: 1,
        network_offset: at as u16,
        vlan: found.vlan,
        src_mac: found.src_mac,
        dst_mac: found.dst_mac,
        protocol: proto,
        ip_version: version,
        tunnel: found.tunnel,
        fragment: FRAGMENT_NONE,
        ..Packet::default()
    };
    let (mut transport_size, mut payload) = (l4, 0);
    match proto {
        protocol::TCP if l4 >= 20 => {
            p.src_port = b.u16(transport);
            p.dst_port = b.u16(transport + 2);
            p.tcp_flags = b.u8(transport + 13);
            payload = l4.saturating_sub(usize::from(b.u8(transport + 12) >> 4) * 4);
        }
        protocol::UDP if l4 >= 8 => {
            p.src_port = b.u16(transport);
            p.dst_port = b.u16(transport + 2);
            payload = l4 - 8;
        }
        protocol::ICMP | protocol::ICMPV6 => {
            p.icmp_type = b.u8(transport);
            p.icmp_code = b.u8(transport + 1);
            payload = l4.saturating_sub(8);
        }
        _ => transport_size = 0,
    }
    p.sizes = [wire & 0xffff, total as u32, transport_size as u32, payload as u32];
    Some(p)
}
