//! How is a value hidden so that equal values can still be seen to be equal?
//!
//! As `NFStream` does it: by the keyed BLAKE2b-512 digest (RFC 7693) of its text. Without the key
//! the few billion IPv4 addresses cannot be tried out.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use blake2::Blake2bMac512;
use blake2::digest::{KeyInit, Mac};

use super::Value;

/// Shortest key in bytes that a key file may have. `BLAKE2b` takes any; this keeps out slips.
const MIN_KEY: usize = 16;
/// Longest key in bytes that `BLAKE2b` takes.
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
        File::open(path)?.take(MAX_KEY as u64 + 1).read_to_end(&mut key)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `hashlib.blake2b(value, digest_size=64, key=key).hexdigest()`.
    #[test]
    fn digests_are_pythons() {
        let key: Vec<u8> = (0..64).collect();
        for (key, value, expected) in [
            (
                &key[..],
                Value::Ip([192, 0, 2, 7].into()),
                "7125fc1318eb9706a17fda705cfa4a9a1ed378f7608f3f09f8949c0be6c92b644144db67bd8e255c039d62a161ec8167db8850b300c82d11f49ec8f875b5bb1e",
            ),
            (
                &[b'k'; 16],
                Value::U64(40_000),
                "0550087eadd8f4449de038cdfa1613466a201bfcfb8921d5721bf736fa73bd7f549560a697b7da6931eb72d5e122b7d33f1245de66971173069c585af0a6052e",
            ),
        ] {
            let anonymizer = Anonymizer::with_key(key).expect("a key of allowed length");
            assert_eq!(anonymizer.digest(&value).as_str(), expected);
        }
    }

    #[test]
    fn keys_of_other_lengths_are_refused() {
        for length in [0, 15, 65] {
            assert!(Anonymizer::with_key(&vec![1; length]).is_err());
        }
    }

    #[test]
    fn random_keys_differ() {
        let digest = || {
            let anonymizer = Anonymizer::random().expect("the kernel has random bytes");
            anonymizer.digest(&Value::U64(1)).as_str().to_owned()
        };
        assert_ne!(digest(), digest());
    }
}
