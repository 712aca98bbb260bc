//! What does a `ClientHello` say?
//!
//! RFC 8446, section 4.1.2, and the extensions that fingerprints and names are made of. A parser
//! of our own: it has to go on where an extension's own content is broken, as servers do, and
//! `tls-parser` ends there.

use super::reader::Reader;

/// What carries the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// TLS over TCP.
    Tcp,
    /// DTLS over UDP.
    Dtls,
    /// QUIC.
    Quic,
}

impl Carrier {
    /// As nDPI names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TLS",
            Self::Dtls => "DTLS",
            Self::Quic => "QUIC",
        }
    }
}

/// The extensions looked into.
pub(super) mod extension {
    pub const SERVER_NAME: u16 = 0;
    pub const SUPPORTED_GROUPS: u16 = 10;
    pub const EC_POINT_FORMATS: u16 = 11;
    pub const SIGNATURE_ALGORITHMS: u16 = 13;
    pub const ALPN: u16 = 16;
    pub const SUPPORTED_VERSIONS: u16 = 43;
}

/// The message without GREASE (RFC 8701): clients put it in at random, so that it tells nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientHello<'b> {
    pub carrier: Carrier,
    /// The message's own version field, which from TLS 1.3 on says 1.2.
    pub version: u16,
    pub ciphers: Vec<u16>,
    /// Types of the extensions, in order.
    pub extensions: Vec<u16>,
    pub supported_versions: Vec<u16>,
    pub groups: Vec<u16>,
    pub point_formats: &'b [u8],
    pub signature_algorithms: Vec<u16>,
    pub server_name: Option<&'b [u8]>,
    pub alpn: Vec<&'b [u8]>,
}

impl<'b> ClientHello<'b> {
    /// Reads the message behind its type and length.
    pub fn parse(carrier: Carrier, body: &'b [u8]) -> Option<Self> {
        let mut body = Reader::new(body);
        let version = body.u16()?;
        let _random = body.take(32)?;
        let _session = body.vector8()?;
        if carrier == Carrier::Dtls {
            let _cookie = body.vector8()?;
        }
        let ciphers = body.vector16()?;
        let _compression = body.vector8()?;
        let mut hello = Self {
            carrier,
            version,
            ciphers: numbers(ciphers),
            extensions: Vec::new(),
            supported_versions: Vec::new(),
            groups: Vec::new(),
            point_formats: &[],
            signature_algorithms: Vec::new(),
            server_name: None,
            alpn: Vec::new(),
        };
        // Before TLS 1.2 there need not be any extensions.
        if !body.is_empty() {
            let mut extensions = Reader::new(body.vector16()?);
            while !extensions.is_empty() {
                let kind = extensions.u16()?;
                let content = extensions.vector16()?;
                if !is_grease(kind) {
                    hello.extension(kind, content);
                }
            }
        }
        Some(hello)
    }

    /// Takes in an extension. Of one whose content is broken only the type is known.
    fn extension(&mut self, kind: u16, content: &'b [u8]) {
        self.extensions.push(kind);
        let mut content = Reader::new(content);
        match kind {
            extension::SERVER_NAME => self.server_name = server_name(content),
            extension::SUPPORTED_GROUPS => {
                self.groups = content.vector16().map(numbers).unwrap_or_default();
            }
            extension::EC_POINT_FORMATS => {
                self.point_formats = content.vector8().unwrap_or_default();
            }
            extension::SIGNATURE_ALGORITHMS => {
                self.signature_algorithms = content.vector16().map(numbers).unwrap_or_default();
            }
            extension::ALPN => self.alpn = protocols(content),
            extension::SUPPORTED_VERSIONS => {
                self.supported_versions = content.vector8().map(numbers).unwrap_or_default();
            }
            _ => {}
        }
    }
}

/// RFC 6066, section 3: the first name that is a host's.
fn server_name(mut content: Reader<'_>) -> Option<&[u8]> {
    const HOST_NAME: u8 = 0;
    let mut names = Reader::new(content.vector16()?);
    while !names.is_empty() {
        let kind = names.u8()?;
        let name = names.vector16()?;
        if kind == HOST_NAME {
            return Some(name);
        }
    }
    None
}

/// RFC 7301, section 3.1.
fn protocols(mut content: Reader<'_>) -> Vec<&[u8]> {
    let mut names = Reader::new(content.vector16().unwrap_or_default());
    let mut protocols = Vec::new();
    while let Some(name) = names.vector8() {
        let is_grease = matches!(*name, [a, b] if is_grease(u16::from_be_bytes([a, b])));
        if !is_grease {
            protocols.push(name);
        }
    }
    protocols
}

fn numbers(list: &[u8]) -> Vec<u16> {
    let (pairs, _) = list.as_chunks();
    pairs
        .iter()
        .map(|pair| u16::from_be_bytes(*pair))
        .filter(|number| !is_grease(*number))
        .collect()
}

/// RFC 8701, section 2: `0x?A?A`, with the same digit twice.
pub(crate) fn is_grease(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

#[cfg(test)]
mod tests {
    use super::{Carrier, ClientHello};
    use crate::dissect::hello::samples::Builder;

    fn parse(body: &[u8]) -> Option<ClientHello<'_>> {
        ClientHello::parse(Carrier::Tcp, body)
    }

    #[test]
    fn grease_is_nowhere() {
        let body = Builder::new()
            .ciphers(&[0x0a0a, 0x1301, 0xfafa, 0x0a1a])
            .extension(0x5a5a, &[])
            .extension(10, &[0, 4, 0x2a, 0x2a, 0, 29])
            .extension(13, &[0, 4, 0x3a, 0x3a, 4, 3])
            .extension(43, &[4, 0x4a, 0x4a, 3, 4])
            .extension(16, &[0, 6, 2, 0x6a, 0x6a, 2, b'h', b'2'])
            .body();
        let hello = parse(&body).expect("it is whole");
        assert_eq!(hello.ciphers, [0x1301, 0x0a1a]);
        assert_eq!(hello.extensions, [10, 13, 43, 16]);
        assert_eq!(hello.groups, [29]);
        assert_eq!(hello.signature_algorithms, [0x0403]);
        assert_eq!(hello.supported_versions, [0x0304]);
        assert_eq!(hello.alpn, [b"h2"]);
    }

    #[test]
    fn broken_contents_cost_no_more_than_themselves() {
        let body = Builder::new()
            .extension(0, &[0, 9, 0, 0, 9])
            .extension(10, &[0, 9, 0])
            .extension(16, &[0, 4, 2, b'h', b'2', 9])
            .extension(43, &[])
            .server_name(b"example.org")
            .body();
        let hello = parse(&body).expect("the list of extensions is whole");
        assert_eq!(hello.extensions, [0, 10, 16, 43, 0]);
        assert_eq!(hello.server_name, Some(&b"example.org"[..]));
        assert_eq!(hello.alpn, [b"h2"]);
    }

    #[test]
    fn a_name_that_is_no_host_s_is_passed_over() {
        let body = Builder::new().extension(0, &[0, 8, 9, 0, 1, b'x', 0, 0, 1, b'y']).body();
        assert_eq!(parse(&body).and_then(|hello| hello.server_name), Some(&b"y"[..]));
    }

    #[test]
    fn a_message_cut_anywhere_is_none() {
        let body = Builder::new().server_name(b"example.org").body();
        let without_extensions = Builder::new().body().len();
        for length in 0..body.len() {
            assert_eq!(parse(&body[..length]).is_some(), length == without_extensions, "{length}");
        }
    }
}
