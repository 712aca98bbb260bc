//! How do several workers write one log?
//!
//! A reader finds the packets and sends them to all workers in batches. Each worker meters its
//! share of the flows, and sends them as finished rows with their ranks, and as flows if these are
//! wanted. This thread merges them by rank, gives the ids and writes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::ledger::Ledger;
use super::outlets::{Makers, Outlets};
use super::read::{Done, Error, Inputs, Seen, Stages, Takes};
use crate::capture::pcap;
use crate::collector::pcap::{Collector, Found, Rank, Share, Tally};
use crate::dissect::place::Places;
use crate::fields::value::Value;
use crate::flow::Flow;
use crate::output::Sum;
use crate::plugin::Hooks;

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
pub fn read<H: Hooks>(
    inputs: &Inputs,
    parts: u64,
    workers: u64,
    places: &Places,
    mut outlets: Outlets,
    hooks: &(impl Fn() -> H + Sync),
) -> Result<Done, Error> {
    let mut ledger = Ledger::new(inputs.options.max_nflows);
    let makers = &outlets.makers();
    let (tally, ended) = std::thread::scope(|scope| {
        let (mut queues, mut lanes, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        let (recycle, recycled) = bounded(PACKETS_QUEUE);
        for worker in 0..workers {
            let (queue, packets) = bounded(PACKETS_QUEUE);
            let (sender, receiver) = bounded(ROWS_QUEUE);
            let share = Share { worker, of: workers, parts };
            let recycle = recycle.clone();
            let work = move || {
                let out = Batches::new(makers, sender);
                work(inputs, share, places, hooks(), &packets, &recycle, out)
            };
            threads.push(spawn(scope, format!("meter-{worker}"), work)?);
            queues.push(queue);
            lanes.push(Lane { receiver: Some(receiver), ..Lane::default() });
        }
        let reader = spawn(scope, "read".into(), move || find::<H>(inputs, &queues, &recycled))?;
        let is_whole = merge(&mut lanes, &mut outlets, &mut ledger);
        // Whoever still has something to send learns that it is not wanted.
        drop(lanes);
        let (tally, damaged) = reader.join().map_err(|_| Error::Ended)??;
        let worked = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| Error::Ended)?)
            .fold(Ok(()), Result::and);
        if !is_whole {
            // The flows of what else was metered are with the workers, and gone.
            let rest = tally.metered.saturating_sub(ledger.ended.packets);
            ledger.leave_out(Sum { packets: rest, ..Sum::default() });
        }
        Ok::<_, Error>((tally, worked.and(damaged.map_or(Ok(()), |e| Err(e.into())))))
    })?;
    Ok(Done { tally, ledger, outlets, ended })
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: String,
    run: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Error> {
    Builder::new().name(name).spawn_scoped(scope, run).map_err(Error::Thread)
}

/// Packets, with the bytes that dissector and plugins need.
#[derive(Default)]
struct Packets {
    found: Vec<(Found, Range<usize>)>,
    bytes: Vec<u8>,
}

/// The reader: finds packets, and sends them to all workers.
fn find<H: Hooks>(
    inputs: &Inputs,
    queues: &[Sender<Arc<Packets>>],
    recycled: &Receiver<Packets>,
) -> Result<(Tally, Option<pcap::Error>), Error> {
    let wants_bytes = H::WANTS_BYTES || inputs.options.knobs.n_dissections > 0;
    let mut batch = Packets::default();
    let send = |batch: Packets| {
        let batch = Arc::new(batch);
        queues.iter().all(|queue| queue.send(Arc::clone(&batch)).is_ok())
    };
    let read = inputs.frames(|seen| {
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
    inputs: &Inputs,
    share: Share,
    places: &Places,
    hooks: impl Hooks,
    packets: &Receiver<Arc<Packets>>,
    recycle: &Sender<Packets>,
    out: Batches<'_>,
) -> Result<(), Error> {
    let mut stages = Stages::new(&inputs.options, share, places, hooks, out)?;
    let mut collector = Collector::new(inputs.options.knobs, inputs.options.reading, share);
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
        // What is said to have been sent has been.
        stages.score();
        if let Some((found, _)) = batch.found.last() {
            // Even if there are no rows: while this worker says nothing, those of the others must
            // wait, then the others themselves, then the reader, and this worker for the reader.
            let first = stages.line.first_waiting();
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

/// Flows in order of rank, and how far they reach.
#[derive(Default)]
struct Batch {
    rows: VecDeque<Row>,
    /// Their rows in each format.
    made: Vec<Made>,
    /// All flows that ended up to this frame have been sent.
    frames: u64,
    /// Flows that are not wanted.
    left_out: Sum,
}

/// A flow in a batch.
struct Row {
    rank: Rank,
    packets: u64,
    flow: Option<Flow>,
}

/// Rows in a format.
#[derive(Default)]
struct Made {
    bytes: Vec<u8>,
    /// Of each row: where the bytes have its end, and its id.
    rows: VecDeque<(usize, Option<Range<usize>>)>,
    /// Where in the bytes the next row starts.
    start: usize,
}

impl Batch {
    fn new(makers: &Makers, frames: u64) -> Self {
        let made = makers.formats.iter().map(|_| Made::default()).collect();
        Self { made, frames, ..Self::default() }
    }
}

impl Made {
    /// Takes the next row, with its id.
    fn next(&mut self, id: u64, out: &mut Vec<u8>) {
        let Some((end, place)) = self.rows.pop_front() else { return };
        let start = std::mem::replace(&mut self.start, end);
        match place {
            Some(place) => {
                out.extend_from_slice(&self.bytes[start..place.start]);
                Value::U64(id).push_text(out);
                out.extend_from_slice(&self.bytes[place.end..end]);
            }
            None => out.extend_from_slice(&self.bytes[start..end]),
        }
    }
}

/// What a worker sends.
struct Batches<'a> {
    makers: &'a Makers,
    sender: Sender<Batch>,
    batch: Batch,
    is_wanted: bool,
}

impl<'a> Batches<'a> {
    fn new(makers: &'a Makers, sender: Sender<Batch>) -> Self {
        Self { makers, sender, batch: Batch::new(makers, 0), is_wanted: true }
    }

    fn send(&mut self, frames: u64) {
        let next = Batch::new(self.makers, frames);
        let mut batch = std::mem::replace(&mut self.batch, next);
        batch.frames = frames;
        self.is_wanted &= self.sender.send(batch).is_ok();
    }
}

impl Takes for Batches<'_> {
    fn flow(&mut self, rank: Rank, flow: Flow) {
        if !self.is_wanted {
            return;
        }
        let mut is_full = false;
        for (format, made) in self.makers.formats.iter().zip(&mut self.batch.made) {
            let id = format.flow(&flow, &mut made.bytes);
            made.rows.push_back((made.bytes.len(), id));
            is_full |= made.bytes.len() >= ROW_BYTES;
        }
        let packets = flow.record.packets();
        let flow = self.makers.wants_flows.then_some(flow);
        self.batch.rows.push_back(Row { rank, packets, flow });
        if is_full || self.batch.rows.len() >= ROW_BYTES / 64 {
            // Of the frame at hand there may be more.
            self.send(rank.frame.saturating_sub(1));
        }
    }

    fn left_out(&mut self, packets: u64) {
        self.batch.left_out += Sum::flow(packets);
    }
}

/// A worker, seen from the merge.
#[derive(Default)]
struct Lane {
    /// None when all has come.
    receiver: Option<Receiver<Batch>>,
    batch: Batch,
    /// Flows that are not wanted.
    left_out: Sum,
}

impl Lane {
    fn is_open(&self) -> bool {
        self.receiver.is_some()
    }

    /// Waits for a batch, when all rows of the one before have been taken.
    fn receive(&mut self) {
        match self.receiver.as_ref().and_then(|receiver| receiver.recv().ok()) {
            Some(batch) => {
                self.left_out += batch.left_out;
                self.batch = batch;
            }
            None => self.receiver = None,
        }
    }
}

/// Writes the rows of all lanes in order of rank, as far as they are wanted and the outputs take
/// them. Whether that was all of them.
fn merge(lanes: &mut [Lane], outlets: &mut Outlets, ledger: &mut Ledger) -> bool {
    let mut is_whole = true;
    loop {
        if ledger.is_full() || outlets.has_failed() {
            is_whole = false;
            break;
        }
        let heads = lanes.iter().enumerate();
        let first = heads.filter_map(|(i, lane)| Some((lane.batch.rows.front()?.rank, i))).min();
        let Some((rank, number)) = first else {
            // A batch of each, so that no worker waits long for the others.
            lanes.iter_mut().for_each(Lane::receive);
            if lanes.iter().any(Lane::is_open) {
                continue;
            }
            break;
        };
        let may_be_before = |lane: &&mut Lane| {
            lane.batch.rows.is_empty() && lane.is_open() && lane.batch.frames < rank.frame
        };
        if let Some(lane) = lanes.iter_mut().find(may_be_before) {
            lane.receive();
            continue;
        }
        let batch = &mut lanes[number].batch;
        if let Some(Row { packets, flow, .. }) = batch.rows.pop_front() {
            ledger.ended(packets);
            let Some(id) = ledger.number(packets) else { continue };
            let flow = flow.map(|flow| Flow { id, ..flow });
            outlets.made(packets, flow, |n, out| {
                if let Some(made) = batch.made.get_mut(n) {
                    made.next(id, out);
                }
            });
        }
    }
    for lane in lanes {
        ledger.leave_out(lane.left_out);
    }
    is_whole
}
