//! Which process holds a socket?

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flowmeter_common::owner::Ids;

use super::{Error, Method, Owner, Reported};
use crate::stat::{Stat, State};

/// A process, told from later ones with the same pid by its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: u32,
    /// Clock ticks of 10 ms from boot to its start. Two processes with one pid differ here unless
    /// all pids were used up within a tick.
    pub start_ticks: u64,
    /// The thread group leader's comm, when last looked at.
    pub name: String,
    /// What the kernel reported besides; none from procfs.
    pub reported: Option<Reported>,
}

impl Process {
    /// As the owner of one end of a flow.
    pub(super) fn owner(&self, method: Method) -> Owner {
        Owner {
            pid: self.pid,
            name: self.name.clone(),
            method,
            start_ticks: self.start_ticks,
            ids: self.reported.as_ref().map_or(Ids::default(), |reported| reported.ids),
            reported: self.reported.clone(),
            user: None,
            shared: None,
            is_peers: false,
            profile: None,
        }
    }

    /// Are both the same process, with the same program if that is known, whatever it calls itself?
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.pid, self.start_ticks) == (other.pid, other.start_ticks)
            && match (&self.reported, &other.reported) {
                (Some(a), Some(b)) => (a.start_ns, a.exec_id) == (b.start_ns, b.exec_id),
                _ => true,
            }
    }

    /// What no other program of any process has, of those that are known in the same way.
    pub(super) fn id(&self) -> (u32, u64, u64) {
        let reported = self.reported.as_ref().map(|reported| (reported.start_ns, reported.exec_id));
        let (start, exec_id) = reported.unwrap_or((self.start_ticks, 0));
        (self.pid, start, exec_id)
    }
}

/// A process, and the descriptor by which it holds a socket.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub process: Arc<Process>,
    fd: u32,
}

/// What a scan found out besides holders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Processes whose descriptors may not be listed by us.
    pub unreadable: u64,
}

/// The processes under a mount of procfs.
#[derive(Clone, Debug)]
pub(super) struct Processes {
    root: PathBuf,
}

impl Processes {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The live process that has `pid` now; none if that is a kernel thread or a zombie, which hold
    /// no descriptors. Name and start are from one file: two could describe two processes.
    pub(super) fn get(&self, pid: u32) -> Option<Process> {
        let stat = Stat::of(&self.directory(pid))?;
        let is_live = !matches!(stat.state, State::Zombie | State::Dead);
        (!stat.is_kernels && is_live).then_some(Process {
            pid,
            start_ticks: stat.start_ticks,
            name: stat.name,
            reported: None,
        })
    }

    /// Does the holder's descriptor still stand for `inode`? (Its process may be another by now.)
    pub(super) fn still_holds(&self, holder: &Holder, inode: u64) -> bool {
        let fd = self.directory(holder.process.pid).join(format!("fd/{}", holder.fd));
        fs::read_link(fd).is_ok_and(|target| socket_inode(&target) == Some(inode))
    }

    /// Looks through all processes' descriptors for the sockets in `wanted`, filling in their
    /// holders. It costs one system call per descriptor on the host, a microsecond or more: not by
    /// the crate procfs, which makes four for each, nor by its list of processes, which opens each
    /// process's folder.
    ///
    /// Of several holders the one that started first counts: sockets are inherited by children
    /// that know nothing of them. Except by pid 1, which as systemd keeps the sockets that it
    /// opens for services. The search ends early when all are found or `stop` is set. A process
    /// that vanishes on the way is passed over.
    pub(super) fn find(
        &self,
        wanted: &mut HashMap<u64, Option<Holder>>,
        stop: &AtomicBool,
    ) -> Result<Scan, Error> {
        let mut scan = Scan::default();
        let mut missing = wanted.len();
        let mut found: Vec<(u64, u32)> = Vec::new();
        for before in self.by_age()? {
            if missing == 0 || stop.load(Ordering::Relaxed) {
                break;
            }
            found.clear();
            let Ok(fds) = fs::read_dir(self.directory(before.pid).join("fd")) else {
                // Gone, if not forbidden.
                scan.unreadable += u64::from(self.get(before.pid).is_some_and(|p| p.is(&before)));
                continue;
            };
            for fd in fds.flatten() {
                let Ok(target) = fs::read_link(fd.path()) else {
                    continue;
                };
                let Some(inode) = socket_inode(&target) else {
                    continue;
                };
                let number = fd.file_name().to_str().and_then(|name| name.parse().ok());
                if let (Some(None), Some(number)) = (wanted.get(&inode), number) {
                    found.push((inode, number));
                }
            }
            if found.is_empty() {
                continue;
            }
            // The pid may have passed to another process meanwhile; then the descriptors could be
            // anyone's. Same start now as before: they were this one's.
            let Some(after) = self.get(before.pid).filter(|after| after.is(&before)) else {
                continue;
            };
            let process = Arc::new(after);
            for &(inode, fd) in &found {
                let process = Arc::clone(&process);
                if let Some(place @ None) = wanted.get_mut(&inode) {
                    *place = Some(Holder { process, fd });
                    missing -= 1;
                }
            }
        }
        Ok(scan)
    }

    /// All processes with descriptors, the first started first and pid 1 last.
    fn by_age(&self) -> Result<Vec<Process>, Error> {
        let entries = fs::read_dir(&self.root)
            .map_err(|source| Error::Read { path: self.root.clone(), source })?;
        let mut processes: Vec<_> = entries
            .flatten()
            .filter_map(|entry| self.get(entry.file_name().to_str()?.parse().ok()?))
            .collect();
        processes.sort_by_key(|p| (p.pid == 1, p.start_ticks, p.pid));
        Ok(processes)
    }

    fn directory(&self, pid: u32) -> PathBuf {
        self.root.join(pid.to_string())
    }
}

/// The inode in the target of a descriptor's link, `socket:[4711]`.
fn socket_inode(target: &Path) -> Option<u64> {
    let digits = target.to_str()?.strip_prefix("socket:[")?;
    digits.strip_suffix(']')?.parse().ok()
}

/// A procfs made of ordinary files.
#[cfg(test)]
pub(super) mod fake {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::AtomicU32;

    use super::*;

    pub(in crate::attribution) struct Root(PathBuf);

    impl Root {
        pub(in crate::attribution) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!(
                "flowmeter-procfs-{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            );
            let root = Self(std::env::temp_dir().join(name));
            fs::create_dir_all(root.0.join("thread-self/net")).expect("a directory");
            for file in ["tcp", "tcp6", "udp", "udp6"] {
                root.net(file, &[]);
            }
            root
        }

        pub(in crate::attribution) fn path(&self) -> &Path {
            &self.0
        }

        /// Makes `lines` the whole of a file, below a heading.
        pub(in crate::attribution) fn net(&self, file: &str, lines: &[String]) {
            let text = format!("  sl  local_address ...\n{}", lines.concat());
            fs::write(self.0.join("thread-self/net").join(file), text).expect("a file");
        }

        /// Starts a process that holds some sockets.
        pub(in crate::attribution) fn process(
            &self,
            pid: u32,
            name: &str,
            start: u64,
            sockets: &[u64],
        ) {
            let directory = self.0.join(pid.to_string());
            self.exit(pid);
            fs::create_dir_all(directory.join("fd")).expect("a directory");
            self.stat(pid, name, start, ('S', 0x0040_0100));
            for (i, inode) in sockets.iter().enumerate() {
                let fd = directory.join(format!("fd/{}", i + 3));
                symlink(format!("socket:[{inode}]"), fd).expect("a link");
            }
        }

        /// Says of a process what it is, with its state and flags.
        pub(in crate::attribution) fn stat(
            &self,
            pid: u32,
            name: &str,
            start: u64,
            (state, flags): (char, u32),
        ) {
            let stat = format!(
                "{pid} ({name}) {state} 1 1 1 0 -1 {flags} 0 0 0 0 1 2 3 4 20 0 1 0 {start}{}\n",
                " 0".repeat(30)
            );
            fs::write(self.0.join(format!("{pid}/stat")), stat).expect("a file");
        }

        /// Ends a process.
        pub(in crate::attribution) fn exit(&self, pid: u32) {
            let _ = fs::remove_dir_all(self.0.join(pid.to_string()));
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::Root;
    use super::*;

    fn find(root: &Root, inode: u64) -> Option<Process> {
        let mut wanted = HashMap::from([(inode, None)]);
        Processes::new(root.path()).find(&mut wanted, &AtomicBool::new(false)).expect("readable");
        let holder = wanted.remove(&inode).flatten()?;
        Some(Process::clone(&holder.process))
    }

    #[test]
    fn a_name_may_hold_anything() {
        let root = Root::new();
        let name = "a) S (b \\ \n";
        root.process(7, name, 99, &[]);
        let processes = Processes::new(root.path());
        let found = processes.get(7).map(|process| (process.name, process.start_ticks));
        assert_eq!(found, Some((name.to_owned(), 99)));
        fs::write(root.path().join("7/stat"), "7 (cut").expect("a file");
        assert_eq!(processes.get(7), None);
    }

    #[test]
    fn the_first_to_start_holds_a_shared_socket_but_not_pid_1() {
        let root = Root::new();
        root.process(1, "systemd", 1, &[50]);
        root.process(300, "server", 1000, &[49, 50]);
        root.process(20, "worker", 2000, &[50]);
        assert_eq!(find(&root, 50).map(|p| p.pid), Some(300));

        root.exit(300);
        assert_eq!(find(&root, 50).map(|p| p.pid), Some(20));
        root.exit(20);
        assert_eq!(find(&root, 50).map(|p| p.pid), Some(1));
        root.exit(1);
        assert_eq!(find(&root, 50), None);
    }

    #[test]
    fn kernel_threads_and_zombies_hold_nothing() {
        let root = Root::new();
        root.process(9, "x", 99, &[]);
        for (state, flags) in [('Z', 0x0040_0000), ('I', 0x0420_8040)] {
            root.stat(9, "x", 99, (state, flags));
            assert_eq!(Processes::new(root.path()).get(9), None);
        }
    }
}
