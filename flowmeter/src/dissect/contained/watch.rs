//! Does a child hang, or has it not had its turn?

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use procfs::FromRead as _;
use procfs::process::Schedstat;

use super::process::Fault;
use crate::stat::{self, Stat};

/// How often a child that owes something is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(10);
/// A child that owes an answer and was asleep at this many looks in a row will not wake: all that it
/// could wait for is there. One that is only waiting for its turn is not asleep.
const ASLEEP: u32 = 3;
/// A child that is kept from computing has this long, in case the machine is overloaded; and one
/// that starts.
pub(super) const SILENCE: Duration = Duration::from_secs(10);
/// The watchdog over one batch, or over the start.
pub(super) struct Watch {
    pid: u32,
    /// At most this much computing time; none while it starts, when it may sleep too.
    most: Option<Duration>,
    /// What the child had computed at the first look.
    before: Option<Duration>,
    /// What it had computed at the last look, and at how many in a row it was asleep.
    last: Duration,
    asleep: u32,
    since: Instant,
}

impl Watch {
    pub(super) fn of_start(child: &Child) -> Self {
        Self {
            pid: child.id(),
            most: None,
            before: None,
            last: Duration::ZERO,
            asleep: 0,
            since: Instant::now(),
        }
    }

    pub(super) fn of_batch(child: &Child, most: Duration) -> Self {
        Self { most: Some(most), ..Self::of_start(child) }
    }

    /// Looks at a child that let [`LOOK`] pass. Counts from the first look on, so that what is
    /// answered soon costs nothing.
    pub(super) fn look(&mut self) -> Result<(), Fault> {
        // Without /proc silence has to do.
        if let Some(state) = State::of(self.pid) {
            let before = *self.before.get_or_insert(state.computed);
            let computed = state.computed.saturating_sub(before);
            let rests = state.is_asleep && state.computed == self.last;
            self.asleep = if rests { self.asleep + 1 } else { 0 };
            self.last = state.computed;
            let hangs = self.most.is_some_and(|most| computed > most || self.asleep >= ASLEEP);
            if state.is_stopped || hangs {
                return Err(Fault::Hangs);
            }
        }
        if self.since.elapsed() > SILENCE { Err(Fault::Hangs) } else { Ok(()) }
    }
}

/// What the kernel says of a process.
pub(super) struct State {
    pub(super) is_stopped: bool,
    is_asleep: bool,
    computed: Duration,
}

impl State {
    /// Where the kernel has `schedstat`, that has the time in ns; `stat` has it in hundredths of a
    /// second.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let folder = Path::new("/proc").join(pid.to_string());
        let stat = Stat::of(&folder)?;
        let precise = Schedstat::from_file(folder.join("schedstat"));
        Some(Self {
            is_stopped: stat.state == stat::State::Stopped,
            is_asleep: stat.state == stat::State::Asleep,
            computed: precise
                .map_or(stat.computed, |precise| Duration::from_nanos(precise.sum_exec_runtime)),
        })
    }
}
