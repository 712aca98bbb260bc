//! Which flows of a worker wait for their verdicts?
//!
//! Packets and ends are given to a dissector in batches, and verdicts come in the order of the
//! ends. So flows wait in a line, and leave it in the order they came, whatever the dissector's
//! pace. An nDPI module for each part of the flows, so that what nDPI learns from one flow about
//! others does not depend on the number of workers.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use flowmeter_common::knobs::MILLISECOND;
use flowmeter_common::record::mark;

use crate::collector::pcap::{Found, Rank, Reading, Share};
use crate::dissect;
use crate::dissect::batch::Batch;
use crate::dissect::contained::process::{Returned, Spare};
use crate::dissect::cut::{self, Shown};
use crate::dissect::dissector::Limits;
use crate::dissect::place::{Place, Places};
use crate::flow::Flow;

use super::options::ReadOptions;

/// What a run keeps of a flow.
#[derive(Default)]
pub struct Kept<K> {
    /// Its number with the dissector, while it has one.
    number: Option<u32>,
    /// What plugins keep of it.
    pub own: K,
}

/// Packet bytes and messages after which a batch is given.
const BATCH_BYTES: usize = 64 * 1024;
const BATCH_MESSAGES: usize = 512;

/// The line of one worker, and its dissector.
pub struct Line<K> {
    share: Share,
    /// Where it counts.
    places: Places,
    n_dissections: u32,
    /// None if nothing is to be dissected.
    place: Option<Place>,
    batch: Batch,
    /// How much of packets that were cut.
    shown: Shown,
    /// Of [`cut`].
    scratch: Vec<u8>,
    back: Returned,
    /// By a flow's number, whether it is settled, so that its packets are not wanted.
    settled: Vec<bool>,
    /// Numbers to be used again.
    free: Vec<u32>,
    waiting: VecDeque<(Rank, Flow, Kept<K>)>,
    /// Flows at the front of the line that have what they waited for.
    ready: VecDeque<(Rank, Flow, K)>,
}

impl<K> Line<K> {
    pub fn new(
        options: &ReadOptions,
        share: Share,
        places: &Places,
    ) -> Result<Self, dissect::Error> {
        let n_dissections = options.knobs.n_dissections;
        let parts = (0..share.parts).filter(|part| share.has_part(*part));
        let limits = Limits {
            n_dissections,
            max_flows: u32::MAX as usize,
            parts: parts.map(|part| 1 << part).sum(),
            details: options.details,
        };
        let place = (n_dissections > 0).then(|| places.make(limits, Spare::None)).transpose()?;
        Ok(Self {
            share,
            places: places.clone(),
            n_dissections,
            place,
            batch: Batch::default(),
            shown: match options.reading {
                Reading::Nfstream => Shown::AsNfstream,
                Reading::Right | Reading::Flowcontainer => Shown::Sound,
            },
            scratch: Vec::new(),
            back: Returned::default(),
            settled: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
        })
    }

    #[inline]
    pub fn inspect(&mut self, found: &Found, kept: &mut Kept<K>, ip: &[u8], number: u64) {
        if number <= u64::from(self.n_dissections) {
            self.give_packet(found, kept, ip, number);
        }
    }

    fn give_packet(&mut self, found: &Found, kept: &mut Kept<K>, ip: &[u8], number: u64) {
        if self.place.is_none() {
            return;
        }
        let flow = *kept.number.get_or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.settled.push(false);
                self.settled.len() as u32 - 1
            })
        });
        if self.settled.get(flow as usize).is_some_and(|is_settled| *is_settled) {
            return;
        }
        let part = self.share.part(&found.key) as u32;
        let time_ms = found.now_ns / MILLISECOND;
        let ip = cut::as_captured(ip, found.wire, self.shown, &mut self.scratch);
        self.batch.packet(u64::from(flow), part, number as u32, time_ms, ip);
        self.give_if_full();
    }

    /// A flow has ended. It comes back by [`Line::next`].
    pub fn finish(&mut self, rank: Rank, flow: Flow, kept: Kept<K>) {
        if kept.number.is_none() && self.waiting.is_empty() {
            self.ready.push_back((rank, flow, kept.own));
            return;
        }
        if let Some(number) = kept.number {
            self.batch.finish(u64::from(number));
        }
        self.waiting.push_back((rank, flow, kept));
        self.give_if_full();
        self.advance();
    }

    /// The next flow that has its verdict, in the order they ended.
    pub fn next(&mut self) -> Option<(Rank, Flow, K)> {
        self.ready.pop_front()
    }

    /// Waits for all verdicts.
    pub fn settle(&mut self) {
        self.give();
        if let Some(place) = &mut self.place {
            place.collect(&mut self.back);
        }
        self.advance();
    }

    /// The first flow that has no verdict yet.
    pub fn first_waiting(&self) -> Option<Rank> {
        self.waiting.front().map(|(rank, ..)| *rank)
    }

    /// How many flows wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    fn give_if_full(&mut self) {
        let (messages, bytes) = (self.batch.messages.len(), self.batch.bytes.len());
        if messages >= BATCH_MESSAGES || bytes >= BATCH_BYTES {
            self.give();
            self.advance();
        }
    }

    fn give(&mut self) {
        if let Some(place) = &mut self.place
            && !self.batch.messages.is_empty()
        {
            let batch = std::mem::take(&mut self.batch);
            self.batch = place.exchange(batch, &mut self.back);
        }
    }

    fn count(&mut self) {
        let counts = std::mem::take(&mut self.back.counts);
        let losses = self.places.losses();
        losses.inspected.fetch_add(counts.inspected, Relaxed);
        losses.refused.fetch_add(counts.refused, Relaxed);
    }

    /// Moves on those at the front of the line that wait no longer.
    fn advance(&mut self) {
        self.count();
        for flow in self.back.settled.drain(..) {
            if let Some(is_settled) = self.settled.get_mut(flow as usize) {
                *is_settled = true;
            }
        }
        let mut verdicts = self.back.verdicts.drain(..);
        while let Some((_, _, kept)) = self.waiting.front() {
            let number = kept.number;
            let verdict = number.and_then(|_| verdicts.next());
            if number.is_some() && verdict.is_none() {
                break;
            }
            let Some((rank, mut flow, kept)) = self.waiting.pop_front() else { break };
            if let (Some(number), Some((_, verdict))) = (number, verdict) {
                flow.layer7 = verdict.layer7;
                if verdict.is_lost {
                    flow.record.marks |= mark::DISSECTION_LOST;
                }
                if let Some(is_settled) = self.settled.get_mut(number as usize) {
                    *is_settled = false;
                }
                self.free.push(number);
            }
            self.ready.push_back((rank, flow, kept.own));
        }
    }
}
