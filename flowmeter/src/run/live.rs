//! What happens between a packet at the interface and a row in the log?
//!
//! Collect → inspect → annotate → write: the stages, wired. The run never reads a clock of the
//! packets' time; it is handed what the kernel saw.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use flowmeter_common::event::{PacketEvent, PacketHead};
use thiserror::Error;

use super::annotator::{self, Annotator};
use super::control::{Control, Hold};
use super::failed::Failed;
use super::hooks::HookWatch;
use super::ledger::Ledger;
use super::options::LiveOptions;
use super::outlet::Outlet;
use super::outlets::Outlets;
use super::plugged::Plugged;
use crate::attribution::Peers;
use crate::capture::kernel::{self, Interface, Kernel, SocketHook};
use crate::collector::kernel::{Collector, Observer};
use crate::flow::Flow;
use crate::model::{self, Models, Scorer};
use crate::notice::{Notice, Notices};
use crate::output;
use crate::report::{self, Of, Report};
use crate::table::Ended;

/// Why a run ended before it should have.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel half.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// An output.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// There is nothing more to meter.
    #[error("no interface is left to meter; what was metered so far is written")]
    NoInterface,
    /// Dissector or attribution.
    #[error(transparent)]
    Annotate(#[from] annotator::Error),
    /// A model.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The thread of an output.
    #[error("failed to start a thread for an output")]
    Thread(#[source] std::io::Error),
}

/// A run that meters interfaces: its programs are attached, and packets are seen from now on.
///
/// What it needs privileges for has been done, and no thread been started, so that capabilities can
/// be given up before [`run`](Self::run).
pub struct Live {
    options: LiveOptions,
    control: Hold,
    outlets: Vec<Outlet>,
    kernel: Kernel,
    peers: Option<Peers>,
    redacted: Redacted,
}

/// Tells how many URLs had secrets.
type Redacted = Box<dyn Fn() -> u64 + Send>;

impl Live {
    pub(super) fn attach(options: LiveOptions) -> Result<Self, Error> {
        let kernel = Kernel::open(&options.kernel())?;
        let peers = options.visibility.map(|_| {
            let ends = kernel.interfaces.iter().map(Interface::far_end);
            Peers::new(ends, annotator::attribution_options(&options), kernel.clock())
        });
        Ok(Self {
            options,
            control: Hold(Arc::new(Control::with_reports())),
            outlets: Vec::new(),
            kernel,
            peers,
            redacted: Box::new(|| 0),
        })
    }

    /// Adds an output. The flows of the first one are those that reports call written.
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
        Arc::clone(&self.control.0)
    }

    /// Meters until it is asked to stop, there are flows enough, or no interface is left. All that is
    /// resident then is written; the last report is there whatever has happened.
    pub fn run(self) -> Result<Report, Failed<Error>> {
        let Self { options, control, outlets, mut kernel, peers, redacted } = self;
        let control = &control.0;
        let notices = options.notices.clone();
        let mut stages =
            match Stages::start(&options, control, outlets, &mut kernel, peers, redacted) {
                Ok(stages) => stages,
                Err(e) => return Err(Failed::unreported(e)),
            };
        let max_overflow = options.max_flows as usize;
        let collector = Collector::new(kernel, options.knobs, max_overflow, notices.clone());
        let mut collector = match collector {
            Ok(collector) => collector,
            Err(e) => return Err(Failed::unreported(e)),
        };
        let metered = meter_until_asked(&options, control, &mut collector, &mut stages);
        stages.outlets.end();
        // Whatever has happened, what is resident is written as far as it can be.
        let finished = collector.finish(&mut stages).map_err(Error::from);
        let written = stages.write_all();
        let recorded = match options.records {
            Some(_) => {
                stages.report(&collector).map(|report| stages.outlets.record(&report.json()))
            }
            None => Ok(()),
        };
        let closed = stages.outlets.close().map_err(Error::from);
        let ended = metered.and_then(|end| {
            finished.and(written).and(recorded).and(closed)?;
            if end == End::NoInterface { Err(Error::NoInterface) } else { Ok(()) }
        });
        match stages.report(&collector) {
            Ok(report) => Failed::unless_well(ended, report),
            Err(e) => Err(Failed::unreported(ended.err().unwrap_or(e))),
        }
    }
}

/// Why a run is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Asked,
    NoInterface,
}

fn meter_until_asked(
    options: &LiveOptions,
    control: &Control,
    collector: &mut Collector,
    stages: &mut Stages,
) -> Result<End, Error> {
    let notices = &options.notices;
    let mut hooks = HookWatch::new(collector.kernel());
    let mut records = Due::every(options.records);
    let mut gone = Gone::default();
    for (interface, hooks) in collector.kernel().hooks() {
        notices.send(Notice::Metering {
            interface: interface.name.to_string(),
            hooks: hooks.iter().map(ToString::to_string).collect(),
        });
    }
    while !control.is_stopped() && !stages.ledger.is_full() {
        if control.wants_reopened() {
            stages.outlets.reopen();
        }
        let events = collector.tick(stages)?;
        if let Some(plugged) = &mut stages.plugged {
            collector.end(&mut plugged.due)?;
        }
        stages.write_complete(Duration::from_secs(1))?;
        if records.is_due() {
            let report = stages.report(collector)?;
            stages.outlets.record(&report.json());
        }
        for asked in control.asked() {
            // Whoever asked may have given up.
            let _ = asked.send(stages.report(collector)?);
        }
        for change in hooks.look(collector.kernel())? {
            notices.send(Notice::Sight(change.to_string()));
        }
        if gone.all_are(collector.kernel(), notices) {
            return Ok(End::NoInterface);
        }
        rest(events);
    }
    Ok(End::Asked)
}

/// Interfaces that have gone since they were attached to.
struct Gone {
    names: Vec<Arc<str>>,
    next: Instant,
}

/// How often interfaces are looked up.
const LOOK: Duration = Duration::from_secs(1);

impl Default for Gone {
    fn default() -> Self {
        Self { names: Vec::new(), next: Instant::now() + LOOK }
    }
}

impl Gone {
    /// Looks from time to time, and reports those that are gone. Whether all are.
    fn all_are(&mut self, kernel: &Kernel, notices: &Notices) -> bool {
        if Instant::now() < self.next {
            return false;
        }
        self.next = Instant::now() + LOOK;
        for interface in kernel.interfaces.iter().filter(|interface| !interface.is_there()) {
            if !self.names.contains(&interface.name) {
                notices.send(Notice::Gone { interface: interface.name.to_string() });
                self.names.push(Arc::clone(&interface.name));
            }
        }
        self.names.len() == kernel.interfaces.len()
    }
}

/// What follows the collector.
struct Stages {
    annotator: Annotator,
    plugged: Option<Plugged>,
    models: Models,
    /// None without models.
    scorer: Option<Scorer<()>>,
    interfaces: Vec<Arc<str>>,
    outlets: Outlets,
    ledger: Ledger,
    redacted: Redacted,
}

impl Observer for Stages {
    fn packet(&mut self, event: &PacketEvent, head: Option<&PacketHead>, ip: &[u8]) {
        self.annotator.inspect(event, ip);
        if let (Some(plugged), Some(head)) = (&mut self.plugged, head) {
            plugged.packet(event, head, ip);
        }
    }

    fn ended(&mut self, mut ended: Ended<()>) {
        self.ledger.ended(ended.record.packets());
        if let Some(plugged) = &mut self.plugged {
            plugged.ended(&mut ended);
        }
        let interface = self.interfaces.get(usize::from(ended.record.key.interface)).cloned();
        let flow = Flow { interface, ..Flow::new(ended.reason, ended.record, ended.splt) };
        if let Some(flow) = self.annotator.annotate(flow) {
            self.write(flow);
        }
    }
}

impl Stages {
    fn start(
        options: &LiveOptions,
        control: &Control,
        outlets: Vec<Outlet>,
        kernel: &mut Kernel,
        peers: Option<Peers>,
        redacted: Redacted,
    ) -> Result<Self, Error> {
        let ring =
            if hooks_work(kernel, &options.notices) { Some(kernel.owner_ring()?) } else { None };
        let settled = kernel.settled_flows()?;
        let LiveOptions { models, plugins, notices, .. } = options;
        let start = || models.start(plugins.columns().count(), notices);
        let scorer = (!models.is_empty()).then(start).transpose()?.map(Scorer::new);
        Ok(Self {
            annotator: Annotator::start(options, ring, settled, peers, kernel.clock())?,
            plugged: Plugged::start(options),
            models: models.clone(),
            scorer,
            interfaces: kernel.interfaces.iter().map(|i| Arc::clone(&i.name)).collect(),
            outlets: Outlets::queued(outlets, control, notices).map_err(Error::Thread)?,
            ledger: Ledger::new(options.max_nflows),
            redacted,
        })
    }

    /// Writes the flows whose verdicts have come, and those that have waited for `longest`.
    fn write_complete(&mut self, longest: Duration) -> Result<(), Error> {
        self.annotator.exchange();
        while let Some(flow) = self.annotator.complete(longest) {
            self.write(flow);
        }
        self.score();
        Ok(self.outlets.look()?)
    }

    /// Writes all flows that wait for verdicts; those that get none in time go without.
    fn write_all(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + LAST_VERDICTS;
        let mut written = Ok(());
        while self.annotator.waiting().flows > 0 && Instant::now() < deadline {
            written = written.and(self.write_complete(LAST_VERDICTS));
            thread::sleep(Duration::from_millis(1));
        }
        written.and(self.write_complete(Duration::ZERO))
    }

    fn write(&mut self, mut flow: Flow) {
        if let Some(plugged) = &mut self.plugged {
            plugged.expired(&mut flow);
        }
        match &mut self.scorer {
            None => self.give(flow),
            Some(scorer) => {
                if scorer.add((), flow) {
                    self.score();
                }
            }
        }
    }

    /// Runs the models on the flows that wait for them, and gives these to the outputs.
    fn score(&mut self) {
        let Some(scorer) = &mut self.scorer else { return };
        for ((), flow) in scorer.scored() {
            self.give(flow);
        }
    }

    fn give(&mut self, mut flow: Flow) {
        if let Some(number) = self.ledger.number(flow.record.packets()) {
            flow.id = number;
            self.outlets.flow(flow);
        }
    }

    fn report(&self, collector: &Collector) -> Result<Report, Error> {
        let kernel = collector.kernel();
        let interface = |(interface, hooks): (&Interface, &[kernel::Hook])| report::Interface {
            name: interface.name.to_string(),
            hooks: hooks.iter().map(ToString::to_string).collect(),
            traffic: interface.traffic_since(),
        };
        let sockets = self.annotator.hooked().map(|hooked| Ok((kernel.owner_counters()?, hooked)));
        let (dissector_crashes, dissector_hangs) = self.annotator.dissectors_lost();
        Ok(Report {
            time_ns: kernel::now_ns(),
            ended: self.ledger.ended,
            withheld: self.ledger.withheld,
            undissected: self.annotator.waiting(),
            given: self.ledger.given,
            outputs: self.outlets.counts(),
            model_failures: self.models.failures(),
            urls_redacted: (self.redacted)(),
            dissector_crashes,
            dissector_hangs,
            of: Of::Live(Box::new(report::Live {
                balance: collector.balance()?,
                interfaces: kernel.hooks().map(interface).collect(),
                flows_left: collector.left() as u64,
                flows_without_verdict: self.annotator.without_verdict(),
                flows_in_userspace: collector.overflowed() as u64,
                not_dissected: self.annotator.not_dissected(),
                clock_step_ns: kernel.clock_step(),
                sockets: sockets.transpose().map_err(|e: kernel::Error| e)?,
                procfs: self.annotator.polled(),
                processes: self.annotator.profiles(),
            })),
        })
    }
}

/// At the end verdicts are waited for this long.
const LAST_VERDICTS: Duration = Duration::from_secs(5);

/// Something that is done from time to time, if at all.
struct Due(Option<(Duration, Instant)>);

impl Due {
    fn every(time: Option<Duration>) -> Self {
        Self(time.map(|every| (every, Instant::now() + every)))
    }

    fn is_due(&mut self) -> bool {
        match &mut self.0 {
            Some((every, at)) if *at <= Instant::now() => {
                *at = Instant::now() + *every;
                true
            }
            _ => false,
        }
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

/// Whether the kernel reports sockets; reports where it does not.
fn hooks_work(kernel: &Kernel, notices: &Notices) -> bool {
    let hooks = kernel.socket_hooks();
    let mut failed: Vec<(&str, Vec<&'static str>)> = Vec::new();
    for hook in hooks {
        let Some(why) = &hook.failed else { continue };
        match failed.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, names)) => names.push(hook.name),
            None => failed.push((why, vec![hook.name])),
        }
    }
    for (why, hooks) in failed {
        notices.send(Notice::NoSocketHooks { hooks, why: why.to_owned() });
    }
    hooks.iter().any(SocketHook::works)
}
