//! Which program is it, whatever it is called?
//!
//! Hashing takes long, and anybody can have large programs. So a thread of its own does it, the
//! smallest rest first, within a budget for each executable and each user; what it gives up it says.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use hashbrown::HashMap;
use sha2::{Digest as _, Sha256};

use super::Profile;
use super::executable::FileId;
use crate::attribution::Error;

/// What has become of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hash {
    /// The SHA-256, in hexadecimal.
    Sha256(Arc<str>),
    /// It was given up.
    GivenUp(Why),
}

/// Why there is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The executable was gone before its turn, or was not to be read.
    Unreadable,
    /// It is larger than [`Budget::file_bytes`].
    TooLarge,
    /// It took longer than [`Budget::file_time`].
    TooSlow,
    /// Its user's budget is used up.
    UserBudget,
    /// Too many waited.
    Crowded,
}

impl Why {
    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::UserBudget => "user_budget",
            Self::Crowded => "crowded",
        }
    }
}

/// What hashing may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The largest executable; bytes.
    pub file_bytes: u64,
    /// The time for one, of this thread's reading and computing.
    pub file_time: Duration,
    /// For the executables that a user runs; bytes per minute.
    pub user_bytes: u64,
    /// The same; time per minute.
    pub user_time: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            file_bytes: 512 << 20,
            file_time: Duration::from_secs(5),
            user_bytes: 1 << 30,
            user_time: Duration::from_secs(6),
        }
    }
}

/// After this time users have their budgets anew.
const PERIOD: Duration = Duration::from_mins(1);

/// An executable to be hashed.
#[derive(Debug)]
pub struct Wanted {
    /// Where it is, of a process that may be gone soon.
    pub path: PathBuf,
    /// What is to be there.
    pub file: FileId,
    /// Who runs it.
    pub user: u32,
    /// Where the hash is to go.
    pub profile: Arc<Profile>,
}

/// To the thread that hashes.
#[derive(Debug)]
pub struct Hashing(Sender<Wanted>);

/// Executables that may wait.
const QUEUE: usize = 1024;

/// Executables that wait opened, so that they are hashed also if their processes end.
const OPEN: usize = 32;

impl Hashing {
    /// Starts the thread, which ends with the value.
    pub fn start(budget: Budget) -> Result<Self, Error> {
        let (queue, wanted) = bounded(QUEUE);
        let run = move || Hashes::new(budget).run(&wanted);
        thread::Builder::new().name("hashes".into()).spawn(run).map_err(Error::Thread)?;
        Ok(Self(queue))
    }

    /// Has an executable hashed; never waits.
    pub fn want(&self, wanted: Wanted) {
        if let Err(refused) = self.0.try_send(wanted) {
            give_up(&refused.into_inner().profile.hash, Why::Crowded);
        }
    }
}

fn give_up(hash: &OnceLock<Hash>, why: Why) {
    let _ = hash.set(Hash::GivenUp(why));
}

/// The hashes, each computed once for as long as the file does not change.
struct Hashes {
    budget: Budget,
    known: HashMap<FileState, Arc<str>>,
    /// The one with the smallest rest at the end.
    jobs: Vec<Job>,
    /// Bytes and time that users have had in this period.
    spent: HashMap<u32, (u64, Duration)>,
    period: Instant,
    buffer: Vec<u8>,
}

/// What tells a file and its state: the file, its size, and the time of the last change, of which a
/// process cannot lie; s and ns.
type FileState = (FileId, u64, i64, i64);

/// A file that is being hashed, or waits for that.
struct Job {
    path: PathBuf,
    /// None if too many others are open.
    file: Option<File>,
    state: FileState,
    user: u32,
    hasher: Sha256,
    left: u64,
    spent: Duration,
    profile: Arc<Profile>,
}

/// Files in memory.
const MOST: usize = 16_384;

/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;

impl Hashes {
    fn new(budget: Budget) -> Self {
        Self {
            budget,
            known: HashMap::new(),
            jobs: Vec::new(),
            spent: HashMap::new(),
            period: Instant::now(),
            buffer: vec![0; CHUNK],
        }
    }

    fn run(&mut self, wanted: &Receiver<Wanted>) {
        while let Ok(first) = wanted.recv() {
            self.take(first);
            loop {
                // What comes in meanwhile may be smaller.
                while let Ok(next) = wanted.try_recv() {
                    self.take(next);
                }
                if !self.step() {
                    break;
                }
            }
        }
    }

    /// Looks at an executable, and keeps it open if it is to be hashed.
    fn take(&mut self, wanted: Wanted) {
        let Wanted { path, file: id, user, profile } = wanted;
        let Some((file, state)) = open(&path, id) else {
            return give_up(&profile.hash, Why::Unreadable);
        };
        if let Some(known) = self.known.get(&state) {
            let _ = profile.hash.set(Hash::Sha256(Arc::clone(known)));
            return;
        }
        let left = state.1;
        if left > self.budget.file_bytes {
            return give_up(&profile.hash, Why::TooLarge);
        }
        let (file, spent, hasher) = (Some(file), Duration::ZERO, Sha256::new());
        self.jobs.push(Job { path, file, state, user, hasher, left, spent, profile });
        self.jobs.sort_by_key(|job| Reverse(job.left));
        if self.jobs.len() > QUEUE {
            give_up(&self.jobs.remove(0).profile.hash, Why::Crowded);
        }
        let closed = self.jobs.len().saturating_sub(OPEN);
        for job in self.jobs[..closed].iter_mut().filter(|job| job.file.is_some()) {
            // It begins anew when it is its turn.
            (job.file, job.left, job.hasher) = (None, job.state.1, Sha256::new());
        }
        self.jobs.sort_by_key(|job| Reverse(job.left));
    }

    /// Goes on with the smallest rest; false if there is nothing to do.
    fn step(&mut self) -> bool {
        let Some(mut job) = self.jobs.pop() else { return false };
        if self.period.elapsed() >= PERIOD {
            self.spent.clear();
            self.period = Instant::now();
        }
        if let Some(known) = self.known.get(&job.state) {
            let _ = job.profile.hash.set(Hash::Sha256(Arc::clone(known)));
            return true;
        }
        if job.left == 0 {
            self.finish(job);
            return true;
        }
        let (bytes, time) = self.spent.entry(job.user).or_default();
        if *bytes >= self.budget.user_bytes || *time >= self.budget.user_time {
            give_up(&job.profile.hash, Why::UserBudget);
            return true;
        }
        if job.spent >= self.budget.file_time {
            give_up(&job.profile.hash, Why::TooSlow);
            return true;
        }
        let started = Instant::now();
        if job.file.is_none() {
            let id = job.state.0;
            job.file =
                open(&job.path, id).filter(|(_, now)| *now == job.state).map(|(file, _)| file);
        }
        let Some(Ok(read)) = job.file.as_mut().map(|file| file.read(&mut self.buffer)) else {
            give_up(&job.profile.hash, Why::Unreadable);
            return true;
        };
        job.hasher.update(&self.buffer[..read]);
        let took = started.elapsed();
        job.spent += took;
        *time += took;
        *bytes += read as u64;
        job.left = job.left.saturating_sub(read as u64);
        if read == 0 {
            job.left = 0; // it was cut, which its state shows
        }
        self.jobs.push(job); // it still has the smallest rest
        true
    }

    fn finish(&mut self, job: Job) {
        let mut hash = String::with_capacity(64);
        for byte in job.hasher.finalize() {
            // Writing to a string does not fail.
            let _ = write!(hash, "{byte:02x}");
        }
        let hash: Arc<str> = hash.into();
        // One that was written to meanwhile is neither what it was nor what it is.
        let meta = job.file.as_ref().and_then(|file| file.metadata().ok());
        if meta.is_none_or(|meta| state(&meta) != job.state) {
            return give_up(&job.profile.hash, Why::Unreadable);
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert(job.state, Arc::clone(&hash));
        let _ = job.profile.hash.set(Hash::Sha256(hash));
    }
}

/// Opens a file if it is still that one.
fn open(path: &Path, id: FileId) -> Option<(File, FileState)> {
    let file = File::open(path).ok()?;
    let meta = file.metadata().ok()?;
    let state = state(&meta);
    (state.0 == id && meta.is_file()).then_some((file, state))
}

fn state(meta: &Metadata) -> FileState {
    let id = FileId { device: meta.dev(), inode: meta.ino() };
    (id, meta.size(), meta.ctime(), meta.ctime_nsec())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    fn wanted(path: &Path, user: u32) -> Wanted {
        let meta = fs::metadata(path).expect("it is there");
        let file = FileId { device: meta.dev(), inode: meta.ino() };
        Wanted { path: path.to_owned(), file, user, profile: Arc::default() }
    }

    /// A file of nothing, gone with the value.
    struct Sparse(PathBuf);

    impl Sparse {
        fn new(name: &str, bytes: u64) -> Self {
            let path = std::env::temp_dir().join(format!("fm-{name}-{}", std::process::id()));
            File::create(&path).and_then(|file| file.set_len(bytes)).expect("a file");
            Self(path)
        }
    }

    impl Drop for Sparse {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// Takes in all and does what there is to do; says what became of each.
    fn hashed(hashes: &mut Hashes, all: Vec<Wanted>) -> Vec<Option<Hash>> {
        let profiles: Vec<_> = all.iter().map(|wanted| Arc::clone(&wanted.profile)).collect();
        for wanted in all {
            hashes.take(wanted);
        }
        while hashes.step() {}
        profiles.iter().map(|profile| profile.hash.get().cloned()).collect()
    }

    fn given_up(why: Why) -> Hash {
        Hash::GivenUp(why)
    }

    #[test]
    fn as_sha256sum_has_it() {
        let path = std::env::current_exe().expect("a test has a path");
        let output = Command::new("sha256sum").arg(&path).output().expect("coreutils are there");
        let text = String::from_utf8_lossy(&output.stdout);
        let sum = text.split(' ').next().map(|sum| Hash::Sha256(sum.into()));
        let mut hashes = Hashes::new(Budget { file_time: Duration::MAX, ..Budget::default() });
        let all = vec![wanted(&path, 1), wanted(&path, 2)];
        assert_eq!(hashed(&mut hashes, all), [sum.clone(), sum.clone()]);
        assert!(!hashes.spent.contains_key(&1) || !hashes.spent.contains_key(&2), "read once");
        assert_eq!(hashed(&mut hashes, vec![wanted(&path, 3)]), [sum]);
    }

    #[test]
    fn what_is_another_file_or_none_has_no_hash() {
        let (one, other) = (Sparse::new("one", 10), Sparse::new("other", 10));
        let mut hashes = Hashes::new(Budget::default());
        let replaced = Wanted { path: other.0.clone(), ..wanted(&one.0, 1) };
        let gone = Wanted { path: "/none".into(), ..wanted(&one.0, 1) };
        let unreadable = Some(given_up(Why::Unreadable));
        assert_eq!(hashed(&mut hashes, vec![replaced, gone]), [unreadable.clone(), unreadable]);
    }

    #[test]
    fn a_users_large_programs_keep_nobody_elses_from_their_hash() {
        let large: Vec<_> = (0..8).map(|i| Sparse::new(&format!("large-{i}"), 1 << 20)).collect();
        let (small, huge) = (Sparse::new("small", 1000), Sparse::new("huge", 1 << 30));
        let budget = Budget {
            file_bytes: 2 << 20,
            file_time: Duration::MAX,
            user_bytes: 2 << 20,
            user_time: Duration::MAX,
        };
        let mut hashes = Hashes::new(budget);
        // They are alike, but not the same file.
        let mut all: Vec<_> = large.iter().map(|file| wanted(&file.0, 1000)).collect();
        all.push(wanted(&huge.0, 1000));
        all.push(wanted(&small.0, 0));
        let found = hashed(&mut hashes, all);
        let is_hash = |hash: &&Option<Hash>| matches!(hash, Some(Hash::Sha256(_)));
        assert_eq!(found[..8].iter().filter(is_hash).count(), 2, "{found:?}");
        let budget = Some(given_up(Why::UserBudget));
        assert_eq!(found[..8].iter().filter(|hash| **hash == budget).count(), 6);
        assert_eq!(found[8], Some(given_up(Why::TooLarge)));
        assert!(is_hash(&&found[9]), "another user's: {:?}", found[9]);
    }

    #[test]
    fn the_smaller_one_that_comes_later_is_first() {
        let (large, small) = (Sparse::new("later-large", 8 << 20), Sparse::new("later-small", 9));
        let mut hashes = Hashes::new(Budget { file_time: Duration::MAX, ..Budget::default() });
        let (large, small) = (wanted(&large.0, 1), wanted(&small.0, 2));
        let profiles = [Arc::clone(&large.profile), Arc::clone(&small.profile)];
        hashes.take(large);
        assert!(hashes.step() && hashes.step(), "it has begun");
        hashes.take(small);
        while profiles[1].hash.get().is_none() {
            assert!(hashes.step());
        }
        assert_eq!(profiles[0].hash.get(), None, "the large one goes on then");
        while hashes.step() {}
        assert!(matches!(profiles[0].hash.get(), Some(Hash::Sha256(_))));
    }

    #[test]
    fn what_waits_is_bounded_and_time_too() {
        let file = Sparse::new("slow", 1 << 20);
        let mut hashes = Hashes::new(Budget { file_time: Duration::ZERO, ..Budget::default() });
        assert_eq!(hashed(&mut hashes, vec![wanted(&file.0, 1)]), [Some(given_up(Why::TooSlow))]);
        let all = (0..=QUEUE).map(|_| wanted(&file.0, 1)).collect();
        let found = hashed(&mut hashes, all);
        assert_eq!(found.iter().filter(|hash| **hash == Some(given_up(Why::Crowded))).count(), 1);
    }

    #[test]
    fn few_files_are_open_and_the_others_wait_all_the_same() {
        let files: Vec<_> =
            (0..3 * OPEN).map(|i| Sparse::new(&format!("many-{i}"), 1000 + i as u64)).collect();
        let mut hashes = Hashes::new(Budget { file_time: Duration::MAX, ..Budget::default() });
        let wanted: Vec<_> = files.iter().map(|file| wanted(&file.0, 1)).collect();
        let profiles: Vec<_> = wanted.iter().map(|wanted| Arc::clone(&wanted.profile)).collect();
        for wanted in wanted.into_iter().rev() {
            hashes.take(wanted);
        }
        assert_eq!(hashes.jobs.iter().filter(|job| job.file.is_some()).count(), OPEN);
        while hashes.step() {}
        let is_hashed =
            |profile: &Arc<Profile>| matches!(profile.hash.get(), Some(Hash::Sha256(_)));
        assert!(profiles.iter().all(is_hashed));
    }
}
