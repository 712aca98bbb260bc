//! What does the kernel know of an interface?
//!
//! Asked by rtnetlink, in the network namespace that the sockets were made in. Not of sysfs: that
//! shows the namespace it was mounted in, which is another after `nsenter --net` and in a container
//! with the host's `/sys`.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use netlink_packet_core::{
    DecodeError, DefaultNla, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NlasIterator,
    Parseable as _,
};
pub use netlink_packet_route::link::LinkLayerType as Layer;
use netlink_packet_route::link::{LinkAttribute, LinkHeader, LinkMessage, Stats64};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// What an interface is and has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its network namespace.
    pub index: u32,
    /// What its frames start with.
    pub layer: Layer,
    /// Which software makes it, e.g. `bond`; none of hardware.
    pub kind: Option<String>,
    /// What it has counted; none if it does not count.
    pub traffic: Option<Traffic>,
    /// The network namespace that the interface is in which this one is tied to, by the number that
    /// this namespace has for it; none if that is the same, or there is none.
    pub other: Option<i32>,
}

/// What an interface counts itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets received, also those that the meter's hook does not see, e.g. dropped by another
    /// program.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets sent; a super-packet counts as one with many drivers.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
}

impl Traffic {
    /// What was counted since; none if it is less than before: something else counts.
    pub fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            rx_packets: self.rx_packets.checked_sub(before.rx_packets)?,
            rx_bytes: self.rx_bytes.checked_sub(before.rx_bytes)?,
            tx_packets: self.tx_packets.checked_sub(before.tx_packets)?,
            tx_bytes: self.tx_bytes.checked_sub(before.tx_bytes)?,
        })
    }
}

/// The interfaces of one network namespace.
#[derive(Debug)]
pub struct Links(Mutex<Sockets>);

struct Sockets {
    requests: Socket,
    sequence: u32,
    /// Hears of every interface that goes.
    events: Socket,
    /// Interfaces that were asked for, and what they had counted when they last were.
    known: HashMap<u32, Known>,
}

#[derive(Clone, Copy, Debug)]
enum Known {
    There(Option<Traffic>),
    /// Another one may have its index and name by now.
    Gone,
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sockets").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Links {
    /// Those of the calling thread's network namespace, for good.
    pub fn open() -> io::Result<Self> {
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.bind_auto()?;
        events.add_membership(libc::RTNLGRP_LINK)?;
        events.set_non_blocking(true)?;
        let mut requests = Socket::new(NETLINK_ROUTE)?;
        requests.bind_auto()?;
        requests.connect(&SocketAddr::new(0, 0))?;
        // The kernel has answered when the request is sent.
        requests.set_non_blocking(true)?;
        let known = HashMap::new();
        Ok(Self(Mutex::new(Sockets { requests, sequence: 0, events, known })))
    }

    /// The interface that has this name now, which may be an alternative one; none if none has.
    pub fn find(&self, name: &str) -> io::Result<Option<Link>> {
        const SHORT: usize = libc::IF_NAMESIZE - 1;
        let attribute = if name.len() <= SHORT {
            LinkAttribute::IfName(name.to_owned())
        } else {
            LinkAttribute::Other(DefaultNla::new(
                IFLA_ALT_IFNAME,
                [name.as_bytes(), b"\0"].concat(),
            ))
        };
        let mut sockets = self.lock();
        let found = match sockets.request(0, vec![attribute]) {
            // No interface can have such a name.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ERANGE)) => None,
            found => found?,
        };
        if let Some(link) = &found {
            sockets.known.insert(link.index, Known::There(link.traffic));
        }
        Ok(found)
    }

    /// What an interface that was found has counted; none if it is gone or does not count.
    pub fn traffic(&self, index: u32) -> io::Result<Option<Traffic>> {
        let mut sockets = self.lock();
        if !sockets.is_there(index) {
            return Ok(None);
        }
        let traffic = sockets.request(index, Vec::new())?.and_then(|link| link.traffic);
        if traffic.is_some() {
            sockets.known.insert(index, Known::There(traffic));
        }
        Ok(traffic)
    }

    /// Whether an interface that was found is there still, and not another one in its place.
    pub fn is_there(&self, index: u32) -> bool {
        self.lock().is_there(index)
    }

    /// What is known of an interface now; none if it is gone.
    pub fn get(&self, index: u32) -> io::Result<Option<Link>> {
        let mut sockets = self.lock();
        if sockets.is_there(index) { sockets.request(index, Vec::new()) } else { Ok(None) }
    }

    /// The number that this network namespace has for another; none if it has none.
    pub fn number(&self, namespace: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        let mut message = NsidMessage::default();
        message.attributes = vec![NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned())];
        let answer = self.lock().ask(RouteNetlinkMessage::GetNsId(message), RTM_NEWNSID)?;
        let answer = answer.map(|payload| NsidMessage::parse(&payload).map_err(malformed));
        let attributes = answer.transpose()?.map_or(Vec::new(), |message| message.attributes);
        Ok(attributes.into_iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(number) => u32::try_from(number).ok().map(u32::cast_signed),
            _ => None,
        }))
    }

    /// The lock, also after a panic of another thread: every change is whole.
    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer with all attributes takes some kilobytes, with hundreds of virtual functions more.
const ANSWER: usize = 1 << 16;

/// Linux, `include/uapi/linux/netlink.h`.
const NLMSG_ERROR: u16 = 2;
/// Linux, `include/uapi/linux/rtnetlink.h`.
const RTM_NEWNSID: u16 = 88;

impl Sockets {
    /// The interface with this index, or if that is 0, with these attributes; none if there is none.
    fn request(&mut self, index: u32, attributes: Vec<LinkAttribute>) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = attributes;
        let answer = self.ask(RouteNetlinkMessage::GetLink(message), libc::RTM_NEWLINK)?;
        answer.map(|payload| link(&payload).map_err(malformed)).transpose()
    }

    /// What answers a message; none if there is no such device.
    fn ask(&mut self, message: RouteNetlinkMessage, answer: u16) -> io::Result<Option<Vec<u8>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.requests.send(&bytes, 0)?;
        loop {
            let mut bytes = Vec::with_capacity(ANSWER);
            self.requests.recv(&mut bytes, 0)?;
            let message = NetlinkBuffer::new_checked(bytes.as_slice()).map_err(malformed)?;
            // One that was not waited for, after an error.
            if message.sequence_number() != self.sequence {
                continue;
            }
            return match message.message_type() {
                kind if kind == answer => Ok(Some(message.payload().to_vec())),
                NLMSG_ERROR => match error_number(message.payload()) {
                    libc::ENODEV => Ok(None),
                    number => Err(io::Error::from_raw_os_error(number)),
                },
                _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
            };
        }
    }

    fn is_there(&mut self, index: u32) -> bool {
        self.hear();
        matches!(self.known.get(&index), Some(Known::There(_)))
    }

    /// Takes in what has gone.
    fn hear(&mut self) {
        let mut is_whole = true;
        loop {
            let mut bytes = Vec::with_capacity(ANSWER);
            match self.events.recv(&mut bytes, 0) {
                Ok(_) => {
                    let gone = gone(&bytes).and_then(|index| self.known.get_mut(&index));
                    if let Some(known) = gone {
                        *known = Known::Gone;
                    }
                }
                // There were more than the socket has room for.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => is_whole = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if !is_whole {
            self.look();
        }
    }

    /// Looks which interfaces are there, as it was not heard. One in the place of another has its
    /// counts from the start.
    fn look(&mut self) {
        for (index, known) in self.known.clone() {
            let Known::There(before) = known else { continue };
            let Ok(found) = self.request(index, Vec::new()) else { continue };
            let now = found.map(|link| link.traffic);
            let is_same = match (now, before) {
                (None, _) => false,
                (Some(Some(now)), Some(before)) => now.since(before).is_some(),
                (Some(_), _) => true,
            };
            if !is_same {
                self.known.insert(index, Known::Gone);
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that `map_err` takes it")]
fn malformed(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// The number in an error's message, which has it negative.
fn error_number(payload: &[u8]) -> i32 {
    let number = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    number.saturating_neg()
}

/// The index of the interface that a message says is gone. One of another family says that it is
/// not a bridge's port any more.
fn gone(message: &[u8]) -> Option<u32> {
    let message = NetlinkBuffer::new_checked(message).ok()?;
    let header = LinkHeader::parse(message.payload()).ok()?;
    let is_gone = message.message_type() == libc::RTM_DELLINK
        && header.interface_family == AddressFamily::Unspec;
    is_gone.then_some(header.index)
}

/// The header's length, which attributes follow: `struct ifinfomsg`.
const HEADER: usize = 16;
/// Attributes (Linux, `include/uapi/linux/if_link.h`).
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_ALT_IFNAME: u16 = 53;
/// Within `IFLA_LINKINFO`.
const IFLA_INFO_KIND: u16 = 1;

/// Reads an answer. Of its attributes only these: of the others there are more in each kernel, and
/// one that the crate does not take would spoil them all.
fn link(payload: &[u8]) -> Result<Link, DecodeError> {
    let header = LinkHeader::parse(payload)?;
    let mut link = Link {
        index: header.index,
        layer: header.link_layer_type,
        kind: None,
        traffic: None,
        other: None,
    };
    for attribute in NlasIterator::new(payload.get(HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        match attribute.kind() {
            IFLA_STATS64 => {
                let counts = Stats64::parse(attribute.value())?;
                link.traffic = Some(Traffic {
                    rx_packets: counts.rx_packets,
                    rx_bytes: counts.rx_bytes,
                    tx_packets: counts.tx_packets,
                    tx_bytes: counts.tx_bytes,
                });
            }
            IFLA_LINK_NETNSID => {
                let number = attribute.value().first_chunk().copied().map(i32::from_ne_bytes);
                link.other = number.filter(|number| *number >= 0);
            }
            IFLA_LINKINFO => link.kind = kind(attribute.value())?,
            _ => {}
        }
    }
    Ok(link)
}

fn kind(info: &[u8]) -> Result<Option<String>, DecodeError> {
    for attribute in NlasIterator::new(info) {
        let attribute = attribute?;
        if attribute.kind() == IFLA_INFO_KIND {
            let name = attribute.value().split(|byte| *byte == 0).next().unwrap_or_default();
            return Ok(Some(String::from_utf8_lossy(name).into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there_and_counts() {
        let links = Links::open().expect("rtnetlink is in every kernel");
        let lo = links.find("lo").expect("it answers").expect("it is in every namespace");
        assert_eq!((lo.layer, &lo.kind), (Layer::Loopback, &None));
        let before = lo.traffic.expect("it counts");
        let now = links.traffic(lo.index).expect("it answers").expect("it counts");
        assert!(now.since(before).is_some() && links.is_there(lo.index));
    }

    #[test]
    fn what_no_interface_is_called_is_no_error() {
        let links = Links::open().expect("rtnetlink is in every kernel");
        for name in ["", "no-such-one", "one-of-more-than-15", &"x".repeat(5000)] {
            assert_eq!(links.find(name).expect("it answers"), None, "{name}");
        }
        assert!(!links.is_there(u32::MAX));
    }

    #[test]
    fn less_than_before_is_of_another() {
        let before = Traffic { rx_packets: 2, ..Traffic::default() };
        let more = Traffic { rx_packets: 5, tx_bytes: 7, ..Traffic::default() };
        assert_eq!(more.since(before), Some(Traffic { rx_packets: 3, ..more }));
        assert_eq!(before.since(more), None);
    }

    #[test]
    fn cut_answers_are_refused() {
        let mut answer = vec![0; HEADER];
        // STATS64 of 200 bytes, of which 4 are there.
        answer.extend([200, 0, 23, 0, 1, 2, 3, 4]);
        assert!(link(&answer).is_err());
        assert!(link(&answer[..HEADER - 1]).is_err());
        assert_eq!(link(&answer[..HEADER]).expect("it has no attributes").traffic, None);
        assert_eq!(gone(&answer), None);
    }
}
