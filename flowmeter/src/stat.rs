//! What does `/proc/PID/stat` say of a process?

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use procfs::FromRead as _;
use procfs::process::{self, Process, StatFlags};

/// What a process is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The name of its first thread, as it is: some kernels write a backslash in it as two, Linux 6.18
    /// does not.
    pub name: String,
    /// What its first thread does.
    pub state: State,
    /// Its parent.
    pub parent: Option<u32>,
    /// When it started, by the kernel's clock: ticks of 10 ms since boot. Procfs shows it by the clock
    /// of its reader's time namespace (Linux `time_namespaces(7)`), the kernel's programs tell it by
    /// the first one's, as this does. In a time namespace that is ahead by a fraction of a tick it may
    /// be the tick beside.
    pub start_ticks: u64,
    /// Whether it is a thread of the kernel.
    pub is_kernels: bool,
    /// For how long it has computed, in steps of 10 ms.
    pub computed: Duration,
    /// Where its memory is.
    pub memory: Memory,
}

/// What a process's first thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for something, and can be interrupted.
    Asleep,
    /// It was stopped, by a signal or who traces it.
    Stopped,
    /// It has ended, and its parent has not asked for it.
    Zombie,
    /// It is gone.
    Dead,
    /// Anything else: it runs, or waits for its turn or for a device.
    Other,
}

/// Where code, stack, arguments and environment are. Another program has its own, at another place as
/// a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    code: u64,
    stack: u64,
    arguments: Option<u64>,
    environment: Option<u64>,
}

impl Stat {
    /// Of the process that has this folder in procfs now.
    pub fn of(folder: &Path) -> Option<Self> {
        process::Stat::from_file(folder.join("stat")).ok().map(Self::from)
    }

    /// Of the process of a handle, and of no other that gets its number later.
    pub fn of_handle(process: &Process) -> Option<Self> {
        process.stat().ok().map(Self::from)
    }
}

impl From<process::Stat> for Stat {
    fn from(stat: process::Stat) -> Self {
        Self {
            state: match stat.state {
                'S' => State::Asleep,
                'T' | 't' => State::Stopped,
                'Z' => State::Zombie,
                'X' => State::Dead,
                _ => State::Other,
            },
            parent: u32::try_from(stat.ppid).ok(),
            start_ticks: stat.starttime.saturating_add_signed(AHEAD.saturating_neg()),
            is_kernels: StatFlags::from_bits_truncate(stat.flags).contains(StatFlags::PF_KTHREAD),
            computed: Duration::from_millis((stat.utime + stat.stime) * 10),
            memory: Memory {
                code: stat.startcode,
                stack: stat.startstack,
                arguments: stat.arg_start,
                environment: stat.env_start,
            },
            name: stat.comm,
        }
    }
}

/// Ticks that procfs shows this process start times ahead by.
static AHEAD: LazyLock<i64> = LazyLock::new(|| {
    fs::read_to_string("/proc/self/timens_offsets").map_or(0, |text| ahead(&text))
});

/// What the file says of the time since boot, in ticks of 10 ms; 0 if nothing. Linux before 5.6 has no
/// such file.
fn ahead(offsets: &str) -> i64 {
    const PER_SECOND: i64 = 100;
    const NS: i64 = 10_000_000;
    let line = offsets.lines().find_map(|line| line.strip_prefix("boottime"));
    let mut numbers = line.unwrap_or_default().split_whitespace().map(str::parse::<i64>);
    let (Some(Ok(seconds)), Some(Ok(ns))) = (numbers.next(), numbers.next()) else { return 0 };
    seconds.saturating_mul(PER_SECOND).saturating_add(ns / NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told_from_a_thread_of_the_kernel() {
        let stat = Stat::of(Path::new("/proc/self")).expect("it lives");
        let handle = Process::myself().expect("it lives");
        let by_handle = Stat::of_handle(&handle).expect("it lives");
        assert_eq!((&stat.name, stat.start_ticks), (&by_handle.name, by_handle.start_ticks));
        assert_eq!(stat.memory, by_handle.memory);
        assert_eq!(stat.parent, Some(std::os::unix::process::parent_id()));
        assert!(!stat.is_kernels);
        assert_eq!(Stat::of(Path::new("/proc/nobody")), None);
    }

    #[test]
    fn the_time_since_boot_is_what_counts() {
        let text = "monotonic       50000         0\nboottime      1000000 250000000\n";
        assert_eq!(ahead(text), 100_000_025);
        assert_eq!(ahead("boottime -10 20000000\n"), -998);
        assert_eq!(ahead("boottime 9223372036854775807 999999999\n"), i64::MAX);
        for odd in ["", "boottime\n", "boottime x 0\n", "boottime 1\n", "monotonic 5 5\n"] {
            assert_eq!(ahead(odd), 0, "{odd}");
        }
    }
}
