//! How does the kernel report whose sockets there are?
//!
//! By programs at the sockets of all processes: in the root cgroup and at tracepoints. They are
//! gone with the process.

use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirEntryExt as _;
use std::sync::atomic::Ordering;
use std::{fs, io};

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::{CgroupAttachMode, Program, ProgramError};
use aya::{Btf, BtfError, Ebpf};
use flowmeter_common::owner::{CgroupEvent, ExecEvent, ForkEvent, OwnerCounters, OwnerEvent};
use zerocopy::FromBytes;

use super::words::Words;
use super::{Error, Kernel, Namespace, Refusal, maps, network_namespace, sys};

/// A hook at which sockets are seen, and why if it could not be used.
#[derive(Clone, Debug)]
pub struct SocketHook {
    /// Its name.
    pub name: &'static str,
    /// None if it works.
    pub failed: Option<String>,
}

impl SocketHook {
    /// Whether it could be used.
    pub fn works(&self) -> bool {
        self.failed.is_none()
    }
}

/// A program and where it belongs.
struct Place {
    program: &'static str,
    hook: At,
    name: &'static str,
    /// What tells the same where this cannot be had.
    instead: &'static [Self],
}

/// Where a program is attached.
#[derive(Clone, Copy)]
enum At {
    /// At the sockets of the root cgroup's processes.
    Cgroup,
    /// At a tracepoint.
    Tracepoint(&'static str),
    /// Where a function of the kernel's begins.
    Function(&'static str),
}

impl Place {
    const fn cgroup(program: &'static str, name: &'static str, instead: &'static [Self]) -> Self {
        Self { program, hook: At::Cgroup, name, instead }
    }

    const fn function(program: &'static str, function: &'static str, name: &'static str) -> Self {
        Self { program, hook: At::Function(function), name, instead: &[] }
    }

    const fn tracepoint(
        program: &'static str,
        tracepoint: &'static str,
        name: &'static str,
        instead: &'static [Self],
    ) -> Self {
        Self { program, hook: At::Tracepoint(tracepoint), name, instead }
    }
}

/// Where sockets are made and end, and programs begin.
const PLACES: [Place; 9] = [
    Place::cgroup("flowmeter_socket", "cgroup/sock_create", &[]),
    Place::cgroup("flowmeter_bind4", "cgroup/post_bind4", &[]),
    Place::cgroup("flowmeter_bind6", "cgroup/post_bind6", &[]),
    Place::cgroup("flowmeter_release", "cgroup/sock_release", &[]),
    // Before Linux 5.13 no socket's options can be asked for there.
    Place::cgroup(
        "flowmeter_heard4",
        "cgroup/recvmsg4",
        &[Place::cgroup("flowmeter_heard4_any", "cgroup/recvmsg4", &[])],
    ),
    Place::cgroup(
        "flowmeter_heard6",
        "cgroup/recvmsg6",
        &[Place::cgroup("flowmeter_heard6_any", "cgroup/recvmsg6", &[])],
    ),
    Place::tracepoint("flowmeter_exec", "sched_process_exec", "tp_btf/sched_process_exec", &[]),
    Place::tracepoint("flowmeter_fork", "sched_process_fork", "tp_btf/sched_process_fork", &[]),
    Place::tracepoint("flowmeter_cgroup", "cgroup_mkdir", "tp_btf/cgroup_mkdir", &[]),
];

/// Where sockets are used. These tracepoints came with Linux 6.3.
const USES: [Place; 2] = [
    Place::tracepoint(
        "flowmeter_send",
        "sock_send_length",
        "tp_btf/sock_send_length",
        &[
            Place::function("flowmeter_send4", "inet_sendmsg", "fentry/inet_sendmsg"),
            Place::function("flowmeter_send6", "inet6_sendmsg", "fentry/inet6_sendmsg"),
            Place::function("flowmeter_send_page", "inet_sendpage", "fentry/inet_sendpage"),
            Place::cgroup("flowmeter_connection", "cgroup/sock_ops", &[]),
        ],
    ),
    Place::tracepoint(
        "flowmeter_receive",
        "sock_recv_length",
        "tp_btf/sock_recv_length",
        &[
            Place::function("flowmeter_receive4", "inet_recvmsg", "fentry/inet_recvmsg"),
            Place::function("flowmeter_receive6", "inet6_recvmsg", "fentry/inet6_recvmsg"),
            Place::function("flowmeter_receive_page", "tcp_splice_read", "fentry/tcp_splice_read"),
        ],
    ),
];

/// Where a use begins that the tracepoints report only when the packet has left. What stands in for
/// those is there before.
const BEGINNINGS: [Place; 4] = [
    Place::cgroup("flowmeter_sends4", "cgroup/sendmsg4", &[]),
    Place::cgroup("flowmeter_sends6", "cgroup/sendmsg6", &[]),
    Place::cgroup("flowmeter_connect4", "cgroup/connect4", &[]),
    Place::cgroup("flowmeter_connect6", "cgroup/connect6", &[]),
];

/// Where a use is that the tracepoints do not report. Rare: where this is missing, nobody is warned.
const RARE: [Place; 1] =
    [Place::function("flowmeter_splice", "tcp_splice_read", "fentry/tcp_splice_read")];

/// The hooks at sockets.
#[derive(Default)]
pub(super) struct SocketHooks {
    pub(super) all: Vec<SocketHook>,
    /// Whether every use of a socket is reported.
    uses_are_told: bool,
}

/// Attaches the programs, as many as can be.
pub(super) fn attach(ebpf: &mut Ebpf) -> SocketHooks {
    let targets = Targets { cgroup: sys::root_cgroup(), btf: Btf::from_sys_fs() };
    let mut all = targets.attach_all(ebpf, &PLACES);
    let uses = targets.attach_all(ebpf, &USES);
    let uses_are_told = uses.iter().all(SocketHook::works);
    let [send, _] = &USES;
    if uses.iter().any(|hook| hook.name == send.name && hook.works()) {
        all.extend(targets.attach_all(ebpf, &BEGINNINGS));
        all.extend(targets.attach_all(ebpf, &RARE).into_iter().filter(SocketHook::works));
    }
    all.extend(uses);
    SocketHooks { all, uses_are_told }
}

/// What programs are attached to.
struct Targets {
    cgroup: io::Result<OwnedFd>,
    btf: Result<Btf, BtfError>,
}

impl Targets {
    fn attach_all(&self, ebpf: &mut Ebpf, places: &[Place]) -> Vec<SocketHook> {
        let mut hooks = Vec::new();
        for place in places {
            let hook = self.attach(ebpf, place);
            let mut instead = Vec::new();
            if !hook.works() {
                instead.extend(place.instead.iter().map(|place| self.attach(ebpf, place)));
            }
            // A hook that is made up for is not missed.
            let is_made_up_for = !instead.is_empty() && instead.iter().all(SocketHook::works);
            if !is_made_up_for {
                hooks.push(hook);
            }
            hooks.append(&mut instead);
        }
        hooks
    }

    fn attach(&self, ebpf: &mut Ebpf, place: &Place) -> SocketHook {
        let result = match ebpf.program_mut(place.program) {
            None => Err("not in the object".to_owned()),
            Some(program) => self.attach_program(program, place.hook),
        };
        SocketHook { name: place.name, failed: result.err() }
    }

    fn attach_program(&self, program: &mut Program, hook: At) -> Result<(), String> {
        let refused = |e: ProgramError| Refusal::from(&e).to_string();
        match hook {
            At::Cgroup => {
                let cgroup = self.cgroup.as_ref().map_err(|e| format!("no cgroup2: {e}"))?;
                at_cgroup(program, cgroup).map_err(refused)
            }
            At::Tracepoint(name) | At::Function(name) => {
                let btf = self.btf.as_ref().map_err(ToString::to_string)?;
                at_kernel(program, name, btf).map_err(refused)
            }
        }
    }
}

/// As a link, which others may have beside it; its flags must be none.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

fn at_cgroup(program: &mut Program, cgroup: &OwnedFd) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSock(program) => {
            program.load()?;
            program.attach(cgroup, MODE).map(drop)
        }
        Program::CgroupSockAddr(program) => {
            program.load()?;
            program.attach(cgroup, MODE).map(drop)
        }
        Program::SockOps(program) => {
            program.load()?;
            program.attach(cgroup, MODE).map(drop)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn at_kernel(program: &mut Program, name: &str, btf: &Btf) -> Result<(), ProgramError> {
    match program {
        Program::BtfTracePoint(program) => {
            program.load(name, btf)?;
            program.attach().map(drop)
        }
        Program::FEntry(program) => {
            program.load(name, btf)?;
            program.attach().map(drop)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// The rings of what happens to sockets, and of the programs that processes run.
pub struct OwnerRing {
    sockets: RingBuf<MapData>,
    /// The kernel's [`OwnerCounters`].
    counters: Words,
    programs: RingBuf<MapData>,
    forks: RingBuf<MapData>,
    cgroups: RingBuf<MapData>,
    /// The cgroups that were there before, by their numbers.
    pub old_cgroups: Vec<(u64, String)>,
    /// The network namespace whose sockets' addresses say whose flow it is.
    pub namespace: Namespace,
}

/// Bytes of a word.
const WORD: u32 = size_of::<u64>() as u32;

/// Words that the counters have.
const COUNTERS: usize = size_of::<OwnerCounters>() / size_of::<u64>();

impl OwnerRing {
    /// Takes the next event of a socket; false if there is none.
    pub fn next(&mut self, take: impl FnOnce(&OwnerEvent)) -> bool {
        next(&mut self.sockets, take)
    }

    /// Events of sockets that found no room in the ring so far.
    pub fn lost(&self) -> u64 {
        let lost = self.counters.get(offset_of!(OwnerCounters, lost) as u32 / WORD);
        lost.map_or(0, |lost| lost.load(Ordering::Acquire))
    }

    /// Takes the next program; false if there is none. Once the sockets' events are taken, the
    /// programs of their processes are here.
    pub fn next_program(&mut self, take: impl FnOnce(&ExecEvent)) -> bool {
        next(&mut self.programs, take)
    }

    /// Takes the next process that was made; false if there is none.
    pub fn next_fork(&mut self, take: impl FnOnce(&ForkEvent)) -> bool {
        next(&mut self.forks, take)
    }

    /// Takes the next cgroup that was made; false if there is none.
    pub fn next_cgroup(&mut self, take: impl FnOnce(&CgroupEvent)) -> bool {
        next(&mut self.cgroups, take)
    }
}

/// Cgroups that are looked at.
const MOST_CGROUPS: usize = 16_384;

/// The cgroups below the root, which is left out: processes in none are there.
fn cgroups(root: &OwnedFd) -> Vec<(u64, String)> {
    let mount = format!("/proc/self/fd/{}", root.as_raw_fd());
    let mut found: Vec<(u64, String)> = Vec::new();
    let mut next = Some(String::new());
    let mut looked_at = 0;
    while let Some(folder) = next {
        for entry in fs::read_dir(format!("{mount}{folder}/")).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && found.len() < MOST_CGROUPS {
                let name = entry.file_name();
                found.push((entry.ino(), format!("{folder}/{}", name.to_string_lossy())));
            }
        }
        next = found.get(looked_at).map(|(_, path)| path.clone());
        looked_at += 1;
    }
    found
}

fn next<T: FromBytes>(ring: &mut RingBuf<MapData>, take: impl FnOnce(&T)) -> bool {
    let Some(bytes) = ring.next() else {
        return false;
    };
    if let Ok((event, _)) = T::read_from_prefix(&bytes) {
        take(&event);
    }
    true
}

impl Kernel {
    /// The hooks at sockets, if flows are attributed.
    pub fn socket_hooks(&self) -> &[SocketHook] {
        &self.socket_hooks.all
    }

    /// Takes the ring of what happens to sockets, once.
    pub fn owner_ring(&mut self) -> Result<OwnerRing, Error> {
        // Who has bound a socket, or has it from whom, is not who answers by it: without word of
        // that an address says nothing, and procfs has to do.
        let is_told = self.socket_hooks.uses_are_told;
        let namespace = if is_told { network_namespace() } else { Namespace::Unknown };
        let sockets = maps::ring(&mut self.ebpf, "OWNERS")?;
        Ok(OwnerRing {
            sockets,
            counters: Words::of(&self.ebpf, "OWNER_COUNTERS", COUNTERS)?,
            programs: maps::ring(&mut self.ebpf, "EXECS")?,
            forks: maps::ring(&mut self.ebpf, "FORKS")?,
            cgroups: maps::ring(&mut self.ebpf, "CGROUPS")?,
            old_cgroups: sys::root_cgroup().map(|root| cgroups(&root)).unwrap_or_default(),
            namespace,
        })
    }

    /// What the programs at the sockets have counted.
    pub fn owner_counters(&self) -> Result<OwnerCounters, Error> {
        let name = "OWNER_COUNTERS";
        let failed = |e| Error::Map { act: "read", map: name, source: sys::map_error(&e) };
        let map = self.ebpf.map(name).ok_or(maps::absent(name))?;
        let map: Array<_, [u64; 3]> = Array::try_from(map).map_err(failed)?;
        let [lost, unkept, execs_lost] = map.get(&0, 0).map_err(failed)?;
        Ok(OwnerCounters { lost, unkept, execs_lost })
    }
}
