//! How do the programs and userspace share words of memory?
//!
//! An array map of 64-bit words can be mapped: either side reads and writes whole words, without a
//! system call.

#![expect(unsafe_code, reason = "a map is mapped into memory")]

use std::os::fd::AsFd as _;
use std::sync::atomic::AtomicU64;

use aya::Ebpf;
use aya::maps::Map;
use memmap2::{MmapOptions, MmapRaw};

use super::{Error, maps};

/// The words of a map.
#[derive(Debug)]
pub(super) struct Words {
    memory: MmapRaw,
    count: usize,
}

impl Words {
    /// Those of the array map `name`, which has `count`. The map stays where it is: programs that are
    /// loaded later want it.
    pub(super) fn of(ebpf: &Ebpf, name: &'static str, count: usize) -> Result<Self, Error> {
        let Map::Array(map) = ebpf.map(name).ok_or(maps::absent(name))? else {
            return Err(maps::mistyped(name, "array"));
        };
        let memory = MmapOptions::new()
            .len(count * size_of::<u64>())
            .map_raw(&map.fd().as_fd())
            .map_err(|source| Error::Map { act: "map", map: name, source })?;
        Ok(Self { memory, count })
    }

    /// The word with this number, if there is one.
    pub(super) fn get(&self, number: u32) -> Option<&AtomicU64> {
        #[expect(clippy::cast_ptr_alignment, reason = "memory is mapped by pages")]
        let first = self.memory.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: the memory is page-aligned, has `count` words and lives as long as `self`;
        // everybody reads and writes whole words.
        unsafe { std::slice::from_raw_parts(first, self.count) }.get(number as usize)
    }
}
