//! Compiled tables: what every packet is asked before any trie is.
//!
//! Three questions, each answered out of a few cache lines of an image that the
//! agent builds (`matcher-user/src/tables/compiled`):
//!
//! - [`filter`]: may a list of prefixes cover this address? No, or maybe.
//! - [`class`]: is this address outside the subscriber space, a subscriber
//!   with the default consent, one who refuses, or one to look at closer?
//! - [`hosts`]: which rules has this single address?
//!
//! The first two are not the last word on a yes: the exact tables are, of which
//! `hosts` is one. On a no, and on all but "look closer", they are.
//!
//! An address is a pair of words: the upper and the lower 64 bits of IPv6 in
//! host order; for IPv4 the address in the upper 32 bits of the first word,
//! the rest zero ([`v4_key`]).

pub mod class;
pub mod filter;
pub mod hash;
pub mod hosts;

/// Words of a cache line of 64 bytes.
pub const LINE_WORDS: u32 = 8;

/// Bytes of it.
pub const LINE_BYTES: u32 = LINE_WORDS * size_of::<u64>() as u32;

/// Where the lines of an image come from: an array map in the kernel, a slice on
/// the host.
pub trait Lines {
    /// A line that is there.
    type Line: Copy;

    /// The line, or `None` past the end of the image. A table that misses a
    /// line answers that the next one must be asked, so that a torn image costs
    /// time and never a wrong answer.
    fn line(&self, index: u32) -> Option<Self::Line>;

    /// Word `at` of the line, of which only the lowest three bits count.
    fn word(&self, line: Self::Line, at: u32) -> u64;

    /// Half `at` of the words that begin with line `first`, of each word the
    /// lower one first; `None` as for [`Lines::line`].
    #[inline(always)]
    fn half_word(&self, first: u32, at: u32) -> Option<u32> {
        let line = self.line(first.wrapping_add(at / (2 * LINE_WORDS)))?;
        Some((self.word(line, at / 2) >> (32 * (at & 1))) as u32)
    }
}

/// The first word of an IPv4 address, given in host order.
#[inline(always)]
pub const fn v4_key(address: u32) -> u64 {
    (address as u64) << 32
}

/// An address in words: of IPv4 the one that [`v4_key`] gives, of IPv6 the upper
/// and the lower half.
pub trait AddressWords: Copy {
    /// Whether it is an IPv6 address.
    const V6: bool;

    /// Both words; the second one of IPv4 is 0.
    fn words(self) -> (u64, u64);
}

impl AddressWords for u64 {
    const V6: bool = false;

    #[inline(always)]
    fn words(self) -> (u64, u64) {
        (self, 0)
    }
}

impl AddressWords for (u64, u64) {
    const V6: bool = true;

    #[inline(always)]
    fn words(self) -> (u64, u64) {
        self
    }
}

/// A line of an image in the host's memory.
pub type Line = [u64; LINE_WORDS as usize];

impl<'a> Lines for &'a [Line] {
    type Line = &'a Line;

    #[inline(always)]
    fn line(&self, index: u32) -> Option<Self::Line> {
        self.get(index as usize)
    }

    #[inline(always)]
    fn word(&self, line: Self::Line, at: u32) -> u64 {
        let at = (at % LINE_WORDS) as usize;
        line.get(at).copied().unwrap_or(u64::MAX)
    }
}
