//! May a list of prefixes cover an address?
//!
//! Line 0 is the head ([`head`]). Then come five parts:
//!
//! - **hosts**: a Bloom filter in blocks of a line. A host sets three bits in
//!   each of two words of one line, so that a look-up is one cache miss. Hosts
//!   alone are in it: where it says no, or an exact table of hosts does, only a
//!   longer entry can cover the address.
//! - **prefixes**: the same for prefixes that were cut or spread to one of at
//!   most [`MAX_LEVELS`] lengths; one line a length in use.
//! - **gate**: two bits of a word for the first bits of an address. Where one
//!   is clear no prefix lies, and none is asked for: that is so for nearly
//!   all addresses, as prefixes are few beside hosts.
//! - **direct**: one bit for each value of the first 16 bits of an address,
//!   for prefixes up to that length.
//! - **reach**: the same for up to 20 bits of an IPv4 address and all prefixes:
//!   whether one holds an address with these bits. Where none does, which is so
//!   for nearly all addresses, nothing else is asked about prefixes.
//!
//! An image is built whole and never changed while packets ask it: a list that
//! changed is the next image.

use super::{
    AddressWords, LINE_WORDS, Lines,
    hash::{self, Seeds},
};

/// Words of the head, line 0, beside those of [`Seeds`].
pub mod head {
    /// Lowest byte: [`super::parts`]; above it a byte for each level of the
    /// prefixes, without gaps, 0: none.
    pub const USE: u32 = 0;
    /// Lines of the hosts; above 32 bits: the first of them.
    pub const HOSTS: u32 = 4;
    /// The same of the prefixes.
    pub const PREFIXES: u32 = 5;
    /// First line of the direct part; above 32 bits: how far right an address
    /// is shifted to become the number of its bit in the reach, which comes next;
    /// 0: there is none, and prefixes may be anywhere.
    pub const DIRECT: u32 = 6;
    /// Words of the gate; above 32 bits: its first line.
    pub const GATE: u32 = 7;
}

/// Bits of [`head::USE`] below the levels.
const LEVELS_SHIFT: u32 = 8;

/// What of an image is in use: lowest byte of [`head::USE`].
pub mod parts {
    /// There are hosts.
    pub const HOSTS: u64 = 1;
    /// There are prefixes that the direct part holds.
    pub const DIRECT: u64 = 1 << 1;
    /// The gate is complete. Without this bit every address passes it.
    pub const GATE: u64 = 1 << 2;
}

/// Bits of an address that choose a bit of the direct part: 8 KiB, which stay
/// in the nearest caches.
pub const DIRECT_BITS: u32 = 16;
/// Lines of the direct part.
pub const DIRECT_LINES: u32 = (1 << DIRECT_BITS) / (LINE_WORDS * u64::BITS);

/// First bits of an IPv4 address that the gate goes by.
pub const GATE_LEVEL_V4: u32 = 22;
/// First bits of an IPv6 address that the gate goes by.
pub const GATE_LEVEL_V6: u32 = 32;

/// Levels that a look-up asks for.
pub const MAX_LEVELS: u32 = 6;

/// Where a key lies: a line, counted from the part's first, and bits in two
/// of its words, which may be the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The line.
    pub line: u32,
    /// The words, of which the lowest three bits count, each with its bits.
    pub words: [(u32, u64); 2],
}

/// Where the first `level` bits of an address lie in a part of `lines` lines.
#[inline(always)]
pub const fn probe(seeds: Seeds, high: u64, low: u64, level: u32, lines: u32) -> Probe {
    probe_of(hash_of(true, seeds, high, low, level), lines)
}

#[inline(always)]
const fn hash_of(v6: bool, seeds: Seeds, high: u64, low: u64, level: u32) -> u64 {
    if v6 && level > 64 {
        hash::long(seeds, high, low, level)
    } else {
        hash::short(seeds, high, level)
    }
}

/// The top of the hash chooses the line; below it six times six bits the bits
/// and twice three the words. A product's lowest bits are its worst.
#[inline(always)]
const fn probe_of(hash: u64, lines: u32) -> Probe {
    Probe {
        line: (((hash >> 32) * lines as u64) >> 32) as u32,
        words: [
            ((hash >> 41) as u32, three_bits(hash >> 20)),
            ((hash >> 38) as u32, three_bits(hash >> 2)),
        ],
    }
}

/// The word of an address in a gate of `words` words, and its bits there.
#[inline(always)]
pub const fn gate(seeds: Seeds, high: u64, v6: bool, words: u32) -> (u32, u64) {
    let level = if v6 { GATE_LEVEL_V6 } else { GATE_LEVEL_V4 };
    let hash = hash::short(seeds, high, level);
    let bits = (1 << ((hash >> 26) & 63)) | (1 << ((hash >> 20) & 63));
    ((((hash >> 32) * words as u64) >> 32) as u32, bits)
}

#[inline(always)]
const fn three_bits(from: u64) -> u64 {
    (1 << (from & 63)) | (1 << ((from >> 6) & 63)) | (1 << ((from >> 12) & 63))
}

/// Whether the address may be an entry itself. Never false for one that is.
#[inline(always)]
pub fn maybe_host<T: Lines, A: AddressWords>(image: &T, address: A) -> bool {
    let Some(head) = image.line(0) else {
        return true;
    };
    if image.word(head, head::USE) & parts::HOSTS == 0 {
        return false;
    }
    let (high, low) = address.words();
    let length = if A::V6 { 128 } else { 32 };
    let hash = hash_of(A::V6, Seeds::of(image, head), high, low, length);
    holds(image, image.word(head, head::HOSTS), hash)
}

/// Whether any entry may cover the address, by a line of the hosts and one that
/// tells whether prefixes are near: no for nearly all that no entry covers. The
/// others are to be asked for with [`maybe`].
#[inline(always)]
pub fn maybe_near<T: Lines, A: AddressWords>(image: &T, address: A) -> bool {
    maybe_host(image, address) || prefix_near(image, address)
}

/// Whether any entry may cover the address.
#[inline(always)]
pub fn maybe<T: Lines, A: AddressWords>(image: &T, address: A) -> bool {
    maybe_host(image, address) || maybe_prefix(image, address)
}

/// Whether prefixes are where the address is, as far as one line tells.
#[inline(always)]
fn prefix_near<T: Lines, A: AddressWords>(image: &T, address: A) -> bool {
    let Some(head) = image.line(0) else {
        return true;
    };
    let (high, _) = address.words();
    let part = image.word(head, head::DIRECT);
    let shift = part >> 32;
    if !A::V6 && shift != 0 {
        let bit = (high >> (shift & 63)) as u32;
        let first = (part as u32).wrapping_add(DIRECT_LINES);
        return match image.half_word(first, bit >> 5) {
            Some(bits) => bits >> (bit & 31) & 1 != 0,
            None => true,
        };
    }
    let levels = image.word(head, head::USE) >> LEVELS_SHIFT;
    in_direct(image, head, high) || levels != 0 && in_gate(image, head, high, A::V6)
}

/// Whether an entry that is longer than one address may cover the address. Never
/// false for an address that one does.
#[inline(always)]
pub fn maybe_prefix<T: Lines, A: AddressWords>(image: &T, address: A) -> bool {
    let Some(head) = image.line(0) else {
        return true;
    };
    let (high, low) = address.words();
    if in_direct(image, head, high) {
        return true;
    }
    let mut levels = image.word(head, head::USE) >> LEVELS_SHIFT;
    if levels == 0 || !in_gate(image, head, high, A::V6) {
        return false;
    }
    let seeds = Seeds::of(image, head);
    let part = image.word(head, head::PREFIXES);
    for _ in 0..MAX_LEVELS {
        let level = (levels & 0xff) as u32;
        if level == 0 {
            break;
        }
        if holds(image, part, hash_of(A::V6, seeds, high, low, level)) {
            return true;
        }
        levels >>= 8;
    }
    false
}

/// Whether the direct part has the first bits of the address.
#[inline(always)]
fn in_direct<T: Lines>(image: &T, head: T::Line, high: u64) -> bool {
    if image.word(head, head::USE) & parts::DIRECT == 0 {
        return false;
    }
    let first = image.word(head, head::DIRECT) as u32;
    let bit = (high >> (64 - DIRECT_BITS)) as u32;
    match image.line(first.wrapping_add(bit >> 9)) {
        Some(line) => image.word(line, bit >> 6) >> (bit & 63) & 1 != 0,
        None => true,
    }
}

/// Whether the address passes the gate.
#[inline(always)]
fn in_gate<T: Lines>(image: &T, head: T::Line, high: u64, v6: bool) -> bool {
    if image.word(head, head::USE) & parts::GATE == 0 {
        return true;
    }
    let part = image.word(head, head::GATE);
    let (word, bits) = gate(Seeds::of(image, head), high, v6, part as u32);
    let first = (part >> 32) as u32;
    match image.line(first.wrapping_add(word / LINE_WORDS)) {
        Some(line) => image.word(line, word) & bits == bits,
        None => true,
    }
}

/// Whether all bits of the key with this hash are set in the part.
#[inline(always)]
fn holds<T: Lines>(image: &T, part: u64, hash: u64) -> bool {
    let probe = probe_of(hash, part as u32);
    let first = (part >> 32) as u32;
    let Some(line) = image.line(first.wrapping_add(probe.line)) else {
        return true;
    };
    let [(one, one_bits), (other, other_bits)] = probe.words;
    // Both words before the branch: after the first alone it would go either
    // way too often to be foreseen.
    let missing = (one_bits & !image.word(line, one)) | (other_bits & !image.word(line, other));
    missing == 0
}
