//! Is every packet accounted for?
//!
//! `seen = metered + overflowed + ignored + lost` for each interface and direction, counted by
//! the kernel, and `metered + overflowed = exported + resident`, where the kernel's and the host's
//! counts meet. The report says both, and by how much they are off.

use flowmeter_common::counter::Counter;
use flowmeter_common::owner::OwnerCounters;
use flowmeter_common::tally::Record;
use serde_json::{Map, Value, json};

use crate::annotate::Annotator;
use crate::attribution::{HookedCounters, PollerCounters, profile};
use crate::capture::kernel::{self, Balance, Hook, Tally, Traffic, now_ns};
use crate::collector::kernel::Collector;

/// What went through the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Flows that came out of the collector.
    pub flows_ended: u64,
    /// Their packets.
    pub packets_ended: u64,
    /// Flows written.
    pub flows_written: u64,
    /// Their packets.
    pub packets_written: u64,
    /// Flows not written because `max_nflows` were.
    pub flows_withheld: u64,
    /// Their packets.
    pub packets_withheld: u64,
}

impl Books {
    /// A flow came out of the collector.
    pub fn ended(&mut self, record: &Record) {
        self.flows_ended += 1;
        self.packets_ended += record.packets();
    }

    /// A flow was written.
    pub fn written(&mut self, record: &Record) {
        self.flows_written += 1;
        self.packets_written += record.packets();
    }

    /// A flow came after the last that was wanted.
    pub fn withheld(&mut self, record: &Record) {
        self.flows_withheld += 1;
        self.packets_withheld += record.packets();
    }
}

/// The state of the meter at an instant.
pub struct Report {
    balance: Balance,
    books: Books,
    interfaces: Vec<(String, Vec<Hook>, Option<Traffic>)>,
    /// Lines still in memory.
    unwritten: usize,
    urls_redacted: u64,
    left: usize,
    waiting: usize,
    unsettled: u64,
    dissectors_lost: (u64, u64),
    not_dissected: u64,
    overflow_flows: usize,
    clock_step_ns: i64,
    sockets: Option<(OwnerCounters, HookedCounters)>,
    polled: Option<PollerCounters>,
    profiles: Option<profile::Counters>,
    time_ns: u64,
}

impl Report {
    /// Takes it. Of the log, `unwritten` lines are in memory, and `urls_redacted` URLs had a secret.
    pub fn of(
        collector: &Collector,
        books: &Books,
        annotator: &Annotator,
        unwritten: usize,
        urls_redacted: u64,
    ) -> Result<Self, kernel::Error> {
        let kernel = collector.kernel();
        Ok(Self {
            balance: collector.balance()?,
            books: *books,
            interfaces: kernel
                .hooks()
                .map(|(i, hooks)| (i.name.to_string(), hooks.to_vec(), i.traffic_since()))
                .collect(),
            unwritten,
            urls_redacted,
            left: collector.left(),
            waiting: annotator.waiting(),
            unsettled: annotator.unsettled(),
            dissectors_lost: annotator.dissectors_lost(),
            not_dissected: annotator.not_dissected(),
            overflow_flows: collector.overflowed(),
            clock_step_ns: kernel.clock_step(),
            polled: annotator.polled(),
            profiles: annotator.profiles(),
            sockets: annotator
                .hooked()
                .map(|hooked| Ok((kernel.owner_counters()?, hooked)))
                .transpose()?,
            time_ns: now_ns(),
        })
    }

    /// Packets that were metered and have not come out of the collector.
    fn resident(&self) -> i64 {
        let total = self.balance.total();
        let metered = total.get(Counter::Metered) + total.get(Counter::Overflowed);
        metered.wrapping_sub(self.books.packets_ended).cast_signed()
    }

    /// The report as a record of the log.
    pub fn json(&self) -> Value {
        let total = self.balance.total();
        let interfaces = self.interfaces.iter().zip(&self.balance.interfaces);
        let metered = total.get(Counter::Metered) + total.get(Counter::Overflowed);
        let sockets = self.sockets.map(|(kernel, hooked)| {
            json!({
                "known": hooked.entries,
                "evicted": hooked.evictions,
                "evicted_open": hooked.evicted_open,
                "uses_evicted": hooked.uses_evicted,
                "ambiguous": hooked.ambiguous,
                "events_lost": kernel.lost,
                "programs_lost": kernel.execs_lost,
                "without_memory": kernel.unkept,
            })
        });
        let procfs = self.polled.map(|polled| {
            json!({
                "polls": polled.polls,
                "polls_failed": polled.failed_polls,
                "polls_delayed": polled.delayed,
                "scans": polled.scans,
                "longest_poll_ms": polled.longest_poll.as_millis() as u64,
                "sockets": polled.sockets,
                "without_process": polled.ownerless,
                "beyond_limit": polled.beyond_limit,
                "malformed": polled.malformed,
                "unreadable": polled.unreadable,
                "known": polled.entries,
                "evicted": polled.evictions,
                "refused": polled.refused,
                "ambiguous": polled.ambiguous,
            })
        });
        json!({
            "type": "meter",
            "time_ns": self.time_ns,
            "flows_expired": self.books.flows_written,
            "packets_processed": metered,
            "packets_ignored": total.ignored(),
            "packets_lost": total.get(Counter::Lost),
            "packets_exported": self.books.packets_written,
            "packets_withheld": self.books.packets_withheld,
            "packets_resident": self.resident(),
            "balance_error": total.error(),
            "lines_unwritten": self.unwritten,
            "flows_left": self.left,
            "flows_waiting": self.waiting,
            "flows_without_verdict": self.unsettled,
            "flows_in_userspace": self.overflow_flows,
            "flows_withheld": self.books.flows_withheld,
            "flows_begun": total.get(Counter::FlowsBegun),
            "expiry_late": total.get(Counter::ExpiryLate),
            "splt_lost": total.get(Counter::SpltLost),
            "dissection_forwarded": total.get(Counter::Forwarded),
            "dissection_withheld": total.get(Counter::Withheld),
            "dissector_crashes": self.dissectors_lost.0,
            "dissector_hangs": self.dissectors_lost.1,
            "dissection_lost": total.get(Counter::DissectionLost) + self.not_dissected,
            "urls_redacted": self.urls_redacted,
            "clock_step_ns": self.clock_step_ns,
            "sockets": sockets,
            "procfs": procfs,
            "processes": self.profiles.map(|profiles| json!({
                "known": profiles.known,
                "evicted": profiles.evicted,
                "secrets_redacted": profiles.redacted,
            })),
            "interfaces": interfaces
                .map(|((name, hooks, traffic), tallies)| interface(name, hooks, *traffic, tallies))
                .collect::<Vec<_>>(),
        })
    }

    /// Prints the report on standard error, as one line of JSON.
    pub fn print(&self) {
        eprintln!("{}", self.json());
    }
}

fn interface(name: &str, hooks: &[Hook], traffic: Option<Traffic>, tallies: &[Tally; 2]) -> Value {
    let [ingress, egress] = tallies;
    json!({
        "name": name,
        "hooks": hooks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "rx_packets": traffic.map(|traffic| traffic.rx_packets),
        "rx_bytes": traffic.map(|traffic| traffic.rx_bytes),
        "tx_packets": traffic.map(|traffic| traffic.tx_packets),
        "tx_bytes": traffic.map(|traffic| traffic.tx_bytes),
        "ingress": direction(ingress),
        "egress": direction(egress),
    })
}

fn direction(tally: &Tally) -> Value {
    let ignored: Map<String, Value> =
        tally.ignored_by_reason().map(|(name, n)| (name.to_owned(), n.into())).collect();
    json!({
        "seen": tally.get(Counter::Seen),
        "seen_bytes": tally.get(Counter::SeenBytes),
        "metered": tally.get(Counter::Metered),
        "overflowed": tally.get(Counter::Overflowed),
        "ignored": ignored,
        "lost": tally.get(Counter::Lost),
    })
}
