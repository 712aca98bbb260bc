//! How do whole lines get into a file?

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::target::Target;
use super::{Batch, Destination, Error, Sum};
use crate::format::Existing;

/// A file that has whole lines only, as far as that is in its writer's hand.
pub struct Lines {
    target: Target,
    name: String,
    /// What is to stand before the next line.
    before: Vec<u8>,
}

impl Lines {
    /// Opens `destination`, creating it if need be. An empty file begins with `head`.
    pub fn open(destination: &Destination, existing: Existing, head: &[u8]) -> Result<Self, Error> {
        let (target, name, is_empty) = match destination {
            Destination::Stdout => {
                let name = "standard output".to_owned();
                match Target::stdout() {
                    Ok(target) => (target, name, true),
                    Err(source) => return Err(Error::Open { name, source }),
                }
            }
            Destination::File(path) => {
                let name = path.display().to_string();
                match Target::open(path, existing) {
                    Ok(target) => (target, format!("`{name}`"), is_empty(path)),
                    Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {
                        return Err(Error::NoReader { name: format!("`{name}`") });
                    }
                    Err(source) => return Err(Error::Open { name, source }),
                }
            }
        };
        let mut before = if is_empty { head.to_vec() } else { Vec::new() };
        if let (Destination::File(path), Existing::Kept) = (destination, existing)
            && ends_inside_line(path).unwrap_or(false)
        {
            // A writer died in the middle of its last line. Ours must not become part of it.
            before.push(b'\n');
        }
        Ok(Self { target, name, before })
    }

    /// Whether this is the file at a path.
    pub fn is_at(&mut self, path: &Path) -> bool {
        let same =
            |ours: &Metadata, its: &Metadata| (ours.dev(), ours.ino()) == (its.dev(), its.ino());
        match (self.target.file().metadata(), path.metadata()) {
            (Ok(ours), Ok(its)) => same(&ours, &its),
            _ => false,
        }
    }

    /// Writes what stands before the lines.
    pub fn begin(&mut self) -> Result<(), Error> {
        while !self.before.is_empty() {
            let written = self.target.write(&self.before);
            let n = self.written(written)?;
            self.before.drain(..n);
        }
        Ok(())
    }

    /// Writes the first `flows` flows of a batch, and says which rows it took.
    pub fn write(&mut self, batch: &mut Batch, flows: u64) -> (Sum, Result<(), Error>) {
        let mut sum = Sum::default();
        if let Err(e) = self.begin() {
            return (sum, Err(e));
        }
        let mut left = flows;
        loop {
            let bytes = batch.first(left);
            if bytes.is_empty() {
                return (sum, Ok(()));
            }
            let written = self.target.write(bytes);
            match self.written(written) {
                Ok(n) => {
                    let taken = batch.take(n);
                    left = left.saturating_sub(taken.flows);
                    sum += taken;
                }
                Err(e) => {
                    // A full disk is to leave whole lines.
                    let begun = batch.begun();
                    if begun > 0 && self.take_back(begun as u64).is_ok() {
                        batch.take_back();
                    }
                    return (sum, Err(e));
                }
            }
        }
    }

    /// How many bytes were written.
    fn written(&self, result: io::Result<usize>) -> Result<usize, Error> {
        let name = || self.name.clone();
        let source = match result {
            Ok(0) => ErrorKind::WriteZero.into(),
            Ok(n) => return Ok(n),
            Err(e) => e,
        };
        match source.kind() {
            ErrorKind::Interrupted => Ok(0),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                Err(Error::Closed { name: name() })
            }
            ErrorKind::WouldBlock => Err(Error::Busy { name: name() }),
            _ => Err(Error::Write { name: name(), source }),
        }
    }

    /// Takes bytes back that were written last.
    fn take_back(&mut self, bytes: u64) -> io::Result<()> {
        let file = self.target.file();
        let meta = file.metadata()?;
        let end = file.stream_position()?;
        // If somebody else has written behind us it is too late.
        if !meta.is_file() || meta.len() != end || end < bytes {
            return Err(ErrorKind::Unsupported.into());
        }
        file.set_len(end - bytes)?;
        file.seek(SeekFrom::Start(end - bytes))?;
        Ok(())
    }
}

/// Whether nothing stands in the file.
fn is_empty(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.len() == 0)
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
    use std::io::Write as _;
    use std::path::PathBuf;

    use super::*;
    use crate::output::scratch;

    fn open(path: PathBuf, existing: Existing) -> Lines {
        Lines::open(&Destination::File(path), existing, b"").unwrap_or_else(|e| panic!("{e}"))
    }

    fn batch(texts: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for text in texts {
            batch.flow(1, |out| out.extend_from_slice(text.as_bytes()));
        }
        batch
    }

    fn write(lines: &mut Lines, texts: &[&str]) {
        let (sum, result) = lines.write(&mut batch(texts), u64::MAX);
        result.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(sum.flows, texts.len() as u64);
    }

    #[test]
    fn a_new_file_is_not_for_everybody_and_one_that_is_there_stays_as_it_is() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = scratch::Dir::new("mode");
        let path = dir.path("log");
        let mode = || fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        drop(open(path.clone(), Existing::Kept));
        // A umask takes more away.
        assert_eq!(mode() & !0o640, 0);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).expect("it is ours");
        drop(open(path.clone(), Existing::Kept));
        assert_eq!(mode(), 0o604);
    }

    #[test]
    fn lines_are_added_or_replace() {
        let dir = scratch::Dir::new("lines");
        let path = dir.path("log");
        for (existing, expected) in
            [(Existing::Kept, "a\n"), (Existing::Kept, "a\na\n"), (Existing::Replaced, "a\n")]
        {
            write(&mut open(path.clone(), existing), &["a\n"]);
            assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_line_cut_by_a_crash_is_ended() {
        let dir = scratch::Dir::new("cut");
        let path = dir.path("log");
        fs::write(&path, "whole\ncu").unwrap_or_else(|e| panic!("{e}"));
        write(&mut open(path.clone(), Existing::Kept), &["a\n"]);
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some("whole\ncu\na\n"));
    }

    #[test]
    fn full_disk_is_an_error_that_names_the_file() {
        let mut lines = open("/dev/full".into(), Existing::Kept);
        let mut batch = batch(&["a\n"]);
        for _ in 0..2 {
            let (sum, result) = lines.write(&mut batch, u64::MAX);
            let error = result.err().map(|e| e.to_string());
            assert_eq!(error.as_deref(), Some("failed to write to `/dev/full`"));
            assert_eq!(sum, Sum::default());
        }
        assert_eq!(batch.rest(), b"a\n", "the line is kept for another try");
    }

    #[test]
    fn half_a_line_is_taken_back() {
        let dir = scratch::Dir::new("half");
        let path = dir.path("log");
        let mut lines = open(path.clone(), Existing::Kept);
        let mut batch = batch(&["first\n", "second\n"]);
        // As if the disk had been full in the middle of the second line.
        lines.target.file().write_all(b"first\nsec").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(batch.take(9), Sum::flow(1));
        lines.take_back(batch.begun() as u64).unwrap_or_else(|e| panic!("{e}"));
        batch.take_back();
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some("first\n"));
        lines.write(&mut batch, u64::MAX).1.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some("first\nsecond\n"));
    }

    #[test]
    fn a_pipe_that_is_full_and_one_that_was_closed_are_told_apart() {
        let (reader, writer) = io::pipe().unwrap_or_else(|e| panic!("{e}"));
        let mut lines = open("/dev/null".into(), Existing::Kept);
        lines.target = Target::of(writer.into());
        let mut batch = Batch::default();
        let long = "x".repeat(1 << 20);
        batch.flow(1, |out| out.extend_from_slice(long.as_bytes()));
        let (sum, result) = lines.write(&mut batch, u64::MAX);
        assert!(matches!(result, Err(Error::Busy { .. })) && sum == Sum::default());
        // The pipe's capacity, pipe(7), or less where the host has little memory for pipes.
        assert!(batch.begun() > 0 && batch.begun() <= 65_536, "{}", batch.begun());
        drop(reader);
        let (_, result) = lines.write(&mut batch, u64::MAX);
        assert!(matches!(result, Err(Error::Closed { .. })));
    }
}
