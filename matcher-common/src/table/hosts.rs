//! The rules of a single address: exact, a line or two of the image away.
//!
//! Line 0 is the head ([`BUCKETS`]), each line behind it a bucket. A host lies in
//! one of two buckets that its hash names ([`buckets`]), so that nearly all
//! find room while the buckets are three quarters full; the builder hands the
//! others to whoever fills the tries.
//!
//! - IPv4, [`SLOTS_V4`] hosts a bucket: a word with the span of each, then
//!   the addresses, two a word, the lower half first.
//! - IPv6, [`SLOTS_V6`] hosts a bucket: two words with the address of each,
//!   then two words with the spans, [`SPAN_BITS_V6`] bits each: the first two
//!   at the bottom of one word each, the third at the top of both.
//!
//! A span is the number of rules above the 32 bits of the first one's index.
//! No rules: the slot is empty. Slots are taken from the first on.
//!
//! The topmost bit of a bucket ([`LEFT_OUT`]): a host that this would have been
//! the first bucket of has found no room. So whoever finds nothing knows whether
//! the tries must be asked.

use super::{
    LINE_WORDS, Lines,
    hash::{self, Seeds},
    v4_key,
};
use crate::abi::RuleSpan;

/// The word of the head, beside those of [`Seeds`], with the number of buckets;
/// 0: no host.
pub const BUCKETS: u32 = 0;

/// Hosts of a bucket of IPv4.
pub const SLOTS_V4: u32 = 5;
/// First word of the addresses in a bucket of IPv4.
pub const KEYS_V4: u32 = 5;

/// Hosts of a bucket of IPv6.
pub const SLOTS_V6: u32 = 3;
/// First word of the spans in a bucket of IPv6.
pub const SPANS_V6: u32 = 6;
/// Bits of a span in a bucket of IPv6.
pub const SPAN_BITS_V6: u32 = 42;
/// Bits of the third span in each of the two words.
pub const SPAN_PART_V6: u32 = u64::BITS - SPAN_BITS_V6;

/// Last word of a bucket.
pub const LAST: u32 = LINE_WORDS - 1;
/// Its bit that says: not all of this bucket are here.
pub const LEFT_OUT: u64 = 1 << 63;

/// What the image knows of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Its rules.
    Listed(RuleSpan),
    /// It is not listed as a host.
    NotListed,
    /// It may be one that found no room in the image.
    Elsewhere,
}

/// The hash of an IPv4 address, given in host order.
#[inline(always)]
pub const fn hash_v4(seeds: Seeds, address: u32) -> u64 {
    hash::short(seeds, v4_key(address), u32::BITS)
}

/// The hash of an IPv6 address, given as its two halves.
#[inline(always)]
pub const fn hash_v6(seeds: Seeds, high: u64, low: u64) -> u64 {
    hash::long(seeds, high, low, u128::BITS)
}

/// The two buckets, of this many, where a host with that hash may lie; they
/// may be the same one. Each is chosen by bits of its own; a product's lowest
/// are its worst.
#[inline(always)]
pub const fn buckets(hash: u64, of: u32) -> [u32; 2] {
    let first = (hash >> 32) * of as u64;
    let second = ((hash >> 12) & 0xffff_ffff) * of as u64;
    [(first >> 32) as u32, (second >> 32) as u32]
}

/// A span as a slot holds it.
#[inline(always)]
pub const fn packed(span: RuleSpan) -> u64 {
    (span.count as u64) << 32 | span.first as u64
}

/// The rules of an IPv4 address, given in host order.
#[inline(always)]
pub fn find_v4<T: Lines>(image: &T, address: u32) -> Host {
    find(
        image,
        |seeds| hash_v4(seeds, address),
        |bucket| in_bucket_v4(image, bucket, address),
    )
}

/// The same for an IPv6 address, given as its two halves.
#[inline(always)]
pub fn find_v6<T: Lines>(image: &T, high: u64, low: u64) -> Host {
    find(
        image,
        |seeds| hash_v6(seeds, high, low),
        |bucket| in_bucket_v6(image, bucket, high, low),
    )
}

#[inline(always)]
fn find<T: Lines>(
    image: &T,
    hash: impl FnOnce(Seeds) -> u64,
    in_bucket: impl Fn(T::Line) -> Option<RuleSpan>,
) -> Host {
    let Some(head) = image.line(0) else {
        return Host::Elsewhere;
    };
    let of = image.word(head, BUCKETS) as u32;
    if of == 0 {
        return Host::NotListed;
    }
    let [first, second] = buckets(hash(Seeds::of(image, head)), of);
    let Some(bucket) = image.line(first.wrapping_add(1)) else {
        return Host::Elsewhere;
    };
    if let Some(span) = in_bucket(bucket) {
        return Host::Listed(span);
    }
    let left_out = image.word(bucket, LAST) & LEFT_OUT != 0;
    let Some(bucket) = image.line(second.wrapping_add(1)) else {
        return Host::Elsewhere;
    };
    match in_bucket(bucket) {
        Some(span) => Host::Listed(span),
        None if left_out => Host::Elsewhere,
        None => Host::NotListed,
    }
}

/// An address of zeros is also what an empty slot has, but behind all slots
/// that are taken: the first that is equal tells.
#[inline(always)]
fn in_bucket_v4<T: Lines>(image: &T, line: T::Line, address: u32) -> Option<RuleSpan> {
    let address = u64::from(address);
    let one = image.word(line, KEYS_V4);
    let other = image.word(line, KEYS_V4 + 1);
    let slot = if one & 0xffff_ffff == address {
        0
    } else if one >> 32 == address {
        1
    } else if other & 0xffff_ffff == address {
        2
    } else if other >> 32 == address {
        3
    } else if image.word(line, KEYS_V4 + 2) & 0xffff_ffff == address {
        4
    } else {
        return None;
    };
    unpacked(image.word(line, slot))
}

#[inline(always)]
fn in_bucket_v6<T: Lines>(image: &T, line: T::Line, high: u64, low: u64) -> Option<RuleSpan> {
    let differs =
        |slot: u32| (image.word(line, slot * 2) ^ high) | (image.word(line, slot * 2 + 1) ^ low);
    let one = image.word(line, SPANS_V6);
    let other = image.word(line, SPANS_V6 + 1);
    let span = if differs(0) == 0 {
        one
    } else if differs(1) == 0 {
        other
    } else if differs(2) == 0 {
        one >> SPAN_BITS_V6 | other >> SPAN_BITS_V6 << SPAN_PART_V6
    } else {
        return None;
    };
    unpacked(span & SPAN_MASK_V6)
}

#[inline(always)]
fn unpacked(span: u64) -> Option<RuleSpan> {
    let count = (span >> 32) as u32;
    if count == 0 {
        return None;
    }
    Some(RuleSpan {
        first: span as u32,
        count,
    })
}

const SPAN_MASK_V6: u64 = (1 << SPAN_BITS_V6) - 1;
