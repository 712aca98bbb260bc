//! Which programs have processes begun?
//!
//! As the kernel tells when they do, for those that are gone before they are looked up in procfs.
//! Kept until then, the latest ones.

use std::collections::VecDeque;

use flowmeter_common::owner::{ExecEvent, ForkEvent, Ids};
use hashbrown::HashMap;
use rustix::fs::makedev;

use super::ProcessKey;
use super::executable::FileId;
use crate::attribution::hooked::TICK_NS;

/// Programs in memory; some 200 bytes each, at most 1.4 KB.
const MOST: usize = 16_384;

/// Forks in memory; some 100 bytes each.
const MOST_FORKS: usize = 65_536;

/// A program that a process begins so soon after its own start is the one it was made for; ns.
const AT_ONCE_NS: u64 = 1_000_000_000;

/// The latest programs, by process.
#[derive(Debug, Default)]
pub struct Programs {
    /// Of each process in order.
    begun: HashMap<ProcessKey, Vec<Program>>,
    /// Of all in order, by when they were begun.
    order: VecDeque<(ProcessKey, u64)>,
    forks: HashMap<ProcessKey, Fork>,
    fork_order: VecDeque<ProcessKey>,
}

/// Where a process is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Who made it.
    pub maker: ProcessKey,
    /// Which of its programs that ran, as the new process did at first.
    pub exec_id: u64,
    /// The name that it had.
    pub name: String,
}

/// A program that a process has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Which of the process's programs it is; 0 if unknown.
    pub exec_id: u64,
    /// When it began, by the kernel's clock; ns.
    pub begun_ns: u64,
    /// The path that was asked for.
    pub path: String,
    /// Its arguments, each with its zero; the last may be cut.
    pub args: Vec<u8>,
    /// The process's parent then.
    pub parent: u32,
    /// Whose it was then.
    pub ids: Ids,
    /// The file, if the kernel told which.
    pub file: Option<FileId>,
    /// How many names that had then.
    pub links: u32,
}

impl Programs {
    /// Takes in an event.
    pub fn begin(&mut self, event: &ExecEvent) {
        let key = ProcessKey { pid: event.pid, start_ticks: event.start_ns / TICK_NS };
        let path = event.path.get(..event.path_bytes as usize).unwrap_or_default();
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
        let args = event.args.get(..event.args_bytes as usize).unwrap_or_default();
        let program = Program {
            exec_id: event.exec_id,
            begun_ns: event.time_ns,
            path: String::from_utf8_lossy(path).into_owned(),
            args: args.to_owned(),
            parent: event.parent,
            ids: event.ids,
            file: (event.inode != 0).then(|| FileId {
                device: makedev(event.device >> 20, event.device & 0xf_ffff),
                inode: event.inode,
            }),
            links: event.links,
        };
        self.begun.entry(key).or_default().push(program);
        self.order.push_back((key, event.time_ns));
        if self.order.len() > MOST
            && let Some((key, time_ns)) = self.order.pop_front()
            && let Some(programs) = self.begun.get_mut(&key)
        {
            programs.retain(|program| program.begun_ns != time_ns);
            if programs.is_empty() {
                self.begun.remove(&key);
            }
        }
    }

    /// Takes in that a process was made.
    pub fn fork(&mut self, event: &ForkEvent) {
        // Of those outside the meter's pid namespace nothing is shown.
        if event.pid == 0 || event.maker == 0 {
            return;
        }
        let key = |pid, start_ns| ProcessKey { pid, start_ticks: start_ns / TICK_NS };
        let name = event.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let fork = Fork {
            maker: key(event.maker, event.maker_start_ns),
            exec_id: event.exec_id,
            name: String::from_utf8_lossy(name).into_owned(),
        };
        let made = key(event.pid, event.start_ns);
        if self.forks.insert(made, fork).is_none() {
            self.fork_order.push_back(made);
        }
        if self.fork_order.len() > MOST_FORKS
            && let Some(oldest) = self.fork_order.pop_front()
        {
            self.forks.remove(&oldest);
        }
    }

    /// Where a process is from, if its fork was reported.
    pub fn fork_of(&self, key: &ProcessKey) -> Option<&Fork> {
        self.forks.get(key)
    }

    /// A program of a process, by its number.
    pub fn numbered(&self, key: &ProcessKey, exec_id: u64) -> Option<&Program> {
        self.begun.get(key)?.iter().rev().find(|program| program.exec_id == exec_id)
    }

    /// The program that a process ran at `at_ns`; none if it is not known. A process that started at
    /// `start_ns` may have become what it is soon after.
    pub fn at(&self, key: &ProcessKey, at_ns: u64, start_ns: u64) -> Option<&Program> {
        let programs = self.begun.get(key)?;
        let before = programs.iter().rev().find(|program| program.begun_ns <= at_ns);
        let soon = || programs.first().filter(|first| first.begun_ns < start_ns + AT_ONCE_NS);
        before.or_else(soon)
    }

    /// The last program of a process that is known.
    pub fn last(&self, key: &ProcessKey) -> Option<&Program> {
        self.begun.get(key)?.last()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    pub fn event(key: ProcessKey, exec_id: u64, path: &[u8], args: &[u8]) -> ExecEvent {
        let mut event = ExecEvent::new_zeroed();
        event.pid = key.pid;
        event.start_ns = key.start_ticks * TICK_NS + 1;
        event.exec_id = exec_id;
        event.parent = 1;
        event.ids = Ids { uid: 0, real_uid: 1000, ..Ids::default() };
        event.path[..path.len()].copy_from_slice(path);
        event.path_bytes = path.len() as u32;
        event.args[..args.len()].copy_from_slice(args);
        event.args_bytes = args.len() as u32;
        event
    }

    fn key(pid: u32) -> ProcessKey {
        ProcessKey { pid, start_ticks: 7 }
    }

    #[test]
    fn each_time_and_number_has_its_program() {
        let mut programs = Programs::default();
        for (time_ns, exec_id, path, args) in [
            (1000, 4, &b"/bin/sh\0"[..], &b"sh\0-c\0"[..]),
            (2000, 5, b"/usr/bin/curl\0", b"curl\0\0http://x/\0"),
        ] {
            programs.begin(&ExecEvent { time_ns, ..event(key(9), exec_id, path, args) });
        }
        let path = |at_ns, start_ns| {
            programs.at(&key(9), at_ns, start_ns).map(|program| program.path.as_str())
        };
        assert_eq!(path(1500, 0), Some("/bin/sh"));
        assert_eq!(path(2000, 0), Some("/usr/bin/curl"));
        assert_eq!(path(900, 900), Some("/bin/sh"), "it has only just been forked");
        let numbered = |exec_id| programs.numbered(&key(9), exec_id).map(|p| p.path.as_str());
        assert_eq!([3, 4, 5].map(numbered), [None, Some("/bin/sh"), Some("/usr/bin/curl")]);
        let mut late = Programs::default();
        let event = event(key(9), 4, b"x\0", b"x\0");
        late.begin(&ExecEvent { time_ns: 5 * AT_ONCE_NS, ..event });
        assert_eq!(late.at(&key(9), AT_ONCE_NS, 0), None, "what it ran before is not known");
        let last = |pid| programs.last(&key(pid)).map(|program| program.exec_id);
        assert_eq!((last(9), last(8)), (Some(5), None));
    }

    pub fn fork(made: ProcessKey, maker: ProcessKey, exec_id: u64) -> ForkEvent {
        let mut event =
            ForkEvent { exec_id, pid: made.pid, maker: maker.pid, ..ForkEvent::default() };
        event.start_ns = made.start_ticks * TICK_NS;
        event.maker_start_ns = maker.start_ticks * TICK_NS;
        event.name[..5].copy_from_slice(b"maker");
        event
    }

    #[test]
    fn forks_are_known_and_forgotten() {
        let mut programs = Programs::default();
        for n in 1..=MOST_FORKS as u32 + 10 {
            programs.fork(&fork(key(n), key(1), 3));
        }
        assert_eq!((programs.forks.len(), programs.fork_order.len()), (MOST_FORKS, MOST_FORKS));
        assert_eq!(programs.fork_of(&key(10)), None);
        let wanted = Fork { maker: key(1), exec_id: 3, name: "maker".into() };
        assert_eq!(programs.fork_of(&key(11)), Some(&wanted));
    }

    #[test]
    fn programs_are_forgotten() {
        let mut programs = Programs::default();
        for n in 0..MOST as u32 + 10 {
            // One process that does nothing else is bounded too.
            programs.begin(&event(key(n % 2), u64::from(n), b"x\0", b"x\0"));
        }
        let kept: usize = programs.begun.values().map(Vec::len).sum();
        assert!(programs.order.len() == MOST && kept <= MOST);
    }

    #[test]
    fn lengths_that_do_not_fit_are_nothing() {
        let mut programs = Programs::default();
        let mut event = event(key(1), 1, b"x\0", b"x\0");
        (event.path_bytes, event.args_bytes) = (u32::MAX, u32::MAX);
        programs.begin(&event);
        let program = programs.last(&key(1)).expect("it was begun");
        assert!(program.path.is_empty() && program.args.is_empty());
    }
}
