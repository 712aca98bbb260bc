//! What does the dissector answer to a batch?
//!
//! A verdict for each flow that ended, in the order of their ends; the flows that are settled; and
//! counts. On its way from another process none of it is trusted: it must fit the batch it
//! answers, and texts that are not UTF-8 are mended.

use std::borrow::Cow;

use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

use super::batch::Batch;
use super::details::{self, Details, MAX_ADDRESSES};
use super::flow::MAX_ALPN;
use super::{Fingerprints, Layer7};

/// What came of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Of the flows that ended, in order; none for those without a packet.
    pub verdicts: Vec<Option<Layer7>>,
    /// Flows whose further packets change nothing.
    pub settled: Vec<u64>,
    /// What became of the packets.
    pub counts: Counts,
}

/// What became of the packets of a batch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Counts {
    /// Packets nDPI looked at, or no longer needed to.
    pub inspected: u64,
    /// Packets with headers that lie about their length.
    pub refused: u64,
    /// Packets of flows that found no room.
    pub crowded: u64,
    /// Flows under dissection after the batch.
    pub flows: u64,
}

impl Counts {
    /// Adds a later batch's.
    pub fn add(&mut self, later: &Self) {
        self.inspected += later.inspected;
        self.refused += later.refused;
        self.crowded += later.crowded;
        self.flows = later.flows;
    }
}

/// What stands before an answer.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    counts: Counts,
    verdicts: u32,
    settled: u32,
    text_bytes: u32,
    reserved: u32,
}

/// A verdict without its texts, which stand behind all verdicts.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fixed {
    lengths: [u16; TEXTS + DETAILS],
    risk_score: u16,
    http_status: u16,
    is_known: u8,
    is_guessed: u8,
    confidence: u8,
    /// [`Fingerprints`] by its place in [`KINDS`].
    fingerprints: u8,
    has_details: u8,
    reserved: u8,
}

const _: () = assert!(size_of::<Header>() == 48 && size_of::<Fixed>() == 56);

/// Texts of a verdict.
const TEXTS: usize = 10;
/// Texts of its details.
const DETAILS: usize = 13;

/// Kinds of fingerprints.
const KINDS: [Fingerprints; 4] =
    [Fingerprints::None, Fingerprints::Tls, Fingerprints::Ssh, Fingerprints::Dhcp];

/// At most this many bytes of a verdict's texts: the room they have in C, three bytes per character
/// that had to be replaced; and ours.
const MAX_TEXT: usize =
    3 * (128 + 64 + 256 + 64 + 64 + 512 + 128) + 64 + 64 + MAX_ALPN + MAX_DETAILS;
/// Of these, the details': nDPI's names of up to 64 risks, two names of 512 bytes in C, our texts.
const MAX_DETAILS: usize = 64 * 256 + 2 * 3 * 512 + DETAILS * details::MAX_TEXT;

/// An answer that does not fit its batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Misfit;

impl Answer {
    /// Appends it as it goes to another process.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + size_of::<Header>(), 0);
        for flow in &self.settled {
            out.extend_from_slice(&flow.to_ne_bytes());
        }
        for verdict in &self.verdicts {
            let fixed = verdict.as_ref().map_or_else(Fixed::default, |layer7| Fixed {
                lengths: lengths(layer7),
                risk_score: layer7.details.as_ref().map_or(0, |details| details.risk_score),
                http_status: layer7.details.as_ref().map_or(0, |details| details.http_status),
                has_details: layer7.details.is_some().into(),
                is_known: 1,
                reserved: 0,
                is_guessed: layer7.application_is_guessed.into(),
                confidence: layer7.application_confidence,
                fingerprints: KINDS
                    .iter()
                    .position(|kind| *kind == layer7.fingerprints)
                    .unwrap_or(0) as u8,
            });
            out.extend_from_slice(fixed.as_bytes());
        }
        let before = out.len();
        for layer7 in self.verdicts.iter().flatten() {
            out.extend(texts(layer7).iter().flat_map(|text| text.bytes()));
            if let Some(details) = &layer7.details {
                out.extend(detailed(details).iter().flat_map(|text| text.bytes()));
            }
        }
        let header = Header {
            counts: self.counts,
            verdicts: self.verdicts.len() as u32,
            settled: self.settled.len() as u32,
            text_bytes: (out.len() - before) as u32,
            reserved: 0,
        };
        out[start..start + size_of::<Header>()].copy_from_slice(header.as_bytes());
    }

    /// Reads what follows a header that was found to fit.
    pub fn decode(header: &Header, body: &[u8]) -> Result<Self, Misfit> {
        let settled_bytes = header.settled as usize * size_of::<u64>();
        let (settled, rest) = body.split_at_checked(settled_bytes).ok_or(Misfit)?;
        let (fixed, mut rest) =
            rest.split_at_checked(header.verdicts as usize * size_of::<Fixed>()).ok_or(Misfit)?;
        let mut verdicts = Vec::with_capacity(header.verdicts as usize);
        for bytes in fixed.chunks_exact(size_of::<Fixed>()) {
            let mut fixed = Fixed::new_zeroed();
            fixed.as_mut_bytes().copy_from_slice(bytes);
            verdicts.push(if fixed.is_known == 0 { None } else { Some(fixed.take(&mut rest)?) });
        }
        if !rest.is_empty() {
            return Err(Misfit);
        }
        let (settled, _) = settled.as_chunks::<8>();
        let settled = settled.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect();
        Ok(Self { verdicts, settled, counts: header.counts })
    }
}

impl Header {
    /// Bytes that follow it; an error if it cannot be the answer to this batch.
    pub fn body(&self, batch: &Batch) -> Result<usize, Misfit> {
        let (verdicts, settled) = (self.verdicts as usize, self.settled as usize);
        let text = self.text_bytes as usize;
        let counts = &self.counts;
        let counted = [counts.inspected, counts.refused, counts.crowded]
            .into_iter()
            .try_fold(0_u64, u64::checked_add);
        let fits = verdicts == batch.finished().count()
            && settled <= batch.messages.len()
            && text <= verdicts * MAX_TEXT
            && counted == Some(batch.packets());
        if !fits {
            return Err(Misfit);
        }
        Ok(settled * size_of::<u64>() + verdicts * size_of::<Fixed>() + text)
    }
}

impl Fixed {
    fn take(&self, texts: &mut &[u8]) -> Result<Layer7, Misfit> {
        let mut next = |number: usize| {
            let length = usize::from(self.lengths[number]);
            let (text, rest) = texts.split_at_checked(length).ok_or(Misfit)?;
            *texts = rest;
            Ok(String::from_utf8_lossy(text).into_owned())
        };
        let mut layer7 = Layer7 {
            application_name: next(0)?,
            application_category_name: next(1)?,
            requested_server_name: next(2)?,
            client_fingerprint: next(3)?,
            server_fingerprint: next(4)?,
            user_agent: next(5)?,
            content_type: next(6)?,
            ja4: next(7)?,
            ja3: next(8)?,
            alpn: next(9)?,
            fingerprints: KINDS.get(usize::from(self.fingerprints)).copied().unwrap_or_default(),
            application_is_guessed: self.is_guessed != 0,
            application_confidence: self.confidence,
            details: None,
        };
        if self.has_details != 0 {
            layer7.details = Some(Box::new(Details {
                risks: split(&next(TEXTS)?, u64::BITS as usize),
                tls_version: next(TEXTS + 1)?,
                tls_cipher: next(TEXTS + 2)?,
                tls_issuer_cn: next(TEXTS + 3)?,
                tls_subject_cn: next(TEXTS + 4)?,
                dns_query: next(TEXTS + 5)?,
                dns_query_type: next(TEXTS + 6)?,
                dns_rcode: next(TEXTS + 7)?,
                dns_addresses: split(&next(TEXTS + 8)?, MAX_ADDRESSES),
                http_method: next(TEXTS + 9)?,
                http_url: next(TEXTS + 10)?,
                ssh_client_banner: next(TEXTS + 11)?,
                ssh_server_banner: next(TEXTS + 12)?,
                risk_score: self.risk_score,
                http_status: self.http_status,
            }));
        }
        Ok(layer7)
    }
}

fn lengths(layer7: &Layer7) -> [u16; TEXTS + DETAILS] {
    let mut lengths = [0; TEXTS + DETAILS];
    let (own, more) = lengths.split_at_mut(TEXTS);
    own.copy_from_slice(&texts(layer7).map(|text| text.len() as u16));
    if let Some(details) = &layer7.details {
        more.copy_from_slice(&detailed(details).map(|text| text.len() as u16));
    }
    lengths
}

/// The texts of details, in the order they are sent. Lists have a line for each.
fn detailed(details: &Details) -> [Cow<'_, str>; DETAILS] {
    [
        details.risks.join("\n").into(),
        (&details.tls_version).into(),
        (&details.tls_cipher).into(),
        (&details.tls_issuer_cn).into(),
        (&details.tls_subject_cn).into(),
        (&details.dns_query).into(),
        (&details.dns_query_type).into(),
        (&details.dns_rcode).into(),
        details.dns_addresses.join("\n").into(),
        (&details.http_method).into(),
        (&details.http_url).into(),
        (&details.ssh_client_banner).into(),
        (&details.ssh_server_banner).into(),
    ]
}

fn split(lines: &str, most: usize) -> Vec<String> {
    lines.lines().take(most).map(str::to_owned).collect()
}

/// The texts of a verdict, in the order they are sent.
fn texts(layer7: &Layer7) -> [&str; TEXTS] {
    [
        &layer7.application_name,
        &layer7.application_category_name,
        &layer7.requested_server_name,
        &layer7.client_fingerprint,
        &layer7.server_fingerprint,
        &layer7.user_agent,
        &layer7.content_type,
        &layer7.ja4,
        &layer7.ja3,
        &layer7.alpn,
    ]
}

#[cfg(test)]
mod tests {
    use zerocopy::FromBytes as _;

    use super::{Answer, Counts, Header, Misfit};
    use crate::dissect::batch::Batch;
    use crate::dissect::{Details, Fingerprints, Layer7};

    fn answered() -> (Batch, Answer) {
        let mut batch = Batch::default();
        batch.packet(7, 0, 1, 1, b"packet");
        batch.finish(7);
        batch.finish(8);
        let layer7 = Layer7 {
            application_name: "TLS".into(),
            content_type: "text/html".into(),
            alpn: "h2,http/1.1".into(),
            fingerprints: Fingerprints::Tls,
            application_is_guessed: true,
            application_confidence: 6,
            details: Some(Box::new(Details {
                risks: vec!["Obsolete TLS".into(), "Weak cipher".into()],
                risk_score: 150,
                tls_version: "TLSv1.0".into(),
                dns_addresses: vec!["192.0.2.1".into(), "2001:db8::1".into()],
                http_status: 404,
                ssh_server_banner: "SSH-2.0-x".into(),
                ..Details::default()
            })),
            ..Layer7::default()
        };
        let counts = Counts { inspected: 1, ..Counts::default() };
        (batch, Answer { verdicts: vec![Some(layer7), None], settled: vec![7], counts })
    }

    fn decode(batch: &Batch, bytes: &[u8]) -> Result<Answer, Misfit> {
        let (header, body) = Header::read_from_prefix(bytes).map_err(|_| Misfit)?;
        let length = header.body(batch)?;
        Answer::decode(&header, body.get(..length).ok_or(Misfit)?)
    }

    #[test]
    fn what_is_sent_arrives() {
        let (batch, answer) = answered();
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        assert_eq!(decode(&batch, &bytes), Ok(answer));
    }

    #[test]
    fn an_answer_to_another_batch_does_not_fit() {
        let (mut batch, answer) = answered();
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        batch.finish(9);
        assert_eq!(decode(&batch, &bytes), Err(Misfit));
    }

    /// Whatever bytes come, they are read or refused.
    #[test]
    fn changed_bytes_do_no_harm() {
        let (batch, answer) = answered();
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        let mut refused = 0;
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                refused += usize::from(decode(&batch, &changed).is_err());
            }
            refused += usize::from(decode(&batch, &bytes[..at]).is_err());
        }
        assert!(refused > bytes.len(), "every cut is refused, and some changes");
    }
}
