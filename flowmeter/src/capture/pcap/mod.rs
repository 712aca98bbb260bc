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
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
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
#[non_exhaustive]
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
        /// Where; bytes from the file's start, uncompressed.
        offset: u64,
        /// Why, if that was said.
        source: Option<io::Error>,
    },
}

/// A capture that is being read.
pub struct Capture {
    path: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    interfaces: Vec<Interface>,
    legacy: Legacy,
    is_pcapng: bool,
    /// Whether the section of a pcapng file has its numbers in network order.
    is_big_endian: bool,
    /// Bytes of the reader's buffer.
    room: usize,
    /// Bytes of the capture that have been consumed, uncompressed.
    offset: u64,
    fault: Fault,
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

/// How a section of a pcapng file starts, in either byte order.
const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Types of pcapng blocks that are read.
mod block {
    pub const INTERFACE: u32 = 1;
    /// Has no name any more.
    pub const OBSOLETE_PACKET: u32 = 2;
    pub const SIMPLE: u32 = 3;
    pub const ENHANCED: u32 = 6;
}

/// The reader's buffer, and how large a record may make it.
const BUFFER: usize = 1 << 18;
const LARGEST: usize = 1 << 26;

impl Capture {
    /// Opens a capture; `-` is standard input, which ends when the run is to end. gzip and zstd are
    /// recognised by their first bytes. `counter` counts the bytes read, before decompression.
    pub fn open(
        path: &Path,
        counter: Arc<AtomicU64>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let input: Box<dyn Read + Send> = if path == Path::new("-") {
            // Past std's own buffer, which `poll` does not know of.
            let stdin = io::stdin().as_fd().try_clone_to_owned();
            let stdin = stdin.map_err(|source| Error::Open { path: path.into(), source })?;
            Box::new(Stdin { file: stdin.into(), stop: Arc::clone(stop) })
        } else {
            let file = File::open(path);
            Box::new(file.map_err(|source| Error::Open { path: path.into(), source })?)
        };
        Self::from_input(path, Counted { input, counter })
    }

    /// A capture that comes from anywhere. Errors name `path`.
    pub fn from_input(path: &Path, mut input: impl Read + Send + 'static) -> Result<Self, Error> {
        let open = |source| Error::Open { path: path.into(), source };
        let head = at_most(&mut input, 4).map_err(open)?;
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
        let start = header(&mut input).map_err(|e| Error::Read {
            path: path.into(),
            offset: 0,
            source: Some(e),
        })?;
        let is_pcapng = start.starts_with(&SECTION);
        let fault = Fault::default();
        let input = Watched { input, fault: Arc::clone(&fault) };
        let reader = create_reader(BUFFER, io::Cursor::new(start).chain(input))
            .map_err(|e| failed(&e, path, 0, &fault))?;
        Ok(Self {
            path: path.into(),
            reader,
            interfaces: Vec::new(),
            legacy: Legacy::default(),
            is_pcapng,
            is_big_endian: false,
            room: BUFFER,
            offset: 0,
            fault,
        })
    }

    /// Bytes read, uncompressed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the next frame has to be waited for, as all that has come was handed out.
    pub fn is_drained(&self) -> bool {
        const RECORD_HEADER: usize = 16;
        self.reader.data().len() < RECORD_HEADER
    }

    /// Hands the next frame to `see` and returns its answer; none at the end.
    pub fn next<R>(&mut self, see: impl FnOnce(Frame<'_>) -> R) -> Result<Option<R>, Error> {
        loop {
            if self.is_pcapng && self.pass_over()? {
                continue;
            }
            let (size, found) = match self.reader.next() {
                Ok((size, PcapBlockOwned::NG(Block::Unknown(block)))) => {
                    (size, obsolete(block.data, &self.interfaces, self.is_big_endian))
                }
                Ok((_, block)) if is_of_no_interface(&block, self.interfaces.len()) => {
                    return Err(Error::Damaged { path: self.path.clone(), offset: self.offset });
                }
                Ok((size, block)) => (size, read(&block, &mut self.interfaces, &mut self.legacy)),
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => {
                    self.refill()?;
                    continue;
                }
                Err(PcapError::BufferTooSmall) if self.room < LARGEST => {
                    self.room *= 2;
                    self.reader.grow(self.room);
                    continue;
                }
                Err(e) => return Err(failed(&e, &self.path, self.offset, &self.fault)),
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

    /// Steps over a pcapng block that has neither a frame nor an interface. Such blocks may be
    /// larger than the buffer, and what is not read cannot do harm.
    fn pass_over(&mut self) -> Result<bool, Error> {
        let head = loop {
            if let Some(head) = self.reader.data().first_chunk::<12>() {
                break *head;
            }
            let before = self.reader.data().len();
            self.refill()?;
            match self.reader.data().len() {
                0 => return Ok(false), // the end, which the reader tells
                here if here == before => return Err(self.cut()),
                _ => {}
            }
        };
        let [t0, t1, t2, t3, l0, l1, l2, l3, order @ ..] = head;
        if [t0, t1, t2, t3] == SECTION {
            self.is_big_endian = order == [0x1a, 0x2b, 0x3c, 0x4d];
            return Ok(false);
        }
        let word = if self.is_big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        if matches!(
            word([t0, t1, t2, t3]),
            block::INTERFACE | block::OBSOLETE_PACKET | block::SIMPLE | block::ENHANCED
        ) {
            return Ok(false);
        }
        let length = word([l0, l1, l2, l3]);
        if length < 12 {
            return Err(Error::Damaged { path: self.path.clone(), offset: self.offset });
        }
        let mut left = (length as usize).next_multiple_of(4);
        loop {
            let here = self.reader.data().len().min(left);
            self.reader.consume_noshift(here);
            left -= here;
            if left == 0 {
                self.offset += u64::from(length).next_multiple_of(4);
                return Ok(true);
            }
            self.refill()?;
            if self.reader.data().is_empty() {
                return Err(self.cut());
            }
        }
    }

    fn refill(&mut self) -> Result<(), Error> {
        self.reader.refill().map_err(|e| failed(&e, &self.path, self.offset, &self.fault))
    }

    fn cut(&self) -> Error {
        Error::Cut { path: self.path.clone(), offset: self.offset }
    }

    fn consume(&mut self, size: usize) {
        self.reader.consume_noshift(size);
        self.offset += size as u64;
    }
}

/// Why an input could not be read on. The parser says only that it could not.
type Fault = Arc<Mutex<Option<io::Error>>>;

/// An input that notes why it cannot be read on.
struct Watched {
    input: Box<dyn Read + Send>,
    fault: Fault,
}

impl Read for Watched {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.input.read(to).map_err(|e| {
            let kind = e.kind();
            if kind != io::ErrorKind::Interrupted {
                *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
            }
            kind.into()
        })
    }
}

/// Standard input, until the run is to end.
struct Stdin {
    file: File,
    stop: Arc<AtomicBool>,
}

/// How often a silent input is left to see whether the run is to end; ns.
const LOOK_NS: i64 = 100_000_000;

impl Read for Stdin {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK_NS };
        loop {
            if self.stop.load(Relaxed) {
                return Ok(0);
            }
            let ready = poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&timeout));
            match ready {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return self.file.read(to),
                Err(e) => return Err(e.into()),
            }
        }
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

fn failed<I>(error: &PcapError<I>, path: &Path, offset: u64, fault: &Fault) -> Error {
    let path = path.to_owned();
    // Whatever the parser makes of it.
    if let Some(source) = fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Error::Read { path, offset, source: Some(source) };
    }
    match error {
        PcapError::UnexpectedEof => Error::Cut { path, offset },
        PcapError::ReadError => Error::Read { path, offset, source: None },
        PcapError::HeaderNotRecognized => Error::NotACapture { path },
        _ => Error::Damaged { path, offset },
    }
}

/// The file's header, or pcapng's first section header, as far as it goes. A stream may have no more
/// yet.
fn header(input: &mut impl Read) -> io::Result<Vec<u8>> {
    const PCAP: u64 = 24;
    let mut header = at_most(input, PCAP)?;
    if let Some([s0, s1, s2, s3, l0, l1, l2, l3, order @ ..]) = header.first_chunk::<12>()
        && [*s0, *s1, *s2, *s3] == SECTION
    {
        let is_big_endian = *order == [0x1a, 0x2b, 0x3c, 0x4d];
        let word = if is_big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let length = u64::from(word([*l0, *l1, *l2, *l3])).min(BUFFER as u64);
        header.extend(at_most(input, length.saturating_sub(PCAP))?);
    }
    Ok(header)
}

fn at_most(input: &mut impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    input.take(bytes).read_to_end(&mut read)?;
    Ok(read)
}

/// Whether a frame is of an interface that was not declared.
fn is_of_no_interface(block: &PcapBlockOwned<'_>, interfaces: usize) -> bool {
    match block {
        PcapBlockOwned::NG(Block::EnhancedPacket(b)) => b.if_id as usize >= interfaces,
        PcapBlockOwned::NG(Block::SimplePacket(_)) => interfaces == 0,
        _ => false,
    }
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

/// The frame of a pcapng packet block, which files of before 2010 have and the parser does not
/// know: interface (16 bits), drops, time (high, low), captured and wire length.
fn obsolete<'a>(
    data: &'a [u8],
    interfaces: &[Interface],
    is_big_endian: bool,
) -> Option<Frame<'a>> {
    let (head, bytes) = data.split_first_chunk::<20>()?;
    let short = if is_big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
    let word = if is_big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
    let [i0, i1, _, _, rest @ ..] = *head;
    let [h0, h1, h2, h3, l0, l1, l2, l3, c0, c1, c2, c3, w0, w1, w2, w3] = rest;
    let interface = interfaces.get(usize::from(short([i0, i1])))?;
    let captured = word([c0, c1, c2, c3]);
    let units = u64::from(word([h0, h1, h2, h3])) << 32 | u64::from(word([l0, l1, l2, l3]));
    Some(Frame {
        time_ns: interface.time_ns(units),
        bytes: bytes.get(..captured as usize)?,
        wire: word([w0, w1, w2, w3]).max(captured),
        link: interface.link,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A pcapng block in network order.
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = (body.len().next_multiple_of(4) + 12) as u32;
        let mut block = [kind.to_be_bytes(), length.to_be_bytes()].concat();
        block.extend(body);
        block.resize(length as usize - 4, 0);
        block.extend(length.to_be_bytes());
        block
    }

    fn section() -> Vec<u8> {
        let order = 0x1a2b_3c4d_u32.to_be_bytes();
        block(0x0a0d_0d0a, &[&order[..], &[0, 1, 0, 0], &[0xff; 8]].concat())
    }

    /// The frames' times and bytes, and whether the end was sound.
    fn frames(file: Vec<u8>) -> (Vec<(i64, Vec<u8>)>, Result<(), Error>) {
        let mut frames = Vec::new();
        let opened = Capture::from_input(Path::new("test"), io::Cursor::new(file));
        let end = opened.and_then(|mut capture| {
            while capture.next(|f| frames.push((f.time_ns, f.bytes.to_vec())))?.is_some() {}
            Ok(())
        });
        (frames, end)
    }

    #[test]
    fn blocks_without_frames_are_passed_over_whatever_their_size() {
        let interface = block(1, &[0, 1, 0, 0, 0, 0, 0, 0]);
        let times = [0_u32, 5, 3, 3].map(u32::to_be_bytes).concat();
        let packet = block(6, &[&[0; 4][..], &times, b"abc"].concat());
        let secrets = block(10, &vec![7; 3 * BUFFER]);
        let section = section();
        let file = [&section, &secrets, &interface, &packet, &secrets, &packet].map(|b| &b[..]);
        let (found, end) = frames(file.concat());
        assert!(end.is_ok(), "{end:?}");
        assert_eq!(found, vec![(5_000, b"abc".to_vec()); 2]);
        let cut = [&section[..], &secrets[..secrets.len() - 9]].concat();
        assert!(matches!(frames(cut).1, Err(Error::Cut { offset: 28, .. })));
    }

    #[test]
    fn damaged_compression_has_a_cause() {
        let file = [section(), block(10, &vec![7; 3 * BUFFER])].concat();
        let whole = zstd::encode_all(&file[..], 1).expect("memory can be written");
        assert!(frames(whole.clone()).1.is_ok());
        let mut damaged = whole.clone();
        damaged[0x10..].fill(0x55);
        for file in [damaged, whole[..whole.len() - 5].to_vec()] {
            let error = frames(file).1.expect_err("it is damaged");
            assert!(matches!(error, Error::Read { .. }), "{error}");
            assert!(std::error::Error::source(&error).is_some(), "{error}");
        }
    }

    #[test]
    fn packet_blocks_of_old_are_read() {
        let interface = block(1, &[0, 1, 0, 0, 0, 0, 0, 0]);
        let numbers = [0_u32, 0, 5, 3, 9].map(u32::to_be_bytes).concat();
        let packet = block(2, &[&numbers[..], b"abc"].concat());
        let (found, end) = frames([section(), interface, packet].concat());
        assert!(end.is_ok(), "{end:?}");
        assert_eq!(found, [(5_000, b"abc".to_vec())]);
    }
}
