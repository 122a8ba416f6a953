//! Random lists: the same for the same seed.

use std::{
    cmp::Reverse,
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::Family;
use crate::traffic::Random;

/// A random address inside of a prefix.
pub fn inside(prefix: IpNet, random: &mut Random) -> IpAddr {
    let family = match prefix {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    };
    let own = u32::from(family.bits() - prefix.prefix_len());
    let mask = 1u128.checked_shl(own).map_or(u128::MAX, |size| size - 1);
    from_number(family, number_of(prefix.network()) | (wide(random) & mask))
}

/// A random address of the Internet outside of the subscriber space: such as
/// may be listed, and such as is talked to.
pub fn remote(family: Family, random: &mut Random) -> IpAddr {
    match family {
        Family::V4 => loop {
            let address = Ipv4Addr::from(random.next() as u32);
            let [first, second, ..] = address.octets();
            // Space that the guards of feeds refuse, a little more of it than
            // they do.
            let special = matches!(first, 0 | 10 | 127 | 224..)
                || matches!(
                    (first, second),
                    (100, 64..128) | (169, 254) | (192, 0 | 168)
                )
                || matches!((first, second), (172, 16..32));
            if !special {
                break address.into();
            }
        },
        // 2400::/12, of which APNIC gives out.
        Family::V6 => from_number(
            Family::V6,
            (0x240 << 116) | (wide(random) & ((1 << 116) - 1)),
        ),
    }
}

pub(super) fn wide(random: &mut Random) -> u128 {
    u128::from(random.next()) << 64 | u128::from(random.next())
}

pub(super) fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

pub(super) fn from_number(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(number as u32).into(),
        Family::V6 => Ipv6Addr::from(number).into(),
    }
}

/// `count` different prefixes: of twenty, nineteen are hosts and one is a
/// prefix of 20 to 28 bits (IPv4) or 32 to 64 (IPv6). The first so many of
/// them are the list of that size.
pub fn prefixes(family: Family, count: usize, random: &mut Random) -> Vec<IpNet> {
    let mut seen = HashSet::with_capacity(count);
    let mut list = Vec::with_capacity(count);
    while list.len() < count {
        let length = match (list.len() % 20, family) {
            (0, Family::V4) => random.within(20, 29) as u8,
            (0, Family::V6) => random.within(32, 65) as u8,
            _ => family.bits(),
        };
        let Ok(prefix) = IpNet::new(remote(family, random), length) else {
            continue;
        };
        let prefix = prefix.trunc();
        if seen.insert(prefix) {
            list.push(prefix);
        }
    }
    list
}

/// Tells whether any prefix of a list covers an address.
#[derive(Debug)]
pub struct Covered {
    /// Disjoint ranges, first and last address, ascending.
    ranges: Vec<(u128, u128)>,
}

impl Covered {
    /// By these prefixes, all of one family.
    pub fn by(prefixes: &[IpNet]) -> Self {
        let mut ranges: Vec<(u128, u128)> = prefixes
            .iter()
            .map(|prefix| (number_of(prefix.network()), number_of(prefix.broadcast())))
            .collect();
        // Of two with the same beginning the longer range first. Prefixes nest
        // or are disjoint: one that begins inside of the one before lies inside
        // of it.
        ranges.sort_unstable_by_key(|(first, last)| (*first, Reverse(*last)));
        ranges.dedup_by(|later, earlier| later.0 <= earlier.1);
        Self { ranges }
    }

    /// Whether one of them covers the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = number_of(address);
        let after = self.ranges.partition_point(|(first, _)| *first <= number);
        after
            .checked_sub(1)
            .and_then(|index| self.ranges.get(index))
            .is_some_and(|(_, last)| number <= *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_what_the_benchmark_says_it_is() {
        for family in Family::ALL {
            let list = prefixes(family, 1_000, &mut Random::new(1));
            let hosts = list
                .iter()
                .filter(|prefix| prefix.prefix_len() == family.bits());
            assert_eq!(hosts.count(), 950);
            assert_eq!(list.len(), 1_000);
            assert_eq!(list[..100], prefixes(family, 100, &mut Random::new(1)));
        }
    }

    #[test]
    fn covered_agrees_with_asking_every_prefix() {
        for family in Family::ALL {
            let mut random = Random::new(3);
            let list = prefixes(family, 300, &mut random);
            let covered = Covered::by(&list);
            for _ in 0..2_000 {
                let prefix = *random.of(&list);
                for address in [inside(prefix, &mut random), remote(family, &mut random)] {
                    let asked = list.iter().any(|prefix| prefix.contains(&address));
                    assert_eq!(covered.contains(address), asked, "{address}");
                }
            }
        }
    }

    #[test]
    fn a_prefix_covers_all_of_itself_when_another_begins_with_it() {
        for [outer, inner, last] in [
            ["198.51.100.0/24", "198.51.100.0/28", "198.51.100.255"],
            ["2001:db8::/32", "2001:db8::/128", "2001:db8:ffff::"],
        ] {
            let list = [outer, inner].map(|prefix| prefix.parse().unwrap());
            assert!(Covered::by(&list).contains(last.parse().unwrap()));
        }
    }
}
