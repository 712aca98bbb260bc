//! How is a report read as JSON?

use serde_json::{Map, Value, json};

use super::figures::{FIGURES, Group, Of};
use super::{Interface, Report};
use crate::capture::kernel::Tally;

impl Report {
    /// The report as a record of the log, which says by `type` that it is no flow.
    pub fn json(&self) -> Value {
        let mut record = Map::new();
        record.insert("type".into(), "meter".into());
        for figure in FIGURES {
            let name = figure.name.to_owned();
            let value = match figure.of {
                Of::Run(value) => Some(value(self)),
                Of::LiveRun(value) => self.live().map(|_| value(self)),
                Of::Live(value) => self.live().map(value),
                Of::Read(value) => self.read().map(value),
                Of::Reasons => {
                    if let Some(read) = self.read() {
                        record.insert(name, reasons(read.tally.ignored()));
                    }
                    continue;
                }
                // Once for all of their group.
                _ => {
                    let group = figure.group();
                    if let Some(name) = group.name()
                        && !record.contains_key(name)
                        && let Some(value) = self.group(group)
                    {
                        record.insert(name.to_owned(), value);
                    }
                    continue;
                }
            };
            if let Some(value) = value {
                record.insert(name, value.into());
            }
        }
        Value::Object(record)
    }

    fn group(&self, group: Group) -> Option<Value> {
        if group == Group::Outputs {
            let outputs = self.outputs.iter().map(|(name, counts)| {
                let figures = members(|of| match of {
                    Of::Output(value) => Some(value(counts)),
                    _ => None,
                });
                with("name", name.as_str().into(), figures)
            });
            return Some(outputs.collect());
        }
        let live = self.live()?;
        let members = match group {
            Group::Sockets => {
                let sockets = live.sockets.as_ref();
                sockets.map(|(kernel, hooked)| {
                    members(|of| match of {
                        Of::Sockets(value) => Some(value(kernel, hooked)),
                        _ => None,
                    })
                })
            }
            Group::Procfs => live.procfs.as_ref().map(|procfs| {
                members(|of| match of {
                    Of::Procfs(value) => Some(value(procfs)),
                    _ => None,
                })
            }),
            Group::Processes => live.processes.as_ref().map(|processes| {
                members(|of| match of {
                    Of::Processes(value) => Some(value(processes)),
                    _ => None,
                })
            }),
            _ => {
                let interfaces = live.interfaces.iter().zip(&live.balance.interfaces);
                return Some(interfaces.map(|(i, tallies)| interface(i, tallies)).collect());
            }
        };
        Some(members.map_or(Value::Null, Value::Object))
    }
}

/// The figures that `value` has a value for.
fn members(value: impl Fn(&Of) -> Option<u64>) -> Map<String, Value> {
    let values = FIGURES.iter().filter_map(|f| Some((f.name.to_owned(), value(&f.of)?.into())));
    values.collect()
}

fn with(name: &str, value: Value, members: Map<String, Value>) -> Value {
    let mut all = Map::new();
    all.insert(name.to_owned(), value);
    all.extend(members);
    Value::Object(all)
}

fn interface(interface: &Interface, tallies: &[Tally; 2]) -> Value {
    let [ingress, egress] = tallies;
    let mut members = Map::new();
    members.insert("name".into(), interface.name.as_str().into());
    members.insert("hooks".into(), json!(interface.hooks));
    for figure in FIGURES {
        if let Of::Interface(value) = figure.of {
            members.insert(figure.name.to_owned(), interface.traffic.as_ref().map(value).into());
        }
    }
    members.insert("ingress".into(), direction(ingress));
    members.insert("egress".into(), direction(egress));
    Value::Object(members)
}

fn direction(tally: &Tally) -> Value {
    let mut members = Map::new();
    for figure in FIGURES {
        let value = match figure.of {
            Of::Direction(value) => value(tally).into(),
            Of::DirectionReasons => reasons(tally.ignored_by_reason()),
            _ => continue,
        };
        members.insert(figure.name.to_owned(), value);
    }
    Value::Object(members)
}

fn reasons(reasons: impl Iterator<Item = (&'static str, u64)>) -> Value {
    Value::Object(reasons.map(|(reason, n)| (reason.to_owned(), n.into())).collect())
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::super::figures::FIGURES;
    use crate::output::Sum;

    #[test]
    fn every_figure_is_there() {
        let live = example::live().json();
        let read = example::read(1, 1, Sum::flow(1), Sum::default()).json();
        for figure in FIGURES {
            let record = if figure.runs() == "read" { &read } else { &live };
            let found = match figure.group().name() {
                None => &record[figure.name],
                Some("outputs") => &record["outputs"][0][figure.name],
                Some("interfaces") => {
                    let interface = &record["interfaces"][0];
                    interface.get(figure.name).unwrap_or(&interface["ingress"][figure.name])
                }
                Some(group) => &record[group][figure.name],
            };
            assert!(!found.is_null(), "{} in {record:#}", figure.name);
        }
        assert_eq!(read["type"], "meter");
        assert!(read.get("interfaces").is_none() && live.get("packets_seen").is_none());
    }
}
