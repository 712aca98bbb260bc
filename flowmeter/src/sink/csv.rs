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
        Self { schema, files: Files::new(options, Mode::Replace) }
    }
}

impl Sink for Csv {
    fn write(&mut self, flow: &Flow) -> Result<(), Error> {
        let (lines, is_new) = self.files.for_flow()?;
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
        Self { out, is_empty: true }
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
    use std::fs;
    use std::num::NonZeroU64;

    use flowmeter_common::knobs::Knobs;
    use flowmeter_common::packet::Layer;

    use super::*;
    use crate::dissect::Layer7;
    use crate::fields::{self, TimeUnit};
    use crate::record::{Flow, example};
    use crate::sink::{Destination, Format, scratch};

    fn schema() -> Schema {
        Schema::new(fields::Options {
            accounting: Layer::Link,
            unit: TimeUnit::Ms,
            statistics: true,
            splt: 3,
            dissection: true,
            tunnels: true,
            visibility: false,
            extras: true,
        })
    }

    fn flow(id: u64) -> Flow {
        let knobs = Knobs { statistics: true, splt: 3, ..Knobs::default() };
        Flow { id, ..example::handshake(&knobs) }
    }

    fn select(names: &[&str]) -> Arc<Schema> {
        Arc::new(schema().select(names).unwrap_or_else(|e| panic!("{e}")))
    }

    fn options(path: std::path::PathBuf) -> Options {
        Options {
            destination: Destination::File(path),
            format: Format::Csv,
            flows_per_file: None,
            rotate_files: None,
        }
    }

    fn write(options: Options, schema: Arc<Schema>, flows: &[Flow]) {
        let mut csv = Csv::new(options, schema);
        for flow in flows {
            csv.write(flow).unwrap_or_else(|e| panic!("{e}"));
        }
        csv.flush().unwrap_or_else(|e| panic!("{e}"));
    }

    #[test]
    fn rows_are_quoted_where_they_must() {
        let dir = scratch::Dir::new("csv");
        let columns = select(&["id", "src_ip", "splt_ps", "user_agent", "tunnel_vni", "splt_lost"]);
        let mut other = flow(1);
        other.layer7 = Some(Layer7 { user_agent: "a \"b\"\n, c".into(), ..Layer7::default() });
        write(options(dir.path("f.csv")), columns, &[flow(0), other]);
        assert_eq!(
            fs::read_to_string(dir.path("f.csv")).ok().as_deref(),
            Some(
                "id,src_ip,splt_ps,user_agent,tunnel_vni,splt_lost\r\n\
                 0,10.0.0.1,\"[60, 100, 300]\",,,False\r\n\
                 1,10.0.0.1,\"[60, 100, 300]\",\"a \"\"b\"\"\n, c\",,False\r\n"
            )
        );
    }

    #[test]
    fn no_flow_no_file() {
        let dir = scratch::Dir::new("empty");
        write(options(dir.path("f.csv")), select(&["id"]), &[]);
        assert!(!dir.path("f.csv").exists());
    }

    #[test]
    fn files_are_numbered_and_written_again() {
        // A directory with the extension in its name stays as it is.
        let dir = scratch::Dir::new("rotate.csv");
        let options = Options {
            flows_per_file: NonZeroU64::new(2),
            rotate_files: NonZeroU64::new(2),
            ..options(dir.path("f.csv"))
        };
        let flows: Vec<Flow> = (0..5).map(flow).collect();
        write(options, select(&["id"]), &flows);
        let read = |name| fs::read_to_string(dir.path(name)).unwrap_or_default();
        assert_eq!(read("f.0.csv"), "id\r\n4\r\n");
        assert_eq!(read("f.1.csv"), "id\r\n2\r\n3\r\n");
        assert!(!dir.path("f.2.csv").exists() && !dir.path("f.csv").exists());
    }
}
