//! What may the dissecting process do?
//!
//! Compute, and read and write what it was given. It has another user, no capability, no file, no
//! network, no further process, and of the system calls those that memory and its socket need.
//! Each layer holds if another one fails.

#![expect(unsafe_code, reason = "system calls")]

use std::collections::BTreeMap;
use std::io;

use caps::{CapSet, Capability};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::dissect::User;

/// How much Landlock denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landlock {
    /// The kernel has none.
    Absent = 0,
    /// What this kernel's version knows.
    Partial = 1,
    /// All that is known of.
    Full = 2,
}

impl Landlock {
    /// From its number; any other is `Absent`.
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Partial,
            2 => Self::Full,
            _ => Self::Absent,
        }
    }
}

/// Descriptors the child keeps: its socket and the two outputs, which are `/dev/null`.
const DESCRIPTORS: libc::c_uint = 3;

/// Gives up all rights, for good. `memory` bounds the address space, in bytes.
///
/// In this order: what needs a right comes before it is gone, and a system call before the filter
/// that forbids it.
pub fn close(user: User, memory: u64) -> io::Result<Landlock> {
    // SAFETY: takes numbers; closes descriptors that this process does not know of.
    check(unsafe { libc::close_range(DESCRIPTORS, libc::c_uint::MAX, 0) })?;
    ignore_signals();
    drop_identity(user)?;
    // Not before: a change of user takes these two back.
    prctl(libc::PR_SET_DUMPABLE, 0)?;
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    let landlock = deny_files()?;
    limit(memory)?;
    for filter in filters()? {
        seccompiler::apply_filter(&filter).map_err(io::Error::other)?;
    }
    Ok(landlock)
}

/// The parent decides when it ends: by closing the socket.
fn ignore_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: to ignore a signal runs nothing.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn drop_identity(user: User) -> io::Result<()> {
    let has = caps::read(None, CapSet::Effective).map_err(io::Error::other)?;
    // Whoever lacks these, an ordinary user or a root without capabilities, has nothing to lose.
    if has.contains(&Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding).map_err(io::Error::other)?;
    }
    if has.contains(&Capability::CAP_SETUID) && has.contains(&Capability::CAP_SETGID) {
        // SAFETY: an empty list of groups.
        check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
        // SAFETY: takes numbers.
        check(unsafe { libc::setresgid(user.gid, user.gid, user.gid) })?;
        // SAFETY: takes numbers.
        check(unsafe { libc::setresuid(user.uid, user.uid, user.uid) })?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    Ok(())
}

fn deny_files() -> io::Result<Landlock> {
    let abi = ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(io::Error::other)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Landlock::Full,
        RulesetStatus::PartiallyEnforced => Landlock::Partial,
        RulesetStatus::NotEnforced => Landlock::Absent,
    })
}

fn limit(memory: u64) -> io::Result<()> {
    let limits = [
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_NPROC, 0),
        (libc::RLIMIT_AS, memory),
        (libc::RLIMIT_NOFILE, 0),
    ];
    for (resource, bound) in limits {
        let limit = libc::rlimit { rlim_cur: bound, rlim_max: bound };
        // SAFETY: `limit` is a live rlimit.
        check(unsafe { libc::setrlimit(resource, &raw const limit) })?;
    }
    Ok(())
}

/// Calls that are allowed whatever their arguments: memory, the socket, threads' ends, clocks.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Calls that are allowed unless they make memory executable; their third argument says so.
const WITHOUT_EXEC: &[libc::c_long] = &[libc::SYS_mmap, libc::SYS_mprotect];

/// Calls that fail with EACCES instead of killing: nDPI 5.0 opens `/proc/cpuinfo` when it first
/// needs it, and does without.
const DENIED: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_ioctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// The filters. The strictest answer of all holds: one knows what is denied, the other lets that
/// and what is allowed pass and kills for the rest.
fn filters() -> io::Result<[BpfProgram; 2]> {
    let is_executable = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64),
        0,
    );
    let without_exec = SeccompRule::new(vec![is_executable.map_err(io::Error::other)?]);
    let without_exec = without_exec.map_err(io::Error::other)?;
    let denied: BTreeMap<_, _> = DENIED.iter().map(|call| (*call, vec![])).collect();
    let mut allowed = denied.clone();
    allowed.extend(ALLOWED.iter().map(|call| (*call, vec![])));
    allowed.extend(WITHOUT_EXEC.iter().map(|call| (*call, vec![without_exec.clone()])));
    let compile = |rules, otherwise, then| {
        let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
        SeccompFilter::new(rules, otherwise, then, arch)
            .and_then(BpfProgram::try_from)
            .map_err(io::Error::other)
    };
    let deny = compile(denied, SeccompAction::Allow, SeccompAction::Errno(libc::EACCES as u32))?;
    let allow = compile(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?;
    // The first must not forbid to apply the second.
    Ok([deny, allow])
}

fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take numbers; unused arguments have to be 0.
    check(unsafe {
        libc::prctl(option, value, 0 as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong)
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
