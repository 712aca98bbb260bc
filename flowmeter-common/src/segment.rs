//! What does a super-packet look like on the wire?
//!
//! With segmentation offload one socket buffer leaves as many packets, and with receive
//! offload many packets arrive as one. The meter accounts what is on the wire.

use crate::event::MAX_SNAPSHOT;
use crate::packet::{Packet, protocol};

/// What the kernel says of a socket buffer's segmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Payload bytes of each segment but the last (`gso_size`), not 0.
    pub size: u32,
    /// Number of segments (`gso_segs`), 0 if the driver did not say.
    pub segments: u32,
    /// Bytes of the super-packet as it stands in memory (`skb->len`, and the tag that is kept
    /// beside it).
    pub length: u32,
    /// Header bytes that each segment repeats, if the kernel tells; else 0 and the parser's
    /// payload offset is used.
    pub header: u32,
}

/// Turns the super-packet `p` into the packets on the wire: [`Packet::segments`] of them, of
/// [`Packet::segment_sizes`] each but the last, which has [`Packet::sizes`].
#[inline(always)]
pub fn split(p: &mut Packet, offload: Offload) {
    let header = if offload.header != 0 { offload.header } else { u32::from(p.payload_offset) };
    if offload.size == 0 || header == 0 || offload.length <= header {
        return;
    }
    let payload = offload.length - header;
    // Not `gso_segs`: on receive it is often 0, and for SCTP `gso_size` is not a size.
    let segments = if offload.size == GSO_BY_FRAGS {
        offload.segments.max(1)
    } else {
        payload.div_ceil(offload.size)
    };
    if segments < 2 {
        return;
    }
    let full = if offload.size == GSO_BY_FRAGS { payload / segments } else { offload.size };
    let last = payload.saturating_sub(full.saturating_mul(segments - 1));
    let network = u32::from(p.network_offset);
    let [_, ip, transport, inner] = p.sizes;
    // What of the repeated header is IP and what is transport; the rest is link and tunnel.
    let ip_header = header.saturating_sub(network);
    let transport_header = transport.saturating_sub(inner);
    let _ = ip;
    p.segments = segments;
    p.segment_sizes = [header + full, ip_header + full, transport_header + full, full];
    p.sizes = [header + last, ip_header + last, transport_header + last, last];
}

/// How much of a packet goes to the dissector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Packets on the wire, the first ones.
    pub segments: u32,
    /// Bytes from the IP header on, the shared headers once.
    pub bytes: u32,
}

/// What of `p` the dissector gets, which wants `most` packets of `limit` bytes each: these, or those
/// that begin within [`MAX_SNAPSHOT`] bytes. Where segments are of unknown sizes (SCTP), the first.
#[inline(always)]
pub fn extent(p: &Packet, most: u32, limit: u32) -> Extent {
    let room = MAX_SNAPSHOT as u32;
    let [_, last, ..] = p.sizes;
    if p.segments < 2 {
        return Extent { segments: 1, bytes: last.min(limit).min(room) };
    }
    let [_, ip, _, full] = p.segment_sizes;
    let header = ip.saturating_sub(full);
    let mut segments = 1;
    if matches!(p.protocol, protocol::TCP | protocol::UDP) {
        let fit = room.saturating_sub(header + 1).checked_div(full).unwrap_or(0) + 1;
        segments = p.segments.min(most).min(fit).max(1);
    }
    let end = if segments == p.segments { last } else { ip };
    let bytes = full * (segments - 1) + end.min(limit);
    Extent { segments, bytes: bytes.min(room) }
}

/// `gso_size` of SCTP, whose segments are of many sizes (Linux, `include/linux/skbuff.h`).
const GSO_BY_FRAGS: u32 = 0xffff;
