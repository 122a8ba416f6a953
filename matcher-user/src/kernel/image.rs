//! Images of compiled tables in the kernel: an array map of cache lines, mapped
//! into memory, in two halves of which packets use one.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Map, MapData};
use matcher_common::table::{self, LINE_WORDS, Lines};

use super::{
    KernelError,
    mapping::{Mapping, mapped},
};
use crate::tables::compiled::Image;

const LINE_BYTES: usize = table::LINE_BYTES as usize;

/// The two halves of an image.
pub(super) struct Halves {
    memory: Mapping,
    /// Lines of one half.
    lines: usize,
    /// Kept open: a program that is not loaded yet names the map by it.
    _map: MapData,
}

impl Halves {
    pub(super) fn open(name: &str, map: Map) -> Result<Self, KernelError> {
        let (memory, bytes, map) = mapped(name, map)?;
        Ok(Self {
            memory,
            lines: bytes / LINE_BYTES / 2,
            _map: map,
        })
    }

    /// Bytes that fit into one half.
    pub(super) fn bytes(&self) -> u64 {
        self.lines as u64 * LINE_BYTES as u64
    }

    /// Writes an image into the half of a generation that no packet uses; false
    /// when it does not fit.
    pub(super) fn write(&mut self, generation: u64, image: &Image) -> bool {
        let lines = image.lines();
        if lines.len() > self.lines {
            return false;
        }
        let half = self.half(generation);
        for (word, value) in half.words().iter().zip(lines.as_flattened()) {
            word.store(*value, Ordering::Relaxed);
        }
        true
    }

    /// The half of a generation.
    pub(super) fn half(&self, generation: u64) -> Half<'_> {
        let words = self.lines * LINE_WORDS as usize;
        let first = if generation & 1 == 0 { 0 } else { words };
        // SAFETY: the mapping starts at a page and holds two halves of `words`
        // words each; it lives as long as `self`, and is only touched as such
        // words.
        let words = unsafe {
            std::slice::from_raw_parts(
                self.memory.start.cast::<AtomicU64>().as_ptr().add(first),
                words,
            )
        };
        Half(words)
    }
}

/// One half.
#[derive(Clone, Copy)]
pub(super) struct Half<'a>(&'a [AtomicU64]);

impl<'a> Half<'a> {
    fn words(self) -> &'a [AtomicU64] {
        self.0
    }
}

impl<'a> Lines for Half<'a> {
    type Line = &'a [AtomicU64];

    fn line(&self, index: u32) -> Option<&'a [AtomicU64]> {
        let first = usize::try_from(index).ok()? * LINE_WORDS as usize;
        self.0.get(first..first + LINE_WORDS as usize)
    }

    fn word(&self, line: &'a [AtomicU64], at: u32) -> u64 {
        usize::try_from(at % LINE_WORDS)
            .ok()
            .and_then(|at| line.get(at))
            .map_or(u64::MAX, |word| word.load(Ordering::Relaxed))
    }
}
