//! Do kernel and host agree?
//!
//! The same bytes go through the BPF programs, by `BPF_PROG_TEST_RUN`, and through the shared
//! parser and flow update here. Needs root and the BPF object; see `flowmeter_tests::root`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flowmeter_common::counter::{Counter, Counters};
use flowmeter_common::event::MAX_REAP;
use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::{Knobs, MILLISECOND};
use flowmeter_common::lifetime::EndReason;
use flowmeter_common::packet::Packet;
use flowmeter_common::segment::{self, Offload};
use flowmeter_common::splt::Slot;
use flowmeter_common::tally::{Record, mark};
use flowmeter_common::tcp::{CWR, FIN, PSH};
use flowmeter_tests::captures::{Capture, conformance};
use flowmeter_tests::host::Host;
use flowmeter_tests::kernel::{Handed, Kernel, Setup, SkbOffload};
use flowmeter_tests::packets::{
    Around, Builder, Over, icmp, icmpv6, other, sctp, strategies, tcp, udp,
};
use flowmeter_tests::root;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Bytes that an XDP test run takes, beyond a page in fragments of memory.
const XDP_BYTES: std::ops::RangeInclusive<usize> = 14..=65_000;
/// Bytes that a tc test run takes: an Ethernet header and something, within a page.
const TC_BYTES: std::ops::RangeInclusive<usize> = 15..=3_700;

/// Whether a tc test run takes the frame. If its ethertype is IP, there must be an IP header.
fn tc_takes(frame: &[u8]) -> bool {
    let least = match frame.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => 0,
    };
    TC_BYTES.contains(&frame.len()) && frame.len() >= least
}

/// The XDP and the tc program that parse only, for frames of lengths that they can be run on.
struct Parsers {
    kernel: Kernel,
    host: Host,
    compared: usize,
    skipped: usize,
}

impl Parsers {
    fn load(decode_tunnels: bool) -> Result<Self> {
        let knobs = Knobs { decode_tunnels, ..Knobs::default() };
        let setup = Setup { knobs, ..Setup::default() };
        Ok(Self {
            kernel: Kernel::load(&setup, &["flowmeter_parse", "flowmeter_tc_parse"])?,
            host: Host::new(knobs),
            compared: 0,
            skipped: 0,
        })
    }

    fn compare(&mut self, frame: &[u8]) -> Result<()> {
        let expected = self.host.parse(frame);
        if XDP_BYTES.contains(&frame.len()) {
            let found = self.kernel.verdict(|kernel| kernel.xdp("flowmeter_parse", frame, 1))?;
            ensure!(
                found == expected,
                "XDP: kernel {found:?}, host {expected:?}, frame {frame:02x?}"
            );
            self.compared += 1;
        } else {
            self.skipped += 1;
        }
        if tc_takes(frame) {
            let found =
                self.kernel.verdict(|kernel| kernel.tc("flowmeter_tc_parse", frame, None))?;
            ensure!(
                found == expected,
                "tc: kernel {found:?}, host {expected:?}, frame {frame:02x?}"
            );
            self.compared += 1;
        } else {
            self.skipped += 1;
        }
        Ok(())
    }

    fn report(&self, what: &str) {
        println!(
            "{what}: {} verdicts equal, {} test runs not possible for the frame's length",
            self.compared, self.skipped
        );
    }
}

/// Runs `check` on `cases` values, shrinking one that fails.
fn for_all<S: Strategy>(
    cases: u32,
    strategy: &S,
    check: impl Fn(S::Value) -> Result<()>,
) -> Result<()> {
    let mut runner = TestRunner::new(Config {
        cases,
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(strategy, |value| check(value).map_err(|why| TestCaseError::fail(format!("{why:#}"))))
        .map_err(|why| anyhow::anyhow!("{why}"))
}

#[test]
fn verdicts_agree_on_generated_packets() -> Result<()> {
    if !root::available("verdicts_agree_on_generated_packets")? {
        return Ok(());
    }
    for decode_tunnels in [true, false] {
        let parsers = std::cell::RefCell::new(Parsers::load(decode_tunnels)?);
        for_all(4_000, &strategies::frames(), |frame| parsers.borrow_mut().compare(&frame))?;
        parsers.borrow().report(&format!("generated packets, decode_tunnels {decode_tunnels}"));
    }
    Ok(())
}

/// One of everything, so that no header depends on a random draw.
#[test]
fn verdicts_agree_on_one_packet_of_each_kind() -> Result<()> {
    if !root::available("verdicts_agree_on_one_packet_of_each_kind")? {
        return Ok(());
    }
    let v4 = || tcp().ack().psh().from("10.0.0.1:1234").to("10.0.0.2:80").payload(40);
    let v6 = || udp().from("[2001:db8::1]:40000").to("[2001:db8::2]:53").payload(40);
    let mut packets = vec![
        v4().padded(),
        v6(),
        v4().ip_options(10).tcp_options(10),
        v4().vlan(5),
        v4().vlan(0).vlan(5),
        v4().vlan(5).service_vlan(100),
        v6().mpls(1),
        v6().mpls(9),
        v4().within(Around::Pseudowire(2)),
        v4().within(Around::Pppoe),
        v6().within(Around::Pppoe).vlan(7),
        v4().within(Around::Snap),
        v4().fragment(7, 0, true),
        v4().fragment(7, 1480, false),
        v6().fragment(7, 0, true),
        v6().fragment(7, 1480, false),
        v6().extension(0, 0).extension(43, 2).extension(60, 0),
        v6().extension(59, 0),
        v4().claiming(0),
        v6().claiming(0),
        v4().claiming(60_000),
        icmp(8, 0).payload(56),
        icmpv6(128, 0).from("2001:db8::1").to("2001:db8::2"),
        sctp().from("10.0.0.1:1").to("10.0.0.2:2").payload(20),
        other(50).payload(64),
        other(51).payload(64),
        other(136).payload(64),
    ];
    for over in [Over::V4, Over::V6] {
        let tunnels = [
            Around::Ip(over),
            Around::GtpU(over, 0),
            Around::GtpU(over, 4),
            Around::GtpU(over, 5),
            Around::Capwap(over),
            Around::CapwapWifi(over),
            Around::Tzsp(over, 0),
            Around::Tzsp(over, 7),
            Around::Tzsp(over, 9),
            Around::Vxlan(over, 0x00ab_cdef),
            Around::Geneve(over, 7, 3),
            Around::Gre(over, 0),
            Around::Gre(over, 0xb0),
            Around::Erspan(over, 1),
            Around::Erspan(over, 2),
            Around::Erspan(over, 3),
            Around::Teredo(over, true, true),
        ];
        for tunnel in tunnels {
            packets.push(v4().within(tunnel));
            packets.push(v6().vlan(9).within(tunnel).vlan(8));
            packets.push(v6().within(tunnel).vlan(8));
        }
    }
    for decode_tunnels in [true, false] {
        let mut parsers = Parsers::load(decode_tunnels)?;
        for packet in &packets {
            let whole = packet.build();
            for length in 0..=whole.len() {
                parsers.compare(&whole[..length])?;
            }
        }
        parsers.report(&format!("each kind cut at each length, decode_tunnels {decode_tunnels}"));
    }
    Ok(())
}

#[test]
fn verdicts_agree_on_captures() -> Result<()> {
    let name = "verdicts_agree_on_captures";
    if !root::available(name)? {
        return Ok(());
    }
    let Some(captures) = conformance(name)? else {
        return Ok(());
    };
    let mut parsers = [Parsers::load(true)?, Parsers::load(false)?];
    let (mut frames, mut foreign, mut damaged) = (0, 0, 0);
    for path in &captures {
        let capture = Capture::read(path)?;
        for frame in &capture.frames {
            for parsers in &mut parsers {
                parsers.compare(frame).with_context(|| format!("in `{}`", path.display()))?;
            }
        }
        frames += capture.frames.len();
        foreign += capture.foreign;
        damaged += usize::from(capture.damaged);
    }
    println!(
        "{} captures ({damaged} damaged), {frames} Ethernet frames, {foreign} of other link types",
        captures.len()
    );
    ensure!(frames > 0, "no Ethernet frame in any capture");
    for parsers in &parsers {
        parsers.report("captures");
    }
    Ok(())
}

/// A packet of a conversation, and the pause before it.
#[derive(Clone, Debug)]
struct Step {
    packet: Builder,
    pause: Duration,
}

/// Packets of a few conversations, in both directions, of all protocols.
fn conversations() -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![
        20 => Just(0),
        4 => 0..300_u64,
        1 => 500..3_000_u64,
    ];
    let step = (0..6_u8, any::<bool>(), any::<u8>(), 0..1200_usize, pause);
    let step = step.prop_map(|(conversation, back, flags, payload, pause)| {
        let packet = match conversation {
            0 => tcp().flags(flags).from("10.0.0.1:1234").to("10.0.0.2:80"),
            1 => tcp().flags(flags).from("[2001:db8::1]:443").to("[2001:db8::2]:50000"),
            2 => udp().from("10.0.0.1:1234").to("10.0.0.2:80").vlan(5),
            3 => icmp(flags & 8, 0).from("10.0.0.1").to("10.0.0.2"),
            4 => udp().from("192.168.0.1:99").to("192.168.0.2:53").fragment(
                u32::from(flags & 3),
                u16::from(flags & 4) * 16,
                true,
            ),
            _ => udp().from("10.9.0.1:5").to("10.9.0.2:6").in_vxlan(7),
        };
        let packet = packet.payload(payload);
        Step {
            packet: if back { packet.back() } else { packet },
            pause: Duration::from_micros(pause),
        }
    });
    proptest::collection::vec(step, 1..80)
}

/// Whole records, with times, statistics, expiry and SPLT, of the same packets at the same times.
#[test]
fn records_agree() -> Result<()> {
    if !root::available("records_agree")? {
        return Ok(());
    }
    let every_packet = Knobs {
        n_dissections: u32::MAX,
        statistics: true,
        tick_ns: 1_000,
        splt: 255,
        ..Knobs::default()
    };
    let settings = [
        every_packet,
        Knobs {
            idle_ns: 2 * MILLISECOND,
            active_ns: 5 * MILLISECOND,
            accounting: 1,
            tick_ns: 1,
            splt: 20,
            ..every_packet
        },
        Knobs {
            active_ns: 3 * MILLISECOND,
            accounting: 3,
            tick_ns: MILLISECOND,
            splt: 1,
            ..every_packet
        },
        Knobs { idle_ns: 0, accounting: 2, decode_tunnels: false, ..every_packet },
        Knobs { statistics: false, splt: 0, ..every_packet },
    ];
    for knobs in settings {
        let kernel = Kernel::load(
            &Setup { knobs, ..Setup::default() },
            &["flowmeter_xdp", "flowmeter_reap"],
        )?;
        let ended = std::cell::Cell::new(0);
        for_all(60, &conversations(), |steps| {
            kernel.clear()?;
            let host = replay(&kernel, knobs, &steps)?;
            ended.set(ended.get() + host.ended.len());
            compare_records(&kernel, host)
        })?;
        println!("{} records ended by timeout, {knobs:?}", ended.get());
    }
    Ok(())
}

/// Runs the packets through the kernel, then through the host at the times that the kernel's
/// packet events tell.
fn replay(kernel: &Kernel, knobs: Knobs, steps: &[Step]) -> Result<Host> {
    let mut host = Host::new(knobs);
    for step in steps {
        if !step.pause.is_zero() {
            thread::sleep(step.pause);
        }
        let frame = step.packet.build();
        let expected = host.admit(&frame);
        kernel.xdp("flowmeter_xdp", &frame, 1)?;
        let forwarded = kernel.forwarded()?;
        let Some(packet) = expected else {
            ensure!(forwarded.is_empty(), "an ignored packet was forwarded");
            continue;
        };
        ensure!(forwarded.len() == 1, "{} events", forwarded.len());
        let (event, bytes) = &forwarded[0];
        let (uid, number) = host.meter(&packet, event.time_ns, event.uid);
        ensure!(
            (event.uid, u64::from(event.number)) == (uid, number),
            "{event:?} is not number {number} of {uid:x}"
        );
        ensure!(event.ip_bytes == packet.sizes[1] && event.interface == 0);
        let start = usize::from(packet.network_offset);
        let expected = &frame[start..(start + event.captured as usize).min(frame.len())];
        ensure!(bytes.get(..expected.len()) == Some(expected), "forwarded bytes");
    }
    Ok(host)
}

/// Compares all records, and their SPLT slots, with the kernel's.
fn compare_records(kernel: &Kernel, host: Host) -> Result<()> {
    let found: Vec<_> = kernel.handed()?.iter().map(ended).collect::<Result<_>>()?;
    ensure!(found == host.ended, "ended: kernel {found:?}, host {:?}", host.ended);
    let resident = by_key(kernel.resident()?);
    ensure!(resident == host.flows, "resident: kernel {resident:?}, host {:?}", host.flows);
    for record in found.iter().map(|(_, r)| r).chain(resident.values()) {
        let slots = kernel.slots(record.uid, record.splt_slots)?;
        ensure!(
            slots == host.slots[&record.uid],
            "SPLT: kernel {slots:?}, host {:?}",
            host.slots[&record.uid]
        );
    }
    Ok(())
}

fn ended(event: &Handed) -> Result<(EndReason, Record)> {
    match event {
        Handed::Record(why, record) => Ok((*why, **record)),
        Handed::Overflow(event) => anyhow::bail!("unexpected overflow: {event:?}"),
    }
}

fn by_key(records: Vec<Record>) -> HashMap<FlowKey, Record> {
    records.into_iter().map(|r| (r.key, r)).collect()
}

/// The wire's view of a super-packet: what `tcp_gso_segment` and `__udp_gso_segment` make of it,
/// as frames of their own.
fn segments(packet: &Builder, payload: usize, size: usize, flags: u8) -> Vec<Vec<u8>> {
    let count = payload.div_ceil(size);
    (0..count)
        .map(|i| {
            let first = if i == 0 { 0 } else { CWR };
            let last = if i + 1 == count { 0 } else { FIN | PSH };
            packet
                .clone()
                .flags(flags & !first & !last)
                .payload(size.min(payload - i * size))
                .build()
        })
        .collect()
}

/// A super-packet on its way out is accounted as the packets that the wire will see.
#[test]
fn super_packets_are_accounted_as_their_segments() -> Result<()> {
    if !root::available("super_packets_are_accounted_as_their_segments")? {
        return Ok(());
    }
    for accounting in 0..4 {
        let knobs = Knobs {
            accounting,
            n_dissections: u32::MAX,
            statistics: true,
            splt: 12,
            tick_ns: 1,
            ..Knobs::default()
        };
        let setup = Setup { knobs, ..Setup::default() };
        let kernel = Kernel::load(&setup, &["flowmeter_tc_out", "flowmeter_reap"])?;
        let packet = (0..6_u8, any::<bool>(), any::<u8>(), 1..3_300_usize, 100..1_500_usize);
        let several = proptest::collection::vec(packet, 1..6);
        for_all(100, &several, |packets| {
            kernel.clear()?;
            let mut host = Host::new(Knobs { n_dissections: 0, ..knobs });
            for (kind, back, flags, payload, size) in packets {
                let bare = match kind {
                    0 => tcp().from("10.0.0.1:1").to("10.0.0.2:2").tcp_options(3),
                    1 => tcp().from("[2001:db8::1]:1").to("[2001:db8::2]:2"),
                    2 => udp().from("10.0.0.1:1").to("10.0.0.2:2"),
                    3 => tcp().from("10.0.0.1:1").to("10.0.0.2:2").vlan(5),
                    4 => tcp().from("10.0.0.1:1").to("10.0.0.2:2").in_vxlan(9),
                    _ => tcp().from("10.0.0.3:1").to("10.0.0.4:2").within(Around::Ip(Over::V6)),
                };
                let bare = if back { bare.back() } else { bare };
                let wire = segments(&bare, payload, size, flags);
                let whole = bare.clone().flags(flags).payload(payload).build();
                let offload = (wire.len() > 1).then(|| SkbOffload {
                    size: size as u32,
                    segments: wire.len() as u32,
                    wire: wire.iter().map(|frame| frame.len() as u32).sum(),
                });
                kernel.tc("flowmeter_tc_out", &whole, offload)?;
                let forwarded = kernel.forwarded()?;
                ensure!(forwarded.len() == 1, "{} events", forwarded.len());
                let (event, _) = &forwarded[0];
                for frame in &wire {
                    let packet = host.admit(frame).context("a segment was ignored")?;
                    host.meter(&packet, event.time_ns, event.uid);
                }
            }
            for record in kernel.resident()? {
                let mut expected = host.flows[&record.key];
                let runs = kernel.slots(record.uid, record.splt_slots)?;
                ensure!(expand(&runs) == host.slots[&record.uid], "SPLT: {runs:?}");
                // Runs of equal packets share a slot; that is all that may differ.
                expected.splt_slots = record.splt_slots;
                ensure!(record == expected, "kernel {record:#?}, segments {expected:#?}");
            }
            let sent: u64 = host.flows.values().map(Record::packets).sum();
            let counters = kernel.counters(1)?;
            ensure!(counters.get(Counter::Seen) >= sent);
            Ok(())
        })?;
    }
    Ok(())
}

/// The slots with one packet each.
fn expand(runs: &[Slot]) -> Vec<Slot> {
    runs.iter()
        .flat_map(|run| {
            (0..run.repeat).map(|i| Slot {
                piat: if i == 0 { run.piat } else { 0 },
                repeat: 1,
                ..*run
            })
        })
        .collect()
}

/// `split` without the wire length, as on the way in, gives the same as with it.
#[test]
fn segments_are_the_same_with_and_without_the_wire_length() {
    let packet = tcp().from("10.0.0.1:1").to("10.0.0.2:2").in_vxlan(9).payload(3_000);
    let frame = packet.build();
    let host = Host::new(Knobs::default());
    let split = |header| {
        let mut p = host.parse(&frame).expect("a whole packet");
        let offload = Offload { size: 1_400, segments: 3, length: frame.len() as u32, header };
        segment::split(&mut p, offload);
        p
    };
    let header = frame.len() as u32 - 3_000;
    assert_eq!(split(0), split(header));
}

/// What a packet was counted as, and that nothing else was counted.
fn balance(counters: &Counters) -> Result<()> {
    let sum = |of: &[Counter]| of.iter().map(|&c| counters.get(c)).sum::<u64>();
    let ignored = sum(&[
        Counter::NonIp,
        Counter::Truncated,
        Counter::Malformed,
        Counter::NoNextHeader,
        Counter::TooDeep,
        Counter::OrphanFragment,
        Counter::Filtered,
    ]);
    let kept = sum(&[Counter::Metered, Counter::Overflowed, Counter::Lost]);
    let seen = counters.get(Counter::Seen);
    ensure!(seen == kept + ignored, "seen {seen}, kept {kept}, ignored {ignored}: {counters:?}");
    Ok(())
}

/// Mixed traffic through a map of few entries: whatever is seen is counted once, and what is
/// counted as overflowed is in the ring.
#[test]
fn nothing_is_lost_silently() -> Result<()> {
    if !root::available("nothing_is_lost_silently")? {
        return Ok(());
    }
    let setup = Setup {
        max_flows: 8,
        knobs: Knobs { n_dissections: 0, ..Knobs::default() },
        ..Setup::default()
    };
    let programs = ["flowmeter_xdp", "flowmeter_tc_in", "flowmeter_tc_out"];
    let kernel = Kernel::load(&setup, &programs)?;
    let sent = std::cell::RefCell::new([(0_u64, 0_u64); 2]);
    for_all(1_000, &(strategies::frames(), 0..3_usize), |(frame, at)| {
        if !tc_takes(&frame) {
            return Ok(());
        }
        match programs[at] {
            name @ "flowmeter_xdp" => kernel.xdp(name, &frame, 1)?,
            name => kernel.tc(name, &frame, None)?,
        };
        let (packets, bytes) = &mut sent.borrow_mut()[at / 2];
        *packets += 1;
        *bytes += frame.len() as u64;
        Ok(())
    })?;

    let handed = kernel.handed()?;
    let overflows =
        handed.iter().filter(|event| matches!(event, Handed::Overflow(_))).count() as u64;
    let resident: u64 = kernel.resident()?.iter().map(Record::packets).sum();
    let both = [kernel.counters(0)?, kernel.counters(1)?];
    for (counters, (packets, bytes)) in both.iter().zip(*sent.borrow()) {
        balance(counters)?;
        let seen = (counters.get(Counter::Seen), counters.get(Counter::SeenBytes));
        assert_eq!(seen, (packets, bytes));
        assert_eq!(counters.get(Counter::Lost), 0);
    }
    let total = |counter| both.iter().map(|c| c.get(counter)).sum::<u64>();
    assert_eq!(total(Counter::Metered), resident);
    assert_eq!(total(Counter::Overflowed), overflows);
    assert_eq!(total(Counter::FlowsBegun), 8);
    assert!(overflows > 0, "the map of 8 flows was never full");
    Ok(())
}

/// An overflowing packet arrives whole: userspace could meter it as the kernel would have.
#[test]
fn a_packet_that_finds_no_room_is_handed_over_whole() -> Result<()> {
    if !root::available("a_packet_that_finds_no_room_is_handed_over_whole")? {
        return Ok(());
    }
    let setup = Setup { max_flows: 1, ..Setup::default() };
    let kernel = Kernel::load(&setup, &["flowmeter_xdp"])?;
    let first = udp().from("10.0.0.1:1").to("10.0.0.2:2").build();
    let second = udp().from("10.0.0.3:1").to("10.0.0.4:2").vlan(5).payload(9).build();
    kernel.xdp("flowmeter_xdp", &first, 1)?;
    kernel.xdp("flowmeter_xdp", &second, 1)?;
    let handed = kernel.handed()?;
    let [Handed::Overflow(event)] = &handed[..] else {
        anyhow::bail!("not one overflow but {handed:?}");
    };
    let expected = Host::new(setup.knobs).parse(&second).ok();
    assert_eq!(Some(event.packet), expected);
    assert_eq!(event.interface, 0);
    assert!(event.time_ns > setup.wall_offset);
    Ok(())
}

/// Nobody reads the ring: overflowing packets become lost ones, counted; a record whose timeout
/// has passed goes on, marked, and no packet of it is missing.
#[test]
fn a_stalled_reader_is_counted() -> Result<()> {
    if !root::available("a_stalled_reader_is_counted")? {
        return Ok(());
    }
    let setup = Setup {
        max_flows: 2,
        record_ring: 4096,
        knobs: Knobs { idle_ns: 0, n_dissections: 0, ..Knobs::default() },
        ..Setup::default()
    };
    let kernel = Kernel::load(&setup, &["flowmeter_xdp"])?;
    for round in 0..100_u16 {
        for port in 1..=4_u16 {
            let from = format!("10.0.0.1:{}", port * 100);
            let packet = udp().from(&from).to("10.0.0.2:2").payload(usize::from(round));
            kernel.xdp("flowmeter_xdp", &packet.build(), 1)?;
        }
    }
    let counters = kernel.counters(0)?;
    balance(&counters)?;
    let resident = kernel.resident()?;
    let handed = kernel.handed()?;
    let out: u64 = handed.iter().filter_map(Handed::record).map(Record::packets).sum();
    let kept: u64 = resident.iter().map(Record::packets).sum();
    assert_eq!(counters.get(Counter::Seen), 400);
    assert_eq!(counters.get(Counter::Metered), out + kept);
    assert_eq!(
        counters.get(Counter::RecordsOut) + counters.get(Counter::Overflowed),
        handed.len() as u64
    );
    assert!(counters.get(Counter::Lost) > 0, "{counters:?}");
    assert!(counters.get(Counter::ExpiryLate) > 0, "{counters:?}");
    assert!(resident.iter().all(|r| r.marks == mark::LATE_EXPIRY));
    Ok(())
}

/// Too few chunks: what SPLT loses is counted and marked, and the flows are metered all the same.
#[test]
fn splt_without_room_is_marked() -> Result<()> {
    if !root::available("splt_without_room_is_marked")? {
        return Ok(());
    }
    let setup = Setup {
        max_chunks: 1,
        knobs: Knobs { splt: 2, n_dissections: 0, ..Knobs::default() },
        ..Setup::default()
    };
    let kernel = Kernel::load(&setup, &["flowmeter_xdp"])?;
    for port in ["1", "2"] {
        let packet = udp().from(&format!("10.0.0.1:{port}")).to("10.0.0.2:9");
        kernel.xdp("flowmeter_xdp", &packet.build(), 3)?;
    }
    let mut found: Vec<_> =
        kernel.resident()?.iter().map(|r| (r.key.low_port, r.packets(), r.marks)).collect();
    found.sort_unstable();
    assert_eq!(found, [(1, 3, 0), (2, 3, mark::SPLT_LOST)]);
    assert_eq!(kernel.counters(0)?.get(Counter::SpltLost), 2);
    Ok(())
}

/// Flows of one UDP packet each, on the ports 1 to `n`.
fn begin_flows(kernel: &Kernel, n: u16) -> Result<()> {
    for port in 1..=n {
        let packet = udp().from(&format!("10.0.0.1:{port}")).to("10.0.0.2:9");
        kernel.xdp("flowmeter_xdp", &packet.build(), 1)?;
    }
    Ok(())
}

#[test]
fn the_reaper_takes_ended_flows_only() -> Result<()> {
    if !root::available("the_reaper_takes_ended_flows_only")? {
        return Ok(());
    }
    let setup = Setup::default();
    let kernel = Kernel::load(&setup, &["flowmeter_xdp", "flowmeter_reap"])?;
    begin_flows(&kernel, 2)?;
    let mut records = kernel.resident()?;
    records.sort_unstable_by_key(Record::last_ns);
    let [early, late] = records[..] else {
        anyhow::bail!("not two flows but {records:?}");
    };
    let keys = [early.key, late.key];
    // In whole milliseconds, as the rule is.
    let idle = |r: &Record| r.last_ns() / MILLISECOND * MILLISECOND + setup.knobs.idle_ns;

    assert_eq!(kernel.reap(&keys, idle(&early) - MILLISECOND, false)?, 2);
    assert!(kernel.handed()?.is_empty());

    // The first flow alone, unless both began within a millisecond: ask for it only.
    assert_eq!(kernel.reap(&keys[..1], idle(&early), false)?, 1);
    let handed: Vec<_> = kernel.handed()?.iter().map(ended).collect::<Result<_>>()?;
    assert_eq!(handed, [(EndReason::Idle, early)]);
    assert_eq!(kernel.resident()?, [late]);

    // A key that is gone is dealt with; force takes what has not ended.
    assert_eq!(kernel.reap(&keys, 0, true)?, 2);
    let handed: Vec<_> = kernel.handed()?.iter().map(ended).collect::<Result<_>>()?;
    assert_eq!(handed, [(EndReason::Forced, late)]);
    assert!(kernel.resident()?.is_empty());
    Ok(())
}

/// With a full ring the reaper stops, and takes the rest when there is room: each flow once.
#[test]
fn the_reaper_waits_for_room() -> Result<()> {
    if !root::available("the_reaper_waits_for_room")? {
        return Ok(());
    }
    let setup = Setup { record_ring: 4096, ..Setup::default() };
    let kernel = Kernel::load(&setup, &["flowmeter_xdp", "flowmeter_reap"])?;
    begin_flows(&kernel, MAX_REAP as u16)?;
    let expected = by_key(kernel.resident()?);
    let keys: Vec<_> = expected.keys().copied().collect();
    let (mut done, mut calls, mut taken) = (0, 0, Vec::new());
    while done < keys.len() {
        let n = kernel.reap(&keys[done..], 0, true)? as usize;
        ensure!(n > 0, "an empty ring has no room for a record");
        done += n;
        calls += 1;
        let handed = kernel.handed()?;
        assert_eq!(handed.len(), n);
        taken.extend(handed.iter().filter_map(Handed::record).copied());
    }
    assert!(calls > 1, "64 records fit a ring of one page");
    assert_eq!(taken.len(), keys.len());
    assert_eq!(by_key(taken), expected);
    assert!(kernel.resident()?.is_empty());
    Ok(())
}

/// The reaper takes hot flows away under the packets' noses, and every packet is in exactly one
/// record, or counted as what became of it.
#[test]
fn no_packet_is_lost_or_doubled_while_its_flow_is_reaped() -> Result<()> {
    if !root::available("no_packet_is_lost_or_doubled_while_its_flow_is_reaped")? {
        return Ok(());
    }
    const ROUNDS: u32 = 400;
    const REPEAT: u32 = 500;
    let setup = Setup {
        knobs: Knobs { n_dissections: 0, statistics: true, ..Knobs::default() },
        record_ring: 1 << 24,
        ..Setup::default()
    };
    let kernel = Kernel::load(&setup, &["flowmeter_xdp", "flowmeter_reap"])?;
    let frames: Vec<_> = (1..=4)
        .map(|port| udp().from(&format!("10.0.0.1:{port}")).to("10.0.0.2:9").build())
        .collect();
    let host = Host::new(setup.knobs);
    let keys: Vec<_> = frames
        .iter()
        .filter_map(|frame| host.parse(frame).ok())
        .map(|p: Packet| FlowKey::of(&p, 0).0)
        .collect();
    let done = AtomicBool::new(false);

    let send = || -> Result<()> {
        for _ in 0..ROUNDS {
            for frame in &frames {
                kernel.xdp("flowmeter_xdp", frame, REPEAT)?;
            }
        }
        Ok(())
    };
    let handed = thread::scope(|scope| -> Result<Vec<Handed>> {
        let reaper = scope.spawn(|| -> Result<Vec<Handed>> {
            let mut handed = Vec::new();
            while !done.load(Ordering::Relaxed) {
                kernel.reap(&keys, 0, true)?;
                handed.extend(kernel.handed()?);
            }
            handed.extend(kernel.handed()?);
            Ok(handed)
        });
        let senders = [scope.spawn(send), scope.spawn(send)];
        for sender in senders {
            sender.join().expect("a sender does not panic")?;
        }
        done.store(true, Ordering::Relaxed);
        reaper.join().expect("the reaper does not panic")
    })?;

    let sent = u64::from(ROUNDS) * u64::from(REPEAT) * frames.len() as u64 * 2;
    let records = handed.iter().filter_map(Handed::record);
    let taken: u64 = records.clone().map(Record::packets).sum();
    let overflowed = handed.len() as u64 - records.clone().count() as u64;
    let resident: u64 = kernel.resident()?.iter().map(Record::packets).sum();
    let counters = kernel.counters(0)?;
    balance(&counters)?;
    println!(
        "{sent} packets sent: {taken} in {} records reaped, {resident} resident, {overflowed} overflowed",
        records.clone().count()
    );
    assert_eq!(counters.get(Counter::Seen), sent);
    assert_eq!(counters.get(Counter::Overflowed), overflowed);
    assert_eq!(counters.get(Counter::Metered), taken + resident);
    // No number is given twice, or a record would be mistaken for another.
    let mut uids: Vec<_> = records.map(|r| r.uid).collect();
    uids.sort_unstable();
    let count = uids.len();
    uids.dedup();
    assert_eq!(uids.len(), count);
    assert!(count > 100, "the reaper hardly ran: {count} records");
    Ok(())
}
