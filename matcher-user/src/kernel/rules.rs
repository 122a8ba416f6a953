//! The C&C rules: an array map in two halves, mapped into memory, since a list
//! has millions of them.

use aya::maps::{Map, MapData};
use matcher_common::abi::Rule;

use super::{
    KernelError,
    mapping::{Mapping, mapped},
};

/// The two halves.
pub(super) struct Rules {
    memory: Mapping,
    /// Rules of one half.
    capacity: usize,
    /// Kept open: a program that is not loaded yet names the map by it.
    _map: MapData,
}

impl Rules {
    pub(super) fn open(map: Map) -> Result<Self, KernelError> {
        let (memory, bytes, map) = mapped("RULES", map)?;
        Ok(Self {
            memory,
            capacity: bytes / size_of::<Rule>() / 2,
            _map: map,
        })
    }

    /// Rules that fit into a generation.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes the rules of a generation that no packet uses yet; what does not
    /// fit is left out.
    pub(super) fn write(&mut self, generation: u64, rules: &[Rule]) {
        let first = if generation & 1 == 0 {
            0
        } else {
            self.capacity
        };
        let fitting = rules.len().min(self.capacity);
        // SAFETY: the mapping starts at a page and holds two halves of
        // `capacity` rules; `fitting` of them fit behind `first`; the slice is
        // no part of the mapping. No packet reads this half.
        unsafe {
            std::ptr::copy_nonoverlapping(
                rules.as_ptr(),
                self.memory.start.cast::<Rule>().as_ptr().add(first),
                fitting,
            );
        }
    }
}
