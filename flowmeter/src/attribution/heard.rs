//! Which process took a peer's datagrams, of those that share a port?

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::End;
use super::processes::Process;

/// Who has taken datagrams of which peers, by the port they came to.
pub(super) struct Heard {
    max_entries: usize,
    hearings: HashMap<(u16, End), VecDeque<Hearing>>,
    /// In the order they came.
    order: VecDeque<(u16, End)>,
    evictions: u64,
}

/// A process has taken a datagram out of a socket.
pub(super) struct Hearing {
    /// When; ns since the epoch.
    pub time_ns: u64,
    /// The socket.
    pub cookie: u64,
    pub process: Arc<Process>,
}

/// A datagram may lie in its socket for so long before a process takes it; ns. Then a later one of
/// the same peer, which another process took, could be mistaken for it.
const PATIENCE_NS: u64 = 1_000_000_000;

impl Heard {
    pub(super) fn new(max_entries: usize) -> Self {
        Self { max_entries, hearings: HashMap::new(), order: VecDeque::new(), evictions: 0 }
    }

    /// Takes in that a datagram of `peer` was taken out of a socket with the port.
    pub(super) fn take_in(&mut self, port: u16, peer: End, hearing: Hearing) {
        if self.order.len() >= self.max_entries {
            self.forget_oldest();
        }
        self.order.push_back((port, peer));
        let hearings = self.hearings.entry((port, peer));
        hearings.or_insert_with(|| VecDeque::with_capacity(1)).push_back(hearing);
    }

    /// The process that last took a datagram of `peer` to the port until `last_ns`, out of a socket
    /// of which `was_there` says so; if none had by then, the first that did soon after.
    pub(super) fn find(
        &self,
        port: u16,
        peer: End,
        last_ns: u64,
        was_there: impl Fn(&Hearing) -> bool,
    ) -> Option<&Process> {
        let hearings = || self.hearings.get(&(port, peer)).into_iter().flatten();
        let until = last_ns.saturating_add(PATIENCE_NS);
        let before = hearings().rev().find(|h| h.time_ns <= last_ns && was_there(h));
        let soon = |h: &&Hearing| h.time_ns > last_ns && h.time_ns <= until && was_there(h);
        let hearing = hearings().find(soon).filter(|_| before.is_none()).or(before)?;
        Some(&hearing.process)
    }

    /// Hearings forgotten to make room.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    fn forget_oldest(&mut self) {
        let Some(key) = self.order.pop_front() else { return };
        self.evictions += 1;
        if let Some(hearings) = self.hearings.get_mut(&key) {
            hearings.pop_front();
            if hearings.is_empty() {
                self.hearings.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(port: u16) -> End {
        ([192, 0, 2, 1].into(), port)
    }

    fn hearing(time_ns: u64, pid: u32) -> Hearing {
        let process =
            Process { pid, start_ticks: 1, name: format!("worker-{pid}"), reported: None };
        Hearing { time_ns, cookie: u64::from(pid), process: Arc::new(process) }
    }

    fn pid(heard: &Heard, peer: u16, last_ns: u64) -> Option<u32> {
        heard.find(53, end(peer), last_ns, |_| true).map(|process| process.pid)
    }

    #[test]
    fn each_peer_has_the_process_that_took_its_datagrams_at_the_time() {
        let mut heard = Heard::new(10);
        heard.take_in(53, end(1), hearing(1000, 1));
        heard.take_in(53, end(2), hearing(2000, 2));
        heard.take_in(53, end(1), hearing(5_000_000_000, 3));
        assert_eq!(pid(&heard, 1, 900), Some(1), "it lay in the socket for a moment");
        assert_eq!(pid(&heard, 1, 1100), Some(1));
        assert_eq!(pid(&heard, 2, 2100), Some(2));
        assert_eq!(pid(&heard, 1, 6_000_000_000), Some(3));
        assert_eq!(pid(&heard, 3, 1100), None);
        assert!(heard.find(53, end(2), 2100, |h| h.cookie != 2).is_none(), "closed before");
    }

    #[test]
    fn what_finds_no_room_pushes_out_the_oldest() {
        let mut heard = Heard::new(2);
        for peer in 1..=5 {
            heard.take_in(53, end(peer), hearing(1000, u32::from(peer)));
        }
        assert_eq!(heard.evictions(), 3);
        assert_eq!((heard.order.len(), heard.hearings.len()), (2, 2));
        assert_eq!((pid(&heard, 3, 1000), pid(&heard, 4, 1000)), (None, Some(4)));
    }
}
