//! Whose sockets are there?
//!
//! Told from the process's own context while it lives: when it makes a socket, binds it, and sends
//! or receives by it for the first time or after another process. The flows know their sockets by
//! cookie.

use core::arch::asm;
use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{
    BPF_RB_NO_WAKEUP, BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, bpf_sock,
    bpf_sock_addr, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_get_current_task, bpf_get_current_task_btf, bpf_get_current_uid_gid, bpf_get_netns_cookie,
    bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_sk_storage_get,
};
use flowmeter_common::owner::{
    BEGUN, BOUND, CREATED, HELD, Ids, OwnerCounters, OwnerEvent, RELEASED,
};
use flowmeter_common::packet::ipv4_address;
use flowmeter_common::packet::protocol::UDP;

use crate::clock;
use crate::maps::{
    CRED_EGID, CRED_EUID, NET_COOKIE, OWNER_COUNTERS, OWNERS, SOCK_ADDRESS, SOCK_ADDRESS6,
    SOCK_COOKIE, SOCK_FAMILY, SOCK_NET, SOCK_PEER, SOCK_PEER_PORT, SOCK_PEER6, SOCK_PORT,
    SOCK_PROTOCOL, SOCKET_SOCK, TASK_COMM, TASK_CRED, TASK_EXEC_ID, TASK_FLAGS, TASK_LEADER,
    TASK_LOGIN, TASK_PARENT, TASK_START, TASK_TGID,
};

use crate::pids::shown;
use crate::users::{self, User};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_PACKET: u16 = 17;
/// Of a task's flags (Linux, `include/linux/sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;

/// What is kept of a socket that was bound or has taken datagrams.
#[repr(C)]
pub struct Kept {
    /// Who took a datagram last, the thread group; 0 if nobody yet.
    pub hearer: u32,
    /// Who bound it, the thread group; 0 if nobody.
    pub binder: u32,
    /// Of a socket for datagrams: [`Kept::ALONE`], [`Kept::SHARED`], or 0 if not known yet.
    pub is_alone: u32,
}

impl Kept {
    /// One process has the socket, and the socket has its port, alone.
    pub const ALONE: u32 = 1;
    /// Several processes have the socket, or several sockets its port.
    pub const SHARED: u32 = 2;
}

/// Socket storage, which aya has no type for. Its pointers' types say what it is: 24 is
/// `BPF_MAP_TYPE_SK_STORAGE`, the flag `BPF_F_NO_PREALLOC`.
#[repr(C)]
pub struct SocketStorage {
    r#type: *const [i32; 24],
    key: *const i32,
    value: *const Kept,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 1],
}

// SAFETY: the pointers are never followed; the loader reads their types.
unsafe impl Sync for SocketStorage {}

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "SOCKETS")]
static SOCKETS: SocketStorage = SocketStorage {
    r#type: ptr::null(),
    key: ptr::null(),
    value: ptr::null(),
    max_entries: ptr::null(),
    map_flags: ptr::null(),
};

/// A process makes a socket.
///
/// # Safety
/// `sock` must be the context of a cgroup program.
#[inline(always)]
pub unsafe fn created(sock: *mut bpf_sock) {
    // SAFETY: the caller vouches for `sock`.
    let (family, protocol) = unsafe { ((*sock).family as u16, (*sock).protocol as u8) };
    if family != AF_INET && family != AF_INET6 {
        return;
    }
    let cookie = cookie_of(sock);
    let mut user = None;
    emit(cookie, CREATED, |event| {
        // SAFETY: has no preconditions.
        let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
        user = Some(User::new(pid, event.start_ns, event.exec_id));
        event.netns = namespace(sock.cast());
        event.protocol = protocol;
        event.ip_version = version(family);
        Some(())
    });
    // That it connects the socket too need not be told.
    if let Some(user) = user {
        users::set_last(cookie, user.holding());
    }
}

/// A process has bound a socket.
///
/// # Safety
/// `sock` must be the context of a cgroup program at `post_bind4` or `post_bind6`.
#[inline(always)]
pub unsafe fn bound(sock: *mut bpf_sock, ip_version: u8) {
    match kept(sock.cast()) {
        // SAFETY: has no preconditions.
        Some(kept) => kept.binder = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32,
        None => unkept(),
    }
    emit(cookie_of(sock), BOUND, |event| {
        event.netns = namespace(sock.cast());
        // SAFETY: the caller vouches for `sock`.
        let sock = unsafe { &*sock };
        event.protocol = sock.protocol as u8;
        event.ip_version = ip_version;
        event.local_port = sock.src_port as u16;
        event.local = if ip_version == 4 {
            ipv4_address(sock.src_ip4.to_ne_bytes())
        } else {
            let [a, b, c, d] = sock.src_ip6;
            [join(a, b), join(c, d)]
        };
        Some(())
    });
}

/// The last descriptor of a socket is closed.
///
/// # Safety
/// `sock` must be the context of a cgroup program.
#[inline(always)]
pub unsafe fn released(sock: *mut bpf_sock) {
    emit(cookie_of(sock), RELEASED, |_| Some(()));
}

/// A process has sent or received by a socket of any family, as `kind` says; [`HELD`] if it has only
/// looked.
///
/// # Safety
/// `sock` must be a `struct sock` that the kernel has handed to a tracing program.
#[inline(always)]
pub unsafe fn used(sock: *mut c_void, kind: u8) {
    let user = running();
    // SAFETY: the caller vouches for `sock`.
    let cookie = unsafe { field(sock, SOCK_COOKIE.load()) };
    if users::is_last(cookie, user) || kind == HELD && users::is_last(cookie, user.holding()) {
        return;
    }
    // SAFETY: the caller vouches for `sock`.
    let family: u16 = unsafe { field(sock, SOCK_FAMILY.load()) };
    if family != AF_INET && family != AF_INET6 && family != AF_PACKET {
        return;
    }
    // SAFETY: as above. This gives the socket a cookie if it has none.
    let cookie = unsafe { bpf_get_socket_cookie(sock) };
    // SAFETY: as above.
    unsafe { tell_use(sock, cookie, family, kind, user) };
}

/// A process is about to send a datagram by a socket that is not connected to its peer.
///
/// # Safety
/// `ctx` must be the context of a cgroup program at `sendmsg4` or `sendmsg6`.
#[inline(always)]
pub unsafe fn sends(ctx: *mut bpf_sock_addr) {
    // SAFETY: the caller vouches for `ctx`.
    let sock: *mut bpf_sock = unsafe { (*ctx).__bindgen_anon_1.sk };
    // SAFETY: as above.
    let (user, cookie) = (running(), unsafe { bpf_get_socket_cookie(ctx.cast()) });
    if sock.is_null() || users::is_last(cookie, user) {
        return;
    }
    let is_told = emit(cookie, BEGUN, |event| {
        event.netns = namespace(ctx.cast());
        // SAFETY: the context's socket, which is not null.
        let sock = unsafe { &*sock };
        event.protocol = sock.protocol as u8;
        event.ip_version = version(sock.family as u16);
        event.local_port = sock.src_port as u16;
        event.remote_port = u16::from_be(sock.dst_port);
        if event.ip_version == 4 {
            event.local = ipv4_address(sock.src_ip4.to_ne_bytes());
            event.remote = ipv4_address(sock.dst_ip4.to_ne_bytes());
        } else {
            let ([a, b, c, d], [e, f, g, h]) = (sock.src_ip6, sock.dst_ip6);
            event.local = [join(a, b), join(c, d)];
            event.remote = [join(e, f), join(g, h)];
        }
        Some(())
    });
    if is_told {
        users::set_last(cookie, user);
    }
}

/// A process is about to connect a socket. One for datagrams has another peer from now on.
///
/// # Safety
/// `ctx` must be the context of a cgroup program at `connect4` or `connect6`.
#[inline(always)]
pub unsafe fn connects(ctx: *mut bpf_sock_addr) {
    // SAFETY: the caller vouches for `ctx`.
    let (user, cookie) = (running(), unsafe { bpf_get_socket_cookie(ctx.cast()) });
    if users::is_last(cookie, user) || users::is_last(cookie, user.holding()) {
        return;
    }
    // SAFETY: as above.
    let protocol = unsafe { (*ctx).protocol as u8 };
    let kind = if protocol == UDP { BEGUN } else { HELD };
    // Told of again when it has sent: then there are addresses.
    let is_told = emit(cookie, kind, |event| {
        event.netns = namespace(ctx.cast());
        Some(())
    });
    if is_told {
        users::set_last(cookie, user.holding());
    }
}

/// A process begins to send or receive by a socket of IPv4 or IPv6, as `kind` says. Stands in for
/// [`used`] before Linux 6.3.
///
/// # Safety
/// `socket` must be a `struct socket` that the kernel has handed to a tracing program.
#[inline(always)]
pub unsafe fn entered(socket: *mut c_void, kind: u8) {
    // SAFETY: the caller vouches for `socket`.
    let sock = unsafe { sock_of(socket) };
    // SAFETY: has no preconditions.
    let task = unsafe { bpf_get_current_task() } as *const c_void;
    // SAFETY: has no preconditions. When it started would be three calls more.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    let user = User::new(pid, 0, exec_id(task));
    // SAFETY: as above. Those that a process makes have a cookie by then, as `created` asks for it,
    // and so have connections, see `connected`. Programs here cannot ask before Linux 5.12.
    let cookie: u64 = unsafe { field(sock, SOCK_COOKIE.load()) };
    if cookie == 0
        || users::is_last(cookie, user)
        || kind == HELD && users::is_last(cookie, user.holding())
    {
        return;
    }
    // SAFETY: as above.
    let family: u16 = unsafe { field(sock, SOCK_FAMILY.load()) };
    if family == AF_INET || family == AF_INET6 {
        // SAFETY: as above.
        unsafe { tell_use(sock, cookie, family, kind, user) };
    }
}

/// The `struct sock` of a `struct socket`.
///
/// # Safety
/// `socket` must be one that the kernel has handed to a tracing program.
#[inline(always)]
pub unsafe fn sock_of(socket: *const c_void) -> *mut c_void {
    // SAFETY: the caller vouches for it.
    unsafe { field(socket, SOCKET_SOCK.load()) }
}

/// A connection has come about, in no process's context: its socket gets a cookie.
///
/// # Safety
/// `ops` must be the context of a program at the sockets' operations.
#[inline(always)]
pub unsafe fn connected(ops: *mut bpf_sock_ops) {
    // SAFETY: the caller vouches for `ops`.
    if unsafe { (*ops).op } == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        // SAFETY: as above.
        unsafe { bpf_get_socket_cookie(ops.cast()) };
    }
}

/// The program that runs. The verifier knows the type of its task since Linux 5.11.
#[inline(always)]
fn running() -> User {
    if TASK_LEADER.load() == 0 {
        // SAFETY: has no preconditions.
        return User::new((unsafe { bpf_get_current_pid_tgid() } >> 32) as u32, 0, 0);
    }
    // SAFETY: has no preconditions; the task is what it is said to be.
    unsafe {
        let task = bpf_get_current_task_btf() as *const c_void;
        let leader: *const c_void = field(task, TASK_LEADER.load());
        let exec_id = if TASK_EXEC_ID.load() == 0 { 0 } else { field(task, TASK_EXEC_ID.load()) };
        User::new(field(task, TASK_TGID.load()), field(leader, TASK_START.load()), exec_id)
    }
}

/// Tells that the program uses the socket, and notes it.
///
/// # Safety
/// As for [`used`].
#[inline(always)]
unsafe fn tell_use(sock: *mut c_void, cookie: u64, family: u16, kind: u8, user: User) {
    let is_told = emit(cookie, kind, |event| {
        if family == AF_PACKET {
            return None; // there are no addresses
        }
        event.ip_version = version(family);
        // SAFETY: the caller vouches for `sock`.
        unsafe {
            if NET_COOKIE.load() != 0 {
                let net: *mut c_void = field(sock, SOCK_NET.load());
                event.netns = field(net, NET_COOKIE.load());
            }
            event.protocol = field::<u16>(sock, SOCK_PROTOCOL.load()) as u8;
            event.local_port = field(sock, SOCK_PORT.load());
            event.remote_port = u16::from_be(field(sock, SOCK_PEER_PORT.load()));
        }
        if family == AF_INET {
            // SAFETY: as above.
            let [local, remote]: [u32; 2] =
                unsafe { [field(sock, SOCK_ADDRESS.load()), field(sock, SOCK_PEER.load())] };
            event.local = ipv4_address(local.to_ne_bytes());
            event.remote = ipv4_address(remote.to_ne_bytes());
        } else {
            event.local = read(sock, SOCK_ADDRESS6.load());
            event.remote = read(sock, SOCK_PEER6.load());
        }
        Some(())
    });
    // Otherwise it is told of at the next call.
    if is_told {
        users::set_last(cookie, if kind == HELD { user.holding() } else { user });
    }
}

/// The cookie of a cgroup program's socket.
#[inline(always)]
fn cookie_of(sock: *mut bpf_sock) -> u64 {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_get_socket_cookie(sock.cast()) }
}

/// The network namespace of a cgroup program's socket.
#[inline(always)]
pub fn namespace(ctx: *mut c_void) -> u64 {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_get_netns_cookie(ctx) }
}

#[inline(always)]
fn version(family: u16) -> u8 {
    if family == AF_INET6 { 6 } else { 4 }
}

#[inline(always)]
pub fn join(low: u32, high: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (low.to_ne_bytes(), high.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// What is kept of a socket; it is made if it is not there.
#[inline(always)]
pub fn kept(sock: *mut c_void) -> Option<&'static mut Kept> {
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: the map and the socket are the kernel's; a null value means zeroes. What is returned
    // lives as long as the socket, which the context holds. Another CPU may write it meanwhile:
    // then two processes use the socket at once, and either is right.
    unsafe { bpf_sk_storage_get(map, sock, ptr::null_mut(), flags).cast::<Kept>().as_mut() }
}

/// Sends an event of a socket and the process that runs; false if there is no room, or the kernel
/// itself runs: its threads connect the further ways of MPTCP, send what processes have asked
/// io_uring for (before Linux 5.12), and are nobody's process.
#[inline(always)]
pub fn emit(cookie: u64, kind: u8, fill: impl FnOnce(&mut OwnerEvent) -> Option<()>) -> bool {
    // Who closes a socket need not have used it, and nobody asks.
    if kind != RELEASED && is_kernels() {
        return false;
    }
    let Some(mut entry) = OWNERS.reserve_untyped::<OwnerEvent>(0) else {
        count(|counters| &raw mut counters.lost);
        return false;
    };
    // SAFETY: the event is this program's until it is submitted, and zeroed before it is used.
    let event = unsafe {
        entry.as_mut_ptr().write(OwnerEvent::default());
        &mut *entry.as_mut_ptr()
    };
    event.kind = kind;
    event.cookie = cookie;
    event.time_ns = clock::now();
    event.lost = OWNER_COUNTERS.get(0).map_or(0, |counters| counters.lost);
    if kind != RELEASED {
        tell_process(event);
    }
    fill(event);
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    true
}

/// The process that runs.
#[inline(always)]
fn tell_process(event: &mut OwnerEvent) {
    // SAFETY: has no preconditions, and the name has the room that is said.
    unsafe {
        event.cgroup = bpf_get_current_cgroup_id();
        let first = (bpf_get_current_pid_tgid() >> 32) as u32;
        event.pid = shown(bpf_get_current_task() as *const c_void, first);
        bpf_get_current_comm(event.thread.as_mut_ptr().cast(), event.thread.len() as u32);
    }
    event.name = event.thread;
    if TASK_LEADER.load() != 0 {
        // SAFETY: has no preconditions. Its kin that the verifier knows the type of came with 5.11.
        let task = unsafe { bpf_get_current_task() };
        event.exec_id = exec_id(task as *const c_void);
        event.ids = ids(task as *const c_void);
        let leader: u64 = read(task as *const c_void, TASK_LEADER.load());
        let parent: u64 = read(leader as *const c_void, TASK_PARENT.load());
        event.start_ns = read(leader as *const c_void, TASK_START.load());
        let first = read(parent as *const c_void, TASK_TGID.load());
        event.parent = shown(parent as *const c_void, first);
        if leader != task {
            event.name = read(leader as *const c_void, TASK_COMM.load());
        }
    }
}

/// Whether a thread of the kernel's own runs.
#[inline(always)]
fn is_kernels() -> bool {
    // SAFETY: has no preconditions.
    let task = unsafe { bpf_get_current_task() } as *const c_void;
    TASK_FLAGS.load() != 0 && read::<u32>(task, TASK_FLAGS.load()) & PF_KTHREAD != 0
}

/// Which of its programs the task runs; 0 if unknown.
#[inline(always)]
pub fn exec_id(task: *const c_void) -> u64 {
    if TASK_EXEC_ID.load() == 0 { 0 } else { read(task, TASK_EXEC_ID.load()) }
}

/// Whose the running task is.
#[inline(always)]
pub fn ids(task: *const c_void) -> Ids {
    // SAFETY: has no preconditions.
    let real = unsafe { bpf_get_current_uid_gid() };
    let mut ids = Ids { real_uid: real as u32, real_gid: (real >> 32) as u32, ..Ids::default() };
    if TASK_CRED.load() != 0 && CRED_EUID.load() != 0 && CRED_EGID.load() != 0 {
        let cred: u64 = read(task, TASK_CRED.load());
        ids.uid = read(cred as *const c_void, CRED_EUID.load());
        ids.gid = read(cred as *const c_void, CRED_EGID.load());
    }
    if TASK_LOGIN.load() != 0 {
        ids.login_uid = read(task, TASK_LOGIN.load());
    }
    ids
}

/// A field of a kernel struct whose type the verifier knows: it looks whether there is a field of
/// that size, and the kernel makes it zero if it cannot be read. As fast as any load, while
/// [`read`] is a call.
///
/// # Safety
/// `base` must be what the verifier takes for a pointer to a kernel struct.
#[inline(always)]
pub unsafe fn field<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: the caller vouches for `base`; volatile, so that loads are not merged into others
    // than the verifier allows.
    unsafe { ptr::read_volatile(base.byte_add(offset as usize).cast()) }
}

/// A field of a kernel struct; zeroes if it cannot be read.
#[inline(always)]
pub fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the helper checks the address it reads from, and writes a value's size. Only integers
    // and arrays of them are read, of which any bytes are one.
    unsafe {
        let from = base.cast::<u8>().add(offset as usize).cast();
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
        value.assume_init()
    }
}

/// Counts a socket that found no memory for what is kept of it.
#[inline(always)]
pub fn unkept() {
    count(|counters| &raw mut counters.unkept);
}

#[inline(always)]
pub fn count(which: impl FnOnce(&mut OwnerCounters) -> *mut u64) {
    if let Some(counters) = OWNER_COUNTERS.get_ptr_mut(0) {
        // SAFETY: the pointer is to a counter in the map, aligned; an atomic addition is what other
        // CPUs that count at the same time do too.
        unsafe {
            let counter = which(&mut *counters);
            asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64);
        }
    }
}
