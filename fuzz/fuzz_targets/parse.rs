//! Does the parser read any frame of any link type without a panic, and keep its promises?
//!
//! The first two bytes of the input choose the link type and the options.

#![no_main]

use flowmeter::capture::pcap::{link, nfstream};
use flowmeter_common::bytes::HostBytes;
use flowmeter_common::key::FlowKey;
use flowmeter_common::parse;
use libfuzzer_sys::fuzz_target;

const LINKS: [i32; 16] = [1, 0, 9, 12, 14, 50, 101, 104, 105, 108, 113, 127, 228, 229, 276, 147];

fuzz_target!(|data: &[u8]| {
    let [kind, options, frame @ ..] = data else { return };
    let kind = LINKS[usize::from(*kind) % LINKS.len()];
    let tunnels = options & 1 != 0;
    let wire = frame.len() as u32 + u32::from(options >> 1) * 16;
    let _ = nfstream::parse(frame, wire, kind, tunnels);
    let Some(Ok((offset, first))) = link::start(kind, frame) else { return };
    let Ok(p) = parse::parse(&HostBytes::new(frame), offset, first, wire, tunnels) else { return };
    let [link, ip, transport, payload] = p.sizes;
    assert!(link == wire && ip >= transport && transport >= payload, "sizes nest: {p:?}");
    assert!(matches!(p.ip_version, 4 | 6));
    let (key, from_high) = FlowKey::of(&p, 0);
    let mut back = p;
    (back.src, back.dst) = (p.dst, p.src);
    (back.src_port, back.dst_port) = (p.dst_port, p.src_port);
    let (same, other) = FlowKey::of(&back, 0);
    assert_eq!(key, same, "both directions have one key");
    assert!(from_high != other || (p.src, p.src_port) == (p.dst, p.dst_port));
});
