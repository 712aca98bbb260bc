//! Which options has `flowmeter read`?

use std::path::PathBuf;

use clap::Args;
use flowmeter::attribution::profile::Secrets;
use flowmeter::capture::pcap::filter::{Filter, Invalid};
use flowmeter::collector::pcap::Reading;
use flowmeter::run::ReadOptions;

use super::Exit;
use super::meter::MeterArgs;
use super::output::OutputArgs;
use super::values::choice;
use crate::notices;
use crate::plan::ReadPlan;

/// `flowmeter read`.
#[derive(Args)]
pub struct ReadArgs {
    /// Captures to meter, one after another as a single stream: pcap or pcapng, also compressed
    /// with gzip or zstd; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    meter: MeterArgs,

    /// Follow another tool's rules where ours differ: nfstream reproduces NFStream 6.6.0 with its
    /// columns and its order of rows; flowcontainer reproduces the streams and sequences of
    /// flowcontainer 7.4, without timeouts (see docs/compat.md).
    #[arg(long, value_name = "TOOL",
        value_parser = choice(&[
            ("nfstream", Reading::Nfstream),
            ("flowcontainer", Reading::Flowcontainer),
        ]))]
    compat: Option<Reading>,

    /// Meter only the frames that match this expression, in tcpdump's syntax: see pcap-filter(7).
    #[arg(long, value_name = "EXPRESSION", value_parser = expression)]
    bpf_filter: Option<String>,

    /// Meter with this many workers; 0 for one per CPU. The output is the same for any number. Only
    /// one is used with --compat nfstream, and to dissect standard input or at most 16 MiB.
    #[arg(long, value_name = "WORKERS", default_value_t = 0, allow_negative_numbers = true)]
    n_meters: u16,

    #[command(flatten)]
    output: OutputArgs,
}

/// Packets in flowcontainer's sequences by default.
const MAX_SEQUENCE: u32 = 65_535;

impl ReadArgs {
    /// The plan.
    pub fn plan(&self) -> Result<ReadPlan, Exit> {
        let reading = self.compat.unwrap_or(Reading::Right);
        let as_flowcontainer = reading == Reading::Flowcontainer;
        let meter = if as_flowcontainer { &self.meter.with_sequences() } else { &self.meter };
        let mut knobs = meter.knobs(MAX_SEQUENCE);
        if as_flowcontainer {
            // Its streams end with the capture.
            (knobs.idle_ns, knobs.active_ns) = (u64::MAX, u64::MAX);
        }
        let mut options = ReadOptions::new(self.files.clone());
        options.knobs = knobs;
        options.reading = reading;
        options.bpf_filter.clone_from(&self.bpf_filter);
        options.snapshot_length = self.meter.snapshot_length.map_or(usize::MAX, usize::from);
        options.n_meters = self.n_meters;
        options.containment = self.meter.containment()?;
        options.details = self.meter.details()?;
        options.max_nflows = self.meter.max_nflows();
        options.plugins = self.meter.plugins();
        options.notices = notices::to_stderr();
        let columns = meter.columns(options.columns(), MAX_SEQUENCE);
        options.models = meter.models(columns, &options.plugins)?;
        let added = options.plugins.columns().chain(options.models.columns());
        let schema = self.output.schema(columns, added, self.output.secrets(Secrets::Shown))?;
        options.needs_ids = schema.is_anonymized("id");
        let log = self.output.log(self.files.first().map(PathBuf::as_path), schema)?;
        if let Some(file) = self.files.iter().find(|file| log.would_overwrite(file)) {
            return Err(Exit::usage(format_args!(
                "--output: `{}` is one of the captures; name another file",
                file.display()
            )));
        }
        Ok(ReadPlan { options, log })
    }
}

/// A filter expression that libpcap understands.
fn expression(text: &str) -> Result<String, Invalid> {
    Filter::new(text).map(|_| text.to_owned())
}
