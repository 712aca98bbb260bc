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
    /// Gives a later fragment, seen at `now_ns`, the ports of the first; notes those of a first.
    /// False if they are not known.
    pub fn join(&mut self, p: &mut Packet, now_ns: u64) -> bool {
        if p.fragment == FRAGMENT_NONE || !matches!(p.protocol, protocol::TCP | protocol::UDP) {
            return true;
        }
        let mut key = FragmentKey::default();
        key.set(p, 0);
        if p.fragment == FRAGMENT_FIRST {
            if self.ports.insert(key, Ports::of(p, now_ns)).is_none() {
                self.order.push_back(key);
            }
            if self.order.len() > MAX_DATAGRAMS
                && let Some(oldest) = self.order.pop_front()
            {
                self.ports.remove(&oldest);
            }
            return true;
        }
        let ports = self.ports.get(&key).filter(|ports| ports.hold(now_ns));
        let Some(ports) = ports else { return false };
        p.src_port = ports.src_port;
        p.dst_port = ports.dst_port;
        true
    }
}

#[cfg(test)]
mod tests {
    use flowmeter_common::fragment::MAX_AGE_NS;
    use flowmeter_common::packet::FRAGMENT_LATER;

    use super::*;

    fn first(vni: u32) -> Packet {
        let (src_port, protocol) = (7, protocol::UDP);
        Packet {
            fragment: FRAGMENT_FIRST,
            fragment_id: 1,
            src_port,
            protocol,
            vni,
            ..Packet::default()
        }
    }

    fn later(vni: u32) -> Packet {
        Packet { fragment: FRAGMENT_LATER, src_port: 0, ..first(vni) }
    }

    #[test]
    fn a_later_fragment_has_the_ports_of_the_first_in_its_network() {
        let mut fragments = Fragments::default();
        assert!(fragments.join(&mut first(5), 100));
        let mut ours = later(5);
        assert!(fragments.join(&mut ours, 200) && ours.src_port == 7);
        assert!(!fragments.join(&mut later(6), 200), "another network's");
    }

    #[test]
    fn an_old_datagram_is_another() {
        let mut fragments = Fragments::default();
        fragments.join(&mut first(0), 100);
        assert!(fragments.join(&mut later(0), 100 + MAX_AGE_NS));
        assert!(!fragments.join(&mut later(0), 101 + MAX_AGE_NS));
    }
}
