//! How far is a run that reads captures?

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What has been read, for whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: Arc<AtomicU64>,
    frames: AtomicU64,
}

impl Progress {
    /// Bytes of the files, as they stand there: compressed ones, where they are.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Frames. Those read last may be missing.
    pub fn frames(&self) -> u64 {
        self.frames.load(Relaxed)
    }

    /// Counts the bytes read.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    /// This many frames have been read.
    pub(super) fn set_frames(&self, frames: u64) {
        self.frames.store(frames, Relaxed);
    }
}

/// Bytes of all files together; none if that cannot be told.
pub fn total(files: &[PathBuf]) -> Option<u64> {
    let size = |file: &PathBuf| {
        let is_file = |meta: &std::fs::Metadata| meta.is_file();
        Some(file.metadata().ok().filter(is_file)?.len())
    };
    files.iter().map(size).sum()
}
