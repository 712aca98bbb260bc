//! Where is the input kept that killed a dissector?
//!
//! In a folder, if there is one: a capture of raw IP packets for each batch, with a bound on their
//! number, so that whoever can crash the dissector cannot fill the disk.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use super::batch::Batch;

/// At most this many captures are written in a run.
const MAX_CAPTURES: u32 = 100;

/// The folder.
#[derive(Debug)]
pub struct Quarantine {
    folder: PathBuf,
    written: Mutex<u32>,
}

impl Quarantine {
    /// Makes the folder if it is not there.
    pub fn new(folder: &Path) -> io::Result<Self> {
        // What is kept is users' payload.
        if !folder.is_dir() {
            fs::DirBuilder::new().mode(0o700).create(folder)?;
        }
        Ok(Self { folder: folder.to_owned(), written: Mutex::new(0) })
    }

    /// Writes the packets of a batch; nothing once there are enough.
    pub fn keep(&self, batch: &Batch) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written >= MAX_CAPTURES || batch.bytes.is_empty() {
            return Ok(());
        }
        let name = format!("dissection-{}-{written}.pcap", std::process::id());
        *written += 1;
        let path = self.folder.join(name);
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let mut out = BufWriter::new(file);
        write(batch, &mut out)?;
        out.flush()
    }
}

/// `LINKTYPE_RAW`: the packet starts with its IP header.
const RAW: u32 = 101;

fn write(batch: &Batch, out: &mut impl Write) -> io::Result<()> {
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, RAW] {
        out.write_all(&field.to_le_bytes())?;
    }
    for (message, ip) in batch.iter().filter(|(message, _)| !message.is_finish()) {
        let (seconds, ms) = (message.time_ms / 1000, message.time_ms % 1000);
        for field in [seconds as u32, ms as u32 * 1000, message.length, message.length] {
            out.write_all(&field.to_le_bytes())?;
        }
        out.write_all(ip)?;
    }
    Ok(())
}
