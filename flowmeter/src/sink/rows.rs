//! How does a flow become a row?

use std::ops::Range;
use std::sync::Arc;

use super::Format;
use crate::fields::Schema;
use crate::fields::value::Value;
use crate::record::Flow;

/// Writes flows as rows of a format, wherever the rows go then.
#[derive(Clone)]
pub struct Rows {
    schema: Arc<Schema>,
    format: Format,
    /// Of JSON: `{"id":`, `,"expiration_id":`, … of each column.
    names: Vec<Name>,
    /// Which column is the flow's id.
    id: Option<usize>,
}

impl Rows {
    /// For flows with the columns of `schema`.
    pub fn new(schema: Arc<Schema>, format: Format) -> Self {
        let id = schema.columns().position(|column| column.name == "id");
        Self { names: names(&schema), schema, format, id }
    }

    /// Adds a flow's row to `out`, with its end. Says where in `out` the value of the id stands, so
    /// that it can be given later; `None` if there is none.
    pub fn push(&self, flow: &Flow, out: &mut Vec<u8>) -> Option<Range<usize>> {
        let mut id = None;
        let mut column = 0;
        match self.format {
            Format::Json => {
                let mut names = self.names.iter();
                self.schema.visit(flow, |value| {
                    if let Some(name) = names.next() {
                        name.push(out);
                    }
                    let start = out.len();
                    value.push_json(out);
                    if self.id == Some(column) {
                        id = Some(start..out.len());
                    }
                    column += 1;
                });
                out.extend_from_slice(b"}\n");
            }
            Format::Csv => {
                let mut row = Row::new(out);
                self.schema.visit(flow, |value| {
                    let written = row.push(value);
                    if self.id == Some(column) {
                        id = Some(written);
                    }
                    column += 1;
                });
                row.end();
            }
        }
        id
    }

    /// Adds the header of a table.
    pub fn header(&self, out: &mut Vec<u8>) {
        let mut row = Row::new(out);
        for column in self.schema.columns() {
            row.push(&Value::Str(column.name));
        }
        row.end();
    }
}

/// What stands before a value. Of one size, so that copying it is a few instructions and no call.
#[derive(Clone)]
struct Name {
    text: [u8; Self::LONGEST],
    length: usize,
}

impl Name {
    const LONGEST: usize = 48;

    #[inline]
    fn push(&self, out: &mut Vec<u8>) {
        let length = out.len() + self.length;
        out.extend_from_slice(&self.text);
        out.truncate(length);
    }
}

fn names(schema: &Schema) -> Vec<Name> {
    let columns = schema.columns().enumerate();
    columns
        .map(|(i, column)| {
            let open = if i == 0 { '{' } else { ',' };
            // Names of columns are made of characters that JSON does not escape.
            let name = format!("{open}\"{}\":", column.name).into_bytes();
            assert!(name.len() <= Name::LONGEST, "no column has so long a name");
            let mut text = [0; Name::LONGEST];
            text[..name.len()].copy_from_slice(&name);
            Name { text, length: name.len() }
        })
        .collect()
}

/// A row in the making.
struct Row<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Row<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, is_empty: true }
    }

    /// Adds a field. Says where it stands.
    fn push(&mut self, value: &Value) -> Range<usize> {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        let start = self.out.len();
        match value {
            Value::Str(_) | Value::Texts(_) => {
                value.push_text(self.out);
                quote(self.out, start);
            }
            Value::List(_) | Value::Sequence(_) | Value::Numbers(_) => {
                self.out.push(b'"');
                value.push_text(self.out);
                self.out.push(b'"');
            }
            // The others have no character that needs quotes.
            _ => value.push_text(self.out),
        }
        start..self.out.len()
    }

    fn end(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Puts what `out` has from `start` on into quotes if it needs them.
fn quote(out: &mut Vec<u8>, start: usize) {
    let field = &out[start..];
    if !field.iter().any(|b| matches!(b, b',' | b'"' | b'\r' | b'\n')) {
        return;
    }
    let mut quoted = Vec::with_capacity(field.len() + 2);
    quoted.push(b'"');
    for &byte in field {
        if byte == b'"' {
            quoted.push(b'"');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    out.truncate(start);
    out.extend_from_slice(&quoted);
}
