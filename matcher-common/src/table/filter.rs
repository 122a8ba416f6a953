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
//! - **gate**: two bits of a word for the first bits of an address, as many as
//!   the list has room for. Where one is clear no prefix lies, and none of the
//!   lengths is asked for.
//! - **direct**: one bit for each value of the first 16 bits of an address,
//!   for prefixes up to that length.
//! - **reach**: one bit for each value of up to 20 bits that the first ones of an
//!   address make ([`reach`]), for all prefixes: whether one holds such an
//!   address. Where none does, which is so for nearly all addresses, as prefixes
//!   are few beside hosts, nothing else is asked about them. All set where
//!   prefixes are nearly everywhere.
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
    /// First line of the direct part; above 32 bits: by how many bits the number
    /// of a bit in the reach, which comes next, is shorter than a word; above 40:
    /// how many first bits of an address the gate goes by, 1 to 64.
    pub const DIRECT: u32 = 6;
    /// Words of the gate; above 32 bits: its first line.
    pub const GATE: u32 = 7;
}

/// Bits of [`head::USE`] below the levels.
const LEVELS_SHIFT: u32 = 8;

/// Bits of [`head::DIRECT`] below the level of the gate.
pub const GATE_LEVEL_SHIFT: u32 = 40;

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

/// First bits of an IPv6 address that the reach goes by.
pub const REACH_LEVEL_V6: u32 = 32;

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

/// The word of the first `level` bits of an address in a gate of `words` words,
/// and its bits there.
#[inline(always)]
pub const fn gate(seeds: Seeds, high: u64, level: u32, words: u32) -> (u32, u64) {
    let hash = hash::short(seeds, high, level);
    let bits = (1 << ((hash >> 26) & 63)) | (1 << ((hash >> 20) & 63));
    ((((hash >> 32) * words as u64) >> 32) as u32, bits)
}

/// Number of the bit of an address in a reach of 64 - `shift` bits.
///
/// Of IPv4 the first so many bits. Of IPv6 the first 32, folded: their end says
/// how far from a secret place that their beginning chooses. So no two networks
/// of one allocation meet, wherever on the Internet a list has its prefixes.
#[inline(always)]
pub const fn reach(seeds: Seeds, high: u64, v6: bool, shift: u32) -> u32 {
    if !v6 {
        return (high >> (shift & 63)) as u32;
    }
    let network = high >> (64 - REACH_LEVEL_V6);
    let beginning = network >> (64_u32.wrapping_sub(shift) & 63);
    let number = network.wrapping_add(beginning.wrapping_mul(seeds.last));
    (number & (u64::MAX >> (shift & 63))) as u32
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

/// Whether any entry may cover the address, by a line of the hosts and where
/// prefixes are: no for nearly all that no entry covers. The others are to be
/// asked for with [`maybe`].
#[inline(always)]
pub fn maybe_near<T: Lines, A: AddressWords>(image: &T, address: A) -> bool {
    maybe_host(image, address) || prefix_near(image, address)
}

/// Whether any entry may cover the address.
#[inline(always)]
pub fn maybe<T: Lines, A: AddressWords>(image: &T, address: A) -> bool {
    maybe_host(image, address) || maybe_prefix(image, address)
}

/// Whether prefixes are where the address is, as far as the reach, and where
/// that says yes two more lines, tell.
#[inline(always)]
fn prefix_near<T: Lines, A: AddressWords>(image: &T, address: A) -> bool {
    let Some(head) = image.line(0) else {
        return true;
    };
    let (high, _) = address.words();
    in_reach(image, head, high, A::V6)
        && (in_direct(image, head, high) || levels_past_gate(image, head, high) != 0)
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
    let mut levels = levels_past_gate(image, head, high);
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

/// Whether the reach has the first bits of the address.
#[inline(always)]
fn in_reach<T: Lines>(image: &T, head: T::Line, high: u64, v6: bool) -> bool {
    let part = image.word(head, head::DIRECT);
    let bit = reach(Seeds::of(image, head), high, v6, (part >> 32) as u32);
    let first = (part as u32).wrapping_add(DIRECT_LINES);
    match image.half_word(first, bit >> 5) {
        Some(bits) => bits >> (bit & 31) & 1 != 0,
        None => true,
    }
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

/// The levels to ask for, a byte each: none for an address that the gate stops.
#[inline(always)]
fn levels_past_gate<T: Lines>(image: &T, head: T::Line, high: u64) -> u64 {
    let used = image.word(head, head::USE);
    let levels = used >> LEVELS_SHIFT;
    if levels == 0 || used & parts::GATE == 0 {
        return levels;
    }
    let level = (image.word(head, head::DIRECT) >> GATE_LEVEL_SHIFT) as u32;
    let part = image.word(head, head::GATE);
    let (word, bits) = gate(Seeds::of(image, head), high, level & 0xff, part as u32);
    let first = (part >> 32) as u32;
    match image.line(first.wrapping_add(word / LINE_WORDS)) {
        Some(line) if image.word(line, word) & bits != bits => 0,
        _ => levels,
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
