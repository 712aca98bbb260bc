//! What has changed among the sockets since the last poll?

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Error;
use super::addresses::Addresses;
use super::processes::{Holder, Process, Processes};
use super::sockets::{Listing, Socket, TCP};
use super::table::{Changes, Opened};

/// Descriptors looked at per poll to see that they are what they were: a process may close a
/// socket that a child inherited, and live on. New sockets come first, as that is done early.
const RECHECKS: usize = 64;

/// Polls to skip at most before a process is looked for again that was not found.
const MAX_BACKOFF: u64 = 64;

/// procfs, as of the last poll.
///
/// The sockets' lists are read at every poll; the processes' descriptors, which cost far more,
/// only when a socket has no known holder.
#[derive(Debug)]
pub(super) struct Procfs {
    net: PathBuf,
    processes: Processes,
    max_sockets: usize,
    polls: u64,
    polled_ns: u64,
    inodes: HashMap<u64, Inode>,
    /// What the table has been announced.
    published: HashMap<Socket, Published>,
    /// Whose descriptors to look at next, from the end.
    rechecks: Vec<u64>,
}

#[derive(Debug, Default)]
struct Inode {
    poll: u64,
    holder: Option<Holder>,
    attempts: u32,
    /// No search before this poll.
    not_before_poll: u64,
}

#[derive(Debug)]
struct Published {
    poll: u64,
    not_before: u64,
    first_seen: u64,
    announced: Announced,
}

/// What the table knows about a socket.
#[derive(Debug, PartialEq, Eq)]
enum Announced {
    Nothing,
    /// That it is there, not which process has it.
    Socket,
    Owner(Arc<Process>),
}

/// What one poll came upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Polled {
    /// Sockets that a process may hold.
    pub sockets: u64,
    /// Sockets whose process is not known.
    pub ownerless: u64,
    /// Sockets beyond the bound.
    pub beyond_limit: u64,
    /// Lines that made no sense.
    pub malformed: u64,
    /// Did it look at all descriptors?
    pub scanned: bool,
    /// Processes that did not let it, if it did.
    pub unreadable: u64,
}

impl Procfs {
    /// The procfs mounted at `root`, with the network of the thread that polls; of its sockets,
    /// `max_sockets`.
    pub(super) fn new(root: &Path, max_sockets: usize) -> Self {
        Self {
            // Not root/net, the main thread's: namespaces are entered by thread.
            net: root.join("thread-self/net"),
            processes: Processes::new(root),
            max_sockets,
            polls: 0,
            polled_ns: 0,
            inodes: HashMap::new(),
            published: HashMap::new(),
            rechecks: Vec::new(),
        }
    }

    /// Polls once, at `now` by the kernel's clock; returns early, with less, once `stop` is set.
    pub(super) fn poll(&mut self, now: u64, stop: &AtomicBool) -> Result<(Changes, Polled), Error> {
        // The sockets first: one that is listed and whose process then exits is merely not found.
        let listing = Listing::read(&self.net, self.max_sockets)?;
        let addresses = Addresses::read().map_err(Error::Addresses)?;
        self.polls += 1;
        let mut polled = Polled {
            sockets: listing.sockets.len() as u64,
            beyond_limit: listing.beyond_limit,
            malformed: listing.malformed,
            ..Polled::default()
        };

        self.meet(&listing.sockets);
        self.recheck_processes();
        self.recheck_descriptors();
        self.search(stop, &mut polled)?;
        let mut changes = self.compare(&listing.sockets, now);
        changes.addresses = addresses;

        let ownerless = self.inodes.values().filter(|inode| inode.holder.is_none());
        polled.ownerless = ownerless.count() as u64;
        self.polled_ns = now;
        Ok((changes, polled))
    }

    fn holders(&self) -> impl Iterator<Item = &Arc<Process>> {
        let holders = self.inodes.values().filter_map(|i| i.holder.as_ref());
        holders.map(|holder| &holder.process)
    }

    /// Notes the inodes that are there and drops those that are not.
    fn meet(&mut self, sockets: &[Socket]) {
        for socket in sockets {
            let inode = self.inodes.entry(socket.inode).or_insert_with(|| {
                self.rechecks.push(socket.inode);
                Inode::default()
            });
            inode.poll = self.polls;
        }
        self.inodes.retain(|_, inode| inode.poll == self.polls);
    }

    /// Finds those processes gone that are, and the new names of those that have one.
    fn recheck_processes(&mut self) {
        let mut now: HashMap<u32, Option<Arc<Process>>> = HashMap::new();
        for process in self.holders() {
            now.entry(process.pid).or_insert_with(|| {
                let current = self.processes.get(process.pid)?;
                Some(if current == **process { Arc::clone(process) } else { Arc::new(current) })
            });
        }
        for inode in self.inodes.values_mut() {
            let Some(holder) = &mut inode.holder else {
                continue;
            };
            match now.get(&holder.process.pid) {
                Some(Some(current)) if current.is(&holder.process) => {
                    holder.process = Arc::clone(current);
                }
                _ => *inode = inode.lost(),
            }
        }
    }

    fn recheck_descriptors(&mut self) {
        let mut left = RECHECKS;
        while left > 0
            && let Some(number) = self.rechecks.pop()
        {
            let Some(inode) = self.inodes.get_mut(&number) else {
                continue;
            };
            let Some(holder) = &inode.holder else {
                continue;
            };
            left -= 1;
            if !self.processes.still_holds(holder, number) {
                *inode = inode.lost();
            }
        }
        // Round again, from the next poll on: all are done, or most of those left are gone.
        if self.rechecks.is_empty() || self.rechecks.len() > 2 * self.inodes.len() + RECHECKS {
            self.rechecks.clear();
            self.rechecks.extend(self.inodes.keys());
        }
    }

    /// Looks for the holders that are not known, though ever more rarely for the same one.
    fn search(&mut self, stop: &AtomicBool, polled: &mut Polled) -> Result<(), Error> {
        let due = self
            .inodes
            .iter()
            .filter(|(_, inode)| inode.holder.is_none() && inode.not_before_poll <= self.polls);
        let mut wanted: HashMap<u64, _> = due.map(|(number, _)| (*number, None)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let scan = self.processes.find(&mut wanted, stop)?;
        polled.scanned = true;
        polled.unreadable = scan.unreadable;
        for (number, holder) in wanted {
            let Some(inode) = self.inodes.get_mut(&number) else {
                continue;
            };
            if holder.is_none() {
                let backoff = 1 << inode.attempts.min(MAX_BACKOFF.ilog2());
                inode.attempts += 1;
                inode.not_before_poll = self.polls + backoff;
            }
            inode.holder = holder;
        }
        Ok(())
    }

    /// Tells the difference between the sockets as they are and as they were published.
    fn compare(&mut self, sockets: &[Socket], now: u64) -> Changes {
        let mut changes = Changes { now, ..Changes::default() };
        for &socket in sockets {
            let inode = self.inodes.get(&socket.inode);
            let holder = inode.and_then(|inode| inode.holder.as_ref());
            let process = holder.map(|holder| Arc::clone(&holder.process));
            let published = match self.published.entry(socket) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(Published {
                    poll: 0,
                    not_before: self.polled_ns,
                    first_seen: now,
                    announced: Announced::Nothing,
                }),
            };
            published.poll = self.polls;
            // A connection's owner that is not known may be guessed from the listener. A socket
            // that takes packets of any peer takes them from the wildcard's owner for certain.
            let guess = socket.key.protocol == TCP && socket.key.remote.is_some();
            let announced = match process.clone() {
                Some(process) => Announced::Owner(process),
                None if guess => Announced::Nothing,
                None => Announced::Socket,
            };
            if announced == published.announced {
                continue;
            }
            if published.announced != Announced::Nothing {
                changes.closed.push(socket);
            }
            if matches!(published.announced, Announced::Owner(_)) {
                // Handed on, at some time since the last poll.
                published.not_before = self.polled_ns;
                published.first_seen = now;
            }
            if announced != Announced::Nothing {
                changes.opened.push(Opened {
                    socket,
                    process,
                    not_before: published.not_before,
                    first_seen: published.first_seen,
                });
            }
            published.announced = announced;
        }
        let polls = self.polls;
        self.published.retain(|socket, published| {
            let there = published.poll == polls;
            if !there && published.announced != Announced::Nothing {
                changes.closed.push(*socket);
            }
            there
        });
        changes
    }
}

impl Inode {
    /// The same, its holder no longer known and to be searched for at once.
    fn lost(&self) -> Self {
        Self { poll: self.poll, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::processes::fake::Root;

    fn line(local: &str, remote: &str, inode: u64) -> String {
        format!("   0: {local} {remote} 01 0:0 00:0 0 0 0 {inode} 1 0\n")
    }

    /// Polls of a procfs made of files, each announced as `-inode` and `+inode pid name`.
    struct Story {
        root: Root,
        procfs: Procfs,
        polled: Polled,
    }

    impl Story {
        fn new() -> Self {
            let root = Root::new();
            let procfs = Procfs::new(root.path(), 10);
            Self { root, procfs, polled: Polled::default() }
        }

        fn listen(&self, inodes: &[u64]) {
            let lines: Vec<_> = inodes
                .iter()
                .map(|inode| line(&format!("0100007F:{inode:04X}"), "00000000:0000", *inode))
                .collect();
            self.root.net("tcp", &lines);
        }

        fn poll(&mut self, now: u64) -> Vec<String> {
            let stop = AtomicBool::new(false);
            let (changes, polled) = self.procfs.poll(now, &stop).expect("readable");
            self.polled = polled;
            let closed = changes.closed.iter().map(|s| format!("-{}", s.inode));
            let opened = changes.opened.iter().map(|o| match &o.process {
                Some(p) => format!(
                    "+{} {} {} {}..{}",
                    o.socket.inode, p.pid, p.name, o.not_before, o.first_seen
                ),
                None => format!("+{} nobody {}..{}", o.socket.inode, o.not_before, o.first_seen),
            });
            closed.chain(opened).collect()
        }
    }

    #[test]
    fn only_unknown_sockets_cause_a_scan() {
        let mut story = Story::new();
        story.root.process(40, "httpd", 1000, &[500]);
        story.listen(&[500]);
        assert_eq!(story.poll(10), ["+500 40 httpd 0..10"]);
        assert!(story.polled.scanned);
        assert!(story.poll(20).is_empty());
        assert!(!story.polled.scanned);

        story.root.process(41, "sshd", 1100, &[501]);
        story.listen(&[500, 501]);
        assert_eq!(story.poll(30), ["+501 41 sshd 20..30"]);
        assert!(story.polled.scanned);
        assert_eq!((story.polled.sockets, story.polled.ownerless), (2, 0));

        story.listen(&[501]);
        assert_eq!(story.poll(40), ["-500"]);
        assert_eq!(story.procfs.published.len(), 1);
        assert_eq!(story.procfs.inodes.len(), 1);
    }

    #[test]
    fn a_pid_used_again_is_another_process() {
        let mut story = Story::new();
        story.root.process(40, "httpd", 1000, &[500]);
        story.listen(&[500]);
        story.poll(10);
        // A child had inherited the socket; then the pid went to somebody without it.
        story.root.process(40, "cron", 2000, &[]);
        story.root.process(50, "worker", 1500, &[500]);
        assert_eq!(story.poll(20), ["-500", "+500 50 worker 10..20"]);
        // Nobody is left who has it.
        story.root.exit(50);
        assert_eq!(story.poll(30), ["-500", "+500 nobody 20..30"]);
    }

    #[test]
    fn a_renamed_process_and_a_socket_handed_on() {
        let mut story = Story::new();
        story.root.process(40, "sh", 1000, &[500]);
        story.listen(&[500]);
        story.poll(10);
        story.root.process(40, "inetd", 1000, &[500]);
        assert_eq!(story.poll(20), ["-500", "+500 40 inetd 10..20"]);
        story.root.process(40, "inetd", 1000, &[]);
        story.root.process(41, "ftpd", 1500, &[500]);
        assert_eq!(story.poll(30), ["-500", "+500 41 ftpd 20..30"]);
    }

    #[test]
    fn a_holder_found_late_was_there_before() {
        let mut story = Story::new();
        story.listen(&[500]);
        assert_eq!(story.poll(10), ["+500 nobody 0..10"]);
        story.root.process(40, "httpd", 1000, &[500]);
        assert_eq!(story.poll(20), ["-500", "+500 40 httpd 0..10"]);
    }

    #[test]
    fn what_is_never_found_is_searched_for_ever_more_rarely() {
        let mut story = Story::new();
        story.listen(&[500]);
        let scans = (0..200).filter(|poll| {
            story.poll(*poll);
            story.polled.scanned
        });
        // 0, 1, 3, 7, 15, 31, 63, 127, 191
        assert_eq!(scans.count(), 9);
        assert_eq!(story.polled.ownerless, 1);
    }

    #[test]
    fn a_connection_of_nobody_is_left_to_its_listener() {
        let mut story = Story::new();
        story.root.net("tcp", &[line("0100007F:0016", "0100007F:C001", 600)]);
        assert!(story.poll(10).is_empty());
        story.root.net("tcp", &[]);
        assert!(story.poll(20).is_empty());
        assert!(story.procfs.published.is_empty());
    }

    #[test]
    fn no_procfs_is_an_error() {
        let mut procfs = Procfs::new(Path::new("/nonexistent"), 10);
        let error = procfs.poll(1, &AtomicBool::new(false)).err();
        assert_eq!(
            error.map(|e| e.to_string()).as_deref(),
            Some("failed to read `/nonexistent/thread-self/net/tcp`")
        );
    }
}
