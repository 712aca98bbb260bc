//! Do kernel and host agree?
//!
//! The same bytes go through the BPF programs, by `BPF_PROG_TEST_RUN`, and through the shared
//! parser and flow update here. Needs root and the BPF object; see `flowmeter_tests::root`.

mod balance;
mod clock;
mod fragments;
mod offload;
mod reaper;
mod records;
mod sockets;
mod verdicts;

use std::collections::HashMap;

use anyhow::{Result, bail};
use flowmeter_common::key::FlowKey;
use flowmeter_common::lifetime::EndReason;
use flowmeter_common::record::Record;
use flowmeter_tests::kernel::Handed;
use flowmeter_tests::meter::slowness;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

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

/// Runs `check` on `cases` values, on fewer where all is slow, shrinking one that fails.
fn for_all<S: Strategy>(
    cases: u32,
    strategy: &S,
    check: impl Fn(S::Value) -> Result<()>,
) -> Result<()> {
    let mut runner = TestRunner::new(Config {
        cases: cases.div_ceil(slowness()),
        max_shrink_iters: 2_000 / slowness(),
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(strategy, |value| check(value).map_err(|why| TestCaseError::fail(format!("{why:#}"))))
        .map_err(|why| anyhow::anyhow!("{why}"))
}

/// The reason and the record of an event that must be one.
fn ended(event: &Handed) -> Result<(EndReason, Record)> {
    match event {
        Handed::Record(why, record) => Ok((*why, **record)),
        Handed::Overflow(event) => bail!("unexpected overflow: {event:?}"),
    }
}

/// The records by the key of their flow.
fn by_key(records: Vec<Record>) -> HashMap<FlowKey, Record> {
    records.into_iter().map(|r| (r.key, r)).collect()
}
