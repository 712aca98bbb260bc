//! How does a flow become bytes?
//!
//! A format knows the columns, and nothing of where its rows go.

#[cfg(feature = "arrow")]
pub mod arrow;
mod csv;
mod json;

use std::ops::Range;
use std::sync::Arc;

use crate::fields::Schema;
use crate::flow::Flow;

/// Writes flows as rows. Shared by all who write rows of one output.
pub trait Format: Send + Sync {
    /// Adds a flow's row, with its end, to `out`. Says where in `out` the digits of the flow's id
    /// stand, so that they can be given later; `None` if the row has no id.
    fn flow(&self, flow: &Flow, out: &mut Vec<u8>) -> Option<Range<usize>>;

    /// Adds a record that is not a flow, with its end; it says what it is in a member `type`. Gives
    /// whether this format can hold one; if not, nothing is added.
    fn record(&self, record: &serde_json::Value, out: &mut Vec<u8>) -> bool;

    /// What stands at the beginning of each file.
    fn head(&self) -> Vec<u8>;

    /// What happens to a file that is there already.
    fn existing(&self) -> Existing;
}

/// What happens to a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and rows are added.
    Kept,
    /// It goes.
    Replaced,
}

/// The formats of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A JSON object per line.
    Json,
    /// Comma-separated values with a header (RFC 4180).
    Csv,
}

impl Kind {
    /// All, by the names that the command has for them.
    pub const ALL: [(&'static str, Self); 2] = [("json", Self::Json), ("csv", Self::Csv)];

    /// The format, for flows with the columns of `schema`.
    pub fn of(self, schema: Arc<Schema>) -> Arc<dyn Format> {
        match self {
            Self::Json => Arc::new(json::Json::new(schema)),
            Self::Csv => Arc::new(csv::Csv::new(schema)),
        }
    }
}

/// Which of the columns is the flow's id.
fn id(schema: &Schema) -> Option<usize> {
    schema.names().position(|name| name == "id")
}
