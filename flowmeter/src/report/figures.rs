//! Which figures has a report?
//!
//! Each is a line of [`FIGURES`]: whatever shows figures goes through that list.

use flowmeter_common::counter::Counter;
use flowmeter_common::owner::OwnerCounters;

use super::{Live, Read, Report};
use crate::attribution::{HookedCounters, PollerCounters, profile};
use crate::capture::kernel::{Tally, Traffic};
use crate::output::queue::Counts;

/// A figure.
pub struct Figure {
    /// What it is called: in JSON the member's name, in the object of its group.
    pub name: &'static str,
    /// Whether it can fall.
    pub kind: Kind,
    /// What is counted.
    pub unit: Unit,
    /// What it means.
    pub help: &'static str,
    pub(super) of: Of,
}

/// Whether a figure can fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It grows from 0.
    Counter,
    /// It is as it is.
    Gauge,
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// What the name says: packets, flows, rows, …
    Number,
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Ns,
    /// Milliseconds.
    Ms,
}

/// How a figure is read, and what of.
pub(super) enum Of {
    /// Of any run.
    Run(fn(&Report) -> i64),
    /// Of a run that meters interfaces, and of its flows.
    LiveRun(fn(&Report) -> i64),
    /// Of a run that meters interfaces.
    Live(fn(&Live) -> i64),
    /// Of a run that reads captures.
    Read(fn(&Read) -> i64),
    /// Of frames in captures, by the reason for which they are ignored.
    Reasons,
    /// Of each output.
    Output(fn(&Counts) -> u64),
    /// Of sockets.
    Sockets(fn(&OwnerCounters, &HookedCounters) -> u64),
    /// Of polling.
    Procfs(fn(&PollerCounters) -> u64),
    /// Of processes.
    Processes(fn(&profile::Counters) -> u64),
    /// Of an interface, by its own counters.
    Interface(fn(&Traffic) -> u64),
    /// Of an interface's direction.
    Direction(fn(&Tally) -> u64),
    /// Of an interface's direction, by the reason for which packets are ignored.
    DirectionReasons,
}

use Kind::{Counter as Count, Gauge};
use Of::{
    Direction, DirectionReasons, Interface, Live as OfLive, LiveRun, Output, Processes, Procfs,
    Read as OfRead, Reasons, Run, Sockets,
};
use Unit::{Bytes, Ms, Ns, Number};

const fn figure(name: &'static str, kind: Kind, unit: Unit, of: Of, help: &'static str) -> Figure {
    Figure { name, kind, unit, help, of }
}

/// All figures, in the order in which JSON has them.
#[rustfmt::skip]
pub const FIGURES: &[Figure] = &[
    figure("time_ns", Gauge, Ns, Run(|r| r.time_ns as i64), "When the report was made, since the epoch"),
    figure("flows_expired", Count, Number, Run(|r| r.log().written.flows as i64), "Flows written: the first output has taken their rows"),
    figure("packets_seen", Count, Number, OfRead(|r| r.tally.seen as i64), "Frames in the captures"),
    figure("packets_processed", Count, Number, Run(|r| r.packets_processed() as i64), "Packets metered"),
    figure("packets_ignored", Count, Number, Run(packets_ignored), "Packets not metered; `ignored` has them by reason"),
    figure("packets_lost", Count, Number, Run(|r| r.live().map_or(0, |l| get(&l.total(), Counter::Lost) as i64)), "Packets for which neither the flow table nor the ring to userspace had room"),
    figure("packets_late", Count, Number, OfRead(|r| r.tally.late as i64), "Packets older than one before them, which are given its time"),
    figure("packets_exported", Count, Number, Run(|r| r.log().written.packets as i64), "Packets of the flows written"),
    figure("packets_withheld", Count, Number, Run(|r| r.withheld.packets as i64), "Packets of flows that were not wanted: they came after `--max-nflows`, or the run was over"),
    figure("packets_unwritten", Count, Number, Run(|r| r.log().lost.packets as i64), "Packets of flows that the first output did not take: its queue was full, or it failed until the end"),
    figure("packets_waiting", Gauge, Number, Run(|r| r.waiting().packets as i64), "Packets of flows that have ended and wait for the dissector or the first output"),
    figure("packets_resident", Gauge, Number, LiveRun(Report::packets_resident), "Packets of flows that have not ended"),
    figure("balance_error", Gauge, Number, Run(Report::balance_error), "By how many packets the balance is off: 0 unless the meter has a bug"),
    figure("flows_begun", Count, Number, OfLive(|l| get(&l.total(), Counter::FlowsBegun) as i64), "Flows begun in the kernel's table"),
    figure("flows_withheld", Count, Number, Run(|r| r.withheld.flows as i64), "Flows that were not wanted"),
    figure("flows_unwritten", Count, Number, Run(|r| r.log().lost.flows as i64), "Flows that the first output did not take"),
    figure("flows_waiting", Gauge, Number, Run(|r| r.waiting().flows as i64), "Flows that have ended and wait for the dissector or the first output"),
    figure("flows_left", Gauge, Number, OfLive(|l| l.flows_left as i64), "Flows that could not be taken out of the kernel at the end: 0 unless the meter has a bug. Their packets are `packets_resident`"),
    figure("flows_without_verdict", Count, Number, OfLive(|l| l.flows_without_verdict as i64), "Flows written without layer 7: the dissector was late, or userspace metered them"),
    figure("flows_in_userspace", Gauge, Number, OfLive(|l| l.flows_in_userspace as i64), "Flows resident in userspace, because the kernel's table was full"),
    figure("expiry_late", Count, Number, OfLive(|l| get(&l.total(), Counter::ExpiryLate) as i64), "Times that a timeout passed while the ring was full: the record went on, marked `late_expiry`"),
    figure("splt_lost", Count, Number, OfLive(|l| get(&l.total(), Counter::SpltLost) as i64), "First packets whose direction, size and time found no room; their flows are marked"),
    figure("dissection_forwarded", Count, Number, OfLive(|l| get(&l.total(), Counter::Forwarded) as i64), "Packets sent to the dissector, as on the wire: each segment of a super-packet counts as one"),
    figure("dissection_withheld", Count, Number, OfLive(|l| get(&l.total(), Counter::Withheld) as i64), "Packets among the first `--n-dissections` of their flows (with plugins, of all) that came after the dissector was done with the flow, or lie beyond 16 KiB of a super-packet"),
    figure("dissection_lost", Count, Number, OfLive(|l| (get(&l.total(), Counter::DissectionLost) + l.not_dissected) as i64), "Packets for the dissector that the ring or the dissector had no room for; their flows are marked"),
    figure("packets_dissected", Count, Number, OfRead(|r| r.packets_dissected as i64), "Packets that were dissected, or no longer needed to be"),
    figure("packets_refused", Count, Number, OfRead(|r| r.packets_refused as i64), "Packets that were not dissected, because their headers lie about their length"),
    figure("dissector_crashes", Count, Number, Run(|r| r.dissector_crashes as i64), "Dissecting processes that died, and were replaced"),
    figure("dissector_hangs", Count, Number, Run(|r| r.dissector_hangs as i64), "Dissecting processes that were stopped, took too long or answered nonsense, and were replaced"),
    figure("model_failures", Count, Number, Run(|r| r.model_failures as i64), "Flows that a model could not be run on, for each model. Its columns are null"),
    figure("urls_redacted", Count, Number, Run(|r| r.urls_redacted as i64), "URLs in which `--redact` found secrets. Secrets in arguments are counted in `processes`"),
    figure("clock_step_ns", Gauge, Ns, OfLive(|l| l.clock_step_ns), "By how much the wall clock has been stepped since the start. Flows keep the time that they began with"),

    figure("flows_written", Count, Number, Output(|o| o.written.flows), "Flows that the output has taken"),
    figure("records_written", Count, Number, Output(|o| o.written.records), "Records other than flows that the output has taken"),
    figure("flows_waiting", Gauge, Number, Output(|o| o.waiting.flows), "Flows in the output's queue"),
    figure("waiting_bytes", Gauge, Bytes, Output(|o| o.waiting_bytes), "Bytes in the output's queue"),
    figure("flows_lost", Count, Number, Output(|o| o.lost.flows), "Flows that found no room in the queue, or that the output did not take until the end"),
    figure("records_lost", Count, Number, Output(|o| o.lost.records), "Records other than flows that were lost likewise"),
    figure("failures", Count, Number, Output(|o| o.failures), "Times that the output began to fail; further attempts until it works again do not count"),

    figure("known", Gauge, Number, Sockets(|_, s| s.entries), "Sockets in memory"),
    figure("evicted", Count, Number, Sockets(|_, s| s.evictions), "Sockets forgotten to make room"),
    figure("evicted_open", Count, Number, Sockets(|_, s| s.evicted_open), "Sockets forgotten before their end was reported"),
    figure("uses_evicted", Count, Number, Sockets(|_, s| s.uses_evicted), "Changes of a socket's user forgotten to make room"),
    figure("ambiguous", Count, Number, Sockets(|_, s| s.ambiguous), "Flows without a process, because several sockets matched"),
    figure("events_lost", Count, Number, Sockets(|k, _| k.lost), "Socket events that the ring had no room for"),
    figure("programs_lost", Count, Number, Sockets(|k, _| k.execs_lost), "Program starts that the ring had no room for"),
    figure("without_memory", Count, Number, Sockets(|k, _| k.unkept), "Sockets whose user the kernel had no memory to keep"),

    figure("polls", Count, Number, Procfs(|p| p.polls), "Times that the sockets were looked up"),
    figure("polls_failed", Count, Number, Procfs(|p| p.failed_polls), "Times that looking them up failed"),
    figure("polls_delayed", Count, Number, Procfs(|p| p.delayed), "Times that looking them up was put off, to use at most a fifth of a CPU"),
    figure("scans", Count, Number, Procfs(|p| p.scans), "Times that the descriptors of all processes were looked up"),
    figure("longest_poll_ms", Gauge, Ms, Procfs(|p| p.longest_poll.as_millis() as u64), "Duration of the longest look-up"),
    figure("sockets", Gauge, Number, Procfs(|p| p.sockets), "Open sockets at the last look-up"),
    figure("without_process", Gauge, Number, Procfs(|p| p.ownerless), "Of these, sockets that no process has open"),
    figure("beyond_limit", Gauge, Number, Procfs(|p| p.beyond_limit), "Of these, sockets beyond `--max-sockets`"),
    figure("malformed", Count, Number, Procfs(|p| p.malformed), "Lines of procfs that could not be parsed"),
    figure("unreadable", Gauge, Number, Procfs(|p| p.unreadable), "Processes whose descriptors could not be read at the last look-up"),
    figure("known", Gauge, Number, Procfs(|p| p.entries), "Sockets in memory"),
    figure("evicted", Count, Number, Procfs(|p| p.evictions), "Sockets forgotten to make room"),
    figure("refused", Count, Number, Procfs(|p| p.refused), "Sockets never remembered, for want of room"),
    figure("ambiguous", Count, Number, Procfs(|p| p.ambiguous), "Flows without a process, because several sockets matched"),

    figure("known", Gauge, Number, Processes(|p| p.known), "Processes in memory"),
    figure("evicted", Count, Number, Processes(|p| p.evicted), "Processes forgotten to make room"),
    figure("secrets_redacted", Count, Number, Processes(|p| p.redacted), "Secrets redacted in arguments"),

    figure("rx_packets", Count, Number, Interface(|t| t.rx_packets), "Packets received, as the interface counts them; many interfaces count a super-packet as one"),
    figure("rx_bytes", Count, Bytes, Interface(|t| t.rx_bytes), "Bytes received, as the interface counts them"),
    figure("tx_packets", Count, Number, Interface(|t| t.tx_packets), "Packets sent, as the interface counts them"),
    figure("tx_bytes", Count, Bytes, Interface(|t| t.tx_bytes), "Bytes sent, as the interface counts them"),

    figure("seen", Count, Number, Direction(|t| get(t, Counter::Seen)), "Packets that the hook saw, as on the wire"),
    figure("seen_bytes", Count, Bytes, Direction(|t| get(t, Counter::SeenBytes)), "Their bytes"),
    figure("metered", Count, Number, Direction(|t| get(t, Counter::Metered)), "Packets metered in the kernel"),
    figure("overflowed", Count, Number, Direction(|t| get(t, Counter::Overflowed)), "Packets metered in userspace, because the kernel's table was full"),
    figure("ignored", Count, Number, DirectionReasons, "Packets not metered, by reason"),
    figure("lost", Count, Number, Direction(|t| get(t, Counter::Lost)), "Packets for which neither the flow table nor the ring to userspace had room"),
    figure("ignored", Count, Number, Reasons, "Frames not metered, by reason"),
];

fn get(tally: &Tally, counter: Counter) -> u64 {
    tally.get(counter)
}

fn packets_ignored(report: &Report) -> i64 {
    let live = report.live().map(|live| live.total().ignored());
    let read = || report.read().map_or(0, |read| read.tally.ignored().map(|(_, n)| n).sum());
    live.unwrap_or_else(read) as i64
}

/// The part of a report that a figure stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The report itself.
    Run,
    /// Each output.
    Outputs,
    /// Sockets, as the kernel reports them.
    Sockets,
    /// Polling.
    Procfs,
    /// Processes.
    Processes,
    /// Each interface.
    Interfaces,
    /// Each direction of an interface.
    Directions,
}

impl Figure {
    /// Where it stands.
    pub fn group(&self) -> Group {
        match self.of {
            Run(_) | LiveRun(_) | OfLive(_) | OfRead(_) | Reasons => Group::Run,
            Output(_) => Group::Outputs,
            Sockets(_) => Group::Sockets,
            Procfs(_) => Group::Procfs,
            Processes(_) => Group::Processes,
            Interface(_) => Group::Interfaces,
            Direction(_) | DirectionReasons => Group::Directions,
        }
    }

    /// Which runs have it: `live`, `read` or `both`.
    pub fn runs(&self) -> &'static str {
        match self.of {
            Run(_) | Output(_) => "both",
            OfRead(_) | Reasons => "read",
            _ => "live",
        }
    }
}

impl Group {
    /// The member of JSON that it is, if it is not the report itself.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Run => None,
            Self::Outputs => Some("outputs"),
            Self::Sockets => Some("sockets"),
            Self::Procfs => Some("procfs"),
            Self::Processes => Some("processes"),
            Self::Interfaces | Self::Directions => Some("interfaces"),
        }
    }
}
