//! Which programs have processes begun?
//!
//! As the kernel tells when they do, for those that are gone before they are looked up in procfs.
//! Kept until then, the latest ones.

use std::collections::VecDeque;

use flowmeter_common::owner::ExecEvent;
use hashbrown::HashMap;

use super::{ProcessKey, Profile, split, user};
use crate::attribution::hooked::TICK_NS;

/// Programs in memory; some 200 bytes each.
const MOST: usize = 16_384;

/// The latest programs, by process.
#[derive(Default)]
pub struct Programs {
    latest: HashMap<ProcessKey, Program>,
    /// The first begun in front. One that was begun again stands there twice.
    order: VecDeque<ProcessKey>,
}

/// A program that a process has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: String,
    args: Vec<String>,
    parent: u32,
    uid: u32,
}

impl Programs {
    /// Takes in an event, and tells whose it is. Of the arguments so many bytes are kept.
    pub fn begin(&mut self, event: &ExecEvent, max_cmdline: usize) -> ProcessKey {
        let key = ProcessKey { pid: event.pid, start_ticks: event.start_ns / TICK_NS };
        let path = event.path.get(..event.path_bytes as usize).unwrap_or_default();
        let args = event.args.get(..event.args_bytes as usize).unwrap_or_default();
        let program = Program {
            path: split(path).pop().unwrap_or_default(),
            args: split(&args[..args.len().min(max_cmdline)]),
            parent: event.parent,
            uid: event.uid,
        };
        self.latest.insert(key, program);
        self.order.push_back(key);
        while self.order.len() > MOST {
            if let Some(oldest) = self.order.pop_front() {
                self.latest.remove(&oldest);
            }
        }
        key
    }

    /// The program of a process, which is asked for once.
    pub fn take(&mut self, key: &ProcessKey) -> Option<Program> {
        self.latest.remove(key)
    }
}

impl Program {
    /// Adds what procfs did not tell.
    pub fn complete(self, profile: &mut Profile) {
        if profile.exe.is_none() && !self.path.is_empty() {
            profile.exe = Some(self.path);
        }
        if profile.cmdline.is_none() && !self.args.is_empty() {
            profile.cmdline = Some(self.args.join(" "));
            profile.args = self.args;
        }
        profile.parent = profile.parent.or(Some(self.parent));
        if profile.uid.is_none() {
            profile.uid = Some(self.uid);
            profile.user = user(self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn event(pid: u32, path: &[u8], args: &[u8]) -> ExecEvent {
        let mut event = ExecEvent::new_zeroed();
        event.pid = pid;
        event.start_ns = 7 * TICK_NS + 1;
        event.parent = 1;
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
    fn the_latest_program_completes_a_profile() {
        let mut programs = Programs::default();
        programs.begin(&event(9, b"/bin/sh\0", b"sh\0-c\0"), 100);
        programs.begin(&event(9, b"/usr/bin/curl\0", b"curl\0\0http://x/\0"), 100);
        let mut profile = Profile::default();
        programs.take(&key(9)).expect("it was begun").complete(&mut profile);
        assert_eq!(profile.exe.as_deref(), Some("/usr/bin/curl"));
        assert_eq!(profile.args, ["curl", "", "http://x/"]);
        assert_eq!(profile.cmdline.as_deref(), Some("curl  http://x/"));
        assert_eq!(
            (profile.parent, profile.uid, profile.user.as_deref()),
            (Some(1), Some(0), Some("root"))
        );
        assert_eq!(programs.take(&key(9)), None);
    }

    #[test]
    fn what_procfs_told_stays() {
        let mut programs = Programs::default();
        programs.begin(&event(9, b"x\0", b"x\0"), 100);
        let mut profile =
            Profile { exe: Some("/bin/y".into()), uid: Some(5), ..Profile::default() };
        programs.take(&key(9)).expect("it was begun").complete(&mut profile);
        assert_eq!((profile.exe.as_deref(), profile.uid), (Some("/bin/y"), Some(5)));
        assert_eq!(profile.cmdline.as_deref(), Some("x"));
    }

    #[test]
    fn arguments_are_cut_and_programs_forgotten() {
        let mut programs = Programs::default();
        programs.begin(&event(1, b"x\0", b"x\0long\0"), 4);
        assert_eq!(programs.take(&key(1)).expect("it was begun").args, ["x", "lo"]);
        for pid in 0..MOST as u32 + 10 {
            programs.begin(&event(pid, b"x\0", b"x\0"), 4);
        }
        assert!(programs.take(&key(9)).is_none() && programs.take(&key(10)).is_some());
        assert!(programs.latest.len() <= MOST);
    }

    #[test]
    fn lengths_that_do_not_fit_are_nothing() {
        let mut programs = Programs::default();
        let mut event = event(1, b"x\0", b"x\0");
        (event.path_bytes, event.args_bytes) = (u32::MAX, u32::MAX);
        programs.begin(&event, 100);
        let program = programs.take(&key(1)).expect("it was begun");
        assert!(program.path.is_empty() && program.args.is_empty());
    }
}
