//! What does a client say first that agrees on keys as browsers do since 2024?
//!
//! A `ClientHello` whose key share is one of ML-KEM 768: it is larger than a packet. Over TCP it
//! spans two segments, in QUIC two datagrams.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use aes_gcm::Aes128Gcm;
use aes_gcm::aead::AeadInOut as _;
use anyhow::{Context as _, Result};
use hkdf::Hkdf;
use sha2::Sha256;

/// X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem, section 3), and the bytes of its share.
const GROUP: u16 = 0x11ec;
const SHARE: usize = 1_216;

/// Bytes of a datagram of QUIC.
pub const DATAGRAM: usize = 1_200;

/// A `ClientHello` for a server, as a message of the handshake: RFC 8446, section 4.1.2.
pub fn message(server: &str) -> Vec<u8> {
    let name = [&[0][..], &vector16(server.as_bytes())].concat();
    let share = [&GROUP.to_be_bytes()[..], &vector16(&[0x5a; SHARE])].concat();
    let extensions = [
        extension(0, &vector16(&name)),
        extension(10, &vector16(&GROUP.to_be_bytes())),
        extension(13, &vector16(&[4, 3, 8, 4])),
        extension(16, &vector16(b"\x02h3\x02h2")),
        extension(43, &[2, 3, 4]),
        extension(51, &vector16(&share)),
        // Transport parameters: none.
        extension(57, &[]),
        // Padding (RFC 7685), as of a session that is to be resumed.
        extension(21, &[0; 500]),
    ];
    let body = [
        &[3, 3][..],
        &[0xa5; 32],
        &[0],
        &vector16(&[0x13, 1, 0x13, 2]),
        &[1, 0],
        &vector16(&extensions.concat()),
    ]
    .concat();
    let [_, length @ ..] = (body.len() as u32).to_be_bytes();
    [&[1][..], &length, &body].concat()
}

/// The same as TLS sends it over TCP.
pub fn record(server: &str) -> Vec<u8> {
    [&[22, 3, 1][..], &vector16(&message(server))].concat()
}

/// The same as QUIC sends it: Initial packets of [`DATAGRAM`] bytes each (RFC 9001, section 5).
pub fn initials(server: &str) -> Result<Vec<Vec<u8>>> {
    let keys = Keys::new(b"the id")?;
    let pieces = message(server);
    let mut offset = 0;
    let packets = pieces.chunks(1_050).zip(0..).map(|(piece, number)| {
        // A CRYPTO frame (RFC 9000, section 19.6), and PADDING.
        let place = [offset as u16 | 0x4000, piece.len() as u16 | 0x4000].map(u16::to_be_bytes);
        offset += piece.len();
        keys.seal(b"the id", number, [&[6][..], place.as_flattened(), piece].concat())
    });
    packets.collect()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(content)].concat()
}

fn vector16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

/// The keys of a client's Initials, in version 1.
struct Keys {
    aead: Aes128Gcm,
    iv: [u8; 12],
    header: Aes128,
}

impl Keys {
    fn new(destination: &[u8]) -> Result<Self> {
        const SALT: [u8; 20] = [
            0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8,
            0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a,
        ];
        let (_, initial) = Hkdf::<Sha256>::extract(Some(&SALT), destination);
        let secret: [u8; 32] = expand(&initial, "client in")?;
        let client = Hkdf::<Sha256>::from_prk(&secret).ok().context("a secret of 32 bytes")?;
        Ok(Self {
            aead: Aes128Gcm::new(&expand::<16>(&client, "quic key")?.into()),
            iv: expand(&client, "quic iv")?,
            header: Aes128::new(&expand::<16>(&client, "quic hp")?.into()),
        })
    }

    /// An Initial of [`DATAGRAM`] bytes (RFC 9000, section 17.2.2), with a number of one byte.
    fn seal(&self, destination: &[u8], number: u8, mut frames: Vec<u8>) -> Result<Vec<u8>> {
        const TAG: usize = 16;
        let mut packet = vec![0xc0, 0, 0, 0, 1, destination.len() as u8];
        packet.extend(destination);
        packet.extend([0, 0]);
        let length = DATAGRAM - packet.len() - 2;
        packet.extend((length as u16 | 0x4000).to_be_bytes());
        let number_at = packet.len();
        packet.push(number);
        frames.resize(length - 1 - TAG, 0);
        let mut nonce = self.iv;
        nonce[11] ^= number;
        let text = frames.as_mut_slice().into();
        let tag = self.aead.encrypt_inout_detached(&nonce.into(), &packet, text);
        let tag = tag.ok().context("a packet is small enough")?;
        packet.extend(frames);
        packet.extend(&tag[..]);
        let sample: [u8; 16] = *packet[number_at + 4..].first_chunk().context("a sample")?;
        let mut mask = sample.into();
        self.header.encrypt_block(&mut mask);
        packet[0] ^= mask[0] & 0x0f;
        packet[number_at] ^= mask[1];
        Ok(packet)
    }
}

/// `HKDF-Expand-Label` without a context: RFC 8446, section 7.1.
fn expand<const N: usize>(secret: &Hkdf<Sha256>, label: &str) -> Result<[u8; N]> {
    let (length, name_length) = ((N as u16).to_be_bytes(), [label.len() as u8 + 6]);
    let info = [&length, &name_length[..], b"tls13 ", label.as_bytes(), &[0]];
    let mut out = [0; N];
    secret.expand_multi_info(&info, &mut out).ok().context("a key is short")?;
    Ok(out)
}
