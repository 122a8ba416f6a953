//! A set of prefixes that is asked "does any of you cover this address?".

use std::net::IpAddr;

use ipnet::IpNet;

/// Prefixes without overlaps, in address order.
#[derive(Debug)]
pub(crate) struct Prefixes(Vec<IpNet>);

impl Prefixes {
    /// Overlapping and adjacent prefixes become one.
    pub(crate) fn new(prefixes: &[IpNet]) -> Self {
        let mut merged = IpNet::aggregate(&prefixes.to_vec());
        merged.sort_unstable();
        Self(merged)
    }

    /// An IPv4 address is never covered by an IPv6 prefix, nor the reverse.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let after = self.0.partition_point(|net| net.network() <= address);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|net| net.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_set_covers_what_any_of_its_prefixes_covers(
            prefixes in prop::collection::vec((any::<u8>(), 24..=32_u8), 0..12),
            host in any::<u8>(),
        ) {
            let prefixes: Vec<IpNet> = prefixes
                .iter()
                .map(|(last, length)| {
                    IpNet::new(Ipv4Addr::new(203, 0, 113, *last).into(), *length).unwrap().trunc()
                })
                .collect();
            let address = IpAddr::from(Ipv4Addr::new(203, 0, 113, host));
            prop_assert_eq!(
                Prefixes::new(&prefixes).contains(address),
                prefixes.iter().any(|net| net.contains(&address)),
            );
        }
    }

    #[test]
    fn a_mapped_address_is_not_the_ipv4_address() {
        let set = Prefixes::new(&["203.0.113.0/24".parse().unwrap()]);
        assert!(set.contains("203.0.113.7".parse().unwrap()));
        assert!(!set.contains("::ffff:203.0.113.7".parse().unwrap()));
    }
}
