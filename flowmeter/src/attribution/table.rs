//! Who owned this end of a flow, at that time?

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::addresses::Addresses;
use super::gaps::Gaps;
use super::processes::Process;
use super::sockets::{Key, Socket, TCP, UDP};
use super::{Conversation, End, Method, Owner, Owners};

/// How far apart a packet's time and a poll's may be for one instant: their clocks are mapped onto
/// each other, and a poll takes its time while it has only one.
const SLACK_NS: u64 = 20_000_000;

/// How long packets of a TCP connection may follow its socket's end: the kernel's TIME-WAIT.
const LINGER_NS: u64 = 60_000_000_000;

/// Sockets and their owners, open ones and for a while those that were.
///
/// All times are nanoseconds by the kernel's clock. A socket is known to have existed from the first to the
/// last poll that saw it, and possible from the poll before the first to the poll after the last.
#[derive(Debug)]
pub struct SocketTable {
    method: Method,
    max_entries: usize,
    retention_ns: u64,
    entries: HashMap<Key, Vec<Entry>>,
    len: usize,
    /// Closed entries, the first closed in front: the poll that missed them, where they are.
    closed: VecDeque<(u64, Key, u64)>,
    next_serial: u64,
    addresses: Addresses,
    /// When events were lost, if it is filled from events.
    pub(super) gaps: Gaps,
    polled_ns: u64,
    evictions: u64,
    refused: u64,
    ambiguous: u64,
}

#[derive(Debug)]
struct Entry {
    serial: u64,
    inode: u64,
    /// `None` if the process could not be found: then nobody else owns what is this socket's.
    process: Option<Arc<Process>>,
    not_before: u64,
    first_seen: u64,
    /// Last seen and the poll that missed it; `None` while it is open.
    closed: Option<(u64, u64)>,
}

/// A socket that was not in the table, or has another owner from now on.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub socket: Socket,
    pub process: Option<Arc<Process>>,
    /// The last poll without it; 0 if the first poll saw it.
    pub not_before: u64,
    pub first_seen: u64,
}

/// What one poll found different from the one before.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub now: u64,
    /// Sockets gone, or about to be opened again with another owner.
    pub closed: Vec<Socket>,
    pub opened: Vec<Opened>,
    pub addresses: Addresses,
}

impl SocketTable {
    /// An empty table of sockets found by `method`, of at most `max_entries` sockets, which remembers them for `retention` after
    /// they are gone. That should exceed the time from a flow's last packet until it is asked
    /// for, so the idle timeout and a sweep.
    pub fn new(method: Method, max_entries: usize, retention: Duration) -> Self {
        Self {
            method,
            max_entries,
            retention_ns: u64::try_from(retention.as_nanos()).unwrap_or(u64::MAX),
            entries: HashMap::new(),
            len: 0,
            closed: VecDeque::new(),
            next_serial: 0,
            addresses: Addresses::default(),
            gaps: Gaps::default(),
            polled_ns: 0,
            evictions: 0,
            refused: 0,
            ambiguous: 0,
        }
    }

    /// Who owned the ends of a flow whose first and last packet were at `first_ns` and `last_ns`.
    ///
    /// Per end: the socket connected to the other end; else the one bound to its address and
    /// port; else, if the address is this host's, the one bound to that port of all addresses.
    /// None when different processes qualify alike, unless they have the same name (workers
    /// on one port): then the one that started first. Costs a few hash look-ups.
    ///
    /// Approximate in that an IPv6 wildcard socket is taken for a dual-stack one, since
    /// `/proc/net/tcp6` does not tell.
    pub fn owners(&mut self, conversation: &Conversation, first_ns: u64, last_ns: u64) -> Owners {
        let Conversation { protocol, src, dst } = *conversation;
        let flow = Span::new(first_ns, last_ns);
        Owners {
            src: self.owner(protocol, src, dst, flow),
            dst: self.owner(protocol, dst, src, flow),
        }
    }

    /// Sockets in the table, open and closed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Closed sockets forgotten before their time to make room.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Open sockets not taken in because all in the table were open, too.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Ends without an owner because several qualified.
    pub fn ambiguous(&self) -> u64 {
        self.ambiguous
    }

    /// Takes in what a poll has found; costs by the number of changes, not of sockets.
    pub(super) fn apply(&mut self, changes: Changes) {
        let Changes { now, closed, opened, addresses } = changes;
        for socket in closed {
            self.close(socket, now);
        }
        for opened in opened {
            self.open(opened);
        }
        while let Some(&(gone, ..)) = self.closed.front()
            && gone.saturating_add(self.retention_ns) < now
        {
            self.forget_oldest();
        }
        self.addresses = addresses;
        self.polled_ns = now;
    }

    pub(super) fn open(&mut self, opened: Opened) {
        if self.len >= self.max_entries {
            if !self.forget_oldest() {
                self.refused += 1;
                return;
            }
            self.evictions += 1;
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        self.len += 1;
        // Nearly every key has one entry, and Vec's first growth would be to four.
        let entries = self.entries.entry(opened.socket.key);
        let entries = entries.or_insert_with(|| Vec::with_capacity(1));
        entries.push(Entry {
            serial,
            inode: opened.socket.inode,
            process: opened.process,
            not_before: opened.not_before,
            first_seen: opened.first_seen,
            closed: None,
        });
    }

    pub(super) fn close(&mut self, socket: Socket, now: u64) {
        let entries = self.entries.get_mut(&socket.key);
        let entry = entries
            .into_iter()
            .flatten()
            .find(|entry| entry.inode == socket.inode && entry.closed.is_none());
        let Some(entry) = entry else {
            return; // It was refused.
        };
        // Whoever has the socket from now on does not have it together with this one.
        let last_seen = self.polled_ns.max(entry.first_seen).min(now.saturating_sub(1));
        entry.closed = Some((last_seen, now));
        self.closed.push_back((now, socket.key, entry.serial));
    }

    /// Forgets a socket that is open.
    pub(super) fn forget(&mut self, socket: Socket) {
        let Some(entries) = self.entries.get_mut(&socket.key) else { return };
        let before = entries.len();
        entries.retain(|entry| entry.inode != socket.inode || entry.closed.is_some());
        self.len -= before - entries.len();
        if entries.is_empty() {
            self.entries.remove(&socket.key);
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, key, serial)) = self.closed.pop_front() else {
            return false;
        };
        if let Some(entries) = self.entries.get_mut(&key) {
            entries.retain(|entry| entry.serial != serial);
            if entries.is_empty() {
                self.entries.remove(&key);
            }
        }
        self.len -= 1;
        true
    }

    fn owner(&mut self, protocol: u8, local: End, remote: End, flow: Span) -> Option<Owner> {
        // 0.0.0.0 is whoever has no address yet: as well a DHCP client elsewhere as ours.
        if !matches!(protocol, TCP | UDP) || local.0.is_unspecified() {
            return None;
        }
        let (ip, port) = local;
        let key = |ip: IpAddr, remote| Key { protocol, local: (ip, port), remote };
        let any4 = key(Ipv4Addr::UNSPECIFIED.into(), None);
        let any6 = key(Ipv6Addr::UNSPECIFIED.into(), None);
        let bound = [key(ip, Some(remote)), key(ip, None)];
        let wildcard: &[Key] = match ip {
            _ if !self.reaches_us(ip, remote.0) => &[],
            IpAddr::V4(_) => &[any4, any6],
            IpAddr::V6(_) => &[any6],
        };
        let verdict = bound.iter().chain(wildcard).find_map(|key| self.pick(key, flow))?;
        match verdict {
            Verdict::Owner(process) => Some(process.owner(self.method)),
            Verdict::Unknown => None,
            Verdict::Ambiguous => {
                self.ambiguous += 1;
                None
            }
        }
    }

    /// Would a socket bound to all addresses get packets to `ip`? To a group's address only what
    /// others send: our own packets to it have their owner at the other end.
    pub(super) fn reaches_us(&self, ip: IpAddr, other: IpAddr) -> bool {
        self.addresses.is_own(ip) || self.addresses.is_group(ip) && !self.addresses.is_own(other)
    }

    /// Decides among the sockets of one key; `None` if none existed at the time.
    fn pick(&self, key: &Key, flow: Span) -> Option<Verdict> {
        let candidates = self.entries.get(key)?;
        let known = |e: &Entry| e.known(&self.gaps);
        let possible = |e: &Entry| e.possible(key, &self.gaps);
        // Who has taken a listener's connection, or a datagram, may be reported at any time until the
        // flow has ended: its first packet may have been sent again and again.
        let is_told = |e: &Entry| key.remote.is_some() || e.certain(&self.gaps) >= flow.to;
        let candidates = || candidates.iter().filter(|e| possible(e).meets(flow) && is_told(e));
        let rank = |e: &Entry| (known(e).overlap(flow), possible(e).overlap(flow));
        let best = candidates().max_by_key(|e| (rank(e), e.serial))?;
        let Some(process) = &best.process else {
            return Some(Verdict::Unknown);
        };
        let mut oldest = process;
        for rival in candidates() {
            let together = known(rival).meets(known(best));
            if !together && rank(rival) != rank(best) {
                continue;
            }
            match &rival.process {
                Some(p) if p.is(process) => {}
                Some(p) if together && p.name == process.name => {
                    if (p.start_ticks, p.pid) < (oldest.start_ticks, oldest.pid) {
                        oldest = p;
                    }
                }
                _ => return Some(Verdict::Ambiguous),
            }
        }
        Some(Verdict::Owner(Arc::clone(oldest)))
    }
}

enum Verdict {
    Owner(Arc<Process>),
    /// A socket of a process that we could not find.
    Unknown,
    Ambiguous,
}

impl Entry {
    /// When it was there for certain.
    fn known(&self, gaps: &Gaps) -> Span {
        let open = || gaps.certain_until(self.first_seen);
        Span::new(self.first_seen, self.closed.map_or_else(open, |(last, _)| last))
    }

    /// Until when all was told that became of it.
    fn certain(&self, gaps: &Gaps) -> u64 {
        gaps.certain_until(self.closed.map_or(self.first_seen, |(_, gone)| gone))
    }

    /// When it may have been there, or packets of it on the way. Not after events were lost: it
    /// may have, but so may others.
    fn possible(&self, key: &Key, gaps: &Gaps) -> Span {
        let connection = key.protocol == TCP && key.remote.is_some();
        let linger = if connection { LINGER_NS } else { 0 };
        let to = self
            .closed
            .map_or(u64::MAX, |(_, gone)| gone.saturating_add(SLACK_NS).saturating_add(linger));
        Span::new(self.not_before.saturating_sub(SLACK_NS), to.min(self.certain(gaps)))
    }
}

/// From an instant to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: u64,
    to: u64,
}

impl Span {
    /// If the clock was set back in between, no more than the first instant.
    fn new(from: u64, to: u64) -> Self {
        Self { from, to: to.max(from) }
    }

    /// Nanoseconds in common; at least 1 if they meet.
    fn overlap(self, other: Self) -> u64 {
        let from = self.from.max(other.from);
        let to = self.to.min(other.to);
        to.checked_sub(from).map_or(0, |ns| ns.saturating_add(1))
    }

    fn meets(self, other: Self) -> bool {
        self.overlap(other) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const US: &str = "10.0.0.1:53";
    const THEM: &str = "10.0.0.2:4000";

    fn end(text: &str) -> End {
        let end: std::net::SocketAddr = text.parse().expect("an address");
        (end.ip(), end.port())
    }

    fn process(pid: u32, name: &str) -> Arc<Process> {
        Arc::new(Process { pid, start_ticks: u64::from(pid), name: name.into(), reported: None })
    }

    /// A table that is given sockets by name, `10.0.0.1` being this host's only address.
    struct Story {
        table: SocketTable,
        now: u64,
        protocol: u8,
    }

    impl Story {
        fn new(protocol: u8) -> Self {
            let mut story = Self {
                table: SocketTable::new(Method::Procfs, 100, Duration::from_mins(5)),
                now: 0,
                protocol,
            };
            story.poll(1, &[], &[]);
            story
        }

        fn socket(&self, inode: u64, local: &str, remote: Option<&str>) -> Socket {
            Socket {
                key: Key { protocol: self.protocol, local: end(local), remote: remote.map(end) },
                inode,
            }
        }

        /// A poll at a second that finds some sockets closed and some opened.
        fn poll(
            &mut self,
            second: u64,
            closed: &[Socket],
            opened: &[(Socket, Option<Arc<Process>>)],
        ) {
            let before = self.now;
            self.now = second * S;
            self.table.apply(Changes {
                now: self.now,
                closed: closed.to_vec(),
                opened: opened
                    .iter()
                    .map(|(socket, process)| Opened {
                        socket: *socket,
                        process: process.clone(),
                        not_before: before,
                        first_seen: self.now,
                    })
                    .collect(),
                addresses: Addresses::of(&[[10, 0, 0, 1].into()]),
            });
        }

        fn pids(
            &mut self,
            src: &str,
            dst: &str,
            first: u64,
            last: u64,
        ) -> (Option<u32>, Option<u32>) {
            let conversation =
                Conversation { protocol: self.protocol, src: end(src), dst: end(dst) };
            let owners = self.table.owners(&conversation, first, last);
            (owners.src.map(|o| o.pid), owners.dst.map(|o| o.pid))
        }
    }

    #[test]
    fn a_connection_before_a_listener_and_only_at_its_own_end() {
        let mut story = Story::new(TCP);
        let listener = story.socket(1, "0.0.0.0:53", None);
        let connection = story.socket(2, US, Some(THEM));
        story.poll(2, &[], &[(listener, Some(process(7, "listener")))]);
        story.poll(3, &[], &[(connection, Some(process(8, "worker")))]);

        assert_eq!(story.pids(THEM, US, 3 * S, 4 * S), (None, Some(8)));
        assert_eq!(story.pids("10.0.0.2:4001", US, 3 * S, 4 * S), (None, Some(7)));
        // The other way round it is somebody else's port 53.
        assert_eq!(story.pids("10.0.0.1:4000", "10.0.0.2:53", 3 * S, 4 * S), (None, None));
    }

    #[test]
    fn bound_sockets_before_wildcards_and_ipv4_before_ipv6() {
        let mut story = Story::new(UDP);
        let any6 = story.socket(1, "[::]:53", None);
        let any4 = story.socket(2, "0.0.0.0:53", None);
        let bound = story.socket(3, US, None);
        story.poll(2, &[], &[(any6, Some(process(6, "six")))]);
        assert_eq!(story.pids(US, THEM, 2 * S, 3 * S), (Some(6), None));
        story.poll(4, &[], &[(any4, Some(process(4, "four")))]);
        assert_eq!(story.pids(US, THEM, 4 * S, 5 * S), (Some(4), None));
        story.poll(6, &[], &[(bound, Some(process(3, "bound")))]);
        assert_eq!(story.pids(US, THEM, 6 * S, 7 * S), (Some(3), None));
        assert_eq!(story.pids("127.0.0.1:53", THEM, 6 * S, 7 * S), (Some(4), None));
    }

    #[test]
    fn a_socket_of_nobody_we_know_hides_the_wildcard_behind_it() {
        let mut story = Story::new(UDP);
        let wildcard = story.socket(1, "0.0.0.0:53", None);
        let bound = story.socket(2, US, None);
        story.poll(2, &[], &[(wildcard, Some(process(4, "four"))), (bound, None)]);
        assert_eq!(story.pids(US, THEM, 2 * S, 3 * S), (None, None));
    }

    #[test]
    fn groups_are_ours_when_others_send() {
        let mut story = Story::new(UDP);
        let mdns = story.socket(1, "0.0.0.0:5353", None);
        story.poll(2, &[], &[(mdns, Some(process(9, "avahi")))]);
        let group = "224.0.0.251:5353";
        assert_eq!(story.pids("10.0.0.2:5353", group, 2 * S, 2 * S), (None, Some(9)));
        assert_eq!(story.pids("10.0.0.1:5353", group, 2 * S, 2 * S), (Some(9), None));
        assert_eq!(story.pids("0.0.0.0:5353", group, 2 * S, 2 * S), (None, Some(9)));
    }

    #[test]
    fn a_port_used_again_is_told_apart_by_time() {
        let mut story = Story::new(UDP);
        let old = story.socket(1, US, None);
        let new = story.socket(2, US, None);
        story.poll(10, &[], &[(old, Some(process(1000, "old")))]);
        story.poll(20, &[], &[]);
        story.poll(30, &[old], &[(new, Some(process(2000, "new")))]);

        assert_eq!(story.pids(US, THEM, 12 * S, 13 * S).0, Some(1000));
        assert_eq!(story.pids(US, THEM, 31 * S, 40 * S).0, Some(2000));
        // Begins while the old one is known and ends before the new one is.
        assert_eq!(story.pids(US, THEM, 19 * S, 25 * S).0, Some(1000));
        // Between two polls it could be either's.
        assert_eq!(story.table.ambiguous(), 0);
        assert_eq!(story.pids(US, THEM, 24 * S, 25 * S).0, None);
        assert_eq!(story.table.ambiguous(), 1);
        // Before either's time.
        assert_eq!(story.pids(US, THEM, 0, S / 2).0, None);
    }

    #[test]
    fn workers_on_one_port_are_one_program_but_two_programs_are_none() {
        let mut story = Story::new(UDP);
        let sockets: Vec<_> = (1..=3).map(|inode| story.socket(inode, US, None)).collect();
        story.poll(
            2,
            &[],
            &[
                (sockets[0], Some(process(21, "unbound"))),
                (sockets[1], Some(process(20, "unbound"))),
            ],
        );
        assert_eq!(story.pids(US, THEM, 2 * S, 3 * S).0, Some(20));
        story.poll(3, &[], &[(sockets[2], Some(process(5, "other")))]);
        assert_eq!(story.pids(US, THEM, 2 * S, 4 * S).0, None);
    }

    #[test]
    fn closed_sockets_are_kept_for_their_time_and_tcp_lingers() {
        let mut story = Story::new(TCP);
        let connection = story.socket(1, US, Some(THEM));
        story.poll(10, &[], &[(connection, Some(process(7, "curl")))]);
        story.poll(11, &[connection], &[]);
        assert_eq!(story.pids(US, THEM, 10 * S, 11 * S).0, Some(7));
        assert_eq!(story.pids(US, THEM, 70 * S, 70 * S).0, Some(7));
        assert_eq!(story.pids(US, THEM, 72 * S, 72 * S).0, None);
        story.poll(311, &[], &[]);
        assert_eq!(story.pids(US, THEM, 10 * S, 11 * S).0, Some(7));
        story.poll(312, &[], &[]);
        assert_eq!(story.pids(US, THEM, 10 * S, 11 * S).0, None);
        assert!(story.table.len() == 0 && story.table.entries.is_empty());
        assert_eq!(story.table.evictions(), 0);
    }

    #[test]
    fn a_full_table_forgets_the_closed_and_refuses_beyond_the_open() {
        let mut story = Story::new(TCP);
        story.table.max_entries = 2;
        let sockets: Vec<_> =
            (1..=4).map(|i| story.socket(i, US, Some(&format!("10.0.0.2:{i}")))).collect();
        let owner = Some(process(7, "curl"));
        story.poll(2, &[], &[(sockets[0], owner.clone()), (sockets[1], owner.clone())]);
        story.poll(3, &[sockets[0]], &[(sockets[2], owner.clone())]);
        story.poll(4, &[], &[(sockets[3], owner)]);
        // What was refused is closed without harm.
        story.poll(5, &[sockets[3]], &[]);
        let table = &story.table;
        assert_eq!((table.len(), table.evictions(), table.refused()), (2, 1, 1));
        assert_eq!(story.pids(US, "10.0.0.2:1", 2 * S, 2 * S).0, None);
        assert_eq!(story.pids(US, "10.0.0.2:2", 2 * S, 2 * S).0, Some(7));
        assert_eq!(story.pids(US, "10.0.0.2:3", 3 * S, 3 * S).0, Some(7));
    }
}
