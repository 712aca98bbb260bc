//! When is procfs polled?

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::procfs::{Polled, Procfs};
use super::table::{Changes, SocketTable};
use super::{Conversation, Error, Method, Owners, Profiles, Sighting};
use crate::capture::kernel::Clock;

/// A poll may take this share of the time, of one core; if it takes longer, the next one waits.
const MAX_DUTY: u32 = 5;

/// What attribution may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a socket is remembered after it is gone. Should exceed the idle timeout, as an
    /// idle flow is asked for only then.
    pub retention: Duration,
    /// Sockets in memory, open ones and remembered ones, of some 500 bytes each.
    pub max_entries: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { retention: Duration::from_mins(5), max_entries: 65_536 }
    }
}

/// What the poller has done since the start, unless stated otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Polls done.
    pub polls: u64,
    /// Polls that failed, procfs not being readable.
    pub failed_polls: u64,
    /// Polls that had to look through all processes' descriptors.
    pub scans: u64,
    /// Polls after which the next was put off, to take no more than a fifth of a core.
    pub delayed: u64,
    /// Open sockets at the last poll.
    pub sockets: u64,
    /// Open sockets at the last poll whose process is not known.
    pub ownerless: u64,
    /// Open sockets at the last poll beyond [`Options::max_entries`].
    pub beyond_limit: u64,
    /// Processes that did not let us see their descriptors at the last scan.
    pub unreadable: u64,
    /// Lines that made no sense, in all polls.
    pub malformed: u64,
    /// Sockets in memory, open and closed.
    pub entries: u64,
    /// Closed sockets forgotten before their time to make room.
    pub evictions: u64,
    /// Open sockets not taken in as the table was full of open ones.
    pub refused: u64,
    /// Flow ends without an owner because several qualified.
    pub ambiguous: u64,
    /// How long the longest took.
    pub longest_poll: Duration,
}

/// A thread that polls, and what it has found.
#[derive(Debug)]
pub struct Poller {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Poller {
    /// Polls once, so that what is already open is known on return, and then every `interval`. Times
    /// are by `clock`. The `profiles` of the processes that are found are read at once: they may be
    /// gone when their flows end.
    pub fn start(
        interval: Duration,
        options: Options,
        clock: Clock,
        profiles: Option<Profiles>,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            clock,
            profiles,
            table: Mutex::new(SocketTable::new(
                Method::Procfs,
                options.max_entries,
                options.retention,
            )),
            counters: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let mut procfs = Procfs::new(Path::new("/proc"), options.max_entries);
        let took = shared.poll(&mut procfs)?;
        let thread = thread::Builder::new().name("attribution".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(&mut procfs, interval, took)
        });
        Ok(Self { shared, thread: Some(thread.map_err(Error::Thread)?) })
    }

    /// See `SocketTable::owners`. Waits at most while the changes of a poll are taken in.
    pub fn owners(&self, conversation: &Conversation, first_ns: u64, last_ns: u64) -> Owners {
        lock(&self.shared.table).owners(conversation, first_ns, last_ns)
    }

    /// What has been done so far.
    pub fn counters(&self) -> Counters {
        let table = lock(&self.shared.table);
        Counters {
            entries: table.len() as u64,
            evictions: table.evictions(),
            refused: table.refused(),
            ambiguous: table.ambiguous(),
            ..*lock(&self.shared.counters)
        }
    }

    /// Ends the thread, within about the time it takes to look at one process, as does dropping
    /// the poller. What was found can still be asked for.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It fails only by a panic, which has been reported by then.
            let _ = thread.join();
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    profiles: Option<Profiles>,
    table: Mutex<SocketTable>,
    counters: Mutex<Counters>,
    stop: AtomicBool,
}

impl Shared {
    fn run(&self, procfs: &mut Procfs, interval: Duration, first_took: Duration) {
        let mut took = first_took;
        loop {
            let rest = took * (MAX_DUTY - 1);
            if rest > interval {
                lock(&self.counters).delayed += 1;
            }
            if !self.sleep(interval.max(rest)) {
                return;
            }
            let started = Instant::now();
            took = self.poll(procfs).unwrap_or_else(|_| {
                // Nothing to do about it but to try again; who looks at the counters sees it.
                lock(&self.counters).failed_polls += 1;
                started.elapsed()
            });
        }
    }

    /// False if woken up to stop.
    fn sleep(&self, time: Duration) -> bool {
        let started = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let left = time.saturating_sub(started.elapsed());
            if left.is_zero() {
                return true;
            }
            thread::park_timeout(left);
        }
        false
    }

    fn poll(&self, procfs: &mut Procfs) -> Result<Duration, Error> {
        let started = Instant::now();
        let (changes, polled) = procfs.poll(self.clock.now_ns(), &self.stop)?;
        if let Some(profiles) = &self.profiles {
            let found = changes.opened.iter().filter_map(|opened| opened.process.as_ref());
            found.for_each(|process| drop(profiles.get(Sighting::found(process, changes.now))));
        }
        self.publish(changes);
        let took = started.elapsed();
        lock(&self.counters).add(&polled, took);
        Ok(took)
    }

    fn publish(&self, changes: Changes) {
        lock(&self.table).apply(changes);
    }
}

impl Counters {
    fn add(&mut self, polled: &Polled, took: Duration) {
        self.polls += 1;
        self.scans += u64::from(polled.scanned);
        self.sockets = polled.sockets;
        self.ownerless = polled.ownerless;
        self.beyond_limit = polled.beyond_limit;
        self.malformed += polled.malformed;
        if polled.scanned {
            self.unreadable = polled.unreadable;
        }
        self.longest_poll = self.longest_poll.max(took);
    }
}

/// The lock, also after a panic of the other thread: no change to what it guards is left half
/// done in a way that matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::process::{Command, Stdio};

    use flowmeter_common::owner::Ids;

    use super::*;
    use crate::attribution::processes::Processes;
    use crate::attribution::{Method, Owner};

    const TCP: u8 = 6;
    const UDP: u8 = 17;

    fn start(interval: Duration) -> Poller {
        Poller::start(interval, Options::default(), Clock::default(), None)
            .expect("procfs is mounted")
    }

    /// A poller that has seen what is open now, and will see no more.
    fn poll_once() -> Poller {
        start(Duration::from_hours(1))
    }

    fn conversation(protocol: u8, src: SocketAddr, dst: SocketAddr) -> Conversation {
        Conversation { protocol, src: (src.ip(), src.port()), dst: (dst.ip(), dst.port()) }
    }

    fn now_ns() -> u64 {
        Clock::default().now_ns()
    }

    fn owners_now(poller: &Poller, conversation: &Conversation) -> Owners {
        let now = now_ns();
        poller.owners(conversation, now, now)
    }

    fn us() -> Owner {
        let pid = std::process::id();
        let name = std::fs::read_to_string("/proc/self/comm").expect("procfs is mounted");
        owner(pid, name.trim_end())
    }

    fn owner(pid: u32, name: &str) -> Owner {
        let process = Processes::new(Path::new("/proc")).get(pid);
        let start_ticks = process.map_or(0, |process| process.start_ticks);
        Owner {
            pid,
            name: name.to_owned(),
            method: Method::Procfs,
            start_ticks,
            reported: None,
            ids: Ids::default(),
            user: None,
            shared: None,
            is_peers: false,
            profile: None,
        }
    }

    fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn both_ends_of_a_tcp_connection_over_loopback_during_and_after() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                eprintln!("not run with {address}: this host has no such address");
                continue;
            };
            let client =
                TcpStream::connect(listener.local_addr().expect("bound")).expect("listens");
            let (server, _) = listener.accept().expect("connected");
            let flow = conversation(
                TCP,
                client.local_addr().expect("bound"),
                client.peer_addr().expect("connected"),
            );
            let mut poller = start(Duration::from_millis(5));
            let both = Owners { src: Some(us()), dst: Some(us()) };
            assert_eq!(owners_now(&poller, &flow), both);
            let then = now_ns();

            drop((client, server, listener));
            let polls = poller.counters().polls;
            wait_for("the poller goes on", || poller.counters().polls > polls + 2);
            assert_eq!(poller.owners(&flow, then, then), both, "after the close");
            poller.stop();
        }
    }

    #[test]
    fn an_ipv4_client_of_a_dual_stack_server() {
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            eprintln!("not run: this host has no IPv6");
            return;
        };
        let port = listener.local_addr().expect("bound").port();
        let client = TcpStream::connect(("127.0.0.1", port)).expect("dual stack");
        let accepted = listener.accept().expect("connected");
        let flow = conversation(
            TCP,
            client.local_addr().expect("bound"),
            client.peer_addr().expect("connected"),
        );
        let poller = poll_once();
        assert_eq!(owners_now(&poller, &flow), Owners { src: Some(us()), dst: Some(us()) });
        drop(accepted);
    }

    #[test]
    fn udp_sockets_bound_to_all_addresses_own_our_end_only() {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        let port = socket.local_addr().expect("bound").port();
        let ours = SocketAddr::from(([127, 0, 0, 1], port));
        let theirs = SocketAddr::from(([192, 0, 2, 1], port));
        let poller = poll_once();
        let owners = owners_now(&poller, &conversation(UDP, ours, theirs));
        assert_eq!(owners, Owners { src: Some(us()), dst: None });
        // The same port, but of TCP.
        let owners = owners_now(&poller, &conversation(TCP, ours, theirs));
        assert_eq!(owners, Owners::default());
    }

    #[test]
    fn a_process_that_has_exited() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        // bash connects by itself, says so, and ends when its input does.
        let child = Command::new("bash")
            .args(["-c", &format!("exec 9<>/dev/tcp/127.0.0.1/{port}; echo; read -r")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("not run: no bash here");
            return;
        };
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut String::new()).expect("connected");
        let (mut server, peer) = listener.accept().expect("connected");
        let flow = conversation(TCP, peer, server.local_addr().expect("bound"));

        let poller = start(Duration::from_millis(5));
        let first = now_ns();
        let bash = owner(child.id(), "bash");
        drop(child.stdin.take());
        child.wait().expect("ends");
        assert_eq!(server.read(&mut [0]).expect("closed"), 0);
        let last = now_ns();
        let polls = poller.counters().polls;
        wait_for("the poller goes on", || poller.counters().polls > polls + 2);

        let expected = Owners { src: Some(bash), dst: Some(us()) };
        assert_eq!(poller.owners(&flow, first, last), expected);
    }

    #[test]
    fn stops_promptly_though_the_interval_is_long() {
        let mut poller = poll_once();
        let started = Instant::now();
        poller.stop();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(poller.counters().polls, 1);
    }
}
