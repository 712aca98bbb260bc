//! What is known of an interface?

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use flowmeter_common::counter::MAX_INTERFACES;
use flowmeter_common::parse::next;

use super::netlink::{Layer, Link, Links, Traffic};
use super::{Error, Namespace, sys};
use crate::notice::{Notice, Notices};

/// A network interface.
#[derive(Debug)]
pub struct Interface {
    /// Its name.
    pub name: Arc<str>,
    /// Its index.
    pub index: u32,
    /// What its frames start with, see [`next`].
    pub link: u32,
    /// Whether it is the loopback: every packet is seen on both sides of it.
    pub loopback: bool,
    /// Whether it is made of others by bonding.
    pub bond: bool,
    /// Its own counters when the meter started.
    before: Option<Traffic>,
    links: Arc<Links>,
    promiscuous: Option<OwnedFd>,
}

impl Interface {
    /// The interface's own counters since the meter started; none if it is gone or counts nothing.
    pub fn traffic_since(&self) -> Option<Traffic> {
        self.links.traffic(self.index).ok()??.since(self.before?)
    }

    /// Whether it is there still, and not another one of its name.
    pub fn is_there(&self) -> bool {
        self.links.is_there(self.index)
    }

    /// Its other end, if it has one.
    pub fn far_end(&self) -> FarEnd {
        FarEnd { index: self.index, links: Arc::clone(&self.links) }
    }

    /// Has the interface take packets for others too, until this value goes.
    pub(super) fn hold_promiscuous(&mut self, notices: &Notices) {
        match sys::promiscuous(self.index) {
            Ok(socket) => self.promiscuous = Some(socket),
            Err(e) => notices.send(Notice::NotPromiscuous {
                interface: self.name.to_string(),
                why: e.to_string(),
            }),
        }
    }
}

/// The other end of an interface that is one of two, like a cable's.
#[derive(Clone, Debug)]
pub struct FarEnd {
    index: u32,
    links: Arc<Links>,
}

impl FarEnd {
    /// Whether the interface is there still.
    pub fn is_there(&self) -> bool {
        self.links.is_there(self.index)
    }

    /// The number that this network namespace has for the one of the other end; none if it is in
    /// this one, or there is no other end.
    pub fn namespace(&self) -> Option<i32> {
        let link = self.links.get(self.index).ok()??;
        // What is made from another interface, as a VLAN is, names the namespace of that.
        link.other.filter(|_| matches!(link.kind.as_deref(), Some("veth" | "netkit")))
    }

    /// Another network namespace, as the programs report it; none if that is not known.
    pub fn namespace_of(&self, namespace: BorrowedFd<'_>) -> Option<Namespace> {
        sys::netns_cookie_of(namespace).ok().map(Namespace::Is)
    }

    /// The number that this network namespace has for another; none if it has none.
    pub fn number(&self, namespace: BorrowedFd<'_>) -> Option<i32> {
        self.links.number(namespace).ok()?
    }
}

/// Looks the interfaces up, in the network namespace of the calling thread.
pub(super) fn resolve(names: &[String], notices: &Notices) -> Result<Vec<Interface>, Error> {
    if names.len() > MAX_INTERFACES {
        return Err(Error::TooMany);
    }
    let links = Arc::new(Links::open().map_err(Error::Netlink)?);
    let mut found: Vec<Interface> = Vec::with_capacity(names.len());
    for name in names {
        let link = links.find(name).map_err(Error::Netlink)?;
        let link = link.ok_or_else(|| Error::NoInterface(name.clone()))?;
        if found.iter().any(|i| i.index == link.index) {
            return Err(Error::Twice(name.clone()));
        }
        found.push(Interface {
            name: name.as_str().into(),
            index: link.index,
            link: first_header(name, &link, notices),
            loopback: link.layer == Layer::Loopback,
            bond: link.kind.as_deref() == Some("bond"),
            before: link.traffic,
            links: Arc::clone(&links),
            promiscuous: None,
        });
    }
    Ok(found)
}

/// What an interface's frames start with. Says so where that is a guess.
fn first_header(name: &str, link: &Link, notices: &Notices) -> u32 {
    match link.layer {
        Layer::Ether | Layer::Loopback => next::ETHERNET,
        // Devices of tunnels, by whichever headers they put before.
        Layer::None
        | Layer::Rawip
        | Layer::Ppp
        | Layer::Tunnel
        | Layer::Tunnel6
        | Layer::Sit
        | Layer::Ipgre
        | Layer::Ip6gre => next::IP,
        other => {
            notices.send(Notice::UnknownFrames {
                interface: name.to_owned(),
                kind: other.to_string(),
            });
            next::IP
        }
    }
}
