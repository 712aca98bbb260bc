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
    column: &'static Column,
    anonymous: bool,
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
}

impl Schema {
    /// All columns that `options` give, in order of emission.
    pub fn new(options: Options) -> Self {
        let columns = columns::all()
            .filter(|column| column.group.is_in(&options))
            .map(|column| Selected { column, anonymous: false })
            .collect();
        Self { options, columns, anonymizer: None, redacted: None }
    }

    /// Only the columns with these names, in this order.
    pub fn select<S: AsRef<str>>(self, names: &[S]) -> Result<Self, UnknownColumn> {
        let mut columns: Vec<Selected> = Vec::with_capacity(names.len());
        for name in names {
            let column = find(name.as_ref())?;
            if columns.iter().any(|s| s.column.name == column.name) {
                return Err(UnknownColumn::Twice(column.name.to_owned()));
            }
            let Some(selected) = self.columns.iter().find(|s| s.column.name == column.name) else {
                return Err(UnknownColumn::Absent {
                    name: column.name.to_owned(),
                    condition: column.group.condition(),
                });
            };
            columns.push(selected.clone());
        }
        Ok(Self { columns, ..self })
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
            let column = find(name.as_ref())?;
            for selected in &mut self.columns {
                selected.anonymous |= selected.column.name == column.name;
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
        let pairs =
            hidden.iter().flat_map(|h| shown.iter().map(|s| (h.column.name, s.column.name)));
        pairs.filter(|(hidden, shown)| is_exposed(hidden, shown)).collect()
    }

    /// What the columns were made from.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The columns, in order.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &'static Column> {
        self.columns.iter().map(|selected| selected.column)
    }

    /// Whether the column with this name is part of this run and gets digests for values.
    pub fn is_anonymized(&self, name: &str) -> bool {
        self.columns.iter().any(|selected| selected.anonymous && selected.column.name == name)
    }

    /// Hands the values of `flow` to `visit`, in the order of [`Self::columns`].
    pub fn visit(&self, flow: &Flow, mut visit: impl FnMut(&Value<'_>)) {
        let row = Row::new(flow, &self.options);
        for Selected { column, anonymous } in &self.columns {
            let mut value = (column.get)(&row);
            let redacted;
            if let Some(count) = &self.redacted
                && column.kind == Kind::Url
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
        .find(|column| column.name == name.trim())
        .ok_or_else(|| UnknownColumn::Unknown(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use flowmeter_common::knobs::Knobs;

    use super::*;
    use crate::flow::example;

    fn schema() -> Schema {
        Schema::new(Options { extras: false, ..Options::DEFAULT })
    }

    fn texts(schema: &Schema) -> Vec<String> {
        let mut texts = Vec::new();
        schema.visit(&example::handshake(&Knobs::default()), |value| {
            let mut text = Vec::new();
            value.push_text(&mut text);
            texts.push(String::from_utf8_lossy(&text).into_owned());
        });
        texts
    }

    #[test]
    fn nfstream_alone_has_its_columns_alone() {
        let last = schema().columns().last().map(|c| c.name);
        assert_eq!(last, Some("content_type"));
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
