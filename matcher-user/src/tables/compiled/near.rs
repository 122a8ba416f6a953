//! How a filter knows where prefixes are: by how many first bits of an address
//! its reach and its gate go.
//!
//! The finer, the fewer addresses ask for prefixes without cause; the coarser,
//! the less of the caches it takes.

use super::Family;
use matcher_common::table::{
    LINE_WORDS,
    filter::{DIRECT_BITS, REACH_LEVEL_V6},
};

/// Number of prefixes of each length.
pub(super) type Lengths = [u64; 129];

/// Keys of a gate, at most: where prefixes are not few beside the hosts, a
/// gate costs a load and spares none.
pub(super) const fn gate_limit(entries: u64) -> u64 {
    entries / 4 + 4_096
}

/// A reach, of 2 to the power of so many bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// There is no prefix: no bit is set.
    Nowhere,
    /// The bits of prefixes are set.
    Bits(u32),
    /// So many prefixes that it would spare few: all bits are set.
    Everywhere,
}

/// Bits of a number of a bit in a reach, 128 KiB at most: as many as make one of
/// sixteen bits set or fewer, else as many as there may be.
const LEAST_REACH_BITS: u32 = 16;
const MOST_REACH_BITS: u32 = 20;
const REACH_SPARES: u64 = 16;
/// With more than one of so many bits set a reach spares few.
const REACH_SPARES_AT_LEAST: u64 = 4;

/// Bits of a reach, at most.
pub(super) const fn reach_limit() -> u64 {
    1 << MOST_REACH_BITS
}

impl Reach {
    /// The reach of prefixes of these lengths.
    pub(super) fn new(family: Family, lengths: &Lengths) -> Self {
        // That a prefix sets, at most.
        let set = |bits: u32, length: u32| match family {
            Family::V4 => 1 << bits.saturating_sub(length),
            Family::V6 => 1_u64 << REACH_LEVEL_V6.saturating_sub(length),
        };
        let all_set = |bits: u32| {
            lengths
                .iter()
                .take(usize::from(family.host()))
                .zip(0_u32..)
                .map(|(count, length)| count.saturating_mul(set(bits, length)))
                .fold(0, u64::saturating_add)
        };
        let spares = |bits: u32, times: u64| all_set(bits).saturating_mul(times) <= 1 << bits;
        if all_set(0) == 0 {
            Self::Nowhere
        } else if !spares(MOST_REACH_BITS, REACH_SPARES_AT_LEAST) {
            Self::Everywhere
        } else {
            let enough =
                (LEAST_REACH_BITS..MOST_REACH_BITS).find(|bits| spares(*bits, REACH_SPARES));
            Self::Bits(enough.unwrap_or(MOST_REACH_BITS))
        }
    }

    /// Bits of the number of a bit in it.
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Bits(bits) => bits,
            // A line.
            Self::Nowhere | Self::Everywhere => (LINE_WORDS * u64::BITS).ilog2(),
        }
    }

    /// First bits of an address that it goes by.
    pub(super) const fn level(self, family: Family) -> u8 {
        match family {
            Family::V4 => self.bits() as u8,
            Family::V6 => REACH_LEVEL_V6 as u8,
        }
    }
}

/// A gate: whether a prefix lies where the first bits of an address say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    /// How many of them.
    pub(super) level: u8,
    /// Keys that the prefixes make there, at most.
    pub(super) keys: u64,
}

impl Gate {
    /// The finest gate of the prefixes with these lengths that takes no more than
    /// [`gate_limit`] keys and two for each of them. `None`: they are so many that
    /// any would be open nearly everywhere.
    pub(super) fn new(family: Family, lengths: &Lengths, entries: u64) -> Option<Self> {
        let first = DIRECT_BITS as u8 + 1;
        let prefixes = || {
            let counts = lengths.iter().copied().zip(0..family.host());
            counts.skip(first.into())
        };
        let keys = |level: u8| {
            prefixes()
                .map(|(count, length)| count.saturating_mul(1 << level.saturating_sub(length)))
                .fold(0, u64::saturating_add)
        };
        let twice = prefixes().map(|(count, _)| count * 2).sum();
        let limit = gate_limit(entries).min(twice);
        (first..=family.host().min(64))
            .rev()
            .map(|level| Self {
                level,
                keys: keys(level),
            })
            .find(|gate| gate.keys <= limit)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn lengths(counts: &[(u8, u64)]) -> Lengths {
        let mut lengths = [0; 129];
        for (length, count) in counts {
            lengths[usize::from(*length)] = *count;
        }
        lengths
    }

    #[test]
    fn a_gate_is_as_fine_as_two_keys_a_prefix_allow() {
        let gate = |family, counts: &[(u8, u64)]| {
            let entries = counts.iter().map(|(_, count)| count).sum();
            Gate::new(family, &lengths(counts), entries)
        };
        let level = |family, counts: &[(u8, u64)]| gate(family, counts).map(|at| at.level);
        assert_eq!(level(Family::V6, &[(48, 10), (128, 1_000)]), Some(49));
        assert_eq!(level(Family::V6, &[(64, 10), (128, 1_000)]), Some(64));
        assert_eq!(level(Family::V4, &[(24, 10), (32, 1_000)]), Some(25));
        let mut all: Vec<(u8, u64)> = (32..65).map(|length| (length, 1_500)).collect();
        all.push((128, 950_000));
        assert_eq!(level(Family::V6, &all), Some(36));
        // More prefixes than hosts, and nothing that a gate is asked for.
        assert_eq!(gate(Family::V6, &[(56, 1_000_000)]), None);
        let none = gate(Family::V4, &[(8, 3), (32, 5)]);
        assert_eq!(none.map(|at| at.keys), Some(0));
    }

    #[test]
    fn a_reach_is_as_fine_as_its_prefixes_are_many() {
        let v4 = |counts: &[(u8, u64)]| Reach::new(Family::V4, &lengths(counts));
        assert_eq!(v4(&[(24, 1), (32, 1_000_000)]), Reach::Bits(16));
        assert_eq!(v4(&[(8, 3), (24, 200)]), Reach::Bits(16));
        assert_eq!(v4(&[(24, 20_000)]), Reach::Bits(19));
        assert_eq!(v4(&[(24, 100_000)]), Reach::Bits(20));
        assert_eq!(v4(&[(24, 1_000_000)]), Reach::Everywhere);
        assert_eq!(v4(&[(0, 1)]), Reach::Everywhere);
        assert_eq!(v4(&[(32, 1_000)]), Reach::Nowhere);

        let v6 = |counts: &[(u8, u64)]| Reach::new(Family::V6, &lengths(counts));
        assert_eq!(v6(&[(48, 4_096), (128, 1_000_000)]), Reach::Bits(16));
        assert_eq!(v6(&[(48, 50_000)]), Reach::Bits(20));
        assert_eq!(v6(&[(16, 1)]), Reach::Bits(20));
        assert_eq!(v6(&[(12, 1)]), Reach::Everywhere);
        assert_eq!(v6(&[(0, 1)]), Reach::Everywhere);
        assert_eq!(v6(&[(128, 1_000)]), Reach::Nowhere);
    }
}
