//! How is a flow written as a row of comma-separated values (RFC 4180)?
//!
//! By hand, since the `csv` crate's writer empties its buffer where it is full, and rows must go
//! out whole; what is left of the work is the quoting.

use std::sync::Arc;

use super::files::Files;
use super::lines::Mode;
use super::{Error, Options, Sink};
use crate::fields::Schema;
use crate::fields::value::Value;
use crate::record::Flow;

/// A table of flows. As `NFStream`'s `to_csv`: an existing file is replaced, and without a flow
/// there is no file.
pub struct Csv {
    schema: Arc<Schema>,
    files: Files,
}

impl Csv {
    /// Opens nothing yet.
    pub fn new(options: Options, schema: Arc<Schema>) -> Self {
        Self {
            schema,
            files: Files::new(options, Mode::Replace),
        }
    }
}

impl Sink for Csv {
    fn write(&mut self, flow: &Flow) -> Result<(), Error> {
        let (lines, is_new) = self.files.next()?;
        if is_new {
            lines.line(|out| {
                let mut row = Row::new(out);
                for column in self.schema.columns() {
                    row.push(&Value::Str(column.name));
                }
                row.end();
            })?;
        }
        lines.line(|out| {
            let mut row = Row::new(out);
            self.schema.visit(flow, |value| row.push(&value));
            row.end();
        })
    }

    fn write_json(&mut self, _: &serde_json::Value) -> Result<(), Error> {
        Err(Error::FlowsOnly)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.files.flush()
    }
}

/// A row in the making.
struct Row<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Row<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            is_empty: true,
        }
    }

    fn push(&mut self, value: &Value) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        match value {
            Value::Str(_) => {
                let start = self.out.len();
                value.push_text(self.out);
                quote(self.out, start);
            }
            Value::List(_) => {
                self.out.push(b'"');
                value.push_text(self.out);
                self.out.push(b'"');
            }
            // The others have no character that needs quotes.
            _ => value.push_text(self.out),
        }
    }

    fn end(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Puts what `out` has from `start` on into quotes if it needs them.
fn quote(out: &mut Vec<u8>, start: usize) {
    let field = &out[start..];
    if !field
        .iter()
        .any(|b| matches!(b, b',' | b'"' | b'\r' | b'\n'))
    {
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
