//! Whose flow is it?
//!
//! Today by polling procfs, which misses what comes and goes between two polls. [`Method`] says
//! how an owner was found, so that a better way can stand beside it.

pub mod addresses;
pub mod poller;
pub mod sockets;
pub mod table;

use std::net::IpAddr;

/// A process that a flow belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// Its name, as the kernel has it: up to 15 bytes (`comm`).
    pub name: String,
    /// How it was found.
    pub method: Method,
}

/// How an owner was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By polling procfs.
    Procfs,
}

impl Method {
    /// Its name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Procfs => "procfs",
        }
    }
}

/// The owners of both ends of a flow, where they are on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// The initiator's.
    pub src: Option<Owner>,
    /// The responder's.
    pub dst: Option<Owner>,
}

/// An address and a port.
pub type Endpoint = (IpAddr, u16);

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conversation {
    /// IP protocol number.
    pub protocol: u8,
    /// The initiator.
    pub src: Endpoint,
    /// The responder.
    pub dst: Endpoint,
}
