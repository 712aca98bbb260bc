//! Which options has `flowmeter live`?

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, value_parser};
use flowmeter::attribution::profile::{self, Secrets};
use flowmeter::capture::kernel::{Direction, Ingress};
use flowmeter::format::Kind;
use flowmeter::output::queue::{self, WhenFull};
use flowmeter::run::{LiveOptions, MAX_INTERFACES, SNAPSHOT_LENGTH};

use super::Exit;
use super::meter::MeterArgs;
use super::output::OutputArgs;
use super::values::{choice, seconds, unless_zero};
use crate::notices;
use crate::plan::{LivePlan, Metrics};

/// The kernel's SPLT slots have room for this many packets of a flow.
const MAX_LIVE_SPLT: u32 = 255;

/// `flowmeter live`.
#[derive(Args)]
pub struct LiveArgs {
    /// Interfaces to meter.
    #[arg(required = true, value_name = "IFACE")]
    interfaces: Vec<String>,

    #[command(flatten)]
    meter: MeterArgs,

    #[command(flatten)]
    live: CaptureArgs,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args)]
#[command(next_help_heading = "Interfaces")]
struct CaptureArgs {
    /// Room for this many flows in the kernel, 1 to 16777216; packets of further flows are metered
    /// in userspace.
    #[arg(long, value_name = "FLOWS", default_value_t = 131_072,
        value_parser = value_parser!(u32).range(1..=16_777_216), allow_negative_numbers = true)]
    max_flows: u32,

    /// Where to see received packets; auto is XDP if the driver supports it, else tcx.
    #[arg(long, value_name = "HOOK", default_value = "auto",
        value_parser = choice(&[
            ("auto", Ingress::Auto),
            ("xdp", Ingress::Xdp),
            ("tcx", Ingress::Tcx),
        ]))]
    ingress: Ingress,

    /// Which packets to meter; use ingress for mirror ports.
    #[arg(long, value_name = "WHICH", default_value = "both",
        value_parser = choice(&[
            ("both", Direction::Both),
            ("ingress", Direction::Ingress),
            ("egress", Direction::Egress),
        ]))]
    direction: Direction,

    /// Receive packets that are addressed to other hosts too (the default).
    #[arg(long, overrides_with = "no_promiscuous_mode")]
    promiscuous_mode: bool,

    /// Do not put the interfaces into promiscuous mode.
    #[arg(long, action = ArgAction::SetTrue)]
    no_promiscuous_mode: bool,

    /// Find the processes of flows: 1 yes, 0 no. This hooks all sockets of the host, which makes
    /// calls on them slightly slower, and needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to see the
    /// descriptors of other users. If any of this is missing, that is reported; all flows are still
    /// metered, but some have no process.
    #[expect(clippy::doc_markdown, reason = "it is printed as it is by --help")]
    #[arg(long, value_name = "MODE", default_value = "1", action = ArgAction::Set,
        value_parser = choice(&[("0", false), ("1", true)]))]
    system_visibility_mode: bool,

    /// Look up sockets every MS milliseconds, 1 to 3600000; once a minute where the hooks work.
    #[arg(long, value_name = "MS", default_value_t = 100,
        value_parser = value_parser!(u64).range(1..=3_600_000), allow_negative_numbers = true)]
    system_visibility_poll_ms: u64,

    /// Remember at most this many sockets, 1 to 16777216, of about 500 bytes each; closed sockets
    /// are forgotten first.
    #[arg(long, value_name = "SOCKETS", default_value_t = 262_144,
        value_parser = value_parser!(u32).range(1..=16_777_216), allow_negative_numbers = true)]
    max_sockets: u32,

    /// Remember at most this many processes, 1 to 16777216.
    #[arg(long, value_name = "PROCESSES", default_value_t = 65_536,
        value_parser = value_parser!(u32).range(1..=16_777_216), allow_negative_numbers = true)]
    max_processes: u32,

    /// Compute the SHA-256 of the processes' executables.
    #[arg(long)]
    hash_executables: bool,

    /// Keep at most this many bytes of a command line, 0 to 1048576.
    #[arg(long, value_name = "BYTES", default_value_t = 1024,
        value_parser = value_parser!(u32).range(0..=1_048_576), allow_negative_numbers = true)]
    max_cmdline: u32,

    /// Print the balance of packets to standard error every SECS seconds; 0 for never.
    #[arg(long, value_name = "SECS", default_value = "0", value_parser = seconds,
        allow_negative_numbers = true)]
    performance_report: Duration,

    /// Write the balance of packets to the log every SECS seconds; 0 for never.
    #[arg(long, value_name = "SECS", default_value = "0", value_parser = seconds,
        allow_negative_numbers = true)]
    meter_records: Duration,

    /// Serve the figures of the balance to Prometheus at http://ADDR:PORT/metrics, without a password:
    /// 127.0.0.1:9812 keeps them on this host.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_listen: Option<SocketAddr>,

    /// Write them to this file every 15 seconds and at the end, for node_exporter's textfile collector.
    #[expect(clippy::doc_markdown, reason = "it is printed as it is by --help")]
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,

    /// Queue at most this many MiB of rows for an output that does not take them, 1 to 65536.
    #[arg(long, value_name = "MIB", default_value_t = 64,
        value_parser = value_parser!(u32).range(1..=65_536), allow_negative_numbers = true)]
    output_queue: u32,

    /// What to do when that queue is full: drop counts the rows as lost and goes on; wait pauses
    /// the meter until there is room or it is asked to end, which loses nothing as long as the kernel's
    /// buffers last; stop writes what waits and ends the run.
    #[arg(long, value_name = "WHAT", default_value = "drop",
        value_parser = choice(&[
            ("drop", WhenFull::Drop),
            ("wait", WhenFull::Wait),
            ("stop", WhenFull::End),
        ]))]
    when_full: WhenFull,

    /// Print the kernel programs' log messages.
    #[arg(long)]
    log_bpf: bool,
}

impl LiveArgs {
    /// Checks what depends on more than one argument.
    pub fn plan(self) -> Result<LivePlan, Exit> {
        let knobs = self.meter.knobs(MAX_LIVE_SPLT);
        if knobs.splt > MAX_LIVE_SPLT {
            return Err(Exit::usage(format_args!(
                "invalid value '{}': --splt-analysis and --max-sequence are at most {MAX_LIVE_SPLT} \
                 live",
                knobs.splt
            )));
        }
        if self.interfaces.len() > MAX_INTERFACES {
            return Err(Exit::usage(format_args!(
                "at most {MAX_INTERFACES} interfaces can be metered in one run"
            )));
        }
        for (i, name) in self.interfaces.iter().enumerate() {
            if self.interfaces[..i].contains(name) {
                return Err(Exit::usage(format_args!("interface `{name}` is named twice")));
            }
        }
        let live = self.live;
        let secrets = self.output.secrets(Secrets::Redacted);
        let mut options = LiveOptions::new(self.interfaces);
        options.knobs = knobs;
        options.max_flows = live.max_flows;
        options.snapshot_length = self.meter.snapshot_length.unwrap_or(SNAPSHOT_LENGTH);
        options.ingress = live.ingress;
        options.direction = live.direction;
        options.promiscuous = !live.no_promiscuous_mode;
        options.max_nflows = self.meter.max_nflows();
        options.records = unless_zero(live.meter_records);
        options.visibility = live
            .system_visibility_mode
            .then_some(Duration::from_millis(live.system_visibility_poll_ms));
        options.max_sockets = live.max_sockets as usize;
        options.profiles = profile::Options {
            hash: live.hash_executables.then(profile::Budget::default),
            secrets,
            max_cmdline: live.max_cmdline as usize,
            max_processes: live.max_processes as usize,
        };
        options.containment = self.meter.containment()?;
        options.details = self.meter.details()?;
        options.log_bpf = live.log_bpf;
        options.plugins = self.meter.plugins();
        options.notices = notices::to_stderr();
        let columns = self.meter.columns(options.columns(), MAX_LIVE_SPLT);
        options.models = self.meter.models(columns, &options.plugins)?;
        let added = options.plugins.columns().chain(options.models.columns());
        let mut log = self.output.log(None, self.output.schema(columns, added, secrets)?)?;
        log.queue = queue::Options {
            capacity: (live.output_queue as usize) << 20,
            when_full: live.when_full,
        };
        if options.records.is_some() && log.format != Kind::Json {
            return Err(Exit::usage(
                "--meter-records needs --format json, since CSV has only flows; \
                 --performance-report prints the same to standard error",
            ));
        }
        let performance_report = unless_zero(live.performance_report);
        if let Some(file) = live.metrics_file.as_deref().filter(|file| log.would_overwrite(file)) {
            return Err(Exit::usage(format_args!(
                "--metrics-file: `{}` is where the flows go; name another file",
                file.display()
            )));
        }
        let metrics = Metrics { listen: live.metrics_listen, file: live.metrics_file };
        Ok(LivePlan { options, performance_report, metrics, log })
    }
}
