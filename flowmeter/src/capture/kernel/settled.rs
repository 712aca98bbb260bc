//! How does the kernel learn which flows need no more dissection?
//!
//! From memory that both see. Each flow has a place by its number, and is settled if its number
//! stands there. A later flow may take the place: then packets are forwarded needlessly, no more.

#![allow(unsafe_code)]

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::Map;
use flowmeter_common::event::{SETTLED_FLOWS, settled_place};
use memmap2::{MmapOptions, MmapRaw};

use super::{Error, maps};

/// The flows that the dissector is done with, as far as there is room.
#[derive(Debug)]
pub struct SettledFlows(MmapRaw);

impl SettledFlows {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let Map::Array(map) = maps::take(ebpf, "SETTLED")? else {
            return Err(maps::mistyped("SETTLED", "array"));
        };
        let memory = MmapOptions::new()
            .len(SETTLED_FLOWS * size_of::<u64>())
            .map_raw(&map.fd().as_fd())
            .map_err(|source| Error::Map { act: "map", map: "SETTLED", source })?;
        Ok(Self(memory))
    }

    /// Notes that the record with this number is settled.
    pub fn add(&self, uid: u64) {
        #[expect(clippy::cast_ptr_alignment, reason = "memory is mapped by pages")]
        let first = self.0.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: the memory is page-aligned, has SETTLED_FLOWS words and lives as long as `self`;
        // everybody reads and writes whole words.
        let places = unsafe { std::slice::from_raw_parts(first, SETTLED_FLOWS) };
        if let Some(place) = places.get(settled_place(uid) as usize) {
            place.store(uid, Ordering::Relaxed);
        }
    }
}
