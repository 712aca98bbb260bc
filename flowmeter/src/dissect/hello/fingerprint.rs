//! Which client says hello like this?
//!
//! JA4 and JA3 by their specifications:
//! <https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md>,
//! <https://github.com/salesforce/ja3>.

use std::fmt::Write as _;

use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::client_hello::{Carrier, ClientHello, extension};

/// What a client's hello says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// What carried the hello.
    pub carrier: Carrier,
    /// As `t13d1516h2_8daaf6152771_e5627efa2ab1`.
    pub ja4: String,
    /// 32 hexadecimal digits.
    pub ja3: String,
    /// The name of the host asked for, as it was sent, except for what is not UTF-8 or past
    /// [`MAX_TEXT`].
    pub sni: Option<String>,
    /// The application protocols offered, in order of preference, with commas between. Those past
    /// [`MAX_TEXT`] are left out; what is not ASCII is escaped, and so is a comma.
    pub alpn: String,
}

/// At most this many bytes of a text. Names of hosts have up to 253.
const MAX_TEXT: usize = 255;

impl Fingerprint {
    pub(super) fn of(hello: &ClientHello) -> Self {
        Self {
            carrier: hello.carrier,
            ja4: ja4(hello),
            ja3: ja3(hello),
            sni: hello.server_name.filter(|name| !name.is_empty()).map(name),
            alpn: protocols(&hello.alpn),
        }
    }
}

fn name(bytes: &[u8]) -> String {
    let mut name = String::from_utf8_lossy(bytes).into_owned();
    name.truncate(name.floor_char_boundary(MAX_TEXT));
    name
}

fn protocols(protocols: &[&[u8]]) -> String {
    let mut text = String::new();
    for protocol in protocols {
        let escaped = protocol.escape_ascii().to_string().replace(',', "\\x2c");
        let comma = if text.is_empty() { "" } else { "," };
        if text.len() + comma.len() + escaped.len() > MAX_TEXT {
            break;
        }
        text += comma;
        text += &escaped;
    }
    text
}

fn ja4(hello: &ClientHello) -> String {
    let carrier = match hello.carrier {
        Carrier::Tcp => 't',
        Carrier::Dtls => 'd',
        Carrier::Quic => 'q',
    };
    // The specification asks for the highest value. Of DTLS that is the oldest version.
    let version = hello.supported_versions.iter().max().unwrap_or(&hello.version);
    let has_name = hello.extensions.contains(&extension::SERVER_NAME);
    let (first, last) = ends(hello.alpn.first().copied().unwrap_or_default());

    let mut ciphers = hello.ciphers.clone();
    ciphers.sort_unstable();
    let mut extensions = hello.extensions.clone();
    extensions.retain(|kind| ![extension::SERVER_NAME, extension::ALPN].contains(kind));
    extensions.sort_unstable();
    let mut tail = hex_list(&extensions);
    if !hello.signature_algorithms.is_empty() {
        tail.push('_');
        tail.push_str(&hex_list(&hello.signature_algorithms));
    }
    format!(
        "{carrier}{}{}{:02}{:02}{first}{last}_{}_{}",
        version_code(*version),
        if has_name { 'd' } else { 'i' },
        hello.ciphers.len().min(99),
        hello.extensions.len().min(99),
        digest(&ciphers, &hex_list(&ciphers)),
        digest(&extensions, &tail),
    )
}

fn version_code(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        0xfeff => "d1",
        0xfefd => "d2",
        0xfefc => "d3",
        _ => "00",
    }
}

/// The first and the last character of a protocol's name, or of its bytes in hexadecimal.
fn ends(protocol: &[u8]) -> (char, char) {
    let (Some(&first), Some(&last)) = (protocol.first(), protocol.last()) else {
        return ('0', '0');
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return (first.into(), last.into());
    }
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    (digit(first >> 4), digit(last & 0x0f))
}

pub(crate) fn hex_list(numbers: &[u16]) -> String {
    let mut text = String::with_capacity(numbers.len() * 5);
    for (index, number) in numbers.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{number:04x}");
    }
    text
}

/// Twelve digits of the text's SHA-256; zeros if there is nothing in the list it is of.
pub(crate) fn digest(list: &[u16], text: &str) -> String {
    if list.is_empty() {
        return "000000000000".into();
    }
    hex(&Sha256::digest(text)[..6])
}

fn ja3(hello: &ClientHello) -> String {
    let text = format!(
        "{},{},{},{},{}",
        hello.version,
        decimal_list(&hello.ciphers),
        decimal_list(&hello.extensions),
        decimal_list(&hello.groups),
        decimal_list(hello.point_formats),
    );
    hex(&Md5::digest(text))
}

fn decimal_list<N: ToString>(numbers: &[N]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join("-")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::{Carrier, ClientHello, Fingerprint, ends};
    use crate::dissect::hello::samples::{Builder, specified};

    fn fingerprint(carrier: Carrier, body: &[u8]) -> Fingerprint {
        Fingerprint::of(&ClientHello::parse(carrier, body).expect("it is whole"))
    }

    fn ja4(builder: &Builder) -> String {
        fingerprint(Carrier::Tcp, &builder.body()).ja4
    }

    #[test]
    fn the_specification_s_example() {
        let got = fingerprint(Carrier::Tcp, &specified().body());
        assert_eq!(got.ja4, "t13d1516h2_8daaf6152771_e5627efa2ab1");
        assert_eq!(got.sni.as_deref(), Some("example.org"));
        assert_eq!(got.alpn, "h2,http/1.1");
        assert_eq!(fingerprint(Carrier::Quic, &specified().body()).ja4[..3], *"q13");
    }

    /// Its second hash: there are no signature algorithms.
    #[test]
    fn without_signature_algorithms_there_is_no_underscore() {
        let mut builder = specified();
        builder.set(13, &[]);
        assert_eq!(ja4(&builder), "t13d1516h2_8daaf6152771_6d807ffa2a79");
    }

    #[test]
    fn the_specification_s_protocols() {
        let ends = |name: &[u8]| {
            let (first, last) = ends(name);
            format!("{first}{last}")
        };
        assert_eq!(ends(b""), "00");
        assert_eq!(ends(b"h2"), "h2");
        assert_eq!(ends(b"http/1.1"), "h1");
        assert_eq!(ends(b"x"), "xx");
        assert_eq!(ends(&[0xab]), "ab");
        assert_eq!(ends(&[0x20]), "20");
        assert_eq!(ends(&[0xab, 0xcd]), "ad");
        assert_eq!(ends(&[0x20, 0x61]), "21");
        assert_eq!(ends(&[0x30, 0xab]), "3b");
        assert_eq!(ends(&[0x61, 0x20]), "60");
        assert_eq!(ends(&[0x30, 0x31, 0xab, 0xcd]), "3d");
        assert_eq!(ends(&[0x30, 0xab, 0xcd, 0x31]), "01");
    }

    /// It is the extension that counts, whatever is in it.
    #[test]
    fn an_address_for_a_name_is_a_name() {
        for name in [&b"example.org"[..], b"192.0.2.1", b""] {
            let with_name = Builder::new().server_name(name);
            assert_eq!(ja4(&with_name), "t12d000100_000000000000_000000000000");
        }
    }

    #[test]
    fn texts_are_bounded_and_printable() {
        let long = [b'a'; 250];
        let hello = |name: &[u8], list: &[u8]| {
            let list = [&(list.len() as u16).to_be_bytes(), list].concat();
            let body = Builder::new().server_name(name).extension(16, &list).body();
            fingerprint(Carrier::Tcp, &body)
        };
        let got = hello("\u{e9}".repeat(125).as_bytes(), b"\x04\xab,\n ");
        assert_eq!(got.sni.map(|name| name.len()), Some(250));
        assert_eq!(got.alpn, "\\xab\\x2c\\n ");
        let got = hello(&[0xff; 250], &[&[250], &long[..], &[2, b'h', b'2', 5], b"spdy1"].concat());
        assert_eq!(got.sni.map(|name| name.len()), Some(255), "three bytes for each");
        assert_eq!(got.alpn.len(), 253);
    }

    #[test]
    fn nothing_hashes_to_zeros() {
        assert_eq!(ja4(&Builder::new()), "t12i000000_000000000000_000000000000");
    }

    #[test]
    fn counts_end_at_99() {
        let ciphers: Vec<u16> = (1..=120).collect();
        let mut builder = Builder::new().ciphers(&ciphers);
        for kind in 100..220 {
            builder = builder.extension(kind, &[]);
        }
        assert_eq!(ja4(&builder)[..10], *"t12i999900");
    }

    #[test]
    fn versions_have_their_codes() {
        let with = |carrier, version: u16, supported: &[u16]| {
            let mut builder = Builder::new().version(version);
            if !supported.is_empty() {
                let list: Vec<u8> = supported.iter().flat_map(|v| v.to_be_bytes()).collect();
                builder = builder.extension(43, &[&[list.len() as u8], &list[..]].concat());
            }
            if carrier == Carrier::Dtls {
                builder = builder.cookie(b"cookie");
            }
            fingerprint(carrier, &builder.body()).ja4[..3].to_owned()
        };
        assert_eq!(with(Carrier::Tcp, 0x0303, &[]), "t12");
        assert_eq!(with(Carrier::Tcp, 0x0303, &[0x0303, 0x0304, 0x0302]), "t13");
        assert_eq!(with(Carrier::Tcp, 0x0303, &[0x1a1a, 0x0302]), "t11");
        assert_eq!(with(Carrier::Tcp, 0x0301, &[]), "t10");
        assert_eq!(with(Carrier::Tcp, 0x0300, &[]), "ts3");
        assert_eq!(with(Carrier::Tcp, 0x7f12, &[]), "t00");
        assert_eq!(with(Carrier::Dtls, 0xfeff, &[]), "dd1");
        assert_eq!(with(Carrier::Dtls, 0xfefd, &[]), "dd2");
        assert_eq!(with(Carrier::Dtls, 0xfefd, &[0xfefc]), "dd3");
        assert_eq!(with(Carrier::Dtls, 0xfefd, &[0xfefc, 0xfefd]), "dd2");
    }

    /// An example of Salesforce's: `769,4-5-10-9-100-98-3-6-19-18-99,,,`.
    #[test]
    fn ja3_s_example() {
        let ciphers = [4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99];
        let body = Builder::new().version(0x0301).ciphers(&ciphers).body();
        assert_eq!(fingerprint(Carrier::Tcp, &body).ja3, "de350869b8c85de67a350c8d186f11e6");
    }
}
