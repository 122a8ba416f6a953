//! May a list of prefixes cover an address?
//!
//! Line 0 is the head ([`head`]). Then come up to three parts:
//!
//! - **hosts**: a register-blocked Bloom filter. A host sets [`PROBE_BITS`]
//!   bits of one word, so that a look-up is one load.
//! - **prefixes**: the same for prefixes that were cut or spread to one of at
//!   most [`MAX_LEVELS`] lengths; one load a length in use. Small, as
//!   prefixes are few: it stays in a near cache.
//! - **direct**: one bit for each value of the first bits of an address, for
//!   prefixes up to that length.
//!
//! Bits are only ever added. A bit is one atomic OR, so additions need no
//! lock, and no order but one: the level's number goes into the head last.

use super::{
    Lines,
    hash::{self, Seeds},
};

/// Words of the head, line 0.
pub mod head {
    /// Lowest byte: [`super::parts`]; above it a byte for each level of the
    /// prefixes, without gaps, 0: none.
    pub const USE: u32 = 0;
    /// [`super::Seeds::first`].
    pub const SEED_FIRST: u32 = 1;
    /// [`super::Seeds::second`].
    pub const SEED_SECOND: u32 = 2;
    /// [`super::Seeds::last`].
    pub const SEED_LAST: u32 = 3;
    /// Words of the hosts; above 32 bits: their first line.
    pub const HOSTS: u32 = 4;
    /// The same of the prefixes.
    pub const PREFIXES: u32 = 5;
    /// Bits of an address that choose a bit, at most 32; above 32 bits: the
    /// first line.
    pub const DIRECT: u32 = 6;
}

/// What of an image is in use: lowest byte of [`head::USE`].
pub mod parts {
    /// There are hosts.
    pub const HOSTS: u64 = 1;
    /// There are prefixes that the direct part holds.
    pub const DIRECT: u64 = 1 << 1;
}

/// Levels that a look-up asks for.
pub const MAX_LEVELS: u32 = 4;

/// Bits that one key sets in its word.
pub const PROBE_BITS: u32 = 5;

/// Where a key lies: its word, counted from the part's first, and its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The word.
    pub word: u32,
    /// The bits.
    pub bits: u64,
}

/// Where the first `level` bits of an address lie in a part of `words` words.
#[inline(always)]
pub const fn probe(seeds: Seeds, high: u64, low: u64, level: u32, words: u32) -> Probe {
    let hash = if level > 64 {
        hash::long(seeds, high, low, level)
    } else {
        hash::short(seeds, high, level)
    };
    // The upper half chooses the word, five times six bits of the lower half
    // the bits; a product's lowest bits are its worst.
    let bits = (1 << ((hash >> 26) & 63))
        | (1 << ((hash >> 20) & 63))
        | (1 << ((hash >> 14) & 63))
        | (1 << ((hash >> 8) & 63))
        | (1 << ((hash >> 2) & 63));
    Probe {
        word: (((hash >> 32) * words as u64) >> 32) as u32,
        bits,
    }
}

/// Whether an entry may cover the IPv4 address ([`super::v4_key`]). Never
/// false for an address that one does.
#[inline(always)]
pub fn maybe_v4<T: Lines>(image: &T, key: u64) -> bool {
    maybe(image, key, 0, 32)
}

/// The same for an IPv6 address.
#[inline(always)]
pub fn maybe_v6<T: Lines>(image: &T, high: u64, low: u64) -> bool {
    maybe(image, high, low, 128)
}

#[inline(always)]
fn maybe<T: Lines>(image: &T, high: u64, low: u64, host: u32) -> bool {
    let Some(head) = image.line(0) else {
        return true;
    };
    let used = image.word(head, head::USE);
    let seeds = Seeds {
        first: image.word(head, head::SEED_FIRST),
        second: image.word(head, head::SEED_SECOND),
        last: image.word(head, head::SEED_LAST),
    };
    if used & parts::HOSTS != 0 {
        let part = image.word(head, head::HOSTS);
        if holds(image, part, probe(seeds, high, low, host, part as u32)) {
            return true;
        }
    }
    if used & parts::DIRECT != 0 {
        let part = image.word(head, head::DIRECT);
        let bit = high >> (64_u64.wrapping_sub(part) & 63);
        let at = Probe {
            word: (bit >> 6) as u32,
            bits: 1 << (bit & 63),
        };
        if holds(image, part, at) {
            return true;
        }
    }
    let part = image.word(head, head::PREFIXES);
    let mut levels = used >> 8;
    for _ in 0..MAX_LEVELS {
        let level = (levels & 0xff) as u32;
        if level == 0 {
            break;
        }
        if holds(image, part, probe(seeds, high, low, level, part as u32)) {
            return true;
        }
        levels >>= 8;
    }
    false
}

/// Whether all bits of the probe are set in the part.
#[inline(always)]
fn holds<T: Lines>(image: &T, part: u64, probe: Probe) -> bool {
    let first = (part >> 32) as u32;
    match image.line(first.wrapping_add(probe.word / super::LINE_WORDS)) {
        Some(line) => image.word(line, probe.word) & probe.bits == probe.bits,
        None => true,
    }
}
