//! What does the kernel report about sockets and their processes?

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::packet::Address;

/// A socket was made; the process is its maker. There is no address yet.
pub const CREATED: u8 = 1;
/// A socket was bound to an address of its process's choice.
pub const BOUND: u8 = 2;
/// A program has sent by a socket for the first time, or after another; the packets may have left
/// before.
pub const SENT: u8 = 3;
/// The last descriptor of a socket was closed.
pub const RELEASED: u8 = 4;
/// A process has taken a peer's datagram out of a socket that is not its alone, or whose port is
/// not. The local address is that of the datagram, unknown.
pub const HEARD: u8 = 5;
/// As [`SENT`], before a packet has left.
pub const BEGUN: u8 = 6;
/// As [`SENT`], but it has received.
pub const RECEIVED: u8 = 7;
/// A program has connected a socket, or looked at what there is to receive, and has neither sent nor
/// received by it so far.
pub const HELD: u8 = 8;

/// The numbers that say whose a process is, in the first user namespace; [`NO_ID`] if unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ids {
    /// Effective user: what the process is allowed to do.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Real user: who started it.
    pub real_uid: u32,
    /// Real group.
    pub real_gid: u32,
    /// Who logged in, however often changed since; [`NO_ID`] if nobody has.
    pub login_uid: u32,
}

/// No user or group, as `(uid_t)-1`.
pub const NO_ID: u32 = u32::MAX;

impl Ids {
    /// These, and others where these are not known.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        let or = |id, other| if id == NO_ID { other } else { id };
        Self {
            uid: or(self.uid, others.uid),
            gid: or(self.gid, others.gid),
            real_uid: or(self.real_uid, others.real_uid),
            real_gid: or(self.real_gid, others.real_gid),
            login_uid: or(self.login_uid, others.login_uid),
        }
    }

    /// One of the numbers, if it is known.
    pub fn known(id: u32) -> Option<u32> {
        (id != NO_ID).then_some(id)
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self { uid: NO_ID, gid: NO_ID, real_uid: NO_ID, real_gid: NO_ID, login_uid: NO_ID }
    }
}

/// An event in the ring of sockets, from the context of the process that it is about.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct OwnerEvent {
    /// The socket's number, which no other ever has (`SO_COOKIE`).
    pub cookie: u64,
    /// When it happened, by the meter's clock; ns since boot, sleep included.
    pub time_ns: u64,
    /// When the process started; ns since boot. 0 if the kernel's BTF does not tell where that is.
    pub start_ns: u64,
    /// Grows with each program that the process begins, and is its parent's before the first
    /// (Linux, `task_struct.self_exec_id`); 0 if the kernel's BTF does not tell where that is. With
    /// pid and start this is one program's alone.
    pub exec_id: u64,
    /// The process's cgroup (v2): the inode of its folder.
    pub cgroup: u64,
    /// The socket's network namespace, which need not be its process's (`SO_NETNS_COOKIE`); 0 if
    /// unknown.
    pub netns: u64,
    /// [`OwnerCounters::lost`] when it happened.
    pub lost: u64,
    /// The socket's address, as in [`crate::packet::Packet::src`]; zeros while there is none.
    pub local: Address,
    /// The peer's; zeros if the socket has none of its own.
    pub remote: Address,
    /// Thread group, in the pid namespace that procfs shows the meter; 0 if it has no number there.
    pub pid: u32,
    /// The thread group of its parent; 0 if unknown.
    pub parent: u32,
    /// Its users and groups.
    pub ids: Ids,
    /// Port, host byte order; 0 while there is none.
    pub local_port: u16,
    /// The peer's port; 0 if the socket has none of its own.
    pub remote_port: u16,
    /// IP protocol number; of raw sockets the one they take. A byte: MPTCP's sockets, which Linux
    /// numbers 262, have TCP's.
    pub protocol: u8,
    /// 4 or 6: the socket's family. A socket of IPv6 may carry IPv4.
    pub ip_version: u8,
    /// What happened: [`CREATED`], [`BOUND`] and so on.
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// The thread's name, at most 15 bytes and a zero.
    pub thread: [u8; 16],
    /// The name of the thread group's leader: the process's.
    pub name: [u8; 16],
}

const _: () = assert!(size_of::<OwnerEvent>() == 160);

/// Bytes of a program's path that are told.
pub const MAX_PATH: usize = 256;
/// Bytes of its arguments that are told.
pub const MAX_ARGS: usize = 1024;

/// An event in the ring of programs: a process runs another one from now on.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExecEvent {
    /// When it began; ns since boot, sleep included.
    pub time_ns: u64,
    /// When the process started; ns since boot.
    pub start_ns: u64,
    /// As in [`OwnerEvent::exec_id`], of the program that begins.
    pub exec_id: u64,
    /// The inode of the file that it was loaded from; 0 if unknown.
    pub inode: u64,
    /// Thread group, as in [`OwnerEvent::pid`].
    pub pid: u32,
    /// The thread group of its parent.
    pub parent: u32,
    /// Its users and groups, of a program with other rights already those.
    pub ids: Ids,
    /// Bytes of the path, with its zero.
    pub path_bytes: u32,
    /// Bytes of the arguments, each with its zero; the last may be cut.
    pub args_bytes: u32,
    /// The device of that file: major number above 20 bits of the minor one.
    pub device: u32,
    /// How many names the file had.
    pub links: u32,
    /// Zero.
    pub reserved: u32,
    /// The program's path as it was asked for; of a script its interpreter's.
    pub path: [u8; MAX_PATH],
    /// Its arguments.
    pub args: [u8; MAX_ARGS],
}

const _: () = assert!(size_of::<ExecEvent>() == 80 + MAX_PATH + MAX_ARGS);

/// An event in the ring of forks: a process has made another one, which runs its program.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ForkEvent {
    /// When the new process started; ns since boot.
    pub start_ns: u64,
    /// When the one that made it did.
    pub maker_start_ns: u64,
    /// Of both, as in [`OwnerEvent::exec_id`].
    pub exec_id: u64,
    /// The new thread group, as in [`OwnerEvent::pid`].
    pub pid: u32,
    /// The thread group that made it. It is its parent, but with `CLONE_PARENT`.
    pub maker: u32,
    /// The name of the latter.
    pub name: [u8; 16],
}

const _: () = assert!(size_of::<ForkEvent>() == 48);

/// Bytes of a cgroup's path that are told.
pub const MAX_CGROUP: usize = 512;

/// An event in the ring of cgroups: one was made.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CgroupEvent {
    /// The inode of its folder, as in [`OwnerEvent::cgroup`].
    pub id: u64,
    /// Bytes of the path, with its zero.
    pub path_bytes: u64,
    /// Its path from the root.
    pub path: [u8; MAX_CGROUP],
}

const _: () = assert!(size_of::<CgroupEvent>() == 16 + MAX_CGROUP);

/// What became of sockets' events, counted by the kernel.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct OwnerCounters {
    /// Events that found no room in the ring.
    pub lost: u64,
    /// Sockets that found no memory for what is kept of them.
    pub unkept: u64,
    /// Programs, forks and cgroups that found no room in their rings.
    pub execs_lost: u64,
}
