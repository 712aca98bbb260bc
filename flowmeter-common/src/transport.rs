//! Which ports, flags and payload does a packet have?

use crate::bytes::PacketBytes;
use crate::network::Transport;
use crate::packet::{Packet, protocol};

/// Reads the transport header at `t` as far as it is there and notes ports, flags, ICMP type and
/// the payload's size.
///
/// Ports exist for TCP of at least 20 bytes and UDP of at least 8 (`NFStream`'s definition);
/// everything else has ports 0, so all ICMP between two hosts is one flow. What a truncated
/// capture lacks stays 0: the packet is metered from what is there. Returns whether all of the
/// header was there.
#[inline(always)]
pub fn read<B: PacketBytes>(b: &B, t: Transport, p: &mut Packet) -> bool {
    p.protocol = t.protocol;
    let mut header = 0;
    let mut complete = true;
    match t.protocol {
        protocol::TCP if t.length >= 20 => {
            header = 20;
            if let Some(h) = b.read::<14>(t.offset) {
                let [s0, s1, d0, d1, _, _, _, _, _, _, _, _, offset, flags] = h;
                ports(p, [s0, s1, d0, d1]);
                p.tcp_flags = flags;
                header = u32::from(offset >> 4) * 4;
            } else {
                complete = false;
                if let Some(h) = b.read::<4>(t.offset) {
                    ports(p, h);
                }
            }
        }
        protocol::UDP if t.length >= 8 => {
            header = 8;
            match b.read::<4>(t.offset) {
                Some(h) => ports(p, h),
                None => complete = false,
            }
        }
        protocol::ICMP | protocol::ICMPV6 => {
            header = 8;
            match b.read::<2>(t.offset) {
                Some([kind, code]) => {
                    p.icmp_type = kind;
                    p.icmp_code = code;
                }
                None => complete = false,
            }
        }
        protocol::SCTP => header = 12,
        _ => {}
    }
    let [link, ip, _, _] = p.sizes;
    p.sizes = [link, ip, t.length, t.length.saturating_sub(header)];
    p.payload_offset = (t.offset + header) as u16;
    complete
}

/// Notes what a fragment without a transport header has: its protocol and size, all of it payload.
#[inline(always)]
pub fn fragment(t: Transport, p: &mut Packet) {
    p.protocol = t.protocol;
    let [link, ip, _, _] = p.sizes;
    p.sizes = [link, ip, t.length, t.length];
    p.payload_offset = t.offset as u16;
}

#[inline(always)]
fn ports(p: &mut Packet, [s0, s1, d0, d1]: [u8; 4]) {
    p.src_port = u16::from_be_bytes([s0, s1]);
    p.dst_port = u16::from_be_bytes([d0, d1]);
}
