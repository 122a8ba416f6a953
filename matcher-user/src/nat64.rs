//! IPv4 addresses inside IPv6 addresses: what a NAT64 sends to an address of
//! its prefix goes to the IPv4 address that it carries (RFC 6052).

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::{IpNet, Ipv6Net};
use matcher_common::abi::Nat64Bytes;

use crate::subscribers::exact_prefix;

/// NAT64 prefixes that the kernel's table takes.
pub const MAX_NAT64_PREFIXES: usize = 64;

/// A NAT64 prefix, as `64:ff9b::/96`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nat64Prefix {
    prefix: Ipv6Net,
    places: Nat64Bytes,
}

/// A text that is no NAT64 prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nat64Error {
    /// It is no prefix.
    #[error("{0}")]
    Prefix(String),
    /// It is one of IPv4.
    #[error("{0} is no IPv6 prefix; a NAT64 prefix looks like 64:ff9b::/96")]
    Family(IpNet),
    /// Addresses of that length carry nothing.
    #[error("{0}: a NAT64 prefix has a length of 32, 40, 48, 56, 64 or 96 (RFC 6052 section 2.2)")]
    Length(Ipv6Net),
    /// The octet at bits 64 to 71.
    #[error("{0}: bits 64 to 71 of a NAT64 prefix must be zero (RFC 6052 section 2.2)")]
    Octet(Ipv6Net),
}

impl FromStr for Nat64Prefix {
    type Err = Nat64Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match exact_prefix(text).map_err(Nat64Error::Prefix)? {
            IpNet::V6(prefix) => Self::new(prefix),
            prefix => Err(Nat64Error::Family(prefix)),
        }
    }
}

impl fmt::Display for Nat64Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prefix)
    }
}

impl Nat64Prefix {
    /// The prefix, if it can be one.
    ///
    /// # Errors
    /// Its length, or that it sets the octet that has to be zero.
    pub fn new(prefix: Ipv6Net) -> Result<Self, Nat64Error> {
        // The IPv4 address follows the prefix, and leaves out byte 8.
        let places = match prefix.prefix_len() {
            32 => [4, 5, 6, 7],
            40 => [5, 6, 7, 9],
            48 => [6, 7, 9, 10],
            56 => [7, 9, 10, 11],
            64 => [9, 10, 11, 12],
            96 => [12, 13, 14, 15],
            _ => return Err(Nat64Error::Length(prefix)),
        };
        let [.., octet, _, _, _, _, _, _, _] = prefix.network().octets();
        if octet != 0 {
            return Err(Nat64Error::Octet(prefix));
        }
        Ok(Self { prefix, places })
    }

    /// The prefix.
    pub fn prefix(&self) -> Ipv6Net {
        self.prefix
    }

    /// Where its addresses carry the four bytes of the IPv4 address.
    pub fn places(&self) -> Nat64Bytes {
        self.places
    }

    /// The address of the prefix that carries this IPv4 address; its suffix is
    /// zero.
    pub fn embed(&self, address: Ipv4Addr) -> std::net::Ipv6Addr {
        let mut bytes = self.prefix.network().octets();
        for (place, byte) in self.places.into_iter().zip(address.octets()) {
            if let Some(slot) = bytes.get_mut(usize::from(place)) {
                *slot = byte;
            }
        }
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_carry_ipv4_as_the_table_of_the_rfc_says() {
        // RFC 6052 section 2.4.
        for (prefix, expected) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let prefix: Nat64Prefix = prefix.parse().unwrap();
            let address = prefix.embed(Ipv4Addr::new(192, 0, 2, 33));
            assert_eq!(address, expected.parse::<std::net::Ipv6Addr>().unwrap());
        }
    }

    #[test]
    fn what_cannot_be_a_nat64_prefix_is_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Nat64Prefix>().unwrap_err().to_string();
        insta::assert_snapshot!(error("64:ff9b::/95"), @"64:ff9b::/95: a NAT64 prefix has a length of 32, 40, 48, 56, 64 or 96 (RFC 6052 section 2.2)");
        insta::assert_snapshot!(error("2001:db8:1:2:ff00::/96"), @"2001:db8:1:2:ff00::/96: bits 64 to 71 of a NAT64 prefix must be zero (RFC 6052 section 2.2)");
        insta::assert_snapshot!(error("192.0.2.0/24"), @"192.0.2.0/24 is no IPv6 prefix; a NAT64 prefix looks like 64:ff9b::/96");
        insta::assert_snapshot!(error("64:ff9b::1/96"), @"64:ff9b::1/96 is an address inside a prefix: write 64:ff9b::/96, or the address alone");
        assert!("x".parse::<Nat64Prefix>().is_err());
    }
}
