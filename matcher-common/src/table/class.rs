//! Is an address a subscriber's, and does the default consent hold for it, or
//! a refusal?
//!
//! A tree over the first 64 bits of an address: a root of 65,536 entries,
//! nodes of 256 entries, and last a leaf of 256 times two bits in one line.
//! IPv4 is root, node, leaf, and the leaf has a class for every single
//! address: subscriber space and consent in one walk, exact. IPv6 has room
//! for the subscriber space alone (root, five nodes, leaf, most of them near
//! the root for the prefixes that operators hold); a [`filter`] of the
//! consent entries comes after.
//!
//! An entry is 32 bits: the lowest two a class, the rest the first line of
//! what stands below, 0: nothing. Line 0 is the root's, so that no pointer is
//! lost. No class bit and nothing below: outside.

use super::{Lines, filter};

/// What is known of an address without a look at an exact table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Not in the subscriber space.
    Outside,
    /// In the subscriber space, and no consent entry covers it.
    Default,
    /// In the subscriber space, and every consent entry that covers it refuses
    /// detection, whatever the port.
    Refuses,
    /// The exact tables of subscriber space and consent must be asked.
    Closer,
}

/// Class bits: a subscriber with the default consent.
pub const DEFAULT: u64 = 1;
/// Class bits: look closer.
pub const CLOSER: u64 = 2;
/// Class bits: a subscriber who refuses detection.
pub const REFUSES: u64 = 3;
/// Below an entry with this bit nothing stands.
const LAST: u64 = CLOSER & REFUSES;
/// Bits of a class.
pub const CLASS_BITS: u32 = 2;

/// Lines of the root.
pub const ROOT_LINES: u32 = 4096;
/// Lines of a node.
pub const NODE_LINES: u32 = 16;
/// Lines of a leaf.
pub const LEAF_LINES: u32 = 1;
/// Bits of an address below an entry of the root.
pub const ROOT_SHIFT: u32 = 48;
/// Bits of an address that a node or leaf decides.
pub const STEP: u32 = 8;
/// Bits below an entry of a leaf in the tree of IPv4.
pub const LEAF_SHIFT_V4: u32 = 32;
/// Bits below an entry of a leaf in the tree of IPv6.
pub const LEAF_SHIFT_V6: u32 = 0;

/// The class of an IPv4 address ([`super::v4_key`]).
#[inline(always)]
pub fn class_v4<T: Lines>(tree: &T, key: u64) -> Class {
    walk::<_, LEAF_SHIFT_V4>(tree, key)
}

/// The class of an IPv6 address: the tree of the subscriber space, then, for
/// subscribers alone, the filter of the consent entries.
#[inline(always)]
pub fn class_v6<T: Lines, F: Lines>(tree: &T, consent: &F, high: u64, low: u64) -> Class {
    match walk::<_, LEAF_SHIFT_V6>(tree, high) {
        Class::Default if filter::maybe_v6(consent, high, low) => Class::Closer,
        class => class,
    }
}

#[inline(always)]
fn walk<T: Lines, const LEAF_SHIFT: u32>(tree: &T, key: u64) -> Class {
    let mut entry = match entry(tree, 0, (key >> ROOT_SHIFT) as u32) {
        Some(entry) => entry,
        None => return Class::Closer,
    };
    let mut shift = ROOT_SHIFT - STEP;
    while shift > LEAF_SHIFT {
        let below = entry >> CLASS_BITS;
        if entry & LAST != 0 || below == 0 {
            return class(entry);
        }
        let Some(next) = self::entry(tree, below as u32, (key >> shift) as u32 & 0xff) else {
            return Class::Closer;
        };
        entry = next;
        shift -= STEP;
    }
    let below = entry >> CLASS_BITS;
    if entry & LAST != 0 || below == 0 {
        return class(entry);
    }
    let Some(leaf) = tree.line(below as u32) else {
        return Class::Closer;
    };
    let at = (key >> LEAF_SHIFT) as u32 & 0xff;
    class(tree.word(leaf, at >> 5) >> ((at & 31) * CLASS_BITS))
}

/// Entry `at` of the root or a node that starts at line `first`.
#[inline(always)]
fn entry<T: Lines>(tree: &T, first: u32, at: u32) -> Option<u64> {
    let line = tree.line(first.wrapping_add(at >> 4))?;
    Some((tree.word(line, at >> 1) >> ((at & 1) * 32)) & 0xffff_ffff)
}

#[inline(always)]
fn class(bits: u64) -> Class {
    match bits & ((1 << CLASS_BITS) - 1) {
        DEFAULT => Class::Default,
        CLOSER => Class::Closer,
        REFUSES => Class::Refuses,
        _ => Class::Outside,
    }
}
