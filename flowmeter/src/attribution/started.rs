//! When did a process start, by the kernel's clock?
//!
//! Procfs shows it by the clock of its reader's time namespace (Linux `time_namespaces(7)`), the
//! kernel's programs tell it by the first one's.

use std::fs;
use std::sync::LazyLock;

use procfs::process::Stat;

/// Ticks that procfs shows this process start times ahead by.
static AHEAD: LazyLock<i64> = LazyLock::new(|| {
    fs::read_to_string("/proc/self/timens_offsets").map_or(0, |text| ahead(&text))
});

/// Ticks since boot. In a time namespace that is ahead by a fraction of a tick it may be the tick
/// beside.
pub(super) fn started(stat: &Stat) -> u64 {
    stat.starttime.saturating_add_signed(AHEAD.saturating_neg())
}

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
