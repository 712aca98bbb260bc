//! Is every frame of the captures accounted for?
//!
//! `seen = metered + ignored`, each with its reason, and `metered = exported + withheld`. Together:
//! what was seen was ignored, exported or withheld, and the report says by how much that is off.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Map, Value, json};

use crate::collector::pcap::Tally;
use crate::dissect::place::Places;
use crate::sink;

/// What became of the flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Flows written.
    pub flows_written: u64,
    /// Their packets.
    pub packets_written: u64,
    /// Packets of flows that came after the last one that was wanted.
    pub packets_withheld: u64,
    /// URLs in which secrets were redacted.
    pub urls_redacted: u64,
    /// Lines that the log did not take.
    pub lines_unwritten: usize,
    /// Dissecting processes that crashed, and that hung.
    pub dissectors_lost: (u64, u64),
    /// Packets that were dissected, and that were not as their headers lie about their length.
    pub dissected: (u64, u64),
}

/// Packets this late are not those of two queues of a NIC; ns.
const NOTABLY_LATE_NS: u64 = 1_000_000_000;

impl Report {
    /// A flow of so many packets was written.
    pub fn written(&mut self, packets: u64) {
        self.flows_written += 1;
        self.packets_written += packets;
    }

    /// The log was given the row of a flow of so many packets. It has it, in memory at least, unless
    /// there is no file.
    pub fn row(
        &mut self,
        packets: u64,
        result: Result<(), sink::Error>,
        failed: &mut Option<sink::Error>,
    ) {
        match &result {
            Err(sink::Error::Open { .. }) => self.withheld(packets),
            _ => self.written(packets),
        }
        if let Err(e) = result {
            failed.get_or_insert(e);
        }
    }

    /// A flow of so many packets was not.
    pub fn withheld(&mut self, packets: u64) {
        self.packets_withheld += packets;
    }

    /// Takes what happened in the dissectors.
    pub fn dissected_by(&mut self, places: &Places) {
        let losses = places.losses();
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        self.dissectors_lost = (count(&losses.crashes), count(&losses.hangs));
        self.dissected = (count(&losses.inspected), count(&losses.refused));
    }

    /// Prints the balance on standard error, as one line of JSON.
    pub fn print(&self, tally: &Tally) {
        if tally.latest_ns > NOTABLY_LATE_NS {
            eprintln!(
                "flowmeter: warning: {} packets are older than those before them, by up to {} s, \
                 and count as being of their time; give captures in the order of their times",
                tally.late,
                tally.latest_ns / 1_000_000_000
            );
        }
        eprintln!("{}", self.json(tally));
    }

    fn json(&self, tally: &Tally) -> Value {
        let ignored: Map<String, Value> =
            tally.ignored().map(|(reason, n)| (reason.to_owned(), n.into())).collect();
        let packets_ignored = tally.ignored().map(|(_, n)| n).sum::<u64>();
        let accounted = packets_ignored + self.packets_written + self.packets_withheld;
        json!({
            "type": "meter",
            "packets_seen": tally.seen,
            "packets_processed": tally.metered,
            "packets_ignored": packets_ignored,
            "packets_lost": 0,
            "packets_late": tally.late,
            "flows_expired": self.flows_written,
            "packets_exported": self.packets_written,
            "packets_withheld": self.packets_withheld,
            "lines_unwritten": self.lines_unwritten,
            "packets_dissected": self.dissected.0,
            "packets_refused": self.dissected.1,
            "urls_redacted": self.urls_redacted,
            "dissector_crashes": self.dissectors_lost.0,
            "dissector_hangs": self.dissectors_lost.1,
            "balance_error": tally.seen.wrapping_sub(accounted).cast_signed(),
            "ignored": ignored,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_the_number_of_packets_that_are_unaccounted_for() {
        let tally = Tally { seen: 10, metered: 8, non_ip: 1, ..Tally::default() };
        let mut report = Report::default();
        report.written(5);
        report.withheld(2);
        // One was neither metered nor ignored, and one of a flow that went missing.
        assert_eq!(report.json(&tally)["balance_error"], 2);
        report.written(3);
        assert_eq!(report.json(&tally)["balance_error"], -1);
    }
}
