//! What does the child process do?
//!
//! It makes its modules, gives up its rights, says that it is ready, and then answers batches until
//! there are no more.

#![expect(unsafe_code, reason = "file descriptors come by number")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd as _;
use std::process::ExitCode;

use zerocopy::{FromZeros as _, IntoBytes as _};

use super::{Hello, Landlock, MAGIC, MAX_ERROR, sandbox};
use crate::dissect::User;
use crate::dissect::batch::{Batch, Header, Message};
use crate::dissect::dissector::{Dissector, Limits};

/// The name the program is started by to be a child. It is no command of the user's.
pub const NAME: &str = "flowmeter-dissect";

/// What the parent tells the child, as arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orders {
    /// What to dissect.
    pub limits: Limits,
    /// Whom to become, if root.
    pub user: User,
    /// Bytes of address space.
    pub memory: u64,
}

impl Orders {
    /// As arguments.
    pub fn to_args(self) -> [String; 7] {
        let Limits { n_dissections, max_flows, parts, details } = self.limits;
        [
            n_dissections.to_string(),
            max_flows.to_string(),
            parts.to_string(),
            details.to_string(),
            self.user.uid.to_string(),
            self.user.gid.to_string(),
            self.memory.to_string(),
        ]
    }

    fn from_args(mut args: impl Iterator<Item = String>) -> Option<Self> {
        fn next<T: std::str::FromStr>(args: &mut impl Iterator<Item = String>) -> Option<T> {
            args.next()?.parse().ok()
        }
        let limits = Limits {
            n_dissections: next(&mut args)?,
            max_flows: next(&mut args)?,
            parts: next(&mut args)?,
            details: next(&mut args)?,
        };
        let user = User { uid: next(&mut args)?, gid: next(&mut args)? };
        Some(Self { limits, user, memory: next(&mut args)? })
    }
}

/// Runs as a child, if that is what this process was started for.
pub fn run(mut args: impl Iterator<Item = String>) -> Option<ExitCode> {
    if args.next()? != NAME {
        return None;
    }
    let Some(orders) = Orders::from_args(args) else { return Some(ExitCode::from(2)) };
    // SAFETY: descriptor 0 is open, as the parent made it, and is not closed by us.
    let mut socket = ManuallyDrop::new(unsafe { File::from_raw_fd(0) });
    let (mut dissector, landlock) = match prepare(&orders) {
        Ok(ready) => ready,
        Err(why) => {
            let why = &why.as_bytes()[..why.len().min(MAX_ERROR)];
            let _ = hello(&mut *socket, Landlock::Absent, why);
            return Some(ExitCode::FAILURE);
        }
    };
    if hello(&mut *socket, landlock, b"").is_err() {
        return Some(ExitCode::FAILURE);
    }
    let served = serve(&mut *socket, &mut dissector);
    // Freeing thousands of flows is the kernel's work here.
    std::mem::forget(dissector);
    Some(if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn prepare(orders: &Orders) -> Result<(Dissector, Landlock), String> {
    // SAFETY: the parent set TZ for us; there is no other thread yet. The C library reads
    // /etc/localtime at the first use of local time if there is no TZ.
    unsafe { tzset() };
    let dissector = Dissector::new(&orders.limits).map_err(|e| e.to_string())?;
    let landlock = sandbox::close(orders.user, orders.memory)
        .map_err(|e| format!("failed to give up its privileges: {e}"))?;
    Ok((dissector, landlock))
}

unsafe extern "C" {
    fn tzset();
}

fn hello(socket: &mut impl Write, landlock: Landlock, error: &[u8]) -> io::Result<()> {
    let error_bytes = error.len() as u32;
    let hello = Hello { magic: MAGIC, error_bytes, landlock: landlock as u32, reserved: 0 };
    socket.write_all(hello.as_bytes())?;
    socket.write_all(error)
}

/// Answers batches until the parent closes its end.
fn serve(socket: &mut (impl Read + Write), dissector: &mut Dissector) -> io::Result<()> {
    let mut batch = Batch::default();
    let mut out = Vec::new();
    let mut header = Header::default();
    loop {
        match socket.read_exact(header.as_mut_bytes()) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        batch.messages.resize(header.messages as usize, Message::new_zeroed());
        socket.read_exact(batch.messages.as_mut_bytes())?;
        batch.bytes.resize(header.bytes as usize, 0);
        socket.read_exact(&mut batch.bytes)?;
        out.clear();
        dissector.work(&batch).encode(&mut out);
        socket.write_all(&out)?;
    }
}
