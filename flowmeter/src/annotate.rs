//! What is added to a flow's sums before it is written: its application and its processes.
//!
//! Dissection is asynchronous: packets go in, verdicts come out later, and a flow that has ended
//! waits for its verdict, though not for ever.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use flowmeter_common::event::PacketEvent;
use hashbrown::HashMap;
use thiserror::Error;

use crate::config::LivePlan;
use crate::record::Flow;

/// Why annotation could not start.
#[derive(Debug, Error)]
pub enum Error {}

/// The dissector and the attribution, and the flows that wait for the former.
pub struct Annotator {
    waiting: HashMap<u64, Flow>,
    order: VecDeque<(Instant, u64)>,
    ready: VecDeque<Flow>,
}

impl Annotator {
    /// Starts what the plan asks for.
    pub fn start(_plan: &LivePlan) -> Result<Self, Error> {
        Ok(Self {
            waiting: HashMap::new(),
            order: VecDeque::new(),
            ready: VecDeque::new(),
        })
    }

    /// Gives the dissector a packet, from its IP header on.
    pub fn inspect(&mut self, _event: &PacketEvent, _ip: &[u8]) {}

    /// Adds the processes to a flow that has ended. It comes back unless it waits for its verdict.
    pub fn annotate(&mut self, flow: Flow) -> Option<Flow> {
        Some(flow)
    }

    /// The next flow whose verdict has come, or that has waited for `longest`.
    pub fn settled(&mut self, _longest: Duration) -> Option<Flow> {
        None
    }

    /// Flows that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.ready.len()
    }
}
