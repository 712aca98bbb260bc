//! Which process does a flow belong to?
//!
//! A [`Poller`] reads procfs at an interval and publishes what it sees to a [`SocketTable`], which
//! remembers sockets for a while after they are gone and is asked once per flow. A poll misses
//! sockets that live and die between two of them. Hooks at the socket will not: they become a
//! second producer beside `procfs`, with their own [`Method`], and procfs then only gives what
//! existed before the hooks did.
//!
//! Everything here is about one network namespace, the one of the thread that polls.

#![deny(unsafe_code)]

use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;

pub use self::poller::{Counters, Options, Poller};
pub use self::table::SocketTable;

#[expect(
    unsafe_code,
    reason = "getifaddrs: procfs lists IPv4 addresses only among the routes, which can be a million"
)]
mod addresses;
mod poller;
mod processes;
mod procfs;
mod sockets;
mod table;

/// A process, as the owner of one end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The thread group's id, in the pid namespace of the meter.
    pub pid: u32,
    /// The thread group leader's `comm`: at most 15 bytes, chosen by the process itself.
    pub name: String,
    /// How we know.
    pub method: Method,
}

/// How an owner was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Its socket was seen in procfs by a poll.
    Procfs,
}

impl Method {
    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
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
