//! Which options has metering, whatever the packets come from?

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, value_parser};
use flowmeter::dissect::{Containment, User};
use flowmeter::fields::{self, TimeUnit};
use flowmeter::model::{Model, Models};
use flowmeter::plugin::Plugins;
use flowmeter::plugin::shipped::Shipped;
use flowmeter_common::knobs::Knobs;
use flowmeter_common::packet::Layer;

use super::Exit;
use super::output::with_added;
use super::values::{choice, nanoseconds, seconds};
use crate::notices::causes;
use crate::plan;

/// Options shared by all that meter, with `NFStream`'s names and defaults.
#[derive(Args, Clone)]
#[command(next_help_heading = "Metering")]
pub struct MeterArgs {
    /// End a flow that has had no packet for this many seconds; 0 makes every packet a flow.
    #[arg(long, value_name = "SECS", default_value = "120", value_parser = seconds,
        allow_negative_numbers = true)]
    idle_timeout: Duration,

    /// End a flow at this age in seconds; its next packet begins a new flow.
    #[arg(long, value_name = "SECS", default_value = "1800", value_parser = seconds,
        allow_negative_numbers = true)]
    active_timeout: Duration,

    /// What to count as a packet's size: 0 the frame, 1 the IP packet, 2 the transport segment, 3
    /// the payload.
    #[arg(long, value_name = "MODE", default_value = "0",
        value_parser = choice(&[
            ("0", Layer::Link),
            ("1", Layer::Ip),
            ("2", Layer::Transport),
            ("3", Layer::Payload),
        ]))]
    accounting_mode: Layer,

    /// Dissect this many of a flow's first packets to find its application, 0 to 255; 0 for none.
    #[arg(long, value_name = "PACKETS", default_value_t = 20,
        value_parser = value_parser!(u32).range(0..=255), allow_negative_numbers = true)]
    n_dissections: u32,

    /// Add the minimum, mean, standard deviation and maximum of packet sizes and inter-arrival
    /// times, and counts of TCP flags.
    #[arg(long)]
    statistical_analysis: bool,

    /// List the direction, size and inter-arrival time of this many of a flow's first packets, 0 to
    /// 65535; live at most 255.
    #[arg(long, value_name = "PACKETS", default_value_t = 0,
        value_parser = value_parser!(u32).range(0..=65_535), allow_negative_numbers = true)]
    splt_analysis: u32,

    /// List the lengths and times of all packets, as flowcontainer does, up to --max-sequence.
    #[arg(long)]
    sequences: bool,

    /// List at most this many packets with --sequences, 1 to 16777216; live at most 255. [default:
    /// 65535, live 255]
    #[arg(long, value_name = "PACKETS",
        value_parser = value_parser!(u32).range(1..=16_777_216), allow_negative_numbers = true)]
    max_sequence: Option<u32>,

    /// Meter what tunnels carry instead of the tunnels themselves (the default).
    #[arg(long, overrides_with = "no_decode_tunnels")]
    decode_tunnels: bool,

    /// Meter UDP and GRE tunnels themselves.
    #[arg(long, action = ArgAction::SetTrue)]
    no_decode_tunnels: bool,

    /// Give the dissector this many bytes of a frame, 64 to 65535; live at most 16384. Lengths are
    /// always those on the wire. [default: live 4096, read all]
    #[arg(long, value_name = "BYTES",
        value_parser = value_parser!(u16).range(64..), allow_negative_numbers = true)]
    pub snapshot_length: Option<u16>,

    /// Where to dissect packets: child uses processes without privileges, so that a hostile packet
    /// can crash one of them but not the meter; in-process uses threads.
    #[arg(long, value_name = "WHERE", default_value = "child",
        value_parser = choice(&[("child", true), ("in-process", false)]), action = ArgAction::Set)]
    dissector: bool,

    /// User that these processes run as if flowmeter is started by root: a name, or a number that
    /// is used for the group too.
    #[arg(long, value_name = "USER", default_value = "65534", value_parser = str::parse::<User>)]
    dissector_user: User,

    /// Keep the packets that crashed such a process in this folder, as up to 100 captures.
    #[arg(long, value_name = "DIR")]
    quarantine: Option<PathBuf>,

    /// Add a group of columns: l7-extended has what TLS, DNS, HTTP and SSH send in the clear, and
    /// nDPI's risks.
    #[arg(long, value_name = "GROUP", value_delimiter = ',',
        value_parser = choice(&[("l7-extended", More::Layer7)]))]
    group: Vec<More>,

    /// Add a plugin, which sees every packet of a flow: slicer, splt, dhcp, mdns, wavelet, ja4, payload
    /// or headers; may be repeated. Its columns begin with udps. and stand behind all others;
    /// docs/plugins.md has them and all settings.
    #[arg(long, value_name = "NAME[:KEY=VALUE,…]", value_parser = str::parse::<Shipped>)]
    plugin: Vec<Shipped>,

    /// Run a model on each flow that has ended: an ONNX file, as scikit-learn, XGBoost and PyTorch are
    /// exported; may be repeated. Its results are columns that stand behind all others:
    /// udps.FILE_label, udps.FILE_score_CLASS. See docs/models.md.
    #[expect(clippy::doc_markdown, reason = "it is printed as it is by --help")]
    #[arg(long, value_name = "FILE")]
    model: Vec<PathBuf>,

    /// Columns that the model takes, in its order, separated by commas; with several models once for
    /// each, in the same order. [default: what the file says, or the names of its inputs]
    #[arg(long, value_name = "NAMES", requires = "model")]
    model_features: Vec<String>,

    /// Run models with this library. [default: the system's libonnxruntime.so.1]
    #[arg(long, value_name = "FILE", requires = "model")]
    onnxruntime: Option<PathBuf>,

    /// Stop after this many flows; 0 for no limit.
    #[arg(long, value_name = "FLOWS", default_value_t = 0, allow_negative_numbers = true)]
    max_nflows: u64,

    /// Unit in which to measure inter-arrival times. They are always written in ms: as whole
    /// numbers with ms, otherwise with a fraction.
    #[arg(long, value_name = "UNIT", default_value = "ms",
        value_parser = choice(&[("ms", TimeUnit::Ms), ("us", TimeUnit::Us), ("ns", TimeUnit::Ns)]))]
    time_unit: TimeUnit,
}

/// A group of columns that is there only if asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum More {
    Layer7,
}

impl MeterArgs {
    /// What the kernel and the host meter by. `longest` is the default length of sequences.
    pub fn knobs(&self, longest: u32) -> Knobs {
        // `seconds` has let no longer one pass.
        let ns = |timeout| nanoseconds(timeout).unwrap_or(u64::MAX);
        Knobs {
            idle_ns: ns(self.idle_timeout),
            active_ns: ns(self.active_timeout),
            accounting: self.accounting_mode,
            tick_ns: self.time_unit.tick_ns(),
            splt: self.splt_analysis.max(self.sequences(longest)),
            n_dissections: self.n_dissections,
            statistics: self.statistical_analysis,
            decode_tunnels: !self.no_decode_tunnels,
        }
    }

    /// The columns of flows that are metered so. `longest` as above.
    pub fn columns(&self, metered: fields::Options, longest: u32) -> fields::Options {
        fields::Options { splt: self.splt_analysis, sequences: self.sequences(longest), ..metered }
    }

    /// At most this many packets in flowcontainer's sequences; 0 if there are none.
    fn sequences(&self, longest: u32) -> u32 {
        if self.sequences { self.max_sequence.unwrap_or(longest) } else { 0 }
    }

    /// Lists sequences whether asked for or not.
    pub fn with_sequences(&self) -> Self {
        Self { sequences: true, ..self.clone() }
    }

    /// The plugins, in order.
    pub fn plugins(&self) -> Plugins {
        self.plugin.iter().fold(Plugins::default(), |all, plugin| plugin.clone().add_to(all))
    }

    /// The models, in order. `columns` are those of the flows, but for those of `plugins`.
    pub fn models(&self, columns: fields::Options, plugins: &Plugins) -> Result<Models, Exit> {
        let [models, features] = [self.model.len(), self.model_features.len()];
        if features > 0 && features != models {
            return Err(Exit::usage(format_args!(
                "--model-features is given {features} times, --model {models} times; give one for each \
                 model"
            )));
        }
        if models == 0 {
            return Ok(Models::default());
        }
        let schema = with_added(columns, plugins.columns())?;
        let mut features = self.model_features.iter();
        self.model.iter().try_fold(Models::default(), |all, file| {
            let names = features.next().map_or("", String::as_str).split(',').map(str::trim);
            let names: Vec<_> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
            let model = Model::load(file, &names, &schema, self.onnxruntime.as_deref());
            let model =
                model.map_err(|e| Exit::usage(format_args!("--model: {}", causes(&e.into()))))?;
            Ok(all.with(model))
        })
    }

    /// Whether dissection is to tell all it can.
    pub fn details(&self) -> Result<bool, Exit> {
        let wanted = self.group.contains(&More::Layer7);
        if wanted && self.n_dissections == 0 {
            return Err(Exit::usage("--group l7-extended needs --n-dissections of 1 or more"));
        }
        Ok(wanted)
    }

    /// Where dissection runs.
    pub fn containment(&self) -> Result<Containment, Exit> {
        let quarantine = self.quarantine.clone();
        if self.dissector {
            return Ok(Containment::Child {
                program: plan::this_program(),
                user: self.dissector_user,
                quarantine,
            });
        }
        if quarantine.is_some() {
            return Err(Exit::usage(
                "--quarantine needs --dissector child: what crashes in-process ends the meter",
            ));
        }
        Ok(Containment::InProcess)
    }

    /// After how many flows the run ends.
    pub fn max_nflows(&self) -> Option<u64> {
        (self.max_nflows > 0).then_some(self.max_nflows)
    }
}
