//! What is known of an interface?

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use flowmeter_common::counter::MAX_INTERFACES;
use flowmeter_common::parse::next;

use super::{Error, sys};

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
    /// Its own counters when the meter started.
    pub before: Traffic,
    promiscuous: Option<OwnedFd>,
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

/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK` (Linux, `if_arp.h`): frames with an Ethernet header.
const ETHERNET_TYPES: [u32; 2] = [1, 772];

impl Interface {
    /// The interface's own counters now.
    pub fn traffic(&self) -> Traffic {
        traffic(&self.name)
    }

    /// The interface's own counters since the meter started.
    pub fn traffic_since(&self) -> Traffic {
        let (now, before) = (self.traffic(), self.before);
        Traffic {
            rx_packets: now.rx_packets.saturating_sub(before.rx_packets),
            rx_bytes: now.rx_bytes.saturating_sub(before.rx_bytes),
            tx_packets: now.tx_packets.saturating_sub(before.tx_packets),
            tx_bytes: now.tx_bytes.saturating_sub(before.tx_bytes),
        }
    }

    /// Whether it still is what it was when the meter started: no other one has its name.
    pub fn is_there(&self) -> bool {
        index(&self.name) == Some(self.index)
    }

    /// Whether it is made of others by bonding.
    pub fn is_bond(&self) -> bool {
        ["/sys/class/net", &self.name, "bonding"].iter().collect::<PathBuf>().is_dir()
    }

    /// Has the interface take packets for others too, until this value goes.
    pub(super) fn hold_promiscuous(&mut self) {
        match sys::promiscuous(self.index) {
            Ok(socket) => self.promiscuous = Some(socket),
            Err(e) => eprintln!(
                "flowmeter: warning: `{}` does not take packets for others: {e}; it needs \
                 CAP_NET_RAW",
                self.name
            ),
        }
    }
}

/// Looks the interfaces up.
pub(super) fn resolve(names: &[String]) -> Result<Vec<Interface>, Error> {
    if names.len() > MAX_INTERFACES {
        return Err(Error::TooMany);
    }
    let mut found: Vec<Interface> = Vec::with_capacity(names.len());
    for name in names {
        let index = index(name).ok_or_else(|| Error::NoInterface(name.clone()))?;
        if found.iter().any(|i| i.index == index) {
            return Err(Error::Twice(name.clone()));
        }
        let kind = number(name, "type").unwrap_or(1) as u32;
        found.push(Interface {
            name: name.as_str().into(),
            index,
            link: if ETHERNET_TYPES.contains(&kind) { next::ETHERNET } else { next::IP },
            loopback: kind == 772,
            before: traffic(name),
            promiscuous: None,
        });
    }
    Ok(found)
}

fn index(name: &str) -> Option<u32> {
    sys::interface_index(&CString::new(name).ok()?)
}

fn traffic(name: &str) -> Traffic {
    let count = |file| number(name, file).unwrap_or(0);
    Traffic {
        rx_packets: count("statistics/rx_packets"),
        rx_bytes: count("statistics/rx_bytes"),
        tx_packets: count("statistics/tx_packets"),
        tx_bytes: count("statistics/tx_bytes"),
    }
}

/// A number that sysfs has of an interface.
fn number(name: &str, file: &str) -> Option<u64> {
    let path: PathBuf = ["/sys/class/net", name, file].iter().collect();
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
