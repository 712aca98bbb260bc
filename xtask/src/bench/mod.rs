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
    /// The kernel programs: ns a packet, as ratios to a program that does nothing. Needs root.
    Kernel,
    /// TCP throughput between two namespaces, without and with a meter. Needs root and iperf3.
    Live {
        /// Seconds a measurement takes.
        #[arg(long, default_value_t = 5)]
        seconds: u32,
    },
    /// Connections and datagrams over the loopback: time an operation with hooks at the sockets, as
    /// ratios to that without. Needs root.
    Owner {
        /// Measurements of each, of which the least counts.
        #[arg(long, default_value_t = 10)]
        rounds: u32,
    },
    /// Captures: packets/s, MB/s and peak memory, as ratios to tcpdump and softflowd.
    Read {
        /// Megabytes of each capture.
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
