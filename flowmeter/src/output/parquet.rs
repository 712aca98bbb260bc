//! How do batches become a Parquet file?
//!
//! It has another name until it is whole: whoever reads it finds all of it, or what was there before.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tempfile::NamedTempFile;

use super::Error;

/// Rows in a group, at most.
const GROUP_ROWS: usize = 1 << 18;
/// Bytes in a group in memory, about at most.
const GROUP_BYTES: usize = 64 << 20;

/// A Parquet file in the making. Dropped before its end, it leaves nothing.
pub struct Parquet {
    path: PathBuf,
    writer: ArrowWriter<Target>,
}

/// Where the bytes go.
enum Target {
    /// To what is to become a file.
    Later(NamedTempFile),
    /// To what is no regular file, such as a device.
    Direct(File),
}

impl Parquet {
    /// A file for batches with these columns. What is there stays until [`finish`](Self::finish).
    pub fn create(path: &Path, schema: SchemaRef) -> Result<Self, Error> {
        let failed = |source| Error::Open { name: path.display().to_string(), source };
        let path = resolved(path);
        let target = Target::open(&path).map_err(failed)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .set_created_by(concat!("flowmeter version ", env!("CARGO_PKG_VERSION")).into())
            .build();
        let writer = ArrowWriter::try_new(target, schema, Some(properties))
            .map_err(|e| failed(io::Error::other(e)))?;
        Ok(Self { path, writer })
    }

    /// Adds a batch.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        self.writer.write(batch).map_err(|e| self.failed(e))
    }

    /// Ends the file, and gives it its name.
    pub fn finish(self) -> Result<(), Error> {
        let Self { path, writer } = self;
        let failed = |source| Error::Write { name: path.display().to_string(), source };
        match writer.into_inner().map_err(|e| failed(cause(e)))? {
            Target::Later(file) => file.persist(&path).map(drop).map_err(|e| failed(e.error)),
            Target::Direct(mut file) => file.flush().map_err(failed),
        }
    }

    fn failed(&self, error: ParquetError) -> Error {
        Error::Write { name: self.path.display().to_string(), source: cause(error) }
    }
}

/// Where links lead, so that they stay.
fn resolved(path: &Path) -> PathBuf {
    let of_none = || {
        let target = path.read_link().ok()?;
        Some(path.parent()?.join(target))
    };
    path.canonicalize().ok().or_else(of_none).unwrap_or_else(|| path.to_owned())
}

/// What the file said, without Parquet's words for it.
fn cause(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        other => io::Error::other(other),
    }
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        if path.exists() && !path.is_file() {
            return OpenOptions::new().write(true).open(path).map(Self::Direct);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // As any file that is made: the umask takes from it.
        tempfile::Builder::new()
            .prefix(".flowmeter-")
            .suffix(".parquet")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .map(Self::Later)
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Later(file) => file.write(bytes),
            Self::Direct(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Later(file) => file.flush(),
            Self::Direct(file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use arrow_array::Int64Array;
    use arrow_schema::{DataType, Field, Schema};
    use parquet::file::metadata::RowGroupMetaData;
    use parquet::file::reader::{FileReader as _, SerializedFileReader};

    use super::*;
    use crate::output::scratch;

    fn batch(numbers: std::ops::Range<i64>) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("id", DataType::Int64, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers.collect::<Int64Array>())])
            .unwrap_or_else(|e| panic!("{e}"))
    }

    fn names(folder: &Path) -> Vec<std::ffi::OsString> {
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{e}"));
        entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect()
    }

    #[test]
    fn it_has_its_name_when_it_is_whole() {
        let dir = scratch::Dir::new("parquet");
        let path = dir.path("f.parquet");
        let folder = path.parent().expect("it is in a folder");
        fs::write(&path, "before").unwrap_or_else(|e| panic!("{e}"));
        let begun = |rows| {
            let mut file = Parquet::create(&path, batch(0..1).schema())?;
            file.write(&batch(0..rows)).map(|()| file)
        };
        drop(begun(5));
        assert_eq!(fs::read(&path).ok().as_deref(), Some(&b"before"[..]));
        assert_eq!(names(folder), ["f.parquet"]);
        let rows = GROUP_ROWS as i64 + 5;
        begun(rows).and_then(Parquet::finish).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(names(folder), ["f.parquet"]);
        let file = File::open(&path).unwrap_or_else(|e| panic!("{e}"));
        let reader = SerializedFileReader::new(file).unwrap_or_else(|e| panic!("{e}"));
        let groups = reader.metadata().row_groups();
        assert_eq!(groups.iter().map(RowGroupMetaData::num_rows).sum::<i64>(), rows);
        assert_eq!(groups.len(), 2);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let dir = scratch::Dir::new("parquet-none");
        let path = dir.path("none/f.parquet");
        let error = Parquet::create(&path, batch(0..1).schema()).err();
        let error = error.map(|e| crate::output::describe(&e)).unwrap_or_default();
        assert!(error.contains("none/f.parquet") && error.contains("No such file"), "{error}");
    }
}
