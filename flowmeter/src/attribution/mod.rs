//! Which process does a flow belong to?
//!
//! Hooks at the sockets report every one that is made or used; [`Hooked`] remembers them for a
//! while after they are gone and is asked once per flow: by the socket's cookie, which flows have
//! that this host has sent packets of, or by the addresses. What existed before the hooks did, a
//! [`Poller`] finds in procfs, as it does where there are no hooks; but it misses sockets that live
//! and die between two polls. [`Method`] says which of the two it was.
//!
//! Everything here is about one network namespace, the one of the thread that polls.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use flowmeter_common::owner::Ids;
use thiserror::Error;

pub use self::hooked::{Hooked, HookedCounters, Sender};
pub use self::peers::{Peer, Peers};
pub use self::poller::{Counters as PollerCounters, Options, Poller};
pub use self::profile::{ProcessKey, Profile, Profiles, Sighting};

#[expect(
    unsafe_code,
    reason = "getifaddrs: procfs lists IPv4 addresses only among the routes, which can be a million"
)]
mod addresses;
mod gaps;
mod heard;
mod hooked;
mod peers;
mod poller;
mod processes;
pub mod profile;
mod procfs;
mod sockets;
mod table;
mod uses;

/// A process, as the owner of one end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The thread group's id, in the pid namespace that procfs shows; 0 if it has none there.
    pub pid: u32,
    /// The thread group leader's `comm`, chosen by the process itself: at most 15 bytes, or the whole
    /// by psutil's rule.
    pub name: String,
    /// How we know.
    pub method: Method,
    /// When it started; clock ticks of 10 ms since boot. With the pid this is one process's alone.
    pub start_ticks: u64,
    /// What else the kernel reported about it; none from procfs.
    pub reported: Option<Reported>,
    /// Its users and groups: as the kernel reported them when it used its socket, or else by procfs.
    pub ids: Ids,
    /// The name of its effective user.
    pub user: Option<Arc<str>>,
    /// Those that used the socket in the flow after it; `None` if nobody did.
    pub shared: Option<Shared>,
    /// It is at the other end of the interface's cable, in a network namespace of its own.
    pub is_peers: bool,
    /// What is known of it and of its program.
    pub profile: Option<Arc<Profile>>,
}

impl Owner {
    /// Takes in what is known of it.
    pub fn know(&mut self, profile: Arc<Profile>) {
        if let Some(whole) = profile.whole_name(&self.name) {
            self.name = whole;
        }
        self.ids = self.ids.or(profile.ids);
        self.profile = Some(profile);
    }
}

/// Other programs that used a flow's socket in the flow. They may have, that is: a program that
/// has used a socket may go on to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Which of how many the owner is: `first of 2`.
    pub users: String,
    /// Pid and name of the first of the others.
    pub others: Vec<String>,
}

/// What the kernel reports about a process that uses a socket, in the process's own context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// When it was reported; ns since the epoch. Then it ran the program.
    pub time_ns: u64,
    /// When it started; ns since boot. With the pid this is one process's alone.
    pub start_ns: u64,
    /// Which of its programs it ran, see [`flowmeter_common::owner::OwnerEvent::exec_id`]; 0 if unknown.
    pub exec_id: u64,
    /// The pid of its parent; 0 if unknown.
    pub parent: u32,
    /// Its users and groups.
    pub ids: Ids,
    /// Its cgroup (v2): the inode of its folder.
    pub cgroup: u64,
    /// The name of the thread.
    pub thread: String,
}

/// How an owner was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The kernel reported its socket when it was made or used.
    Socket,
    /// Its socket was seen in procfs by a poll.
    Procfs,
}

impl Method {
    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Procfs => "procfs",
        }
    }
}

/// The two ends of a flow whose owners are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The IP protocol's number. Only TCP (6) and UDP (17) have owners so far.
    pub protocol: u8,
    /// Address and port of the first end.
    pub src: End,
    /// Address and port of the second end.
    pub dst: End,
}

/// An address and a port.
pub type End = (IpAddr, u16);

/// The owners of a flow's two ends: both if both are on this host, as on loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// The owner of [`Conversation::src`].
    pub src: Option<Owner>,
    /// The owner of [`Conversation::dst`].
    pub dst: Option<Owner>,
}

/// Why attribution cannot work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no procfs to poll, or it hides what is needed.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The host's own addresses could not be listed.
    #[error("failed to list the addresses of this host")]
    Addresses(#[source] std::io::Error),
    /// No thread could be started for the poller.
    #[error("failed to start the thread that polls procfs")]
    Thread(#[source] std::io::Error),
}
