//! Where is every packet?
//!
//! A report is what a run counted, at one moment. Every figure is declared once, in [`figures`];
//! JSON, the text that Prometheus reads and `docs/meter.md` are readings of that list.

pub mod figures;
mod json;
pub mod list;
pub mod openmetrics;

use flowmeter_common::counter::Counter;
use flowmeter_common::owner::OwnerCounters;

use crate::attribution::{HookedCounters, PollerCounters, profile};
use crate::capture::kernel::{Balance, Tally, Traffic};
use crate::collector::pcap;
use crate::output::Sum;
use crate::output::queue::Counts;

/// What a run has counted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// When; ns since the epoch.
    pub time_ns: u64,
    /// Flows that have ended.
    pub ended: Sum,
    /// Of these, the ones that were not wanted.
    pub withheld: Sum,
    /// Of these, the ones that wait for the dissector.
    pub undissected: Sum,
    /// Of these, the ones that were handed to the outputs.
    pub given: Sum,
    /// What the outputs have done with them. The first is the log.
    pub outputs: Vec<(String, Counts)>,
    /// Flows that a model could not be run on, for each model.
    pub model_failures: u64,
    /// URLs in which secrets were redacted.
    pub urls_redacted: u64,
    /// Dissecting processes that ended by themselves.
    pub dissector_crashes: u64,
    /// Dissecting processes that were stopped, took too long or answered nonsense.
    pub dissector_hangs: u64,
    /// What is counted of interfaces, or of captures.
    pub of: Of,
}

/// What was metered.
#[derive(Clone, Debug)]
pub enum Of {
    /// Interfaces.
    Live(Box<Live>),
    /// Captures.
    Read(Read),
}

/// What is counted of interfaces.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Live {
    /// The kernel's counters.
    pub balance: Balance,
    /// The interfaces, in the order of the balance.
    pub interfaces: Vec<Interface>,
    /// Flows that could not be taken out of the kernel at the end.
    pub flows_left: u64,
    /// Flows written without a verdict.
    pub flows_without_verdict: u64,
    /// Flows resident in userspace.
    pub flows_in_userspace: u64,
    /// Packets that the dissector had no room for.
    pub not_dissected: u64,
    /// How far the wall clock was set since the start; ns.
    pub clock_step_ns: i64,
    /// What the kernel has reported about sockets.
    pub sockets: Option<(OwnerCounters, HookedCounters)>,
    /// What polling procfs has done.
    pub procfs: Option<PollerCounters>,
    /// What is known of processes.
    pub processes: Option<profile::Counters>,
}

/// An interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Where its packets are seen.
    pub hooks: Vec<String>,
    /// What it has counted itself; none once it is gone.
    pub traffic: Option<Traffic>,
}

/// What is counted of captures.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Read {
    /// What became of the frames.
    pub tally: pcap::Tally,
    /// Packets that were dissected, or no longer needed to be.
    pub packets_dissected: u64,
    /// Packets that were not, as their headers lie about their length.
    pub packets_refused: u64,
}

impl Report {
    /// What the first output has done. Without one, flows are where they were wanted.
    fn log(&self) -> Counts {
        let none = || Counts { written: self.given, ..Counts::default() };
        self.outputs.first().map_or_else(none, |(_, counts)| *counts)
    }

    /// The interfaces' counters, if there are any.
    fn live(&self) -> Option<&Live> {
        match &self.of {
            Of::Live(live) => Some(live),
            Of::Read(_) => None,
        }
    }

    fn read(&self) -> Option<&Read> {
        match &self.of {
            Of::Read(read) => Some(read),
            Of::Live(_) => None,
        }
    }

    /// Flows and packets that have ended and are neither written nor known not to be.
    fn waiting(&self) -> Sum {
        self.undissected + self.log().waiting
    }

    fn packets_processed(&self) -> u64 {
        match &self.of {
            Of::Live(live) => live.metered(),
            Of::Read(read) => read.tally.metered,
        }
    }

    /// Packets that were metered and whose flows have not ended; less than 0 if more packets have
    /// ended than were metered.
    fn packets_resident(&self) -> i64 {
        difference(self.packets_processed(), self.ended.packets)
    }

    /// By how many packets the books are off: `seen = processed + ignored + lost`, and
    /// `processed = exported + withheld + unwritten + resident + waiting`.
    fn balance_error(&self) -> i64 {
        let seen = match &self.of {
            Of::Live(live) => live.balance.error,
            Of::Read(Read { tally, .. }) => {
                difference(tally.seen, tally.metered + tally.ignored().map(|(_, n)| n).sum::<u64>())
            }
        };
        let handled = self.withheld + self.undissected + self.given;
        let log = self.log();
        // A record that is no flow has no packets.
        let outputs = log.written + log.waiting + log.lost;
        seen + difference(self.ended.packets, handled.packets)
            + difference(self.given.packets, outputs.packets)
            + self.packets_resident().min(0)
    }
}

impl Live {
    fn total(&self) -> Tally {
        self.balance.total()
    }

    fn metered(&self) -> u64 {
        let total = self.total();
        total.get(Counter::Metered) + total.get(Counter::Overflowed)
    }
}

fn difference(a: u64, b: u64) -> i64 {
    a.wrapping_sub(b).cast_signed()
}

#[cfg(test)]
mod example {
    use super::*;

    /// A report of captures with this many frames seen and metered, whose flows ended as given.
    pub fn read(seen: u64, metered: u64, given: Sum, withheld: Sum) -> Report {
        let tally = pcap::Tally { seen, metered, ..pcap::Tally::default() };
        Report {
            time_ns: 0,
            ended: given + withheld,
            withheld,
            undissected: Sum::default(),
            given,
            outputs: Vec::new(),
            model_failures: 0,
            urls_redacted: 0,
            dissector_crashes: 0,
            dissector_hangs: 0,
            of: Of::Read(Read { tally, ..Read::default() }),
        }
    }

    /// A report of an interface.
    pub fn live() -> Report {
        let interface = Interface {
            name: "eth\"0".into(),
            hooks: vec!["XDP".into()],
            traffic: Some(Traffic::default()),
        };
        let balance = Balance { interfaces: vec![[Tally::default(); 2]], error: 0 };
        let live = Live {
            balance,
            interfaces: vec![interface],
            sockets: Some(<_>::default()),
            procfs: Some(PollerCounters::default()),
            processes: Some(profile::Counters::default()),
            ..Live::default()
        };
        Report {
            outputs: vec![("the log".into(), Counts::default())],
            of: Of::Live(Box::new(live)),
            ..read(0, 0, Sum::default(), Sum::default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_the_number_of_packets_that_are_unaccounted_for() {
        // One frame was neither metered nor ignored.
        let report = example::read(10, 9, Sum::flow(6), Sum::flow(3));
        assert_eq!(report.balance_error(), 1);
        // One packet of a flow went missing, and one ended that was not metered.
        let mut report = example::read(9, 9, Sum::flow(6), Sum::flow(3));
        assert_eq!(report.balance_error(), 0);
        report.given = Sum::flow(5);
        assert_eq!(report.balance_error(), 1);
        report = example::read(9, 9, Sum::flow(7), Sum::flow(3));
        assert_eq!(report.balance_error(), -1);
        // What waits in a queue is there.
        report = example::read(9, 9, Sum::flow(9), Sum::default());
        let waiting = Counts { waiting: Sum::flow(9), ..Counts::default() };
        report.outputs.push(("the log".into(), waiting));
        assert_eq!(report.balance_error(), 0);
        report.outputs[0].1.waiting.packets = 8;
        assert_eq!(report.balance_error(), 1);
    }
}
