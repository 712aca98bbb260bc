//! How fast is it?
//!
//! Figures are ratios to a baseline measured in the same run: machines differ, and so do hours.

mod kernel;
mod live;
mod owner;
mod read;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// The kernel programs: ns per packet, as ratios to a program that does nothing. Needs root.
    Kernel,
    /// TCP throughput between two namespaces, with and without a meter. Needs root and iperf3.
    Live {
        /// Seconds per measurement.
        #[arg(long, default_value_t = 5)]
        seconds: u32,
    },
    /// Connections and datagrams over loopback: time per operation with hooks at the sockets, as
    /// ratios to the time without. Needs root.
    Owner {
        /// Measurements of each, of which the fastest counts.
        #[arg(long, default_value_t = 10)]
        rounds: u32,
    },
    /// Captures: packets/s, MB/s and peak memory, as ratios to tcpdump and softflowd.
    Read {
        /// Size of each capture in megabytes.
        #[arg(long, default_value_t = 300)]
        megabytes: u64,
    },
}

/// Measures.
pub fn bench(what: &Bench) -> Result<()> {
    match what {
        Bench::Kernel => kernel::bench(),
        Bench::Live { seconds } => live::bench(*seconds),
        Bench::Owner { rounds } => owner::bench(*rounds),
        Bench::Read { megabytes } => read::bench(*megabytes),
    }
}

/// The middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
