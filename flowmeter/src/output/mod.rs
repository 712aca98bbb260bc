//! Where do the rows go?
//!
//! An output takes bytes, and knows nothing of flows.

mod batch;
mod files;
mod lines;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod queue;
mod target;

use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use batch::{Batch, Sum};
pub use files::Files;

/// Takes rows, or whatever else a load is of.
pub trait Output<L = Batch>: Send {
    /// Takes rows off the front of the load, all of them unless there is an error. What was taken
    /// stands where it is to stand; a row of which the output has a part alone is still the load's,
    /// and the next call goes on with it, so that nothing is lost or doubled.
    fn write(&mut self, load: &mut L) -> Result<(), Error>;

    /// Does what is to be done though there is no row: of a table the header stands.
    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Begins anew, as what it writes to may have been renamed.
    fn reopen(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// What is on its way to an output.
pub trait Load: Default + Send + 'static {
    /// What has not been taken.
    fn left(&self) -> Sum;

    /// How many bytes that has in memory.
    fn bytes(&self) -> usize;

    /// Forgets all, and keeps the memory.
    fn clear(&mut self);
}

/// Where rows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where to.
    pub destination: Destination,
    /// A file gets this many flows, then the next is begun: `flows.0.csv`, `flows.1.csv`, …
    pub flows_per_file: Option<NonZeroU64>,
    /// After this many files, the first is overwritten.
    pub rotate_files: Option<NonZeroU64>,
}

impl Options {
    /// To one file, or to standard output.
    pub fn new(destination: Destination) -> Self {
        Self { destination, flows_per_file: None, rotate_files: None }
    }

    /// Whether a flow would be written into this file, under whatever name.
    pub fn would_overwrite(&self, file: &Path) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
        match &self.destination {
            Destination::File(path) => {
                let is_it = path == file || path.is_file() && identity(path) == identity(file);
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

/// Why rows could not be written.
#[derive(Debug, Error)]
#[non_exhaustive]
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
    /// It is a fifo, and nobody has opened it for reading.
    #[error("nobody reads {name}")]
    NoReader {
        /// The fifo.
        name: String,
    },
    /// Whoever reads has not made room for some [`WAIT`].
    #[error("the reader of {name} does not keep up")]
    Busy {
        /// The pipe.
        name: String,
    },
    /// Nobody reads any more: the other end of the pipe was closed.
    #[error("{name} was closed by its reader")]
    Closed {
        /// The pipe.
        name: String,
    },
    /// Its queue was full, and the run was to end then.
    #[error("{name} does not keep up, and its queue is full")]
    Full {
        /// Which.
        name: String,
    },
    /// What another output says.
    #[error("{name}")]
    Other {
        /// Of what.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Whether it is no failure: whoever reads is to be waited for.
    pub fn is_wait(&self) -> bool {
        matches!(self, Self::NoReader { .. } | Self::Busy { .. })
    }

    /// Whether it may pass, so that it makes sense to try again.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Closed { .. } | Self::Full { .. })
    }
}

/// The error and its cause, in a line.
pub fn describe(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// No call of an output waits much longer than this for whoever reads.
pub const WAIT: std::time::Duration = std::time::Duration::from_millis(100);

/// A directory for a test's files, gone with the test.
#[cfg(test)]
mod scratch {
    use std::path::PathBuf;

    pub struct Dir(PathBuf);

    impl Dir {
        pub fn new(test: &str) -> Self {
            let name = format!("flowmeter-output-{}-{test}", std::process::id());
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
