//! How do several workers write one log?
//!
//! A reader finds the packets and sends them to all workers in batches. Each worker meters its
//! share of the flows, and sends them as finished rows with their ranks. This thread merges the
//! rows by rank, puts in the ids and writes them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::report::Report;
use super::{Error, Output, Seen, Stages, frames};
use crate::capture::pcap;
use crate::collector::pcap::{Collector, Found, Rank, Share, Tally};
use crate::config::ReadPlan;
use crate::dissect::place::Places;
use crate::fields::value::Value;
use crate::record::Flow;
use crate::signals::Signals;
use crate::sink::rows::Rows;
use crate::sink::{self, Sink};

/// Batches of packets that may wait for a worker.
const PACKETS_QUEUE: usize = 8;
/// Packets in a batch, and bytes of theirs.
const PACKETS: usize = 1024;
const PACKET_BYTES: usize = 1 << 20;
/// Batches of rows that may wait for the merge, of each worker.
const ROWS_QUEUE: usize = 16;
/// Bytes of rows after which a batch is sent.
const ROW_BYTES: usize = 128 * 1024;

/// Meters with several workers, more than one.
pub fn read(
    plan: &ReadPlan,
    parts: u64,
    workers: u64,
    signals: &Arc<Signals>,
) -> Result<(), Error> {
    let mut sink = sink::open(plan.output.clone(), Arc::clone(&plan.schema))?;
    let max_nflows = plan.max_nflows.unwrap_or(u64::MAX);
    let places = &Places::new(&plan.containment)?;
    std::thread::scope(|scope| {
        let (mut queues, mut lanes, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        let (recycle, recycled) = bounded(PACKETS_QUEUE);
        for worker in 0..workers {
            let (queue, packets) = bounded(PACKETS_QUEUE);
            let (sender, receiver) = bounded(ROWS_QUEUE);
            let share = Share { worker, of: workers, parts };
            let recycle = recycle.clone();
            let run = move || work(plan, share, places, &packets, &recycle, sender);
            threads.push(spawn(scope, format!("meter-{worker}"), run)?);
            queues.push(queue);
            lanes.push(Lane { receiver: Some(receiver), rows: VecDeque::new(), ..Lane::default() });
        }
        let reader = spawn(scope, "read".into(), move || find(plan, signals, &queues, &recycled))?;
        let (mut report, merged) = merge(&mut lanes, sink.as_mut(), max_nflows);
        // Whoever still has something to send learns that it is not wanted.
        drop(lanes);
        // Whatever has happened, the rows that there are get written first, and the balance told.
        let written = merged.and(sink.flush());
        report.lines_unwritten = sink.unwritten();
        let (tally, damaged) = reader.join().map_err(|_| Error::Ended)??;
        let worked = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| Error::Ended)?)
            .fold(Ok(()), Result::and);
        if report.flows_written >= max_nflows || written.is_err() {
            report.packets_withheld = tally.metered.saturating_sub(report.packets_written);
        }
        report.urls_redacted = plan.schema.redacted();
        report.dissected_by(places);
        report.print(&tally);
        written?;
        worked?;
        damaged.map_or(Ok(()), |e| Err(e.into()))
    })
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: String,
    run: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Error> {
    Builder::new().name(name).spawn_scoped(scope, run).map_err(Error::Thread)
}

/// Packets, with the bytes that the dissector needs.
#[derive(Default)]
struct Packets {
    found: Vec<(Found, Range<usize>)>,
    bytes: Vec<u8>,
}

/// The reader: finds packets, and sends them to all workers.
fn find(
    plan: &ReadPlan,
    signals: &Arc<Signals>,
    queues: &[Sender<Arc<Packets>>],
    recycled: &Receiver<Packets>,
) -> Result<(Tally, Option<pcap::Error>), Error> {
    let wants_bytes = plan.knobs.n_dissections > 0;
    let mut batch = Packets::default();
    let send = |batch: Packets| {
        let batch = Arc::new(batch);
        queues.iter().all(|queue| queue.send(Arc::clone(&batch)).is_ok())
    };
    let read = frames(plan, signals, |seen| {
        let Seen::Packet(found, ip) = seen else { return true };
        let start = batch.bytes.len();
        if wants_bytes {
            batch.bytes.extend_from_slice(ip);
        }
        batch.found.push((*found, start..batch.bytes.len()));
        if batch.found.len() < PACKETS && batch.bytes.len() < PACKET_BYTES {
            return true;
        }
        let empty = recycled.try_recv().unwrap_or_default();
        send(std::mem::replace(&mut batch, empty))
    });
    send(batch);
    read
}

/// A worker.
fn work(
    plan: &ReadPlan,
    share: Share,
    places: &Places,
    packets: &Receiver<Arc<Packets>>,
    recycle: &Sender<Packets>,
    sender: Sender<Batch>,
) -> Result<(), Error> {
    let rows = Rows::new(Arc::clone(&plan.schema), plan.output.format);
    let out = Batches { rows, sender, batch: Batch::default(), is_wanted: true };
    let mut stages = Stages::new(plan, share, places, out)?;
    let mut collector = Collector::new(plan.knobs, plan.reading, share);
    for batch in packets {
        for (found, bytes) in &batch.found {
            collector.packet(found, &batch.bytes[bytes.clone()], &mut stages);
        }
        // A worker that waits for packets must not have flows that others wait for.
        if packets.is_empty() {
            stages.settle();
        }
        // Verdicts may have come with any packet.
        stages.hand_on();
        if let Some((found, _)) = batch.found.last() {
            // Even if there are no rows: while this worker says nothing, those of the others must
            // wait, then the others themselves, then the reader, and this worker for the reader.
            let first = stages.dissector.first_waiting();
            stages.out.send(first.map_or(found.frame, |rank| rank.frame.saturating_sub(1)));
        }
        if !stages.out.is_wanted {
            return Ok(());
        }
        if let Some(mut batch) = Arc::into_inner(batch) {
            batch.found.clear();
            batch.bytes.clear();
            let _ = recycle.try_send(batch);
        }
    }
    collector.finish(&mut stages);
    stages.settle();
    stages.out.send(u64::MAX);
    Ok(())
}

/// Rows in order of rank, and how far they reach.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    bytes: Vec<u8>,
    /// All flows that ended up to this frame have been sent.
    frames: u64,
    /// Packets of flows that are not written.
    left_out: u64,
}

/// A row in a batch.
struct Row {
    rank: Rank,
    /// Where the batch's bytes have its end, and its id.
    end: usize,
    id: Option<Range<usize>>,
    packets: u64,
}

/// What a worker sends.
struct Batches {
    rows: Rows,
    sender: Sender<Batch>,
    batch: Batch,
    is_wanted: bool,
}

impl Batches {
    fn send(&mut self, frames: u64) {
        let next = Batch { frames, ..Batch::default() };
        let mut batch = std::mem::replace(&mut self.batch, next);
        batch.frames = frames;
        self.is_wanted &= self.sender.send(batch).is_ok();
    }
}

impl Output for Batches {
    fn flow(&mut self, rank: Rank, flow: Flow) {
        if !self.is_wanted {
            return;
        }
        let Batch { rows, bytes, .. } = &mut self.batch;
        let id = self.rows.push(&flow, bytes);
        rows.push(Row { rank, end: bytes.len(), id, packets: flow.record.packets() });
        if bytes.len() >= ROW_BYTES {
            // Of the frame at hand there may be more.
            self.send(rank.frame.saturating_sub(1));
        }
    }

    fn left_out(&mut self, packets: u64) {
        self.batch.left_out += packets;
    }
}

/// A worker, seen from the merge.
#[derive(Default)]
struct Lane {
    /// None when all has come.
    receiver: Option<Receiver<Batch>>,
    rows: VecDeque<Row>,
    bytes: Vec<u8>,
    /// Where in `bytes` the next row starts.
    start: usize,
    frames: u64,
    /// Packets of flows that are not written.
    left_out: u64,
}

impl Lane {
    fn is_open(&self) -> bool {
        self.receiver.is_some()
    }

    /// Waits for a batch, when all rows of the one before have been taken.
    fn receive(&mut self) {
        let Some(batch) = self.receiver.as_ref().and_then(|receiver| receiver.recv().ok()) else {
            self.receiver = None;
            return;
        };
        self.rows = batch.rows.into();
        self.bytes = batch.bytes;
        self.start = 0;
        self.frames = batch.frames;
        self.left_out += batch.left_out;
    }
}

/// Writes the rows of all lanes in order of rank, as far as the log takes them.
fn merge(
    lanes: &mut [Lane],
    sink: &mut dyn Sink,
    max_nflows: u64,
) -> (Report, Result<(), sink::Error>) {
    let mut report = Report::default();
    let mut scratch = Vec::new();
    let mut failed = None;
    while report.flows_written < max_nflows && failed.is_none() {
        let heads = lanes.iter().enumerate();
        let first = heads.filter_map(|(i, lane)| Some((lane.rows.front()?.rank, i))).min();
        let Some((rank, number)) = first else {
            // A batch of each, so that no worker waits long for the others.
            lanes.iter_mut().for_each(Lane::receive);
            if lanes.iter().any(Lane::is_open) {
                continue;
            }
            break;
        };
        let may_be_before =
            |lane: &&mut Lane| lane.rows.is_empty() && lane.is_open() && lane.frames < rank.frame;
        if let Some(lane) = lanes.iter_mut().find(may_be_before) {
            lane.receive();
            continue;
        }
        let lane = &mut lanes[number];
        if let Some(row) = lane.rows.pop_front() {
            let bytes = &lane.bytes[lane.start..row.end];
            let written = match row.id {
                Some(id) => {
                    let (before, after) = (id.start - lane.start, id.end - lane.start);
                    scratch.clear();
                    scratch.extend_from_slice(&bytes[..before]);
                    Value::U64(report.flows_written).push_text(&mut scratch);
                    scratch.extend_from_slice(&bytes[after..]);
                    sink.write_row(&scratch)
                }
                None => sink.write_row(bytes),
            };
            lane.start = row.end;
            report.row(row.packets, written, &mut failed);
        }
    }
    report.withheld(lanes.iter().map(|lane| lane.left_out).sum());
    (report, failed.map_or(Ok(()), Err))
}
