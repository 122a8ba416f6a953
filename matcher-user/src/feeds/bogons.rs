//! Address space that no C&C server on the Internet can have.
//!
//! Documentation and benchmark ranges (192.0.2.0/24, 198.51.100.0/24,
//! 203.0.113.0/24, 2001:db8::/32, 198.18.0.0/15) are *not* refused although
//! nobody routes them: samples, demos and tests are made of them, and an entry
//! that covers only addresses which nobody can have accuses nobody.

use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why a prefix is a bogon; reads on from it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Bogon {
    /// It lies in a special range, or contains it.
    Overlaps {
        range: IpNet,
        what: &'static str,
        contains: bool,
    },
    /// IPv6 of which nothing is given out.
    NotGlobalUnicast,
}

impl fmt::Display for Bogon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlaps {
                range,
                what,
                contains,
            } => {
                let verb = if *contains { "contains" } else { "is in" };
                write!(f, "{verb} {range}, {what}")
            }
            Self::NotGlobalUnicast => write!(f, "is outside 2000::/3, not global unicast"),
        }
    }
}

/// RFC 1918.
const PRIVATE_V4: [(Ipv4Net, &str); 3] = [
    (v4([10, 0, 0, 0], 8), "private space (RFC 1918)"),
    (v4([172, 16, 0, 0], 12), "private space (RFC 1918)"),
    (v4([192, 168, 0, 0], 16), "private space (RFC 1918)"),
];

/// IANA IPv4 Special-Purpose Address Registry (RFC 6890), without what the
/// module leaves out.
const BOGONS_V4: [(Ipv4Net, &str); 7] = [
    (v4([0, 0, 0, 0], 8), "\"this network\" (RFC 791)"),
    (
        v4([100, 64, 0, 0], 10),
        "shared space behind carrier NAT (RFC 6598)",
    ),
    (v4([127, 0, 0, 0], 8), "loopback (RFC 1122)"),
    (v4([169, 254, 0, 0], 16), "link-local (RFC 3927)"),
    (
        v4([192, 0, 0, 0], 24),
        "IETF protocol assignments (RFC 6890)",
    ),
    (v4([224, 0, 0, 0], 4), "multicast (RFC 5771)"),
    (v4([240, 0, 0, 0], 4), "reserved (RFC 1112)"),
];

/// RFC 4193.
const PRIVATE_V6: (Ipv6Net, &str) = (v6(0xfc00, 7), "unique local space (RFC 4193)");

/// IANA IPv6 Special-Purpose Address Registry, the ranges people meet; all
/// others outside of 2000::/3 (RFC 3587) are refused without a name.
const BOGONS_V6: [(Ipv6Net, &str); 3] = [
    (
        v6(0, 8),
        "reserved, with loopback and mapped IPv4 (RFC 4291); write IPv4 as IPv4",
    ),
    (v6(0xfe80, 10), "link-local (RFC 4291)"),
    (v6(0xff00, 8), "multicast (RFC 4291)"),
];

/// RFC 3587.
const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 3);

const fn v4(octets: [u8; 4], len: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(a, b, c, d), len)
}

const fn v6(first: u16, len: u8) -> Ipv6Net {
    Ipv6Net::new_assert(std::net::Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), len)
}

/// The bogon range that `value` lies in or contains.
pub(super) fn bogon(value: IpNet, allow_private: bool) -> Option<Bogon> {
    let named = |range: IpNet, what| {
        let contains = range.prefix_len() > value.prefix_len();
        overlap(range, value).then_some(Bogon::Overlaps {
            range,
            what,
            contains,
        })
    };
    match value {
        IpNet::V4(_) => {
            let private = if allow_private { &[][..] } else { &PRIVATE_V4 };
            private
                .iter()
                .chain(&BOGONS_V4)
                .find_map(|(range, what)| named((*range).into(), what))
        }
        IpNet::V6(net) => {
            let (private, what) = PRIVATE_V6;
            if private.contains(&net) && allow_private {
                return None;
            }
            named(private.into(), what)
                .or_else(|| {
                    BOGONS_V6
                        .iter()
                        .find_map(|(range, what)| named((*range).into(), what))
                })
                .or_else(|| (!GLOBAL_UNICAST.contains(&net)).then_some(Bogon::NotGlobalUnicast))
        }
    }
}

/// Two prefixes overlap exactly when one contains the other: when they agree in
/// the bits of the shorter one. Asked a dozen times for each entry of a list.
pub(super) fn overlap(a: IpNet, b: IpNet) -> bool {
    let agree = match (a, b) {
        (IpNet::V4(a), IpNet::V4(b)) => (a.addr().to_bits() ^ b.addr().to_bits()).leading_zeros(),
        (IpNet::V6(a), IpNet::V6(b)) => (a.addr().to_bits() ^ b.addr().to_bits()).leading_zeros(),
        _ => return false,
    };
    agree >= u32::from(a.prefix_len().min(b.prefix_len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Prefixes that are often inside one another, host bits as they come.
    fn any_prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (0_u32..16, 0_u8..=32).prop_map(|(bits, length)| {
            let address = std::net::Ipv4Addr::from_bits(bits << 28 | bits);
            Ipv4Net::new(address, length).unwrap().into()
        });
        let v6 = (0_u128..16, 0_u8..=128).prop_map(|(bits, length)| {
            let address = std::net::Ipv6Addr::from_bits(bits << 124 | bits);
            Ipv6Net::new(address, length).unwrap().into()
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn prefixes_overlap_when_one_contains_the_other(a in any_prefix(), b in any_prefix()) {
            prop_assert_eq!(overlap(a, b), a.contains(&b) || b.contains(&a), "{} {}", a, b);
        }
    }
}
