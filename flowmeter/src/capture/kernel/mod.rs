//! How are the kernel programs loaded, attached and talked to?
//!
//! The only place that knows `aya`. [`Kernel`] has the programs and their maps for as long as it
//! lives; dropped, it leaves nothing attached.

mod attach;
pub mod capabilities;
mod clock;
mod counters;
mod interface;
mod layout;
mod log;
mod maps;
mod netlink;
mod owners;
mod pids;
pub mod probe;
mod refusal;
mod settled;
mod sys;
mod words;

use std::time::Duration;

use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use flowmeter_common::counter::MAX_INTERFACES;
use flowmeter_common::event::MAX_SNAPSHOT;
use flowmeter_common::globals::Globals;
use flowmeter_common::knobs::Knobs;
use flowmeter_common::splt::CHUNK_SLOTS;
use thiserror::Error;

use crate::notice::Notices;

pub use attach::Hook;
pub use clock::Clock;
pub use counters::{Balance, Tally};
pub use interface::{FarEnd, Interface};
pub use maps::{Drained, FlowMap, PacketRing, RecordRing, Slice, SpltMap};
pub use netlink::Traffic;
pub use owners::{OwnerRing, SocketHook};
pub use refusal::Refusal;
pub use settled::SettledFlows;

/// Where received packets are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// XDP where the driver has it, else tcx.
    Auto,
    /// XDP, in the driver.
    Xdp,
    /// tcx, or clsact before kernel 6.6.
    Tcx,
}

/// Which packets are metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Received and sent ones.
    Both,
    /// Received ones.
    Ingress,
    /// Sent ones.
    Egress,
}

/// What the kernel half is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interfaces to meter.
    pub interfaces: Vec<String>,
    /// Where received packets are seen.
    pub ingress: Ingress,
    /// Which packets are metered.
    pub direction: Direction,
    /// What to meter by.
    pub knobs: Knobs,
    /// Flows that the map has room for.
    pub max_flows: u32,
    /// Bytes of a packet that the dissector gets.
    pub snapshot_length: u16,
    /// Whether every packet is forwarded, not only the first of each flow.
    pub whole: bool,
    /// Whether the interfaces take packets for others too.
    pub promiscuous: bool,
    /// Whether the kernel is to report whose sockets the flows come from.
    pub attribute: bool,
    /// Whether the programs log what they do.
    pub log: bool,
    /// Where it goes what is to be told.
    pub notices: Notices,
}

/// Why the kernel half could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not allowed.
    #[error(transparent)]
    Capabilities(#[from] capabilities::Missing),
    /// The program was built without the kernel programs.
    #[error(
        "this flowmeter was built without its kernel programs; build it with `cargo xtask run`"
    )]
    NoObject,
    /// The kernel programs are not those that this program was written with.
    #[error(
        "the kernel programs have no {what} `{name}`, or it is already in use: they are of another \
         version; rebuild both with `cargo xtask build`"
    )]
    Absent {
        /// What is not there: map or program.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// There is no such interface.
    #[error("no interface `{0}`; `ip link` lists the interfaces")]
    NoInterface(String),
    /// rtnetlink does not say which interfaces there are.
    #[error("failed to ask the kernel for its interfaces over netlink")]
    Netlink(#[source] std::io::Error),
    /// An interface is named twice.
    #[error("interface `{0}` is named twice")]
    Twice(String),
    /// There are too many interfaces.
    #[error("one run can meter at most {MAX_INTERFACES} interfaces; start another for the rest")]
    TooMany,
    /// The process is not allowed to, although it has the capabilities for it.
    #[error(
        "not permitted to load kernel programs, although no capability is missing: in a container \
         or user namespace the host's rules apply (seccomp, LSM, lockdown); run flowmeter on the \
         host, or let the container use `bpf` and `perf_event_open`"
    )]
    NotPermitted,
    /// The object could not be loaded.
    #[error("failed to load the kernel programs; `flowmeter doctor` says what this kernel lacks")]
    Load(#[source] Box<EbpfError>),
    /// A program was refused.
    #[error("the kernel refused program `{name}`{advice}")]
    Program {
        /// The program.
        name: &'static str,
        /// What to do.
        advice: &'static str,
        /// Why.
        source: Refusal,
    },
    /// A program could not be attached.
    #[error("failed to attach {hook} to `{interface}`{advice}")]
    Attach {
        /// The hook.
        hook: Hook,
        /// The interface.
        interface: String,
        /// What to do.
        advice: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A map is not what it should be.
    #[error("failed to {act} map `{map}`")]
    Map {
        /// What was tried.
        act: &'static str,
        /// The map.
        map: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The program that says what time it is did not run.
    #[error("failed to ask the kernel for its time")]
    Clock(#[source] Box<ProgramError>),
    /// The reaper did not run.
    #[error("failed to take flows out of the kernel's map")]
    Reap(#[source] Box<ProgramError>),
}

/// The loaded and attached programs.
pub struct Kernel {
    ebpf: Ebpf,
    /// The interfaces metered, by number.
    pub interfaces: Vec<Interface>,
    attached: attach::Attached,
    socket_hooks: owners::SocketHooks,
    logger: Option<log::Logger>,
    wall: clock::WallClock,
    /// Whether every packet is forwarded.
    is_whole: bool,
}

/// The object, built by `cargo xtask ebpf`; empty if it was not.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flowmeter.o"));

/// Sequences of this many packets have their slots' memory taken at the start.
const DENSE_SPLT: u32 = 2 * CHUNK_SLOTS as u32;

impl Kernel {
    /// Loads the programs and attaches them.
    pub fn open(options: &Options) -> Result<Self, Error> {
        if OBJECT.is_empty() {
            return Err(Error::NoObject);
        }
        capabilities::check()?;
        let interfaces = interface::resolve(&options.interfaces, &options.notices)?;
        let mut ebpf = load(options, &interfaces)?;
        let logger = options.log.then(|| log::Logger::start(&mut ebpf, &options.notices)).flatten();
        maps::name_interfaces(&mut ebpf, &interfaces)?;
        let wall = clock::WallClock::start(&mut ebpf)?;
        // First, so that no socket of a packet that is seen was missed.
        let socket_hooks = if options.attribute {
            owners::attach(&mut ebpf)
        } else {
            owners::SocketHooks::default()
        };
        let attached = attach::attach(&mut ebpf, &interfaces, options)?;
        let is_whole = options.whole;
        let mut kernel = Self { ebpf, interfaces, attached, socket_hooks, logger, wall, is_whole };
        if options.promiscuous {
            for interface in &mut kernel.interfaces {
                interface.hold_promiscuous(&options.notices);
            }
        }
        Ok(kernel)
    }

    /// The hooks in use, by interface.
    pub fn hooks(&self) -> impl Iterator<Item = (&Interface, &[Hook])> {
        self.interfaces.iter().zip(self.attached.hooks.iter().map(Vec::as_slice))
    }

    /// Takes the map of flows, once.
    pub fn flow_map(&mut self) -> Result<FlowMap, Error> {
        FlowMap::take(&mut self.ebpf)
    }

    /// Takes the ring of ended flows, once.
    pub fn record_ring(&mut self) -> Result<RecordRing, Error> {
        RecordRing::take(&mut self.ebpf)
    }

    /// Takes the ring of packets for the dissector, once.
    pub fn packet_ring(&mut self) -> Result<PacketRing, Error> {
        PacketRing::take(&mut self.ebpf, self.is_whole)
    }

    /// Takes the memory in which flows are noted that need no more dissection, once.
    pub fn settled_flows(&mut self) -> Result<SettledFlows, Error> {
        SettledFlows::of(&self.ebpf)
    }

    /// Takes the map of SPLT slots for flows of up to `packets`, once.
    pub fn splt_map(&mut self, packets: u32) -> Result<SpltMap, Error> {
        SpltMap::take(&mut self.ebpf, if packets > DENSE_SPLT { "SPLT_SPARSE" } else { "SPLT" })
    }

    /// What the programs have counted since they were loaded.
    pub fn balance(&self) -> Result<Balance, Error> {
        counters::read(&self.ebpf, self.interfaces.len())
    }

    /// Hands on what the programs have logged, if they do.
    pub fn tell_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.drain();
        }
    }

    /// Takes every program off its hook. Packets in flight are still counted; that takes no more
    /// than a few milliseconds.
    pub fn detach(&mut self) {
        self.attached.detach(&mut self.ebpf);
        std::thread::sleep(Duration::from_millis(10));
    }

    /// The programs' clock.
    pub fn clock(&self) -> Clock {
        self.wall.clock
    }

    /// Has flows that begin from now on follow the wall clock. Gives how far it has been set since
    /// the last call, if it has; ns.
    pub fn follow_wall_clock(&mut self) -> Option<i64> {
        self.wall.follow()
    }

    /// How far the wall clock has been set since the start; ns.
    pub fn clock_step(&self) -> i64 {
        self.wall.since_start()
    }
}

/// A network namespace, as the programs report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// It has this number.
    Is(u64),
    /// The one that the socket with this cookie is reported to be made in.
    OfSocket(u64),
    /// Nothing says which.
    Unknown,
}

/// The network namespace of the calling thread. Where the kernel does not say, before Linux 5.14, a
/// socket is made for the programs to report, if they are attached.
fn network_namespace() -> Namespace {
    match sys::netns_cookie() {
        Ok(number) => Namespace::Is(number),
        Err(_) => sys::new_socket_cookie().map_or(Namespace::Unknown, Namespace::OfSocket),
    }
}

/// The wall clock; ns since the epoch.
pub fn now_ns() -> u64 {
    sys::realtime_ns()
}

fn load(options: &Options, interfaces: &[Interface]) -> Result<Ebpf, Error> {
    let knobs = &options.knobs;
    let (first_ifindex, first_link) = interfaces.first().map_or((0, 0), |i| (i.index, i.link));
    let chunks = knobs.splt.div_ceil(CHUNK_SLOTS as u32).saturating_mul(options.max_flows).max(1);
    let is_sparse = knobs.splt > DENSE_SPLT;
    let globals = Globals {
        sparse: is_sparse.into(),
        snapshot: u32::from(options.snapshot_length).min(MAX_SNAPSHOT as u32),
        first_ifindex,
        first_link,
        many: (interfaces.len() > 1).into(),
        attribute: options.attribute.into(),
        whole: options.whole.into(),
        pid_namespace: pids::namespace(),
        ..Globals::from(knobs)
    };
    let log_level = if options.log { u8::MAX } else { 0 };
    let offsets = if options.attribute { layout::offsets() } else { None }.unwrap_or_default();
    let mut loader = EbpfLoader::new();
    for (global, offset) in &offsets {
        loader.override_global(global, offset, true);
    }
    for (global, value) in globals.table() {
        loader.override_global(global, value, true);
    }
    loader
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries("FLOWS", options.max_flows)
        .map_max_entries(if is_sparse { "SPLT_SPARSE" } else { "SPLT" }, chunks)
        .load(OBJECT)
        .map_err(|e| {
            if sys::is_permission(&e) { Error::NotPermitted } else { Error::Load(Box::new(e)) }
        })
}

/// Loads an XDP program.
fn xdp<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    let program = ebpf.program_mut(name).ok_or(Error::Absent { what: "program", name })?;
    let program: &mut Xdp = program.try_into().map_err(|e| refused(name, e))?;
    if program.fd().is_err() {
        program.load().map_err(|e| refused(name, e))?;
    }
    Ok(program)
}

/// Loads a tc program.
fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, Error> {
    let program = ebpf.program_mut(name).ok_or(Error::Absent { what: "program", name })?;
    let program: &mut SchedClassifier = program.try_into().map_err(|e| refused(name, e))?;
    if program.fd().is_err() {
        program.load().map_err(|e| refused(name, e))?;
    }
    Ok(program)
}

#[expect(clippy::needless_pass_by_value, reason = "so that `map_err` takes it")]
fn refused(name: &'static str, error: ProgramError) -> Error {
    let source = Refusal::from(&error);
    // With an empty log it is the process that may not; else the verifier has said why.
    if sys::os_error(&error) == Some(libc::EPERM) && !source.has_words() {
        return Error::NotPermitted;
    }
    let advice = match name {
        attach::XDP | attach::XDP_LINEAR => "; use `--ingress auto`",
        attach::TC_OUT => "; `--direction ingress` works without it",
        _ => "",
    };
    Error::Program { name, advice, source }
}
