//! What does a run report while it goes on?
//!
//! The library prints nothing: whoever runs it is handed what there is to say, and decides what to
//! do with it.

use std::fmt;
use std::sync::Arc;

/// Something that whoever runs the meter should know about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// An interface is metered from now on.
    Metering {
        /// Its name.
        interface: String,
        /// Where its packets are seen.
        hooks: Vec<String>,
    },
    /// An interface could not be put into promiscuous mode.
    NotPromiscuous {
        /// Its name.
        interface: String,
        /// Why.
        why: String,
    },
    /// It is not known what an interface's frames begin with.
    UnknownFrames {
        /// Its name.
        interface: String,
        /// Their type, as the kernel calls it.
        kind: String,
    },
    /// Received packets are seen at tc, as the kernel refuses the XDP program.
    NoXdp {
        /// The interface.
        interface: String,
        /// The end of the verifier's log.
        why: String,
    },
    /// An interface is gone. Another one of its name is not metered.
    Gone {
        /// Its name.
        interface: String,
    },
    /// A hook sees more or less of what its interface counts than it did.
    Sight(String),
    /// The kernel reports no sockets at these hooks.
    NoSocketHooks {
        /// Where it has none.
        hooks: Vec<&'static str>,
        /// Why.
        why: String,
    },
    /// Sockets that were open before have no process.
    NoProcfs {
        /// Why.
        why: String,
    },
    /// The descriptors of this many processes cannot be read.
    UnreadableProcesses(u64),
    /// The wall clock was set.
    ClockSet {
        /// By how much, in ns.
        step_ns: i64,
    },
    /// Flows could not be taken out of the kernel at the end.
    FlowsLeft(usize),
    /// A kernel program logged this.
    Kernel(String),
    /// Nothing can be dissected for the time being.
    NoDissector {
        /// Why.
        why: String,
    },
    /// Packets that ended a dissector could not be kept.
    NoQuarantine {
        /// Why.
        why: String,
    },
    /// An output does not take rows. It is tried again; rows wait in its queue meanwhile.
    OutputFails {
        /// Why.
        why: String,
    },
    /// An output takes rows again.
    OutputWorks {
        /// Which.
        output: String,
        /// Rows that found no room in its queue until now.
        rows_lost: u64,
    },
    /// Rows found no room in an output's queue, for the first time or since it kept up.
    OutputFull {
        /// Which.
        output: String,
    },
    /// An output cannot begin anew, and goes on as it was.
    NotReopened {
        /// Why.
        why: String,
    },
    /// A model could not be run on some flows, for the first time; their columns of it are null.
    ModelFails {
        /// Its file.
        model: String,
        /// Why.
        why: String,
    },
    /// Packets of captures are older than those before them.
    Late {
        /// How many.
        packets: u64,
        /// By at most how many seconds.
        seconds: u64,
    },
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What a kernel program logged, on request.
    Debug,
    /// All is well.
    Info,
    /// Something is missing or lost.
    Warning,
}

impl Notice {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::Kernel(_) => Level::Debug,
            Self::Metering { .. }
            | Self::ClockSet { .. }
            | Self::OutputWorks { rows_lost: 0, .. } => Level::Info,
            _ => Level::Warning,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metering { interface, hooks } => {
                write!(f, "metering `{interface}` at {}", hooks.join(" and "))
            }
            Self::NotPromiscuous { interface, why } => write!(
                f,
                "failed to put `{interface}` into promiscuous mode: {why}; this needs CAP_NET_RAW"
            ),
            Self::UnknownFrames { interface, kind } => write!(
                f,
                "the frames of `{interface}` are of type {kind}, which flowmeter does not know; \
                 those that do not begin with an IP header are counted as `non_ip`"
            ),
            Self::NoXdp { interface, why } => write!(
                f,
                "`{interface}` is metered at tc ingress, because the kernel refuses the XDP \
                 program: {why}"
            ),
            Self::Gone { interface } => write!(
                f,
                "interface `{interface}` is gone; restart flowmeter to meter another one of that \
                 name"
            ),
            Self::NoSocketHooks { hooks, why } => write!(
                f,
                "short connections may have no process, because there is no hook at {}: {why}",
                hooks.join(", ")
            ),
            Self::NoProcfs { why } => {
                write!(f, "{why}; sockets that were already open have no process")
            }
            Self::UnreadableProcesses(n) => write!(
                f,
                "the descriptors of {n} processes cannot be read, so sockets that they have open \
                 have no process; reading them needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
            ),
            Self::ClockSet { step_ns } => write!(
                f,
                "the wall clock was set by {:+.6} s; flows that begin from now on use the new time",
                *step_ns as f64 / 1e9
            ),
            Self::FlowsLeft(n) => write!(
                f,
                "{n} flows could not be taken out of the kernel and are not written; their packets \
                 are `packets_resident`"
            ),
            Self::Sight(text) | Self::Kernel(text) => f.write_str(text),
            Self::NoDissector { why } => {
                write!(f, "no layer 7 until dissection works again: {why}")
            }
            Self::NoQuarantine { why } => write!(f, "failed to write to the quarantine: {why}"),
            Self::OutputFails { why } => {
                write!(f, "{why}; trying again, with rows queued as long as there is room")
            }
            Self::OutputWorks { output, rows_lost: 0 } => write!(f, "{output} takes rows again"),
            Self::OutputWorks { output, rows_lost } => {
                write!(f, "{output} takes rows again; {rows_lost} were lost, as its queue was full")
            }
            Self::OutputFull { output } => write!(
                f,
                "rows are lost from now on, as {output} does not take them and its queue is full; \
                 they are counted as `flows_unwritten`"
            ),
            Self::ModelFails { model, why } => write!(
                f,
                "the model `{model}` cannot be run on some flows, whose columns of it are null; they are \
                 counted as `model_failures`: {why}"
            ),
            Self::NotReopened { why } => write!(f, "continuing in the old log: {why}"),
            Self::Late { packets, seconds } => write!(
                f,
                "{packets} packets are older than those before them, by up to {seconds} s, and \
                 are given their time; pass captures in chronological order"
            ),
        }
    }
}

/// Where notices go. Called from any thread, and not to be held up.
#[derive(Clone)]
pub struct Notices(Arc<dyn Fn(Notice) + Send + Sync>);

impl Notices {
    /// To a function.
    pub fn new(take: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Nowhere.
    pub fn none() -> Self {
        Self::new(drop)
    }

    /// Hands one on.
    pub fn send(&self, notice: Notice) {
        (self.0)(notice);
    }
}

impl Default for Notices {
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notices")
    }
}
