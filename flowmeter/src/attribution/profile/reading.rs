//! What does procfs say about a process?
//!
//! It describes the process that has the number now, and the program that it runs now. Both may
//! change while it is read, so that is looked at before and afterwards.

use std::io::Read as _;
use std::path::Path;

use flowmeter_common::owner::{Ids, NO_ID};
use procfs::process::{Process, Status};
use procfs::{FromBufRead as _, ProcessCGroup, ProcessCGroups};

use super::executable::Executable;
use super::{ProcessKey, name};
use crate::stat::{Stat, State};

/// What procfs said about a process and the program that it ran.
pub struct Reading {
    /// Its name, whole if it is known.
    pub name: String,
    /// The file that it runs.
    pub executable: Executable,
    /// Its arguments, each with its zero; the last may be cut.
    pub args: Vec<u8>,
    /// Its parent.
    pub parent: Option<u32>,
    /// Its users and groups.
    pub ids: Ids,
    /// Its cgroup's path.
    pub cgroup: Option<String>,
}

/// At least this many bytes of arguments are read, for the name of the program.
const LEAST: usize = 1024;

impl Reading {
    /// Reads a process, if it is still there and does not become another program meanwhile.
    pub fn of(root: &Path, key: ProcessKey, max_cmdline: usize) -> Option<Self> {
        let folder = root.join(key.pid.to_string());
        // What is read by the handle is of no other process that gets its number later.
        let process = Process::new_with_root(folder.clone()).ok()?;
        let before = Stat::of_handle(&process)?;
        if before.start_ticks != key.start_ticks {
            return None;
        }
        let executable = Executable::read(&folder).unwrap_or_default();
        let args = arguments(&process, max_cmdline.max(LEAST));
        let ids = ids(&process);
        let groups = process.cgroups().ok().map(|ProcessCGroups(groups)| groups);
        let first = name::first(&args);
        let mut reading = Self {
            name: name::whole(&before.name, first.as_deref())
                .unwrap_or_else(|| before.name.clone()),
            executable,
            args,
            parent: before.parent,
            ids,
            cgroup: groups.as_deref().and_then(unified),
        };
        match Stat::of_handle(&process) {
            // It still has its number, so the path led to it. One that has ended has no memory, but
            // was what it is.
            Some(after) if after.state == State::Zombie || after.memory == before.memory => {}
            Some(_) => return None,
            None => reading.executable = Executable::default(),
        }
        Some(reading)
    }
}

/// The process that has the number and its name, if it started by then. Of a parent that was told:
/// whoever has its number since has started later.
pub fn parent(root: &Path, pid: u32, latest_ticks: u64) -> Option<(ProcessKey, String)> {
    let process = Process::new_with_root(root.join(pid.to_string())).ok()?;
    let stat = Stat::of_handle(&process).filter(|stat| stat.start_ticks <= latest_ticks)?;
    let key = ProcessKey { pid, start_ticks: stat.start_ticks };
    let first = name::first(&arguments(&process, LEAST));
    let name = name::whole(&stat.name, first.as_deref()).unwrap_or(stat.name);
    Some((key, name))
}

/// The first bytes of a process's arguments. Not as the crate gives them: all of them, however many,
/// without those that are empty, and none if one is not UTF-8.
fn arguments(process: &Process, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = process.open_relative("cmdline") {
        let _ = file.take(most as u64).read_to_end(&mut bytes);
    }
    bytes
}

/// By the process's status. That has the name too, which need not be UTF-8, as the crate takes it to
/// be.
fn ids(process: &Process) -> Ids {
    let status = || {
        let mut bytes = Vec::new();
        process.open_relative("status").ok()?.read_to_end(&mut bytes).ok()?;
        Status::from_buf_read(String::from_utf8_lossy(&bytes).as_bytes()).ok()
    };
    let login_uid = process.loginuid().unwrap_or(NO_ID);
    status().map_or(Ids { login_uid, ..Ids::default() }, |status| Ids {
        uid: status.euid,
        gid: status.egid,
        real_uid: status.ruid,
        real_gid: status.rgid,
        login_uid,
    })
}

/// The path in the unified hierarchy, or in systemd's own of version 1.
fn unified(groups: &[ProcessCGroup]) -> Option<String> {
    let unified = groups.iter().find(|group| group.hierarchy == 0 && group.controllers.is_empty());
    let systemd = || groups.iter().find(|group| group.controllers == ["name=systemd"]);
    let own = unified.filter(|group| group.pathname != "/").or_else(systemd).or(unified);
    own.map(|group| group.pathname.clone())
}

#[cfg(test)]
mod tests {
    use procfs::FromRead as _;

    use super::*;

    #[test]
    fn cgroups_of_either_version() {
        let path = |text: &str| {
            let groups = ProcessCGroups::from_read(text.as_bytes()).expect("well formed");
            unified(&groups.0)
        };
        assert_eq!(path("0::/a.slice\n").as_deref(), Some("/a.slice"));
        let hybrid = "12:cpu:/x\n1:name=systemd:/b.service\n0::/\n";
        assert_eq!(path(hybrid).as_deref(), Some("/b.service"));
        assert_eq!(path("0::/\n").as_deref(), Some("/"));
        assert_eq!(path(""), None);
    }
}
