//! How is a flow written as a row of comma-separated values (RFC 4180)?
//!
//! By hand, since the `csv` crate's writer empties its buffer where it is full, and rows must go
//! out whole; what is left of the work is the quoting.

use std::sync::Arc;

use super::files::Files;
use super::lines::{Lines, Mode};
use super::rows::Rows;
use super::{Error, Format, Options, Sink};
use crate::fields::Schema;
use crate::record::Flow;

/// A table of flows. An existing file is replaced. Without a flow there is the header alone.
pub struct Csv {
    rows: Rows,
    files: Files,
}

impl Csv {
    /// Opens nothing yet.
    pub fn new(options: Options, schema: Arc<Schema>) -> Self {
        Self { rows: Rows::new(schema, Format::Csv), files: Files::new(options, Mode::Replace) }
    }
}

impl Sink for Csv {
    fn write(&mut self, flow: &Flow) -> Result<(), Error> {
        let lines = self.lines()?;
        lines.0.line(|out| {
            lines.1.push(flow, out);
        })
    }

    fn write_row(&mut self, row: &[u8]) -> Result<(), Error> {
        self.lines()?.0.line(|out| out.extend_from_slice(row))
    }

    fn write_json(&mut self, _: &serde_json::Value) -> Result<(), Error> {
        Err(Error::FlowsOnly)
    }

    fn flush(&mut self) -> Result<(), Error> {
        // The header stands even where no row does, and no old file is taken for this run's.
        if !self.files.is_begun() {
            let lines = self.files.current()?;
            lines.line(|out| self.rows.header(out))?;
        }
        self.files.flush()
    }

    fn unwritten(&self) -> usize {
        self.files.unwritten()
    }

    fn reopen(&mut self) -> Result<(), Error> {
        self.files.reopen()
    }
}

impl Csv {
    /// The file for one more row, with its header.
    fn lines(&mut self) -> Result<(&mut Lines, &Rows), Error> {
        let (lines, is_new) = self.files.for_flow()?;
        if is_new && lines.is_empty() {
            lines.line(|out| self.rows.header(out))?;
        }
        Ok((lines, &self.rows))
    }
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
            sequences: 0,
            as_flowcontainer: false,
            dissection: true,
            details: true,
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
    fn without_a_flow_the_header_stands_alone() {
        let dir = scratch::Dir::new("empty");
        let path = dir.path("f.csv");
        fs::write(&path, "an older run's").unwrap_or_else(|e| panic!("{e}"));
        write(options(path.clone()), select(&["id"]), &[]);
        assert_eq!(fs::read_to_string(path).ok().as_deref(), Some("id\r\n"));
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
