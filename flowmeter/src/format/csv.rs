//! How is a flow written as a row of comma-separated values (RFC 4180)?
//!
//! By hand, since the `csv` crate's writer keeps a buffer of its own; what is left of the work is
//! the quoting.

use std::ops::Range;
use std::sync::Arc;

use super::{Existing, Format};
use crate::fields::Schema;
use crate::fields::value::Value;
use crate::flow::Flow;

/// A table of flows, with the names of its columns above.
pub struct Csv {
    schema: Arc<Schema>,
    id: Option<usize>,
}

impl Csv {
    /// For flows with the columns of `schema`.
    pub fn new(schema: Arc<Schema>) -> Self {
        Self { id: super::id(&schema), schema }
    }
}

impl Format for Csv {
    fn flow(&self, flow: &Flow, out: &mut Vec<u8>) -> Option<Range<usize>> {
        let mut id = None;
        let mut column = 0;
        let mut row = Row::new(out);
        self.schema.visit(flow, |value| {
            let written = row.push(value);
            if self.id == Some(column) {
                id = Some(written);
            }
            column += 1;
        });
        row.end();
        id
    }

    /// There are flows alone.
    fn record(&self, _: &serde_json::Value, _: &mut Vec<u8>) -> bool {
        false
    }

    fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        let mut row = Row::new(&mut head);
        for name in self.schema.names() {
            row.push(&Value::Str(name));
        }
        row.end();
        head
    }

    fn existing(&self) -> Existing {
        Existing::Replaced
    }
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
            Value::List(_) | Value::Sequence(_) | Value::Numbers(_) | Value::Integers(_) => {
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

#[cfg(test)]
mod tests {
    use flowmeter_common::knobs::Knobs;

    use super::*;
    use crate::dissect::Layer7;
    use crate::fields;
    use crate::flow::{Flow, example};

    fn schema() -> Schema {
        Schema::new(fields::Options {
            statistics: true,
            splt: 3,
            details: true,
            ..fields::Options::DEFAULT
        })
    }

    fn flow(id: u64) -> Flow {
        let knobs = Knobs { statistics: true, splt: 3, ..Knobs::default() };
        Flow { id, ..example::handshake(&knobs) }
    }

    fn select(names: &[&str]) -> Arc<Schema> {
        Arc::new(schema().select(names).unwrap_or_else(|e| panic!("{e}")))
    }

    fn table(schema: Arc<Schema>, flows: &[Flow]) -> String {
        let csv = Csv::new(schema);
        let mut out = csv.head();
        for flow in flows {
            csv.flow(flow, &mut out);
        }
        String::from_utf8(out).expect("all values are text")
    }

    #[test]
    fn rows_are_quoted_where_they_must() {
        let columns = select(&["id", "src_ip", "splt_ps", "user_agent", "tunnel_vni", "splt_lost"]);
        let mut other = flow(1);
        other.layer7 = Some(Layer7 { user_agent: "a \"b\"\n, c".into(), ..Layer7::default() });
        assert_eq!(
            table(columns, &[flow(0), other]),
            "id,src_ip,splt_ps,user_agent,tunnel_vni,splt_lost\r\n\
             0,10.0.0.1,\"[60, 100, 300]\",,,False\r\n\
             1,10.0.0.1,\"[60, 100, 300]\",\"a \"\"b\"\"\n, c\",,False\r\n"
        );
    }
}
