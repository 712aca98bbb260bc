//! What does the parent know of a child, and when does it replace it?
//!
//! A child has at most one batch, which is kept until its answer came. A child that is gone, is
//! stopped or asleep, answers nonsense, or computes for longer than the batch can take is killed, and
//! another one takes its place: at once, if there is a spare. The flows it had are lost to
//! dissection, and only to that.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::child::{NAME, Orders};
use super::watch::{LOOK, State, Watch};
use super::{Hello, Landlock, MAGIC, MAX_ERROR};
use crate::dissect::answer::{Answer, Counts, Header};
use crate::dissect::batch::Batch;
use crate::dissect::quarantine::Quarantine;
use crate::dissect::{Error, Verdict};
use crate::notice::{Notice, Notices};

/// At most this much computing time for a batch, and some for each message. Most messages take some
/// µs, few of them 20.
const BATCH: Duration = Duration::from_millis(40);
const MESSAGE: Duration = Duration::from_micros(20);
/// If none can be started it is tried again after this time, and each time twice as long, up to a
/// bound.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// What happened in the dissectors of a run.
#[derive(Debug, Default)]
pub struct Losses {
    /// Packets dissected, or no longer needed.
    pub inspected: AtomicU64,
    /// Packets with headers that lie about their length, which were not.
    pub refused: AtomicU64,
    /// Children that ended by themselves.
    pub crashes: AtomicU64,
    /// Children that were killed because they were stopped, took too long or answered nonsense.
    pub hangs: AtomicU64,
}

/// Whether another child stands by, so that none is waited for after a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    /// A lost one is replaced when it is missed.
    None,
    /// One is ready.
    Ready,
}

/// What a child is started by, the first as well as its successors.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program, which calls [`run`](super::child::run) first.
    pub program: PathBuf,
    /// What it is to do.
    pub orders: Orders,
    /// Where batches go that killed a child.
    pub quarantine: Option<Arc<Quarantine>>,
    /// Where losses are counted.
    pub losses: Arc<Losses>,
    /// Whether another child stands by.
    pub spare: Spare,
    /// Where notices go.
    pub notices: Notices,
}

/// A dissector in a child process, whichever that is now.
#[derive(Debug)]
pub struct Contained {
    recipe: Recipe,
    /// None if none could be started.
    process: Option<Process>,
    spare: Option<Starting>,
    /// When the spare was looked at.
    looked: Instant,
    /// The spare was lost: when another one is started, and how long that was waited for.
    retry_spare: Option<(Instant, Duration)>,
    /// None could be started: when that is tried again, and how long that was waited for.
    retry: Option<(Instant, Duration)>,
    /// The batch that is to be answered, and whether a child has it.
    given: Option<(Batch, bool)>,
    /// The flows under dissection, and whether a child died that had them.
    held: HashMap<u64, bool>,
    reply: Vec<u8>,
}

/// What came back: verdicts, settled flows, counts.
#[derive(Debug, Default)]
pub struct Returned {
    /// Of the flows that ended, in order.
    pub verdicts: Vec<(u64, Verdict)>,
    /// Flows whose further packets change nothing.
    pub settled: Vec<u64>,
    /// What became of the packets.
    pub counts: Counts,
    /// Flows under dissection, if that has changed.
    pub flows: Option<u64>,
    /// Packets given to children that did not answer.
    pub lost_packets: u64,
}

impl Contained {
    /// Starts the first child, which takes some 30 ms for each part.
    pub fn start(recipe: Recipe) -> Result<Self, Error> {
        let process = Some(Starting::spawn(&recipe)?.ready()?);
        let mut contained = Self {
            recipe,
            process,
            spare: None,
            looked: Instant::now(),
            retry_spare: None,
            retry: None,
            given: None,
            held: HashMap::new(),
            reply: Vec::new(),
        };
        contained.stand_by();
        Ok(contained)
    }

    /// How much Landlock denies the child.
    pub fn landlock(&self) -> Landlock {
        self.process.as_ref().map_or(Landlock::Absent, |process| process.landlock)
    }

    /// Takes the answer of the batch before, then gives this one. Returns the one before, to be
    /// filled again.
    pub fn exchange(&mut self, batch: Batch, take: &mut Returned) -> Batch {
        let empty = self.collect(take);
        self.look_at_spare();
        for (message, _) in batch.iter().filter(|(message, _)| !message.is_finish()) {
            self.held.entry(message.flow).or_insert(false);
        }
        let has_it = self.give(&batch);
        self.given = Some((batch, has_it));
        empty
    }

    /// Whether a child took it. One that died before did not die of this batch, so that its
    /// successor gets it.
    fn give(&mut self, batch: &Batch) -> bool {
        for _ in 0..2 {
            self.restart();
            match self.process.as_mut().map(|process| process.give(batch)) {
                Some(Ok(())) => return true,
                Some(Err(fault)) => self.replace(fault, None),
                None => {}
            }
        }
        false
    }

    /// Takes the answer of the last batch, if it was not taken. Returns the batch, emptied.
    pub fn collect(&mut self, take: &mut Returned) -> Batch {
        let Some((mut batch, has_it)) = self.given.take() else { return Batch::default() };
        let reply = &mut self.reply;
        let process = self.process.as_mut().filter(|_| has_it);
        let answer = process.map(|process| process.take(&batch, reply));
        match answer {
            Some(Ok(answer)) => {
                take.settled.extend(answer.settled);
                take.counts.add(&answer.counts);
                take.flows = Some(answer.counts.flows);
                for (flow, layer7) in batch.finished().zip(answer.verdicts) {
                    let is_lost = self.held.remove(&flow).unwrap_or(false);
                    take.verdicts.push((flow, Verdict { layer7, is_lost }));
                }
            }
            other => {
                if let Some(Err(fault)) = other {
                    self.replace(fault, Some(&batch));
                }
                take.lost_packets += batch.packets();
                take.flows = Some(0);
                // Without a process nothing was dissected either.
                self.held.values_mut().for_each(|is_lost| *is_lost = true);
                for flow in batch.finished() {
                    let is_lost = self.held.remove(&flow).is_some();
                    take.verdicts.push((flow, Verdict { layer7: None, is_lost }));
                }
            }
        }
        batch.clear();
        batch
    }

    /// Replaces a child that ended while it had nothing to do.
    pub fn look(&mut self) {
        self.restart();
        self.look_at_spare();
        let fault = self.process.as_mut().and_then(|process| fault_at_rest(&mut process.child.0));
        if let Some(fault) = fault.filter(|_| self.given.is_none()) {
            self.replace(fault, None);
        }
    }

    /// Makes the spare the child, or starts one, unless that failed not long ago.
    fn restart(&mut self) {
        if self.process.is_some() || self.retry.is_some_and(|(at, _)| Instant::now() < at) {
            return;
        }
        if let Some(spare) = self.spare.take() {
            match spare.ready() {
                Ok(process) => self.process = Some(process),
                Err(e) => {
                    self.count_start(&e);
                }
            }
        }
        if self.process.is_none() {
            match Starting::spawn(&self.recipe).and_then(Starting::ready) {
                Ok(process) => self.process = Some(process),
                Err(e) => self.put_off(&e),
            }
        }
        if self.process.is_some() {
            self.retry = None;
            self.retry_spare = None;
            self.stand_by();
        }
    }

    /// Counts a child that was lost while it started. One that could not be started, or says why it
    /// does not work, was none.
    fn count_start(&self, error: &Error) {
        match error {
            Error::Silent => self.count(Fault::Hangs),
            Error::Ended => self.count(Fault::Ended),
            _ => {}
        }
    }

    fn put_off(&mut self, error: &Error) {
        self.count_start(error);
        if self.retry.is_none() {
            self.recipe.notices.send(Notice::NoDissector { why: error.to_string() });
        }
        self.retry = Some(put_off(self.retry));
    }

    fn stand_by(&mut self) {
        let is_wanted =
            self.recipe.spare == Spare::Ready && self.spare.is_none() && self.process.is_some();
        if !is_wanted || self.retry_spare.is_some_and(|(at, _)| Instant::now() < at) {
            return;
        }
        self.spare = Starting::spawn(&self.recipe).ok();
        if self.spare.is_none() {
            self.retry_spare = Some(put_off(self.retry_spare));
        }
    }

    /// Replaces a spare that ended or was stopped: with patience, as none may be able to start any
    /// more.
    fn look_at_spare(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let fault = self.spare.as_mut().and_then(|spare| fault_at_rest(&mut spare.child.0));
        if let (Some(fault), Some(spare)) = (fault, self.spare.take_if(|_| fault.is_some())) {
            // It may have said before why it does not work.
            match spare.ready() {
                Ok(_) => self.count(fault),
                Err(e) => self.count_start(&e),
            }
            self.retry_spare = Some(put_off(self.retry_spare));
        }
        self.stand_by();
    }

    fn count(&self, fault: Fault) {
        let losses = &self.recipe.losses;
        let count = if fault == Fault::Ended { &losses.crashes } else { &losses.hangs };
        count.fetch_add(1, Relaxed);
    }

    fn replace(&mut self, fault: Fault, killed_by: Option<&Batch>) {
        self.count(fault);
        self.held.values_mut().for_each(|is_lost| *is_lost = true);
        // Killed and waited for, before another one takes its memory.
        self.process = None;
        self.restart();
        if let (Some(batch), Some(quarantine)) = (killed_by, &self.recipe.quarantine)
            && let Err(e) = quarantine.keep(batch)
        {
            self.recipe.notices.send(Notice::NoQuarantine { why: e.to_string() });
        }
    }
}

/// When it is tried again after a failure, and after which time: twice as long as `before`, unless
/// that is long ago.
fn put_off(before: Option<(Instant, Duration)>) -> (Instant, Duration) {
    let wait = match before {
        Some((at, wait)) if at.elapsed() < LAST_RETRY => (wait * 2).min(LAST_RETRY),
        _ => FIRST_RETRY,
    };
    (Instant::now() + wait, wait)
}

/// Why a child is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is gone.
    Ended,
    /// It is stopped, or takes too long.
    Hangs,
    /// Its answer does not fit.
    Nonsense,
}

impl Fault {
    fn while_starting(self) -> Error {
        if self == Self::Hangs { Error::Silent } else { Error::Ended }
    }
}

/// A process, killed and waited for with the value.
#[derive(Debug)]
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A child that was started and has not said that it is ready.
#[derive(Debug)]
struct Starting {
    child: Killed,
    socket: UnixStream,
}

/// A child that is ready.
#[derive(Debug)]
struct Process {
    child: Killed,
    socket: UnixStream,
    landlock: Landlock,
}

impl Starting {
    fn spawn(recipe: &Recipe) -> Result<Self, Error> {
        let start = || {
            let (socket, its) = UnixStream::pair()?;
            socket.set_read_timeout(Some(LOOK))?;
            socket.set_write_timeout(Some(LOOK))?;
            let mut command = Command::new(&recipe.program);
            command
                .arg0(NAME)
                .args(recipe.orders.to_args())
                .env_clear()
                .env("TZ", "UTC0")
                .stdin(Stdio::from(OwnedFd::from(its)))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // The terminal's signals are not for it.
                .process_group(0);
            if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
                command.env("LD_LIBRARY_PATH", path);
            }
            Ok(Self { child: Killed(command.spawn()?), socket })
        };
        start().map_err(Error::Process)
    }

    /// Waits until it is ready: some 30 ms for each part after its start.
    fn ready(mut self) -> Result<Process, Error> {
        let mut hello = Hello::new_zeroed();
        let mut watch = Watch::of_start(&self.child.0);
        receive(&mut self.socket, hello.as_mut_bytes(), &mut watch)
            .map_err(Fault::while_starting)?;
        if hello.magic != MAGIC {
            return Err(Error::Ended);
        }
        if hello.error_bytes > 0 {
            let mut text = vec![0; (hello.error_bytes as usize).min(MAX_ERROR)];
            receive(&mut self.socket, &mut text, &mut watch).map_err(Fault::while_starting)?;
            return Err(Error::Child(String::from_utf8_lossy(&text).into_owned()));
        }
        let landlock = Landlock::from_number(hello.landlock);
        Ok(Process { child: self.child, socket: self.socket, landlock })
    }
}

impl Process {
    fn give(&mut self, batch: &Batch) -> Result<(), Fault> {
        let time = BATCH + MESSAGE * batch.messages.len() as u32;
        let mut watch = Watch::of_batch(&self.child.0, time);
        let header = batch.header();
        for bytes in [header.as_bytes(), batch.messages.as_bytes(), &batch.bytes] {
            send(&mut self.socket, bytes, &mut watch)?;
        }
        Ok(())
    }

    fn take(&mut self, batch: &Batch, reply: &mut Vec<u8>) -> Result<Answer, Fault> {
        let time = BATCH + MESSAGE * batch.messages.len() as u32;
        let mut watch = Watch::of_batch(&self.child.0, time);
        let mut header = Header::default();
        receive(&mut self.socket, header.as_mut_bytes(), &mut watch)?;
        let length = header.body(batch).map_err(|_| Fault::Nonsense)?;
        reply.resize(length, 0);
        receive(&mut self.socket, reply, &mut watch)?;
        Answer::decode(&header, reply).map_err(|_| Fault::Nonsense)
    }
}

/// What is wrong with a child that has nothing to do.
fn fault_at_rest(child: &mut Child) -> Option<Fault> {
    match child.try_wait() {
        Ok(None) => State::of(child.id())?.is_stopped.then_some(Fault::Hangs),
        _ => Some(Fault::Ended),
    }
}

fn receive(socket: &mut UnixStream, bytes: &mut [u8], watch: &mut Watch) -> Result<(), Fault> {
    let mut at = 0;
    while at < bytes.len() {
        at += moved(socket.read(&mut bytes[at..]), watch)?;
    }
    Ok(())
}

fn send(socket: &mut UnixStream, bytes: &[u8], watch: &mut Watch) -> Result<(), Fault> {
    let mut at = 0;
    while at < bytes.len() {
        at += moved(socket.write(&bytes[at..]), watch)?;
    }
    Ok(())
}

/// How many bytes were moved; 0 if it is worth trying again.
fn moved(result: io::Result<usize>, watch: &mut Watch) -> Result<usize, Fault> {
    match result {
        Ok(0) => Err(Fault::Ended),
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == ErrorKind::Interrupted => Ok(0),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            watch.look()?;
            Ok(0)
        }
        Err(_) => Err(Fault::Ended),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::super::watch::SILENCE;
    use super::*;
    use crate::dissect::User;
    use crate::dissect::dissector::Limits;
    use crate::dissect::samples::dns_query;

    /// A child that says that it is ready, and then does as it is told in Python.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str, then: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("flowmeter-{name}-{}", std::process::id()));
            let script = format!(
                "#!/usr/bin/python3\nimport os, struct, time\n\
                 os.write(0, struct.pack('=IIII', {MAGIC}, 0, 2, 0))\n\
                 os.read(0, 1)\n{then}\n"
            );
            fs::write(&path, script).unwrap_or_else(|e| panic!("{e}"));
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&path, mode).unwrap_or_else(|e| panic!("{e}"));
            Self(path)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn start(program: &Path) -> Contained {
        let limits = Limits { n_dissections: 1, max_flows: 1, parts: 1, details: false };
        let recipe = Recipe {
            program: program.to_owned(),
            orders: Orders { limits, user: User::NOBODY, memory: 1 << 30 },
            quarantine: None,
            losses: Arc::default(),
            spare: Spare::Ready,
            notices: Notices::none(),
        };
        Contained::start(recipe).unwrap_or_else(|e| panic!("{e}"))
    }

    fn losses(contained: &Contained) -> (u64, u64) {
        let losses = &contained.recipe.losses;
        (losses.crashes.load(Relaxed), losses.hangs.load(Relaxed))
    }

    /// Gives it a flow of one packet, and takes what comes back.
    fn dissect(contained: &mut Contained) -> Returned {
        let mut back = Returned::default();
        let mut batch = Batch::default();
        batch.packet(7, 0, 1, 1, &dns_query());
        batch.finish(7);
        contained.exchange(batch, &mut back);
        contained.collect(&mut back);
        back
    }

    #[test]
    fn a_child_that_hangs_is_replaced_long_before_the_silence_is_over() {
        for (name, then) in [("spins", "while True: pass"), ("sleeps", "time.sleep(1000)")] {
            let fake = Fake::new(name, then);
            let mut contained = start(&fake.0);
            let since = Instant::now();
            let back = dissect(&mut contained);
            println!("{name}: replaced in {:?}", since.elapsed());
            assert!(since.elapsed() < SILENCE / 2, "{name}: {:?}", since.elapsed());
            assert_eq!(back.verdicts, [(7, Verdict { layer7: None, is_lost: true })], "{name}");
            assert_eq!((back.lost_packets, losses(&contained)), (1, (0, 1)), "{name}");
            assert!(contained.process.is_some(), "{name}: there is another one");
        }
    }

    #[test]
    fn a_child_that_talks_nonsense_or_ends_is_replaced() {
        let fake = Fake::new("nonsense", "os.write(0, b'x' * 48)\ntime.sleep(1000)");
        let mut contained = start(&fake.0);
        assert!(dissect(&mut contained).verdicts[0].1.is_lost);
        assert_eq!(losses(&contained), (0, 1));

        let fake = Fake::new("ends", "");
        let mut contained = start(&fake.0);
        assert!(dissect(&mut contained).verdicts[0].1.is_lost);
        // If it ends before it has all of the batch, its successor gets that, and ends too.
        assert!(matches!(losses(&contained), (1 | 2, 0)), "{:?}", losses(&contained));
    }

    #[test]
    fn where_none_can_be_started_it_is_not_tried_all_the_time() {
        let fake = Fake::new("once", "");
        let mut contained = start(&fake.0);
        drop(fake);
        contained.spare = None;
        // The first one ends, and there is no other.
        assert!(dissect(&mut contained).verdicts[0].1.is_lost);
        let (at, wait) = contained.retry.unwrap_or_else(|| panic!("it was started"));
        assert!(contained.process.is_none() && wait == FIRST_RETRY);
        contained.look();
        assert!(contained.retry == Some((at, wait)) || Instant::now() >= at);
        assert!(dissect(&mut contained).verdicts[0].1.is_lost);
        assert_eq!(losses(&contained), (1, 0), "what was not started is not lost");
    }

    #[test]
    fn spares_that_do_not_start_are_not_tried_all_the_time() {
        let fake = Fake::new("no-spare", "");
        let mut contained = start(&fake.0);
        contained.spare = None;
        fs::write(&fake.0, "#!/bin/false\n").unwrap_or_else(|e| panic!("{e}"));
        for (lost, wait) in [(1, FIRST_RETRY), (2, FIRST_RETRY * 2)] {
            while losses(&contained) != (lost, 0) {
                contained.look_at_spare();
            }
            let (at, waited) = contained.retry_spare.unwrap_or_else(|| panic!("none was lost"));
            assert_eq!(waited, wait);
            contained.look_at_spare();
            assert!(contained.spare.is_none() || Instant::now() >= at);
        }
        assert!(contained.process.is_some(), "the one that works goes on");
    }
}
