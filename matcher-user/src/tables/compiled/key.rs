//! Prefixes as the look-ups see addresses: two words, from the top.

use ipnet::IpNet;
use matcher_common::table::v4_key;

/// An address family; each has tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Length of a prefix that is a single address.
    pub(super) const fn host(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// A prefix: an address without bits past the length, and the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) high: u64,
    pub(super) low: u64,
    pub(super) length: u8,
}

impl Key {
    /// `None` for a prefix of the other family.
    pub(super) fn of(family: Family, prefix: &IpNet) -> Option<Self> {
        let (high, low, length) = match (family, prefix) {
            (Family::V4, IpNet::V4(net)) => (v4_key(net.network().to_bits()), 0, net.prefix_len()),
            (Family::V6, IpNet::V6(net)) => {
                let bits = net.network().to_bits();
                ((bits >> 64) as u64, bits as u64, net.prefix_len())
            }
            _ => return None,
        };
        Some(Self { high, low, length })
    }

    /// First and last value of the first word.
    pub(super) fn span(self) -> (u64, u64) {
        let free = u64::MAX.checked_shr(self.length.into()).unwrap_or(0);
        (self.high, self.high | free)
    }

    /// The first `length` bits, of a length not above the own one.
    pub(super) fn cut(self, length: u8) -> Self {
        let bits = u128::from(self.high) << 64 | u128::from(self.low);
        let kept = !u128::MAX.checked_shr(length.into()).unwrap_or(0);
        Self::from_bits(bits & kept, length)
    }

    /// All prefixes of a length not below the own one that the prefix covers.
    pub(super) fn spread(self, length: u8) -> impl Iterator<Item = Self> {
        let bits = u128::from(self.high) << 64 | u128::from(self.low);
        let more = u32::from(length.saturating_sub(self.length));
        let step = 128_u32.saturating_sub(length.into());
        let count = 1_u64.checked_shl(more).unwrap_or(u64::MAX);
        (0..count).map(move |at| {
            Self::from_bits(bits | u128::from(at).checked_shl(step).unwrap_or(0), length)
        })
    }

    fn from_bits(bits: u128, length: u8) -> Self {
        Self {
            high: (bits >> 64) as u64,
            low: bits as u64,
            length,
        }
    }
}
