//! How is a client's Initial packet read?
//!
//! Its keys come from a connection id that is in it: they keep nobody from reading it, but tell
//! whether it arrived unchanged, and whether it is QUIC at all. RFC 9001, section 5.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use aes_gcm::Aes128Gcm;
use aes_gcm::aead::AeadInOut as _;
use hkdf::Hkdf;
use sha2::Sha256;

use super::version::Version;

/// The keys of a client's Initials.
pub(super) struct Keys {
    aead: Aes128Gcm,
    iv: [u8; 12],
    header: Aes128,
}

/// Bytes of the AEAD's tag.
const TAG: usize = 16;

impl Keys {
    /// From the destination connection id of the client's first Initial.
    pub fn new(version: &Version, destination: &[u8]) -> Option<Self> {
        let (_, initial) = Hkdf::<Sha256>::extract(Some(&version.salt), destination);
        let secret: [u8; 32] = expand(&initial, "client in")?;
        let client = Hkdf::<Sha256>::from_prk(&secret).ok()?;
        let derive = |name: &str| expand::<16>(&client, &format!("{} {name}", version.prefix));
        Some(Self {
            aead: Aes128Gcm::new(&derive("key")?.into()),
            iv: expand(&client, &format!("{} iv", version.prefix))?,
            header: Aes128::new(&derive("hp")?.into()),
        })
    }

    /// The frames of a packet that ends where `packet` ends, and has its number at `number_at`;
    /// none if these are not its keys.
    pub fn open(&self, packet: &[u8], number_at: usize) -> Option<Vec<u8>> {
        // The sample is taken as if the number had all four bytes it may have: section 5.4.2.
        let sample: [u8; 16] = *packet.get(number_at + 4..)?.first_chunk()?;
        let mut mask = sample.into();
        self.header.encrypt_block(&mut mask);

        let mut bytes = packet.to_vec();
        bytes[0] ^= mask[0] & 0x0f;
        let number_length = usize::from(bytes[0] & 3) + 1;
        let mut number = 0_u32;
        for (byte, mask) in bytes[number_at..].iter_mut().zip(&mask[1..]).take(number_length) {
            *byte ^= mask;
            number = number << 8 | u32::from(*byte);
        }
        // Only the last bytes of a number are sent, but the first ones are small.
        let mut nonce = self.iv;
        for (byte, number) in nonce[8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        let (header, rest) = bytes.split_at_mut_checked(number_at + number_length)?;
        let (frames, tag) = rest.split_at_mut_checked(rest.len().checked_sub(TAG)?)?;
        let tag: [u8; TAG] = *tag.first_chunk()?;
        let opened =
            self.aead.decrypt_inout_detached(&nonce.into(), header, frames.into(), &tag.into());
        opened.is_ok().then(|| frames.to_vec())
    }
}

#[cfg(test)]
impl Keys {
    /// Makes an Initial of these frames, its number having two bytes.
    pub fn seal(&self, header: &[u8], number: u16, frames: &[u8]) -> Vec<u8> {
        let number = number.to_be_bytes();
        let length = (number.len() + frames.len() + TAG) as u16 | 0x4000;
        let mut packet = [header, &length.to_be_bytes(), &number].concat();
        packet[0] |= 1;
        let mut nonce = self.iv;
        nonce[10] ^= number[0];
        nonce[11] ^= number[1];
        let mut sealed = frames.to_vec();
        let tag = self
            .aead
            .encrypt_inout_detached(&nonce.into(), &packet, sealed.as_mut_slice().into())
            .expect("the frames are few");
        let number_at = packet.len() - number.len();
        packet.extend(sealed);
        packet.extend(&tag[..]);
        let sample: [u8; 16] = *packet[number_at + 4..].first_chunk().expect("there is a tag");
        let mut mask = sample.into();
        self.header.encrypt_block(&mut mask);
        packet[0] ^= mask[0] & 0x0f;
        packet[number_at] ^= mask[1];
        packet[number_at + 1] ^= mask[2];
        packet
    }
}

/// TLS 1.3's `HKDF-Expand-Label` without a context: RFC 8446, section 7.1.
fn expand<const N: usize>(secret: &Hkdf<Sha256>, label: &str) -> Option<[u8; N]> {
    let length = (N as u16).to_be_bytes();
    let name_length = [label.len() as u8 + 6];
    let info = [&length, &name_length[..], b"tls13 ", label.as_bytes(), &[0]];
    let mut out = [0; N];
    secret.expand_multi_info(&info, &mut out).ok()?;
    Some(out)
}
