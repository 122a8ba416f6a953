//! Is an address a subscriber's, and does the default consent hold for it, or
//! a refusal?
//!
//! A tree over the first 64 bits of an address. The bits that all subscribers have
//! in common are in the head, line 0 ([`head`]): whoever has others is outside, and
//! the tree begins behind them. So an operator with one allocation of IPv6 has two
//! steps to a /56. Then come a root of 65,536 entries, nodes of 256, and leaves of
//! 256 times two bits in one line. What lies below an entry is a leaf where each of
//! its 256 parts is of one class, else a node. So it takes few lines where
//! subscribers have prefixes of one length, as IPv6 has it: a leaf is 256 of them.
//!
//! Of IPv4 it has a class for every single address, of IPv6 one for each /64;
//! where an entry is longer that is "look closer". Should the tree of IPv6 with
//! all consent entries be larger than its map, it has the subscriber space alone,
//! and a [`filter`] the consent entries.
//!
//! An entry is 32 bits: the lowest two a class, the rest the first line of
//! what stands below, 0: nothing. Line 0 is the head, so that no pointer is lost.
//! Above a leaf the class is [`LEAF`], above a node 0. No class and nothing
//! below: outside.

use super::{Lines, filter};

/// What is known of an address without a look at an exact table. The numbers are
/// the bits of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Class {
    /// Not in the subscriber space.
    Outside = 0,
    /// In the subscriber space, and no consent entry covers it.
    Default = 1,
    /// The exact tables of subscriber space and consent must be asked.
    Closer = 2,
    /// In the subscriber space, and every consent entry that covers it refuses
    /// detection, whatever the port.
    Refuses = 3,
}

impl Class {
    /// The class that the lowest two bits say.
    #[inline(always)]
    pub const fn of(bits: u32) -> Self {
        match bits & ((1 << CLASS_BITS) - 1) {
            0 => Self::Outside,
            1 => Self::Default,
            2 => Self::Closer,
            _ => Self::Refuses,
        }
    }
}

/// Words of the head, line 0.
pub mod head {
    /// The bits that all subscribers have in common, in their places.
    pub const COMMON: u32 = 0;
    /// How many they are, less than 64.
    pub const BITS: u32 = 1;
}

/// First line of the root.
pub const ROOT: u32 = 1;
/// Below an entry with this bit nothing stands.
const LAST: u32 = Class::Closer as u32 & Class::Refuses as u32;
/// The class of an entry below which there is a leaf.
pub const LEAF: u32 = Class::Default as u32;
/// Bits of a class.
pub const CLASS_BITS: u32 = 2;
/// Classes in half a word of a leaf.
const CLASSES: u32 = u32::BITS / CLASS_BITS;

/// Lines of the root.
pub const ROOT_LINES: u32 = 4096;
/// Lines of a node.
pub const NODE_LINES: u32 = 16;
/// Lines of a leaf.
pub const LEAF_LINES: u32 = 1;
/// Bits below an entry of the root, of 64 behind those in common.
pub const ROOT_SHIFT: u32 = 48;
/// Bits of an address that a node or leaf decides.
pub const STEP: u32 = 8;
/// Bits below an entry of the lowest leaves in the tree of IPv4 at least.
pub const LAST_SHIFT_V4: u32 = 32;
/// The same in the tree of IPv6.
pub const LAST_SHIFT_V6: u32 = 0;

/// The class of an IPv4 address ([`super::v4_key`]).
#[inline(always)]
pub fn class_v4<T: Lines>(tree: &T, key: u64) -> Class {
    walk::<_, LAST_SHIFT_V4>(tree, key)
}

/// The class of an IPv6 address: the tree, then, for subscribers alone, the filter
/// of the consent entries that the tree does not hold.
#[inline(always)]
pub fn class_v6<T: Lines, F: Lines>(tree: &T, consent: &F, high: u64, low: u64) -> Class {
    match walk::<_, LAST_SHIFT_V6>(tree, high) {
        Class::Default if filter::maybe(consent, (high, low)) => Class::Closer,
        class => class,
    }
}

#[inline(always)]
fn walk<T: Lines, const LAST_SHIFT: u32>(tree: &T, key: u64) -> Class {
    let Some(head) = tree.line(0) else {
        return Class::Closer;
    };
    let bits = tree.word(head, head::BITS) & 63;
    if (key ^ tree.word(head, head::COMMON)) & !(u64::MAX >> bits) != 0 {
        return Class::Outside;
    }
    let key = key << bits;
    let mut below = ROOT;
    let mut at = (key >> ROOT_SHIFT) as u32;
    let mut shift = ROOT_SHIFT;
    while shift > LAST_SHIFT {
        let Some(entry) = tree.half_word(below, at) else {
            return Class::Closer;
        };
        below = entry >> CLASS_BITS;
        if entry & LAST != 0 || below == 0 {
            return Class::of(entry);
        }
        shift -= STEP;
        at = (key >> shift) as u32 & 0xff;
        if entry & LEAF != 0 {
            return match tree.half_word(below, at / CLASSES) {
                Some(classes) => Class::of(classes >> (at % CLASSES * CLASS_BITS)),
                None => Class::Closer,
            };
        }
    }
    // Cannot be: there are no nodes so deep.
    Class::Closer
}
