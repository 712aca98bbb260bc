//! Which columns does this run write?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use super::anonymize::Anonymizer;
use super::columns::{self, Column, Kind};
use super::exposed::is_exposed;
use super::{Options, Row, Value};
use crate::flow::Flow;
use crate::redact;

/// The columns of a run, in order, and how their values are made.
#[derive(Clone)]
pub struct Schema {
    options: Options,
    columns: Vec<Selected>,
    anonymizer: Option<Anonymizer>,
    /// Texts in which secrets were found, if they are redacted.
    redacted: Option<Arc<AtomicU64>>,
}

#[derive(Clone)]
struct Selected {
    source: Source,
    /// Whether it may have secrets.
    is_url: bool,
    anonymous: bool,
}

/// Where a column's values come from.
#[derive(Clone)]
enum Source {
    /// From the flow.
    Declared(&'static Column),
    /// From a plugin or a model: the value of this number in [`Flow::own`].
    Added(Arc<Added>, usize),
}

impl Source {
    #[inline]
    fn value<'a>(&self, flow: &'a Flow, row: &Row<'a>) -> Value<'a> {
        match self {
            Self::Declared(column) => (column.get)(row),
            Self::Added(_, number) => flow.own.get(*number).map_or(Value::Null, Value::from),
        }
    }
}

/// A column that a plugin or a model adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its name in every output, `udps.` included.
    pub name: String,
    /// The type of its values.
    pub kind: Kind,
    /// The unit of its values; empty without.
    pub unit: &'static str,
    /// What it says.
    pub doc: String,
}

impl Selected {
    fn name(&self) -> &str {
        match &self.source {
            Source::Declared(column) => column.name,
            Source::Added(added, _) => &added.name,
        }
    }

    /// The type of what is written.
    fn kind(&self) -> Kind {
        match &self.source {
            _ if self.anonymous => Kind::Text,
            Source::Declared(column) => column.kind,
            Source::Added(added, _) => added.kind,
        }
    }

    /// The unit of what is written; empty without.
    fn unit(&self) -> &'static str {
        match &self.source {
            _ if self.anonymous => "",
            Source::Declared(column) => column.unit,
            Source::Added(added, _) => added.unit,
        }
    }

    /// The column, if it is no plugin's.
    fn declared(&self) -> Option<&'static Column> {
        match self.source {
            Source::Declared(column) => Some(column),
            Source::Added(..) => None,
        }
    }
}

/// A name that cannot be selected.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UnknownColumn {
    /// No column has it.
    #[error("no column is named `{0}`; `flowmeter fields` lists them")]
    Unknown(String),
    /// The column is not part of this run.
    #[error("column `{name}` is not written in this run: it is present {condition}")]
    Absent {
        /// The column.
        name: String,
        /// What would make it part of the run.
        condition: &'static str,
    },
    /// The column is selected already.
    #[error("column `{0}` is named twice")]
    Twice(String),
    /// Two plugins or models have a column of this name.
    #[error("two plugins or models give a column `{0}`; use each once")]
    Given(String),
}

impl Schema {
    /// All columns that `options` give, in order of emission.
    pub fn new(options: Options) -> Self {
        let columns = columns::all()
            .filter(|column| column.group.is_in(&options))
            .map(|column| Selected {
                source: Source::Declared(column),
                is_url: column.kind == Kind::Url,
                anonymous: false,
            })
            .collect();
        Self { options, columns, anonymizer: None, redacted: None }
    }

    /// Those of plugins too, behind all others: `added` are those of all plugins, in order.
    pub fn with_added(
        mut self,
        added: impl IntoIterator<Item = Added>,
    ) -> Result<Self, UnknownColumn> {
        for (number, added) in added.into_iter().enumerate() {
            if self.columns.iter().any(|selected| selected.name() == added.name) {
                return Err(UnknownColumn::Given(added.name));
            }
            let is_url = added.kind == Kind::Url;
            let source = Source::Added(Arc::new(added), number);
            self.columns.push(Selected { source, is_url, anonymous: false });
        }
        Ok(self)
    }

    /// Those of plugins and models left out.
    #[must_use]
    pub fn without_added(mut self) -> Self {
        self.columns.retain(|selected| selected.declared().is_some());
        self
    }

    /// Only the columns with these names, in this order.
    pub fn select<S: AsRef<str>>(self, names: &[S]) -> Result<Self, UnknownColumn> {
        let mut columns: Vec<Selected> = Vec::with_capacity(names.len());
        for name in names {
            let name = name.as_ref().trim();
            if columns.iter().any(|selected| selected.name() == name) {
                return Err(UnknownColumn::Twice(name.to_owned()));
            }
            let Some(selected) = self.columns.iter().find(|selected| selected.name() == name)
            else {
                return Err(Self::missing(name));
            };
            columns.push(selected.clone());
        }
        Ok(Self { columns, ..self })
    }

    /// Why no column has this name.
    pub(crate) fn missing(name: &str) -> UnknownColumn {
        match find(name) {
            Ok(column) => {
                let condition = column.group.condition();
                UnknownColumn::Absent { name: name.to_owned(), condition }
            }
            Err(unknown) => unknown,
        }
    }

    /// The columns with these names get digests for values. One that is not part of this run is no
    /// error, since nothing of it is written; one that does not exist is, unlike in `NFStream`: a
    /// slip of the pen must not publish what was to be hidden.
    pub fn anonymize<S: AsRef<str>>(
        mut self,
        names: &[S],
        anonymizer: Anonymizer,
    ) -> Result<Self, UnknownColumn> {
        for name in names {
            let name = name.as_ref().trim();
            match self.columns.iter_mut().find(|selected| selected.name() == name) {
                Some(selected) => selected.anonymous = true,
                None => _ = find(name)?,
            }
        }
        self.anonymizer = Some(anonymizer);
        Ok(self)
    }

    /// Secrets in URLs are redacted. Those in arguments are when the process is looked up.
    #[must_use]
    pub fn redact(self) -> Self {
        Self { redacted: Some(Arc::default()), ..self }
    }

    /// Values in which a secret was redacted.
    pub fn redacted(&self) -> u64 {
        self.redacted.as_ref().map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Columns that are hidden, each with one that is not and has the same text.
    pub fn exposed(&self) -> Vec<(&'static str, &'static str)> {
        let (hidden, shown): (Vec<_>, Vec<_>) = self.columns.iter().partition(|s| s.anonymous);
        let names = |columns: Vec<&Selected>| -> Vec<&'static str> {
            columns.into_iter().filter_map(|s| Some(s.declared()?.name)).collect()
        };
        let (hidden, shown) = (names(hidden), names(shown));
        let pairs = hidden.iter().flat_map(|h| shown.iter().map(|s| (*h, *s)));
        pairs.filter(|(hidden, shown)| is_exposed(hidden, shown)).collect()
    }

    /// What the columns were made from.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The names of the columns, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.columns.iter().map(Selected::name)
    }

    /// Types and units of the columns' values, in order: of digests those of texts.
    pub fn kinds(&self) -> impl ExactSizeIterator<Item = (Kind, &'static str)> {
        self.columns.iter().map(|selected| (selected.kind(), selected.unit()))
    }

    /// Whether the column with this name is part of this run and gets digests for values.
    pub fn is_anonymized(&self, name: &str) -> bool {
        self.columns.iter().any(|selected| selected.anonymous && selected.name() == name)
    }

    /// Hands the value of one column to `visit`, as metered: not hidden, nothing redacted.
    pub fn value(&self, flow: &Flow, place: usize, visit: impl FnOnce(&Value<'_>)) {
        if let Some(selected) = self.columns.get(place) {
            visit(&selected.source.value(flow, &Row::new(flow, &self.options)));
        }
    }

    /// The type of the column at a place, and its group if it is no plugin's.
    pub(crate) fn kind(&self, place: usize) -> Option<(Kind, Option<columns::Group>)> {
        self.columns.get(place).map(|selected| match &selected.source {
            Source::Declared(column) => (column.kind, Some(column.group)),
            Source::Added(added, _) => (added.kind, None),
        })
    }

    /// Hands the values of the columns at these places to `visit`, as metered.
    pub(crate) fn values(&self, flow: &Flow, places: &[usize], mut visit: impl FnMut(&Value<'_>)) {
        let row = Row::new(flow, &self.options);
        for selected in places.iter().filter_map(|place| self.columns.get(*place)) {
            visit(&selected.source.value(flow, &row));
        }
    }

    /// Hands the values of `flow` to `visit`, in the order of [`Self::names`].
    pub fn visit(&self, flow: &Flow, mut visit: impl FnMut(&Value<'_>)) {
        let row = Row::new(flow, &self.options);
        for Selected { source, is_url, anonymous } in &self.columns {
            let mut value = source.value(flow, &row);
            let redacted;
            if let Some(count) = &self.redacted
                && *is_url
                && let Value::Str(url) = value
                && let Some(text) = redact::text(url)
            {
                count.fetch_add(1, Ordering::Relaxed);
                redacted = text;
                value = Value::Str(&redacted);
            }
            match &self.anonymizer {
                Some(anonymizer) if *anonymous && value != Value::Null => {
                    visit(&Value::Str(anonymizer.digest(&value).as_str()));
                }
                _ => visit(&value),
            }
        }
    }
}

fn find(name: &str) -> Result<&'static Column, UnknownColumn> {
    columns::all()
        .find(|column| column.name == name)
        .ok_or_else(|| UnknownColumn::Unknown(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use flowmeter_common::knobs::Knobs;

    use super::*;
    use crate::flow::{Own, example};

    fn schema() -> Schema {
        Schema::new(Options { extras: false, ..Options::DEFAULT })
    }

    fn texts(schema: &Schema) -> Vec<String> {
        texts_of(schema, &example::handshake(&Knobs::default()))
    }

    fn texts_of(schema: &Schema, flow: &Flow) -> Vec<String> {
        let mut texts = Vec::new();
        schema.visit(flow, |value| {
            let mut text = Vec::new();
            value.push_text(&mut text);
            texts.push(String::from_utf8_lossy(&text).into_owned());
        });
        texts
    }

    #[test]
    fn nfstream_alone_has_its_columns_alone() {
        assert_eq!(schema().names().last(), Some("content_type"));
    }

    fn added(name: &str) -> Added {
        Added { name: format!("udps.{name}"), kind: Kind::Unsigned, unit: "", doc: String::new() }
    }

    #[test]
    fn columns_of_plugins_are_columns() {
        let key = Anonymizer::with_key(&[7; 64]).expect("64 bytes are a key");
        let schema = schema().with_added([added("one"), added("two")]).expect("two names");
        let last: Vec<_> = schema.names().skip(schema.names().len() - 2).collect();
        assert_eq!(last, ["udps.one", "udps.two"]);
        let mut flow = example::handshake(&Knobs::default());
        flow.own = vec![Own::U64(1), Own::Text("a".into())];
        let chosen = schema.select(&["udps.two", "src_port", "udps.one"]).expect("they exist");
        assert_eq!(texts_of(&chosen, &flow), ["a", "40000", "1"]);
        let hidden = chosen.anonymize(&["udps.two"], key).expect("it exists");
        assert_eq!(texts_of(&hidden, &flow)[1..], ["40000", "1"]);
        assert_eq!(texts_of(&hidden, &flow)[0].len(), 128);
        // A plugin that says nothing of a flow.
        flow.own.clear();
        assert_eq!(texts_of(&hidden, &flow), ["", "40000", ""]);
        let twice = self::schema().with_added([added("one"), added("one")]);
        assert_eq!(twice.err(), Some(UnknownColumn::Given("udps.one".into())));
    }

    #[test]
    fn selection_orders() {
        let schema = schema().select(&["dst_port", "src_ip"]).expect("both exist");
        assert_eq!(texts(&schema), ["443", "10.0.0.1"]);
    }

    #[test]
    fn anonymous_values_are_digests_and_null_stays_null() {
        let key = Anonymizer::with_key(&[7; 64]).expect("64 bytes are a key");
        let schema = schema()
            .select(&["src_ip", "src_port", "application_name"])
            .and_then(|s| s.anonymize(&["src_ip", "application_name", "splt_ps"], key.clone()))
            .expect("all exist");
        let hidden = key.digest(&Value::Str("10.0.0.1")).as_str().to_owned();
        assert_eq!(texts(&schema), [hidden.as_str(), "40000", ""]);
    }
}
