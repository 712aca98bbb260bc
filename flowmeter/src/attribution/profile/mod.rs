//! What is a process, beyond its number and name?
//!
//! Read from procfs as soon as it is first heard of, by a thread of its own, and kept after it has
//! gone. Of one that was gone too soon there is what the kernel told when it began its program;
//! nothing is ever taken from a process that has got its number since.

mod cgroup;
mod exec;
mod hash;

use std::collections::VecDeque;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use crossbeam_channel::{Sender, bounded};
use flowmeter_common::knobs::MILLISECOND;
use flowmeter_common::owner::ExecEvent;
use hashbrown::HashMap;
use procfs::process::{Process, Stat, Status};
use procfs::{FromBufRead as _, FromRead as _, ProcessCGroup, ProcessCGroups};

pub use cgroup::Place;
use hash::Hashes;

use super::Error;
use super::hooked::TICK_NS;
use crate::capture::kernel::Clock;
use crate::users;
use exec::Programs;

/// A process, told from later ones with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Its thread group's number.
    pub pid: u32,
    /// When it started; clock ticks of 10 ms since boot.
    pub start_ticks: u64,
}

/// A process, and what it was heard of by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The process.
    pub key: ProcessKey,
    /// When it was heard of, by the kernel's clock; ns. It may have run other programs before and since.
    pub time_ns: u64,
    /// Its cgroup's number, by which processes that are gone too soon have the path of those that
    /// were not; 0 if unknown.
    pub cgroup: u64,
}

/// What is known of a process.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its executable's path. A file that is gone keeps it.
    pub exe: Option<String>,
    /// The SHA-256 of the executable, in hexadecimal, once it has been computed.
    pub sha256: OnceLock<String>,
    /// Its arguments, from the program's name on.
    pub args: Vec<String>,
    /// The arguments with spaces between.
    pub cmdline: Option<String>,
    /// When it started; ms since the epoch, to some 10 ms.
    pub start_ms: Option<u64>,
    /// Its parent.
    pub parent: Option<u32>,
    /// Its parent's name.
    pub parent_name: Option<String>,
    /// Its effective user.
    pub uid: Option<u32>,
    /// That user's name, by `/etc/passwd`.
    pub user: Option<String>,
    /// The user who logged in, however often changed since.
    pub login_uid: Option<u32>,
    /// Its cgroup's path.
    pub cgroup: Option<String>,
    /// What that says.
    pub place: Place,
}

/// What profiles may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether executables are hashed.
    pub hash: bool,
    /// Bytes of a command line that are kept.
    pub max_cmdline: usize,
    /// Processes in memory.
    pub max_processes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { hash: false, max_cmdline: 1024, max_processes: 65_536 }
    }
}

/// The profiles of all processes heard of.
pub struct Profiles {
    shared: Arc<Shared>,
    /// To the thread that reads. A full queue is no loss: who is asked for is read then.
    queue: Sender<Heard>,
}

struct Shared {
    options: Options,
    root: PathBuf,
    clock: Clock,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// By the process and when it began its program; 0 if that is not known.
    profiles: HashMap<(ProcessKey, u64), Arc<Profile>>,
    /// The first heard of in front.
    order: VecDeque<(ProcessKey, u64)>,
    evictions: u64,
    programs: Programs,
    /// Paths of cgroups, by their numbers.
    cgroups: HashMap<u64, String>,
}

/// Paths of cgroups in memory; after so many it begins anew.
const MOST_CGROUPS: usize = 16_384;

impl Table {
    /// Takes the path of a cgroup from a profile, or gives it.
    fn learn(&mut self, profile: &mut Profile, cgroup: u64) {
        if cgroup == 0 {
            return;
        }
        if let Some(path) = &profile.cgroup {
            if self.cgroups.len() >= MOST_CGROUPS {
                self.cgroups.clear();
            }
            self.cgroups.insert(cgroup, path.clone());
        } else if let Some(path) = self.cgroups.get(&cgroup) {
            profile.place = Place::of(path);
            profile.cgroup = Some(path.clone());
        }
    }
}

/// Processes that may wait to be read.
const QUEUE: usize = 1024;

impl Profiles {
    /// Begins with none. The thread ends with the value.
    pub fn start(options: Options, clock: Clock) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(options, Path::new("/proc"), clock));
        let (queue, wanted) = bounded::<Heard>(QUEUE);
        let reader = Arc::clone(&shared);
        thread::Builder::new()
            .name("profiles".into())
            .spawn(move || {
                let mut hashes = Hashes::default();
                for heard in wanted {
                    let key = heard.key;
                    let profile = reader.get(heard);
                    if reader.options.hash
                        && let Some(sha256) =
                            hashes.of(&reader.root.join(format!("{}/exe", key.pid)))
                        // Nor has it become another program meanwhile.
                        && reader.runs(key, &profile)
                    {
                        let _ = profile.sha256.set(sha256);
                    }
                }
            })
            .map_err(Error::Thread)?;
        Ok(Self { shared, queue })
    }

    /// A process is heard of for the first time: it is read soon.
    pub fn observe(&self, heard: Heard) {
        let _ = self.queue.try_send(heard);
    }

    /// A process has begun a program, which the kernel told.
    pub fn executed(&self, event: &ExecEvent) {
        lock(&self.shared.table).programs.begin(event, self.shared.options.max_cmdline);
    }

    /// What is known of a process; read now if it was not yet.
    pub fn get(&self, heard: Heard) -> Arc<Profile> {
        self.shared.get(heard)
    }

    /// Processes in memory, and those forgotten to make room.
    pub fn counters(&self) -> (u64, u64) {
        let table = lock(&self.shared.table);
        (table.profiles.len() as u64, table.evictions)
    }
}

impl Shared {
    fn new(options: Options, root: &Path, clock: Clock) -> Self {
        Self { options, root: root.to_owned(), clock, table: Mutex::default() }
    }

    fn get(&self, heard: Heard) -> Arc<Profile> {
        let Heard { key, time_ns, cgroup } = heard;
        let start_ns = key.start_ticks * TICK_NS;
        let table = lock(&self.table);
        let program = table.programs.at(&key, time_ns.max(start_ns), start_ns);
        let program = program.map(|(begun_ns, program)| (begun_ns, program.clone()));
        let begun_ns = program.as_ref().map_or(0, |(begun_ns, _)| *begun_ns);
        let id = (key, begun_ns);
        if let Some(profile) = table.profiles.get(&id) {
            return Arc::clone(profile);
        }
        let is_last = table.programs.last(&key) == begun_ns;
        drop(table);
        // procfs has the last program.
        let mut profile = if is_last { self.read(key) } else { self.gone(key) };
        if let Some((_, program)) = &program {
            program.complete(&mut profile);
        }
        let mut table = lock(&self.table);
        table.learn(&mut profile, cgroup);
        if let Some(profile) = table.profiles.get(&id) {
            return Arc::clone(profile); // somebody else was faster
        }
        let profile = Arc::new(profile);
        while table.profiles.len() >= self.options.max_processes.max(1) {
            let Some(oldest) = table.order.pop_front() else { break };
            table.profiles.remove(&oldest);
            table.evictions += 1;
        }
        table.order.push_back(id);
        table.profiles.insert(id, Arc::clone(&profile));
        profile
    }

    /// What there is without procfs.
    fn gone(&self, key: ProcessKey) -> Profile {
        let start_ms = (key.start_ticks > 0).then(|| {
            let start_ns = key.start_ticks * TICK_NS;
            start_ns.saturating_add_signed(self.clock.wall_offset_ns()) / MILLISECOND
        });
        Profile { start_ms, ..Profile::default() }
    }

    /// Reads a process, if it is still there. All is its own: see [`Shared::find`].
    fn read(&self, key: ProcessKey) -> Profile {
        let known = self.gone(key);
        let Some((process, stat)) = self.find(key) else { return known };
        let args = arguments(&process, self.options.max_cmdline);
        let parent = u32::try_from(stat.ppid).ok();
        let uid = status(&process).map(|status| status.euid);
        let cgroup = process.cgroups().ok().and_then(|ProcessCGroups(groups)| unified(&groups));
        Profile {
            exe: exe(&process),
            cmdline: (!args.is_empty()).then(|| args.join(" ")),
            args,
            parent_name: parent
                .and_then(|pid| Stat::from_file(self.root.join(format!("{pid}/stat"))).ok())
                .map(|stat| stat.comm),
            parent,
            user: uid.and_then(user),
            uid,
            // Nobody has logged in.
            login_uid: process.loginuid().ok().filter(|uid| *uid != u32::MAX),
            place: cgroup.as_deref().map(Place::of).unwrap_or_default(),
            cgroup,
            start_ms: known.start_ms,
            sha256: OnceLock::new(),
        }
    }

    /// Whether the process runs the executable of a profile.
    fn runs(&self, key: ProcessKey, profile: &Profile) -> bool {
        let running = self.find(key).and_then(|(process, _)| exe(&process));
        running.is_some() && running == profile.exe
    }

    /// The process, if it is still there. What is read by it is of none that gets its number later:
    /// the handle is of its folder in procfs, which is empty once it has gone.
    fn find(&self, key: ProcessKey) -> Option<(Process, Stat)> {
        let process = Process::new_with_root(self.root.join(key.pid.to_string())).ok()?;
        let stat = process.stat().ok()?;
        (stat.starttime == key.start_ticks).then_some((process, stat))
    }
}

/// The first bytes of a process's arguments. Not as the crate gives them: all of them, however many,
/// without those that are empty, and none if one is not UTF-8.
fn arguments(process: &Process, most: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    let read = process
        .open_relative("cmdline")
        .map(|file| file.take(most as u64).read_to_end(&mut bytes).unwrap_or(0));
    read.map(|_| split(&bytes)).unwrap_or_default()
}

/// What a process's status says. It has the name too, which need not be UTF-8, as the crate takes it
/// to be.
fn status(process: &Process) -> Option<Status> {
    let mut bytes = Vec::new();
    process.open_relative("status").ok()?.read_to_end(&mut bytes).ok()?;
    Status::from_buf_read(String::from_utf8_lossy(&bytes).as_bytes()).ok()
}

/// The path of a process's executable. A file that is gone keeps it.
fn exe(process: &Process) -> Option<String> {
    let path = process.exe().ok()?;
    let path = path.to_string_lossy();
    Some(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
}

/// Arguments, each of which ends with a zero, but the last one may be cut.
fn split(args: &[u8]) -> Vec<String> {
    let whole = args.strip_suffix(b"\0").unwrap_or(args);
    let args = if args.is_empty() { None } else { Some(whole.split(|byte| *byte == 0)) };
    args.into_iter().flatten().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

/// The path in the unified hierarchy, or in systemd's own of version 1.
fn unified(groups: &[ProcessCGroup]) -> Option<String> {
    let unified = groups.iter().find(|group| group.hierarchy == 0 && group.controllers.is_empty());
    let systemd = || groups.iter().find(|group| group.controllers == ["name=systemd"]);
    let own = unified.filter(|group| group.pathname != "/").or_else(systemd).or(unified);
    own.map(|group| group.pathname.clone())
}

/// The name of a user.
fn user(uid: u32) -> Option<String> {
    users::find(|user| user.uid == uid).map(|user| user.name)
}

/// The lock, also after a panic of the other thread: every change to the table is whole.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    struct Sleeper(Child);

    impl Sleeper {
        fn new() -> Self {
            Self(Command::new("sleep").arg("60").spawn().expect("sleep is there"))
        }

        fn key(&self) -> ProcessKey {
            self.key_once(|args| args.starts_with(b"sleep"))
        }

        /// The process, once it has become its program.
        fn key_once(&self, is: impl Fn(&[u8]) -> bool) -> ProcessKey {
            let pid = self.0.id();
            // It may not have become `sleep` yet.
            let cmdline = format!("/proc/{pid}/cmdline");
            while !std::fs::read(&cmdline).is_ok_and(|args| is(&args)) {
                thread::yield_now();
            }
            let stat = Process::new(pid.cast_signed()).and_then(|process| process.stat());
            ProcessKey { pid, start_ticks: stat.expect("it lives").starttime }
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn heard(key: ProcessKey) -> Heard {
        Heard { key, time_ns: u64::MAX, cgroup: 0 }
    }

    fn shared(options: Options) -> Shared {
        Shared::new(options, Path::new("/proc"), Clock::default())
    }

    #[test]
    fn a_process_is_known_after_it_has_gone() {
        let shared = shared(Options::default());
        let sleeper = Sleeper::new();
        let key = sleeper.key();
        let profile = shared.get(heard(key));
        assert!(profile.exe.as_ref().is_some_and(|exe| exe.ends_with("/sleep")), "{profile:?}");
        assert_eq!(profile.args, ["sleep", "60"]);
        assert_eq!(profile.cmdline.as_deref(), Some("sleep 60"));
        assert_eq!(profile.parent, Some(std::process::id()));
        assert!(profile.parent_name.is_some() && profile.uid.is_some());
        drop(sleeper);
        assert_eq!(shared.get(heard(key)).args, ["sleep", "60"]);
    }

    #[test]
    fn the_cgroup_of_one_is_that_of_others_in_it() {
        let shared = shared(Options::default());
        let sleeper = Sleeper::new();
        let known = shared.get(Heard { cgroup: 4711, ..heard(sleeper.key()) });
        let gone = ProcessKey { pid: u32::MAX, start_ticks: 1 };
        assert_eq!(shared.get(Heard { cgroup: 4711, ..heard(gone) }).cgroup, known.cgroup);
        assert_eq!(
            shared
                .get(Heard { cgroup: 4712, ..heard(ProcessKey { start_ticks: 2, ..gone }) })
                .cgroup,
            None
        );
    }

    #[test]
    fn another_process_with_the_number_tells_nothing() {
        let sleeper = Sleeper::new();
        let key = ProcessKey { start_ticks: sleeper.key().start_ticks + 1, ..sleeper.key() };
        let profile = shared(Options::default()).get(heard(key));
        assert_eq!((profile.exe.clone(), profile.uid), (None, None));
        assert!(profile.start_ms.is_some());
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_counted() {
        let shared = shared(Options { max_processes: 2, ..Options::default() });
        for start_ticks in 1..=5 {
            shared.get(heard(ProcessKey { pid: 1, start_ticks }));
        }
        let table = lock(&shared.table);
        assert_eq!((table.profiles.len(), table.order.len(), table.evictions), (2, 2, 3));
    }

    #[test]
    fn long_command_lines_are_cut() {
        let sleeper = Sleeper::new();
        let shared = shared(Options { max_cmdline: 7, ..Options::default() });
        assert_eq!(shared.get(heard(sleeper.key())).args, ["sleep", "6"]);
    }

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

    #[test]
    fn a_name_that_is_not_text_hides_nothing() {
        use std::os::unix::ffi::OsStrExt as _;
        let name = std::ffi::OsStr::from_bytes(b"sleep-\xff");
        let folder = std::env::temp_dir().join(format!("flowmeter-name-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a directory");
        let program = folder.join(name);
        std::fs::copy("/bin/sleep", &program).expect("sleep is there");
        let child = Command::new(&program).arg("60").spawn().expect("it runs");
        let sleeper = Sleeper(child);
        let key = sleeper.key_once(|args| args.starts_with(folder.as_os_str().as_bytes()));
        let profile = shared(Options::default()).get(heard(key));
        std::fs::remove_dir_all(&folder).expect("it is ours");
        assert!(profile.uid.is_some() && profile.args.len() == 2, "{profile:?}");
    }
}
