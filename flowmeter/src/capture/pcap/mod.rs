//! How are capture files read?
//!
//! pcap and pcapng by `pcap-parser`, compressed or not, from files or standard input. The only
//! place that knows those crates. A file is a stream: nothing is read twice, nothing is kept.

pub mod filter;
pub mod flowcontainer;
pub mod link;
pub mod nfstream;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};
use thiserror::Error;

/// A frame of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Time of capture; ns since the epoch. Negative before it.
    pub time_ns: i64,
    /// The bytes captured.
    pub bytes: &'a [u8],
    /// Length on the wire; never less than what was captured.
    pub wire: u32,
    /// The link type (`LINKTYPE_`, tcpdump.org) of the frame's interface.
    pub link: i32,
}

/// Why a capture could not be read, or not to its end.
#[derive(Debug, Error)]
pub enum Error {
    /// The file could not be opened.
    #[error("failed to open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no capture.
    #[error("`{}` is neither pcap nor pcapng", path.display())]
    NotACapture {
        /// The file.
        path: PathBuf,
    },
    /// The file ends inside a record.
    #[error("`{}` is cut off inside a record at byte {offset}; what came before is metered", path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// Where the record starts; bytes from the file's start, uncompressed.
        offset: u64,
    },
    /// The file is damaged.
    #[error("`{}` is damaged at byte {offset}; what came before is metered", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged record starts; bytes from the file's start, uncompressed.
        offset: u64,
    },
    /// The file could not be read on.
    #[error("failed to read `{}` at byte {offset}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
}

/// A capture that is being read.
pub struct Capture {
    path: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    interfaces: Vec<Interface>,
    legacy: Legacy,
    /// Bytes of the capture that have been consumed, uncompressed.
    offset: u64,
}

/// What a classic pcap's header says.
#[derive(Clone, Copy, Debug, Default)]
struct Legacy {
    link: i32,
    nanoseconds: bool,
    /// Files before version 2.3 have the two lengths swapped.
    swapped: bool,
}

/// An interface of a pcapng section.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: i32,
    /// Units a second; 0 if the file says something impossible.
    resolution: u64,
    /// Seconds to add.
    offset: i64,
    snapshot: u32,
}

/// The reader's buffer, and the largest record that can be read.
const BUFFER: usize = 1 << 18;

impl Capture {
    /// Opens a capture; `-` is standard input. gzip and zstd are recognised by their first bytes.
    /// `counter` counts the bytes read, before decompression.
    pub fn open(path: &Path, counter: Arc<AtomicU64>) -> Result<Self, Error> {
        let input: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            let file = File::open(path);
            Box::new(file.map_err(|source| Error::Open { path: path.into(), source })?)
        };
        Self::from_input(path, Counted { input, counter })
    }

    /// A capture that comes from anywhere. Errors name `path`.
    pub fn from_input(path: &Path, mut input: impl Read + Send + 'static) -> Result<Self, Error> {
        let open = |source| Error::Open { path: path.into(), source };
        let head = head(&mut input).map_err(open)?;
        let magic: [u8; 4] = head.first_chunk().copied().unwrap_or_default();
        let whole = io::Cursor::new(head).chain(input);
        let mut input: Box<dyn Read + Send> = match magic {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
            [0x28, 0xb5, 0x2f, 0xfd] => {
                Box::new(zstd::stream::read::Decoder::new(whole).map_err(open)?)
            }
            _ => Box::new(whole),
        };
        // The reader looks at what its first read gives, however little that is.
        let start = self::head(&mut input).map_err(open)?;
        let reader = create_reader(BUFFER, io::Cursor::new(start).chain(input))
            .map_err(|_| Error::NotACapture { path: path.into() })?;
        Ok(Self {
            path: path.into(),
            reader,
            interfaces: Vec::new(),
            legacy: Legacy::default(),
            offset: 0,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes read, uncompressed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Hands the next frame to `see` and returns its answer; none at the end.
    pub fn next<R>(&mut self, see: impl FnOnce(Frame<'_>) -> R) -> Result<Option<R>, Error> {
        loop {
            let (size, found) = match self.reader.next() {
                Ok((size, block)) => (size, read(&block, &mut self.interfaces, &mut self.legacy)),
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => {
                    if self.reader.refill().is_err() {
                        return Err(failed(&PcapError::<()>::ReadError, &self.path, self.offset));
                    }
                    continue;
                }
                Err(e) => return Err(failed(&e, &self.path, self.offset)),
            };
            match found {
                Some(frame) => {
                    let answer = see(frame);
                    self.consume(size);
                    return Ok(Some(answer));
                }
                None => self.consume(size),
            }
        }
    }

    fn consume(&mut self, size: usize) {
        self.reader.consume_noshift(size);
        self.offset += size as u64;
    }
}

/// An input whose bytes are counted.
struct Counted {
    input: Box<dyn Read + Send>,
    counter: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(to)?;
        self.counter.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}

fn failed<I>(error: &PcapError<I>, path: &Path, offset: u64) -> Error {
    let path = path.to_owned();
    match error {
        PcapError::UnexpectedEof => Error::Cut { path, offset },
        PcapError::ReadError => Error::Read { path, offset },
        PcapError::HeaderNotRecognized => Error::NotACapture { path },
        _ => Error::Damaged { path, offset },
    }
}

/// The first bytes, enough for any file header.
fn head(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(4096);
    input.take(4096).read_to_end(&mut head)?;
    Ok(head)
}

/// The frame of a block, if it has one; notes what headers say.
fn read<'a>(
    block: &PcapBlockOwned<'a>,
    interfaces: &mut Vec<Interface>,
    legacy: &mut Legacy,
) -> Option<Frame<'a>> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            *legacy = Legacy {
                link: header.network.0 & 0x03ff_ffff,
                nanoseconds: header.is_nanosecond_precision(),
                swapped: header.version_major == 2 && header.version_minor < 3,
            };
            None
        }
        PcapBlockOwned::Legacy(record) => {
            let unit = if legacy.nanoseconds { 1 } else { 1000 };
            let mut fraction = i64::from(record.ts_usec.cast_signed()) * unit;
            if fraction < 0 {
                // Damage. NFStream has it as negative, in milliseconds towards zero; so it is here.
                fraction = fraction / 1_000_000 * 1_000_000;
            }
            let wire = if legacy.swapped { record.caplen } else { record.origlen };
            Some(Frame {
                time_ns: i64::from(record.ts_sec) * 1_000_000_000 + fraction,
                bytes: record.data,
                wire: wire.max(record.data.len() as u32),
                link: legacy.link,
            })
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            None
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(b)) => {
            interfaces.push(Interface {
                link: b.linktype.0,
                resolution: b.ts_resolution().unwrap_or(0),
                offset: b.ts_offset(),
                snapshot: b.snaplen,
            });
            None
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(b)) => {
            let interface = interfaces.get(b.if_id as usize)?;
            Some(Frame {
                time_ns: interface.time_ns(u64::from(b.ts_high) << 32 | u64::from(b.ts_low)),
                bytes: b.data.get(..b.caplen as usize)?,
                wire: b.origlen.max(b.caplen),
                link: interface.link,
            })
        }
        PcapBlockOwned::NG(Block::SimplePacket(b)) => {
            let interface = interfaces.first()?;
            let mut captured = b.origlen.min(b.data.len() as u32);
            if interface.snapshot != 0 {
                captured = captured.min(interface.snapshot);
            }
            Some(Frame {
                time_ns: 0,
                bytes: b.data.get(..captured as usize)?,
                wire: b.origlen,
                link: interface.link,
            })
        }
        PcapBlockOwned::NG(_) => None,
    }
}

impl Interface {
    /// A time stamp as ns since the epoch.
    fn time_ns(&self, units: u64) -> i64 {
        let resolution = self.resolution.max(1);
        let seconds = (units / resolution).cast_signed().saturating_add(self.offset);
        let fraction = u128::from(units % resolution) * 1_000_000_000 / u128::from(resolution);
        seconds.saturating_mul(1_000_000_000).saturating_add(fraction as i64)
    }
}
