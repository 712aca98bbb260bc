//! What does a streamer ask of the meter?

use std::path::{Path, PathBuf};
use std::time::Duration;

use flowmeter::attribution::profile::{self, Secrets};
use flowmeter::capture::kernel::Direction;
use flowmeter::collector::pcap::Reading;
use flowmeter::fields::columns::{self, Group};
use flowmeter::fields::{self, Added, Schema};
use flowmeter::{Knobs, Layer, LiveOptions, Model, Models, ReadOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::meter::{Damage, causes};

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
    /// Length of the unit of inter-arrival times.
    tick_ns: u64,
    /// At most this many packets in sequences; 0 for none.
    sequences: u32,
    /// Names of groups of columns beside NFStream's.
    group: Vec<String>,
    /// Whether NFStream's rules hold where ours differ.
    as_nfstream: bool,
    /// `ingress`, `egress` or `both`.
    direction: String,
    raise_on_damage: bool,
    /// Models, each with the columns that it takes; none for those that it names itself.
    models: Vec<(PathBuf, Vec<String>)>,
    onnxruntime: Option<PathBuf>,
}

/// What is to be done.
pub struct Plan {
    /// What is metered.
    pub source: Source,
    /// The columns of its flows, those of models last.
    pub schema: Schema,
    /// The models' columns.
    pub of_models: Vec<Added>,
    /// What an error behind the first frames is.
    pub damage: Damage,
}

/// What is metered, and how.
pub enum Source {
    /// Captures.
    Read(ReadOptions),
    /// An interface.
    Live(LiveOptions),
}

impl Options {
    /// For the meter.
    pub fn plan(self) -> PyResult<Plan> {
        let (groups, sequences) = (self.groups()?, self.sequences);
        let damage = if self.raise_on_damage { Damage::Raises } else { Damage::Warns };
        let splt = self.splt_analysis;
        let (models, onnxruntime) = (self.models.clone(), self.onnxruntime.clone());
        let mut source = self.source();
        let has_details = groups.contains(&Group::L7Extended);
        let columns = match &mut source {
            Source::Read(options) => {
                options.details = has_details;
                options.columns()
            }
            Source::Live(options) => {
                options.details = has_details;
                options.columns()
            }
        };
        let columns = fields::Options { extras: true, splt, sequences, ..columns };
        let is_wanted = |group: Group| {
            group.is_in(&columns) && (!OWN.contains(&group) || groups.contains(&group))
        };
        let names: Vec<_> =
            columns::all().filter(|c| is_wanted(c.group)).map(|column| column.name).collect();
        let all = Schema::new(columns);
        let models = load(&models, onnxruntime.as_deref(), &all)?;
        let of_models: Vec<_> = models.columns().collect();
        let schema = all.select(&names).and_then(|schema| schema.with_added(of_models.clone()));
        match &mut source {
            Source::Read(options) => options.models = models,
            Source::Live(options) => options.models = models,
        }
        Ok(Plan { source, schema: schema.map_err(unknown)?, of_models, damage })
    }

    fn groups(&self) -> PyResult<Vec<Group>> {
        let of_name = |name: &String| {
            let group = OWN.into_iter().find(|group| group.name() == name);
            group.ok_or_else(|| PyValueError::new_err(format!("group {name:?} does not exist")))
        };
        self.group.iter().map(of_name).collect()
    }

    fn knobs(&self) -> Knobs {
        let ns = |seconds: u64| seconds.saturating_mul(1_000_000_000);
        Knobs {
            idle_ns: ns(self.idle_timeout),
            active_ns: ns(self.active_timeout),
            accounting: match self.accounting_mode {
                0 => Layer::Link,
                1 => Layer::Ip,
                2 => Layer::Transport,
                _ => Layer::Payload,
            },
            tick_ns: self.tick_ns,
            splt: self.splt_analysis.max(self.sequences),
            n_dissections: self.n_dissections,
            statistics: self.statistical_analysis,
            decode_tunnels: self.decode_tunnels,
        }
    }

    fn source(self) -> Source {
        let knobs = self.knobs();
        let max_nflows = (self.max_nflows > 0).then_some(self.max_nflows);
        let reading = if self.as_nfstream { Reading::Nfstream } else { Reading::Right };
        match self.interface {
            None => Source::Read(
                ReadOptions::new(self.files)
                    .with_knobs(knobs)
                    .with_reading(reading)
                    .with_bpf_filter(self.bpf_filter)
                    .with_n_meters(self.n_meters)
                    .with_max_nflows(max_nflows),
            ),
            Some(interface) => {
                let poll = Duration::from_millis(self.system_visibility_poll_ms.max(1));
                Source::Live(
                    LiveOptions::new([interface])
                        .with_knobs(knobs)
                        .with_promiscuous(self.promiscuous_mode)
                        .with_snapshot_length(self.snapshot_length)
                        .with_direction(match self.direction.as_str() {
                            "ingress" => Direction::Ingress,
                            "egress" => Direction::Egress,
                            _ => Direction::Both,
                        })
                        .with_profiles(profile::Options {
                            secrets: Secrets::Redacted,
                            ..profile::Options::default()
                        })
                        .with_visibility(self.system_visibility_mode.then_some(poll))
                        .with_max_nflows(max_nflows),
                )
            }
        }
    }
}

impl Source {
    /// Says whether ids of flows must be known when their rows are made.
    pub fn with_needs_ids(self, needs_ids: bool) -> Self {
        match self {
            Self::Read(options) => Self::Read(options.with_needs_ids(needs_ids)),
            live @ Self::Live(_) => live,
        }
    }
}

/// The models, which take columns of `schema`.
fn load(
    models: &[(PathBuf, Vec<String>)],
    library: Option<&Path>,
    schema: &Schema,
) -> PyResult<Models> {
    models.iter().try_fold(Models::default(), |all, (file, features)| {
        let model = Model::load(file, features, schema, library);
        Ok(all.with(model.map_err(|e| PyValueError::new_err(causes(&e)))?))
    })
}

/// Groups of columns that NFStream has not, and that are there when they are asked for.
const OWN: [Group; 8] = [
    Group::Record,
    Group::Times,
    Group::Layers,
    Group::Headers,
    Group::Fingerprints,
    Group::L7Extended,
    Group::Owners,
    Group::Marks,
];

/// The names of the columns of flows that are metered so.
#[pyfunction]
pub fn names(options: Options) -> PyResult<Vec<String>> {
    Ok(options.plan()?.schema.names().map(ToOwned::to_owned).collect())
}

/// The names of groups that can be asked for.
#[pyfunction]
pub fn groups() -> Vec<&'static str> {
    OWN.map(Group::name).to_vec()
}

/// A column's name, group, type, unit and what it says.
type Described = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// All columns.
#[pyfunction]
pub fn described() -> Vec<Described> {
    columns::all().map(|c| (c.name, c.group.name(), c.kind.name(), c.unit, c.doc)).collect()
}

/// An error in what was asked for.
pub fn unknown(error: fields::schema::UnknownColumn) -> PyErr {
    PyValueError::new_err(error.to_string())
}
