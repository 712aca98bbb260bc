//! Who looks at the sockets, and when?

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use super::sockets::Lookup;
use super::table::SocketTable;
use super::{Conversation, Owners, addresses};

/// A thread that polls procfs for sockets, and what it has found.
pub struct Poller {
    shared: Arc<Shared>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    table: Mutex<SocketTable>,
    polls: AtomicU64,
    nanoseconds: AtomicU64,
}

/// What the poller has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Polls made.
    pub polls: u64,
    /// Time spent on them.
    pub time: Duration,
    /// Bindings remembered.
    pub bindings: usize,
    /// Bindings forgotten because there were too many.
    pub evicted: u64,
}

/// Bindings that are remembered.
const MAX_BINDINGS: usize = 65_536;

impl Poller {
    /// Polls once, then goes on every `interval`.
    pub fn start(interval: Duration) -> io::Result<Self> {
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let shared = Arc::new(Shared {
            table: Mutex::new(SocketTable::new(MAX_BINDINGS, interval_ns)),
            polls: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
        });
        let mut lookup = Lookup::default();
        shared.poll(&mut lookup);
        let (stop, stopped) = mpsc::channel();
        let polled = Arc::clone(&shared);
        let thread = thread::Builder::new().name("sockets".into()).spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                polled.poll(&mut lookup);
            }
        })?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// The owners of a flow that had packets from `first_ns` to `last_ns`; ns since the epoch.
    pub fn owners(&self, flow: &Conversation, first_ns: u64, last_ns: u64) -> Owners {
        // A poll that panicked leaves the table whole: it is changed last.
        let table = self.shared.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.owners(flow, first_ns, last_ns)
    }

    /// What has been done.
    pub fn counters(&self) -> Counters {
        let table = self.shared.table.lock().unwrap_or_else(PoisonError::into_inner);
        Counters {
            polls: self.shared.polls.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.shared.nanoseconds.load(Ordering::Relaxed)),
            bindings: table.len(),
            evicted: table.evicted(),
        }
    }
}

impl Shared {
    fn poll(&self, lookup: &mut Lookup) {
        let begun = SystemTime::now();
        let sockets = lookup.poll();
        let addresses = addresses::own();
        let now = begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .update(sockets, addresses, now_ns);
        let taken = begun.elapsed().unwrap_or_default();
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(taken.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop = None; // the thread's wait ends
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::attribution::Endpoint;

    fn now_ns() -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos() as u64)
    }

    fn pids(poller: &Poller, protocol: u8, src: Endpoint, dst: Endpoint) -> [Option<u32>; 2] {
        let owners = poller.owners(&Conversation { protocol, src, dst }, now_ns(), now_ns());
        [owners.src.map(|o| o.pid), owners.dst.map(|o| o.pid)]
    }

    fn end(address: io::Result<std::net::SocketAddr>) -> Endpoint {
        let address = address.expect("a bound socket has an address");
        (address.ip(), address.port())
    }

    #[test]
    fn both_ends_of_a_local_connection_are_found_and_remembered() {
        let us = Some(std::process::id());
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue }; // no IPv6 here
            let address = listener.local_addr().expect("it is bound");
            let client = TcpStream::connect(address).expect("it listens");
            let (server, _) = listener.accept().expect("the client has connected");
            let poller = Poller::start(Duration::from_mins(1)).expect("a thread starts");
            let (src, dst) = (end(client.local_addr()), end(client.peer_addr()));
            drop((client, server));
            assert_eq!(pids(&poller, 6, src, dst), [us, us]);
        }
    }

    #[test]
    fn a_udp_server_is_found_by_its_port() {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        let poller = Poller::start(Duration::from_mins(1)).expect("a thread starts");
        let port = end(socket.local_addr()).1;
        let pids = pids(&poller, 17, ([192, 0, 2, 1].into(), 9), ([127, 0, 0, 1].into(), port));
        assert_eq!(pids, [None, Some(std::process::id())]);
    }
}
