//! Does a flow know the sockets of its own packets, and of no others?
//!
//! In a test run every packet comes from a socket made for it, so a direction of a flow knows one
//! exactly if a packet of it was metered at egress.

use std::cell::RefCell;
use std::collections::HashSet;

use anyhow::{Context as _, Result, ensure};
use flowmeter_common::counter::Counter;
use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::Knobs;
use flowmeter_tests::host::Host;
use flowmeter_tests::kernel::{Kernel, Setup, stay_on_this_cpu};
use flowmeter_tests::meter::slowness;
use flowmeter_tests::packets::{Builder, strategies, tcp, udp};
use flowmeter_tests::root;
use proptest::prelude::*;

use crate::{for_all, tc_takes};

/// A packet of one of a few flows, back and forth, a fragment that may have no first one, or
/// anything.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let flow = |packet: Builder, back| if back { packet.back() } else { packet };
    let port = 1..7_u16;
    prop_oneof![
        4 => (port.clone(), any::<bool>()).prop_map(move |(port, back)| {
            flow(udp().from(&format!("10.0.0.1:{port}")).to("10.0.0.2:9"), back).build()
        }),
        4 => (port, any::<bool>()).prop_map(move |(port, back)| {
            flow(tcp().ack().from(&format!("[2001:db8::1]:{port}")).to("[2001:db8::2]:9"), back)
                .build()
        }),
        2 => (0..16_u32, any::<bool>()).prop_map(|(id, later)| {
            let packet = udp().from("10.0.0.3:4").to("10.0.0.4:5").payload(16);
            packet.fragment(id, if later { 64 } else { 0 }, true).build()
        }),
        1 => strategies::frames(),
    ]
}

/// In a map that some flows find full, too: their packets are in none of the records.
#[test]
fn a_flow_has_no_sockets_but_its_packets_own() -> Result<()> {
    if !root::available("a_flow_has_no_sockets_but_its_packets_own")? {
        return Ok(());
    }
    // What a packet leaves behind, it leaves on its CPU.
    stay_on_this_cpu()?;
    let knobs = Knobs { n_dissections: 0, ..Knobs::default() };
    let setup = Setup { knobs, max_flows: 8, attribute: true, ..Setup::default() };
    let programs = ["flowmeter_xdp", "flowmeter_tc_in", "flowmeter_tc_out", "flowmeter_reap"];
    let kernel = Kernel::load(&setup, &programs)?;
    let steps = proptest::collection::vec((packets(), 0..programs.len() - 1), 1..40);
    let not_metered = RefCell::new([0_u64; 2]);
    for_all(300, &steps, |steps| {
        kernel.clear()?;
        let mut host = Host::new(knobs);
        let mut sent: HashSet<(FlowKey, bool)> = HashSet::new();
        for (frame, at) in steps.iter().filter(|(frame, _)| tc_takes(frame)) {
            match programs[*at] {
                name @ "flowmeter_xdp" => kernel.xdp(name, frame, 1)?,
                name => kernel.tc(name, frame, None)?,
            };
            if let Some(packet) = host.admit(frame)
                && programs[*at] == "flowmeter_tc_out"
            {
                sent.insert(FlowKey::of(&packet, 0));
            }
        }
        for record in kernel.resident()? {
            let ends = [false, true].map(|reverse| (record.initiator_is_high != 0) != reverse);
            for (direction, from_high) in record.directions.iter().zip(ends) {
                let is_sent = sent.contains(&(record.key, from_high));
                ensure!((direction.cookie != 0) == is_sent, "sent {is_sent}: {record:?}");
                ensure!(direction.socketless == 0, "{record:?}");
            }
        }
        let counters = kernel.counters(1)?;
        *not_metered.borrow_mut() =
            [Counter::OrphanFragment, Counter::Overflowed].map(|why| counters.get(why));
        Ok(())
    })?;
    let counted = *not_metered.borrow();
    // Where all is slow, fewer cases are tried.
    let enough = 100 / u64::from(slowness());
    ensure!(counted.iter().all(|n| *n > enough), "{counted:?} packets were not metered");
    Ok(())
}

/// The simplest case, told as it happens.
#[test]
fn a_fragment_without_its_first_gives_its_socket_to_nobody() -> Result<()> {
    if !root::available("a_fragment_without_its_first_gives_its_socket_to_nobody")? {
        return Ok(());
    }
    stay_on_this_cpu()?;
    let setup = Setup { attribute: true, ..Setup::default() };
    let kernel = Kernel::load(&setup, &["flowmeter_xdp", "flowmeter_tc_out"])?;
    let received = udp().from("10.0.0.2:5").to("10.0.0.1:6").payload(9);
    let orphan = udp().from("10.0.0.1:7").to("10.0.0.3:8").payload(16).fragment(1, 64, false);
    kernel.xdp("flowmeter_xdp", &received.build(), 1)?;
    kernel.tc("flowmeter_tc_out", &orphan.build(), None)?;
    let records = kernel.resident()?;
    let [record] = &records[..] else { anyhow::bail!("{records:?}") };
    ensure!(record.directions.map(|d| d.cookie) == [0, 0], "{record:?}");
    // A packet of the flow itself does.
    kernel.tc("flowmeter_tc_out", &received.back().build(), None)?;
    let records = kernel.resident()?;
    let record = records.first().context("the flow is gone")?;
    ensure!(record.directions.map(|d| d.cookie != 0) == [false, true], "{record:?}");
    Ok(())
}
