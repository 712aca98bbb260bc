//! Which process had the socket of a flow, at the time?

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use super::sockets::{Process, Socket};
use super::{Conversation, Endpoint, Method, Owner, Owners};

/// The sockets seen, kept for a while after they are gone.
#[derive(Debug)]
pub struct SocketTable {
    max_entries: usize,
    entries: HashMap<Binding, VecDeque<Tenure>>,
    /// Bindings in the order in which they were last given a new owner.
    order: VecDeque<Binding>,
    addresses: HashSet<IpAddr>,
    /// How far a flow may lie outside the times at which its socket was seen; ns.
    slack_ns: u64,
    evicted: u64,
}

/// What a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Binding {
    protocol: u8,
    local: Endpoint,
    remote: Option<Endpoint>,
}

/// The time for which a process had a binding.
#[derive(Clone, Debug)]
struct Tenure {
    process: Process,
    first_ns: u64,
    last_ns: u64,
}

/// Owners that a binding had one after another, of which so many are remembered.
const MAX_TENURES: usize = 8;

/// A socket that is gone is remembered for this long; ns.
const RETENTION_NS: u64 = 600_000_000_000;

impl SocketTable {
    /// A table of up to `max_entries` bindings, filled by polls that are `interval_ns` apart.
    pub fn new(max_entries: usize, interval_ns: u64) -> Self {
        Self {
            max_entries,
            entries: HashMap::new(),
            order: VecDeque::new(),
            addresses: HashSet::new(),
            slack_ns: interval_ns.saturating_mul(2).max(1_000_000_000),
            evicted: 0,
        }
    }

    /// Notes what a poll at `now_ns` (ns since the epoch) has found.
    pub fn update(&mut self, sockets: Vec<Socket>, addresses: HashSet<IpAddr>, now_ns: u64) {
        self.addresses = addresses;
        for Socket { protocol, local, remote, process } in sockets {
            let binding = Binding { protocol, local, remote };
            let tenures = self.entries.entry(binding).or_insert_with(|| {
                self.order.push_back(binding);
                VecDeque::new()
            });
            match tenures.back_mut() {
                Some(t) if t.process.pid == process.pid && t.process.start == process.start => {
                    t.process.name = process.name;
                    t.last_ns = now_ns;
                }
                _ => tenures.push_back(Tenure { process, first_ns: now_ns, last_ns: now_ns }),
            }
            if tenures.len() > MAX_TENURES {
                tenures.pop_front();
            }
        }
        self.forget(now_ns);
    }

    /// Forgets what is old, and the oldest if there is too much.
    fn forget(&mut self, now_ns: u64) {
        for _ in 0..self.order.len() {
            let Some(binding) = self.order.front().copied() else { return };
            let last_ns =
                self.entries.get(&binding).and_then(|t| t.back()).map_or(0, |t| t.last_ns);
            let is_old = last_ns + RETENTION_NS < now_ns;
            if !is_old && self.entries.len() <= self.max_entries {
                // Still in use: look at the next one some other time.
                self.order.rotate_left(1);
                return;
            }
            self.order.pop_front();
            self.entries.remove(&binding);
            self.evicted += u64::from(!is_old);
        }
    }

    /// The owners of a flow that had packets from `first_ns` to `last_ns`; ns since the epoch.
    pub fn owners(&self, flow: &Conversation, first_ns: u64, last_ns: u64) -> Owners {
        let end = |local, remote| self.owner(flow.protocol, local, remote, first_ns, last_ns);
        Owners { src: end(flow.src, flow.dst), dst: end(flow.dst, flow.src) }
    }

    /// The owner of the end `local`: of the connected socket, else of one bound to its address,
    /// else of one bound to any address, if the address is this host's.
    fn owner(
        &self,
        protocol: u8,
        local: Endpoint,
        remote: Endpoint,
        first_ns: u64,
        last_ns: u64,
    ) -> Option<Owner> {
        let any: IpAddr = match local.0 {
            IpAddr::V4(_) => [0; 4].into(),
            IpAddr::V6(_) => [0; 16].into(),
        };
        let wild = |ip: IpAddr| Binding { protocol, local: (ip, local.1), remote: None };
        let is_own = self.addresses.contains(&local.0);
        let candidates = [
            Some(Binding { protocol, local, remote: Some(remote) }),
            Some(wild(local.0)),
            is_own.then(|| wild(any)),
            is_own.then(|| wild([0; 16].into())), // dual-stack
        ];
        let tenure = candidates
            .into_iter()
            .flatten()
            .filter_map(|binding| self.entries.get(&binding))
            .find_map(|tenures| {
                tenures.iter().rev().find(|t| {
                    t.first_ns <= last_ns.saturating_add(self.slack_ns)
                        && first_ns <= t.last_ns.saturating_add(self.slack_ns)
                })
            })?;
        let Process { pid, name, .. } = &tenure.process;
        Some(Owner { pid: *pid, name: name.clone(), method: Method::Procfs })
    }

    /// Bindings remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bindings forgotten before their time because there were too many.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn socket(local: ([u8; 4], u16), remote: Option<([u8; 4], u16)>, pid: u32) -> Socket {
        Socket {
            protocol: 6,
            local: (local.0.into(), local.1),
            remote: remote.map(|(ip, port)| (ip.into(), port)),
            process: Process { pid, start: u64::from(pid), name: format!("p{pid}") },
        }
    }

    fn flow(src: ([u8; 4], u16), dst: ([u8; 4], u16)) -> Conversation {
        Conversation { protocol: 6, src: (src.0.into(), src.1), dst: (dst.0.into(), dst.1) }
    }

    const US: [u8; 4] = [10, 0, 0, 1];
    const THEM: [u8; 4] = [10, 0, 0, 2];

    fn table(sockets: Vec<Socket>) -> SocketTable {
        let mut table = SocketTable::new(100, SECOND / 10);
        table.update(sockets, [US.into()].into(), 100 * SECOND);
        table
    }

    fn pid(owner: Option<Owner>) -> Option<u32> {
        owner.map(|owner| owner.pid)
    }

    #[test]
    fn a_connected_socket_wins_over_a_listener() {
        let t = table(vec![socket(([0; 4], 80), None, 1), socket((US, 80), Some((THEM, 5)), 2)]);
        let owners = t.owners(&flow((THEM, 5), (US, 80)), 100 * SECOND, 101 * SECOND);
        assert_eq!((pid(owners.src), pid(owners.dst)), (None, Some(2)));
        let owners = t.owners(&flow((THEM, 6), (US, 80)), 100 * SECOND, 101 * SECOND);
        assert_eq!(pid(owners.dst), Some(1));
    }

    #[test]
    fn a_wildcard_does_not_own_a_remote_port() {
        let t = table(vec![socket(([0; 4], 53), None, 1)]);
        let owners = t.owners(&flow((US, 999), (THEM, 53)), 100 * SECOND, 100 * SECOND);
        assert_eq!(owners, Owners::default());
    }

    #[test]
    fn a_socket_is_remembered_but_not_backwards() {
        let mut t = table(vec![socket((US, 7), Some((THEM, 80)), 1)]);
        t.update(vec![], [US.into()].into(), 110 * SECOND);
        let f = flow((US, 7), (THEM, 80));
        assert_eq!(pid(t.owners(&f, 99 * SECOND, 100 * SECOND).src), Some(1));
        assert_eq!(pid(t.owners(&f, 105 * SECOND, 106 * SECOND).src), None);
    }

    #[test]
    fn a_port_used_again_belongs_to_who_had_it_then() {
        let mut t = table(vec![socket((US, 7), Some((THEM, 80)), 1)]);
        t.update(vec![socket((US, 7), Some((THEM, 80)), 2)], [US.into()].into(), 200 * SECOND);
        let f = flow((US, 7), (THEM, 80));
        assert_eq!(pid(t.owners(&f, 100 * SECOND, 100 * SECOND).src), Some(1));
        assert_eq!(pid(t.owners(&f, 200 * SECOND, 201 * SECOND).src), Some(2));
    }

    #[test]
    fn the_bound_holds_and_is_counted() {
        let mut t = SocketTable::new(3, SECOND);
        let sockets = (1..=10).map(|i| socket((US, i), None, 1)).collect();
        t.update(sockets, HashSet::new(), 100 * SECOND);
        assert_eq!((t.len(), t.evicted()), (3, 7));
    }
}
