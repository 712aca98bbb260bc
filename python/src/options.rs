//! What does a streamer ask of the meter?

use std::path::PathBuf;
use std::time::Duration;

use flowmeter::collector::pcap::Reading;
use flowmeter::fields;
use flowmeter::{Knobs, Layer, LiveOptions, Plugins, ReadOptions};
use pyo3::FromPyObject;

/// The parameters of `NFStreamer`, checked by it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Options {
    /// Captures; none for an interface.
    files: Vec<PathBuf>,
    interface: Option<String>,
    decode_tunnels: bool,
    bpf_filter: Option<String>,
    promiscuous_mode: bool,
    snapshot_length: u16,
    idle_timeout: u64,
    active_timeout: u64,
    accounting_mode: u8,
    n_dissections: u32,
    statistical_analysis: bool,
    splt_analysis: u32,
    n_meters: u16,
    /// 0 for all.
    max_nflows: u64,
    system_visibility_mode: bool,
    system_visibility_poll_ms: u64,
}

/// What is metered, and how.
pub enum Source {
    /// Captures.
    Read(ReadOptions),
    /// An interface.
    Live(LiveOptions),
}

impl Options {
    /// For the meter, with these plugins.
    pub fn source(self, plugins: Plugins) -> Source {
        let ns = |seconds: u64| seconds.saturating_mul(1_000_000_000);
        let knobs = Knobs {
            idle_ns: ns(self.idle_timeout),
            active_ns: ns(self.active_timeout),
            accounting: match self.accounting_mode {
                0 => Layer::Link,
                1 => Layer::Ip,
                2 => Layer::Transport,
                _ => Layer::Payload,
            },
            splt: self.splt_analysis,
            n_dissections: self.n_dissections,
            statistics: self.statistical_analysis,
            decode_tunnels: self.decode_tunnels,
            ..Knobs::default()
        };
        let max_nflows = (self.max_nflows > 0).then_some(self.max_nflows);
        match self.interface {
            None => {
                let mut options = ReadOptions::new(self.files)
                    .with_knobs(knobs)
                    .with_reading(Reading::Nfstream)
                    .with_bpf_filter(self.bpf_filter)
                    .with_n_meters(self.n_meters)
                    .with_max_nflows(max_nflows);
                options.plugins = plugins;
                Source::Read(options)
            }
            Some(interface) => {
                let poll = Duration::from_millis(self.system_visibility_poll_ms.max(1));
                let mut options = LiveOptions::new([interface])
                    .with_knobs(knobs)
                    .with_promiscuous(self.promiscuous_mode)
                    .with_snapshot_length(self.snapshot_length)
                    .with_visibility(self.system_visibility_mode.then_some(poll))
                    .with_max_nflows(max_nflows);
                options.plugins = plugins;
                Source::Live(options)
            }
        }
    }
}

impl Source {
    /// NFStream's columns of it, no others.
    pub fn columns(&self) -> fields::Options {
        let columns = match self {
            Self::Read(options) => options.columns(),
            Self::Live(options) => options.columns(),
        };
        fields::Options { extras: false, ..columns }
    }
}
