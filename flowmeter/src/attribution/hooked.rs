//! Which process had a socket, as the kernel told when it happened?

use std::collections::VecDeque;
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowmeter_common::owner::{HEARD, OwnerEvent, RELEASED};
use flowmeter_common::packet::Address;
use hashbrown::HashMap;

use super::addresses::Addresses;
use super::heard::{Heard, Hearing};
use super::poller::wall_clock_ns;
use super::processes::Process;
use super::sockets::{Key, Socket, TCP, UDP};
use super::table::{Changes, Opened, SocketTable};
use super::{Conversation, End, Method, Options, Owner, Owners, ProcessKey, Told};

/// Sockets by cookie and by address, open ones and for a while those that were.
pub struct Hooked {
    max_entries: usize,
    retention_ns: u64,
    by_cookie: HashMap<u64, Known>,
    /// Closed sockets, the first closed in front.
    closed: VecDeque<(u64, u64)>,
    by_address: SocketTable,
    heard: Heard,
    /// Only the sockets of this namespace have addresses that mean something here.
    netns: u32,
    addresses_read: Option<Instant>,
    evictions: u64,
    refused: u64,
}

/// What is known of a socket.
struct Known {
    process: Arc<Process>,
    /// As it stands in the table by address.
    key: Option<Key>,
    /// When its last descriptor was closed; ns since the epoch.
    closed_ns: Option<u64>,
}

/// What has been done, and what was lost by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookedCounters {
    /// Sockets in memory, open and closed.
    pub entries: u64,
    /// Closed sockets forgotten before their time to make room.
    pub evictions: u64,
    /// Sockets not taken in as all in memory were open ones.
    pub refused: u64,
    /// Flow ends without an owner because several qualified.
    pub ambiguous: u64,
}

/// This host's addresses are read so often.
const ADDRESSES: Duration = Duration::from_secs(1);

/// A clock tick, in which procfs tells when a process started; ns.
const TICK_NS: u64 = 10_000_000;

impl Hooked {
    /// Nothing is known yet.
    pub fn new(options: Options) -> Self {
        let retention_ns = u64::try_from(options.retention.as_nanos()).unwrap_or(u64::MAX);
        Self {
            max_entries: options.max_entries,
            retention_ns,
            by_cookie: HashMap::new(),
            closed: VecDeque::new(),
            by_address: SocketTable::new(Method::Socket, options.max_entries, options.retention),
            heard: Heard::new(options.max_entries),
            netns: fs::metadata("/proc/self/ns/net").map_or(0, |meta| meta.ino() as u32),
            addresses_read: None,
            evictions: 0,
            refused: 0,
        }
    }

    /// Takes an event in, and says which process it tells of.
    pub fn event(&mut self, event: &OwnerEvent) -> ProcessKey {
        let process = ProcessKey { pid: event.pid, start_ticks: event.start_ns / TICK_NS };
        self.take(event);
        process
    }

    fn take(&mut self, event: &OwnerEvent) {
        self.age(event.time_ns);
        if event.kind == RELEASED {
            self.close(event);
            return;
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
            let is_same = known.process.is(&process) && (key.is_none() || known.key == key);
            known.process = Arc::clone(&process);
            if is_same {
                return;
            }
            let old = known.key;
            known.key = key.or(old);
            if let Some(key) = old {
                self.by_address.close(Socket { key, inode: event.cookie }, event.time_ns);
            }
        } else {
            if self.by_cookie.len() >= self.max_entries && !self.forget_oldest() {
                self.refused += 1;
                return;
            }
            self.by_cookie.insert(
                event.cookie,
                Known { process: Arc::clone(&process), key, closed_ns: None },
            );
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

    /// Who had the ends of a flow: of each the one whose socket has the cookie (0 = not known), or
    /// else the address. See [`SocketTable::owners`].
    pub fn owners(
        &mut self,
        conversation: &Conversation,
        cookies: [u64; 2],
        first_ns: u64,
        last_ns: u64,
    ) -> Owners {
        let [src, dst] = cookies.map(|cookie| {
            let known = self.by_cookie.get(&cookie)?;
            Some(known.process.owner(Method::Socket))
        });
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

    /// Who has taken datagrams of `remote` to `local`, where several processes may.
    fn heard(&self, protocol: u8, local: End, remote: End, first: u64, last: u64) -> Option<Owner> {
        if protocol != UDP || !self.by_address.reaches_us(local.0, remote.0) {
            return None;
        }
        let was_there = |hearing: &Hearing| {
            let known = self.by_cookie.get(&hearing.cookie);
            known.is_some_and(|known| known.closed_ns.is_none_or(|closed| closed >= first))
        };
        let process = self.heard.find(local.1, remote, last, was_there)?;
        Some(process.owner(Method::Socket))
    }

    /// What has been done so far.
    pub fn counters(&self) -> HookedCounters {
        HookedCounters {
            entries: self.by_cookie.len() as u64,
            evictions: self.evictions + self.heard.evictions(),
            refused: self.refused + self.by_address.refused(),
            ambiguous: self.by_address.ambiguous(),
        }
    }

    /// The process of an event; the same as before if it is.
    fn process(&self, event: &OwnerEvent) -> Arc<Process> {
        let told = Told {
            start_ns: event.start_ns,
            parent: event.parent,
            uid: event.uid,
            gid: event.gid,
            cgroup: event.cgroup,
            thread: text(&event.thread),
        };
        let process = Process {
            pid: event.pid,
            start_ticks: event.start_ns / TICK_NS,
            name: text(&event.name),
            told: Some(told),
        };
        match self.by_cookie.get(&event.cookie) {
            Some(known) if *known.process == process => Arc::clone(&known.process),
            _ => Arc::new(process),
        }
    }

    /// The addresses of a socket of this namespace, if it has any yet.
    fn key(&self, event: &OwnerEvent) -> Option<Key> {
        let is_ours = event.netns == self.netns || event.netns == 0 || self.netns == 0;
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

    fn forget_oldest(&mut self) -> bool {
        let forgotten = self.forget_closed();
        self.evictions += u64::from(forgotten);
        forgotten
    }

    fn forget_closed(&mut self) -> bool {
        let closed = self.closed.pop_front();
        closed.is_some_and(|(_, cookie)| self.by_cookie.remove(&cookie).is_some())
    }

    fn read_addresses(&mut self) {
        if self.addresses_read.is_some_and(|at| at.elapsed() < ADDRESSES) {
            return;
        }
        self.addresses_read = Some(Instant::now());
        let now = wall_clock_ns();
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
