//! Is the `ClientHello` found in a flow's packets?

use proptest::prelude::*;

use super::samples::specified;
use super::{Carrier, Fingerprint, Hello, State, quic};
use crate::dissect::cut;
use crate::dissect::samples::{Packet, dns_query, http_get};

/// The specification's example behind a carrier's letter.
#[expect(clippy::unnecessary_wraps, reason = "it is what `ja4` is expected to find")]
fn specified_by(carrier: &str) -> Option<String> {
    Some(format!("{carrier}13d1516h2_8daaf6152771_e5627efa2ab1"))
}

/// After these packets of one flow.
fn after(packets: &[Vec<u8>]) -> Hello {
    let mut hello = Hello::default();
    for packet in packets {
        hello.packet(packet);
    }
    hello
}

fn ja4(packets: &[Vec<u8>]) -> Option<String> {
    after(packets).finish().map(|fingerprint| fingerprint.ja4)
}

/// The client's SYN before its first byte.
fn syn() -> Vec<u8> {
    let mut packet = Packet::tcp_to(443, b"");
    packet[24..28].copy_from_slice(&0_u32.to_be_bytes());
    packet[33] = 0x02;
    packet
}

/// The client's bytes from an offset on.
fn segment(offset: usize, bytes: &[u8]) -> Vec<u8> {
    Packet::at(Packet::tcp_to(443, bytes), offset)
}

#[test]
fn a_client_hello_is_found_however_it_is_cut() {
    let records = specified().records(10_000);
    assert_eq!(ja4(&[segment(0, &records)]), specified_by("t"));
    for at in 1..records.len() {
        let (first, second) = records.split_at(at);
        let (first, second) = (segment(0, first), segment(at, second));
        assert_eq!(ja4(&[first.clone(), second.clone()]), specified_by("t"), "cut at {at}");
        assert_eq!(ja4(&[syn(), second, first]), specified_by("t"), "cut at {at}, the end first");
    }
}

#[test]
fn overlaps_repetitions_and_answers_do_no_harm() {
    let records = specified().records(100);
    let answer = |length: usize| Packet::reply(segment(0, &records[..length]));
    let packets = [
        syn(),
        Packet::reply(segment(0, b"")),
        segment(150, &records[150..200]),
        segment(0, &records[..120]),
        answer(50),
        segment(0, &records[..120]),
        segment(100, &records[100..180]),
        segment(190, &records[190..]),
    ];
    assert_eq!(ja4(&packets), specified_by("t"));
    assert_eq!(ja4(&packets[..7]), None);
}

#[test]
fn sequence_numbers_wrap() {
    let records = specified().records(10_000);
    let at = |sequence: u32, bytes: &[u8]| {
        let mut packet = segment(0, bytes);
        packet[24..28].copy_from_slice(&sequence.to_be_bytes());
        packet
    };
    let first = at(u32::MAX - 9, &records[..100]);
    assert_eq!(ja4(&[first, at(90, &records[100..])]), specified_by("t"));
}

#[test]
fn tls_may_start_later() {
    let records = specified().records(10_000);
    let packets = [
        syn(),
        segment(0, b"EHLO me\r\n"),
        segment(9, b"STARTTLS\r\n"),
        segment(19, &records[..150]),
        segment(169, &records[150..]),
    ];
    assert_eq!(ja4(&packets), specified_by("t"));
}

/// nDPI is content with the proxy.
#[test]
fn a_proxy_is_worth_waiting_for() {
    for request in [
        &b"CONNECT example.org:443 HTTP/1.1\r\n\r\n"[..],
        b"\x05\x01\0",
        b"\x04\x01\x01\xbb\xc0\0\x02\x01me\0",
    ] {
        let asked = [syn(), segment(0, request)];
        assert!(after(&asked).is_waiting(), "{request:?}");
        let hello = segment(request.len(), &specified().records(10_000));
        assert_eq!(ja4(&[&asked[..], &[hello]].concat()), specified_by("t"), "{request:?}");
    }
    assert!(!after(&[syn(), segment(0, b"GET / HTTP/1.1\r\n\r\n")]).is_waiting());
}

#[test]
fn data_in_the_syn_counts() {
    let records = specified().records(10_000);
    let mut opening = segment(0, &records[..200]);
    opening[24..28].copy_from_slice(&0_u32.to_be_bytes());
    opening[33] = 0x02;
    assert_eq!(ja4(&[opening, segment(200, &records[200..])]), specified_by("t"));
}

#[test]
fn other_flows_keep_nothing() {
    for packets in [
        vec![http_get(), Packet::reply(segment(0, b"HTTP/1.1 200 OK\r\n"))],
        vec![dns_query(), Packet::udp6(b"payload")],
        vec![segment(0, b"\x16\x03\x03\0\x10\x02\0\0\x0c")],
        vec![Packet::udp_to(443, &[0xc0, 0, 0, 0, 1, 8, 1, 2, 3])],
    ] {
        let hello = after(&packets);
        assert!(matches!(hello.0, State::None | State::Tcp(_)), "{hello:?}");
        assert!(!hello.is_waiting());
        assert_eq!(hello.finish(), None);
    }
}

#[test]
fn what_is_no_client_hello_within_is_let_go() {
    // A record and a message by their types, and then not.
    let hello = after(&[segment(0, b"\x16\x03\x01\0\x20\x01"), segment(6, &[0xff; 100])]);
    assert!(!hello.is_waiting());
}

/// A record of DTLS with a fragment of a `ClientHello`.
fn dtls(number: u16, body: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    let length = |length: usize| (length as u32).to_be_bytes()[1..].to_vec();
    let mut message = vec![1];
    message.extend(length(body.len()));
    message.extend(number.to_be_bytes());
    message.extend(length(range.start));
    message.extend(length(range.len()));
    message.extend(&body[range]);
    let mut record = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

#[test]
fn dtls_is_found_whole_and_in_fragments() {
    let hello = specified().version(0xfefd).cookie(b"");
    let body = hello.body();
    let udp = |payload: &[u8]| Packet::udp_to(4433, payload);
    let expected = specified_by("d");
    assert_eq!(ja4(&[udp(&dtls(0, &body, 0..body.len()))]), expected);
    for at in 1..body.len() {
        let (first, second) = (dtls(0, &body, 0..at), dtls(0, &body, at..body.len()));
        assert_eq!(ja4(&[udp(&second), udp(&first)]), expected, "cut at {at}");
        assert_eq!(ja4(&[udp(&[first, second].concat())]), expected, "cut at {at}");
    }
    // Behind something else, and over a hello that was given up.
    let packets = [
        udp(b"\0\x01\0\0!\x12\xa4Bstun"),
        udp(&dtls(0, &body, 0..100)),
        udp(&dtls(1, &body, 100..body.len())),
        udp(&dtls(1, &body, 0..100)),
    ];
    assert_eq!(ja4(&packets), expected);
}

#[test]
fn encrypted_records_of_dtls_are_none() {
    let body = specified().cookie(b"").body();
    let mut record = dtls(0, &body, 0..body.len());
    record[4] = 1;
    assert_eq!(ja4(&[Packet::udp_to(4433, &record)]), None);
}

/// A packet of an RFC's appendix.
fn appendix(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let (pairs, _) = digits.as_chunks();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(|pair| byte(pair).expect("hexadecimal digits")).collect()
}

#[test]
fn the_standards_packets_are_read() {
    for (client, server) in [
        (include_str!("quic/rfc9001-client.hex"), include_str!("quic/rfc9001-server.hex")),
        (include_str!("quic/rfc9369-client.hex"), include_str!("quic/rfc9369-server.hex")),
    ] {
        let client = Packet::udp_to(443, &appendix(client));
        let server = Packet::reply(Packet::udp_to(443, &appendix(server)));
        let expected = Fingerprint {
            carrier: Carrier::Quic,
            ja4: "q13d0211an_62ed6f6ca7ad_4d634acda6c0".into(),
            ja3: "41bc9ae914d6cb3bd0bd0a5453ab7d7f".into(),
            sni: Some("example.com".into()),
            alpn: "alpn".into(),
        };
        assert_eq!(after(&[server.clone(), client.clone()]).finish(), Some(expected));
        assert!(!after(&[server]).is_waiting());
        for at in [0, 6, 30, 1000] {
            let mut changed = client.clone();
            changed[28 + at] ^= 1;
            assert_eq!(ja4(&[changed]), None, "byte {at} changed");
        }
    }
}

/// A CRYPTO frame.
fn crypto(message: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    let mut frame = vec![6];
    frame.extend((range.start as u16 | 0x4000).to_be_bytes());
    frame.extend((range.len() as u16 | 0x4000).to_be_bytes());
    frame.extend(&message[range]);
    frame
}

const VERSIONS: [u32; 7] =
    [1, 0x6b33_43cf, 0xff00_001d, 0xff00_001b, 0xff00_0016, 0x5430_3530, 0x5430_3531];

#[test]
fn crypto_frames_are_put_in_order() {
    let message = specified().message();
    let (a, b, c) = (50, 150, message.len());
    let acknowledges = [2, 5, 0, 1, 0, 1, 2];
    let first = [&[1, 0, 0][..], &crypto(&message, b..c), &acknowledges].concat();
    let second = [crypto(&message, a..b), vec![0; 10], crypto(&message, 0..a)].concat();
    let expected = specified_by("q");
    for version in VERSIONS {
        let first = quic::sealed(version, b"original", 0, &first);
        let second = quic::sealed(version, b"original", 1, &second);
        let coalesced = [&first[..], &second, &[0x40; 20]].concat();
        assert_eq!(ja4(&[Packet::udp_to(443, &coalesced)]), expected, "{version:x}");
        let udp = [Packet::udp_to(443, &first), Packet::udp_to(443, &second)];
        assert_eq!(ja4(&udp), expected, "{version:x}");
        assert!(after(&udp[..1]).is_waiting());
    }
}

#[test]
fn an_initial_is_read_though_the_one_behind_it_was_cut() {
    let message = specified().message();
    let first = quic::sealed(1, b"original", 0, &crypto(&message, 0..message.len()));
    let second = quic::sealed(1, b"original", 1, &[0; 100]);
    for there in 0..second.len() {
        let datagram = [&first[..], &second[..there]].concat();
        assert_eq!(ja4(&[Packet::udp_to(443, &datagram)]), specified_by("q"), "{there}");
    }
}

/// After a Retry the client sends all of it again, to another id.
#[test]
fn a_retry_changes_the_keys() {
    let message = specified().message();
    let half = crypto(&message, 0..100);
    let rest = crypto(&message, 100..message.len());
    let packets = [
        quic::sealed(1, b"original", 0, &half),
        quic::sealed(1, b"of the retry", 1, &half),
        quic::sealed(1, b"of the retry", 2, &rest),
    ]
    .map(|datagram| Packet::udp_to(443, &datagram));
    assert_eq!(ja4(&packets), specified_by("q"));
}

/// Packets that are almost right: one of ours, changed, cut or as it is.
fn almost() -> impl Strategy<Value = Vec<u8>> {
    let message = specified().message();
    let body = specified().cookie(b"c").body();
    let seeds = vec![
        segment(0, &specified().records(300)),
        segment(120, &specified().records(300)[120..]),
        syn(),
        Packet::udp_to(443, &dtls(0, &body, 0..120)),
        Packet::udp_to(443, &dtls(0, &body, 100..body.len())),
        Packet::udp_to(443, &quic::sealed(1, b"original", 0, &crypto(&message, 9..180))),
        Packet::udp6(b"\x16\xfe\xff"),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(seeds), changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut packet, changes, end, is_cut)| {
            for (at, value) in changes {
                let at = at.index(packet.len());
                packet[at] = value;
            }
            if is_cut {
                packet.truncate(end.index(packet.len()));
            }
            packet
        },
    )
}

/// The segment that follows one that was cut is not taken for what was cut off.
#[test]
fn what_was_cut_off_a_hello_is_a_gap() {
    let records = specified().records(10_000);
    let (first, second) = records.split_at(200);
    let (first, second) = (segment(0, first), segment(200, second));
    assert_eq!(ja4(&[first.clone(), second.clone()]), specified_by("t"));
    for missing in 1..200 {
        let mut scratch = Vec::new();
        let there = &first[..first.len() - missing];
        let cut = cut::as_captured(there, first.len() as u32, cut::Shown::Sound, &mut scratch);
        let hello = after(&[syn(), cut.to_vec(), second.clone()]);
        assert!(hello.is_waiting(), "{missing}");
        assert!(hello.finish().is_none(), "{missing}");
    }
}

/// A segment that starts with a record's header is not the first one for that.
#[test]
fn a_later_segment_may_start_with_a_record() {
    let records = specified().records(73);
    let (first, second) = records.split_at(5 + 73);
    assert_eq!(second[..2], records[..2]);
    let segments = [syn(), segment(first.len(), second), segment(0, first)];
    assert_eq!(ja4(&segments), specified_by("t"));
}

proptest! {
    #[test]
    fn any_bytes_are_fine(
        packets in prop::collection::vec(
            prop_oneof![almost(), prop::collection::vec(any::<u8>(), 0..200)],
            0..8,
        ),
    ) {
        // It may find a hello, but a flow has not two of them.
        let found = ja4(&packets);
        prop_assert!(found.is_none_or(|ja4| ja4.len() == 36));
    }

    /// Behind sound keys, frames may still be anything.
    #[test]
    fn any_frames_are_fine(frames in prop::collection::vec(any::<u8>(), 4..300)) {
        after(&[Packet::udp_to(443, &quic::sealed(1, b"original", 0, &frames))]);
    }

    #[test]
    fn any_segments_of_a_hello_make_it(
        cuts in prop::collection::btree_set(1_usize..1000, 0..6),
        size in 1_usize..500,
        order in any::<prop::sample::Index>(),
    ) {
        let records = specified().records(size);
        let mut starts = vec![0];
        starts.extend(cuts.into_iter().filter(|&at| at < records.len()));
        let ends = starts[1..].iter().copied().chain([records.len()]);
        let mut segments: Vec<_> =
            starts.iter().zip(ends).map(|(&from, to)| segment(from, &records[from..to])).collect();
        let turn = order.index(segments.len());
        segments.rotate_left(turn);
        segments.insert(0, syn());
        prop_assert_eq!(ja4(&segments), specified_by("t"));
    }
}
