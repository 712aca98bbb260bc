//! How do flows get to all outputs of a run?
//!
//! Live each output has a thread and a queue; a run that reads captures writes by itself, and waits.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::control::Control;
use super::direct::Direct;
use super::outlet::{Outlet, Take, Takes};
use crate::flow::Flow;
use crate::format::Format;
use crate::notice::Notices;
use crate::output::queue::{Counts, PATIENCE, Queue};
use crate::output::{Batch, Error, Load, Output, Sum};

/// The outputs of a run.
pub struct Outlets(Vec<Open>);

struct Open {
    name: String,
    to: To,
}

enum To {
    /// Rows of a format.
    Rows(Arc<dyn Format>, Pipe<Batch>),
    /// Flows as they are.
    Flows(Pipe<Flows>),
}

/// How a load gets to its output.
enum Pipe<L> {
    Queued(Queue<L>),
    Direct(Direct<L>),
}

impl<L: Load> Pipe<L> {
    fn add(&mut self, fill: impl FnOnce(&mut L)) {
        match self {
            Self::Queued(queue) => queue.add(fill),
            Self::Direct(direct) => direct.add(fill),
        }
    }
}

/// Flows on their way to a function.
#[derive(Default)]
pub(super) struct Flows {
    flows: VecDeque<Flow>,
    left: Sum,
}

impl Flows {
    fn add(&mut self, flow: Flow) {
        self.left += Sum::flow(flow.record.packets());
        self.flows.push_back(flow);
    }
}

impl Load for Flows {
    fn left(&self) -> Sum {
        self.left
    }

    /// About, as lists are not counted.
    fn bytes(&self) -> usize {
        self.flows.len() * size_of::<Flow>()
    }

    fn clear(&mut self) {
        self.flows.clear();
        self.left = Sum::default();
    }
}

/// A function that takes flows.
struct Function(Take);

impl Output<Flows> for Function {
    fn write(&mut self, load: &mut Flows) -> Result<(), Error> {
        while let Some(flow) = load.flows.pop_front() {
            let sum = Sum::flow(flow.record.packets());
            if let Err(e) = (self.0)(flow) {
                // The flow is gone with the channel; it counts as lost with the others.
                load.flows.clear();
                return Err(e);
            }
            load.left -= sum;
        }
        Ok(())
    }
}

impl Outlets {
    /// With a thread and a queue for each.
    pub fn queued(outlets: Vec<Outlet>, control: &Control, notices: &Notices) -> io::Result<Self> {
        let stop = || control.stop_flag();
        let open = outlets.into_iter().map(|Outlet { name, takes, queue }| {
            let to = match takes {
                Takes::Rows(format, output) => {
                    let queue = Queue::start(&name, output, queue, stop(), notices.clone())?;
                    To::Rows(format, Pipe::Queued(queue))
                }
                Takes::Flows(take) => {
                    let output = Box::new(Function(take));
                    let queue = Queue::start(&name, output, queue, stop(), notices.clone())?;
                    To::Flows(Pipe::Queued(queue))
                }
            };
            Ok(Open { name, to })
        });
        Ok(Self(open.collect::<io::Result<_>>()?))
    }

    /// In this thread, which waits for them until `control` says that the run is to end.
    pub fn direct(outlets: Vec<Outlet>, control: &Arc<Control>, notices: &Notices) -> Self {
        let open = |Outlet { name, takes, .. }: Outlet| {
            let (control, notices) = (Arc::clone(control), notices.clone());
            let to = match takes {
                Takes::Rows(format, output) => {
                    To::Rows(format, Pipe::Direct(Direct::new(output, control, notices)))
                }
                Takes::Flows(take) => {
                    let output = Box::new(Function(take));
                    To::Flows(Pipe::Direct(Direct::new(output, control, notices)))
                }
            };
            Open { name, to }
        };
        Self(outlets.into_iter().map(open).collect())
    }

    /// How rows are made elsewhere that [`made`](Self::made) takes.
    pub fn makers(&self) -> Makers {
        let mut makers = Makers::default();
        for open in &self.0 {
            match &open.to {
                To::Rows(format, _) => makers.formats.push(Arc::clone(format)),
                To::Flows(_) => makers.wants_flows = true,
            }
        }
        makers
    }

    /// Gives a flow to each.
    pub fn flow(&mut self, flow: Flow) {
        let packets = flow.record.packets();
        for open in &mut self.0 {
            if let To::Rows(format, pipe) = &mut open.to {
                pipe.add(|batch| _ = batch.flow(packets, |out| format.flow(&flow, out)));
            }
        }
        self.flow_itself(flow);
    }

    fn flow_itself(&mut self, flow: Flow) {
        let mut pipes = self.0.iter_mut().filter_map(|open| match &mut open.to {
            To::Flows(pipe) => Some(pipe),
            To::Rows(..) => None,
        });
        let Some(first) = pipes.next() else { return };
        for pipe in pipes {
            pipe.add(|flows| flows.add(flow.clone()));
        }
        first.add(|flows| flows.add(flow));
    }

    /// Gives a flow of this many packets that was made into rows by [`Makers`]: `row` fills in the row
    /// of the nth format.
    pub fn made(
        &mut self,
        packets: u64,
        flow: Option<Flow>,
        mut row: impl FnMut(usize, &mut Vec<u8>),
    ) {
        let mut n = 0;
        for open in &mut self.0 {
            if let To::Rows(_, pipe) = &mut open.to {
                pipe.add(|batch| batch.flow(packets, |out| row(n, out)));
                n += 1;
            }
        }
        if let Some(flow) = flow {
            self.flow_itself(flow);
        }
    }

    /// Gives a record that is no flow to those whose format has such.
    pub fn record(&mut self, record: &Value) {
        for open in &mut self.0 {
            if let To::Rows(format, pipe) = &mut open.to {
                pipe.add(|batch| batch.record(|out| format.record(record, out)));
            }
        }
    }

    /// To be called every few milliseconds. An error says that the run is to end.
    pub fn look(&mut self) -> Result<(), Error> {
        let looks = self.0.iter_mut().map(|open| match &mut open.to {
            To::Rows(_, Pipe::Queued(queue)) => queue.look(),
            To::Flows(Pipe::Queued(queue)) => queue.look(),
            _ => Ok(()),
        });
        looks.fold(Ok(()), Result::and)
    }

    /// Has those that are written to in this thread take what there is.
    pub fn flush(&mut self) {
        for open in &mut self.0 {
            match &mut open.to {
                To::Rows(_, Pipe::Direct(direct)) => direct.flush(),
                To::Flows(Pipe::Direct(direct)) => direct.flush(),
                _ => {}
            }
        }
    }

    /// Whether one that is written to in this thread takes nothing more.
    pub fn has_failed(&self) -> bool {
        self.0.iter().any(|open| match &open.to {
            To::Rows(_, Pipe::Direct(direct)) => direct.has_failed(),
            To::Flows(Pipe::Direct(direct)) => direct.has_failed(),
            _ => false,
        })
    }

    /// Has each begin anew.
    pub fn reopen(&mut self) {
        for open in &mut self.0 {
            if let To::Rows(_, Pipe::Queued(queue)) = &mut open.to {
                queue.reopen();
            }
        }
    }

    /// Where the flows of each are.
    pub fn counts(&self) -> Vec<(String, Counts)> {
        let counts = self.0.iter().map(|open| {
            let counts = match &open.to {
                To::Rows(_, Pipe::Queued(queue)) => queue.counts(),
                To::Rows(_, Pipe::Direct(direct)) => direct.counts(),
                To::Flows(Pipe::Queued(queue)) => queue.counts(),
                To::Flows(Pipe::Direct(direct)) => direct.counts(),
            };
            (open.name.clone(), counts)
        });
        counts.collect()
    }

    /// The run ends: those that have threads are waited for no longer than some seconds.
    pub fn end(&mut self) {
        for open in &mut self.0 {
            match &mut open.to {
                To::Rows(_, Pipe::Queued(queue)) => queue.end(),
                To::Flows(Pipe::Queued(queue)) => queue.end(),
                _ => {}
            }
        }
    }

    /// Gives them what there is, and waits for that for some seconds where they have threads. All are
    /// closed, whatever happens to one; the first error is told.
    pub fn close(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut closed = Ok(());
        for open in &mut self.0 {
            closed = closed.and(match &mut open.to {
                To::Rows(_, Pipe::Queued(queue)) => queue.close(deadline),
                To::Rows(_, Pipe::Direct(direct)) => direct.close(),
                To::Flows(Pipe::Queued(queue)) => queue.close(deadline),
                To::Flows(Pipe::Direct(direct)) => direct.close(),
            });
        }
        closed
    }
}

/// How rows are made of flows, wherever.
#[derive(Clone, Default)]
pub struct Makers {
    /// A row of each.
    pub formats: Vec<Arc<dyn Format>>,
    /// Whether the flows themselves are wanted, too.
    pub wants_flows: bool,
}
