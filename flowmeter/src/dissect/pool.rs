//! How do packets get to the dissectors, and verdicts back, without anyone waiting?
//!
//! Every worker has a thread, a dissector (in a contained process, unless told otherwise) and a
//! bounded queue of batches. A flow belongs to one
//! worker. The caller never blocks: packets that find no room are dropped and counted; the news
//! that a flow ended stays in the pending batch until there is room. Every [`Pool::finish`] is
//! answered, even if its worker died.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};
use hashbrown::HashSet;

use super::batch::Batch;
use super::contained::process::{Returned, Spare};
use super::dissector::Limits;
use super::place::{Place, Places};
use super::{Containment, Error, Verdict};
use crate::notice::Notices;

/// Batches that may wait for a worker. With the ones being filled and worked on, a worker has at
/// most some 2 MiB of packets.
const QUEUE: usize = 32;
/// Packet bytes after which a batch is sent.
const BATCH_BYTES: usize = 64 * 1024;
/// Messages after which a batch is sent: small packets fill it no later than large ones.
const BATCH_MESSAGES: usize = 512;

/// How much is dissected, and by how many.
#[derive(Clone, Debug)]
pub struct Options {
    /// Packets of a flow after which nDPI gives up; those past it are not looked at. 0: none are.
    pub n_dissections: u32,
    /// Worker threads, each with an nDPI module of some 5 MiB (10 MiB from nDPI 5.0). At least 1.
    pub threads: usize,
    /// Flows under dissection at a time, over all workers; some 1.5 KB each.
    pub max_flows: usize,
    /// Whether verdicts have [`Layer7::details`](super::Layer7::details).
    pub details: bool,
    /// Where it is done.
    pub containment: Containment,
    /// Where it goes what is to be told.
    pub notices: Notices,
}

/// What happened to the packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets nDPI looked at, or no longer needed to.
    pub inspected: u64,
    /// Packets with headers that lie about their length: not shown to nDPI.
    pub refused: u64,
    /// Packets lost because a worker's queue was full, or the worker or its process had died.
    pub dropped: u64,
    /// Packets of flows that found `max_flows` others under dissection.
    pub crowded: u64,
    /// Flows under dissection now.
    pub flows: u64,
    /// Processes that ended by themselves, and were replaced.
    pub crashes: u64,
    /// Processes that were stopped, took too long or answered nonsense, and were replaced.
    pub hangs: u64,
}

/// The workers, seen from the one thread that feeds them.
#[derive(Debug)]
pub struct Pool {
    workers: Vec<Worker>,
    places: Places,
    n_dissections: u32,
    dropped: u64,
}

impl Pool {
    /// Starts the workers, one after another: nDPI's initialisation allows no other. Takes some
    /// 30 ms each.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let threads = options.threads.max(1);
        let places = Places::new(&options.containment, &options.notices)?;
        let n_dissections = options.n_dissections;
        let max_flows = options.max_flows.div_ceil(threads);
        let limits = Limits { n_dissections, max_flows, parts: 1, details: options.details };
        let workers = (0..threads)
            .map(|index| Worker::start(index, places.clone(), limits))
            .collect::<Result<_, _>>()?;
        Ok(Self { workers, places, n_dissections, dropped: 0 })
    }

    /// Hands over a copy of a flow's `number`-th packet (from 1, counting both directions),
    /// starting with its IP header. It may wait in a batch until [`Pool::flush`].
    ///
    /// Packets past `n_dissections` are ignored: they can change nothing. False if there was no
    /// room.
    pub fn inspect(&mut self, flow: u64, number: u32, time_ms: u64, ip: &[u8]) -> bool {
        if number > self.n_dissections {
            return true;
        }
        let worker = self.worker(flow);
        if !worker.make_room() {
            self.dropped += 1;
            return false;
        }
        worker.given += 1;
        worker.pending.packet(flow, 0, number, time_ms, ip);
        true
    }

    /// A flow ended, and its verdict is wanted. It comes with [`Pool::take`], once; `None` if
    /// none of its packets arrived. After this the id may be used for another flow only once its
    /// verdict came.
    pub fn finish(&mut self, flow: u64) {
        let worker = self.worker(flow);
        worker.owed.insert(flow);
        worker.pending.finish(flow);
        worker.make_room();
    }

    /// Sends what is pending, as far as there is room. To be called every few milliseconds.
    pub fn flush(&mut self) {
        for worker in &mut self.workers {
            worker.send();
        }
    }

    /// Appends the verdicts that have come by now, and the flows whose further packets change
    /// nothing.
    pub fn take(&mut self, verdicts: &mut Vec<(u64, Verdict)>, settled: &mut Vec<u64>) {
        for worker in &mut self.workers {
            worker.receive(verdicts, settled);
        }
    }

    /// What happened so far. A worker's own counts are up to one batch late.
    pub fn counters(&self) -> Counters {
        let losses = self.places.losses();
        let mut sum = Counters {
            dropped: self.dropped,
            crashes: losses.crashes.load(Relaxed),
            hangs: losses.hangs.load(Relaxed),
            ..Counters::default()
        };
        for worker in &self.workers {
            sum.dropped += worker.dropped + worker.counters.lost.load(Relaxed);
            sum.inspected += worker.counters.inspected.load(Relaxed);
            sum.refused += worker.counters.refused.load(Relaxed);
            sum.crowded += worker.counters.crowded.load(Relaxed);
            sum.flows += worker.counters.flows.load(Relaxed);
        }
        sum
    }

    /// The worker a flow belongs to. Ids may be consecutive or addresses; their bits are mixed by
    /// Fibonacci hashing.
    fn worker(&mut self, flow: u64) -> &mut Worker {
        let mixed = flow.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let index = mixed as usize % self.workers.len();
        &mut self.workers[index]
    }
}

type Verdicts = Vec<(u64, Verdict)>;

/// What a worker has found out: verdicts, and settled flows.
type News = (Verdicts, Vec<u64>);

/// Written by a worker after every batch.
#[derive(Debug, Default)]
struct WorkerCounters {
    inspected: AtomicU64,
    refused: AtomicU64,
    crowded: AtomicU64,
    lost: AtomicU64,
    flows: AtomicU64,
}

impl WorkerCounters {
    /// Packets the worker got to.
    fn packets(&self) -> u64 {
        [&self.inspected, &self.refused, &self.crowded, &self.lost]
            .map(|count| count.load(Relaxed))
            .iter()
            .sum()
    }
}

/// A worker, seen from the pool.
#[derive(Debug)]
struct Worker {
    /// Taken to end the thread.
    ends: Option<Ends>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<WorkerCounters>,
    pending: Batch,
    /// Flows whose verdict has not come: answered from here if the worker dies.
    owed: HashSet<u64>,
    /// Packets given to it, pending ones included.
    given: u64,
    /// Of these, the ones the worker died before.
    dropped: u64,
}

/// The pool's ends of a worker's channels.
#[derive(Debug)]
struct Ends {
    batches: Sender<Batch>,
    /// Emptied batches, to be filled again.
    recycled: Receiver<Batch>,
    news: Receiver<News>,
}

impl Worker {
    fn start(index: usize, places: Places, limits: Limits) -> Result<Self, Error> {
        let (batches, queue) = bounded(QUEUE);
        // Room for every batch there can be: one filled, one worked on, the rest in the queue.
        let (recycle, recycled) = bounded(QUEUE + 2);
        let (answer, news) = bounded(QUEUE);
        let (report, ready) = bounded(1);
        let counters = Arc::new(WorkerCounters::default());
        let its_counters = Arc::clone(&counters);
        let thread = thread::Builder::new()
            .name(format!("dissect-{index}"))
            .spawn(move || {
                let place = match places.make(limits, Spare::Ready) {
                    Ok(place) => place,
                    Err(error) => {
                        let _ = report.send(Err(error));
                        return;
                    }
                };
                if report.send(Ok(())).is_err() {
                    return;
                }
                Thread { place, counters: its_counters }.run(&queue, &recycle, &answer);
            })
            .map_err(Error::Thread)?;
        ready.recv().map_err(|_| Error::Ended)??;
        Ok(Self {
            ends: Some(Ends { batches, recycled, news }),
            thread: Some(thread),
            counters,
            pending: Batch::default(),
            owed: HashSet::new(),
            given: 0,
            dropped: 0,
        })
    }

    /// Is there room for another packet, if need be after sending what is pending?
    fn make_room(&mut self) -> bool {
        let full = self.pending.bytes.len() >= BATCH_BYTES
            || self.pending.messages.len() >= BATCH_MESSAGES;
        !full || self.send()
    }

    /// Sends what is pending; false if there was no room. A dead worker takes nothing.
    fn send(&mut self) -> bool {
        let Some(ends) = &self.ends else {
            return false;
        };
        if self.pending.messages.is_empty() {
            return true;
        }
        if ends.batches.is_full() {
            return false;
        }
        let empty = ends.recycled.try_recv().unwrap_or_default();
        match ends.batches.try_send(mem::replace(&mut self.pending, empty)) {
            Ok(()) => true,
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                self.pending = batch;
                false
            }
        }
    }

    /// Appends the verdicts that have come; those of a dead worker, all of them.
    fn receive(&mut self, take: &mut Verdicts, take_settled: &mut Vec<u64>) {
        if let Some(ends) = &self.ends {
            loop {
                match ends.news.try_recv() {
                    Ok((verdicts, settled)) => {
                        take_settled.extend(settled);
                        for (flow, _) in &verdicts {
                            self.owed.remove(flow);
                        }
                        take.extend(verdicts);
                    }
                    Err(TryRecvError::Empty) => return,
                    Err(TryRecvError::Disconnected) => break,
                }
            }
        }
        self.bury();
        let lost = Verdict { layer7: None, is_lost: true };
        take.extend(self.owed.drain().map(|flow| (flow, lost.clone())));
    }

    /// Lets go of a worker that died, and of what it will not get any more.
    fn bury(&mut self) {
        self.ends = None;
        self.dropped = self.given.saturating_sub(self.counters.packets());
        self.pending = Batch::default();
        self.counters.flows.store(0, Relaxed);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // With its channels gone a worker ends after the batch it is at.
        self.ends = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// A worker, seen from its thread.
struct Thread {
    place: Place,
    counters: Arc<WorkerCounters>,
}

/// How often a process that has nothing to do is looked at.
const LOOK: Duration = Duration::from_millis(20);

impl Thread {
    fn run(mut self, queue: &Receiver<Batch>, recycle: &Sender<Batch>, answer: &Sender<News>) {
        loop {
            let mut back = Returned::default();
            match queue.recv_timeout(LOOK) {
                Ok(batch) => {
                    let empty = self.place.exchange(batch, &mut back);
                    let _ = recycle.try_send(empty);
                    if queue.is_empty() {
                        self.place.collect(&mut back);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.place.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.count(&back);
            let has_news = !back.verdicts.is_empty() || !back.settled.is_empty();
            if has_news && answer.send((back.verdicts, back.settled)).is_err() {
                return;
            }
        }
    }

    fn count(&self, back: &Returned) {
        self.counters.inspected.fetch_add(back.counts.inspected, Relaxed);
        self.counters.refused.fetch_add(back.counts.refused, Relaxed);
        self.counters.crowded.fetch_add(back.counts.crowded, Relaxed);
        self.counters.lost.fetch_add(back.lost_packets, Relaxed);
        if let Some(flows) = back.flows {
            self.counters.flows.store(flows, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Counters, Options, Pool, Verdicts};
    use crate::dissect::samples::{dns_query, http_get, tls_client_hello};
    use crate::dissect::{Containment, Verdict};

    fn pool(threads: usize, max_flows: usize) -> Pool {
        let containment = Containment::InProcess;
        let options = Options {
            n_dissections: 20,
            threads,
            max_flows,
            details: false,
            containment,
            notices: crate::notice::Notices::none(),
        };
        Pool::start(&options).expect("nDPI is installed")
    }

    /// Flushes until this many verdicts came; sorted by flow.
    fn wait(pool: &mut Pool, count: usize) -> Verdicts {
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut got = Vec::new();
        while got.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} came", got.len());
            pool.flush();
            pool.take(&mut got, &mut Vec::new());
            std::thread::yield_now();
        }
        got.sort_by_key(|(flow, _)| *flow);
        got
    }

    #[test]
    fn every_flow_gets_its_own_verdict() {
        let mut pool = pool(3, 10_000);
        let samples = [(tls_client_hello(), "TLS"), (dns_query(), "DNS"), (http_get(), "HTTP")];
        for flow in 0..300 {
            pool.inspect(flow, 1, flow, &samples[flow as usize % 3].0);
        }
        for flow in 0..301 {
            pool.finish(flow);
        }
        let got = wait(&mut pool, 301);
        for (flow, verdict) in &got[..300] {
            let layer7 = verdict.layer7.as_ref().expect("it was inspected");
            assert_eq!(layer7.application_name, samples[*flow as usize % 3].1);
            // The names in DNS and HTTP are nDPI's to find.
            if cfg!(feature = "ndpi") || layer7.application_name == "TLS" {
                assert_eq!(layer7.requested_server_name, "www.example.org");
            }
        }
        assert_eq!(got[300], (300, Verdict::default()), "never inspected");
        assert_eq!(pool.counters(), Counters { inspected: 300, ..Counters::default() });
    }

    #[test]
    fn a_flood_drops_packets_but_no_ends() {
        let mut pool = pool(1, 1_000_000);
        let packet = http_get();
        let flows = 50_000;
        for flow in 0..flows {
            pool.inspect(flow, 1, 0, &packet);
            pool.finish(flow);
        }
        let got = wait(&mut pool, flows as usize);
        assert!(got.iter().map(|(flow, _)| *flow).eq(0..flows));
        let verdicts = got.iter().filter(|(_, verdict)| verdict.layer7.is_some()).count() as u64;
        let counters = pool.counters();
        assert_eq!(counters.inspected, verdicts);
        assert_eq!(counters.inspected + counters.dropped, flows);
        assert_eq!(counters.flows, 0);
    }

    #[test]
    fn flows_past_the_limit_are_counted_and_answered() {
        let mut pool = pool(1, 1);
        let query = dns_query();
        pool.inspect(1, 1, 0, &query);
        pool.inspect(2, 1, 0, &query);
        pool.inspect(1, 2, 0, &query[..30]);
        pool.inspect(1, 21, 0, &query);
        pool.finish(2);
        assert_eq!(wait(&mut pool, 1), [(2, Verdict::default())]);
        assert_eq!(
            pool.counters(),
            Counters { inspected: 1, refused: 1, crowded: 1, flows: 1, ..Counters::default() }
        );
    }

    #[test]
    fn a_dead_worker_still_answers() {
        let mut pool = pool(1, 10);
        pool.inspect(1, 1, 0, &dns_query());
        pool.finish(1);
        // Its queue closes under it, as if the thread had gone.
        pool.workers[0].bury();
        pool.finish(2);
        pool.inspect(3, 1, 0, &dns_query());
        let lost = Verdict { layer7: None, is_lost: true };
        assert_eq!(wait(&mut pool, 2), [(1, lost.clone()), (2, lost)]);
        assert_eq!(pool.counters().dropped, 2);
    }

    #[test]
    fn a_pool_ends_with_work_waiting() {
        let mut pool = pool(2, 10_000);
        for flow in 0..5000 {
            pool.inspect(flow, 1, 0, &http_get());
            pool.finish(flow);
        }
        drop(pool);
    }
}
