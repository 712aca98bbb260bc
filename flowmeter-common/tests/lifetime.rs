//! Does a flow end when the rule says so, however the answer is found?

use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::{Knobs, MILLISECOND};
use flowmeter_common::lifetime::{EndReason, ended};
use flowmeter_common::packet::Packet;
use flowmeter_common::record::{Effect, Record};
use proptest::prelude::*;

/// A flow with a packet at `first` and, in the other direction, one at `last`, on the wall; by the
/// meter's clock so much earlier.
fn flow(first: u64, last: u64, wall_offset: u64, knobs: &Knobs) -> Record {
    let p = Packet { segments: 1, ..Packet::default() };
    let mut record = Record::default();
    record.begin(&FlowKey::default(), 1, wall_offset, &p, false);
    let mut effect = Effect::default();
    record.add(&p, false, record.by_the_clock(first), knobs, &mut effect);
    record.add(&p, true, record.by_the_clock(last), knobs, &mut effect);
    record
}

/// `NFStream`'s rule as it is written down: whole milliseconds, idle before active.
fn rule(first: u64, last: u64, now: u64, knobs: &Knobs) -> Option<EndReason> {
    let since = |then: u64| (now / MILLISECOND).saturating_sub(then / MILLISECOND);
    if since(last) >= knobs.idle_ns / MILLISECOND {
        Some(EndReason::Idle)
    } else if since(first) >= knobs.active_ns / MILLISECOND {
        Some(EndReason::Active)
    } else {
        None
    }
}

/// A time span near a whole number of milliseconds, or any.
fn span() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0..6_u64, -2..=2_i64)
            .prop_map(|(ms, by)| (ms * MILLISECOND).saturating_add_signed(by)),
        4 => 0..6 * MILLISECOND,
        1 => any::<u64>(),
        1 => Just(u64::MAX),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_quick_answer_is_the_exact_one(
        first in span(),
        until_last in span(),
        until_now in span(),
        before: bool,
        idle_ns in span(),
        active_ns in span(),
        wall_offset: u64,
    ) {
        let knobs = Knobs { idle_ns, active_ns, ..Knobs::default() };
        let last = first.saturating_add(until_last);
        // A packet on another CPU may be a little older than the newest.
        let now = if before { last.saturating_sub(until_now) } else { last.saturating_add(until_now) };
        let record = flow(first, last, wall_offset, &knobs);
        let clock = record.by_the_clock(now);
        prop_assert_eq!(ended(&record, clock, &knobs), rule(first, last, now, &knobs));
    }
}

/// Counters of 32 bits cannot wrap: a direction is closed before.
#[test]
fn a_nearly_full_record_ends() {
    let knobs = Knobs::default();
    for direction in 0..2 {
        let mut record = flow(0, 0, 0, &knobs);
        record.directions[direction].packets = u64::from(u32::MAX) - 0x1_0000;
        assert_eq!(ended(&record, 0, &knobs), None);
        record.directions[direction].packets += 1;
        assert_eq!(ended(&record, 0, &knobs), Some(EndReason::Resources));
    }
}
