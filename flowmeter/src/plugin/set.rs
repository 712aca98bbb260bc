//! How does a run have several plugins, each with a state of its own kind?

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use flowmeter_common::record::Record;
use flowmeter_common::splt::Slot;

use super::hooks::{Event, Hooks};
use super::{Packet, Plugin, Standing};
use crate::collector::pcap::Next;
use crate::fields::Added;
use crate::flow::{End, Flow, Own, Side, Sums};

/// The plugins of a run, in order.
#[derive(Clone, Default)]
pub struct Plugins {
    makers: Vec<Maker>,
    is_prompt: bool,
}

#[derive(Clone)]
struct Maker {
    columns: Vec<Added>,
    make: Arc<dyn Fn() -> Box<dyn Stateful> + Send + Sync>,
}

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.columns().map(|column| column.name)).finish()
    }
}

impl Plugins {
    /// Adds a plugin behind the others: it sees each packet after them.
    #[must_use]
    pub fn with<P: Plugin + Clone + Sync + 'static>(mut self, plugin: P) -> Self {
        let columns = plugin.columns();
        self.makers
            .push(Maker { columns, make: Arc::new(move || Box::new(Typed(plugin.clone()))) });
        self
    }

    /// Has a capture's flow be over, dissected and all, before the next packet is seen: for plugins
    /// that keep something of all flows, and need their ends in order. This is slower: without it
    /// flows that have ended wait for their verdicts together.
    #[must_use]
    pub fn prompt(self) -> Self {
        Self { is_prompt: true, ..self }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.makers.is_empty()
    }

    /// The columns of all, in order, for [`Schema::with_added`](crate::Schema::with_added).
    pub fn columns(&self) -> impl Iterator<Item = Added> {
        self.makers.iter().flat_map(|maker| maker.columns.iter().cloned())
    }

    /// A clone of each, for a worker.
    pub(crate) fn start(&self) -> Running {
        let each = |maker: &Maker| ((maker.make)(), maker.columns.len());
        Running { plugins: self.makers.iter().map(each).collect(), is_prompt: self.is_prompt }
    }
}

/// The plugins of a worker, each with the number of its columns.
pub struct Running {
    plugins: Vec<(Box<dyn Stateful>, usize)>,
    is_prompt: bool,
}

/// What plugins keep of a flow.
#[derive(Default)]
pub struct Kept {
    /// Of each plugin; empty until the first packet.
    states: Vec<Box<dyn Any + Send>>,
    /// The last packet's time; ns since the epoch.
    last_ns: u64,
}

/// A plugin, whatever it keeps of flows.
trait Stateful: Send {
    fn on_init(&mut self, packet: &Packet<'_>, flow: &mut Standing<'_>) -> Box<dyn Any + Send>;
    fn on_update(&mut self, state: &mut dyn Any, packet: &Packet<'_>, flow: &mut Standing<'_>);
    fn on_expire(&mut self, state: Box<dyn Any + Send>, flow: &mut Flow, values: &mut Vec<Own>);
}

struct Typed<P>(P);

/// A state is always given back to the plugin that made it, so it is of that plugin's type.
impl<P: Plugin> Stateful for Typed<P> {
    fn on_init(&mut self, packet: &Packet<'_>, flow: &mut Standing<'_>) -> Box<dyn Any + Send> {
        Box::new(self.0.on_init(packet, flow))
    }

    fn on_update(&mut self, state: &mut dyn Any, packet: &Packet<'_>, flow: &mut Standing<'_>) {
        if let Some(state) = state.downcast_mut() {
            self.0.on_update(state, packet, flow);
        }
    }

    fn on_expire(&mut self, state: Box<dyn Any + Send>, flow: &mut Flow, values: &mut Vec<Own>) {
        if let Ok(state) = state.downcast() {
            self.0.on_expire(*state, flow, values);
        }
    }
}

impl Hooks for Running {
    type Kept = Kept;

    const WANTS_BYTES: bool = true;

    fn packet(
        &mut self,
        event: &Event<'_>,
        record: &Record,
        splt: &[Slot],
        kept: &mut Kept,
    ) -> Next {
        let is_first = kept.states.is_empty();
        let sums = Sums(record);
        let packet = packet(event, sums, (!is_first).then_some(kept.last_ns));
        kept.last_ns = event.time_ns;
        let mut flow = Standing { sums, splt, ends: false };
        if is_first {
            let each =
                self.plugins.iter_mut().map(|(plugin, _)| plugin.on_init(&packet, &mut flow));
            kept.states.extend(each);
        } else {
            for ((plugin, _), state) in self.plugins.iter_mut().zip(&mut kept.states) {
                plugin.on_update(state.as_mut(), &packet, &mut flow);
            }
        }
        if flow.ends { Next::Ends } else { Next::GoesOn }
    }

    fn is_prompt(&self) -> bool {
        self.is_prompt
    }

    fn expired(&mut self, kept: Kept, flow: &mut Flow) {
        let (mut own, mut end) = (Vec::new(), 0);
        for ((plugin, columns), state) in self.plugins.iter_mut().zip(kept.states) {
            plugin.on_expire(state, flow, &mut own);
            end += *columns;
            // The next one's values stand in its own columns, whatever this one gave.
            own.resize(end, Own::Null);
        }
        flow.own = own;
    }
}

fn packet<'a>(event: &Event<'a>, sums: Sums<'_>, previous_ns: Option<u64>) -> Packet<'a> {
    let is_forward = event.from_high == (sums.0.initiator_is_high != 0);
    let headers = event.headers;
    let (sender, receiver, direction) = if is_forward {
        (sums.src(), sums.dst(), Side::Src2Dst)
    } else {
        (sums.dst(), sums.src(), Side::Dst2Src)
    };
    Packet {
        time_ns: event.time_ns,
        previous_ns,
        direction,
        src: End { port: headers.src_port, ..sender },
        dst: End { port: headers.dst_port, ..receiver },
        headers,
        ip: event.ip,
    }
}
