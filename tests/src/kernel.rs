//! What do the BPF programs do with these bytes?
//!
//! The object is loaded but attached to nothing: packets come by `BPF_PROG_TEST_RUN`, so tests
//! neither see nor touch the machine's traffic, and each has maps of its own.

#![expect(unsafe_code, reason = "a thread is bound to a CPU by libc")]

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use flowmeter_common::clock::word;
use flowmeter_common::counter::{COUNTERS, Counters};
use flowmeter_common::event::{
    KIND_OVERFLOW, KIND_RECORD, MAX_REAP, OverflowEvent, PacketEvent, ReapRequest, RecordEvent, Why,
};
use flowmeter_common::fragment::{SETS, Set};
use flowmeter_common::globals::Globals;
use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::Knobs;
use flowmeter_common::lifetime::EndReason;
use flowmeter_common::packet::{Packet, Reject};
use flowmeter_common::record::Record;
use flowmeter_common::splt::{CHUNK_SLOTS, Chunk, ChunkKey, Slot};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// What a test sets before it loads the programs.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The meter's options.
    pub knobs: Knobs,
    /// Flows that the map has room for.
    pub max_flows: u32,
    /// SPLT chunks that the map has room for.
    pub max_chunks: u32,
    /// Whether the SPLT chunks are in the map that takes memory as it is needed.
    pub sparse: bool,
    /// Bytes of the record ring: a power of two, whole pages.
    pub record_ring: u32,
    /// Wall clock minus the kernel's clock, as flows that begin have it; ns.
    pub wall_offset: u64,
    /// Whether flows are to know their sockets.
    pub attribute: bool,
    /// Bytes of a frame that are forwarded.
    pub snapshot: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            knobs: Knobs::default(),
            max_flows: 4096,
            max_chunks: 4096,
            sparse: false,
            record_ring: 1 << 22,
            wall_offset: 1_700_000_000_000_000_000,
            attribute: false,
            snapshot: 64,
        }
    }
}

/// The programs, loaded, with maps of their own.
pub struct Kernel {
    programs: Ebpf,
    clock: Mutex<Array<MapData, u64>>,
    /// Whether XDP sees packets longer than a page.
    has_fragments: bool,
    flows: HashMap<MapData, [u8; size_of::<FlowKey>()], [u8; FLOW_BYTES]>,
    splt: Mutex<HashMap<MapData, [u8; size_of::<ChunkKey>()], [u8; size_of::<Chunk>()]>>,
    fragments: Mutex<Array<MapData, [u8; SET_BYTES]>>,
    parsed: Mutex<Array<MapData, [u8; size_of::<Parsed>()]>>,
    counters: PerCpuArray<MapData, [u64; COUNTERS]>,
    records: Mutex<RingBuf<MapData>>,
    packets: Mutex<RingBuf<MapData>>,
}

/// Lock, state and record: a value of the map `FLOWS`.
const FLOW_BYTES: usize = 8 + size_of::<Record>();

/// Lock and set: a value of the map `FRAGMENTS`.
const SET_BYTES: usize = 8 + size_of::<Set>();

/// Lookups of values with a spin lock take it (`BPF_F_LOCK`), so that no half-written record is
/// seen.
const LOCKED: u64 = 4;

/// A verdict, as the parse-only programs leave it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Parsed {
    reject: u32,
    fast: u32,
    packet: Packet,
}

/// [`Parsed::reject`] before the program ran: all bits of the value are set.
const UNTOUCHED: u32 = u32::MAX;

/// What the record ring brought.
#[derive(Clone, Debug)]
pub enum Handed {
    /// A flow that has ended.
    Record(EndReason, Box<Record>),
    /// A packet that found no room.
    Overflow(Box<OverflowEvent>),
}

/// XDP programs that have another one for kernels before 5.18.
const LINEAR: [&str; 2] = ["flowmeter_xdp", "flowmeter_parse"];

fn linear(name: &str) -> String {
    format!("{name}_linear")
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program = ebpf.program_mut(name);
    let program = program.with_context(|| format!("the object has no program `{name}`"))?;
    let loaded = match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => bail!("`{name}` is neither XDP nor tc"),
    };
    match loaded {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("the verifier refuses `{name}`")),
    }
}

impl Kernel {
    /// Loads the programs named, and only those: each costs the verifier some time.
    pub fn load(setup: &Setup, programs: &[&str]) -> Result<Self> {
        let path = object();
        let globals = Globals {
            sparse: setup.sparse.into(),
            attribute: setup.attribute.into(),
            snapshot: setup.snapshot,
            ..Globals::from(&setup.knobs)
        };
        let chunks = if setup.sparse { "SPLT_SPARSE" } else { "SPLT" };
        let mut loader = EbpfLoader::new();
        for (global, value) in globals.table() {
            loader.override_global(global, value, true);
        }
        let mut ebpf = loader
            .map_max_entries("FLOWS", setup.max_flows)
            .map_max_entries(chunks, setup.max_chunks)
            .map_max_entries("RECORDS", setup.record_ring)
            .map_max_entries("PACKETS", 1 << 22)
            .load_file(&path)
            .with_context(|| {
                format!("failed to load `{}`; `cargo xtask ebpf` builds it", path.display())
            })?;
        let mut has_fragments = true;
        for &name in programs {
            let Err(refused) = load(&mut ebpf, name) else { continue };
            // Before Linux 5.18 there is another program in its place; xtask's table of verified
            // programs says where that may be.
            if !LINEAR.contains(&name) || load(&mut ebpf, &linear(name)).is_err() {
                return Err(refused);
            }
            println!("this kernel has no XDP with fragments of memory: `{}`", linear(name));
            has_fragments = false;
        }
        let mut map = |name: &str| {
            ebpf.take_map(name).with_context(|| format!("`{}` has no map `{name}`", path.display()))
        };
        let mut clock: Array<_, u64> = map("CLOCK")?.try_into()?;
        clock.set(word::WALL_OFFSET, setup.wall_offset, 0)?;
        Ok(Self {
            clock: Mutex::new(clock),
            flows: map("FLOWS")?.try_into()?,
            splt: Mutex::new(map(chunks)?.try_into()?),
            fragments: Mutex::new(map("FRAGMENTS")?.try_into()?),
            parsed: Mutex::new(map("PARSED")?.try_into()?),
            counters: map("COUNTERS")?.try_into()?,
            records: Mutex::new(map("RECORDS")?.try_into()?),
            packets: Mutex::new(map("PACKETS")?.try_into()?),
            has_fragments,
            programs: ebpf,
        })
    }

    /// Runs an XDP program on `bytes`, `repeat` times, and gives what it returned last.
    pub fn xdp(&self, name: &str, bytes: &[u8], repeat: u32) -> Result<u32> {
        let program: &Xdp = self.program(name)?.try_into()?;
        let result = program
            .test_run(TestRunOptions { data_in: Some(bytes), repeat, ..TestRunOptions::default() })
            .with_context(|| format!("failed to run `{name}` on {} bytes", bytes.len()))?;
        Ok(result.return_value)
    }

    /// Runs an XDP program on `bytes`, of which only the first `linear` can be accessed directly;
    /// the rest is in fragments of memory, as drivers have it that split off headers. `None` if
    /// this kernel cannot (before 6.18).
    pub fn xdp_split(&self, name: &str, bytes: &[u8], linear: u32) -> Result<Option<u32>> {
        let program: &Xdp = self.program(name)?.try_into()?;
        // A `struct xdp_md`: data, data_end, and four fields that stay 0.
        let context = [0, linear, 0, 0, 0, 0];
        let result = program.test_run(TestRunOptions {
            data_in: Some(bytes),
            ctx_in: Some(context.as_bytes()),
            ..TestRunOptions::default()
        });
        match result {
            Ok(result) => Ok(Some(result.return_value)),
            Err(ProgramError::SyscallError(why))
                if why.io_error.raw_os_error() == Some(libc::EINVAL) =>
            {
                Ok(None)
            }
            Err(why) => Err(why).with_context(|| format!("failed to run `{name}`")),
        }
    }

    /// Runs a tc program on `bytes`, as part of a socket buffer with segmentation `offload`.
    pub fn tc(&self, name: &str, bytes: &[u8], offload: Option<SkbOffload>) -> Result<u32> {
        let program: &SchedClassifier = self.program(name)?.try_into()?;
        let context = offload.map(SkbOffload::context);
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(bytes),
                ctx_in: context.as_ref().map(|c| &c[..]),
                ..TestRunOptions::default()
            })
            .with_context(|| format!("failed to run `{name}` on {} bytes", bytes.len()))?;
        Ok(result.return_value)
    }

    /// Lengths of packets that an XDP test run takes: beyond a page in fragments of memory, where
    /// the kernel has that.
    pub fn xdp_bytes(&self) -> RangeInclusive<usize> {
        14..=if self.has_fragments { 65_000 } else { 3_500 }
    }

    fn program(&self, name: &str) -> Result<&Program> {
        let linear = linear(name);
        let name = if !self.has_fragments && LINEAR.contains(&name) { &linear } else { name };
        self.programs.program(name).with_context(|| format!("no program `{name}`"))
    }

    /// The verdict that `run`, one of the parse-only programs, leaves.
    pub fn verdict<T>(
        &self,
        run: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<Result<Packet, Reject>> {
        let mut parsed = self.parsed.lock().expect("no test panics with this lock");
        parsed.set(0, [0xff; size_of::<Parsed>()], 0)?;
        run(self)?;
        let value = parsed.get(&0, 0)?;
        let Parsed { reject, packet, .. } = zerocopy::transmute!(value);
        match reject {
            0 => Ok(Ok(packet)),
            UNTOUCHED => bail!("the program left no verdict"),
            why => match Reject::from_u8(why as u8) {
                Some(why) => Ok(Err(why)),
                None => bail!("{why} is no reason to reject a packet"),
            },
        }
    }

    /// The records of the flows in the map.
    pub fn resident(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for key in self.flows.keys() {
            let value = self.flows.get(&key?, LOCKED)?;
            let (_, record) = Record::read_from_suffix(&value)
                .map_err(|_| anyhow::anyhow!("a flow is not as long as a record"))?;
            records.push(record);
        }
        Ok(records)
    }

    /// The keys of the flows in the map.
    pub fn keys(&self) -> Result<Vec<FlowKey>> {
        self.flows.keys().map(|key| Ok(zerocopy::transmute!(key?))).collect()
    }

    /// The SPLT slots of the record `uid`.
    pub fn slots(&self, uid: u64, slots: u32) -> Result<Vec<Slot>> {
        let splt = self.splt.lock().expect("no test panics with this lock");
        let mut found = Vec::new();
        for chunk in 0..slots.div_ceil(CHUNK_SLOTS as u32) {
            let key = ChunkKey { uid, chunk, reserved: 0 };
            let value = splt
                .get(&zerocopy::transmute!(key), 0)
                .with_context(|| format!("record {uid:x} has no SPLT chunk {chunk}"))?;
            let Chunk { slots } = zerocopy::transmute!(value);
            found.extend(slots);
        }
        found.truncate(slots as usize);
        Ok(found)
    }

    /// Takes everything out of the record ring.
    pub fn handed(&self) -> Result<Vec<Handed>> {
        let mut ring = self.records.lock().expect("no test panics with this lock");
        let mut handed = Vec::new();
        while let Some(event) = ring.next() {
            handed.push(Handed::read(&event)?);
        }
        Ok(handed)
    }

    /// Takes everything out of the packet ring: heads and the bytes behind them.
    pub fn forwarded(&self) -> Result<Vec<(PacketEvent, Vec<u8>)>> {
        let mut ring = self.packets.lock().expect("no test panics with this lock");
        let mut forwarded = Vec::new();
        while let Some(event) = ring.next() {
            let (head, bytes) = PacketEvent::read_from_prefix(&event)
                .map_err(|_| anyhow::anyhow!("a packet event of {} bytes", event.len()))?;
            forwarded.push((head, bytes.to_vec()));
        }
        Ok(forwarded)
    }

    /// The counters of the first interface at `hook` (0 ingress, 1 egress), of all CPUs.
    pub fn counters(&self, hook: u32) -> Result<Counters> {
        let mut total = Counters { values: [0; COUNTERS] };
        for values in self.counters.get(&hook, 0)?.iter() {
            for (total, value) in total.values.iter_mut().zip(values) {
                *total += value;
            }
        }
        Ok(total)
    }

    /// Sets what flows that begin from now on add to the kernel's clock; ns.
    pub fn set_wall_offset(&self, wall_offset: u64) -> Result<()> {
        let mut clock = self.clock.lock().expect("no test panics with this lock");
        Ok(clock.set(word::WALL_OFFSET, wall_offset, 0)?)
    }

    /// Asks the reaper for the flows `keys`, at most [`MAX_REAP`], at the time `clock_ns`; at
    /// shutdown for those, too, that have not ended. Says how many it has dealt with.
    pub fn reap(&self, keys: &[FlowKey], clock_ns: u64, why: Why) -> Result<u32> {
        ensure!(keys.len() <= MAX_REAP, "{} keys at once", keys.len());
        let head = ReapRequest::new(clock_ns, why, keys.len() as u32);
        let request = [head.as_bytes(), keys.as_bytes()].concat();
        self.xdp("flowmeter_reap", &request, 1)
    }

    /// Forgets everything but the counters: flows, rings, SPLT slots and fragmented datagrams.
    pub fn clear(&self) -> Result<()> {
        for keys in self.keys()?.chunks(MAX_REAP) {
            self.reap(keys, 0, Why::Shutdown)?;
        }
        self.handed()?;
        self.forwarded()?;
        empty(&mut self.splt.lock().expect("no test panics with this lock"))?;
        let mut fragments = self.fragments.lock().expect("no test panics with this lock");
        for number in 0..SETS as u32 {
            fragments.set(number, [0; SET_BYTES], 0)?;
        }
        Ok(())
    }
}

fn empty<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>) -> Result<()> {
    for key in map.keys().collect::<Result<Vec<_>, _>>()? {
        map.remove(&key)?;
    }
    Ok(())
}

impl Handed {
    fn read(event: &[u8]) -> Result<Self> {
        let (kind, _) = u32::read_from_prefix(event).unwrap_or_default();
        match kind {
            KIND_RECORD => {
                let mut value = Box::new(RecordEvent::new_zeroed());
                value.as_mut_bytes().copy_from_slice(
                    event
                        .get(..size_of::<RecordEvent>())
                        .context("a record event that is too short")?,
                );
                let reason = EndReason::from_u32(value.reason)
                    .with_context(|| format!("a flow ended for reason {}", value.reason))?;
                Ok(Self::Record(reason, Box::new(value.record)))
            }
            KIND_OVERFLOW => {
                let (event, _) = OverflowEvent::read_from_prefix(event)
                    .map_err(|_| anyhow::anyhow!("an overflow event that is too short"))?;
                Ok(Self::Overflow(Box::new(event)))
            }
            _ => bail!("an event of kind {kind}"),
        }
    }

    /// The record, if it is one.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Record(_, record) => Some(record),
            Self::Overflow(_) => None,
        }
    }
}

/// What a socket buffer says of its segmentation.
#[derive(Clone, Copy, Debug)]
pub struct SkbOffload {
    /// `gso_size`: payload bytes of each segment but the last.
    pub size: u32,
    /// `gso_segs`: how many segments.
    pub segments: u32,
    /// `wire_len`: bytes of all segments with their headers.
    pub wire: u32,
}

impl SkbOffload {
    /// A `struct __sk_buff` (Linux, `include/uapi/linux/bpf.h`) in which nothing else is set: a
    /// test run refuses what it does not know how to give.
    fn context(self) -> [u8; 192] {
        let mut context = [0; 192];
        for (offset, value) in [(160, self.wire), (164, self.segments), (176, self.size)] {
            let field: &mut [u8] = &mut context[offset..offset + 4];
            field.copy_from_slice(&value.to_ne_bytes());
        }
        context
    }
}

/// Keeps the calling thread on the CPU that it runs on, so that its test runs share what the
/// programs have per CPU.
pub fn stay_on_this_cpu() -> Result<()> {
    // SAFETY: has no preconditions.
    let cpu = unsafe { libc::sched_getcpu() };
    ensure!(cpu >= 0, "this CPU has no number: {}", std::io::Error::last_os_error());
    // SAFETY: a set of CPUs is plain data, empty if it is zero.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the macro checks the number's bound.
    unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    // SAFETY: 0 is the calling thread, and the set's size is said.
    let failed =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    ensure!(failed == 0, "failed to stay on CPU {cpu}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Where the BPF object is: `FLOWMETER_BPF_OBJECT`, or where `cargo xtask ebpf` leaves it.
pub fn object() -> PathBuf {
    std::env::var_os("FLOWMETER_BPF_OBJECT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/flowmeter.o"),
        PathBuf::from,
    )
}
