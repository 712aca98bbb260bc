//! Which file does the next flow go to?

use std::fs;
use std::path::{Path, PathBuf};

use super::lines::{Lines, Mode};
use super::{Destination, Error, Options};

/// One file, or a row of numbered files.
pub struct Files {
    options: Options,
    mode: Mode,
    current: Option<Lines>,
    /// Number of the current file.
    index: u64,
    /// Flows in it.
    flows: u64,
}

impl Files {
    /// Opens nothing yet. `mode` is for a single file. Numbered ones are replaced, but where a single
    /// one would be added to, their numbers go on.
    pub fn new(options: Options, mode: Mode) -> Self {
        let index = match (&options.destination, options.rotate_files) {
            // What is added to is not written again.
            (Destination::File(path), None) if mode == Mode::Append => after(path),
            _ => 0,
        };
        Self { options, mode, current: None, index, flows: 0 }
    }

    /// The file for one more flow, and whether it is a new one.
    pub fn for_flow(&mut self) -> Result<(&mut Lines, bool), Error> {
        if let Some(most) = self.options.flows_per_file
            && self.flows >= most.get()
        {
            self.flush()?;
            self.current = None;
            self.index += 1;
            self.flows = 0;
        }
        let is_new = self.flows == 0;
        self.open()?;
        self.flows += 1;
        let lines = self.current.as_mut().expect("it was opened above");
        Ok((lines, is_new))
    }

    /// The file as it is, for something that is no flow.
    pub fn current(&mut self) -> Result<&mut Lines, Error> {
        self.open()?;
        Ok(self.current.as_mut().expect("it was opened above"))
    }

    /// Writes what is in memory.
    pub fn flush(&mut self) -> Result<(), Error> {
        match &mut self.current {
            Some(lines) => lines.flush(),
            None => Ok(()),
        }
    }

    /// Lines that are still in memory.
    pub fn unwritten(&self) -> usize {
        self.current.as_ref().map_or(0, Lines::unwritten)
    }

    /// Whether a file was opened.
    pub fn is_begun(&self) -> bool {
        self.current.is_some()
    }

    /// Opens the file anew if another one, or none, has its name now. Numbered ones need it not.
    pub fn reopen(&mut self) -> Result<(), Error> {
        let Destination::File(path) = &self.options.destination else { return Ok(()) };
        let is_other = self.current.as_ref().is_some_and(|lines| !lines.is_at(path));
        if is_other && self.options.flows_per_file.is_none() {
            // First, as the old one is gone on with if this fails.
            let new = Lines::open(&self.options.destination, self.mode)?;
            self.flush()?;
            self.current = Some(new);
            self.flows = 0;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), Error> {
        if self.current.is_some() {
            return Ok(());
        }
        let lines = match (&self.options.destination, self.options.flows_per_file) {
            (Destination::File(path), Some(_)) => {
                let index = match self.options.rotate_files {
                    Some(files) => self.index % files.get(),
                    None => self.index,
                };
                Lines::open(&Destination::File(numbered(path, index)), Mode::Replace)?
            }
            (destination, _) => Lines::open(destination, self.mode)?,
        };
        self.current = Some(lines);
        Ok(())
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
