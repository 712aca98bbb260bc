//! What is a process, beyond its number and name?
//!
//! Read from procfs as soon as it is first heard of, by a thread of its own, and kept after it has
//! gone. Of one that was gone too soon there is what the kernel told when it began its program.
//! Nothing is ever taken from a process that has got its number since, nor of one program of a
//! process for another.

mod cgroup;
mod executable;
mod hash;
mod lineage;
mod name;
mod programs;
mod reading;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use crossbeam_channel::{Sender, bounded};
use flowmeter_common::knobs::MILLISECOND;
use flowmeter_common::owner::{CgroupEvent, ExecEvent, ForkEvent, Ids, NO_ID, OwnerEvent};
use hashbrown::HashMap;

pub use cgroup::Place;
pub use executable::{Executable, FileId, View};
pub use hash::{Budget, Hash, Why};
pub use lineage::Lineage;

use super::hooked::TICK_NS;
use super::{Error, Owner};
use crate::capture::kernel::Clock;
use crate::{redact, users};
use hash::{Hashing, Wanted};
use programs::{Fork, Program, Programs};
use reading::Reading;

/// A process, told from later ones with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Its thread group's number.
    pub pid: u32,
    /// When it started; clock ticks of 10 ms since boot.
    pub start_ticks: u64,
}

/// A process as it was seen at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The process.
    pub key: ProcessKey,
    /// Which of its programs it ran; 0 if unknown.
    pub exec_id: u64,
    /// When it was seen, by the kernel's clock; ns. It may have run other programs before and
    /// since.
    pub time_ns: u64,
    /// The number of the cgroup that it was in then; 0 if unknown.
    pub cgroup: u64,
    /// Its parent; 0 if unknown.
    pub parent: u32,
}

impl Sighting {
    /// By an event of a socket.
    pub fn by(event: &OwnerEvent) -> Self {
        Self {
            key: ProcessKey { pid: event.pid, start_ticks: event.start_ns / TICK_NS },
            exec_id: event.exec_id,
            time_ns: event.time_ns,
            cgroup: event.cgroup,
            parent: event.parent,
        }
    }

    /// By a poll at `time_ns`.
    pub(super) fn found(process: &super::processes::Process, time_ns: u64) -> Self {
        let key = ProcessKey { pid: process.pid, start_ticks: process.start_ticks };
        Self { key, exec_id: 0, time_ns, cgroup: 0, parent: 0 }
    }

    /// By a flow that began at `time_ns`.
    pub fn of(owner: &Owner, time_ns: u64) -> Self {
        let reported = owner.reported.as_ref();
        Self {
            key: ProcessKey { pid: owner.pid, start_ticks: owner.start_ticks },
            exec_id: reported.map_or(0, |reported| reported.exec_id),
            time_ns: reported.map_or(time_ns, |reported| reported.time_ns),
            cgroup: reported.map_or(0, |reported| reported.cgroup),
            parent: reported.map_or(0, |reported| reported.parent),
        }
    }
}

/// What is known of a process and one of its programs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The file that it runs.
    pub executable: Executable,
    /// Whether that is hashed.
    is_hashed: bool,
    /// What became of that, once it is known.
    hash: OnceLock<Hash>,
    /// Its arguments, from the program's name on.
    pub args: Vec<String>,
    /// Secrets in them that are not shown.
    pub redacted: u32,
    /// The arguments with spaces between.
    pub cmdline: Option<String>,
    /// The first of them without folders, if it is not cut; see [`Profile::whole_name`].
    first: Option<String>,
    /// When it started; ms since the epoch, to some 10 ms.
    pub start_ms: Option<u64>,
    /// Its parent.
    pub parent: Option<u32>,
    /// Its parent's name.
    pub parent_name: Option<String>,
    /// Its own, when it was looked at.
    name: Option<String>,
    /// Who made it, and so on.
    pub lineage: Lineage,
    /// Its users and groups, if the kernel did not report them when it used its socket.
    pub ids: Ids,
    /// Its cgroup's path.
    pub cgroup: Option<String>,
    /// What that says.
    pub place: Place,
}

impl Profile {
    /// The whole of a name that the kernel has cut, by psutil's rule; none if it was not cut.
    pub fn whole_name(&self, name: &str) -> Option<String> {
        name::whole(name, self.first.as_deref())
    }

    /// Takes the program from another process, whose it was.
    fn inherit(&mut self, other: &Self) {
        self.executable.clone_from(&other.executable);
        self.args.clone_from(&other.args);
        self.cmdline.clone_from(&other.cmdline);
        self.first.clone_from(&other.first);
        self.redacted = other.redacted;
        if let Some(hash) = other.hash.get() {
            let _ = self.hash.set(hash.clone());
        }
    }

    /// The SHA-256 of the executable, in hexadecimal.
    pub fn sha256(&self) -> Option<&str> {
        match self.hash.get()? {
            Hash::Sha256(hash) => Some(hash),
            Hash::GivenUp(_) => None,
        }
    }

    /// Why there is no hash though one is wanted.
    pub fn sha256_missing(&self) -> Option<&'static str> {
        match self.hash.get() {
            Some(Hash::Sha256(_)) => None,
            Some(Hash::GivenUp(why)) => Some(why.as_str()),
            None => self.is_hashed.then_some("pending"),
        }
    }
}

/// What becomes of secrets in arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// They stay.
    Shown,
    /// They are replaced.
    Redacted,
}

/// What profiles may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What hashing executables may cost; none if they are not hashed.
    pub hash: Option<Budget>,
    /// Bytes of a command line that are kept.
    pub max_cmdline: usize,
    /// Whether secrets in it are.
    pub secrets: Secrets,
    /// Processes in memory.
    pub max_processes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { hash: None, max_cmdline: 1024, secrets: Secrets::Shown, max_processes: 65_536 }
    }
}

/// What has been done with profiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Processes in memory.
    pub known: u64,
    /// Processes forgotten to make room.
    pub evicted: u64,
    /// Secrets in arguments that are not shown.
    pub redacted: u64,
}

/// The profiles of all processes heard of.
#[derive(Clone, Debug)]
pub struct Profiles {
    shared: Arc<Shared>,
    /// To the thread that reads. A full queue is no loss: who is asked for is read then.
    queue: Sender<Sighting>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    root: PathBuf,
    clock: Clock,
    table: Mutex<Table>,
    hashing: Option<Hashing>,
}

#[derive(Debug, Default)]
struct Table {
    /// By the process and the number of its program; 0 if that is not known.
    profiles: HashMap<(ProcessKey, u64), Kept>,
    /// The first heard of in front.
    order: VecDeque<(ProcessKey, u64)>,
    evictions: u64,
    /// Secrets that are not shown, in all profiles until now.
    redacted: u64,
    programs: Programs,
    /// How often all programs that the kernel reported were taken in.
    rounds: u64,
    /// Paths of cgroups, by their numbers.
    cgroups: HashMap<u64, String>,
    /// Names of users, by their numbers.
    users: HashMap<u32, Option<Arc<str>>>,
}

/// A profile that is kept.
#[derive(Debug)]
struct Kept {
    /// None if it turned out to be of another program.
    profile: Option<Arc<Profile>>,
    /// If it was read from procfs: [`Table::rounds`] when it had been.
    read_in: Option<u64>,
}

/// Ancestors that are looked up: more than are told, as each is kept with its own.
const MOST_ANCESTORS: u32 = 64;

/// Paths of cgroups in memory, and names of users; beyond this many, they are forgotten.
const MOST_NAMES: usize = 16_384;

impl Table {
    /// The path of the cgroup that a process was in when it was heard of. The root's is not known:
    /// where there are other hierarchies, all processes are in that.
    fn place(&self, profile: &mut Profile, cgroup: u64) {
        if let Some(path) = self.cgroups.get(&cgroup) {
            profile.place = Place::of(path);
            profile.cgroup = Some(path.clone());
        }
    }

    fn name_cgroup(&mut self, cgroup: u64, path: String) {
        if self.cgroups.len() >= MOST_NAMES {
            self.cgroups.clear();
        }
        self.cgroups.insert(cgroup, path);
    }

    /// What was read of a process's earlier programs may have been of this one, if that was not a
    /// whole round ago.
    fn doubt(&mut self, key: ProcessKey, exec_id: u64) {
        for earlier in [exec_id.wrapping_sub(1), 0] {
            if let Some(kept) = self.profiles.get_mut(&(key, earlier))
                && kept.read_in.is_some_and(|round| round + 1 >= self.rounds)
                && earlier != exec_id
            {
                *kept = Kept { profile: None, read_in: None };
            }
        }
    }

    fn keep(&mut self, id: (ProcessKey, u64), kept: Kept, most: usize) {
        if let Some(place) = self.profiles.get_mut(&id) {
            *place = kept;
            return;
        }
        while self.profiles.len() >= most.max(1) {
            let Some(oldest) = self.order.pop_front() else { break };
            self.profiles.remove(&oldest);
            self.evictions += 1;
        }
        self.order.push_back(id);
        self.profiles.insert(id, kept);
    }
}

/// Processes that may wait to be read.
const QUEUE: usize = 1024;

/// Where what is asked for came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It was there.
    Memory,
    /// It was read just now.
    Procfs,
}

impl Profiles {
    /// Begins with none. The threads end with the last clone of the value.
    pub fn start(options: Options, clock: Clock) -> Result<Self, Error> {
        let hashing = options.hash.map(Hashing::start).transpose()?;
        let shared = Arc::new(Shared::new(options, Path::new("/proc"), clock, hashing));
        let (queue, wanted) = bounded::<Sighting>(QUEUE);
        let reader = Arc::clone(&shared);
        let read = move || wanted.into_iter().for_each(|sighting| drop(reader.get(sighting)));
        thread::Builder::new().name("profiles".into()).spawn(read).map_err(Error::Thread)?;
        Ok(Self { shared, queue })
    }

    /// A process is heard of for the first time: it is read soon.
    pub fn observe(&self, sighting: Sighting) {
        let _ = self.queue.try_send(sighting);
    }

    /// A process has begun a program, which the kernel reported.
    pub fn executed(&self, event: &ExecEvent) {
        let mut table = lock(&self.shared.table);
        table.programs.begin(event);
        let key = ProcessKey { pid: event.pid, start_ticks: event.start_ns / TICK_NS };
        table.doubt(key, event.exec_id);
    }

    /// A process was made.
    pub fn forked(&self, event: &ForkEvent) {
        lock(&self.shared.table).programs.fork(event);
    }

    /// A cgroup was made.
    pub fn cgroup_made(&self, event: &CgroupEvent) {
        let bytes = usize::try_from(event.path_bytes).unwrap_or(usize::MAX);
        // One that fills its room may be cut.
        let path = event.path.get(..bytes).filter(|path| path.len() < event.path.len());
        if let Some([path @ .., 0]) = path {
            let path = String::from_utf8_lossy(path).into_owned();
            lock(&self.shared.table).name_cgroup(event.id, path);
        }
    }

    /// Cgroups that are there, by their numbers.
    pub fn cgroups_are(&self, cgroups: Vec<(u64, String)>) {
        let mut table = lock(&self.shared.table);
        for (id, path) in cgroups {
            table.name_cgroup(id, path);
        }
    }

    /// All programs that the kernel has reported until now are taken in.
    pub fn is_up_to_date(&self) {
        lock(&self.shared.table).rounds += 1;
    }

    /// What is known of a process; read now if it was not yet.
    pub fn get(&self, sighting: Sighting) -> (Arc<Profile>, Source) {
        self.shared.get(sighting)
    }

    /// The name of a user, by `/etc/passwd` as it was when first asked.
    pub fn user(&self, uid: u32) -> Option<Arc<str>> {
        if uid == NO_ID {
            return None;
        }
        if let Some(known) = lock(&self.shared.table).users.get(&uid) {
            return known.clone();
        }
        let name: Option<Arc<str>> =
            users::find(|user| user.uid == uid).map(|user| user.name.into());
        let mut table = lock(&self.shared.table);
        if table.users.len() >= MOST_NAMES {
            table.users.clear();
        }
        table.users.insert(uid, name.clone());
        name
    }

    /// What has been done so far.
    pub fn counters(&self) -> Counters {
        let table = lock(&self.shared.table);
        Counters {
            known: table.profiles.len() as u64,
            evicted: table.evictions,
            redacted: table.redacted,
        }
    }
}

impl Shared {
    fn new(options: Options, root: &Path, clock: Clock, hashing: Option<Hashing>) -> Self {
        Self { options, root: root.to_owned(), clock, table: Mutex::default(), hashing }
    }

    fn get(&self, sighting: Sighting) -> (Arc<Profile>, Source) {
        self.look_up(sighting, MOST_ANCESTORS)
    }

    /// The same, with up to this many ancestors.
    fn look_up(&self, sighting: Sighting, ancestors: u32) -> (Arc<Profile>, Source) {
        let Sighting { key, exec_id, time_ns, .. } = sighting;
        let start_ns = key.start_ticks * TICK_NS;
        let table = lock(&self.table);
        let program = match exec_id {
            0 => table.programs.at(&key, time_ns.max(start_ns), start_ns),
            _ => table.programs.numbered(&key, exec_id),
        };
        let id = (key, program.map_or(exec_id, |program| program.exec_id));
        if let Some(Kept { profile: Some(profile), .. }) = table.profiles.get(&id) {
            return (Arc::clone(profile), Source::Memory);
        }
        let program = program.cloned();
        let fork = table.programs.fork_of(&key).cloned();
        // procfs has the last program.
        let last = table.programs.last(&key).cloned();
        let last = last.as_ref();
        let is_last = last.is_none_or(|last| match id.1 {
            0 => program.as_ref() == Some(last),
            exec_id => last.exec_id <= exec_id,
        });
        let is_doubted = table.profiles.contains_key(&id);
        let last_id = last.map(|last| last.exec_id);
        drop(table);
        let reading = (is_last && !is_doubted)
            .then(|| Reading::of(&self.root, key, self.options.max_cmdline))
            .flatten();
        let source = if reading.is_some() { Source::Procfs } else { Source::Memory };
        let mut profile = self.profile(&sighting, program.as_ref(), fork.as_ref(), reading);
        let child_ns = start_ns;
        if let Some((maker, name)) = self.maker(&profile, key, child_ns, fork.as_ref())
            && ancestors > 0
        {
            let (above, _) = self.look_up(maker, ancestors - 1);
            let name = above.name.as_deref().or(name.as_deref());
            profile.lineage = Lineage::below(maker.key, &above, name);
            // Before its first program it ran that of its maker. One that has ended has none in
            // procfs.
            let is_unknown = profile.executable.path.is_none() && profile.args.is_empty();
            let is_its = fork.as_ref().is_some_and(|fork| [fork.exec_id, 0].contains(&id.1));
            if is_its && is_unknown && program.is_none() && last_id.is_none() {
                profile.inherit(&above);
            }
        }
        let mut table = lock(&self.table);
        if table.programs.last(&key).map(|last| last.exec_id) != last_id {
            // Another program has begun, which may be the one that was read.
            drop(table);
            return self.look_up(sighting, ancestors);
        }
        table.place(&mut profile, sighting.cgroup);
        if let Some(Kept { profile: Some(profile), .. }) = table.profiles.get(&id) {
            return (Arc::clone(profile), Source::Procfs); // somebody else was faster, just now
        }
        table.redacted += u64::from(profile.redacted);
        let profile = Arc::new(profile);
        let read_in = (source == Source::Procfs).then_some(table.rounds);
        let kept = Kept { profile: Some(Arc::clone(&profile)), read_in };
        table.keep(id, kept, self.options.max_processes);
        drop(table);
        self.hash(key, &profile, source);
        (profile, source)
    }

    /// Puts together what is known.
    fn profile(
        &self,
        sighting: &Sighting,
        program: Option<&Program>,
        fork: Option<&Fork>,
        reading: Option<Reading>,
    ) -> Profile {
        let key = sighting.key;
        let max_cmdline = self.options.max_cmdline;
        let mut profile = Profile {
            is_hashed: self.hashing.is_some(),
            start_ms: (key.start_ticks > 0).then(|| {
                let start_ns = key.start_ticks * TICK_NS;
                start_ns.saturating_add_signed(self.clock.wall_offset_ns()) / MILLISECOND
            }),
            ..Profile::default()
        };
        let mut args = Vec::new();
        let mut parent = (sighting.parent != 0).then_some(sighting.parent);
        let maker = fork.map(|fork| fork.maker.pid);
        if let Some(program) = program {
            parent = parent.or((program.parent != 0).then_some(program.parent));
            profile.ids = program.ids;
            profile.name = Path::new(&program.path)
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            args.clone_from(&program.args);
        }
        if let Some(reading) = reading {
            parent = parent.or(reading.parent);
            profile.ids = reading.ids;
            profile.name = Some(reading.name);
            profile.place = reading.cgroup.as_deref().map(Place::of).unwrap_or_default();
            profile.cgroup = reading.cgroup;
            profile.executable = reading.executable;
            // A process can change what procfs shows, and what the kernel told may be cut.
            if reading.args.starts_with(&args) {
                args = reading.args;
            }
        }
        if profile.executable.path.is_none()
            && let Some(program) = program
        {
            profile.executable = Executable::asked(&program.path, program.file, program.links);
        }
        profile.first = name::first(&args);
        profile.args = split(&args[..args.len().min(max_cmdline)]);
        if self.options.secrets == Secrets::Redacted {
            profile.redacted = redact::arguments(&mut profile.args);
        }
        profile.cmdline = (!profile.args.is_empty()).then(|| profile.args.join(" "));
        profile.parent = parent.or(maker);
        profile.parent_name = profile.parent.and_then(|pid| {
            let alive = reading::parent(&self.root, pid, key.start_ticks).map(|(_, name)| name);
            alive.or_else(|| fork.filter(|_| maker == Some(pid)).map(|fork| fork.name.clone()))
        });
        profile
    }

    /// Who made a process, or else its parent, and the name if that is known.
    fn maker(
        &self,
        profile: &Profile,
        key: ProcessKey,
        time_ns: u64,
        fork: Option<&Fork>,
    ) -> Option<(Sighting, Option<String>)> {
        let sighting = |key, exec_id| Sighting { key, exec_id, time_ns, cgroup: 0, parent: 0 };
        if let Some(fork) = fork {
            return Some((sighting(fork.maker, fork.exec_id), Some(fork.name.clone())));
        }
        let pid = profile.parent.filter(|pid| *pid != 0 && *pid != key.pid)?;
        let (parent, name) = reading::parent(&self.root, pid, key.start_ticks)?;
        Some((sighting(parent, 0), Some(name)))
    }

    /// Has the executable of a process hashed that was just read.
    fn hash(&self, key: ProcessKey, profile: &Arc<Profile>, source: Source) {
        let Some(hashing) = &self.hashing else { return };
        match profile.executable.file {
            Some(file) if source == Source::Procfs => hashing.want(Wanted {
                path: self.root.join(format!("{}/exe", key.pid)),
                file,
                user: profile.ids.real_uid,
                profile: Arc::clone(profile),
            }),
            _ => drop(profile.hash.set(Hash::GivenUp(Why::Unreadable))),
        }
    }
}

/// Arguments, each of which ends with a zero, but the last one may be cut.
fn split(args: &[u8]) -> Vec<String> {
    let whole = args.strip_suffix(b"\0").unwrap_or(args);
    let args = if args.is_empty() { None } else { Some(whole.split(|byte| *byte == 0)) };
    args.into_iter().flatten().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

/// The lock, also after a panic of the other thread: every change to the table is whole.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use crate::stat::Stat;

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
            let stat = Stat::of(&Path::new("/proc").join(pid.to_string())).expect("it lives");
            ProcessKey { pid, start_ticks: stat.start_ticks }
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn sighting(key: ProcessKey) -> Sighting {
        Sighting { key, exec_id: 0, time_ns: u64::MAX, cgroup: 0, parent: 0 }
    }

    fn shared(options: Options) -> Shared {
        Shared::new(options, Path::new("/proc"), Clock::default(), None)
    }

    fn profiles() -> Profiles {
        let (queue, _) = bounded(1);
        Profiles { shared: Arc::new(shared(Options::default())), queue }
    }

    #[test]
    fn a_process_is_known_after_it_has_gone() {
        let shared = shared(Options::default());
        let sleeper = Sleeper::new();
        let key = sleeper.key();
        let (profile, source) = shared.get(sighting(key));
        let path = profile.executable.path.clone();
        assert!(path.is_some_and(|path| path.ends_with("/sleep") || path.ends_with("/coreutils")));
        assert_eq!(profile.args, ["sleep", "60"]);
        assert_eq!(profile.cmdline.as_deref(), Some("sleep 60"));
        assert_eq!(profile.parent, Some(std::process::id()));
        let ids = profile.ids;
        assert!(profile.parent_name.is_some() && ids.uid != NO_ID && ids.real_gid != NO_ID);
        assert_eq!(source, Source::Procfs);
        drop(sleeper);
        let (profile, source) = shared.get(sighting(key));
        assert_eq!(
            (&profile.args[..], source),
            (&["sleep".into(), "60".into()][..], Source::Memory)
        );
    }

    /// What the kernel reported about a later program must not be shown for an earlier one, nor what
    /// procfs says about it by then.
    #[test]
    fn each_program_of_a_process_is_its_own() {
        let profiles = profiles();
        let sleeper = Sleeper::new();
        let key = sleeper.key();
        let begins = |exec_id, path: &[u8], args: &[u8]| {
            profiles.executed(&programs::tests::event(key, exec_id, path, args));
        };
        begins(4, b"/bin/loader\0", b"loader\0-x\0");
        begins(5, b"/bin/sleep\0", b"sleep\x0060\0");
        let get = |exec_id| profiles.get(Sighting { exec_id, ..sighting(key) }).0;
        let told = |profile: &Profile| (profile.executable.view, profile.cmdline.clone());
        assert_eq!(get(4).executable.path.as_deref(), Some("/bin/loader"));
        assert_eq!(told(&get(4)), (Some(View::Asked), Some("loader -x".into())));
        assert_eq!(told(&get(5)), (Some(View::Host), Some("sleep 60".into())));
        assert_eq!(get(3).executable, Executable::default(), "not known, and not the last");
    }

    #[test]
    fn what_was_read_while_another_program_began_is_of_neither() {
        let profiles = profiles();
        let sleeper = Sleeper::new();
        let key = sleeper.key();
        let get = |exec_id| profiles.get(Sighting { exec_id, ..sighting(key) }).0;
        assert_eq!(get(4).cmdline.as_deref(), Some("sleep 60"), "as far as is known");
        // It is `sleep` that the kernel reports now: before, it was something else.
        profiles.executed(&programs::tests::event(key, 5, b"/bin/sleep\0", b"sleep\x0060\0"));
        assert_eq!((get(4).cmdline.clone(), &get(4).executable), (None, &Executable::default()));
        assert_eq!(get(5).cmdline.as_deref(), Some("sleep 60"));
        // Long before another one begins, there is no doubt.
        profiles.is_up_to_date();
        profiles.is_up_to_date();
        profiles.executed(&programs::tests::event(key, 6, b"/bin/x\0", b"x\0"));
        assert_eq!(get(5).executable.view, Some(View::Host));
    }

    /// Of a child that is gone and has never begun a program, its maker's is known.
    #[test]
    fn a_child_runs_its_makers_program_until_it_begins_another() {
        let profiles = profiles();
        let sleeper = Sleeper::new();
        let maker = sleeper.key();
        let child = ProcessKey { pid: u32::MAX, start_ticks: maker.start_ticks + 1 };
        let grandchild = ProcessKey { pid: u32::MAX - 1, start_ticks: maker.start_ticks + 2 };
        let event = programs::tests::event;
        profiles.executed(&event(maker, 4, b"/bin/sleep\0", b"sleep\x0060\0"));
        profiles.forked(&programs::tests::fork(child, maker, 4));
        profiles.forked(&programs::tests::fork(grandchild, child, 4));
        profiles.executed(&event(grandchild, 5, b"/bin/other\0", b"other\0"));
        let get = |key, exec_id| profiles.get(Sighting { exec_id, ..sighting(key) }).0;
        assert_eq!(get(child, 4).cmdline.as_deref(), Some("sleep 60"));
        assert_eq!(get(child, 4).executable, get(maker, 4).executable);
        assert_eq!(get(child, 4).parent_name.as_deref(), Some("sleep"));
        assert_eq!(get(grandchild, 5).cmdline.as_deref(), Some("other"));
        let lineage = &get(grandchild, 5).lineage;
        assert_eq!(lineage.pids[..2], [u64::from(child.pid), u64::from(maker.pid)]);
        assert_eq!(lineage.names[1], "sleep");
        assert!(lineage.executables[0].ends_with("sleep") || !lineage.executables[0].is_empty());
        assert!(lineage.pids.len() <= 8 && lineage.starts_ms.len() == lineage.pids.len());
    }

    #[test]
    fn cgroups_have_their_paths_before_anybody_is_in_them() {
        let profiles = profiles();
        let mut event = CgroupEvent { id: 7, path_bytes: 4, path: [0; 512] };
        event.path[..3].copy_from_slice(b"/ab");
        profiles.cgroup_made(&event);
        profiles.cgroup_made(&CgroupEvent { id: 8, path_bytes: 512, path: [b'x'; 512] });
        profiles.cgroup_made(&CgroupEvent { id: 9, path_bytes: u64::MAX, path: [0; 512] });
        let cgroup = |cgroup, start_ticks| {
            let key = ProcessKey { pid: u32::MAX, start_ticks };
            profiles.get(Sighting { cgroup, ..sighting(key) }).0.cgroup.clone()
        };
        assert_eq!([cgroup(7, 1), cgroup(8, 2), cgroup(9, 3)], [Some("/ab".into()), None, None]);
    }

    #[test]
    fn secrets_in_arguments_are_shown_by_nobody() {
        let options = Options { secrets: Secrets::Redacted, ..Options::default() };
        let profiles = Profiles { shared: Arc::new(shared(options)), queue: bounded(1).0 };
        let key = ProcessKey { pid: u32::MAX, start_ticks: 1 };
        let args = b"app\0--token\0abc\0-v\0";
        profiles.executed(&programs::tests::event(key, 4, b"/bin/app\0", args));
        let (profile, _) = profiles.get(Sighting { exec_id: 4, ..sighting(key) });
        assert_eq!(profile.args, ["app", "--token", redact::REDACTED, "-v"]);
        assert_eq!(profile.cmdline.as_deref(), Some("app --token [redacted] -v"));
        assert_eq!(profile.redacted, 1);
    }

    #[test]
    fn another_process_with_the_number_tells_nothing() {
        let sleeper = Sleeper::new();
        let key = ProcessKey { start_ticks: sleeper.key().start_ticks + 1, ..sleeper.key() };
        let (profile, _) = shared(Options::default()).get(sighting(key));
        assert_eq!((&profile.executable, profile.ids), (&Executable::default(), Ids::default()));
        assert!(profile.start_ms.is_some());
    }

    #[test]
    fn a_parent_that_lives_has_its_name_and_another_in_its_place_has_not() {
        let sleeper = Sleeper::new();
        let key = sleeper.key();
        // Its child has gone.
        let child = |start_ticks| Sighting {
            parent: key.pid,
            ..sighting(ProcessKey { pid: u32::MAX, start_ticks })
        };
        let name = |start| shared(Options::default()).get(child(start)).0.parent_name.clone();
        assert_eq!(name(key.start_ticks).as_deref(), Some("sleep"));
        assert_eq!(name(key.start_ticks - 1), None, "who started later is another");
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_counted() {
        let shared = shared(Options { max_processes: 2, ..Options::default() });
        for start_ticks in 1..=5 {
            shared.get(sighting(ProcessKey { pid: 1, start_ticks }));
        }
        let table = lock(&shared.table);
        assert_eq!((table.profiles.len(), table.order.len(), table.evictions), (2, 2, 3));
    }

    #[test]
    fn long_command_lines_are_cut_and_names_are_not() {
        let sleeper = Sleeper::new();
        let shared = shared(Options { max_cmdline: 7, ..Options::default() });
        let (profile, _) = shared.get(sighting(sleeper.key()));
        assert_eq!(profile.args, ["sleep", "6"]);
        assert_eq!(profile.first.as_deref(), Some("sleep"));
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
        let (profile, _) = shared(Options::default()).get(sighting(key));
        std::fs::remove_dir_all(&folder).expect("it is ours");
        assert!(profile.ids.uid != NO_ID && profile.args.len() == 2, "{profile:?}");
    }
}
