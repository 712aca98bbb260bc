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

/// A program that a process begins so soon after its own start is the one it was made for; ns.
const AT_ONCE_NS: u64 = 1_000_000_000;

/// The latest programs, by process.
#[derive(Default)]
pub struct Programs {
    /// Of each process in order, with when it began them.
    begun: HashMap<ProcessKey, Vec<(u64, Program)>>,
    /// Of all in order.
    order: VecDeque<(ProcessKey, u64)>,
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
    /// Takes in an event. Of the arguments so many bytes are kept.
    pub fn begin(&mut self, event: &ExecEvent, max_cmdline: usize) {
        let key = ProcessKey { pid: event.pid, start_ticks: event.start_ns / TICK_NS };
        let path = event.path.get(..event.path_bytes as usize).unwrap_or_default();
        let args = event.args.get(..event.args_bytes as usize).unwrap_or_default();
        let program = Program {
            path: split(path).pop().unwrap_or_default(),
            args: split(&args[..args.len().min(max_cmdline)]),
            parent: event.parent,
            uid: event.ids.uid,
        };
        self.begun.entry(key).or_default().push((event.time_ns, program));
        self.order.push_back((key, event.time_ns));
        if self.order.len() > MOST
            && let Some((key, time_ns)) = self.order.pop_front()
            && let Some(programs) = self.begun.get_mut(&key)
        {
            programs.retain(|(begun_ns, _)| *begun_ns != time_ns);
            if programs.is_empty() {
                self.begun.remove(&key);
            }
        }
    }

    /// The program that a process ran at `at_ns` and when it began that; none if it is not known.
    /// A process that started at `start_ns` may have become what it is soon after.
    pub fn at(&self, key: &ProcessKey, at_ns: u64, start_ns: u64) -> Option<(u64, &Program)> {
        let programs = self.begun.get(key)?;
        let before = programs.iter().rev().find(|(begun_ns, _)| *begun_ns <= at_ns);
        let soon = || programs.first().filter(|(begun_ns, _)| *begun_ns < start_ns + AT_ONCE_NS);
        before.or_else(soon).map(|(begun_ns, program)| (*begun_ns, program))
    }

    /// When a process began the last program that is known; 0 if none is.
    pub fn last(&self, key: &ProcessKey) -> u64 {
        self.begun.get(key).and_then(|programs| programs.last()).map_or(0, |(begun, _)| *begun)
    }
}

impl Program {
    /// Adds what procfs did not tell, or told of a later program of the process.
    pub fn complete(&self, profile: &mut Profile) {
        let cmdline = self.args.join(" ");
        // Either may be cut.
        let is_its = profile
            .cmdline
            .as_ref()
            .is_some_and(|told| told.starts_with(&cmdline) || cmdline.starts_with(told));
        if (profile.exe.is_none() || !is_its) && !self.path.is_empty() {
            profile.exe = Some(self.path.clone());
        }
        if !is_its && !self.args.is_empty() {
            profile.cmdline = Some(cmdline);
            profile.args.clone_from(&self.args);
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

    /// One of each kind at 1000, 2000.
    fn two() -> Programs {
        let mut programs = Programs::default();
        for (time_ns, path, args) in [
            (1000, &b"/bin/sh\0"[..], &b"sh\0-c\0"[..]),
            (2000, b"/usr/bin/curl\0", b"curl\0\0http://x/\0"),
        ] {
            programs.begin(&ExecEvent { time_ns, ..event(9, path, args) }, 100);
        }
        programs
    }

    #[test]
    fn each_time_has_its_program() {
        let programs = two();
        let path = |at_ns, start_ns| {
            programs.at(&key(9), at_ns, start_ns).map(|(_, program)| program.path.as_str())
        };
        assert_eq!(path(1500, 0), Some("/bin/sh"));
        assert_eq!(path(2000, 0), Some("/usr/bin/curl"));
        assert_eq!(path(900, 900), Some("/bin/sh"), "it has only just been forked");
        let mut late = Programs::default();
        late.begin(&ExecEvent { time_ns: 5 * AT_ONCE_NS, ..event(9, b"x\0", b"x\0") }, 9);
        assert_eq!(late.at(&key(9), AT_ONCE_NS, 0), None, "what it ran before is not known");
        assert_eq!((programs.last(&key(9)), programs.last(&key(8))), (2000, 0));
    }

    #[test]
    fn a_program_completes_a_profile() {
        let programs = two();
        let (_, curl) = programs.at(&key(9), 3000, 0).expect("it was begun");
        let mut profile = Profile::default();
        curl.complete(&mut profile);
        assert_eq!(profile.exe.as_deref(), Some("/usr/bin/curl"));
        assert_eq!(profile.args, ["curl", "", "http://x/"]);
        assert_eq!(profile.cmdline.as_deref(), Some("curl  http://x/"));
        let told = (profile.parent, profile.uid, profile.user.as_deref());
        assert_eq!(told, (Some(1), Some(0), Some("root")));
    }

    #[test]
    fn what_procfs_told_of_it_stays_and_of_another_goes() {
        let programs = two();
        let (_, curl) = programs.at(&key(9), 3000, 0).expect("it was begun");
        let read = |exe: &str, cmdline: &str| {
            let (exe, cmdline) = (Some(exe.to_owned()), Some(cmdline.to_owned()));
            let mut profile = Profile { exe, cmdline, uid: Some(5), ..Profile::default() };
            curl.complete(&mut profile);
            (profile.exe.unwrap_or_default(), profile.cmdline.unwrap_or_default(), profile.uid)
        };
        let resolved = read("/usr/bin/curl7", "curl  http://x/");
        assert_eq!(resolved, ("/usr/bin/curl7".into(), "curl  http://x/".into(), Some(5)));
        let later = read("/bin/sleep", "sleep 9");
        assert_eq!(later, ("/usr/bin/curl".into(), "curl  http://x/".into(), Some(5)));
    }

    #[test]
    fn arguments_are_cut_and_programs_forgotten() {
        let mut programs = Programs::default();
        programs.begin(&event(1, b"x\0", b"x\0long\0"), 4);
        let (_, program) = programs.at(&key(1), 1, 0).expect("it was begun");
        assert_eq!(program.args, ["x", "lo"]);
        for n in 0..MOST as u32 + 10 {
            // One process that does nothing else is bounded too.
            programs.begin(&event(n % 2, b"x\0", b"x\0"), 4);
        }
        let kept: usize = programs.begun.values().map(Vec::len).sum();
        assert!(programs.order.len() == MOST && kept <= MOST);
    }

    #[test]
    fn lengths_that_do_not_fit_are_nothing() {
        let mut programs = Programs::default();
        let mut event = event(1, b"x\0", b"x\0");
        (event.path_bytes, event.args_bytes) = (u32::MAX, u32::MAX);
        programs.begin(&event, 100);
        let (_, program) = programs.at(&key(1), 1, 0).expect("it was begun");
        assert!(program.path.is_empty() && program.args.is_empty());
    }
}
