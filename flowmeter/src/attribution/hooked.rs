//! Which process had a socket, as the kernel reported when it happened?

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowmeter_common::owner::{CREATED, HEARD, HELD, OwnerEvent, RELEASED};
use flowmeter_common::packet::Address;
use hashbrown::HashMap;

use super::addresses::Addresses;
use super::heard::{Heard, Hearing};
use super::processes::Process;
use super::sockets::{Key, Socket, TCP, UDP};
use super::table::{Changes, Opened, SocketTable};
use super::uses::{Users, Uses};
use super::{Conversation, End, Method, Options, Owner, Owners, ProcessKey, Reported, Shared};
use crate::capture::kernel::{Clock, Namespace};

/// Sockets by cookie and by address, open ones and for a while those that were.
pub struct Hooked {
    max_entries: usize,
    retention_ns: u64,
    by_cookie: HashMap<u64, Known>,
    /// Closed sockets, the first closed in front.
    closed: VecDeque<(u64, u64)>,
    /// Open sockets, the one to forget next in front, among others that are closed or forgotten.
    open: VecDeque<u64>,
    /// Sockets by the uses of them beyond each one's first, in the order they came.
    changes: VecDeque<u64>,
    by_address: SocketTable,
    heard: Heard,
    /// Only the sockets of this namespace have addresses that mean something here.
    netns: Namespace,
    addresses_read: Option<Instant>,
    clock: Clock,
    evictions: u64,
    open_evictions: u64,
    /// This host's addresses are not those of the namespace.
    is_elsewhere: bool,
    /// Events that had been lost when there were no more.
    lost: u64,
    uses_evicted: u64,
    unremembered: u64,
}

/// What is known of a socket.
struct Known {
    /// Whom the address is, of the table by address.
    process: Arc<Process>,
    uses: Uses,
    /// It was reported again since it was last considered for forgetting.
    is_fresh: bool,
    /// As it stands in the table by address.
    key: Option<Key>,
    /// When its last descriptor was closed, by the kernel's clock; ns.
    closed_ns: Option<u64>,
}

/// The socket that sent a flow's packets in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// Its cookie; 0 if it is not known.
    pub cookie: u64,
    /// When the first of the packets left.
    pub first_ns: u64,
    /// When the last did.
    pub last_ns: u64,
}

/// What has been done, and what was lost by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookedCounters {
    /// Sockets in memory, open and closed.
    pub entries: u64,
    /// Closed sockets forgotten before their time to make room.
    pub evictions: u64,
    /// Sockets forgotten to make room although their end had not been reported: too many are open, or
    /// the events of their ends were lost.
    pub evicted_open: u64,
    /// Changes of a socket's user forgotten to make room.
    pub uses_evicted: u64,
    /// Flow ends without an owner because several qualified, or the changes were forgotten.
    pub ambiguous: u64,
}

/// This host's addresses are read at this interval.
const ADDRESSES: Duration = Duration::from_secs(1);

/// A clock tick, in which procfs tells when a process started; ns.
pub(super) const TICK_NS: u64 = 10_000_000;

impl Known {
    fn is_open(&self) -> bool {
        self.closed_ns.is_none()
    }
}

impl Hooked {
    /// Nothing is known yet. `netns` is the network namespace that the flows are seen in. The events'
    /// times are by `clock`.
    pub fn new(options: Options, netns: Namespace, clock: Clock) -> Self {
        let retention_ns = u64::try_from(options.retention.as_nanos()).unwrap_or(u64::MAX);
        Self {
            max_entries: options.max_entries,
            retention_ns,
            by_cookie: HashMap::new(),
            closed: VecDeque::new(),
            open: VecDeque::new(),
            changes: VecDeque::new(),
            by_address: SocketTable::new(Method::Socket, options.max_entries, options.retention),
            heard: Heard::new(options.max_entries),
            netns,
            addresses_read: None,
            clock,
            evictions: 0,
            open_evictions: 0,
            is_elsewhere: false,
            lost: 0,
            uses_evicted: 0,
            unremembered: 0,
        }
    }

    /// The same of a network namespace elsewhere, of which only sockets with addresses of their own are
    /// asked for: which addresses there are besides is not known.
    pub fn elsewhere(options: Options, netns: Namespace, clock: Clock) -> Self {
        Self { is_elsewhere: true, ..Self::new(options, netns, clock) }
    }

    /// Takes an event in if it is about a socket there; of others, only what was lost before.
    pub fn overhear(&mut self, event: &OwnerEvent) {
        if self.netns == Namespace::Is(event.netns) || self.by_cookie.contains_key(&event.cookie) {
            self.take(event);
        } else {
            self.by_address.gaps.take_in(event.time_ns, event.lost);
        }
    }

    /// Who had the ends of a flow, by their addresses alone. See `SocketTable::owners`.
    pub fn owners_by_address(
        &mut self,
        conversation: &Conversation,
        first_ns: u64,
        last_ns: u64,
    ) -> Owners {
        self.read_addresses();
        self.by_address.owners(conversation, first_ns, last_ns)
    }

    /// Takes an event in, and says which process it is about.
    pub fn event(&mut self, event: &OwnerEvent) -> ProcessKey {
        let process = ProcessKey { pid: event.pid, start_ticks: event.start_ns / TICK_NS };
        self.take(event);
        process
    }

    fn take(&mut self, event: &OwnerEvent) {
        self.age(event.time_ns);
        self.by_address.gaps.take_in(event.time_ns, event.lost);
        if event.kind == RELEASED {
            self.close(event);
            return;
        }
        if event.kind == CREATED && self.netns == Namespace::OfSocket(event.cookie) {
            self.netns = Namespace::Is(event.netns);
        }
        let process = self.process(event);
        if event.kind == HEARD {
            if let Some(key) = self.key(event)
                && let Some(remote) = key.remote
            {
                let (time_ns, cookie) = (event.time_ns, event.cookie);
                let hearing = Hearing { time_ns, cookie, process };
                self.heard.take_in(key.local.1, remote, hearing);
            }
            return;
        }
        let key = self.key(event);
        if let Some(known) = self.by_cookie.get_mut(&event.cookie) {
            known.is_fresh = true;
            let is_one_more = known.uses.add(event, Arc::clone(&process));
            // Whoever has it in hand may yet not use it.
            let is_held = event.kind == HELD;
            let is_same = known.process.is(&process) && (key.is_none() || known.key == key);
            if !is_held {
                known.process = Arc::clone(&process);
            }
            let old = known.key;
            if is_one_more {
                self.remember(event.cookie);
            }
            if is_same || is_held {
                return;
            }
            let Some(known) = self.by_cookie.get_mut(&event.cookie) else { return };
            known.key = key.or(old);
            if let Some(key) = old {
                self.by_address.close(Socket { key, inode: event.cookie }, event.time_ns);
            }
        } else {
            if self.by_cookie.len() >= self.max_entries {
                self.forget_one();
            }
            let process = Arc::clone(&process);
            let uses = Uses::new(event, Arc::clone(&process));
            let known = Known { process, uses, is_fresh: false, key, closed_ns: None };
            self.by_cookie.insert(event.cookie, known);
            self.open(event.cookie);
        }
        if let Some(known) = self.by_cookie.get(&event.cookie)
            && let Some(key) = known.key
        {
            self.by_address.open(Opened {
                socket: Socket { key, inode: event.cookie },
                process: Some(process),
                not_before: event.time_ns,
                first_seen: event.time_ns,
            });
        }
    }

    /// Who had the ends of a flow: of each who used the socket that sent its packets at the time, or
    /// else whose the address was. See `SocketTable::owners`.
    pub fn owners(
        &mut self,
        conversation: &Conversation,
        senders: [Sender; 2],
        first_ns: u64,
        last_ns: u64,
    ) -> Owners {
        let [src, dst] = senders.map(|sender| self.sender(&sender));
        if src.is_some() && dst.is_some() {
            return Owners { src, dst };
        }
        self.read_addresses();
        let Conversation { protocol, src: from, dst: to } = *conversation;
        let heard = |local, remote| self.heard(protocol, local, remote, first_ns, last_ns);
        let (src, dst) = (src.or_else(|| heard(from, to)), dst.or_else(|| heard(to, from)));
        if src.is_some() && dst.is_some() {
            return Owners { src, dst };
        }
        let by_address = self.by_address.owners(conversation, first_ns, last_ns);
        Owners { src: src.or(by_address.src), dst: dst.or(by_address.dst) }
    }

    /// Who used the socket of a flow's sender.
    fn sender(&mut self, sender: &Sender) -> Option<Owner> {
        let known = self.by_cookie.get(&sender.cookie)?;
        match known.uses.during(sender.first_ns, sender.last_ns) {
            Users::Known { first, others, more } => {
                let mut owner = first.owner(Method::Socket);
                let names = others.iter().map(|other| format!("{} {}", other.pid, other.name));
                owner.shared = (more > 0).then(|| Shared {
                    users: format!("first of {}", more + 1),
                    others: names.collect(),
                });
                Some(owner)
            }
            Users::Forgotten => {
                self.unremembered += 1;
                None
            }
            Users::Unknown => None,
        }
    }

    /// Notes that there is one more use of a socket in memory, and forgets another if that is too
    /// many.
    fn remember(&mut self, cookie: u64) {
        self.changes.push_back(cookie);
        let known = self.by_cookie.get_mut(&cookie);
        let crowded = known.filter(|known| known.uses.is_full()).map(|_| cookie);
        let over = self.changes.len() > self.max_entries;
        let oldest = if over { self.changes.pop_front() } else { None };
        for cookie in oldest.into_iter().chain(crowded) {
            if let Some(known) = self.by_cookie.get_mut(&cookie)
                && known.uses.forget_first()
            {
                self.uses_evicted += 1;
            }
        }
    }

    /// Who has taken datagrams of `remote` to `local`, where several processes may.
    fn heard(&self, protocol: u8, local: End, remote: End, first: u64, last: u64) -> Option<Owner> {
        if protocol != UDP || !self.by_address.reaches_us(local.0, remote.0) {
            return None;
        }
        let was_there = |hearing: &Hearing| {
            let known = self.by_cookie.get(&hearing.cookie);
            let is_certain = self.by_address.gaps.certain_until(hearing.time_ns) >= first;
            is_certain
                && known.is_some_and(|known| known.closed_ns.is_none_or(|closed| closed >= first))
        };
        let process = self.heard.find(local.1, remote, last, was_there)?;
        Some(process.owner(Method::Socket))
    }

    /// Takes in, with no event left to take, how many have been lost: no event may come after those.
    pub fn lost(&mut self, lost: u64) {
        if lost > self.lost {
            self.lost = lost;
            self.by_address.gaps.take_in(self.clock.now_ns(), lost);
        }
    }

    /// What has been done so far.
    pub fn counters(&self) -> HookedCounters {
        HookedCounters {
            entries: self.by_cookie.len() as u64,
            evictions: self.evictions + self.heard.evictions(),
            evicted_open: self.open_evictions,
            uses_evicted: self.uses_evicted,
            ambiguous: self.by_address.ambiguous() + self.unremembered,
        }
    }

    /// The process of an event; the same as before if it is.
    fn process(&self, event: &OwnerEvent) -> Arc<Process> {
        let reported = Reported {
            time_ns: event.time_ns,
            start_ns: event.start_ns,
            exec_id: event.exec_id,
            parent: event.parent,
            ids: event.ids,
            cgroup: event.cgroup,
            thread: text(&event.thread),
        };
        let process = Process {
            pid: event.pid,
            start_ticks: event.start_ns / TICK_NS,
            name: text(&event.name),
            reported: Some(reported),
        };
        let last = self.by_cookie.get(&event.cookie).and_then(|known| known.uses.last());
        let same = last.filter(|last| last.is(&process) && last.name == process.name);
        same.map_or_else(|| Arc::new(process), Arc::clone)
    }

    /// The addresses of a socket of this namespace, if it has any yet.
    fn key(&self, event: &OwnerEvent) -> Option<Key> {
        let is_ours = self.netns == Namespace::Is(event.netns);
        if !is_ours || event.local_port == 0 || !matches!(event.protocol, TCP | UDP) {
            return None;
        }
        let ip = |address| ip(event.ip_version, address);
        let local = (ip(event.local), event.local_port);
        let remote = (event.remote_port != 0).then(|| (ip(event.remote), event.remote_port));
        Some(Key { protocol: event.protocol, local, remote })
    }

    fn close(&mut self, event: &OwnerEvent) {
        let Some(known) = self.by_cookie.get_mut(&event.cookie) else { return };
        known.closed_ns = Some(event.time_ns);
        if let Some(key) = known.key {
            self.by_address.close(Socket { key, inode: event.cookie }, event.time_ns);
        }
        self.closed.push_back((event.time_ns, event.cookie));
    }

    fn age(&mut self, now_ns: u64) {
        while let Some((closed, _)) = self.closed.front()
            && closed.saturating_add(self.retention_ns) < now_ns
        {
            self.forget_closed();
        }
    }

    /// Notes that a socket is open.
    fn open(&mut self, cookie: u64) {
        // Those that are closed are dropped now and then rather than looked for each time.
        if self.open.len() >= self.max_entries.saturating_mul(2) {
            let known = &self.by_cookie;
            self.open.retain(|cookie| known.get(cookie).is_some_and(Known::is_open));
        }
        self.open.push_back(cookie);
    }

    /// Makes room for a socket: forgets the one that was closed first, or else an open one that has
    /// not been reported for long. The end of that may have been lost; if not, it has been there for
    /// long enough to be found in procfs.
    fn forget_one(&mut self) {
        if self.forget_closed() {
            self.evictions += 1;
            return;
        }
        // Each is passed over once at most, as nothing reports them meanwhile.
        while let Some(cookie) = self.open.pop_front() {
            let Some(known) = self.by_cookie.get_mut(&cookie).filter(|known| known.is_open())
            else {
                continue;
            };
            if std::mem::take(&mut known.is_fresh) {
                self.open.push_back(cookie);
                continue;
            }
            if let Some(key) = known.key {
                self.by_address.forget(Socket { key, inode: cookie });
            }
            self.by_cookie.remove(&cookie);
            self.open_evictions += 1;
            return;
        }
    }

    fn forget_closed(&mut self) -> bool {
        let closed = self.closed.pop_front();
        closed.is_some_and(|(_, cookie)| self.by_cookie.remove(&cookie).is_some())
    }

    fn read_addresses(&mut self) {
        if self.is_elsewhere || self.addresses_read.is_some_and(|at| at.elapsed() < ADDRESSES) {
            return;
        }
        self.addresses_read = Some(Instant::now());
        let now = self.clock.now_ns();
        let addresses = Addresses::read().unwrap_or_default();
        self.by_address.apply(Changes { now, addresses, ..Changes::default() });
    }
}

/// A name that ends with a zero.
fn text(name: &[u8; 16]) -> String {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// An address; one of IPv4 that a socket of IPv6 has is one of IPv4.
fn ip(version: u8, address: Address) -> IpAddr {
    let [a, b] = address.map(u64::to_ne_bytes);
    if version == 4 {
        let [o0, o1, o2, o3, ..] = a;
        return IpAddr::from([o0, o1, o2, o3]);
    }
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&a);
    octets[8..].copy_from_slice(&b);
    Ipv6Addr::from(octets).to_canonical()
}

#[cfg(test)]
mod tests {
    use flowmeter_common::owner::{BOUND, SENT};
    use flowmeter_common::packet::ipv4_address;

    use super::*;

    const US: End = (IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4000);
    const THEM: End = (IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 53);

    fn event(kind: u8, cookie: u64, time_ns: u64, pid: u32) -> OwnerEvent {
        let start_ns = u64::from(pid) * 1_000_000_000;
        OwnerEvent { kind, cookie, time_ns, pid, start_ns, netns: OURS, ..OwnerEvent::default() }
    }

    /// Our network namespace.
    const OURS: u64 = 1;

    /// A process uses a socket from [`US`] to [`THEM`].
    fn used(cookie: u64, time_ns: u64, pid: u32) -> OwnerEvent {
        OwnerEvent {
            local: ipv4_address([127, 0, 0, 1]),
            local_port: US.1,
            remote: ipv4_address([192, 0, 2, 1]),
            remote_port: THEM.1,
            protocol: UDP,
            ip_version: 4,
            ..event(SENT, cookie, time_ns, pid)
        }
    }

    fn pid(hooked: &mut Hooked, cookie: u64, first_ns: u64, last_ns: u64) -> Option<u32> {
        let conversation = Conversation { protocol: UDP, src: US, dst: THEM };
        let sender = Sender { cookie, first_ns, last_ns };
        let senders = [sender, Sender::default()];
        Some(hooked.owners(&conversation, senders, first_ns, last_ns).src?.pid)
    }

    fn hooked(max_entries: usize) -> Hooked {
        let options = Options { max_entries, retention: Duration::from_mins(5) };
        Hooked::new(options, Namespace::Is(OURS), Clock::default())
    }

    const S: u64 = 1_000_000_000;

    /// Times are of now, or they are long past.
    fn base() -> u64 {
        Clock::default().now_ns().saturating_sub(60 * S)
    }

    #[test]
    fn a_socket_is_its_last_users_and_is_remembered() {
        let (mut hooked, base) = (hooked(10), base());
        hooked.event(&event(CREATED, 1, base + S, 100));
        assert_eq!(
            pid(&mut hooked, 1, base + S, base + 2 * S),
            Some(100),
            "by cookie, without an address"
        );
        hooked.event(&used(1, base + 2 * S, 200));
        hooked.event(&event(RELEASED, 1, base + 3 * S, 300));
        assert_eq!(
            pid(&mut hooked, 1, base + S, base + 2 * S),
            Some(200),
            "who closed it does not count"
        );
        assert_eq!(pid(&mut hooked, 0, base + 2 * S, base + 2 * S), Some(200), "by address");
    }

    #[test]
    fn addresses_mean_nothing_until_our_namespace_is_known() {
        let base = base();
        let options = Options { max_entries: 10, retention: Duration::from_mins(5) };
        let mut hooked = Hooked::new(options, Namespace::OfSocket(7), Clock::default());
        hooked.event(&used(1, base + S, 100));
        assert_eq!(pid(&mut hooked, 0, base + S, base + S), None, "it may be a container's");
        assert_eq!(pid(&mut hooked, 1, base + S, base + S), Some(100), "by cookie it is certain");
        hooked.event(&event(CREATED, 7, base + 2 * S, 300));
        hooked.event(&used(2, base + 3 * S, 200));
        let alien = OwnerEvent { netns: OURS + 1, ..used(3, base + 3 * S, 400) };
        hooked.event(&alien);
        assert_eq!(pid(&mut hooked, 0, base + 3 * S, base + 3 * S), Some(200));
    }

    #[test]
    fn an_address_used_again_is_its_users_of_the_time() {
        let (mut hooked, base) = (hooked(10), base());
        for (cookie, pid) in [(1, 100), (2, 200)] {
            let at = base + cookie * 10 * S;
            hooked.event(&used(cookie, at, pid));
            hooked.event(&event(RELEASED, cookie, at + S, pid));
        }
        assert_eq!(pid(&mut hooked, 0, base + 10 * S, base + 11 * S), Some(100));
        assert_eq!(pid(&mut hooked, 0, base + 20 * S, base + 21 * S), Some(200));
        assert_eq!(pid(&mut hooked, 0, base + 15 * S, base + 16 * S), None);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_nothing_is_mistaken() {
        const MAX: u64 = 100;
        let mut hooked = hooked(MAX as usize);
        for cookie in 1..=10 * MAX {
            let (at, pid) = (cookie * S / 1000, cookie as u32);
            hooked.event(&event(CREATED, cookie, at, pid));
            hooked.event(&event(RELEASED, cookie, at, pid));
        }
        let counters = hooked.counters();
        assert_eq!((counters.entries, counters.evictions), (MAX, 9 * MAX));
        // Now open ones, whose end is never reported.
        for cookie in 2000..2000 + 10 * MAX {
            hooked.event(&event(CREATED, cookie, 2 * S, cookie as u32));
        }
        let counters = hooked.counters();
        assert_eq!((counters.entries, counters.evicted_open), (MAX, 9 * MAX));
        assert!(hooked.closed.len() <= MAX as usize && hooked.open.len() <= 2 * MAX as usize);
        for cookie in (1..=10 * MAX).chain(2000..2000 + 10 * MAX) {
            let found = pid(&mut hooked, cookie, 0, 3 * S);
            assert!(found.is_none_or(|pid| u64::from(pid) == cookie), "{cookie}: {found:?}");
        }
    }

    #[test]
    fn an_address_is_not_trusted_after_events_were_lost() {
        let (mut hooked, base) = (hooked(10), base());
        hooked.event(&used(1, base + S, 100));
        let lost = |event| OwnerEvent { lost: 5, ..event };
        hooked.event(&lost(event(CREATED, 2, base + 3 * S, 200)));
        assert_eq!(pid(&mut hooked, 0, base + S, base + 4 * S), Some(100), "begun before");
        assert_eq!(pid(&mut hooked, 0, base + 2 * S, base + 4 * S), None, "it may be another's");
        assert_eq!(pid(&mut hooked, 1, base + 2 * S, base + 4 * S), Some(100), "by cookie");
        // Reported of again, and of its end.
        hooked.event(&lost(used(1, base + 5 * S, 300)));
        assert_eq!(pid(&mut hooked, 0, base + 5 * S, base + 6 * S), Some(300));
        hooked.event(&lost(event(RELEASED, 1, base + 6 * S, 300)));
        assert_eq!(pid(&mut hooked, 0, base + 5 * S, base + 6 * S), Some(300));
    }

    #[test]
    fn a_listener_says_nothing_of_a_flow_in_which_events_were_lost() {
        let (mut hooked, base) = (hooked(10), base());
        let listens = OwnerEvent { remote: [0, 0], remote_port: 0, ..used(1, base + S, 100) };
        hooked.event(&OwnerEvent { kind: BOUND, ..listens });
        hooked.event(&event(CREATED, 2, base + 10 * S, 200));
        hooked.event(&OwnerEvent { lost: 1, ..event(CREATED, 3, base + 12 * S, 200) });
        let mut owner = |from: u64, to: u64| pid(&mut hooked, 0, base + from * S, base + to * S);
        assert_eq!(owner(2, 5), Some(100));
        assert_eq!(owner(2, 11), None, "a worker may have taken it, untold");
        assert_eq!(owner(13, 14), None, "it may be another's by now");
    }

    #[test]
    fn sockets_of_other_namespaces_have_no_address_here() {
        let (mut hooked, base) = (hooked(10), base());
        for (cookie, netns) in [(1, 7), (2, 1), (3, 8)] {
            let at = base + cookie * S;
            hooked.event(&OwnerEvent { netns, ..used(cookie, at, 100 * cookie as u32) });
        }
        let (from, to) = (base + 10 * S, base + 11 * S);
        assert_eq!(pid(&mut hooked, 0, from, to), Some(200), "ours alone, not ambiguous");
        assert_eq!(pid(&mut hooked, 3, from, to), Some(300), "by cookie");
    }

    #[test]
    fn sockets_whose_end_was_lost_make_room_before_those_in_use() {
        const MAX: u64 = 100;
        let (mut hooked, base) = (hooked(MAX as usize), base());
        for cookie in 1..=MAX {
            hooked.event(&event(CREATED, cookie, base, cookie as u32));
        }
        // Every tenth is in use by now one and now another process; of the rest nothing is heard.
        let in_use = || (10..=MAX).step_by(10);
        for round in 0..50 {
            let at = base + (round + 1) * S;
            for cookie in in_use() {
                hooked.event(&event(SENT, cookie, at, 5000 + (cookie + round) as u32));
            }
            let cookie = 1000 + round;
            hooked.event(&event(CREATED, cookie, at, cookie as u32));
            assert_eq!(pid(&mut hooked, cookie, at, at), Some(cookie as u32), "the new one");
        }
        let counters = hooked.counters();
        assert_eq!((counters.entries, counters.evicted_open), (MAX, 50));
        for cookie in in_use() {
            let user = pid(&mut hooked, cookie, base + 50 * S, base + 50 * S);
            assert_eq!(user, Some(5000 + cookie as u32 + 49));
        }
    }

    #[test]
    fn changes_of_users_are_bounded_and_what_is_forgotten_is_none() {
        const MAX: u64 = 100;
        let (mut hooked, base) = (hooked(MAX as usize), base());
        for change in 0..10 * MAX {
            hooked.event(&used(1, base + change * S / 20, 100 + change as u32 % 2));
        }
        assert_eq!(hooked.changes.len(), MAX as usize);
        assert_eq!(hooked.counters().uses_evicted, 9 * MAX - 1);
        assert_eq!(pid(&mut hooked, 1, base, base + S / 20), None, "either may have");
        assert_eq!(hooked.counters().ambiguous, 1);
        let last = base + (10 * MAX - 1) * S / 20;
        assert_eq!(pid(&mut hooked, 1, last, last), Some(101));
        assert_eq!(pid(&mut hooked, 1, last - S / 40, last - S / 40), Some(100));
    }

    #[test]
    fn programs_and_pids_of_one_tick_are_told_apart() {
        let (mut hooked, base) = (hooked(10), base());
        let started = |at: u64, start_ns, exec_id| OwnerEvent {
            start_ns,
            exec_id,
            name: [b'a' + at as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ..used(1, base + at * S, 100)
        };
        hooked.event(&started(1, 5000, 1));
        hooked.event(&started(2, 5000, 2));
        hooked.event(&started(3, 5001, 2));
        let conversation = Conversation { protocol: UDP, src: US, dst: THEM };
        let mut at = |from: u64, to: u64| {
            let sender = Sender { cookie: 1, first_ns: base + from * S, last_ns: base + to * S };
            let owners = hooked.owners(&conversation, [sender, Sender::default()], 0, 0);
            let owner = owners.src.expect("it is known");
            (owner.name, owner.shared)
        };
        assert_eq!(at(1, 1), ("b".to_owned(), None));
        assert_eq!(at(2, 2), ("c".to_owned(), None));
        assert_eq!(at(4, 5), ("d".to_owned(), None));
        let (users, others) =
            ("first of 3".to_owned(), vec!["100 c".to_owned(), "100 d".to_owned()]);
        assert_eq!(at(1, 5), ("b".to_owned(), Some(Shared { users, others })));
    }
}
