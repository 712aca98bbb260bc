//! How do later fragments find the flow of the first?
//!
//! [`join`] is the rule, for kernel and host. What it forgets, it forgets by the fragments' keys and
//! order alone, so that both forget the same.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::packet::{Address, FRAGMENT_FIRST, FRAGMENT_NONE, Packet, protocol};

/// The datagrams whose first fragment has been seen: in [`SETS`] sets, each datagram in that of its
/// key. The kernel's is a map, and CPUs come upon a set at the same time, so an implementation looks
/// a set up, has it to itself, and calls what [`Set`] has of the same name.
pub trait Datagrams {
    /// See [`Set::get`].
    fn get(&mut self, key: &FragmentKey) -> Option<Ports>;
    /// See [`Set::insert`].
    fn insert(&mut self, key: &FragmentKey, ports: Ports);
}

/// Gives a later fragment, seen at `now_ns`, the ports of the first; notes those of a first. False
/// if they are not known. `key` is room for the packet's: in the kernel the stack has none.
#[inline(always)]
pub fn join(
    datagrams: &mut impl Datagrams,
    key: &mut FragmentKey,
    p: &mut Packet,
    interface: u8,
    now_ns: u64,
) -> bool {
    if p.fragment == FRAGMENT_NONE || !matches!(p.protocol, protocol::TCP | protocol::UDP) {
        return true; // no ports to know
    }
    key.set(p, interface);
    if p.fragment == FRAGMENT_FIRST {
        datagrams.insert(key, Ports::of(p, now_ns));
        return true;
    }
    match datagrams.get(key) {
        Some(ports) if ports.hold(now_ns) => {
            p.src_port = ports.src_port;
            p.dst_port = ports.dst_port;
            true
        }
        _ => false,
    }
}

/// What identifies a datagram's fragments (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Identification.
    pub id: u32,
    /// Innermost VLAN id.
    pub vlan: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Number of the interface among those metered.
    pub interface: u8,
    /// Network identifier of the tunnel it came in; 0 without.
    pub vni: u32,
    /// Outermost VLAN id of several, else 0.
    pub outer_vlan: u16,
    /// The tunnel it came in; 0 for none.
    pub tunnel: u8,
    /// Zero.
    pub reserved: u8,
}

/// What the first fragment tells the later ones.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Ports {
    /// When the first fragment was seen, by the meter's clock; ns.
    pub time_ns: u64,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Zero.
    pub reserved: [u8; 4],
}

/// A datagram's fragments come within this time, as long as Linux waits for them
/// (`ipfrag_time`), or are another's with the same identification; ns.
pub const MAX_AGE_NS: u64 = 30_000_000_000;

impl Ports {
    /// The ports of a first fragment seen at `time_ns`.
    #[inline(always)]
    pub fn of(p: &Packet, time_ns: u64) -> Self {
        Self { time_ns, src_port: p.src_port, dst_port: p.dst_port, reserved: [0; 4] }
    }

    /// Whether they may be those of a fragment seen at `now_ns`.
    #[inline(always)]
    pub fn hold(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.time_ns) <= MAX_AGE_NS
    }
}

impl FragmentKey {
    /// The key of the fragment `p`, written into `self`.
    #[inline(always)]
    pub fn set(&mut self, p: &Packet, interface: u8) {
        self.src = p.src;
        self.dst = p.dst;
        self.id = p.fragment_id;
        self.vlan = p.vlan;
        self.protocol = p.protocol;
        self.interface = interface;
        self.vni = p.vni;
        self.outer_vlan = p.outer_vlan;
        self.tunnel = p.tunnel;
        self.reserved = 0;
    }

    /// The number of the set that has the datagram, if any has; below [`SETS`].
    #[inline(always)]
    pub fn set_number(&self) -> u32 {
        let words: &[u64; 6] = zerocopy::transmute_ref!(self);
        let mix =
            |sum: u64, word: &u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let sum = words.iter().fold(0, mix);
        (sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 % SETS as u32
    }

    /// Whether `other` is the same key. Without a `memcmp`, which BPF has only as a loop.
    #[inline(always)]
    fn same(&self, other: &Self) -> bool {
        let [a0, a1, a2, a3, a4, a5]: &[u64; 6] = zerocopy::transmute_ref!(self);
        let [b0, b1, b2, b3, b4, b5]: &[u64; 6] = zerocopy::transmute_ref!(other);
        (a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2) | (a3 ^ b3) | (a4 ^ b4) | (a5 ^ b5) == 0
    }
}

/// Datagrams in a set.
pub const WAYS: usize = 8;

/// Sets. If 4,096 other datagrams begin between the first fragment and a later one, that is without
/// its first once in 1,000 times; with twice as many, once in 20. Whoever fills a set on purpose makes
/// orphans of others' fragments, as whoever fills any table of a fixed size does.
pub const SETS: usize = 2048;

/// Datagrams whose keys lead to the same place.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Set {
    /// The datagrams; those that are not there yet have zeros, which is no fragment's key.
    datagrams: [Datagram; WAYS],
    /// How many were noted that were not there: the next one's place.
    noted: u64,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
struct Datagram {
    key: FragmentKey,
    ports: Ports,
}

const _: () = assert!(size_of::<Set>() == WAYS * 64 + 8);

impl Set {
    /// The ports of a datagram, if its first fragment was noted and not forgotten.
    #[inline(always)]
    pub fn get(&self, key: &FragmentKey) -> Option<Ports> {
        self.datagrams.iter().find(|datagram| datagram.key.same(key)).map(|found| found.ports)
    }

    /// Notes the ports of a datagram. In a full set it takes the place of the one that was noted
    /// first; not of the oldest by time, since no two clocks tell the same of what is seen at once.
    #[inline(always)]
    pub fn insert(&mut self, key: &FragmentKey, ports: Ports) {
        if let Some(known) = self.datagrams.iter_mut().find(|known| known.key.same(key)) {
            known.ports = ports;
            return;
        }
        let place = self.noted as usize % WAYS;
        self.noted = self.noted.wrapping_add(1);
        if let Some(datagram) = self.datagrams.get_mut(place) {
            datagram.key = *key;
            datagram.ports = ports;
        }
    }
}
