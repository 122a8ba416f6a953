//! What a subscriber can allow or refuse, one purpose at a time (R2).

use std::{fmt, str::FromStr};

/// One purpose of processing that a subscriber can opt out of (R2).
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Match traffic against C&C addresses, to warn of an infection.
    Detect,
    /// Use reports from outside, to warn of an infection.
    Notify,
    /// Use reports from outside, to warn of a vulnerable device.
    Vulnerable,
    /// Drop traffic to C&C addresses.
    Block,
    /// Look for unknown C&C addresses (R12); lawful only together with
    /// [`Purpose::Block`].
    Discover,
}

impl Purpose {
    /// All purposes, in the order of their bits.
    pub const ALL: [Self; 5] = [
        Self::Detect,
        Self::Notify,
        Self::Vulnerable,
        Self::Block,
        Self::Discover,
    ];

    /// The name in lists, options and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Notify => "notify",
            Self::Vulnerable => "vulnerable",
            Self::Block => "block",
            Self::Discover => "discover",
        }
    }

    /// The bit in a [`PurposeSet`]; shared with the kernel, never renumbered.
    pub const fn bit(self) -> u8 {
        match self {
            Self::Detect => 1 << 0,
            Self::Notify => 1 << 1,
            Self::Vulnerable => 1 << 2,
            Self::Block => 1 << 3,
            Self::Discover => 1 << 4,
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no purpose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no purpose (known: detect, notify, vulnerable, block, discover)")]
pub struct UnknownPurpose(pub String);

impl FromStr for Purpose {
    type Err = UnknownPurpose;

    /// Reads a name, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|purpose| purpose.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownPurpose(text.to_owned()))
    }
}

/// A set of purposes, one bit each (see [`Purpose::bit`]).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PurposeSet(u8);

impl PurposeSet {
    /// No purpose.
    pub const NONE: Self = Self(0);
    /// Every purpose.
    pub const ALL: Self = Self(0b1_1111);

    /// The bits, as the kernel reads them.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set of these bits; bits that name no purpose are dropped.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Whether the set holds no purpose.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the set holds the purpose.
    pub const fn contains(self, purpose: Purpose) -> bool {
        self.0 & purpose.bit() != 0
    }

    /// Whether the set holds every purpose of the other.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The purposes in either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The purposes in both sets.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The purposes in this set that are not in the other.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The set as the law lets it stand: discovery falls away where blocking
    /// is not allowed (R2: "discovery is allowed only for subscribers who are
    /// given the blocking service").
    pub const fn lawful(self) -> Self {
        if self.contains(Purpose::Block) {
            self
        } else {
            Self(self.0 & !Purpose::Discover.bit())
        }
    }

    /// The purposes of the set, in the order of their bits.
    pub fn iter(self) -> impl Iterator<Item = Purpose> {
        Purpose::ALL
            .into_iter()
            .filter(move |purpose| self.contains(*purpose))
    }
}

impl From<Purpose> for PurposeSet {
    fn from(purpose: Purpose) -> Self {
        Self(purpose.bit())
    }
}

impl FromIterator<Purpose> for PurposeSet {
    fn from_iter<I: IntoIterator<Item = Purpose>>(purposes: I) -> Self {
        purposes
            .into_iter()
            .fold(Self::NONE, |set, purpose| set.union(purpose.into()))
    }
}

impl fmt::Display for PurposeSet {
    /// Names with commas (`detect,notify`), or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (index, purpose) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(purpose.name())?;
        }
        Ok(())
    }
}

impl FromStr for PurposeSet {
    type Err = UnknownPurpose;

    /// Reads names with commas; an empty item is no purpose.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(Purpose::from_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_are_those_of_the_kernel() {
        let bits = Purpose::ALL.map(Purpose::bit);
        assert_eq!(bits, [1, 2, 4, 8, 16]);
        assert_eq!(
            PurposeSet::ALL,
            Purpose::ALL.into_iter().collect::<PurposeSet>()
        );
    }

    #[test]
    fn every_set_survives_its_text() {
        for bits in 1..=PurposeSet::ALL.bits() {
            let set = PurposeSet::from_bits(bits);
            assert_eq!(set.to_string().parse(), Ok(set));
        }
        assert!("".parse::<PurposeSet>().is_err());
        assert!("detect,".parse::<PurposeSet>().is_err());
        assert!("detekt".parse::<PurposeSet>().is_err());
    }

    #[test]
    fn discovery_falls_with_blocking() {
        let without_block = PurposeSet::ALL.without(Purpose::Block.into());
        assert!(!without_block.lawful().contains(Purpose::Discover));
        assert!(without_block.lawful().contains(Purpose::Detect));
        assert_eq!(PurposeSet::ALL.lawful(), PurposeSet::ALL);
    }
}
