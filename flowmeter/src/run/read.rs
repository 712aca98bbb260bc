//! What happens between a capture file and a row?
//!
//! The same stages as live: read → meter → dissect → write. One worker does them all; several
//! share the flows out, and their rows are merged into the order that one worker has.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use flowmeter_common::packet::Layer;
use thiserror::Error;

use super::control::Control;
use super::failed::Failed;
use super::ledger::Ledger;
use super::line::{Kept, Line};
use super::options::ReadOptions;
use super::outlet::Outlet;
use super::outlets::Outlets;
use super::progress::{Progress, total};
use super::workers;
use crate::capture::pcap::filter::{Filter, Invalid};
use crate::capture::pcap::{self, Capture, Frame};
use crate::collector::pcap::{
    Collector, Found, Intake, Next, Observer, Rank, Reading, Share, Tally,
};
use crate::dissect;
use crate::dissect::place::Places;
use crate::flow::Flow;
use crate::model::{self, Scorer};
use crate::notice::Notice;
use crate::output;
use crate::plugin::{Event, Hooks};
use crate::report::{self, Of, Report};
use crate::table::{Ended, Seen as Counted};

/// Why a run ended before it should have.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A capture.
    #[error(transparent)]
    Capture(#[from] pcap::Error),
    /// An output.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// The dissector.
    #[error("failed to start the dissector")]
    Dissector(#[from] dissect::Error),
    /// The filter.
    #[error("invalid filter expression: {0}")]
    Filter(#[from] Invalid),
    /// A model.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A worker.
    #[error("failed to start a worker thread")]
    Thread(#[source] std::io::Error),
    /// It was asked to stop.
    #[error("interrupted; the flows of what was read so far are written")]
    Interrupted,
    /// A worker panicked, which is a fault of this program; it has said where.
    #[error("a worker thread ended early")]
    Ended,
}

/// A run that meters captures.
pub struct Read {
    inputs: Inputs,
    outlets: Vec<Outlet>,
    redacted: Box<dyn Fn() -> u64 + Send>,
}

/// What all workers of a run share.
pub(super) struct Inputs {
    pub options: ReadOptions,
    control: Arc<Control>,
    progress: Arc<Progress>,
}

/// What a run has done with what it found.
pub(super) struct Done {
    pub tally: Tally,
    pub ledger: Ledger,
    pub outlets: Outlets,
    pub ended: Result<(), Error>,
}

impl Read {
    pub(super) fn new(options: ReadOptions) -> Self {
        Self {
            inputs: Inputs { options, control: Arc::default(), progress: Arc::default() },
            outlets: Vec::new(),
            redacted: Box::new(|| 0),
        }
    }

    /// Adds an output, which gets the flows in the order in which they end. The flows of the first
    /// one are those that reports call written.
    #[must_use]
    pub fn to(mut self, outlet: impl Into<Outlet>) -> Self {
        self.outlets.push(outlet.into());
        self
    }

    /// Has reports show what this counts: URLs in which secrets were redacted.
    #[must_use]
    pub fn redacting(mut self, redacted: impl Fn() -> u64 + Send + 'static) -> Self {
        self.redacted = Box::new(redacted);
        self
    }

    /// What the run can be asked by.
    pub fn control(&self) -> Arc<Control> {
        Arc::clone(&self.inputs.control)
    }

    /// How far the run is.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.inputs.progress)
    }

    /// Meters the captures. A damaged one is metered as far as it can be read; the error comes when
    /// all that was metered is written. The report is there unless nothing could be begun.
    ///
    /// Once it is asked to stop it reads no further, and writes what it has.
    pub fn run(mut self) -> Result<Report, Failed<Error>> {
        let outlets = std::mem::take(&mut self.outlets);
        let Inputs { options, control, .. } = &self.inputs;
        let outlets = Outlets::direct(outlets, control, &options.notices);
        let places = match Places::new(&options.containment, &options.notices) {
            Ok(places) => places,
            Err(e) => return Err(Failed::unreported(e)),
        };
        let parts = self.inputs.parts();
        let workers = match options.n_meters {
            // Whoever feeds it waits for rows, not for speed.
            0 if self.inputs.is_stream() => 1,
            0 => thread::available_parallelism().map_or(1, |n| n.get() as u64),
            n => u64::from(n),
        };
        let workers = workers.min(parts);
        let plugins = &options.plugins;
        let done = if plugins.is_empty() {
            self.inputs.read(parts, workers, &places, outlets, || ())
        } else {
            self.inputs.read(parts, workers, &places, outlets, || plugins.start())
        };
        let Done { tally, ledger, mut outlets, ended } = match done {
            Ok(done) => done,
            Err(e) => return Err(Failed::unreported(e)),
        };
        // What was written counts first: an output that failed is why others ended.
        let closed = outlets.close().map_err(Error::from);
        let report = self.report(tally, &ledger, &outlets, &places);
        // A stream has no other end.
        let is_cut = control.is_stopped() && !self.inputs.is_stream();
        let ended = closed.and(ended);
        let ended = ended.and(if is_cut { Err(Error::Interrupted) } else { Ok(()) });
        Failed::unless_well(ended, report)
    }

    fn report(&self, tally: Tally, ledger: &Ledger, outlets: &Outlets, places: &Places) -> Report {
        if tally.latest_ns > NOTABLY_LATE_NS {
            self.inputs.options.notices.send(Notice::Late {
                packets: tally.late,
                seconds: tally.latest_ns / 1_000_000_000,
            });
        }
        let losses = places.losses();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        Report {
            time_ns: crate::capture::kernel::now_ns(),
            ended: ledger.ended,
            withheld: ledger.withheld,
            undissected: output::Sum::default(),
            given: ledger.given,
            outputs: outlets.counts(),
            model_failures: self.inputs.options.models.failures(),
            urls_redacted: (self.redacted)(),
            dissector_crashes: count(&losses.crashes),
            dissector_hangs: count(&losses.hangs),
            of: Of::Read(report::Read {
                tally,
                packets_dissected: count(&losses.inspected),
                packets_refused: count(&losses.refused),
            }),
        }
    }
}

impl Inputs {
    fn is_stream(&self) -> bool {
        self.options.files.iter().any(|file| file == Path::new("-"))
    }

    /// In how many parts flows are shared out. It depends on the input and the options alone, not on
    /// the number of workers, since nDPI learns from some flows about others: each part has a module.
    fn parts(&self) -> u64 {
        let options = &self.options;
        // NFStream's order of rows needs all flows in one table; a digest of the id needs the id.
        let is_whole = options.reading == Reading::Nfstream || options.needs_ids;
        let is_small = total(&options.files).is_none_or(|bytes| bytes <= SMALL);
        if is_whole || options.knobs.n_dissections > 0 && is_small { 1 } else { Share::PARTS }
    }

    /// Meters with this many workers. Each makes its own hooks.
    fn read<H: Hooks>(
        &self,
        parts: u64,
        workers: u64,
        places: &Places,
        outlets: Outlets,
        hooks: impl Fn() -> H + Sync,
    ) -> Result<Done, Error> {
        match workers {
            1 => self.alone(parts, places, outlets, hooks()),
            workers => workers::read(self, parts, workers, places, outlets, &hooks),
        }
    }

    /// Meters in this thread.
    fn alone(
        &self,
        parts: u64,
        places: &Places,
        outlets: Outlets,
        hooks: impl Hooks,
    ) -> Result<Done, Error> {
        let ledger = Ledger::new(self.options.max_nflows);
        let log = Log { outlets, ledger, has_failed: false };
        let share = Share { worker: 0, of: 1, parts };
        let mut stages = Stages::new(&self.options, share, places, hooks, log)?;
        let mut collector = Collector::new(self.options.knobs, self.options.reading, share);
        let is_stream = self.is_stream();
        let (tally, damaged) = self.frames(|seen| {
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
            !stages.out.is_done(stages.waiting())
        })?;
        collector.finish(&mut stages);
        stages.settle();
        let Log { outlets, ledger, .. } = stages.out;
        Ok(Done { tally, ledger, outlets, ended: damaged.map_or(Ok(()), |e| Err(e.into())) })
    }

    /// Reads all files, and hands out what is in them, as long as `see` wants more.
    pub(super) fn frames(
        &self,
        mut see: impl FnMut(Seen<'_>) -> bool,
    ) -> Result<(Tally, Option<pcap::Error>), Error> {
        let options = &self.options;
        let filter = options.bpf_filter.as_deref().map(Filter::new).transpose()?;
        let mut intake = Intake::new(&options.knobs, options.reading, filter);
        let (mut damaged, mut frames) = (None, 0_u64);
        let mut goes_on = true;
        for file in &options.files {
            let stop = self.control.stop_flag();
            let read =
                Capture::open(file, self.progress.counter(), &stop).and_then(|mut capture| {
                    while goes_on {
                        let next = capture.next(|frame: Frame<'_>| {
                            let Some(found) = intake.packet(&frame) else { return true };
                            let start = usize::from(found.packet.network_offset);
                            let end = frame.bytes.len().min(options.snapshot_length);
                            see(Seen::Packet(
                                &found,
                                frame.bytes.get(start..end).unwrap_or_default(),
                            ))
                        });
                        let Some(is_wanted) = next? else { break };
                        goes_on = is_wanted && !self.control.is_stopped();
                        frames += 1;
                        if frames.is_multiple_of(FRAMES) {
                            self.progress.set_frames(frames);
                        }
                        if capture.is_drained() {
                            goes_on &= see(Seen::Drained);
                        }
                    }
                    Ok(())
                });
            if let Err(e) = read
                && !self.control.is_stopped()
            {
                damaged.get_or_insert(e);
            }
            if !goes_on {
                break;
            }
        }
        Ok((intake.tally, damaged))
    }
}

/// Inputs up to this size have one nDPI module.
const SMALL: u64 = 16 << 20;

/// Packets this late are not those of two queues of a NIC; ns.
const NOTABLY_LATE_NS: u64 = 1_000_000_000;

/// Frames between two reports of progress.
const FRAMES: u64 = 8192;

/// What a reader of captures comes upon.
pub(super) enum Seen<'a> {
    /// A packet, with its bytes from the IP header on.
    Packet(&'a Found, &'a [u8]),
    /// All that was read is seen; the next frame may have to be waited for.
    Drained,
}

/// Takes the flows of a worker.
pub(super) trait Takes {
    /// A flow has ended. Its id is yet to be given.
    fn flow(&mut self, rank: Rank, flow: Flow);
    /// A flow of this many packets is not wanted.
    fn left_out(&mut self, packets: u64);
}

/// What follows the collector.
pub(super) struct Stages<T, H: Hooks> {
    pub line: Line<H::Kept>,
    hooks: H,
    /// None without models.
    scorer: Option<Scorer<Rank>>,
    /// flowcontainer has no flows without payload.
    wants_payload: bool,
    pub out: T,
}

impl<T: Takes, H: Hooks> Stages<T, H> {
    pub fn new(
        options: &ReadOptions,
        share: Share,
        places: &Places,
        hooks: H,
        out: T,
    ) -> Result<Self, Error> {
        let line = Line::new(options, share, places)?;
        let ReadOptions { models, plugins, notices, .. } = options;
        let start = || models.start(plugins.columns().count(), notices);
        let scorer = (!models.is_empty()).then(start).transpose()?.map(Scorer::new);
        let wants_payload = options.reading == Reading::Flowcontainer;
        Ok(Self { line, hooks, scorer, wants_payload, out })
    }

    /// Waits for the verdicts of all flows that ended, and hands the flows on.
    pub fn settle(&mut self) {
        self.line.settle();
        self.hand_on();
        self.score();
    }

    /// Hands on the flows that have their verdicts, but for those that wait for models.
    pub fn hand_on(&mut self) {
        while let Some((rank, mut flow, own)) = self.line.next() {
            self.hooks.expired(own, &mut flow);
            match &mut self.scorer {
                None => self.out.flow(rank, flow),
                Some(scorer) => {
                    if scorer.add(rank, flow) {
                        self.score();
                    }
                }
            }
        }
    }

    /// Runs the models on the flows that wait for them, and hands these on.
    pub fn score(&mut self) {
        let Some(scorer) = &mut self.scorer else { return };
        for (rank, flow) in scorer.scored() {
            self.out.flow(rank, flow);
        }
    }

    /// How many flows wait, for verdicts or models.
    #[inline]
    fn waiting(&self) -> u64 {
        self.line.waiting() + self.scorer.as_ref().map_or(0, Scorer::waiting)
    }
}

impl<T: Takes, H: Hooks> Observer<Kept<H::Kept>> for Stages<T, H> {
    #[inline]
    fn packet(&mut self, found: &Found, flow: Counted<'_, Kept<H::Kept>>, ip: &[u8]) -> Next {
        self.line.inspect(found, flow.attached, ip, flow.number);
        let Counted { record, splt, attached, .. } = flow;
        let event =
            Event { time_ns: found.now_ns, headers: &found.packet, from_high: found.from_high, ip };
        self.hooks.packet(&event, record, splt, &mut attached.own)
    }

    fn ended(&mut self, rank: Rank, ended: Ended<Kept<H::Kept>>) {
        let payload: u64 =
            ended.record.directions.iter().map(|d| d.bytes[Layer::Payload as usize]).sum();
        if self.wants_payload && payload == 0 {
            self.out.left_out(ended.record.packets());
            return;
        }
        let flow = Flow::new(ended.reason, ended.record, ended.splt);
        self.line.finish(rank, flow, ended.attached);
        if self.hooks.is_prompt() {
            self.line.settle();
        }
        self.hand_on();
    }
}

/// The outputs, written to by the worker itself.
struct Log {
    outlets: Outlets,
    ledger: Ledger,
    /// An output takes nothing more. Looked at for each packet, so it is kept.
    has_failed: bool,
}

impl Log {
    /// Whether nothing more is to be written: there are flows enough, or an output is broken.
    /// `coming` flows will still be written.
    fn is_done(&self, coming: u64) -> bool {
        self.has_failed || self.ledger.has_enough(coming)
    }

    /// Has the outputs take what there is.
    fn flush(&mut self) {
        self.outlets.flush();
        self.has_failed = self.outlets.has_failed();
    }
}

impl Takes for Log {
    fn flow(&mut self, _: Rank, mut flow: Flow) {
        let packets = flow.record.packets();
        self.ledger.ended(packets);
        if self.has_failed {
            self.ledger.withhold(packets);
        } else if let Some(number) = self.ledger.number(packets) {
            flow.id = number;
            self.outlets.flow(flow);
            self.has_failed = self.outlets.has_failed();
        }
    }

    fn left_out(&mut self, packets: u64) {
        self.ledger.leave_out(output::Sum::flow(packets));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicU64;

    use flowmeter_common::knobs::Knobs;

    use super::*;
    use crate::fields::{self, Schema};
    use crate::flow::example;
    use crate::format::Kind;
    use crate::notice::Notices;
    use crate::output::{Batch, Load as _, Output};

    /// An output that fails once, as on a disk that was full for a moment.
    struct Flaky {
        has_failed: bool,
        written: Arc<AtomicU64>,
    }

    impl Output for Flaky {
        fn write(&mut self, batch: &mut Batch) -> Result<(), output::Error> {
            if !std::mem::replace(&mut self.has_failed, true) {
                let source = io::ErrorKind::StorageFull.into();
                return Err(output::Error::Write { name: "it".into(), source });
            }
            self.written.fetch_add(batch.left().flows, Relaxed);
            batch.clear();
            Ok(())
        }
    }

    #[test]
    fn what_is_finished_is_written_though_the_log_has_failed() {
        let written = Arc::new(AtomicU64::new(0));
        let output = Box::new(Flaky { has_failed: false, written: Arc::clone(&written) });
        let format = Kind::Json.of(Arc::new(Schema::new(fields::Options::default())));
        let outlets = vec![Outlet::rows("it", format, output)];
        let outlets = Outlets::direct(outlets, &Arc::default(), &Notices::none());
        let mut log = Log { outlets, ledger: Ledger::new(None), has_failed: false };
        let rank = Rank { frame: 1, cut: 0, last: 1 };
        log.flow(rank, example::handshake(&Knobs::default()));
        log.flush();
        // The run is over, and what comes after is counted.
        log.flow(rank, example::handshake(&Knobs::default()));
        let closed = log.outlets.close();
        assert!(matches!(closed, Err(output::Error::Write { .. })));
        let counts = log.outlets.counts()[0].1;
        assert_eq!((written.load(Relaxed), counts.written.flows), (1, 1));
        assert_eq!((counts.lost.flows, log.ledger.withheld.packets), (0, 3));
    }
}
