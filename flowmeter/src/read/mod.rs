//! What happens between a capture file and a line in the log?
//!
//! The same stages as live: read → meter → dissect → write. One worker does them all; several
//! share the flows out, and their rows are merged into the order that one worker has.

mod dissector;
mod progress;
mod report;
mod workers;

use std::path::Path;
use std::sync::Arc;
use std::thread;

use flowmeter_common::packet::Layer;
use thiserror::Error;

use crate::attribution::Owners;
use crate::capture::pcap::filter::{Filter, Invalid};
use crate::capture::pcap::{self, Capture, Frame};
use crate::collector::pcap::{Collector, Found, Intake, Observer, Rank, Reading, Share, Tally};
use crate::config::ReadPlan;
use crate::dissect;
use crate::dissect::place::Places;
use crate::record::Flow;
use crate::signals::Signals;
use crate::sink::{self, Sink};
use crate::table::Ended;

use dissector::{Dissector, Kept};
use progress::Progress;
use report::Report;

/// Why a run ended before it should have.
#[derive(Debug, Error)]
pub enum Error {
    /// A capture.
    #[error(transparent)]
    Capture(#[from] pcap::Error),
    /// The log.
    #[error(transparent)]
    Sink(#[from] sink::Error),
    /// The dissector.
    #[error("failed to start the dissector")]
    Dissector(#[from] dissect::Error),
    /// The filter.
    #[error("invalid filter expression: {0}")]
    Filter(#[from] Invalid),
    /// A worker.
    #[error("failed to start a worker thread")]
    Thread(#[source] std::io::Error),
    /// It was asked to stop.
    #[error("interrupted; the flows of what was read until then are written")]
    Interrupted,
    /// A worker panicked, which is a fault of this program; it has said where.
    #[error("a worker thread ended early")]
    Ended,
}

/// Meters captures. A damaged one is metered as far as it can be read; the error comes when all
/// that was metered is written.
///
/// Once it is asked to stop it reads no further, and writes what it has.
pub fn read(plan: &ReadPlan, signals: &Arc<Signals>) -> Result<(), Error> {
    let parts = parts(plan);
    let workers = match plan.n_meters {
        // Whoever feeds it waits for rows, not for speed.
        0 if is_stream(plan) => 1,
        0 => thread::available_parallelism().map_or(1, |n| n.get() as u64),
        n => u64::from(n),
    };
    match workers.min(parts) {
        1 => alone(plan, parts, signals)?,
        workers => workers::read(plan, parts, workers, signals)?,
    }
    // A stream has no other end.
    if signals.is_stopped() && !is_stream(plan) { Err(Error::Interrupted) } else { Ok(()) }
}

fn is_stream(plan: &ReadPlan) -> bool {
    plan.files.iter().any(|file| file == Path::new("-"))
}

/// Inputs up to this size have one nDPI module.
const SMALL: u64 = 16 << 20;

/// In how many parts flows are shared out. It depends on the input and the options alone, not on
/// the number of workers, since nDPI learns from some flows about others: each part has a module.
fn parts(plan: &ReadPlan) -> u64 {
    // NFStream's order of rows needs all flows in one table; a digest of the id needs the id.
    let is_whole = plan.reading == Reading::Nfstream || plan.schema.is_anonymized("id");
    let is_small = progress::total(&plan.files).is_none_or(|bytes| bytes <= SMALL);
    if is_whole || plan.knobs.n_dissections > 0 && is_small { 1 } else { Share::PARTS }
}

/// Meters in this thread.
fn alone(plan: &ReadPlan, parts: u64, signals: &Arc<Signals>) -> Result<(), Error> {
    let log = Log {
        sink: sink::open(plan.output.clone(), Arc::clone(&plan.schema))?,
        max_nflows: plan.max_nflows.unwrap_or(u64::MAX),
        report: Report::default(),
        failed: None,
    };
    let share = Share { worker: 0, of: 1, parts };
    let places = Places::new(&plan.containment)?;
    let mut stages = Stages::new(plan, share, &places, log)?;
    let mut collector = Collector::new(plan.knobs, plan.reading, share);
    let is_stream = is_stream(plan);
    let (tally, damaged) = frames(plan, signals, |seen| {
        match seen {
            Seen::Packet(found, ip) => collector.packet(found, ip, &mut stages),
            // The next packet of a stream may be long in coming.
            Seen::Drained if is_stream => {
                stages.settle();
                stages.out.flush();
            }
            Seen::Drained => {}
        }
        // Those that wait for their verdicts will be written too.
        !stages.out.is_done(stages.dissector.waiting())
    })?;
    collector.finish(&mut stages);
    stages.settle();
    let (mut report, failed) = stages.out.close();
    report.urls_redacted = plan.schema.redacted();
    report.dissected_by(&places);
    report.print(&tally);
    failed.map_or(Ok(()), Err)?;
    damaged.map_or(Ok(()), |e| Err(e.into()))
}

/// What a reader of captures comes upon.
enum Seen<'a> {
    /// A packet, with its bytes from the IP header on.
    Packet(&'a Found, &'a [u8]),
    /// All that was read is seen; the next frame may have to be waited for.
    Drained,
}

/// Reads all files, and hands out what is in them, as long as `see` wants more.
fn frames(
    plan: &ReadPlan,
    signals: &Arc<Signals>,
    mut see: impl FnMut(Seen<'_>) -> bool,
) -> Result<(Tally, Option<pcap::Error>), Error> {
    let filter = plan.bpf_filter.as_deref().map(Filter::new).transpose()?;
    let mut progress = Progress::of(plan);
    let mut intake = Intake::new(&plan.knobs, plan.reading, filter);
    let mut damaged = None;
    let mut goes_on = true;
    for file in &plan.files {
        let read = Capture::open(file, progress.counter(), signals).and_then(|mut capture| {
            while goes_on {
                let next = capture.next(|frame: Frame<'_>| {
                    let Some(found) = intake.packet(&frame) else { return true };
                    let start = usize::from(found.packet.network_offset);
                    let end = frame.bytes.len().min(plan.snapshot_length);
                    see(Seen::Packet(&found, frame.bytes.get(start..end).unwrap_or_default()))
                });
                let Some(is_wanted) = next? else { break };
                goes_on = is_wanted && !signals.is_stopped();
                progress.frame();
                if capture.is_drained() {
                    goes_on &= see(Seen::Drained);
                }
            }
            Ok(())
        });
        if let Err(e) = read
            && !signals.is_stopped()
        {
            damaged.get_or_insert(e);
        }
        if !goes_on {
            break;
        }
    }
    progress.end();
    Ok((intake.tally, damaged))
}

/// Takes the flows of a worker.
trait Output {
    /// A flow has ended. Its id is the output's to give.
    fn flow(&mut self, rank: Rank, flow: Flow);
    /// A flow of so many packets is not written.
    fn left_out(&mut self, packets: u64);
}

/// What follows the collector.
struct Stages<O> {
    dissector: Dissector,
    /// flowcontainer has no flows without payload.
    wants_payload: bool,
    out: O,
}

impl<O: Output> Stages<O> {
    fn new(plan: &ReadPlan, share: Share, places: &Places, out: O) -> Result<Self, dissect::Error> {
        let dissector = Dissector::new(plan, share, places)?;
        Ok(Self { dissector, wants_payload: plan.reading == Reading::Flowcontainer, out })
    }

    /// Waits for the verdicts of all flows that ended, and hands the flows on.
    fn settle(&mut self) {
        self.dissector.settle();
        self.hand_on();
    }

    fn hand_on(&mut self) {
        while let Some((rank, flow)) = self.dissector.next() {
            self.out.flow(rank, flow);
        }
    }
}

impl<O: Output> Observer<Kept> for Stages<O> {
    fn packet(&mut self, found: &Found, kept: &mut Kept, number: u64, ip: &[u8]) {
        self.dissector.inspect(found, kept, ip, number);
    }

    fn ended(&mut self, rank: Rank, ended: Ended<Kept>) {
        let payload: u64 =
            ended.record.directions.iter().map(|d| d.bytes[Layer::Payload as usize]).sum();
        if self.wants_payload && payload == 0 {
            self.out.left_out(ended.record.packets());
            return;
        }
        let flow = Flow {
            id: 0,
            reason: ended.reason,
            record: ended.record,
            splt: ended.splt,
            layer7: None,
            owners: Owners::default(),
            interface: None,
            peer: None,
        };
        self.dissector.finish(rank, flow, ended.attached);
        self.hand_on();
    }
}

/// The log, written by the worker itself.
struct Log {
    sink: Box<dyn Sink>,
    max_nflows: u64,
    report: Report,
    failed: Option<sink::Error>,
}

impl Log {
    /// Whether nothing more is to be written: there are flows enough, or the log is broken.
    /// `coming` flows will still be written.
    fn is_done(&self, coming: u64) -> bool {
        self.report.flows_written + coming >= self.max_nflows || self.failed.is_some()
    }
}

impl Log {
    fn flush(&mut self) {
        if let Err(e) = self.sink.flush() {
            self.failed.get_or_insert(e);
        }
    }

    /// Writes what is left, also after an error: it may have passed.
    fn close(mut self) -> (Report, Option<sink::Error>) {
        self.flush();
        self.report.lines_unwritten = self.sink.unwritten();
        (self.report, self.failed)
    }
}

impl Output for Log {
    fn flow(&mut self, _: Rank, mut flow: Flow) {
        if self.is_done(0) {
            self.report.withheld(flow.record.packets());
            return;
        }
        flow.id = self.report.flows_written;
        self.report.row(flow.record.packets(), self.sink.write(&flow), &mut self.failed);
    }

    fn left_out(&mut self, packets: u64) {
        self.report.withheld(packets);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use flowmeter_common::knobs::Knobs;

    use super::*;
    use crate::record::example;

    /// A log that fails once, as on a disk that was full for a moment.
    #[derive(Default)]
    struct Flaky {
        has_failed: bool,
        kept: usize,
        written: Arc<AtomicUsize>,
    }

    impl Sink for Flaky {
        fn write(&mut self, _: &Flow) -> Result<(), sink::Error> {
            self.write_row(&[])
        }

        fn write_row(&mut self, _: &[u8]) -> Result<(), sink::Error> {
            self.kept += 1;
            self.flush()
        }

        fn write_json(&mut self, _: &serde_json::Value) -> Result<(), sink::Error> {
            Ok(())
        }

        fn flush(&mut self) -> Result<(), sink::Error> {
            if !std::mem::replace(&mut self.has_failed, true) {
                let source = io::ErrorKind::StorageFull.into();
                return Err(sink::Error::Write { name: "it".into(), source });
            }
            self.written.fetch_add(std::mem::take(&mut self.kept), Relaxed);
            Ok(())
        }

        fn unwritten(&self) -> usize {
            self.kept
        }

        fn reopen(&mut self) -> Result<(), sink::Error> {
            Ok(())
        }
    }

    #[test]
    fn what_is_finished_is_written_though_the_log_has_failed() {
        let sink = Flaky::default();
        let written = Arc::clone(&sink.written);
        let mut log = Log {
            sink: Box::new(sink),
            max_nflows: u64::MAX,
            report: Report::default(),
            failed: None,
        };
        let rank = Rank { frame: 1, cut: 0, last: 1 };
        log.flow(rank, example::handshake(&Knobs::default()));
        // The run is over, and what comes after is counted.
        log.flow(rank, example::handshake(&Knobs::default()));
        let (report, failed) = log.close();
        assert!(matches!(failed, Some(sink::Error::Write { .. })));
        assert_eq!((written.load(Relaxed), report.lines_unwritten), (1, 0));
        assert_eq!((report.flows_written, report.packets_withheld), (1, 3));
    }
}
