//! Which system calls does aya lack?

#![expect(unsafe_code, reason = "system calls")]

use std::error::Error;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::thread;

use aya::maps::MapError;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use zerocopy::FromBytes;

/// The batch commands' part of `union bpf_attr` (Linux, `include/uapi/linux/bpf.h`).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The element commands' part of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const BPF_MAP_LOOKUP_ELEM: u32 = 1;
const BPF_MAP_DELETE_ELEM: u32 = 3;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: u32 = 21;
const BPF_MAP_LOOKUP_BATCH: u32 = 24;
/// The kernel's own error number for a command that a map's type does not have.
const ENOTSUPP: i32 = 524;
/// Reads the value under its spin lock.
const BPF_F_LOCK: u64 = 4;

/// The folder of all processes' cgroup (v2). Mounted for this descriptor alone, as it need not be
/// mounted anywhere and need not be seen from here; or where it is mounted, for whoever may not.
pub fn root_cgroup() -> io::Result<OwnedFd> {
    own_cgroup_mount().or_else(|e| {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        // Device, folder, type (fstab(5)); spaces in the folder are written as `\040`, and the crate
        // procfs leaves them so.
        let mut fields = mounts.lines().map(|line| line.split(' '));
        let folder = fields.find_map(|mut fields| {
            let folder = fields.nth(1)?;
            (fields.next() == Some("cgroup2")).then(|| folder.replace("\\040", " "))
        });
        Ok(std::fs::File::open(folder.ok_or(e)?)?.into())
    })
}

fn own_cgroup_mount() -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    // SAFETY: the name is a C string.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"cgroup2".as_ptr(), FSOPEN_CLOEXEC) };
    let context = descriptor(context)?;
    let (none, fd) = (std::ptr::null::<u8>(), context.as_raw_fd());
    // SAFETY: this command takes neither key nor value.
    let made = unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, none, none, 0) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call takes numbers alone.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, 0) })
}

/// A descriptor that a system call has made.
fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: it is new, so nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How far a batch got.
pub enum Batch {
    /// This many elements; there are more.
    More(usize),
    /// This many elements, and the map has no more.
    End(usize),
}

/// Reads up to `count` elements of a hash map under their locks, from `cursor` on (`None` is the
/// start), and moves the cursor. `keys` and `values` have room for `count` elements.
pub fn lookup_batch<K: FromBytes, V: FromBytes>(
    map: BorrowedFd<'_>,
    cursor: &mut Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<Batch> {
    let mut next = 0u32;
    let from = *cursor;
    let mut attr = BatchAttr {
        in_batch: from.as_ref().map_or(0, |c| &raw const *c as u64),
        out_batch: &raw mut next as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map_fd: map.as_raw_fd().cast_unsigned(),
        elem_flags: BPF_F_LOCK,
        flags: 0,
    };
    // SAFETY: `attr` is laid out as the command wants it, and keys and values have room for
    // `count` elements and take any bytes.
    let failed = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) };
    let count = attr.count as usize;
    match failed {
        Ok(()) => {
            *cursor = Some(next);
            Ok(Batch::More(count))
        }
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
            *cursor = None;
            Ok(Batch::End(count))
        }
        Err(e) => Err(e),
    }
}

/// Takes an element out of a hash map; `None` if it has none with this key. Nobody may write to the
/// element meanwhile: before Linux 5.14 this takes two calls.
pub fn take_element<K, V: FromBytes>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    match element(BPF_MAP_LOOKUP_AND_DELETE_ELEM, map, key) {
        Err(e) if e.raw_os_error() == Some(ENOTSUPP) => {}
        taken => return taken,
    }
    let found = element(BPF_MAP_LOOKUP_ELEM, map, key)?;
    if found.is_some() {
        element::<K, V>(BPF_MAP_DELETE_ELEM, map, key)?;
    }
    Ok(found)
}

/// What commands on an element leave of it in the value: `None` if there is none with this key.
fn element<K, V: FromBytes>(command: u32, map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::new_zeroed();
    let has_value = command != BPF_MAP_DELETE_ELEM;
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        reserved: 0,
        key: &raw const *key as u64,
        value: if has_value { &raw mut value as u64 } else { 0 },
        flags: 0,
    };
    // SAFETY: `attr` is laid out as the command wants it; key and value are of the map's types.
    match unsafe { bpf(command, &mut attr) } {
        Ok(()) => Ok(Some(value)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// `bpf(2)`.
///
/// # Safety
/// `attr` must be what the command takes.
unsafe fn bpf<T>(command: u32, attr: &mut T) -> io::Result<()> {
    // SAFETY: the caller vouches for `attr`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Nanoseconds on a clock.
fn clock_ns(clock: libc::clockid_t) -> i64 {
    // SAFETY: a timespec is plain data.
    let mut time: libc::timespec = unsafe { zeroed() };
    // SAFETY: `time` is valid for writes. The clocks asked for exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// The wall clock; ns since the epoch.
pub fn realtime_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME).cast_unsigned()
}

/// The time since boot, sleep included, as this process is shown it; ns.
pub fn boottime_ns() -> i64 {
    clock_ns(libc::CLOCK_BOOTTIME)
}

/// The number of the calling thread's network namespace, which no other ever has.
pub fn netns_cookie() -> io::Result<u64> {
    /// Linux, `include/uapi/asm-generic/socket.h`; libc has it for some platforms only.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    // Any socket will do; one of these every sandbox lets be made.
    socket_number(&UnixDatagram::unbound()?, SO_NETNS_COOKIE)
}

/// The number of another network namespace, likewise. Needs `CAP_SYS_ADMIN`.
pub fn netns_cookie_of(namespace: BorrowedFd<'_>) -> io::Result<u64> {
    // By a thread that goes there and ends.
    let ask = || {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace, kind).map_err(io::Error::from)?;
        netns_cookie()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, ask)?;
        thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })
}

/// The cookie of a socket of IPv4 that is made and let go of.
pub fn new_socket_cookie() -> io::Result<u64> {
    // Bound to a port of the kernel's choice, on the loopback.
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    socket_number(&socket, libc::SO_COOKIE)
}

/// An option of a socket that is a number of 64 bits.
fn socket_number(socket: &impl AsRawFd, option: libc::c_int) -> io::Result<u64> {
    let mut number = 0_u64;
    let mut length = size_of::<u64>() as u32;
    let to = (&raw mut number).cast();
    let fd = socket.as_raw_fd();
    // SAFETY: the option is written to `number`, whose size is said.
    let failed = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, to, &raw mut length) };
    if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}

/// A socket that receives nothing and holds the interface in promiscuous mode while it is open.
pub fn promiscuous(interface: u32) -> io::Result<OwnedFd> {
    // SAFETY: has no preconditions.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was opened above and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a packet_mreq is plain data.
    let mut request: libc::packet_mreq = unsafe { zeroed() };
    request.mr_ifindex = interface.cast_signed();
    request.mr_type = libc::PACKET_MR_PROMISC as u16;
    // SAFETY: the option takes a packet_mreq of that size.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            size_of::<libc::packet_mreq>() as u32,
        )
    };
    if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// The system's error number at the root of an error.
pub fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(e) = cause {
        if let Some(number) = e.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        if let Some(number) = of_program(e) {
            return Some(number);
        }
        cause = e.source();
    }
    None
}

/// aya does not give every error its source.
fn of_program(error: &(dyn Error + 'static)) -> Option<i32> {
    use aya::programs::ProgramError;
    match error.downcast_ref::<ProgramError>()? {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(e) => e.io_error.raw_os_error(),
        _ => None,
    }
}

/// Whether the process lacks the capability for what failed.
pub fn is_permission(error: &(dyn Error + 'static)) -> bool {
    matches!(os_error(error), Some(libc::EPERM | libc::EACCES))
}

/// An error's last cause, in a line.
pub fn message(error: &(dyn Error + 'static)) -> String {
    if let Some(number) = os_error(error) {
        return io::Error::from_raw_os_error(number).to_string();
    }
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// A map error as an input/output error.
pub fn map_error(error: &MapError) -> io::Error {
    match os_error(error) {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::other(error.to_string()),
    }
}
