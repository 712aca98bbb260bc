//! How does the kernel tell whose sockets there are?
//!
//! By programs at the sockets of all processes: in the root cgroup and at tracepoints. They are
//! gone with the process.

use std::os::fd::OwnedFd;

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::{CgroupAttachMode, Program, ProgramError};
use aya::{Btf, Ebpf};
use flowmeter_common::owner::{ExecEvent, OwnerCounters, OwnerEvent};
use zerocopy::FromBytes;

use super::{Error, Kernel, maps, sys};

/// A hook at which sockets are seen, and why if it could not be used.
#[derive(Clone, Debug)]
pub struct SocketHook {
    /// Its name.
    pub name: &'static str,
    /// None if it works.
    pub failed: Option<String>,
}

/// Programs, the hooks' names, and the tracepoints of those that are at one.
const PROGRAMS: [(&str, &str, Option<&str>); 9] = [
    ("flowmeter_socket", "cgroup/sock_create", None),
    ("flowmeter_bind4", "cgroup/post_bind4", None),
    ("flowmeter_bind6", "cgroup/post_bind6", None),
    ("flowmeter_release", "cgroup/sock_release", None),
    ("flowmeter_heard4", "cgroup/recvmsg4", None),
    ("flowmeter_heard6", "cgroup/recvmsg6", None),
    ("flowmeter_send", "tp_btf/sock_send_length", Some("sock_send_length")),
    ("flowmeter_receive", "tp_btf/sock_recv_length", Some("sock_recv_length")),
    ("flowmeter_exec", "tp_btf/sched_process_exec", Some("sched_process_exec")),
];

/// Attaches the programs, as many as can be.
pub(super) fn attach(ebpf: &mut Ebpf) -> Vec<SocketHook> {
    let cgroup = sys::root_cgroup();
    let btf = Btf::from_sys_fs();
    let mut hooks = Vec::new();
    for (program, name, tracepoint) in PROGRAMS {
        let result = match ebpf.program_mut(program) {
            None => Err("not in the object".to_owned()),
            Some(program) => match (&cgroup, &btf) {
                (Err(e), _) if tracepoint.is_none() => Err(format!("no cgroup2: {e}")),
                (_, Err(e)) if tracepoint.is_some() => Err(e.to_string()),
                (cgroup, btf) => {
                    let to = (cgroup.as_ref().ok(), btf.as_ref().ok());
                    attach_one(program, to, tracepoint).map_err(|e| sys::message(&e))
                }
            },
        };
        hooks.push(SocketHook { name, failed: result.err() });
    }
    hooks
}

fn attach_one(
    program: &mut Program,
    (cgroup, btf): (Option<&OwnedFd>, Option<&Btf>),
    tracepoint: Option<&str>,
) -> Result<(), ProgramError> {
    match (program, cgroup, btf, tracepoint) {
        (Program::CgroupSock(program), Some(cgroup), ..) => {
            program.load()?;
            // As a link, which others may have beside it; its flags must be none.
            program.attach(cgroup, CgroupAttachMode::Single)?;
            Ok(())
        }
        (Program::CgroupSockAddr(program), Some(cgroup), ..) => {
            program.load()?;
            program.attach(cgroup, CgroupAttachMode::Single)?;
            Ok(())
        }
        (Program::BtfTracePoint(program), _, Some(btf), Some(tracepoint)) => {
            program.load(tracepoint, btf)?;
            program.attach()?;
            Ok(())
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// The rings of what happens to sockets, and of the programs that processes run.
pub struct OwnerRing {
    sockets: RingBuf<MapData>,
    programs: RingBuf<MapData>,
}

impl OwnerRing {
    /// Takes the next event of a socket; false if there is none.
    pub fn next(&mut self, take: impl FnOnce(&OwnerEvent)) -> bool {
        next(&mut self.sockets, take)
    }

    /// Takes the next program; false if there is none. Once the sockets' events are taken, the
    /// programs of their processes are here.
    pub fn next_program(&mut self, take: impl FnOnce(&ExecEvent)) -> bool {
        next(&mut self.programs, take)
    }
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
        &self.socket_hooks
    }

    /// Takes the ring of what happens to sockets, once.
    pub fn owner_ring(&mut self) -> Result<OwnerRing, Error> {
        let sockets = maps::ring(&mut self.ebpf, "OWNERS")?;
        Ok(OwnerRing { sockets, programs: maps::ring(&mut self.ebpf, "EXECS")? })
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
