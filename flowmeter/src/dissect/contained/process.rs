//! What does the parent know of a child, and when does it replace it?
//!
//! A child has at most one batch, which is kept until its answer came. A child that is gone, is
//! stopped, answers nonsense, or computes for longer than the batch can take is killed, and
//! another one started. The flows it had are lost to dissection, and only to that.

use std::fs;
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
use super::{Hello, Landlock, MAGIC, MAX_ERROR};
use crate::dissect::answer::{Answer, Counts, Header};
use crate::dissect::batch::Batch;
use crate::dissect::quarantine::Quarantine;
use crate::dissect::{Error, Verdict};

/// How often a child that owes something is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Computing time of a batch at the most, with something for each message. A message takes some
/// 10 µs at the worst.
const BATCH: Duration = Duration::from_millis(50);
const MESSAGE: Duration = Duration::from_micros(100);
/// A child that neither computes nor answers has this long, in case the machine is overloaded; and
/// one that starts.
const SILENCE: Duration = Duration::from_secs(10);

/// What happened to the children of a run.
#[derive(Debug, Default)]
pub struct Losses {
    /// Children that ended by themselves.
    pub crashes: AtomicU64,
    /// Children that were killed because they were stopped, took too long or answered nonsense.
    pub hangs: AtomicU64,
}

/// What a child is started by, the first as well as its successors.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// This program.
    pub program: PathBuf,
    /// What it is to do.
    pub orders: Orders,
    /// Where batches go that killed a child.
    pub quarantine: Option<Arc<Quarantine>>,
    /// Where losses are counted.
    pub losses: Arc<Losses>,
}

/// A dissector in a child process, whichever that is now.
#[derive(Debug)]
pub struct Contained {
    recipe: Recipe,
    /// None if none could be started; that is tried again with the next batch.
    process: Option<Process>,
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
        let process = Some(Process::start(&recipe)?);
        Ok(Self { recipe, process, given: None, held: HashMap::new(), reply: Vec::new() })
    }

    /// How much Landlock denies the child.
    pub fn landlock(&self) -> Landlock {
        self.process.as_ref().map_or(Landlock::Absent, |process| process.landlock)
    }

    /// Takes the answer of the batch before, then gives this one. Returns the one before, to be
    /// filled again.
    pub fn exchange(&mut self, batch: Batch, take: &mut Returned) -> Batch {
        let empty = self.collect(take);
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
        let fault = self.process.as_mut().and_then(Process::fault_at_rest);
        if let Some(fault) = fault.filter(|_| self.given.is_none()) {
            self.replace(fault, None);
        }
    }

    fn restart(&mut self) {
        if self.process.is_some() {
            return;
        }
        let losses = &self.recipe.losses;
        match Process::start(&self.recipe) {
            Ok(process) => self.process = Some(process),
            Err(Error::Silent) => _ = losses.hangs.fetch_add(1, Relaxed),
            Err(_) => _ = losses.crashes.fetch_add(1, Relaxed),
        }
    }

    fn replace(&mut self, fault: Fault, killed_by: Option<&Batch>) {
        let losses = &self.recipe.losses;
        let count = if fault == Fault::Ended { &losses.crashes } else { &losses.hangs };
        count.fetch_add(1, Relaxed);
        self.held.values_mut().for_each(|is_lost| *is_lost = true);
        // Killed and waited for, before another one takes its memory.
        self.process = None;
        self.restart();
        if let (Some(batch), Some(quarantine)) = (killed_by, &self.recipe.quarantine)
            && let Err(e) = quarantine.keep(batch)
        {
            eprintln!("flowmeter: warning: failed to write to the quarantine: {e}");
        }
    }
}

/// Why a child is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
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

/// A child. Killed and waited for with the value.
#[derive(Debug)]
struct Process {
    child: Child,
    socket: UnixStream,
    landlock: Landlock,
}

impl Process {
    fn start(recipe: &Recipe) -> Result<Self, Error> {
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
            Ok((command.spawn()?, socket))
        };
        let (child, socket) = start().map_err(Error::Process)?;
        let mut process = Self { child, socket, landlock: Landlock::Absent };
        let mut hello = Hello::new_zeroed();
        let mut watch = Watch::new(&process.child, SILENCE);
        receive(&mut process.socket, hello.as_mut_bytes(), &mut watch).map_err(|_| Error::Ended)?;
        if hello.magic != MAGIC {
            return Err(Error::Ended);
        }
        if hello.error_bytes > 0 {
            let mut text = vec![0; (hello.error_bytes as usize).min(MAX_ERROR)];
            receive(&mut process.socket, &mut text, &mut watch).map_err(Fault::while_starting)?;
            return Err(Error::Child(String::from_utf8_lossy(&text).into_owned()));
        }
        process.landlock = Landlock::from_number(hello.landlock);
        Ok(process)
    }

    fn give(&mut self, batch: &Batch) -> Result<(), Fault> {
        let mut watch = Watch::new(&self.child, BATCH);
        let header = batch.header();
        for bytes in [header.as_bytes(), batch.messages.as_bytes(), &batch.bytes] {
            send(&mut self.socket, bytes, &mut watch)?;
        }
        Ok(())
    }

    fn take(&mut self, batch: &Batch, reply: &mut Vec<u8>) -> Result<Answer, Fault> {
        let time = BATCH + MESSAGE * batch.messages.len() as u32;
        let mut watch = Watch::new(&self.child, time);
        let mut header = Header::default();
        receive(&mut self.socket, header.as_mut_bytes(), &mut watch)?;
        let length = header.body(batch).map_err(|_| Fault::Nonsense)?;
        reply.resize(length, 0);
        receive(&mut self.socket, reply, &mut watch)?;
        Answer::decode(&header, reply).map_err(|_| Fault::Nonsense)
    }

    fn fault_at_rest(&mut self) -> Option<Fault> {
        match self.child.try_wait() {
            Ok(None) => State::of(&self.child)?.is_stopped.then_some(Fault::Hangs),
            _ => Some(Fault::Ended),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The watchdog over one batch.
struct Watch {
    pid: u32,
    computing: Duration,
    /// What the child had computed before.
    before: Option<Duration>,
    since: Instant,
}

impl Watch {
    fn new(child: &Child, computing: Duration) -> Self {
        Self { pid: child.id(), computing, before: None, since: Instant::now() }
    }

    /// Looks at a child that let [`LOOK`] pass. Counts from the first look on, so that what is
    /// answered soon costs nothing.
    fn look(&mut self) -> Result<(), Fault> {
        // Without /proc silence has to do.
        if let Some(state) = State::of_pid(self.pid) {
            let before = *self.before.get_or_insert(state.computed);
            if state.is_stopped || state.computed.saturating_sub(before) > self.computing {
                return Err(Fault::Hangs);
            }
        }
        if self.since.elapsed() > SILENCE { Err(Fault::Hangs) } else { Ok(()) }
    }
}

/// What the kernel says of a process.
struct State {
    is_stopped: bool,
    computed: Duration,
}

impl State {
    fn of(child: &Child) -> Option<Self> {
        Self::of_pid(child.id())
    }

    /// From `proc_pid_stat(5)`: the state is the field behind the name, the times are the 12th and
    /// 13th after the name, in hundredths of a second.
    fn of_pid(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, behind) = stat.rsplit_once(") ")?;
        let mut fields = behind.split(' ');
        let is_stopped = matches!(fields.next()?, "T" | "t");
        let mut times = fields.skip(10).map_while(|field| field.parse::<u64>().ok());
        let ticks = times.next()? + times.next()?;
        Some(Self { is_stopped, computed: Duration::from_millis(ticks * 10) })
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
