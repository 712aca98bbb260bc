//! Which ports has a later fragment?

use std::collections::{HashMap, VecDeque};

use flowmeter_common::fragment::{FragmentKey, MAX_DATAGRAMS, Ports};
use flowmeter_common::packet::{FRAGMENT_FIRST, FRAGMENT_NONE, Packet, protocol};

/// The ports of the datagrams whose first fragment has been seen. Of more than [`MAX_DATAGRAMS`]
/// the oldest is forgotten.
#[derive(Debug, Default)]
pub struct Fragments {
    ports: HashMap<FragmentKey, Ports>,
    order: VecDeque<FragmentKey>,
}

impl Fragments {
    /// Gives a later fragment the ports of the first; notes those of a first. False if they are
    /// not known.
    pub fn join(&mut self, p: &mut Packet) -> bool {
        if p.fragment == FRAGMENT_NONE || !matches!(p.protocol, protocol::TCP | protocol::UDP) {
            return true;
        }
        let mut key = FragmentKey::default();
        key.set(p, 0);
        if p.fragment == FRAGMENT_FIRST {
            let ports = Ports { src_port: p.src_port, dst_port: p.dst_port };
            if self.ports.insert(key, ports).is_none() {
                self.order.push_back(key);
            }
            if self.order.len() > MAX_DATAGRAMS
                && let Some(oldest) = self.order.pop_front()
            {
                self.ports.remove(&oldest);
            }
            return true;
        }
        let Some(ports) = self.ports.get(&key) else { return false };
        p.src_port = ports.src_port;
        p.dst_port = ports.dst_port;
        true
    }
}
