//! Which file does the next flow go to?

use std::fs;
use std::path::{Path, PathBuf};

use super::lines::Lines;
use super::{Batch, Destination, Error, Load as _, Options, Output, Sum};
use crate::format::{Existing, Format};

/// One file, or a row of numbered files.
pub struct Files {
    options: Options,
    existing: Existing,
    /// What each file begins with.
    head: Vec<u8>,
    current: Option<Lines>,
    /// Number of the current file.
    index: u64,
    /// Flows in it.
    flows: u64,
    /// It is to be opened anew once no line is cut by that.
    is_outdated: bool,
    is_inside_line: bool,
}

impl Files {
    /// Files with rows of `format`. One that would be added to is opened at once, so that what is
    /// wrong with it is said before the first packet; another one when there is a row for it.
    ///
    /// Numbered files are replaced, but where a single one would be added to, their numbers go on.
    pub fn open(options: Options, format: &dyn Format) -> Result<Self, Error> {
        let existing = format.existing();
        let index = match (&options.destination, options.rotate_files) {
            // What is added to is not written again.
            (Destination::File(path), None) if existing == Existing::Kept => after(path),
            _ => 0,
        };
        let head = format.head();
        let mut files = Self {
            options,
            existing,
            head,
            current: None,
            index,
            flows: 0,
            is_outdated: false,
            is_inside_line: false,
        };
        if existing == Existing::Kept {
            match files.current() {
                Ok(_) | Err(Error::NoReader { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(files)
    }

    /// How many flows more the current file may get.
    fn room(&self) -> u64 {
        self.options.flows_per_file.map_or(u64::MAX, |most| most.get().saturating_sub(self.flows))
    }

    fn current(&mut self) -> Result<&mut Lines, Error> {
        if self.current.is_none() {
            self.current = Some(self.next()?);
        }
        Ok(self.current.as_mut().expect("it was opened above"))
    }

    fn next(&self) -> Result<Lines, Error> {
        match (&self.options.destination, self.options.flows_per_file) {
            (Destination::File(path), Some(_)) => {
                let index = match self.options.rotate_files {
                    Some(files) => self.index % files.get(),
                    None => self.index,
                };
                let file = Destination::File(numbered(path, index));
                Lines::open(&file, Existing::Replaced, &self.head)
            }
            (destination, _) => Lines::open(destination, self.existing, &self.head),
        }
    }

    /// Opens the file anew if another one, or none, has its name now. Numbered ones need it not.
    fn follow(&mut self) -> Result<(), Error> {
        self.is_outdated = false;
        let Destination::File(path) = &self.options.destination else { return Ok(()) };
        let is_other = self.current.as_mut().is_some_and(|lines| !lines.is_at(path));
        if is_other && self.options.flows_per_file.is_none() {
            // The old one is gone on with if this fails.
            self.current = Some(self.next()?);
            self.flows = 0;
        }
        Ok(())
    }
}

impl Output for Files {
    fn write(&mut self, batch: &mut Batch) -> Result<(), Error> {
        if self.is_outdated && !self.is_inside_line {
            // Told when it was asked for.
            let _ = self.follow();
        }
        while !batch.is_empty() {
            // A record that is no flow goes where the flows before it went.
            if self.room() == 0 && batch.left().flows > 0 && batch.first(0).is_empty() {
                self.current = None;
                self.index += 1;
                self.flows = 0;
            }
            let room = self.room();
            let (Sum { flows, .. }, written) = self.current()?.write(batch, room);
            self.flows += flows;
            self.is_inside_line = batch.begun() > 0;
            written?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        // No old file is taken for this run's.
        self.current()?.begin()
    }

    fn reopen(&mut self) -> Result<(), Error> {
        self.is_outdated = true;
        // Of a line that is begun the rest belongs into the same file.
        if self.is_inside_line { Ok(()) } else { self.follow() }
    }
}

/// The number after the highest of the files that a path stands for.
fn after(path: &Path) -> u64 {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let files = fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten().flatten();
    files
        .filter_map(|file| number(path, &file.path()))
        .max()
        .map_or(0, |highest| u64::from(highest) + 1)
}

/// Whether a file is one of the numbered ones that a path stands for.
pub fn is_numbered(path: &Path, file: &Path) -> bool {
    let folder = |path: &Path| {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        folder.unwrap_or(Path::new(".")).canonicalize().ok()
    };
    number(path, file).is_some() && folder(path) == folder(file)
}

/// The number in a file's name, if it is one of those that a path stands for.
fn number(path: &Path, file: &Path) -> Option<u32> {
    let (stem, name) = (path.file_stem()?.to_str()?, file.file_name()?.to_str()?);
    let rest = name.strip_prefix(stem)?.strip_prefix('.')?;
    let number = match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => rest.strip_suffix(extension)?.strip_suffix('.')?,
        None => rest,
    };
    number.parse().ok()
}

/// `flows.csv` → `flows.0.csv`; `flows` → `flows.0`.
fn numbered(path: &Path, index: u64) -> PathBuf {
    let mut extension = index.to_string();
    if let Some(old) = path.extension() {
        extension.push('.');
        extension.push_str(&old.to_string_lossy());
    }
    path.with_extension(extension)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::sync::Arc;

    use flowmeter_common::knobs::Knobs;

    use super::*;
    use crate::fields::{self, Schema};
    use crate::flow::{Flow, example};
    use crate::format::Kind;
    use crate::output::scratch;

    /// Writes this many flows, only their ids, and flushes.
    fn write(options: Options, kind: Kind, flows: u64) {
        let schema = Schema::new(fields::Options::default()).select(&["id"]);
        let format = kind.of(Arc::new(schema.unwrap_or_else(|e| panic!("{e}"))));
        let mut files = Files::open(options, format.as_ref()).unwrap_or_else(|e| panic!("{e}"));
        let mut batch = Batch::default();
        for id in 0..flows {
            let flow = Flow { id, ..example::handshake(&Knobs::default()) };
            batch.flow(flow.record.packets(), |out| format.flow(&flow, out));
        }
        files.write(&mut batch).and(files.flush()).unwrap_or_else(|e| panic!("{e}"));
        assert!(batch.is_empty());
    }

    #[test]
    fn without_a_flow_the_header_stands_alone() {
        let dir = scratch::Dir::new("empty");
        let path = dir.path("f.csv");
        fs::write(&path, "an older run's").unwrap_or_else(|e| panic!("{e}"));
        write(Options::new(Destination::File(path.clone())), Kind::Csv, 0);
        assert_eq!(fs::read_to_string(path).ok().as_deref(), Some("id\r\n"));
    }

    #[test]
    fn files_are_numbered_and_written_again() {
        // A directory with the extension in its name stays as it is.
        let dir = scratch::Dir::new("rotate.csv");
        let options = Options {
            flows_per_file: NonZeroU64::new(2),
            rotate_files: NonZeroU64::new(2),
            ..Options::new(Destination::File(dir.path("f.csv")))
        };
        write(options, Kind::Csv, 5);
        let read = |name| fs::read_to_string(dir.path(name)).unwrap_or_default();
        assert_eq!(read("f.0.csv"), "id\r\n4\r\n");
        assert_eq!(read("f.1.csv"), "id\r\n2\r\n3\r\n");
        assert!(!dir.path("f.2.csv").exists() && !dir.path("f.csv").exists());
    }

    #[test]
    fn numbers_of_files_that_are_added_to_go_on() {
        let dir = scratch::Dir::new("numbers");
        let options = Options {
            flows_per_file: NonZeroU64::new(2),
            ..Options::new(Destination::File(dir.path("f.json")))
        };
        write(options.clone(), Kind::Json, 3);
        write(options, Kind::Json, 1);
        let read = |name| fs::read_to_string(dir.path(name)).unwrap_or_default();
        let all = ["f.0.json", "f.1.json", "f.2.json"].map(read);
        let ids = ["{\"id\":0}\n{\"id\":1}\n", "{\"id\":2}\n", "{\"id\":0}\n"];
        assert_eq!(all, ids);
    }

    #[test]
    fn records_go_into_the_file_of_the_flows_before() {
        let dir = scratch::Dir::new("records");
        let options = Options {
            flows_per_file: NonZeroU64::new(1),
            ..Options::new(Destination::File(dir.path("f")))
        };
        let format = Kind::Json.of(Arc::new(Schema::new(fields::Options::default())));
        let mut files = Files::open(options, format.as_ref()).unwrap_or_else(|e| panic!("{e}"));
        let add =
            |text: &'static str| move |out: &mut Vec<u8>| out.extend_from_slice(text.as_bytes());
        let mut batch = Batch::default();
        batch.flow(1, add("a"));
        batch.record(|out| {
            out.push(b'm');
            true
        });
        batch.flow(1, add("b"));
        files.write(&mut batch).unwrap_or_else(|e| panic!("{e}"));
        let read = |name| fs::read_to_string(dir.path(name)).unwrap_or_default();
        assert_eq!((read("f.0"), read("f.1")), ("am".to_owned(), "b".to_owned()));
    }
}
