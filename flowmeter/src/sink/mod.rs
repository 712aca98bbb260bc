//! Where do the finished flows go?

pub mod csv;
pub mod files;
pub mod json;
pub mod lines;
pub mod rows;

use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::fields::Schema;
use crate::record::Flow;

/// A log of flows.
///
/// What is written stays in memory until there is enough of it or [`Sink::flush`] is called: at
/// the end, and as often as a reader may have to wait. After an error nothing is lost or doubled:
/// what was not yet written is still there, and the next flush goes on with it.
pub trait Sink: Send {
    /// Writes a flow.
    fn write(&mut self, flow: &Flow) -> Result<(), Error>;

    /// Writes a flow that is a row of this format already.
    fn write_row(&mut self, row: &[u8]) -> Result<(), Error>;

    /// Writes a record that is not a flow; it should say what it is in a member `type`.
    fn write_json(&mut self, record: &serde_json::Value) -> Result<(), Error>;

    /// Hands all that was written to the operating system.
    fn flush(&mut self) -> Result<(), Error>;

    /// Lines that are still in memory: after an error at the end of a run, those that are lost.
    fn unwritten(&self) -> usize;

    /// Goes on in a new file if the one in use was renamed or removed.
    fn reopen(&mut self) -> Result<(), Error>;
}

/// Where to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where to.
    pub destination: Destination,
    /// How.
    pub format: Format,
    /// A file gets so many flows, then the next is begun: `flows.0.csv`, `flows.1.csv`, …
    pub flows_per_file: Option<NonZeroU64>,
    /// There are so many files; then the first is written again.
    pub rotate_files: Option<NonZeroU64>,
}

impl Options {
    /// Whether a flow would be written into this file, under whatever name.
    pub fn would_overwrite(&self, file: &Path) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
        match &self.destination {
            Destination::File(path) => {
                let is_it = path.is_file() && identity(path) == identity(file);
                is_it || self.flows_per_file.is_some() && files::is_numbered(path, file)
            }
            Destination::Stdout => false,
        }
    }
}

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To standard output.
    Stdout,
    /// To a file.
    File(PathBuf),
}

/// How a flow is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line.
    Json,
    /// Comma-separated values with a header (RFC 4180).
    Csv,
}

/// Why a flow could not be written.
#[derive(Debug, Error)]
pub enum Error {
    /// The file could not be opened.
    #[error("failed to open `{name}` for writing")]
    Open {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Not everything could be written.
    #[error("failed to write to {name}")]
    Write {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody reads any more: the other end of the pipe was closed.
    #[error("{name} was closed by its reader")]
    Closed {
        /// The pipe.
        name: String,
    },
    /// The format has rows of flows alone.
    #[error("only JSON lines can hold records other than flows")]
    FlowsOnly,
}

/// Opens the log. A JSON file is opened at once, so that what is wrong with it is said before the
/// first packet; a CSV file when there is a flow to write.
pub fn open(options: Options, schema: Arc<Schema>) -> Result<Box<dyn Sink>, Error> {
    Ok(match options.format {
        Format::Json => Box::new(json::Json::open(options, schema)?),
        Format::Csv => Box::new(csv::Csv::new(options, schema)),
    })
}

/// A directory for a test's files, gone with the test.
#[cfg(test)]
mod scratch {
    use std::path::PathBuf;

    pub struct Dir(PathBuf);

    impl Dir {
        pub fn new(test: &str) -> Self {
            let name = format!("flowmeter-sink-{}-{test}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{e}"));
            Self(dir)
        }

        pub fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
