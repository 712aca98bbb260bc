//! How is a value hidden so that equal values can still be seen to be equal?
//!
//! As `NFStream` does it: by the keyed BLAKE2b-512 digest (RFC 7693) of its text. Without the key
//! the few billion IPv4 addresses cannot be tried out.

use blake2::Blake2bMac512;
use blake2::digest::{KeyInit, Mac};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::Value;

/// Shortest key in bytes that a key file may have. BLAKE2b takes any; this keeps out slips.
const MIN_KEY: usize = 16;
/// Longest key in bytes that BLAKE2b takes.
const MAX_KEY: usize = 64;

/// A key, ready to digest values.
#[derive(Clone)]
pub struct Anonymizer {
    keyed: Blake2bMac512,
}

/// The digest of a value: 128 hexadecimal characters.
pub struct Digest([u8; 128]);

impl Anonymizer {
    /// With a random key, which is forgotten with the run: what two runs write cannot be joined.
    pub fn random() -> io::Result<Self> {
        let mut key = [0; MAX_KEY];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        Self::with_key(&key)
    }

    /// With the bytes of the file at `path`, 16 to 64 of them: runs with the same key can be
    /// joined.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        let mut key = Vec::new();
        File::open(path)?
            .take(MAX_KEY as u64 + 1)
            .read_to_end(&mut key)?;
        Self::with_key(&key)
    }

    /// With this key of 16 to 64 bytes.
    pub fn with_key(key: &[u8]) -> io::Result<Self> {
        let keyed = (key.len() >= MIN_KEY)
            .then(|| Blake2bMac512::new_from_slice(key).ok())
            .flatten()
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a key must have {MIN_KEY} to {MAX_KEY} bytes"),
                )
            })?;
        Ok(Self { keyed })
    }

    /// The digest of the value's text.
    pub fn digest(&self, value: &Value) -> Digest {
        let mut text = Vec::with_capacity(64);
        value.push_text(&mut text);
        let mut mac = self.keyed.clone();
        mac.update(&text);
        let mut hex = [0; 128];
        for (to, byte) in hex.chunks_exact_mut(2).zip(mac.finalize().into_bytes()) {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            to[0] = DIGITS[usize::from(byte >> 4)];
            to[1] = DIGITS[usize::from(byte & 15)];
        }
        Digest(hex)
    }
}

impl Digest {
    /// As text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}
