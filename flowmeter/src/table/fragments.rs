//! Which ports has a later fragment?

use flowmeter_common::fragment::{self, Datagrams, FragmentKey, Ports, SETS, Set};
use flowmeter_common::packet::Packet;

/// The ports of the datagrams whose first fragment has been seen, as the kernel has them.
#[derive(Debug)]
pub struct Fragments(Vec<Set>);

impl Default for Fragments {
    fn default() -> Self {
        Self(vec![Set::default(); SETS])
    }
}

impl Fragments {
    /// Gives a later fragment, seen at `now_ns`, the ports of the first; notes those of a first.
    /// False if they are not known.
    pub fn join(&mut self, p: &mut Packet, now_ns: u64) -> bool {
        fragment::join(self, &mut FragmentKey::default(), p, 0, now_ns)
    }

    fn set(&mut self, key: &FragmentKey) -> Option<&mut Set> {
        self.0.get_mut(key.set_number() as usize)
    }
}

impl Datagrams for Fragments {
    fn get(&mut self, key: &FragmentKey) -> Option<Ports> {
        self.set(key)?.get(key)
    }

    fn insert(&mut self, key: &FragmentKey, ports: Ports) {
        if let Some(set) = self.set(key) {
            set.insert(key, ports);
        }
    }
}

#[cfg(test)]
mod tests {
    use flowmeter_common::fragment::MAX_AGE_NS;
    use flowmeter_common::packet::{FRAGMENT_FIRST, FRAGMENT_LATER, protocol};

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
