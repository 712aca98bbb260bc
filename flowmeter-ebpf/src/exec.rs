//! Which program does a process run?
//!
//! Told when it begins to, as many a process is gone before anybody can ask.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_probe_read_kernel_str, bpf_probe_read_user,
};
use flowmeter_common::owner::{ExecEvent, MAX_ARGS, MAX_PATH};

use crate::clock;
use crate::maps::{
    BPRM_INTERP, EXECS, MM_ARG_END, MM_ARG_START, TASK_MM, TASK_PARENT, TASK_START, TASK_TGID,
};
use crate::owner::{count, exec_id, field, ids};
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
        let path: u64 = field(program, BPRM_INTERP.load());
        let room = (&raw mut (*event).path).cast::<c_void>();
        let read = bpf_probe_read_kernel_str(room, MAX_PATH as u32, path as *const c_void);
        (*event).path_bytes = if read > 0 { read as u32 } else { 0 };
        let memory: *mut c_void = field(task, TASK_MM.load());
        let start: u64 = field(memory, MM_ARG_START.load());
        let end: u64 = field(memory, MM_ARG_END.load());
        let mut bytes = opaque(end.wrapping_sub(start));
        if bytes > MAX_ARGS as u64 {
            bytes = MAX_ARGS as u64;
        }
        let room = (&raw mut (*event).args).cast::<c_void>();
        let read = bpf_probe_read_user(room, bytes as u32, start as *const c_void);
        (*event).args_bytes = if read == 0 { bytes as u32 } else { 0 };
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
