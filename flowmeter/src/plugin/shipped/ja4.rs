//! Which TLS client speaks to which server, in NFStream's words?
//!
//! `NFStream` takes fields of a hello from where they would be, and of what is cut off what there is. It
//! gives other fingerprints than JA4's text wherever a hello is unusual, so the reader of
//! [`dissect`](crate::dissect) is of no use here.

use flowmeter_common::tcp::{ACK, SYN};
use hashbrown::HashMap;

use super::nfstream::{Unreadable, payload};
use crate::dissect::hello::{digest, hex, hex_list, is_grease};
use crate::fields::Added;
use crate::fields::columns::Kind;
use crate::flow::{Flow, Own};
use crate::plugin::{Packet, Plugin, Standing, column};

/// JA4 and JA4S of flows whose first packet is a SYN: `NFStream`'s plugin `JA4`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ja4;

/// What a hello says of who has sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// JA4 of a client, JA4S of a server.
    pub fingerprint: String,
    /// Its random bytes, in hexadecimal.
    pub random: String,
}

/// How far a flow is.
#[derive(Debug, Default)]
pub struct Seen {
    /// There is something to be looked for.
    is_open: bool,
    /// SYN and ACK were seen.
    is_answered: bool,
    /// And ACK.
    is_connected: bool,
    client: Option<String>,
    server: Option<String>,
}

const HANDSHAKE: u8 = 22;
const CLIENT: u8 = 1;
const SERVER: u8 = 2;

const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// Highest number that is counted.
const MOST: usize = 99;

impl Ja4 {
    /// The client's hello in a packet. None if it has none.
    pub fn client(ip: &[u8]) -> Result<Option<Hello>, Unreadable> {
        message(ip, CLIENT)?.map(client).transpose()
    }

    /// The server's hello in a packet. None if it has none. Of what is unreadable `NFStream` forgets
    /// the client's.
    pub fn server(ip: &[u8]) -> Result<Option<Hello>, Unreadable> {
        message(ip, SERVER)?.map(server).transpose()
    }
}

impl Seen {
    /// Looks at a packet that is not the flow's first.
    fn look(&mut self, packet: &Packet<'_>) {
        if !self.is_open {
            return;
        }
        let fingerprint = |hello: Option<Hello>| hello.map(|hello| hello.fingerprint);
        if self.client.is_none() {
            self.client = Ja4::client(packet.ip).map_or(None, fingerprint);
        } else {
            match Ja4::server(packet.ip) {
                Ok(hello) => self.server = fingerprint(hello),
                Err(Unreadable) => self.client = None,
            }
        }
        let has = |bit: u8| packet.headers.tcp_flags & bit != 0;
        if self.server.is_some() {
            self.is_open = false;
        } else if self.is_connected {
            self.is_open = self.client.is_some();
        } else if has(ACK) && has(SYN) {
            self.is_answered = true;
        } else if has(ACK) {
            self.is_connected = self.is_answered;
        }
    }
}

/// The message behind its type and length, if it is of this type.
fn message(ip: &[u8], wanted: u8) -> Result<Option<&[u8]>, Unreadable> {
    let Some(stream) = payload(ip)? else { return Ok(None) };
    let at = |place: usize| stream.get(place).copied().ok_or(Unreadable);
    if !stream.starts_with(&[HANDSHAKE, 3]) {
        return Ok(None);
    }
    let kind = at(5)?;
    if !matches!(kind, CLIENT | SERVER) || at(9)? != 3 || kind != wanted {
        return Ok(None);
    }
    stream.get(9..).map(Some).ok_or(Unreadable)
}

fn client(message: &[u8]) -> Result<Hello, Unreadable> {
    let mut rest = Rest(message);
    let mut version = version(rest.take(2))?;
    let random = hex(rest.take(32));
    rest.vector(1);
    let length = rest.length(2);
    if length == 0 {
        return Err(Unreadable);
    }
    let ciphers = numbers(rest.take(length))?;
    rest.vector(1);
    let extensions = extensions(rest.vector(2))?;

    let find = |kind| extensions.iter().find(|extension| extension.0 == kind);
    if let Some((_, content)) = find(SUPPORTED_VERSIONS) {
        let versions = without_grease(numbers(list(content, 1)?)?);
        version = self::version(&versions.iter().max().ok_or(Unreadable)?.to_be_bytes())?;
    }
    let name = if find(SERVER_NAME).is_some() { 'd' } else { 'i' };
    let alpn = find(ALPN).map_or(Ok("00".into()), |(_, content)| alpn(content))?;
    let algorithms = match find(SIGNATURE_ALGORITHMS) {
        Some((_, content)) => numbers(list(content, 2)?)?,
        None => Vec::new(),
    };

    let kinds: Vec<_> = extensions.iter().map(|(kind, _)| *kind).collect();
    let counts = [count(&ciphers), count(&kinds)];
    let mut ciphers = without_grease(ciphers);
    ciphers.sort_unstable();
    let mut kinds = without_grease(kinds);
    kinds.retain(|kind| ![SERVER_NAME, ALPN].contains(kind));
    kinds.sort_unstable();
    let mut tail = hex_list(&kinds);
    if !algorithms.is_empty() {
        tail = format!("{tail}_{}", hex_list(&without_grease(algorithms)));
    }
    let fingerprint = format!(
        "t{version}{name}{:02}{:02}{alpn}_{}_{}",
        counts[0],
        counts[1],
        digest(&ciphers, &hex_list(&ciphers)),
        digest(&kinds, &tail),
    );
    Ok(Hello { fingerprint, random })
}

fn server(message: &[u8]) -> Result<Hello, Unreadable> {
    let mut rest = Rest(message);
    let mut version = version(rest.take(2))?;
    let random = hex(rest.take(32));
    rest.vector(1);
    let cipher = hex(rest.take(2));
    rest.take(1);
    let extensions = extensions(rest.vector(2))?;

    let find = |kind| extensions.iter().find(|extension| extension.0 == kind);
    if let Some((_, content)) = find(SUPPORTED_VERSIONS) {
        version = self::version(content)?;
    }
    let alpn = find(ALPN).map_or(Ok("00".into()), |(_, content)| alpn(content))?;
    let kinds: Vec<_> = extensions.iter().map(|(kind, _)| *kind).collect();
    let (count, tail) = (count(&kinds), digest(&kinds, &hex_list(&kinds)));
    Ok(Hello { fingerprint: format!("t{version}{count:02}{alpn}_{cipher}_{tail}"), random })
}

/// Bytes of which some may be missing: what is not there is not read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A length of some bytes; 0 without any.
    fn length(&mut self, bytes: usize) -> usize {
        self.take(bytes).iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
    }

    /// What is behind its length.
    fn vector(&mut self, bytes: usize) -> &'a [u8] {
        let length = self.length(bytes);
        self.take(length)
    }
}

/// TLS 1.2 is 12 and so on: 3.3 with 2 and 1 subtracted. A server may write any number behind the first
/// byte; one of more than 15 bytes, which `NFStream` reads too, is unreadable here.
fn version(bytes: &[u8]) -> Result<String, Unreadable> {
    /// Bytes of a number of 127 bits.
    const LONGEST: usize = 15;
    let (major, minor) = bytes.split_first().ok_or(Unreadable)?;
    if minor.is_empty() || minor.len() > LONGEST {
        return Err(Unreadable);
    }
    let minor = minor.iter().fold(0_i128, |number, byte| number << 8 | i128::from(*byte));
    Ok(format!("{}{}", i16::from(*major) - 2, minor - 1))
}

/// Types and contents in order: of a type that is there twice the first place and the last content.
fn extensions(bytes: &[u8]) -> Result<Vec<(u16, &[u8])>, Unreadable> {
    let mut extensions: Vec<(u16, &[u8])> = Vec::new();
    let mut places = HashMap::new();
    let mut rest = Rest(bytes);
    while !rest.0.is_empty() {
        let kind = rest.take(2).first_chunk().map(|kind| u16::from_be_bytes(*kind));
        let (Some(kind), false) = (kind, rest.0.is_empty()) else { return Err(Unreadable) };
        let content = rest.vector(2);
        let place = *places.entry(kind).or_insert(extensions.len());
        match extensions.get_mut(place) {
            Some(extension) => extension.1 = content,
            None => extensions.push((kind, content)),
        }
    }
    Ok(extensions)
}

/// What is behind its length, if it has that length.
fn list(content: &[u8], bytes: usize) -> Result<&[u8], Unreadable> {
    if content.is_empty() {
        return Err(Unreadable);
    }
    let mut rest = Rest(content);
    let length = rest.length(bytes);
    if rest.0.len() == length { Ok(rest.0) } else { Err(Unreadable) }
}

fn numbers(bytes: &[u8]) -> Result<Vec<u16>, Unreadable> {
    let (pairs, left) = bytes.as_chunks();
    if !left.is_empty() {
        return Err(Unreadable);
    }
    Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}

/// How many there are without GREASE (RFC 8701).
fn count(numbers: &[u16]) -> usize {
    numbers.iter().filter(|number| !is_grease(**number)).count().min(MOST)
}

/// What `NFStream` leaves without GREASE: it passes over what follows a value that it takes out.
fn without_grease(mut numbers: Vec<u16>) -> Vec<u16> {
    let mut is_taken_out = false;
    numbers.retain(|number| {
        is_taken_out = !is_taken_out && is_grease(*number);
        !is_taken_out
    });
    numbers
}

/// The first and the last letter of the first protocol's name, in lower case.
fn alpn(content: &[u8]) -> Result<String, Unreadable> {
    let mut rest = Rest(list(content, 2)?);
    if rest.0.is_empty() {
        return Ok("00".into());
    }
    let name = str::from_utf8(rest.vector(1)).map_err(|_| Unreadable)?;
    let mut letters = name.chars();
    let first = letters.next().ok_or(Unreadable)?;
    let ends = [first, letters.next_back().unwrap_or(first)];
    Ok(String::from_iter(ends).to_lowercase())
}

impl Plugin for Ja4 {
    type State = Box<Seen>;

    fn columns(&self) -> Vec<Added> {
        vec![
            column("ja4", Kind::Text, "", "JA4 of the client, as NFStream has it"),
            column("ja4s", Kind::Text, "", "JA4S of the server, as NFStream has it"),
        ]
    }

    fn on_init(&mut self, packet: &Packet<'_>, _: &mut Standing<'_>) -> Box<Seen> {
        let is_open = packet.headers.tcp_flags & (SYN | ACK) == SYN;
        Box::new(Seen { is_open, ..Seen::default() })
    }

    fn on_update(&mut self, seen: &mut Box<Seen>, packet: &Packet<'_>, _: &mut Standing<'_>) {
        seen.look(packet);
    }

    fn on_expire(&mut self, seen: Box<Seen>, _: &mut Flow, values: &mut Vec<Own>) {
        values.extend([seen.client, seen.server].map(|text| text.map_or(Own::Null, Own::Text)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Ja4, Unreadable, server, version, without_grease};

    /// An IPv4 packet with a segment of TCP that has this payload.
    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6];
        packet.resize(40, 0);
        packet[32] = 0x50;
        packet.extend(payload);
        packet
    }

    /// A message in a record, with such extensions.
    fn message(kind: u8, before: &[u8], extensions: &[u8]) -> Vec<u8> {
        let mut message = vec![22, 3, 1, 0, 0, kind, 0, 0, 0, 3, 3];
        message.extend([0x5a; 32]);
        message.extend(before);
        message.extend((extensions.len() as u16).to_be_bytes());
        message.extend(extensions);
        packet(&message)
    }

    #[test]
    fn hellos_are_read_from_one_packet() {
        let ciphers = b"\0\0\x06\x0a\x0a\x13\x01\xc0\x2f\x01\0";
        let names = b"\0\0\0\0\0\x10\0\x05\0\x03\x02H2\0\x2b\0\x03\x02\x03\x04";
        let packet = message(1, ciphers, names);
        let hello = Ja4::client(&packet).expect("it can be read").expect("it is a client's");
        assert_eq!(hello.fingerprint, "t13d0203h2_c1929292aa6b_b9a491fefe05");
        assert_eq!(hello.random, "5a".repeat(32));
        assert_eq!(Ja4::server(&packet), Ok(None));
        assert_eq!(Ja4::client(&packet[..packet.len() - 3]), Err(Unreadable));

        let packet = message(2, b"\0\x13\x01\0", b"\0\x17\0\0\0\x05\0\0\0\x17\0\0");
        let hello = Ja4::server(&packet).expect("it can be read").expect("it is a server's");
        assert_eq!(hello.fingerprint, "t120200_1301_2a3a19e116dd");
        assert_eq!(Ja4::client(&packet), Ok(None));
        let cut = server(&packet[49..84]).expect("there is enough of it");
        assert_eq!(cut.fingerprint, "t120000__000000000000");
    }

    #[test]
    fn grease_behind_grease_stays() {
        assert_eq!(without_grease(vec![0x0a0a, 0x1a1a, 0x2a2a, 5]), [0x1a1a, 5]);
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version(&[3, 4]), Ok("13".into()));
        assert_eq!(version(&[3, 0]), Ok("1-1".into()));
        assert_eq!(version(&[0xfe, 0xfd]), Ok("252252".into()));
        assert_eq!(version(&[3]), Err(Unreadable));
        assert!(version(&[255; 16]).is_ok());
        assert_eq!(version(&[255; 17]), Err(Unreadable));
    }

    proptest! {
        #[test]
        fn no_packet_is_a_fault(
            bytes in prop::collection::vec(
                prop_oneof![any::<u8>(), Just(0_u8), Just(1), Just(2), Just(3)], 0..300,
            ),
        ) {
            for packet in [bytes.clone(), message(1, &bytes, &bytes), message(2, &bytes, &bytes)] {
                let _ = (Ja4::client(&packet), Ja4::server(&packet));
            }
        }
    }
}
