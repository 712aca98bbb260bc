//! What happens between a packet at the interface and a line in the log?
//!
//! Collect → inspect → annotate → write: the stages, wired. The engine never reads a clock of the
//! packets' time; it is handed what the kernel saw.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use flowmeter_common::event::PacketEvent;
use thiserror::Error;

use crate::annotate::{self, Annotator};
use crate::attribution::Peers;
use crate::capture::kernel::{self, Interface, Kernel, SocketHook};
use crate::collector::kernel::{Collector, Observer};
use crate::config::LivePlan;
use crate::fields::Schema;
use crate::health::{Books, Report};
use crate::record::Flow;
use crate::signals::Signals;
use crate::sink::{self, Sink};
use crate::table::Ended;
use crate::watch::HookWatch;

/// Why a run ended before it should have.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel half.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The log.
    #[error(transparent)]
    Sink(#[from] sink::Error),
    /// There is nothing more to meter.
    #[error("no interface is left to meter; what was metered is written")]
    NoInterface,
    /// Dissector or attribution.
    #[error(transparent)]
    Annotate(#[from] annotate::Error),
}

/// All that had to be opened with privileges.
pub struct Attached {
    sink: Box<dyn Sink>,
    kernel: Kernel,
    peers: Option<Peers>,
}

/// Opens the log, loads the kernel half and attaches it. Leaves no thread behind.
pub fn attach(plan: &LivePlan) -> Result<Attached, Error> {
    let sink = sink::open(plan.output.clone(), Arc::clone(&plan.schema))?;
    let kernel = Kernel::open(&plan.kernel())?;
    let peers = plan.visibility.map(|_| {
        let ends = kernel.interfaces.iter().map(Interface::far_end);
        Peers::new(ends, annotate::attribution_options(plan), kernel.clock())
    });
    Ok(Attached { sink, kernel, peers })
}

/// Meters interfaces until it is asked to stop, there are flows enough, or no interface is left. All
/// that is resident then is written.
pub fn live(plan: &LivePlan, attached: Attached, signals: &Signals) -> Result<(), Error> {
    let Attached { sink, mut kernel, peers } = attached;
    let ring = if hooks_work(&kernel) { Some(kernel.owner_ring()?) } else { None };
    let settled = kernel.settled_flows()?;
    let mut stages = Stages {
        annotator: Annotator::start(plan, ring, settled, peers, kernel.clock())?,
        interfaces: kernel.interfaces.iter().map(|i| Arc::clone(&i.name)).collect(),
        sink,
        schema: Arc::clone(&plan.schema),
        books: Books::default(),
        next_id: 0,
        max_nflows: plan.max_nflows.unwrap_or(u64::MAX),
        failed: None,
        written: Instant::now(),
    };
    let mut collector = Collector::new(kernel, plan.knobs, plan.max_flows as usize)?;
    let mut reports = Reports::new(plan);
    let mut hooks = HookWatch::new(collector.kernel());
    log_start(collector.kernel());

    let mut gone = Gone::default();
    let mut meter = || -> Result<(), Error> {
        while !signals.is_stopped() && !stages.is_done() && !gone.all {
            if signals.wants_reopened()
                && let Err(e) = stages.sink.reopen()
            {
                eprintln!("flowmeter: warning: going on in the old log: {}", describe(&e));
            }
            let events = collector.tick(&mut stages)?;
            stages.settle(Duration::from_secs(1))?;
            reports.make(&collector, &mut stages)?;
            warn_of_hooks(&mut hooks, collector.kernel())?;
            gone.look(collector.kernel());
            rest(events);
        }
        Ok(())
    };
    let metered = meter();
    // Whatever has happened, what is resident is written as far as it can be, and the balance told.
    let finished = collector.finish(&mut stages).map_err(Error::from);
    let settled = stages.settle_all();
    let told = reports.last(&collector, &mut stages);
    let written = stages.close();
    metered.and(finished).and(settled).and(told).and(written)?;
    if gone.all { Err(Error::NoInterface) } else { Ok(()) }
}

/// An error and its cause, in a line.
fn describe(error: &sink::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Interfaces that have gone since they were attached to.
struct Gone {
    names: Vec<Arc<str>>,
    all: bool,
    next: Instant,
}

/// How often interfaces are looked up.
const LOOK: Duration = Duration::from_secs(1);

impl Default for Gone {
    fn default() -> Self {
        Self { names: Vec::new(), all: false, next: Instant::now() + LOOK }
    }
}

impl Gone {
    fn look(&mut self, kernel: &Kernel) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + LOOK;
        for interface in kernel.interfaces.iter().filter(|interface| !interface.is_there()) {
            if !self.names.contains(&interface.name) {
                eprintln!(
                    "flowmeter: warning: interface `{}` is gone; start flowmeter again to meter \
                     another one of this name",
                    interface.name
                );
                self.names.push(Arc::clone(&interface.name));
            }
        }
        self.all = self.names.len() == kernel.interfaces.len();
    }
}

/// What follows the collector.
struct Stages {
    annotator: Annotator,
    interfaces: Vec<Arc<str>>,
    sink: Box<dyn Sink>,
    schema: Arc<Schema>,
    books: Books,
    next_id: u64,
    max_nflows: u64,
    failed: Option<Error>,
    written: Instant,
}

impl Observer for Stages {
    fn packet(&mut self, event: &PacketEvent, ip: &[u8]) {
        self.annotator.inspect(event, ip);
    }

    fn ended(&mut self, ended: Ended<()>) {
        self.books.ended(&ended.record);
        let interface = self.interfaces.get(usize::from(ended.record.key.interface)).cloned();
        let flow = Flow {
            id: 0,
            reason: ended.reason,
            record: ended.record,
            splt: ended.splt,
            layer7: None,
            owners: crate::attribution::Owners::default(),
            interface,
            peer: None,
        };
        if let Some(flow) = self.annotator.annotate(flow) {
            self.write(flow);
        }
    }
}

impl Stages {
    /// Writes the flows whose verdicts have come, and those that have waited for `longest`.
    fn settle(&mut self, longest: Duration) -> Result<(), Error> {
        self.annotator.exchange();
        while let Some(flow) = self.annotator.settled(longest) {
            self.write(flow);
        }
        if self.written.elapsed() > FLUSH {
            self.sink.flush()?;
            self.written = Instant::now();
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Writes all flows that wait for verdicts; those that get none in time go without.
    fn settle_all(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + LAST_VERDICTS;
        let mut settled = Ok(());
        while self.annotator.waiting() > 0 && Instant::now() < deadline {
            settled = settled.and(self.settle(LAST_VERDICTS));
            thread::sleep(Duration::from_millis(1));
        }
        settled = settled.and(self.settle(Duration::ZERO));
        // Before the last report, which tells what the log did not take.
        settled.and(self.sink.flush().map_err(Error::from))
    }

    fn write(&mut self, mut flow: Flow) {
        if self.is_done() {
            self.books.withheld(&flow.record);
            return;
        }
        flow.id = self.next_id;
        self.next_id += 1;
        match self.sink.write(&flow) {
            Ok(()) => self.books.written(&flow.record),
            Err(e) => {
                // It is in the sink's memory, unless there is no file.
                match &e {
                    sink::Error::Open { .. } => self.books.withheld(&flow.record),
                    _ => self.books.written(&flow.record),
                }
                // Told at the next settle.
                self.failed.get_or_insert(e.into());
            }
        }
    }

    fn is_done(&self) -> bool {
        self.next_id >= self.max_nflows
    }

    fn report(&self, collector: &Collector) -> Result<Report, Error> {
        let (unwritten, redacted) = (self.sink.unwritten(), self.schema.redacted());
        Ok(Report::of(collector, &self.books, &self.annotator, unwritten, redacted)?)
    }

    /// Writes what is left, also after an error: it may have passed.
    fn close(mut self) -> Result<(), Error> {
        let written = self.sink.flush().map_err(Error::from);
        self.failed.take().map_or(Ok(()), Err).and(written)
    }
}

/// A flow stands in the log this long after it was written at the latest.
const FLUSH: Duration = Duration::from_millis(200);

/// At the end verdicts are waited for this long.
const LAST_VERDICTS: Duration = Duration::from_secs(5);

/// The reports of the balance that were asked for.
struct Reports {
    performance: Option<(Duration, Instant)>,
    meter: Option<(Duration, Instant)>,
}

impl Reports {
    fn new(plan: &LivePlan) -> Self {
        let from_now = |every| (every, Instant::now() + every);
        Self {
            performance: plan.performance_report.map(from_now),
            meter: plan.meter_records.map(from_now),
        }
    }

    /// Makes the reports that are due.
    fn make(&mut self, collector: &Collector, stages: &mut Stages) -> Result<(), Error> {
        if is_due(&mut self.performance) {
            stages.report(collector)?.print();
        }
        if is_due(&mut self.meter) {
            let report = stages.report(collector)?;
            stages.sink.write_json(&report.json())?;
        }
        Ok(())
    }

    /// Makes the last ones, with everything settled.
    fn last(self, collector: &Collector, stages: &mut Stages) -> Result<(), Error> {
        let report = stages.report(collector)?;
        report.print();
        if self.meter.is_some() {
            stages.sink.write_json(&report.json())?;
        }
        Ok(())
    }
}

fn is_due(report: &mut Option<(Duration, Instant)>) -> bool {
    match report {
        Some((every, at)) if *at <= Instant::now() => {
            *at = Instant::now() + *every;
            true
        }
        _ => false,
    }
}

/// Rests between polls: long when there was nothing, not at all when there is more. Polling costs
/// a packet a tenth of what a wake-up does.
fn rest(events: usize) {
    match events {
        0..64 => thread::sleep(Duration::from_millis(5)),
        64..4096 => thread::sleep(Duration::from_micros(500)),
        _ => {}
    }
}

fn warn_of_hooks(hooks: &mut HookWatch, kernel: &Kernel) -> Result<(), Error> {
    for change in hooks.look(kernel)? {
        eprintln!("flowmeter: warning: {change}");
    }
    Ok(())
}

/// Whether the kernel tells of sockets; warns where it does not.
fn hooks_work(kernel: &Kernel) -> bool {
    let hooks = kernel.socket_hooks();
    let mut failed: Vec<(&str, Vec<&str>)> = Vec::new();
    for hook in hooks {
        let Some(why) = &hook.failed else { continue };
        match failed.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, names)) => names.push(hook.name),
            None => failed.push((why, vec![hook.name])),
        }
    }
    for (why, names) in failed {
        eprintln!(
            "flowmeter: warning: short connections may have no process, as there is no hook at {}: \
             {why}",
            names.join(", ")
        );
    }
    hooks.iter().any(SocketHook::works)
}

fn log_start(kernel: &Kernel) {
    for (interface, hooks) in kernel.hooks() {
        let hooks: Vec<String> = hooks.iter().map(ToString::to_string).collect();
        eprintln!("flowmeter: metering `{}` by {}", interface.name, hooks.join(" and "));
    }
}
