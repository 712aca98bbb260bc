//! Which packets are in a capture file?

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use crate::root::is_set;

/// The captures of `$FLOWMETER_CONFORMANCE/pcaps`, by name. Where the variable is not set, says
/// that `test` does not run; with `FLOWMETER_REQUIRE_CONFORMANCE=1` that is a failure.
pub fn conformance(test: &str) -> Result<Option<Vec<PathBuf>>> {
    let Some(folder) = std::env::var_os("FLOWMETER_CONFORMANCE") else {
        if is_set("FLOWMETER_REQUIRE_CONFORMANCE") {
            bail!(
                "`{test}` needs the captures in `$FLOWMETER_CONFORMANCE/pcaps`, which is not set"
            );
        }
        println!("skipped: `{test}` reads `$FLOWMETER_CONFORMANCE/pcaps`, which is not set");
        return Ok(None);
    };
    let folder = Path::new(&folder).join("pcaps");
    let mut captures = fs::read_dir(&folder)
        .with_context(|| format!("failed to list `{}`", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    captures.sort();
    Ok(Some(captures))
}

/// A capture of Ethernet frames, one every 50 µs.
pub fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        bytes.extend(field.to_le_bytes());
    }
    for (n, frame) in (0..).zip(frames) {
        let (time_us, length) = (n * 50, frame.len() as u32);
        for field in [1_700_000_000 + time_us / 1_000_000, time_us % 1_000_000, length, length] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(frame);
    }
    bytes
}

/// What a capture holds.
#[derive(Debug, Default)]
pub struct Capture {
    /// The Ethernet frames, as captured.
    pub frames: Vec<Vec<u8>>,
    /// How many packets are of another link type.
    pub foreign: usize,
    /// Whether the file is damaged, so that something may be missing.
    pub damaged: bool,
}

impl Capture {
    /// Reads a pcap or pcapng file, as far as it can be read.
    pub fn read(path: &Path) -> Result<Self> {
        let file =
            File::open(path).with_context(|| format!("failed to open `{}`", path.display()))?;
        let mut reader = create_reader(1 << 20, file)
            .map_err(|why| anyhow::anyhow!("failed to read `{}`: {why}", path.display()))?;
        let mut capture = Self::default();
        let mut links = Vec::new();
        let mut exhausted = false;
        loop {
            match reader.next() {
                Ok((consumed, block)) => {
                    capture.take(&block, &mut links);
                    reader.consume(consumed);
                }
                Err(PcapError::Eof) => break,
                Err(PcapError::Incomplete(_)) if !exhausted => {
                    exhausted = reader.refill().is_err() || reader.reader_exhausted();
                }
                Err(_) => {
                    capture.damaged = true;
                    break;
                }
            }
        }
        Ok(capture)
    }

    fn take(&mut self, block: &PcapBlockOwned, links: &mut Vec<Linktype>) {
        let (link, frame) = match block {
            PcapBlockOwned::LegacyHeader(header) => return links.push(header.network),
            PcapBlockOwned::Legacy(packet) => (links.first(), packet.data),
            PcapBlockOwned::NG(Block::SectionHeader(_)) => return links.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                return links.push(interface.linktype);
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                (links.get(packet.if_id as usize), packet.packet_data())
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                (links.first(), packet.packet_data())
            }
            PcapBlockOwned::NG(_) => return,
        };
        if link == Some(&Linktype::ETHERNET) {
            self.frames.push(frame.to_vec());
        } else {
            self.foreign += 1;
        }
    }
}
