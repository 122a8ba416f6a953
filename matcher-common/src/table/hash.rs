//! The seeded hash of the filters.
//!
//! Multiplication by secret odd numbers and folding of the upper half into the
//! lower, two rounds for a word and three for two. In the first round a word
//! `x` becomes `a * x`: for two given words `x != y` the difference
//! `a * (x - y)` runs, over all odd `a`, through all values with the trailing
//! zeros of `x - y`. So whoever picks addresses without knowing `a` cannot
//! say which two of them fall together (that is multiply-shift hashing,
//! Dietzfelbinger and others 1997). The fold and the second multiplier break
//! what is linear in it: else the hosts of one /24, an arithmetic progression,
//! would be one in the filter too. A wide multiplication would mix more at
//! once, but BPF has none.
//!
//! The seeds are drawn anew for each image, never leave the machine, and all
//! that a collision can be used for is to make one packet ask the exact
//! tables, which any address of the list does anyway.

use super::Lines;

/// The first of the words in which the head of an image has its seeds.
pub const SEEDS_AT: u32 = 1;

/// Secret multipliers, all odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// Of the first word.
    pub first: u64,
    /// Of the sum of first and second.
    pub second: u64,
    /// Of the result.
    pub last: u64,
}

impl Seeds {
    /// Those in the head of an image.
    #[inline(always)]
    pub fn of<T: Lines>(image: &T, head: T::Line) -> Self {
        Self {
            first: image.word(head, SEEDS_AT),
            second: image.word(head, SEEDS_AT + 1),
            last: image.word(head, SEEDS_AT + 2),
        }
    }

    /// Words of a head, each with its place.
    pub const fn words(self) -> [(u32, u64); 3] {
        [
            (SEEDS_AT, self.first),
            (SEEDS_AT + 1, self.second),
            (SEEDS_AT + 2, self.last),
        ]
    }
}

/// Hash of the first `level` bits (1 to 64) of an address.
#[inline(always)]
pub const fn short(seeds: Seeds, high: u64, level: u32) -> u64 {
    let mixed = first_round(seeds, high >> (64_u32.wrapping_sub(level) & 63), level);
    mixed.wrapping_mul(seeds.last)
}

/// Hash of the first `level` bits (65 to 128) of an address.
#[inline(always)]
pub const fn long(seeds: Seeds, high: u64, low: u64, level: u32) -> u64 {
    let mixed = first_round(seeds, high, level);
    let low = low >> (128_u32.wrapping_sub(level) & 63);
    let sum = mixed.wrapping_add(low).wrapping_mul(seeds.second);
    (sum ^ (sum >> 32)).wrapping_mul(seeds.last)
}

/// The level is part of the key: a /48 and its first /64 must not meet.
#[inline(always)]
const fn first_round(seeds: Seeds, word: u64, level: u32) -> u64 {
    let product = word
        .wrapping_mul(seeds.first)
        .wrapping_add((level as u64) << 32);
    product ^ (product >> 32)
}
