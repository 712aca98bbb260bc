//! How are bytes given to a file without waiting for whoever reads it?
//!
//! Standard output is shared with other processes, and so are its flags: a pipe must not become
//! non-blocking for all of them. It is opened anew instead, or written to in pieces that cannot
//! wait.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};

use super::WAIT;
use crate::format::Existing;

/// A file, and how it is written to.
pub struct Target {
    file: File,
    way: Way,
}

/// How bytes are given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As they are: a file on a disk takes them.
    Whole,
    /// It says itself when it has no room: a pipe.
    NonBlocking,
    /// Few enough that there is room for them once there is any, pipe(7).
    Pieces,
    /// By a call that does not wait.
    Socket,
}

/// `PIPE_BUF`, pipe(7).
const PIECE: usize = 4096;

impl Target {
    /// Standard output.
    pub fn stdout() -> io::Result<Self> {
        // Past std's own buffer, which would cut lines where it pleases.
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let kind = file.metadata()?.file_type();
        if kind.is_socket() {
            return Ok(Self { file, way: Way::Socket });
        }
        if !kind.is_fifo() && !kind.is_char_device() {
            return Ok(Self { file, way: Way::Whole });
        }
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let again = OpenOptions::new().write(true).custom_flags(flags).open("/proc/self/fd/1");
        Ok(match again {
            Ok(file) => Self { file, way: Way::NonBlocking },
            Err(_) => Self { file, way: Way::Pieces },
        })
    }

    /// A file, which is created if need be. Of a fifo without a reader the error is ENXIO.
    pub fn open(path: &Path, existing: Existing) -> io::Result<Self> {
        let is_fifo = path.metadata().is_ok_and(|meta| meta.file_type().is_fifo());
        let mut options = OpenOptions::new();
        match existing {
            Existing::Kept => options.append(true),
            Existing::Replaced => options.write(true).truncate(true),
        };
        if is_fifo {
            options.custom_flags(libc::O_NONBLOCK);
        } else {
            // It says who did what on this host.
            options.create(true).mode(0o640);
        }
        let way = if is_fifo { Way::NonBlocking } else { Way::Whole };
        Ok(Self { file: options.open(path)?, way })
    }

    /// A file that is open.
    #[cfg(test)]
    pub fn of(fd: std::os::fd::OwnedFd) -> Self {
        Self { file: File::from(fd), way: Way::Pieces }
    }

    /// The file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Writes some of the bytes. [`ErrorKind::WouldBlock`] if there was no room for [`WAIT`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.way {
            Way::Whole => self.file.write(bytes),
            Way::NonBlocking => match self.file.write(bytes) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.wait()?;
                    self.file.write(bytes)
                }
                other => other,
            },
            Way::Pieces => {
                self.wait()?;
                self.file.write(bytes.get(..PIECE).unwrap_or(bytes))
            }
            Way::Socket => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                match send(&self.file, bytes, flags) {
                    Err(rustix::io::Errno::AGAIN) => {
                        self.wait()?;
                        Ok(send(&self.file, bytes, flags)?)
                    }
                    other => Ok(other?),
                }
            }
        }
    }

    /// Waits until there is room, or nobody who could make some.
    fn wait(&self) -> io::Result<()> {
        let wait = Timespec::try_from(WAIT).map_err(|_| ErrorKind::InvalidInput)?;
        let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
        match poll(&mut fds, Some(&wait)) {
            Ok(0) => Err(ErrorKind::WouldBlock.into()),
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::INTR) => Err(ErrorKind::Interrupted.into()),
            Err(e) => Err(e.into()),
        }
    }
}
