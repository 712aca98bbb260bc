//! Is every packet counted once, whatever becomes of it?

use std::cell::RefCell;

use anyhow::{Result, bail, ensure};
use flowmeter_common::counter::{COUNTERS, Counter, Counters};
use flowmeter_common::knobs::Knobs;
use flowmeter_common::record::{Record, mark};
use flowmeter_tests::host::Host;
use flowmeter_tests::kernel::{Handed, Kernel, Setup};
use flowmeter_tests::packets::{strategies, udp};
use flowmeter_tests::root;

use crate::{for_all, tc_takes};

/// Why a packet can be ignored.
const IGNORED: [Counter; 7] = [
    Counter::NonIp,
    Counter::Truncated,
    Counter::Malformed,
    Counter::NoNextHeader,
    Counter::TooDeep,
    Counter::OrphanFragment,
    Counter::Filtered,
];

/// What a packet was counted as, and that nothing else was counted.
pub fn check(counters: &Counters) -> Result<()> {
    let sum = |of: &[Counter]| of.iter().map(|&c| counters.get(c)).sum::<u64>();
    let ignored = sum(&IGNORED);
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
    // Packets, bytes and packets ignored by reason, at ingress and at egress.
    let sent = RefCell::new([(0_u64, 0_u64, [0_u64; COUNTERS]); 2]);
    let host = RefCell::new(Host::new(setup.knobs));
    for_all(1_000, &(strategies::frames(), 0..3_usize), |(frame, at)| {
        if !tc_takes(&frame) || !kernel.xdp_bytes().contains(&frame.len()) {
            return Ok(());
        }
        match programs[at] {
            name @ "flowmeter_xdp" => kernel.xdp(name, &frame, 1)?,
            name => kernel.tc(name, &frame, None)?,
        };
        let (packets, bytes, ignored) = &mut sent.borrow_mut()[at / 2];
        *packets += 1;
        *bytes += frame.len() as u64;
        let mut host = host.borrow_mut();
        match host.parse(&frame) {
            Err(why) => ignored[Counter::from(why) as usize] += 1,
            Ok(_) if host.admit(&frame).is_none() => ignored[Counter::OrphanFragment as usize] += 1,
            Ok(_) => {}
        }
        Ok(())
    })?;

    let handed = kernel.handed()?;
    let overflows =
        handed.iter().filter(|event| matches!(event, Handed::Overflow(_))).count() as u64;
    let resident: u64 = kernel.resident()?.iter().map(Record::packets).sum();
    let both = [kernel.counters(0)?, kernel.counters(1)?];
    for (counters, (packets, bytes, ignored)) in both.iter().zip(*sent.borrow()) {
        check(counters)?;
        let seen = (counters.get(Counter::Seen), counters.get(Counter::SeenBytes));
        assert_eq!(seen, (packets, bytes));
        assert_eq!(counters.get(Counter::Lost), 0);
        for why in IGNORED {
            assert_eq!(counters.get(why), ignored[why as usize], "{why:?}");
        }
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
        bail!("not one overflow but {handed:?}");
    };
    let expected = Host::new(setup.knobs).parse(&second).ok();
    assert_eq!(Some(event.packet), expected);
    assert_eq!(event.interface, 0);
    assert_eq!(event.wall_offset, setup.wall_offset);
    assert!(event.clock_ns > 0);
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
    check(&counters)?;
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
