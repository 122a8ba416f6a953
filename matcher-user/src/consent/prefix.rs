//! Addresses and prefixes as people write them in lists and in the config.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net};

/// A prefix that was read, and whether it was written with bits beyond its
/// length (`203.0.113.7/24`), which leaves in doubt what was meant.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ReadPrefix {
    /// The prefix, host bits cleared; IPv4-mapped IPv6 is given as IPv4.
    pub net: IpNet,
    /// The text had host bits.
    pub host_bits: bool,
}

/// A prefix in a subscriber space; ordered so that in each space a prefix
/// stands before those it covers.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpacePrefix {
    /// The space; 0 is that of the packets whose VLAN has none of its own.
    pub space: u32,
    /// The prefix, without host bits.
    pub prefix: IpNet,
}

impl From<IpNet> for SpacePrefix {
    /// In space 0.
    fn from(prefix: IpNet) -> Self {
        Self { space: 0, prefix }
    }
}

impl fmt::Display for SpacePrefix {
    /// The prefix, and the space unless it is 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prefix)?;
        if self.space != 0 {
            write!(f, " space={}", self.space)?;
        }
        Ok(())
    }
}

/// A text that is neither an address nor a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The part before the slash is no address.
    #[error("{0:?} is no IPv4 or IPv6 address")]
    Address(String),
    /// The part after the slash is no length from 0 to 32 (IPv4) or 128.
    #[error("{length:?} is no prefix length from 0 to {max}")]
    Length {
        /// What stands after the slash.
        length: String,
        /// The longest length of the family.
        max: u8,
    },
}

/// Reads an address (a prefix of full length) or a prefix `ADDRESS/LENGTH`.
///
/// # Errors
/// Says which part cannot be read.
pub fn read_prefix(text: &str) -> Result<ReadPrefix, PrefixError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let ip: IpAddr = address
        .parse()
        .map_err(|_| PrefixError::Address(shortened(address)))?;
    let max = if ip.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => max,
        // `u8::from_str` also takes "+8", which nobody writes on purpose.
        Some(text) => text
            .parse()
            .ok()
            .filter(|length| *length <= max && text.bytes().all(|b| b.is_ascii_digit()))
            .ok_or_else(|| PrefixError::Length {
                length: shortened(text),
                max,
            })?,
    };
    let net = IpNet::new(ip, length).map_err(|_| PrefixError::Length {
        length: length.to_string(),
        max,
    })?;
    Ok(ReadPrefix {
        net: unmapped(net.trunc()),
        host_bits: net.trunc() != net,
    })
}

/// `::ffff:203.0.113.7` is the IPv4 address in another notation (RFC 4291
/// section 2.5.5.2): on the wire it is an IPv4 packet.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped_length = v6.prefix_len().checked_sub(96);
    match (v6.addr().to_ipv4_mapped(), mapped_length) {
        (Some(v4), Some(length)) => Ipv4Net::new(v4, length).map_or(net, IpNet::V4),
        _ => net,
    }
}

/// First address of the prefix as a number.
pub(crate) fn first(net: &IpNet) -> u128 {
    match net {
        IpNet::V4(net) => u128::from(u32::from(net.network())),
        IpNet::V6(net) => u128::from(net.network()),
    }
}

/// Last address of the prefix as a number.
pub(crate) fn last(net: &IpNet) -> u128 {
    match net {
        IpNet::V4(net) => u128::from(u32::from(net.broadcast())),
        IpNet::V6(net) => u128::from(net.broadcast()),
    }
}

/// The address as a number.
pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => Ipv6Addr::into(ip),
    }
}

/// Text for a message: a broken file can hold a line of any length.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_and_prefixes_are_read() {
        for (text, expected, host_bits) in [
            ("203.0.113.7", "203.0.113.7/32", false),
            ("203.0.113.0/24", "203.0.113.0/24", false),
            ("203.0.113.7/24", "203.0.113.0/24", true),
            ("2001:db8:100::/56", "2001:db8:100::/56", false),
            ("::ffff:203.0.113.7", "203.0.113.7/32", false),
            ("::ffff:203.0.113.0/120", "203.0.113.0/24", false),
            ("::/0", "::/0", false),
            ("0.0.0.0/0", "0.0.0.0/0", false),
        ] {
            let read = read_prefix(text).unwrap();
            assert_eq!((read.net, read.host_bits), (net(expected), host_bits));
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in [
            "",
            "/",
            "203.0.113",
            "203.0.113.007",
            "203.0.113.7/33",
            "203.0.113.7/+8",
            "203.0.113.7/",
            "2001:db8::/129",
            "fe80::1%eth0",
            "example.net",
        ] {
            assert!(read_prefix(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f:./]{0,40}|\\PC{0,80}") {
            if let Ok(read) = read_prefix(&text) {
                prop_assert_eq!(read.net, read.net.trunc());
            }
        }

        #[test]
        fn every_prefix_survives_its_text(bits: u128, length in 0u8..=128, v4: bool) {
            let net = if v4 {
                IpNet::new(IpAddr::V4((bits as u32).into()), length % 33).unwrap()
            } else {
                // Not mapped IPv4, which is given back as IPv4.
                IpNet::new(IpAddr::V6((bits | 1 << 127).into()), length).unwrap()
            };
            prop_assert_eq!(read_prefix(&net.trunc().to_string()).unwrap().net, net.trunc());
        }
    }
}
