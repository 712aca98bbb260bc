//! Which datagrams are remembered?

use flowmeter_common::fragment::{FragmentKey, MAX_AGE_NS, Ports, SETS, Set, WAYS};
use flowmeter_common::packet::{Packet, ipv4_address, protocol};

/// The key of a UDP datagram, and ports by which it is known again.
fn datagram(id: u16) -> (FragmentKey, Ports) {
    let p = Packet {
        src: ipv4_address([10, 0, 0, 1]),
        dst: ipv4_address([10, 0, 0, 2]),
        protocol: protocol::UDP,
        fragment_id: id.into(),
        src_port: id,
        ..Packet::default()
    };
    let mut key = FragmentKey::default();
    key.set(&p, 0);
    (key, Ports::of(&p, 0))
}

#[test]
fn a_full_set_forgets_whom_it_has_had_longest() {
    let mut set = Set::default();
    let ways = WAYS as u16;
    for id in 1..=ways {
        let (key, ports) = datagram(id);
        assert_eq!(set.get(&key), None);
        set.insert(&key, ports);
        assert_eq!(set.get(&key), Some(ports));
    }
    let known = |set: &Set, ids: std::ops::RangeInclusive<u16>| {
        ids.filter(|&id| set.get(&datagram(id).0) == Some(datagram(id).1)).collect::<Vec<_>>()
    };
    assert_eq!(known(&set, 0..=20), (1..=ways).collect::<Vec<_>>());
    let (key, ports) = datagram(ways + 1);
    set.insert(&key, ports);
    assert_eq!(known(&set, 0..=20), (2..=ways + 1).collect::<Vec<_>>());
}

#[test]
fn a_datagram_that_is_begun_anew_keeps_its_place() {
    let mut set = Set::default();
    let ((first, ports), (second, others)) = (datagram(1), datagram(2));
    set.insert(&first, ports);
    set.insert(&second, others);
    let later = Ports { time_ns: MAX_AGE_NS, ..others };
    for _ in 0..WAYS {
        set.insert(&second, later);
    }
    assert_eq!((set.get(&first), set.get(&second)), (Some(ports), Some(later)));
}

/// As evenly as by chance: identifications are counted on by many hosts.
#[test]
fn datagrams_in_a_row_are_spread_over_the_sets() {
    let mut filled = vec![0; SETS];
    for id in 0..4 * SETS as u16 {
        let number = datagram(id).0.set_number() as usize;
        filled[number] += 1;
    }
    assert!(filled.iter().filter(|&&n| n == 0).count() < SETS / 25, "e^-4 of them by chance");
    assert!(filled.iter().all(|&n| n < 16), "{:?}", filled.iter().max());
}
