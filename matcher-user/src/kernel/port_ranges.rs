//! The array of port ranges, mapped into memory: a list of shared addresses has
//! millions of them, and each by a system call of its own takes seconds.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Map, MapData};
use matcher_common::abi::PortRange;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{
    KernelError,
    mapping::{Mapping, mapped},
};

/// Bytes of one range, as they lie in the array (kernel/bpf/arraymap.c rounds
/// up to eight).
const BYTES: usize = size_of::<AtomicU64>();
const _: () = assert!(size_of::<PortRange>() == BYTES);

/// The array.
pub(super) struct PortRanges {
    memory: Mapping,
    capacity: u32,
    /// Kept open: a program that is not loaded yet names the map by it.
    _map: MapData,
}

impl PortRanges {
    pub(super) fn open(map: Map) -> Result<Self, KernelError> {
        let (memory, bytes, map) = mapped("PORT_RANGES", map)?;
        Ok(Self {
            memory,
            // A map has at most `u32::MAX` entries.
            capacity: u32::try_from(bytes / BYTES).unwrap_or(u32::MAX),
            _map: map,
        })
    }

    /// Ranges that fit.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The range in that place; `None` past the end.
    pub(super) fn get(&self, index: u32) -> Option<PortRange> {
        let word = self.word(index)?.load(Ordering::Relaxed);
        PortRange::read_from_bytes(&word.to_ne_bytes()).ok()
    }

    /// Writes a range; false past the end. No entry may lead to the place, and
    /// no packet that read one that did may be under way.
    pub(super) fn set(&mut self, index: u32, range: PortRange) -> bool {
        let (Some(word), Ok(bytes)) = (self.word(index), range.as_bytes().try_into()) else {
            return false;
        };
        word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        true
    }

    fn word(&self, index: u32) -> Option<&AtomicU64> {
        if index >= self.capacity {
            return None;
        }
        let offset = usize::try_from(index).ok()?;
        // SAFETY: the mapping starts at a page and is `capacity` words long; it
        // lives as long as `self`, and is only touched as such words.
        Some(unsafe { self.memory.start.cast::<AtomicU64>().add(offset).as_ref() })
    }
}
