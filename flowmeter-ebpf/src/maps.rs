//! Which maps and settings do the programs have?

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_spin_lock;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use flowmeter_common::clock::word;
use flowmeter_common::counter::{Counters, HOOKS, MAX_INTERFACES};
use flowmeter_common::event::{MAX_SNAPSHOT, PacketEvent, PacketHead, SETTLED_FLOWS};
use flowmeter_common::fragment::{FragmentKey, SETS, Set};
use flowmeter_common::kernel_settings;
use flowmeter_common::key::FlowKey;
use flowmeter_common::knobs::Settings;
use flowmeter_common::owner::OwnerCounters;
use flowmeter_common::packet::Packet;
use flowmeter_common::parse::Walk;
use flowmeter_common::record::{Effect, Record};
use flowmeter_common::splt::{Chunk, ChunkKey};

use crate::packet::Window;

/// A flow in the map. Both directions of a flow run on different CPUs, and inter-arrival times
/// need them in order, hence the lock.
#[repr(C)]
pub struct Flow {
    pub lock: bpf_spin_lock,
    /// [`LIVE`] or [`GONE`].
    pub state: u32,
    pub record: Record,
}

/// The record is the flow's.
pub const LIVE: u32 = 0;
/// The reaper has taken the record; look the flow up again.
pub const GONE: u32 = 1;

/// A [`Flow`] in a map that may not hold a lock.
#[repr(C)]
pub struct NewFlow {
    pub lock: u32,
    pub state: u32,
    pub record: Record,
}

const _: () = assert!(size_of::<Flow>() == size_of::<NewFlow>());

/// Fragmented datagrams in the map. The fragments of one, and of those that share its set, come on
/// several CPUs, hence the lock: no CPU sees the key of one datagram with the ports of another.
#[repr(C)]
pub struct LockedSet {
    pub lock: bpf_spin_lock,
    /// Zero.
    pub reserved: u32,
    pub set: Set,
}

/// Room that does not fit the 512 bytes of stack.
#[repr(C)]
pub struct Scratch {
    pub walk: Walk,
    /// Number of the interface among those metered.
    pub interface: u32,
    /// Time of the packet by the meter's clock, see [`crate::clock`]; ns.
    pub now: u64,
    /// 0 at ingress, 1 at egress.
    pub hook: u32,
    /// Of the reaper: 1 to take flows that have not ended.
    pub force: u32,
    /// The flow's record.
    pub uid: u64,
    /// What the packet did to it.
    pub effect: Effect,
    /// 1 if the packet's source is the high end of the key.
    pub from_high: u32,
    /// Marks to set on the record.
    pub marks: u32,
    pub key: FlowKey,
    pub window: Window,
    pub new: NewFlow,
    /// The cookie of the socket that sends the packet.
    pub cookie: u64,
    /// Flows that this CPU has begun.
    pub begun: u64,
    pub chunk_key: ChunkKey,
    pub chunk: Chunk,
    pub fragment_key: FragmentKey,
    pub head: PacketHead,
    pub event: PacketEvent,
    pub bytes: [u8; MAX_SNAPSHOT],
}

/// The bidirectional flows. Not LRU: that refuses locks and evicts silently.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, Flow, 131_072> = HashMap::new();

/// SPLT slots, all memory taken at the start: for short sequences.
#[btf_map]
pub static SPLT: HashMap<ChunkKey, Chunk, 1> = HashMap::new();

/// SPLT slots, memory taken as flows need it: for long sequences. 1 is `BPF_F_NO_PREALLOC`.
#[btf_map]
pub static SPLT_SPARSE: HashMap<ChunkKey, Chunk, 1, 1> = HashMap::new();

/// Ended flows, and packets that found no room.
#[btf_map]
pub static RECORDS: RingBuf<[u8; 8], 16_777_216> = RingBuf::new();

/// First packets of flows, for the dissector.
#[btf_map]
pub static PACKETS: RingBuf<[u8; 8], 33_554_432> = RingBuf::new();

/// Flows that the dissector is done with, see [`settled_place`](flowmeter_common::event::settled_place).
/// 1024 is `BPF_F_MMAPABLE`: userspace writes it as memory.
#[btf_map]
pub static SETTLED: Array<u64, SETTLED_FLOWS, 1024> = Array::new();

/// What kernel and userspace tell each other of time. 1024 is `BPF_F_MMAPABLE`.
#[btf_map]
pub static CLOCK: Array<u64, { word::COUNT }, 1024> = Array::new();

/// Ports of fragmented datagrams. Forgetting is harmless, and counted where it is not. Not LRU: what
/// that forgets depends on the CPUs, and the host could not do the same.
#[btf_map]
pub static FRAGMENTS: Array<LockedSet, SETS> = Array::new();

/// By interface * 2 + hook.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, { MAX_INTERFACES * HOOKS }> = PerCpuArray::new();

/// Sockets' makers and users.
#[btf_map]
pub static OWNERS: RingBuf<[u8; 8], 4_194_304> = RingBuf::new();

/// Programs that processes run. Apart from the sockets, which must not be lost for these.
#[btf_map]
pub static EXECS: RingBuf<[u8; 8], 4_194_304> = RingBuf::new();

/// Processes that were made.
#[btf_map]
pub static FORKS: RingBuf<[u8; 8], 1_048_576> = RingBuf::new();

/// Cgroups that were made.
#[btf_map]
pub static CGROUPS: RingBuf<[u8; 8], 262_144> = RingBuf::new();

/// What became of them, on all CPUs: every event tells how many were lost before it. 1024 is
/// `BPF_F_MMAPABLE`: userspace reads it as memory, since a loss may be the last that happens.
#[btf_map]
pub static OWNER_COUNTERS: Array<OwnerCounters, 1, 1024> = Array::new();

#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// The reaper's own: before kernel 6.3 a packet may come upon it on its CPU.
#[btf_map]
pub static REAPING: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Interfaces but the first: what [`FIRST_IFINDEX`] and [`FIRST_LINK`] say of that.
#[btf_map]
pub static INTERFACES: HashMap<u32, Interface, MAX_INTERFACES> = HashMap::new();

/// What the parse-only programs found.
#[btf_map]
pub static PARSED: Array<Parsed, 1> = Array::new();

/// An interface that is metered.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Interface {
    /// Its number among those metered.
    pub number: u32,
    /// What its frames start with, see [`next`](flowmeter_common::parse::next).
    pub link: u32,
}

/// A verdict.
#[repr(C)]
pub struct Parsed {
    /// 0, or a [`Reject`](flowmeter_common::packet::Reject).
    pub reject: u32,
    /// 1 if the fast path was enough.
    pub fast: u32,
    pub packet: Packet,
}

macro_rules! globals {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr;)*) => {
        $($(#[$doc])* #[unsafe(no_mangle)] pub static $name: Global<$type> = Global::new($default);)*
    };
}

/// One of [`kernel_settings`]' table. Userspace knows it as the field of that name.
macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident, $name:ident: $type:ty = $default:expr;)*) => {
        globals! { $($(#[$doc])* $name: $type = $default;)* }
    };
}

kernel_settings!(settings);

globals! {
    /// Where fields are in the kernel's structs; bytes. Of `task_struct`, 0 if not known:
    TASK_LEADER: u32 = 0;
    TASK_PARENT: u32 = 0;
    TASK_TGID: u32 = 0;
    TASK_START: u32 = 0;
    TASK_COMM: u32 = 0;
    TASK_MM: u32 = 0;
    TASK_FLAGS: u32 = 0;
    TASK_EXEC_ID: u32 = 0;
    TASK_CRED: u32 = 0;
    TASK_LOGIN: u32 = 0;
    TASK_PID: u32 = 0;
    /// Of `pid`, `upid` and `pid_namespace`; the number of the last 0 if not known:
    PID_LEVEL: u32 = 0;
    PID_NUMBERS: u32 = 0;
    UPID_SPACE: u32 = 0;
    PID_SPACE_NUMBER: u32 = 0;
    /// Of `cred`:
    CRED_EUID: u32 = 0;
    CRED_EGID: u32 = 0;
    /// Of `mm_struct`, and from there on to the file that is run; 0 if not known:
    MM_EXE: u32 = 0;
    FILE_INODE: u32 = 0;
    INODE_NUMBER: u32 = 0;
    INODE_LINKS: u32 = 0;
    INODE_SUPER: u32 = 0;
    SUPER_DEVICE: u32 = 0;
    /// Of `cgroup` and what it leads to; 0 if not known:
    CGROUP_ROOT: u32 = 0;
    CGROUP_NODE: u32 = 0;
    ROOT_HIERARCHY: u32 = 0;
    NODE_ID: u32 = 0;
    /// Of `mm_struct` and `linux_binprm`:
    MM_ARG_START: u32 = 0;
    MM_ARG_END: u32 = 0;
    BPRM_INTERP: u32 = 0;
    /// Of `net`, 0 if not known:
    NET_COOKIE: u32 = 0;
    /// Of `socket`, 0 if not known:
    SOCKET_SOCK: u32 = 0;
    /// Of `sock`, by its common part:
    SOCK_FAMILY: u32 = 16;
    SOCK_PORT: u32 = 14;
    SOCK_PEER_PORT: u32 = 12;
    SOCK_ADDRESS: u32 = 4;
    SOCK_PEER: u32 = 0;
    SOCK_ADDRESS6: u32 = 72;
    SOCK_PEER6: u32 = 56;
    SOCK_NET: u32 = 48;
    SOCK_COOKIE: u32 = 88;
    SOCK_PROTOCOL: u32 = 0;
    /// 1 if the kernel tells which MPTCP socket has a way of it as one of its own.
    KNOWS_MPTCP: u32 = 0;
}

/// The settings. Each is a constant to the verifier, which removes what is off.
pub struct Globals;

impl Settings for Globals {
    #[inline(always)]
    fn idle_ns(&self) -> u64 {
        IDLE_NS.load()
    }

    #[inline(always)]
    fn active_ns(&self) -> u64 {
        ACTIVE_NS.load()
    }

    #[inline(always)]
    fn accounting(&self) -> u32 {
        ACCOUNTING.load()
    }

    #[inline(always)]
    fn tick_ns(&self) -> u64 {
        TICK_NS.load()
    }

    #[inline(always)]
    fn splt(&self) -> u32 {
        SPLT_PACKETS.load()
    }

    #[inline(always)]
    fn statistics(&self) -> bool {
        STATISTICS.load() != 0
    }
}

/// The number of an interface and what its frames start with; `None` if it is not metered.
#[inline(always)]
pub fn interface(ifindex: u32) -> Option<Interface> {
    if ifindex == FIRST_IFINDEX.load() {
        return Some(Interface { number: 0, link: FIRST_LINK.load() });
    }
    if MANY.load() == 0 {
        return None;
    }
    // SAFETY: userspace writes the map before the programs are attached, and not afterwards.
    unsafe { INTERFACES.get(&ifindex) }.copied()
}
