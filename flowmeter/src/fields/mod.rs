//! What does a flow's record say, and in which order?
//!
//! Every column is declared once, in [`columns`]. JSON, CSV, `flowmeter fields` and
//! `docs/fields.md` are made from that.

pub mod anonymize;
pub mod columns;
mod exposed;
pub mod list;
pub mod schema;
pub mod sequence;
pub mod value;

pub use schema::{Added, Schema};
pub use value::Value;

use flowmeter_common::knobs::{Knobs, MILLISECOND};
use flowmeter_common::packet::Layer;

use crate::flow::{Flow, Side, Totals};

/// What decides which columns there are and what is in them. It must say the same as the knobs
/// that the flows were metered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The layer of the `bytes` and `ps` columns.
    pub accounting: Layer,
    /// The unit in which inter-arrival times were counted.
    pub unit: TimeUnit,
    /// Whether the 48 statistics are there.
    pub statistics: bool,
    /// Length of the lists of first packets; 0 = none.
    pub splt: u32,
    /// At most this many packets in flowcontainer's sequences; 0 = no sequences.
    pub sequences: u32,
    /// Whether the sequences have flowcontainer's signs and sizes.
    pub as_flowcontainer: bool,
    /// Whether layer 7 was dissected.
    pub dissection: bool,
    /// Whether there is more of layer 7: the group `l7-extended`.
    pub details: bool,
    /// Whether tunnels were decoded.
    pub tunnels: bool,
    /// Whether flows were attributed to processes.
    pub visibility: bool,
    /// Whether there is more than `NFStream`'s columns.
    pub extras: bool,
}

impl Options {
    /// Of flows metered with the defaults of [`Knobs`], from a capture.
    pub const DEFAULT: Self = Self {
        accounting: Layer::Link,
        unit: TimeUnit::Ms,
        statistics: false,
        splt: 0,
        sequences: 0,
        as_flowcontainer: false,
        dissection: true,
        details: false,
        tunnels: true,
        visibility: false,
        extras: true,
    };

    /// Of flows metered with these.
    pub fn of(knobs: &Knobs) -> Self {
        Self {
            accounting: knobs.accounting,
            unit: TimeUnit::of(knobs.tick_ns),
            statistics: knobs.statistics,
            splt: knobs.splt,
            dissection: knobs.n_dissections > 0,
            tunnels: knobs.decode_tunnels,
            ..Self::DEFAULT
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The unit in which inter-arrival times are counted. Whatever it is, the columns are in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// Milliseconds, as `NFStream`: the values are whole.
    #[default]
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl TimeUnit {
    /// The unit of a length in ns, as [`Knobs::tick_ns`] has it.
    fn of(tick_ns: u64) -> Self {
        match tick_ns {
            1 => Self::Ns,
            1_000 => Self::Us,
            _ => Self::Ms,
        }
    }

    /// Its length in ns, for [`Knobs::tick_ns`].
    pub fn tick_ns(self) -> u64 {
        match self {
            Self::Ms => MILLISECOND,
            Self::Us => 1_000,
            Self::Ns => 1,
        }
    }

    /// How many make a millisecond.
    fn per_ms(self) -> f64 {
        (MILLISECOND / self.tick_ns()) as f64
    }

    /// This many of them, in ms.
    fn value(self, ticks: u64) -> Value<'static> {
        match self {
            Self::Ms => Value::U64(ticks),
            Self::Us | Self::Ns => Value::F64(ticks as f64 / self.per_ms()),
        }
    }
}

/// A flow about to be written: what the columns' accessors look at.
pub struct Row<'a> {
    flow: &'a Flow,
    options: &'a Options,
    sides: [Totals; 3],
}

impl<'a> Row<'a> {
    /// Sums up `flow` once for all columns.
    pub fn new(flow: &'a Flow, options: &'a Options) -> Self {
        Self { flow, options, sides: flow.all_totals(options.accounting) }
    }

    fn side(&self, side: Side) -> &Totals {
        &self.sides[side as usize]
    }
}
