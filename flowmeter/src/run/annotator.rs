//! What is added to a flow's sums before it is written: its application and its processes.
//!
//! Dissection is asynchronous: packets go in, verdicts come out later, and a flow that has ended
//! waits for its verdict, though not for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flowmeter_common::event::PacketEvent;
use flowmeter_common::knobs::MILLISECOND;
use flowmeter_common::record::mark;
use hashbrown::{HashMap, HashSet};
use thiserror::Error;

use crate::attribution::profile::{self, Source};
use crate::attribution::{
    self, Conversation, Hooked, Owner, Owners, Peers, Poller, ProcessKey, Profiles, Sender,
    Sighting,
};
use crate::capture::kernel::{Clock, OwnerRing, SettledFlows};
use crate::dissect::pool::{self, Pool};
use crate::dissect::{self, Verdict, segments};
use crate::flow::Flow;
use crate::notice::{Notice, Notices};
use crate::output::Sum;
use crate::table;

use super::options::LiveOptions;

/// Why annotation could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The dissector.
    #[error("failed to start the dissector")]
    Dissector(#[from] dissect::Error),
    /// The attribution.
    #[error("failed to start looking for the flows' processes")]
    Attribution(#[source] attribution::Error),
}

/// The dissector and the attribution, and the flows that wait for the former.
pub struct Annotator {
    dissector: Option<(Pool, SettledFlows)>,
    n_dissections: u32,
    sockets: Option<(OwnerRing, Hooked)>,
    processes: Option<Poller>,
    peers: Option<Peers>,
    profiles: Option<Profiles>,
    /// The last program heard of: most events come in runs of one.
    heard: Option<(ProcessKey, u64)>,
    /// Those heard of that are to be looked up.
    news: Vec<Sighting>,
    waiting: HashMap<u64, Flow>,
    order: VecDeque<(Instant, u64)>,
    ready: VecDeque<Flow>,
    verdicts: Vec<(u64, Verdict)>,
    settled: Vec<u64>,
    scratch: Vec<u8>,
    without_verdict: u64,
    /// Of those that wait, or are ready.
    unwritten: Sum,
    /// Flows of which the dissector had no room for a packet.
    untaken: HashSet<u64>,
}

impl Annotator {
    /// Starts what the options ask for. By `ring` the kernel reports sockets; by `settled` it learns
    /// which flows need no more dissection.
    /// `peers` are at the interfaces' other ends.
    pub fn start(
        options: &LiveOptions,
        mut ring: Option<OwnerRing>,
        settled: SettledFlows,
        peers: Option<Peers>,
        clock: Clock,
    ) -> Result<Self, Error> {
        // With hooks only what was there before them is to be found.
        let slower = if ring.is_some() { SELDOM } else { Duration::ZERO };
        let limits = attribution_options(options);
        let profiles = options.visibility.map(|_| Profiles::start(options.profiles, clock));
        let profiles = profiles.transpose().map_err(Error::Attribution)?;
        if let (Some(profiles), Some(ring)) = (&profiles, &mut ring) {
            profiles.cgroups_are(std::mem::take(&mut ring.old_cgroups));
        }
        let processes = options.visibility.and_then(|interval| {
            poller(interval.max(slower), limits, clock, profiles.clone(), &options.notices)
        });
        Ok(Self {
            dissector: dissector(options)?.map(|pool| (pool, settled)),
            n_dissections: options.knobs.n_dissections,
            profiles,
            heard: None,
            news: Vec::new(),
            sockets: ring.map(|ring| {
                let hooked = Hooked::new(limits, ring.namespace, clock);
                (ring, hooked)
            }),
            processes,
            peers,
            waiting: HashMap::new(),
            order: VecDeque::new(),
            ready: VecDeque::new(),
            verdicts: Vec::new(),
            settled: Vec::new(),
            scratch: Vec::new(),
            without_verdict: 0,
            unwritten: Sum::default(),
            untaken: HashSet::new(),
        })
    }

    /// Gives the dissector a packet, from its IP header on, or those that a super-packet was.
    pub fn inspect(&mut self, event: &PacketEvent, ip: &[u8]) {
        let Some((dissector, _)) = &mut self.dissector else { return };
        let left = self.n_dissections.saturating_sub(event.number.saturating_sub(1));
        if left == 0 {
            // It was forwarded for others.
            return;
        }
        let mut is_taken = true;
        segments::each(event, ip, &mut self.scratch, |index, ip| {
            let (number, time_ms) = (event.number + index, event.time_ns / MILLISECOND);
            if index < left {
                is_taken &= dissector.inspect(event.uid, number, time_ms, ip);
            }
        });
        if !is_taken {
            self.untaken.insert(event.uid);
        }
    }

    /// Adds the processes to a flow that has ended. It comes back unless it waits for its verdict.
    pub fn annotate(&mut self, mut flow: Flow) -> Option<Flow> {
        flow.owners = self.owners(&flow);
        let number = usize::from(flow.record.key.interface);
        flow.peer = self.peers.as_mut().and_then(|peers| peers.of(number));
        let Some((dissector, _)) = &mut self.dissector else { return Some(flow) };
        let uid = flow.record.uid;
        if table::is_hosts(uid) {
            // The kernel had no room for it, and sent no packet of it.
            flow.record.marks |= mark::DISSECTION_LOST;
            self.without_verdict += 1;
            return Some(flow);
        }
        if self.untaken.remove(&uid) {
            flow.record.marks |= mark::DISSECTION_LOST;
        }
        dissector.finish(uid);
        self.order.push_back((Instant::now(), uid));
        self.unwritten += Sum::flow(flow.record.packets());
        self.waiting.insert(uid, flow);
        None
    }

    /// Takes in what has happened to sockets. A packet's socket is reported before the packet.
    fn hear(&mut self) {
        let Some((ring, hooked)) = &mut self.sockets else { return };
        let mut left = MAX_EVENTS;
        while ring.next(|event| {
            hooked.event(event);
            if let Some(peers) = &mut self.peers {
                peers.hear(event);
            }
            let sighting = Sighting::by(event);
            // A process whose socket is closed is no news.
            if sighting.key.pid != 0 && self.heard != Some((sighting.key, sighting.exec_id)) {
                self.heard = Some((sighting.key, sighting.exec_id));
                self.news.push(sighting);
            }
        }) && left > 0
        {
            left -= 1;
        }
        if left > 0 {
            let lost = ring.lost();
            hooked.lost(lost);
            if let Some(peers) = &mut self.peers {
                peers.lost(lost);
            }
        }
        let Some(profiles) = &self.profiles else { return };
        // After the sockets: whoever has one has begun its program before.
        programs(ring, profiles);
        for heard in self.news.drain(..) {
            profiles.observe(heard);
        }
    }

    fn owners(&mut self, flow: &Flow) -> Owners {
        self.hear();
        let (src, dst) = (flow.src(), flow.dst());
        let conversation = Conversation {
            protocol: flow.record.key.protocol,
            src: (src.ip, src.port),
            dst: (dst.ip, dst.port),
        };
        // Sockets' and processes' times are by the clock that never steps.
        let record = &flow.record;
        let [first_ns, last_ns] =
            [record.first_ns(), record.last_ns()].map(|ns| record.by_the_clock(ns));
        let mut owners = Owners::default();
        if let Some((_, hooked)) = &mut self.sockets {
            let senders = record.directions.map(|direction| Sender {
                cookie: direction.cookie,
                first_ns: record.by_the_clock(direction.first_ns),
                last_ns: record.by_the_clock(direction.last_ns),
            });
            owners = hooked.owners(&conversation, senders, first_ns, last_ns);
        }
        if let Some(processes) = &self.processes
            && (owners.src.is_none() || owners.dst.is_none())
        {
            let polled = processes.owners(&conversation, first_ns, last_ns);
            owners.src = owners.src.or(polled.src);
            owners.dst = owners.dst.or(polled.dst);
        }
        if let Some(peers) = &mut self.peers
            && (owners.src.is_none() || owners.dst.is_none())
        {
            let number = usize::from(flow.record.key.interface);
            let theirs = peers.owners(number, &conversation, first_ns, last_ns);
            owners.src = owners.src.or(theirs.src);
            owners.dst = owners.dst.or(theirs.dst);
        }
        if let Some(profiles) = &self.profiles {
            let get = |owner: &Owner| profiles.get(Sighting::of(owner, first_ns));
            let ends = [&owners.src, &owners.dst].into_iter().flatten();
            let is_read = ends.filter(|owner| get(owner).1 == Source::Procfs).count() > 0;
            // What a process has begun meanwhile may be what was read.
            if is_read && let Some((ring, _)) = &mut self.sockets {
                programs(ring, profiles);
            }
            for owner in [&mut owners.src, &mut owners.dst].into_iter().flatten() {
                owner.know(get(owner).0);
                owner.user = profiles.user(owner.ids.uid);
            }
        }
        owners
    }

    /// What has been done with what is known of processes.
    pub fn profiles(&self) -> Option<profile::Counters> {
        self.profiles.as_ref().map(Profiles::counters)
    }

    /// What attribution by polling has done.
    pub fn polled(&self) -> Option<attribution::PollerCounters> {
        self.processes.as_ref().map(Poller::counters)
    }

    /// What attribution by hooks has done.
    pub fn hooked(&self) -> Option<attribution::HookedCounters> {
        self.sockets.as_ref().map(|(_, hooked)| hooked.counters())
    }

    /// Sends what is to be sent and takes what has come.
    pub fn exchange(&mut self) {
        self.hear();
        let Some((dissector, settled)) = &mut self.dissector else { return };
        dissector.flush();
        dissector.take(&mut self.verdicts, &mut self.settled);
        for uid in self.settled.drain(..) {
            settled.add(uid);
        }
        for (uid, verdict) in self.verdicts.drain(..) {
            if let Some(mut flow) = self.waiting.remove(&uid) {
                flow.layer7 = verdict.layer7;
                if verdict.is_lost {
                    flow.record.marks |= mark::DISSECTION_LOST;
                }
                self.ready.push_back(flow);
            }
        }
    }

    /// The next flow that is complete: its verdict has come, or it has waited for `longest`.
    pub fn complete(&mut self, longest: Duration) -> Option<Flow> {
        let flow = self.next(longest)?;
        self.unwritten -= Sum::flow(flow.record.packets());
        Some(flow)
    }

    fn next(&mut self, longest: Duration) -> Option<Flow> {
        if let Some(flow) = self.ready.pop_front() {
            return Some(flow);
        }
        while let Some((since, uid)) = self.order.front() {
            let overdue = since.elapsed() >= longest;
            match self.waiting.entry(*uid) {
                hashbrown::hash_map::Entry::Occupied(flow) if overdue => {
                    self.order.pop_front();
                    self.without_verdict += 1;
                    let mut flow = flow.remove();
                    flow.record.marks |= mark::DISSECTION_LOST;
                    return Some(flow);
                }
                hashbrown::hash_map::Entry::Occupied(_) => return None,
                hashbrown::hash_map::Entry::Vacant(_) => {
                    self.order.pop_front();
                }
            }
        }
        None
    }

    /// Flows that wait.
    pub fn waiting(&self) -> Sum {
        self.unwritten
    }

    /// Dissecting processes that crashed, and that hung.
    pub fn dissectors_lost(&self) -> (u64, u64) {
        if let Some((dissector, _)) = &self.dissector {
            let counters = dissector.counters();
            return (counters.crashes, counters.hangs);
        }
        (0, 0)
    }

    /// Packets that the dissector had no room for, or of flows that it had none for.
    pub fn not_dissected(&self) -> u64 {
        let counters = self.dissector.as_ref().map(|(dissector, _)| dissector.counters());
        counters.map_or(0, |counters| counters.dropped + counters.crowded)
    }

    /// Flows that were written without a verdict because it did not come in time.
    pub fn without_verdict(&self) -> u64 {
        self.without_verdict
    }
}

/// Takes in the processes, cgroups and programs that the kernel has reported.
fn programs(ring: &mut OwnerRing, profiles: &Profiles) {
    while ring.next_fork(|event| profiles.forked(event)) {}
    while ring.next_cgroup(|event| profiles.cgroup_made(event)) {}
    while ring.next_program(|event| profiles.executed(event)) {}
    profiles.is_up_to_date();
}

/// Sockets' events taken at a time, so that the packets get their turn.
const MAX_EVENTS: usize = 65_536;

/// With hooks procfs is polled this often.
const SELDOM: Duration = Duration::from_mins(1);

/// What attribution may cost in this run. Sockets are asked for when a flow ends, so they are
/// remembered for longer than the longest silence before that.
pub fn attribution_options(options: &LiveOptions) -> attribution::Options {
    let limits = attribution::Options::default();
    let idle = Duration::from_nanos(options.knobs.idle_ns);
    let retention = limits.retention.max(idle.saturating_mul(2));
    attribution::Options { retention, max_entries: options.max_sockets }
}

/// Polls procfs. A host that does not let it has flows without processes, which is said.
fn poller(
    interval: Duration,
    limits: attribution::Options,
    clock: Clock,
    profiles: Option<Profiles>,
    notices: &Notices,
) -> Option<Poller> {
    let poller = match Poller::start(interval, limits, clock, profiles) {
        Ok(poller) => poller,
        Err(e) => {
            let cause = std::error::Error::source(&e).map(|cause| format!(": {cause}"));
            notices.send(Notice::NoProcfs { why: format!("{e}{}", cause.unwrap_or_default()) });
            return None;
        }
    };
    let unreadable = poller.counters().unreadable;
    if unreadable > 0 {
        notices.send(Notice::UnreadableProcesses(unreadable));
    }
    Some(poller)
}

fn dissector(options: &LiveOptions) -> Result<Option<Pool>, Error> {
    if options.knobs.n_dissections == 0 {
        return Ok(None);
    }
    let pool = pool::Options {
        n_dissections: options.knobs.n_dissections,
        threads: 1,
        max_flows: options.max_flows as usize,
        details: options.details,
        containment: options.containment.clone(),
        notices: options.notices.clone(),
    };
    Ok(Some(Pool::start(&pool)?))
}
