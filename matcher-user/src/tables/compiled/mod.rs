//! Builders of the compiled tables that every packet meets first; the
//! look-ups are in [`matcher_common::table`].
//!
//! - [`filter`]: may a C&C entry cover an address (both families), may a
//!   consent entry (IPv6).
//! - [`hosts`]: the rules of single C&C addresses.
//! - [`class`]: outside, default consent, or look closer.
//!
//! Each has a plan, which knows the size before a byte is taken, and an
//! image. An image is built whole, before any packet asks it, and never
//! changed: a list that changed is the next image.

pub mod class;
pub mod filter;
pub mod hosts;
mod key;
mod levels;
mod near;
#[cfg(test)]
mod tests;

use matcher_common::table::{self, LINE_WORDS, Line, hash};
use zerocopy::IntoBytes;

pub use key::Family;

const LINE_BYTES: u64 = table::LINE_BYTES as u64;

/// A compiled table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    lines: Vec<Line>,
}

impl Image {
    /// Lines of the same word.
    pub fn filled(lines: usize, word: u64) -> Self {
        Self {
            lines: vec![[word; LINE_WORDS as usize]; lines],
        }
    }

    /// Writes one word; nothing past the end.
    pub fn set(&mut self, word: usize, value: u64) {
        if let Some(place) = self.lines.as_flattened_mut().get_mut(word) {
            *place = value;
        }
    }

    fn zeroed(lines: usize) -> Self {
        Self {
            lines: vec![[0; LINE_WORDS as usize]; lines],
        }
    }

    /// The lines, for look-ups.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The image as the kernel's array map holds it.
    pub fn bytes(&self) -> &[u8] {
        self.lines.as_bytes()
    }

    /// Sets bits of one word; nothing past the end, where no builder writes.
    #[inline]
    fn or(&mut self, word: usize, bits: u64) {
        if let Some(word) = self.lines.as_flattened_mut().get_mut(word) {
            *word |= bits;
        }
    }
}

/// Secret multipliers out of random bytes, which must come from the system's
/// random source, anew for each image.
pub fn seeds(random: [u8; 24]) -> hash::Seeds {
    let mut words = random
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| u64::from_le_bytes(*bytes) | 1);
    let mut next = || words.next().unwrap_or(1);
    hash::Seeds {
        first: next(),
        second: next(),
        last: next(),
    }
}
