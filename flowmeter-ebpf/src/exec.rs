//! Which program does a process run?
//!
//! Told when it begins to, as many a process is gone before anybody can ask: when it is forked, with
//! the program of whoever made it, and when it begins another one. And where it does, as containers
//! are cgroups, many of which have one process only.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_probe_read_kernel_str, bpf_probe_read_user,
};
use flowmeter_common::owner::{CgroupEvent, ExecEvent, ForkEvent, MAX_ARGS, MAX_CGROUP, MAX_PATH};

use crate::clock;
use crate::maps::{
    BPRM_INTERP, CGROUP_NODE, CGROUP_ROOT, CGROUPS, EXECS, FILE_INODE, FORKS, INODE_LINKS,
    INODE_NUMBER, INODE_SUPER, MM_ARG_END, MM_ARG_START, MM_EXE, NODE_ID, ROOT_HIERARCHY,
    SUPER_DEVICE, TASK_COMM, TASK_LEADER, TASK_MM, TASK_PARENT, TASK_START, TASK_TGID,
};
use crate::owner::{count, exec_id, field, ids, read};
use crate::packet::opaque;
use crate::pids::shown;

/// The running task runs another program from now on.
///
/// # Safety
/// The arguments must be the task and the `struct linux_binprm` that the kernel has handed to the
/// tracepoint `sched_process_exec`.
#[inline(always)]
pub unsafe fn executed(task: *mut c_void, program: *mut c_void) {
    if TASK_MM.load() == 0 {
        return;
    }
    let Some(mut entry) = EXECS.reserve_untyped::<ExecEvent>(0) else {
        count(|counters| &raw mut counters.execs_lost);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the event is this program's until it is submitted; of the texts only what is written
    // counts. The caller vouches for the structs, and the helpers check what they read.
    unsafe {
        let parent: *mut c_void = field(task, TASK_PARENT.load());
        (*event).time_ns = clock::now();
        (*event).start_ns = field(task, TASK_START.load());
        (*event).pid = shown(task, (bpf_get_current_pid_tgid() >> 32) as u32);
        (*event).parent = shown(parent, field(parent, TASK_TGID.load()));
        (*event).exec_id = exec_id(task);
        (*event).ids = ids(task);
        (*event).reserved = 0;
        (*event).inode = 0;
        (*event).device = 0;
        (*event).links = 0;
        let path: u64 = field(program, BPRM_INTERP.load());
        let room = (&raw mut (*event).path).cast::<c_void>();
        let told = bpf_probe_read_kernel_str(room, MAX_PATH as u32, path as *const c_void);
        (*event).path_bytes = if told > 0 { told as u32 } else { 0 };
        let memory: *mut c_void = field(task, TASK_MM.load());
        if MM_EXE.load() != 0 && FILE_INODE.load() != 0 && SUPER_DEVICE.load() != 0 {
            let file: u64 = read(memory, MM_EXE.load());
            let inode: u64 = read(file as *const c_void, FILE_INODE.load());
            let inode = inode as *const c_void;
            let on: u64 = read(inode, INODE_SUPER.load());
            (*event).inode = read(inode, INODE_NUMBER.load());
            (*event).links = read(inode, INODE_LINKS.load());
            (*event).device = read(on as *const c_void, SUPER_DEVICE.load());
        }
        let start: u64 = field(memory, MM_ARG_START.load());
        let end: u64 = field(memory, MM_ARG_END.load());
        let mut bytes = opaque(end.wrapping_sub(start));
        if bytes > MAX_ARGS as u64 {
            bytes = MAX_ARGS as u64;
        }
        let room = (&raw mut (*event).args).cast::<c_void>();
        let failed = bpf_probe_read_user(room, bytes as u32, start as *const c_void);
        (*event).args_bytes = if failed == 0 { bytes as u32 } else { 0 };
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// A task has made another one.
///
/// # Safety
/// The arguments must be the tasks that the kernel has handed to the tracepoint
/// `sched_process_fork`.
#[inline(always)]
pub unsafe fn forked(maker: *mut c_void, child: *mut c_void) {
    if TASK_LEADER.load() == 0 {
        return;
    }
    // SAFETY: the caller vouches for the tasks.
    let (leader, maker): (*mut c_void, *mut c_void) =
        unsafe { (field(child, TASK_LEADER.load()), field(maker, TASK_LEADER.load())) };
    if leader != child {
        return; // a thread
    }
    let Some(mut entry) = FORKS.reserve_untyped::<ForkEvent>(0) else {
        count(|counters| &raw mut counters.execs_lost);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the event is this program's until it is submitted. The caller vouches for the tasks.
    unsafe {
        (*event).start_ns = field(child, TASK_START.load());
        (*event).maker_start_ns = field(maker, TASK_START.load());
        (*event).exec_id = exec_id(child);
        (*event).pid = shown(child, field(child, TASK_TGID.load()));
        (*event).maker = shown(maker, field(maker, TASK_TGID.load()));
        (*event).name = read(maker, TASK_COMM.load());
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// A cgroup was made.
///
/// # Safety
/// The arguments must be the `struct cgroup` and its path that the kernel has handed to the
/// tracepoint `cgroup_mkdir`.
#[inline(always)]
pub unsafe fn cgroup_made(cgroup: *mut c_void, path: *const c_void) {
    if CGROUP_ROOT.load() == 0 || CGROUP_NODE.load() == 0 {
        return;
    }
    let root: u64 = read(cgroup, CGROUP_ROOT.load());
    // The unified hierarchy's; others number theirs anew.
    if read::<u32>(root as *const c_void, ROOT_HIERARCHY.load()) != 0 {
        return;
    }
    let Some(mut entry) = CGROUPS.reserve_untyped::<CgroupEvent>(0) else {
        count(|counters| &raw mut counters.execs_lost);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the event is this program's until it is submitted; of the path only what is written
    // counts. The helpers check what they read.
    unsafe {
        let node: u64 = read(cgroup, CGROUP_NODE.load());
        (*event).id = read(node as *const c_void, NODE_ID.load());
        let room = (&raw mut (*event).path).cast::<c_void>();
        let told = bpf_probe_read_kernel_str(room, MAX_CGROUP as u32, path);
        (*event).path_bytes = if told > 0 { told as u64 } else { 0 };
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
