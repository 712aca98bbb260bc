//! How does userspace read the kernel's maps and rings?

use std::io;
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, RingBuf};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use flowmeter_common::event::{
    KIND_OVERFLOW, KIND_RECORD, MAX_REAP, OverflowEvent, PacketEvent, PacketHead, ReapRequest,
    RecordEvent, Why,
};
use flowmeter_common::key::FlowKey;
use flowmeter_common::lifetime::EndReason;
use flowmeter_common::record::Record;
use flowmeter_common::splt::{CHUNK_SLOTS, Chunk, ChunkKey, Slot};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::sys::{self, Batch};
use super::{Error, Interface, Kernel, xdp};

/// What was taken out of a ring: an ended flow, or a packet that the kernel had no room for.
#[derive(Clone, Copy, Debug)]
pub enum Drained<'a> {
    /// A flow has ended.
    Record(EndReason, &'a Record),
    /// A packet to be metered here.
    Overflow(&'a OverflowEvent),
}

/// The ring of ended flows.
pub struct RecordRing(RingBuf<MapData>);

impl RecordRing {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        ring(ebpf, "RECORDS").map(Self)
    }

    /// Takes the next event; false if there is none.
    pub fn next(&mut self, mut take: impl FnMut(Drained<'_>)) -> bool {
        let Some(event) = self.0.next() else {
            return false;
        };
        let Some((kind, _)) = u32::read_from_prefix(&event).ok() else {
            return true;
        };
        if kind == KIND_RECORD {
            if let Ok((e, _)) = RecordEvent::read_from_prefix(&event) {
                let reason = EndReason::from_u32(e.reason).unwrap_or(EndReason::Forced);
                take(Drained::Record(reason, &e.record));
            }
        } else if kind == KIND_OVERFLOW
            && let Ok((e, _)) = OverflowEvent::read_from_prefix(&event)
        {
            take(Drained::Overflow(&e));
        }
        true
    }
}

/// The ring of packets for the dissector.
pub struct PacketRing {
    ring: RingBuf<MapData>,
    /// Whether each packet has a head.
    is_whole: bool,
}

impl PacketRing {
    pub(super) fn take(ebpf: &mut Ebpf, is_whole: bool) -> Result<Self, Error> {
        Ok(Self { ring: ring(ebpf, "PACKETS")?, is_whole })
    }

    /// Takes the next packet, from its IP header on; false if there is none. It has a head if every
    /// packet is forwarded.
    pub fn next(&mut self, mut take: impl FnMut(&PacketEvent, Option<&PacketHead>, &[u8])) -> bool {
        let Some(event) = self.ring.next() else {
            return false;
        };
        let mut rest = &*event;
        let mut head = None;
        if self.is_whole
            && let Ok((found, behind)) = PacketHead::read_from_prefix(rest)
        {
            (head, rest) = (Some(found), behind);
        }
        if let Ok((event, rest)) = PacketEvent::read_from_prefix(rest) {
            take(&event, head.as_ref(), rest.get(..event.captured.into()).unwrap_or(rest));
        }
        true
    }
}

/// The error of a map that is not in the object, or was taken.
pub(super) fn absent(name: &'static str) -> Error {
    Error::Absent { what: "map", name }
}

/// The error of a map that is of another type than is `wanted`.
pub(super) fn mistyped(name: &'static str, wanted: &'static str) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, format!("it is not a {wanted}"));
    Error::Map { act: "open", map: name, source }
}

pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, Error> {
    ebpf.take_map(name).ok_or(absent(name))
}

fn hash_map(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, Error> {
    match take(ebpf, name)? {
        Map::HashMap(map) => Ok(map),
        _ => Err(mistyped(name, "hash map")),
    }
}

pub(super) fn ring(ebpf: &mut Ebpf, name: &'static str) -> Result<RingBuf<MapData>, Error> {
    let map = take(ebpf, name)?;
    RingBuf::try_from(map).map_err(|e| Error::Map {
        act: "open",
        map: name,
        source: sys::map_error(&e),
    })
}

/// Elements read in one call.
const BATCH: usize = 512;

/// A value of the flow map.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes)]
#[repr(C)]
struct Element {
    lock: u32,
    state: u32,
    record: Record,
}

/// The map of flows, walked slice by slice.
pub struct FlowMap {
    map: MapData,
    cursor: Option<u32>,
    keys: Box<[FlowKey]>,
    values: Box<[Element]>,
}

/// Which slice of the map was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// One after which there are more.
    More,
    /// The last.
    Last,
}

impl FlowMap {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            map: hash_map(ebpf, "FLOWS")?,
            cursor: None,
            keys: vec![FlowKey::default(); BATCH].into(),
            values: vec![Element::default(); BATCH].into(),
        })
    }

    /// Reads the next slice of flows. After the end it begins anew.
    pub fn slice(&mut self, mut see: impl FnMut(&FlowKey, &Record)) -> Result<Slice, Error> {
        let fd = self.map.fd().as_fd();
        let batch = sys::lookup_batch(fd, &mut self.cursor, &mut self.keys, &mut self.values)
            .map_err(|source| Error::Map { act: "read", map: "FLOWS", source })?;
        let (flows, slice) = match batch {
            Batch::More(n) => (n, Slice::More),
            Batch::End(n) => (n, Slice::Last),
        };
        for (key, value) in self.keys.iter().zip(&*self.values).take(flows) {
            see(key, &value.record);
        }
        Ok(slice)
    }
}

impl Kernel {
    /// Hands those flows with these keys that have ended by `clock_ns` to the record ring, or all of
    /// them at shutdown. Returns how many keys are dealt with: fewer if the ring is full.
    pub fn reap(&mut self, keys: &[FlowKey], clock_ns: u64, why: Why) -> Result<usize, Error> {
        let program: &mut Xdp = xdp(&mut self.ebpf, "flowmeter_reap")?;
        let mut done = 0;
        for keys in keys.chunks(MAX_REAP) {
            let request = ReapRequest::new(clock_ns, why, keys.len() as u32);
            let mut data = Vec::with_capacity(16 + size_of_val(keys));
            data.extend_from_slice(request.as_bytes());
            data.extend_from_slice(keys.as_bytes());
            let options = TestRunOptions { data_in: Some(&data), ..TestRunOptions::new() };
            let result = program.test_run(options).map_err(|e| Error::Reap(Box::new(e)))?;
            let n = (result.return_value as usize).min(keys.len());
            done += n;
            if n < keys.len() {
                break;
            }
        }
        Ok(done)
    }
}

/// The map of SPLT slots.
pub struct SpltMap {
    map: MapData,
    name: &'static str,
}

impl SpltMap {
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        Ok(Self { map: hash_map(ebpf, name)?, name })
    }

    /// Takes the slots of a record that has ended. A slot that found no room in the map has
    /// `repeat` 0.
    pub fn slots(&mut self, record: &Record) -> Result<Vec<Slot>, Error> {
        let count = record.splt_slots as usize;
        let mut slots = Vec::with_capacity(count);
        for chunk in 0..count.div_ceil(CHUNK_SLOTS) {
            let key = ChunkKey { uid: record.uid, chunk: chunk as u32, reserved: 0 };
            let found: Option<Chunk> = sys::take_element(self.map.fd().as_fd(), &key)
                .map_err(|source| Error::Map { act: "read", map: self.name, source })?;
            slots.extend(found.unwrap_or_else(Chunk::new_zeroed).slots);
        }
        slots.truncate(count);
        Ok(slots)
    }
}

/// Tells the programs of the interfaces after the first.
pub(super) fn name_interfaces(ebpf: &mut Ebpf, interfaces: &[Interface]) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Map { act: "write", map: "INTERFACES", source };
    let map = ebpf.map_mut("INTERFACES").ok_or(absent("INTERFACES"))?;
    let mut map: HashMap<_, u32, [u32; 2]> =
        HashMap::try_from(map).map_err(|e| failed(sys::map_error(&e)))?;
    for (number, interface) in interfaces.iter().enumerate() {
        map.insert(interface.index, [number as u32, interface.link], 0)
            .map_err(|e| failed(sys::map_error(&e)))?;
    }
    Ok(())
}
