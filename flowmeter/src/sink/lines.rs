//! How do whole lines get into a file?

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{Destination, Error};

/// Bytes that are collected before they are written unasked.
const FULL: usize = 64 * 1024;

/// A file that is given whole lines only.
pub struct Lines {
    file: File,
    name: String,
    /// Lines not yet written.
    buffer: Vec<u8>,
    /// Where lines end in `buffer`. Not every line feed ends one: CSV quotes some.
    ends: Vec<usize>,
    has_written: bool,
}

/// What happens to a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It stays, and the lines are added.
    Append,
    /// It goes.
    Replace,
}

impl Lines {
    /// Opens `destination`, creating it if need be.
    pub fn open(destination: &Destination, mode: Mode) -> Result<Self, Error> {
        let (file, name) = match destination {
            // Past std's own buffer, which would cut lines where it pleases.
            Destination::Stdout => {
                let name = "standard output".to_owned();
                match io::stdout().as_fd().try_clone_to_owned() {
                    Ok(fd) => (File::from(fd), name),
                    Err(source) => return Err(Error::Open { name, source }),
                }
            }
            Destination::File(path) => {
                let name = path.display().to_string();
                match open_file(path, mode) {
                    Ok(file) => (file, format!("`{name}`")),
                    Err(source) => return Err(Error::Open { name, source }),
                }
            }
        };
        let mut lines = Self {
            file,
            name,
            buffer: Vec::with_capacity(2 * FULL),
            ends: Vec::new(),
            has_written: false,
        };
        if let (Destination::File(path), Mode::Append) = (destination, mode)
            && ends_inside_line(path).unwrap_or(false)
        {
            // A writer died in the middle of its last line. Ours must not become part of it.
            lines.buffer.push(b'\n');
        }
        Ok(lines)
    }

    /// Whether nothing was written, now or by somebody before.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && !self.has_written
    }

    /// Whether this is the file at a path.
    pub fn is_at(&self, path: &Path) -> bool {
        let same =
            |ours: &Metadata, its: &Metadata| (ours.dev(), ours.ino()) == (its.dev(), its.ino());
        match (self.file.metadata(), path.metadata()) {
            (Ok(ours), Ok(its)) => same(&ours, &its),
            _ => false,
        }
    }

    /// Adds what `fill` appends, which is a whole line with its end.
    pub fn line(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        fill(&mut self.buffer);
        self.ends.push(self.buffer.len());
        if self.buffer.len() >= FULL {
            return self.flush();
        }
        Ok(())
    }

    /// Lines that are in memory, or of which only the beginning was written.
    pub fn unwritten(&self) -> usize {
        self.ends.len()
    }

    /// Writes what there is. After an error the next call goes on where this one stopped.
    pub fn flush(&mut self) -> Result<(), Error> {
        let mut written = 0;
        while written < self.buffer.len() {
            match self.file.write(&self.buffer[written..]) {
                Ok(0) => {
                    self.keep_from(written);
                    return Err(self.error(io::ErrorKind::WriteZero.into()));
                }
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.keep_from(written);
                    return Err(self.error(e));
                }
            }
        }
        self.has_written |= written > 0;
        self.buffer.clear();
        self.ends.clear();
        Ok(())
    }

    /// Drops what has been written. A line of which only the beginning was is taken back if the
    /// file allows it, so that a full disk leaves whole lines.
    fn keep_from(&mut self, written: usize) {
        let whole = self.ends.iter().copied().take_while(|end| *end <= written);
        let line = whole.last().unwrap_or(0);
        let kept = if written > line && self.take_back((written - line) as u64).is_ok() {
            line
        } else {
            written
        };
        self.buffer.drain(..kept);
        self.ends.retain_mut(|end| {
            *end = end.saturating_sub(kept);
            *end > 0
        });
    }

    fn take_back(&mut self, bytes: u64) -> io::Result<()> {
        let meta = self.file.metadata()?;
        let end = self.file.stream_position()?;
        // If somebody else has written behind us it is too late.
        if !meta.is_file() || meta.len() != end || end < bytes {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.file.set_len(end - bytes)?;
        self.file.seek(SeekFrom::Start(end - bytes))?;
        Ok(())
    }

    fn error(&self, source: io::Error) -> Error {
        let name = self.name.clone();
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Error::Closed { name };
        }
        Error::Write { name, source }
    }
}

fn open_file(path: &Path, mode: Mode) -> io::Result<File> {
    let mut options = OpenOptions::new();
    match mode {
        Mode::Append => options.append(true),
        Mode::Replace => options.write(true).truncate(true),
    };
    // It says who did what on this host.
    options.create(true).mode(0o640).open(path)
}

/// Whether the last byte of the file is something else than a line feed.
fn ends_inside_line(path: &Path) -> io::Result<bool> {
    let meta = path.metadata()?;
    if !meta.is_file() || meta.len() == 0 {
        return Ok(false);
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::sink::scratch;

    fn open(path: PathBuf, mode: Mode) -> Lines {
        Lines::open(&Destination::File(path), mode).unwrap_or_else(|e| panic!("{e}"))
    }

    fn add(lines: &mut Lines, text: &str) {
        let added = lines.line(|out| out.extend_from_slice(text.as_bytes()));
        added.unwrap_or_else(|e| panic!("{e}"));
    }

    #[test]
    fn a_new_file_is_not_for_everybody_and_one_that_is_there_stays_as_it_is() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = scratch::Dir::new("mode");
        let path = dir.path("log");
        let mode = || fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        drop(open(path.clone(), Mode::Append));
        // A umask takes more away.
        assert_eq!(mode() & !0o640, 0);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).expect("it is ours");
        drop(open(path.clone(), Mode::Append));
        assert_eq!(mode(), 0o604);
    }

    #[test]
    fn lines_are_added_or_replace() {
        let dir = scratch::Dir::new("lines");
        let path = dir.path("log");
        for (mode, expected) in
            [(Mode::Append, "a\n"), (Mode::Append, "a\na\n"), (Mode::Replace, "a\n")]
        {
            let mut lines = open(path.clone(), mode);
            add(&mut lines, "a\n");
            lines.flush().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_line_cut_by_a_crash_is_ended() {
        let dir = scratch::Dir::new("cut");
        let path = dir.path("log");
        fs::write(&path, "whole\ncu").unwrap_or_else(|e| panic!("{e}"));
        let mut lines = open(path.clone(), Mode::Append);
        add(&mut lines, "a\n");
        lines.flush().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some("whole\ncu\na\n"));
    }

    #[test]
    fn full_disk_is_an_error_that_names_the_file() {
        let mut lines = open("/dev/full".into(), Mode::Append);
        add(&mut lines, "a\n");
        for _ in 0..2 {
            let error = lines.flush().err().map(|e| e.to_string());
            assert_eq!(error.as_deref(), Some("failed to write to `/dev/full`"));
        }
        assert_eq!(lines.buffer, b"a\n", "the line is kept for another try");
    }

    #[test]
    fn half_a_line_is_taken_back() {
        let dir = scratch::Dir::new("half");
        let path = dir.path("log");
        let mut lines = open(path.clone(), Mode::Append);
        add(&mut lines, "first\n");
        add(&mut lines, "second\n");
        // As if the disk had been full in the middle of the second line.
        lines.file.write_all(b"first\nsec").unwrap_or_else(|e| panic!("{e}"));
        lines.keep_from(9);
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some("first\n"));
        lines.flush().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some("first\nsecond\n"));
    }

    #[test]
    fn closed_pipe_is_told_apart() {
        let (reader, writer) = io::pipe().unwrap_or_else(|e| panic!("{e}"));
        drop(reader);
        let fd = std::os::fd::OwnedFd::from(writer);
        let mut lines = open("/dev/null".into(), Mode::Append);
        lines.file = File::from(fd);
        add(&mut lines, "a\n");
        assert!(matches!(lines.flush(), Err(Error::Closed { .. })));
    }
}
