//! How does an output not hold up whoever meters?
//!
//! Each output has a thread of its own, before which rows wait in a queue of bounded size. An output
//! that fails is tried again for as long as the run goes on; what finds no room meanwhile is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::{Error, Load, Output, Sum, describe};
use crate::notice::{Notice, Notices};

/// How much may wait, and what becomes of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of rows that may wait.
    pub capacity: usize,
    /// What happens to a row that finds no room.
    pub when_full: WhenFull,
}

impl Default for Options {
    fn default() -> Self {
        Self { capacity: 64 << 20, when_full: WhenFull::Drop }
    }
}

/// What happens when an output does not keep up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Rows are dropped and counted. The run goes on as if nothing were.
    #[default]
    Drop,
    /// The run waits, for as long as it is not asked to end; packets wait in the kernel's rings, for as
    /// long as these have room.
    Wait,
    /// The run ends. What waits is still written.
    End,
}

/// Where the rows of an output are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In the output's hands.
    pub written: Sum,
    /// In the queue.
    pub waiting: Sum,
    /// Nowhere: there was no room, or the output took no more until the end.
    pub lost: Sum,
    /// Bytes in the queue.
    pub waiting_bytes: u64,
    /// Times that the output failed; trying again does not count.
    pub failures: u64,
}

/// A queue before an output.
pub struct Queue<L> {
    options: Options,
    shared: Arc<Shared>,
    orders: Option<Sender<Order<L>>>,
    /// Loads whose memory is used again.
    spare: Receiver<L>,
    /// Nothing is sent here: it ends with the thread.
    ended: Receiver<()>,
    load: L,
    since: Instant,
    /// Set when the run is asked to end.
    stop: Arc<AtomicBool>,
    /// The run ends, for whatever reason.
    is_ending: bool,
    /// How long the output is still waited for then.
    patience: Duration,
    notices: Notices,
    /// Whether it was told that rows are lost.
    has_reported: bool,
}

enum Order<L> {
    Write(L),
    Reopen,
}

/// What both sides see.
struct Shared {
    name: String,
    books: Mutex<Books>,
    /// Told when there is more room.
    room: Condvar,
    /// Rows lost since the output failed.
    lost_rows: AtomicU64,
    /// Bytes in the queue and in the thread's hands, and those that may be.
    bytes: AtomicUsize,
    capacity: usize,
    /// What is left is not to be waited for.
    is_given_up: AtomicBool,
}

#[derive(Default)]
struct Books {
    given: Sum,
    written: Sum,
    lost: Sum,
    failures: u64,
    /// Why it takes nothing any more.
    failed: Option<Error>,
    is_broken: bool,
    /// They are closed: whatever the output still does is not told any more.
    is_closed: bool,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        // Whole at any moment, even one of a panic.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes after which a load is given to the thread, and the time after which it is in any case.
const FULL: usize = 64 * 1024;
const FLUSH: Duration = Duration::from_millis(200);

/// Loads kept for their memory.
const SPARE: usize = 8;

/// After a failure the output is tried again after this time.
const RETRY: Duration = Duration::from_millis(500);

/// Once a run ends, its output is waited for no longer than this altogether.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The thread looks this often whether it is to give up.
const LOOK: Duration = Duration::from_millis(50);

impl<L: Load> Queue<L> {
    /// Starts the thread of an output, which `name` stands for in notices. `stop` is set when the run
    /// is asked to end. A thread has the capabilities of the one that starts it.
    pub fn start(
        name: &str,
        output: Box<dyn Output<L>>,
        options: Options,
        stop: Arc<AtomicBool>,
        notices: Notices,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            books: Mutex::default(),
            room: Condvar::new(),
            lost_rows: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            capacity: options.capacity,
            is_given_up: AtomicBool::new(false),
        });
        let (orders, incoming) = unbounded();
        let (empty, spare) = bounded(SPARE);
        let (alive, ended) = bounded(0);
        let writer =
            Writer { output, shared: Arc::clone(&shared), notices: notices.clone(), fails: false };
        thread::Builder::new().name("output".into()).spawn(move || {
            writer.run(&incoming, &empty);
            drop(alive);
        })?;
        Ok(Self {
            options,
            shared,
            orders: Some(orders),
            spare,
            ended,
            load: L::default(),
            since: Instant::now(),
            stop,
            is_ending: false,
            patience: PATIENCE,
            notices,
            has_reported: false,
        })
    }

    /// Adds what `fill` does.
    pub fn add(&mut self, fill: impl FnOnce(&mut L)) {
        fill(&mut self.load);
        if self.load.bytes() >= FULL {
            self.send();
        }
    }

    /// To be called every few milliseconds: rows do not wait long for others to come. An error says
    /// that the run is to end.
    pub fn look(&mut self) -> Result<(), Error> {
        if self.since.elapsed() >= FLUSH {
            self.send();
        }
        self.failed()
    }

    fn failed(&self) -> Result<(), Error> {
        self.shared.books().failed.take().map_or(Ok(()), Err)
    }

    /// Has the output begin anew once it has what waits.
    pub fn reopen(&mut self) {
        self.send();
        self.order(Order::Reopen);
    }

    /// Where the rows are. The three sums are of one moment.
    pub fn counts(&self) -> Counts {
        let books = self.shared.books();
        Counts {
            written: books.written,
            waiting: books.given - books.written - books.lost + self.load.left(),
            lost: books.lost,
            waiting_bytes: (self.shared.bytes.load(Relaxed) + self.load.bytes()) as u64,
            failures: books.failures,
        }
    }

    /// Gives what there is to the thread.
    fn send(&mut self) {
        self.since = Instant::now();
        if self.load.left().rows() == 0 {
            return;
        }
        let mut load = std::mem::replace(&mut self.load, self.spare.try_recv().unwrap_or_default());
        let bytes = load.bytes();
        let mut books = self.shared.books();
        books.given += load.left();
        let is_full = |shared: &Shared| {
            let waiting = shared.bytes.load(Relaxed);
            waiting > 0 && waiting + bytes > self.options.capacity
        };
        if self.options.when_full == WhenFull::Wait {
            while is_full(&self.shared) && !books.is_broken {
                self.is_ending |= self.stop.load(Relaxed);
                if self.is_ending && self.patience.is_zero() {
                    break;
                }
                let begun = Instant::now();
                let waited = self.shared.room.wait_timeout(books, LOOK);
                books = waited.unwrap_or_else(PoisonError::into_inner).0;
                if self.is_ending {
                    self.patience = self.patience.saturating_sub(begun.elapsed());
                }
            }
        }
        if !is_full(&self.shared) && !books.is_broken {
            self.has_reported &=
                self.options.when_full == WhenFull::End || self.shared.lost_rows.load(Relaxed) > 0;
            drop(books);
            self.shared.bytes.fetch_add(bytes, Relaxed);
            self.order(Order::Write(load));
            return;
        }
        books.lost += load.left();
        let lost_rows = load.left().rows();
        load.clear();
        self.load = load;
        if self.options.when_full == WhenFull::End {
            // The error says it, once.
            if !std::mem::replace(&mut self.has_reported, true) {
                books.failed.get_or_insert(Error::Full { name: self.shared.name.clone() });
            }
            return;
        }
        drop(books);
        self.shared.lost_rows.fetch_add(lost_rows, Relaxed);
        if !self.has_reported {
            self.has_reported = true;
            self.notices.send(Notice::OutputFull { output: self.shared.name.clone() });
        }
    }

    fn order(&self, order: Order<L>) {
        // Without a thread, which ends by no fault, nobody takes it.
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }

    /// The run ends: from now on the output is waited for no longer than some seconds altogether.
    pub fn end(&mut self) {
        self.is_ending = true;
    }

    /// Gives the output all that waits, until `deadline` at the latest; what it has not taken then is
    /// lost. The error says why, if that is known.
    pub fn close(&mut self, deadline: Instant) -> Result<(), Error> {
        self.end();
        self.send();
        self.orders = None;
        let deadline = deadline.min(Instant::now() + self.patience);
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_deadline(deadline) {
            self.shared.is_given_up.store(true, Relaxed);
            // It waits for nothing much longer than this, unless the kernel does not let it go.
            let _ = self.ended.recv_timeout(4 * super::WAIT);
        }
        let mut books = self.shared.books();
        books.is_closed = true;
        books.lost = books.given - books.written;
        books.failed.take().map_or(Ok(()), Err)
    }
}

/// The thread's side.
struct Writer<L> {
    output: Box<dyn Output<L>>,
    shared: Arc<Shared>,
    notices: Notices,
    /// Whether it is known, and was told, that the output fails.
    fails: bool,
}

impl<L: Load> Writer<L> {
    fn run(mut self, orders: &Receiver<Order<L>>, spare: &Sender<L>) {
        self.begin();
        for order in orders {
            match order {
                Order::Write(load) => {
                    let bytes = load.bytes();
                    let empty = self.write(load);
                    let _ = spare.try_send(empty);
                    self.shared.bytes.fetch_sub(bytes, Relaxed);
                    self.shared.room.notify_one();
                }
                Order::Reopen => {
                    if let Err(e) = self.output.reopen() {
                        self.notices.send(Notice::NotReopened { why: describe(&e) });
                    }
                }
            }
        }
        self.begin();
    }

    /// The output may have to stand though there is no row.
    fn begin(&mut self) {
        if let Err(e) = self.output.flush()
            && !e.is_wait()
        {
            self.fail(e);
        }
    }

    /// Has the output take the load, sooner or later. Gives it back empty.
    fn write(&mut self, mut load: L) -> L {
        let mut since = Instant::now();
        while load.left().rows() > 0 {
            let before = load.left();
            let written = self.output.write(&mut load);
            let taken = before - load.left();
            let mut books = self.shared.books();
            if !books.is_closed {
                books.written += taken;
            }
            drop(books);
            match written {
                Ok(()) => self.works(),
                Err(e) if e.is_wait() => {
                    if matches!(e, Error::NoReader { .. }) {
                        self.failed(&e);
                        self.rest();
                    } else if taken.rows() == 0 && since.elapsed() > SLOW {
                        self.failed(&e);
                    } else if taken.rows() > 0 {
                        since = Instant::now();
                    }
                }
                Err(e) => {
                    let may_pass = e.may_pass();
                    self.fail(e);
                    if may_pass {
                        self.rest();
                    }
                }
            }
            if self.shared.is_given_up.load(Relaxed) || self.shared.books().is_broken {
                self.lose(&mut load);
            }
        }
        load
    }

    fn lose(&self, load: &mut L) {
        let mut books = self.shared.books();
        if !books.is_closed {
            books.lost += load.left();
        }
        load.clear();
    }

    fn fail(&mut self, error: Error) {
        if error.may_pass() {
            self.failed(&error);
        } else {
            let mut books = self.shared.books();
            books.is_broken = true;
            books.failures += 1;
            books.failed = Some(error);
        }
    }

    /// Reports that the output does not take rows, once.
    fn failed(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.fails, true) {
            self.shared.books().failures += 1;
            self.notices.send(Notice::OutputFails { why: describe(error) });
        }
    }

    /// Reports that the output takes rows again, once it has caught up: one that is always too slow
    /// is not reported again and again.
    fn works(&mut self) {
        if self.shared.bytes.load(Relaxed) > self.shared.capacity / 2 {
            return;
        }
        let rows_lost = self.shared.lost_rows.swap(0, Relaxed);
        if std::mem::take(&mut self.fails) || rows_lost > 0 {
            self.notices.send(Notice::OutputWorks { output: self.shared.name.clone(), rows_lost });
        }
    }

    fn rest(&self) {
        let until = Instant::now() + RETRY;
        while Instant::now() < until && !self.shared.is_given_up.load(Relaxed) {
            thread::sleep(LOOK);
        }
    }
}

/// A reader that takes nothing for this long is reported.
const SLOW: Duration = Duration::from_secs(2);
