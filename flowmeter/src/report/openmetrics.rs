//! How is a report read by Prometheus?
//!
//! As `OpenMetrics` text, or as the older text format 0.0.4, which scrapers without `OpenMetrics`,
//! `node_exporter`'s text files and `promtool check metrics` want.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric as _, MetricEncoder, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit as TheirUnit};

use super::figures::{FIGURES, Figure, Group, Kind, Of, Unit};
use super::{Live, Report};

/// What stands before every name.
const PREFIX: &str = "flowmeter";

/// The text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Prometheus,
}

impl Text {
    /// The format that an `Accept` header asks for.
    pub fn wanted(accept: &str) -> Self {
        let is_open = |kind: &str| kind.trim().starts_with("application/openmetrics-text");
        if accept.split(',').any(is_open) { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Report {
    /// The report as metrics: all figures, with the object that they stand in as part of the name, and
    /// output, interface, direction and reason as labels. Times are in seconds.
    pub fn metrics(&self, format: Text) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Reading(self.clone())));
        let mut out = String::new();
        // A string takes every write.
        let _ = match format {
            Text::OpenMetrics => text::encode(&mut out, &registry),
            Text::Prometheus => prometheus_text::encode(&mut out, &registry),
        };
        out
    }
}

/// A report that is read.
#[derive(Debug)]
struct Reading(Report);

/// Labels of a sample, and its value.
type Sample = (Vec<(&'static str, String)>, i64);

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for figure in FIGURES {
            let samples = self.0.samples(figure);
            if samples.is_empty() {
                continue;
            }
            let unit = figure.unit.theirs();
            let kind = match figure.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let name = figure.metric();
            let mut metric = encoder.encode_descriptor(&name, figure.help, unit.as_ref(), kind)?;
            for (labels, value) in samples {
                if labels.is_empty() {
                    figure.put(value, metric)?;
                    break;
                }
                figure.put(value, metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Unit {
    fn theirs(self) -> Option<TheirUnit> {
        match self {
            Self::Number => None,
            Self::Bytes => Some(TheirUnit::Bytes),
            Self::Ns | Self::Ms => Some(TheirUnit::Seconds),
        }
    }

    /// What a name ends in that has the unit.
    fn ending(self) -> &'static str {
        match self {
            Self::Number => "",
            Self::Bytes => "_bytes",
            Self::Ns => "_ns",
            Self::Ms => "_ms",
        }
    }

    /// How many of them make one of Prometheus' unit, if that is another.
    fn per_second(self) -> Option<f64> {
        match self {
            Self::Number | Self::Bytes => None,
            Self::Ns => Some(1e9),
            Self::Ms => Some(1e3),
        }
    }
}

impl Figure {
    /// Its name among metrics, without prefix and unit.
    fn metric(&self) -> String {
        let name = self.name.strip_suffix(self.unit.ending()).unwrap_or(self.name);
        match self.group() {
            Group::Run => name.to_owned(),
            Group::Outputs => format!("output_{name}"),
            Group::Sockets => format!("sockets_{name}"),
            Group::Procfs => format!("procfs_{name}"),
            Group::Processes => format!("processes_{name}"),
            Group::Interfaces => format!("interface_{name}"),
            Group::Directions => format!("direction_{name}"),
        }
    }

    fn put(&self, value: i64, metric: MetricEncoder) -> fmt::Result {
        match (self.kind, self.unit.per_second()) {
            (Kind::Counter, _) => ConstCounter::new(value.max(0).cast_unsigned()).encode(metric),
            (Kind::Gauge, None) => ConstGauge::new(value).encode(metric),
            (Kind::Gauge, Some(per_second)) => {
                ConstGauge::new(value as f64 / per_second).encode(metric)
            }
        }
    }
}

impl Report {
    /// What the figure says, of everything that it is counted of.
    fn samples(&self, figure: &Figure) -> Vec<Sample> {
        let one = |value: Option<i64>| value.map(|value| (Vec::new(), value)).into_iter().collect();
        let unsigned = |value: Option<u64>| one(value.map(u64::cast_signed));
        match figure.of {
            Of::Run(value) => one(Some(value(self))),
            Of::LiveRun(value) => one(self.live().map(|_| value(self))),
            Of::Live(value) => one(self.live().map(value)),
            Of::Read(value) => one(self.read().map(value)),
            Of::Reasons => {
                let reasons = self.read().into_iter().flat_map(|read| read.tally.ignored());
                reasons
                    .map(|(reason, n)| (vec![("reason", reason.to_owned())], n.cast_signed()))
                    .collect()
            }
            Of::Output(value) => {
                let name = |n: usize, name: &str| match self.outputs.iter().take(n) {
                    before if before.clone().all(|(other, _)| other != name) => name.to_owned(),
                    // A scrape with one sample twice is refused.
                    _ => format!("{name} ({})", n + 1),
                };
                let outputs = self.outputs.iter().enumerate();
                outputs
                    .map(|(n, (output, counts))| {
                        (vec![("output", name(n, output))], value(counts).cast_signed())
                    })
                    .collect()
            }
            Of::Sockets(value) => {
                let sockets = self.live().and_then(|live| live.sockets.as_ref());
                unsigned(sockets.map(|(kernel, hooked)| value(kernel, hooked)))
            }
            Of::Procfs(value) => {
                unsigned(self.live().and_then(|live| live.procfs.as_ref()).map(value))
            }
            Of::Processes(value) => {
                unsigned(self.live().and_then(|live| live.processes.as_ref()).map(value))
            }
            Of::Interface(value) => {
                let interfaces = self.live().into_iter().flat_map(|live| &live.interfaces);
                let sample = |traffic| value(traffic).cast_signed();
                interfaces
                    .filter_map(|i| {
                        let value = i.traffic.as_ref().map(sample)?;
                        Some((vec![("interface", i.name.clone())], value))
                    })
                    .collect()
            }
            Of::Direction(value) => {
                let directions = self.live().into_iter().flat_map(Live::directions);
                directions
                    .map(|(labels, tally)| (labels.into(), value(tally).cast_signed()))
                    .collect()
            }
            Of::DirectionReasons => {
                let directions = self.live().into_iter().flat_map(Live::directions);
                directions
                    .flat_map(|([interface, direction], tally)| {
                        tally.ignored_by_reason().map(move |(reason, n)| {
                            (
                                [
                                    interface.clone(),
                                    direction.clone(),
                                    ("reason", reason.to_owned()),
                                ]
                                .into(),
                                n.cast_signed(),
                            )
                        })
                    })
                    .collect()
            }
        }
    }
}

impl Live {
    /// The interfaces' directions, each with its labels.
    fn directions(
        &self,
    ) -> impl Iterator<Item = ([(&'static str, String); 2], &crate::capture::kernel::Tally)> {
        let interfaces = self.interfaces.iter().zip(&self.balance.interfaces);
        interfaces.flat_map(|(interface, tallies)| {
            ["ingress", "egress"].into_iter().zip(tallies).map(|(direction, tally)| {
                (
                    [("interface", interface.name.clone()), ("direction", direction.to_owned())],
                    tally,
                )
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::example;
    use super::*;
    use crate::output::Sum;

    #[test]
    fn every_figure_is_there_once_for_each_set_of_labels() {
        let live = example::live().metrics(Text::OpenMetrics);
        let read = example::read(1, 1, Sum::flow(1), Sum::default()).metrics(Text::OpenMetrics);
        for figure in FIGURES {
            let text = if figure.runs() == "read" { &read } else { &live };
            let name = format!("{PREFIX}_{}", figure.metric());
            let is_it = |line: &&str| {
                let words: Vec<&str> = line.splitn(4, ' ').collect();
                matches!(words[..], ["#", "HELP", found, help]
                    if found.starts_with(&name) && help == figure.help)
            };
            assert_eq!(text.lines().filter(is_it).count(), 1, "{name} in {text}");
        }
        for text in [&live, &read] {
            assert!(text.ends_with("# EOF\n"), "{text}");
            let mut seen = HashSet::new();
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let sample = line.rsplit_once(' ').map_or(line, |(sample, _)| sample);
                assert!(seen.insert(sample), "{sample} is there twice");
            }
        }
    }

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1";
        assert_eq!(Text::wanted(prometheus), Text::OpenMetrics);
        assert_eq!(Text::wanted("*/*"), Text::Prometheus);
        assert_eq!(Text::wanted(""), Text::Prometheus);
    }
}
