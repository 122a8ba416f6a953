//! Addresses, prefixes and ports as feeds write them.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

use super::lines::quoted;

/// Why a text is not the address, prefix or port it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Nothing there.
    #[error("no address")]
    Empty,
    /// Neither an IPv4 nor an IPv6 address.
    #[error("{} is not an IPv4 or IPv6 address", quoted(.0))]
    NotAnAddress(String),
    /// A URL.
    #[error("{} is a URL; only addresses and prefixes are read", quoted(.0))]
    Url(String),
    /// A host name.
    #[error("{} is a name; only addresses and prefixes are read", quoted(.0))]
    Name(String),
    /// Brackets around something else than an IPv6 address.
    #[error("{} is in brackets and not an IPv6 address", quoted(.0))]
    NotInBrackets(String),
    /// An opened bracket without its end.
    #[error("{} has no closing ]", quoted(.0))]
    NoClosingBracket(String),
    /// Something else than `:PORT` after `[address]`.
    #[error("{} after the closing ] is not :PORT", quoted(.0))]
    AfterBracket(String),
    /// Length missing, not a number, or too large for the family.
    #[error("prefix length {} is not a number from 0 to {longest}", quoted(.given))]
    PrefixLength {
        /// The text after the slash.
        given: String,
        /// 32 or 128.
        longest: u8,
    },
    /// `192.0.2.0/24:443`.
    #[error("{} has a port behind a prefix; write it as an option of its own", quoted(.0))]
    PortBehindPrefix(String),
    /// Not a port from 1 to 65535.
    #[error("port {} is not a number from 1 to 65535", quoted(.0))]
    Port(String),
    /// A single address was wanted.
    #[error("{} is a prefix; a single address is wanted", quoted(.0))]
    Prefix(String),
    /// A range and a length that contradict each other.
    #[error("{} to {end} is not a /{length}", quoted(.start))]
    NotThePrefix {
        /// First address as given.
        start: String,
        /// Last address.
        end: IpAddr,
        /// Length of the prefix.
        length: u8,
    },
}

/// A prefix, host bits cleared.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) net: IpNet,
    /// The text had host bits set.
    pub(super) had_host_bits: bool,
}

impl Prefix {
    /// The note about host bits, where there is one to make.
    pub(super) fn note(self) -> Option<String> {
        self.had_host_bits.then(|| {
            format!(
                "bits are set beyond the prefix length; read as {}",
                self.net
            )
        })
    }
}

/// Reads `address` or `address/length`.
pub(super) fn prefix(text: &str) -> Result<Prefix, ValueError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) if !text.contains("://") => (address, Some(length)),
        _ => (text, None),
    };
    let address = address_only(address, text)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let wrong_length = || ValueError::PrefixLength {
        given: length.unwrap_or_default().to_owned(),
        longest,
    };
    let length = match length {
        None => longest,
        Some(digits) => number(digits).ok_or_else(wrong_length)?,
    };
    let given = IpNet::new(address, length).map_err(|_| wrong_length())?;
    let net = given.trunc();
    Ok(Prefix {
        net,
        had_host_bits: net.addr() != given.addr(),
    })
}

/// Reads a single address.
pub(super) fn address(text: &str) -> Result<IpNet, ValueError> {
    let prefix = prefix(text)?;
    if text.contains('/') {
        return Err(ValueError::Prefix(text.to_owned()));
    }
    Ok(prefix.net)
}

/// Reads `address`, `address/length`, `v4:port`, `[v6]` or `[v6]:port`.
pub(super) fn prefix_and_port(text: &str) -> Result<(Prefix, Option<u16>), ValueError> {
    if let Some(inside) = text.strip_prefix('[') {
        let (address, rest) = inside
            .split_once(']')
            .ok_or_else(|| ValueError::NoClosingBracket(text.to_owned()))?;
        let address: Ipv6Addr = address
            .parse()
            .map_err(|_| ValueError::NotInBrackets(address.to_owned()))?;
        let port = match rest {
            "" => None,
            _ => Some(port(
                rest.strip_prefix(':')
                    .ok_or_else(|| ValueError::AfterBracket(rest.to_owned()))?,
            )?),
        };
        let prefix = Prefix {
            net: IpNet::from(IpAddr::V6(address)),
            had_host_bits: false,
        };
        return Ok((prefix, port));
    }
    // One colon: no IPv6 address has so few.
    match text.split_once(':') {
        Some((address, digits)) if !digits.contains(':') && !digits.starts_with("//") => {
            if address.contains('/') {
                return Err(ValueError::PortBehindPrefix(text.to_owned()));
            }
            Ok((prefix(address)?, Some(port(digits)?)))
        }
        _ => Ok((prefix(text)?, None)),
    }
}

/// Reads `ADDR`, `ADDR:PORT` or `[V6]:PORT`, as `feed lookup` takes it.
///
/// # Errors
///
/// When the text is none of these, or a prefix.
pub fn address_and_port(text: &str) -> Result<(IpAddr, Option<u16>), ValueError> {
    let (prefix, port) = prefix_and_port(text.trim())?;
    if text.contains('/') {
        return Err(ValueError::Prefix(text.to_owned()));
    }
    Ok((prefix.net.addr(), port))
}

/// Reads a port from 1 to 65535.
pub(super) fn port(text: &str) -> Result<u16, ValueError> {
    number(text)
        .filter(|port| *port != 0)
        .ok_or_else(|| ValueError::Port(text.to_owned()))
}

/// Reads digits and nothing else: `FromStr` of the integers takes a `+` too.
pub(super) fn number<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// Reads an address; `whole` is what the message shows.
fn address_only(text: &str, whole: &str) -> Result<IpAddr, ValueError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let whole = whole.to_owned();
    Err(if whole.is_empty() {
        ValueError::Empty
    } else if whole.contains("://") {
        ValueError::Url(whole)
    } else if is_name(text) {
        ValueError::Name(whole)
    } else {
        ValueError::NotAnAddress(whole)
    })
}

/// Looks like a host name: labels with a dot between them, the last one with
/// a letter in it.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*'))
    };
    text.rsplit_once('.').is_some_and(|(front, last)| {
        front.split('.').all(label)
            && label(last)
            && last.bytes().any(|byte| byte.is_ascii_alphabetic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, Option<u16>) {
        let (prefix, port) = prefix_and_port(text).unwrap();
        (prefix.net.to_string(), port)
    }

    #[test]
    fn every_way_to_write_an_address_is_read() {
        for (text, value, port) in [
            ("192.0.2.7", "192.0.2.7/32", None),
            ("192.0.2.0/24", "192.0.2.0/24", None),
            ("192.0.2.7:443", "192.0.2.7/32", Some(443)),
            ("2001:db8::7", "2001:db8::7/128", None),
            ("2001:DB8:0:0::/48", "2001:db8::/48", None),
            ("[2001:db8::7]:80", "2001:db8::7/128", Some(80)),
            ("[2001:db8::7]", "2001:db8::7/128", None),
            ("::ffff:192.0.2.7", "::ffff:192.0.2.7/128", None),
        ] {
            assert_eq!(read(text), (value.to_owned(), port), "{text}");
        }
    }

    #[test]
    fn host_bits_are_cleared_and_noted() {
        let read = prefix("192.0.2.7/24").unwrap();
        assert_eq!(read.net.to_string(), "192.0.2.0/24");
        insta::assert_snapshot!(
            read.note().unwrap(),
            @"bits are set beyond the prefix length; read as 192.0.2.0/24"
        );
        assert_eq!(prefix("192.0.2.7/32").unwrap().note(), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let message = |text: &str| prefix_and_port(text).unwrap_err().to_string();
        let messages: Vec<String> = [
            "",
            "192.0.2",
            "192.0.2.007",
            "192.0.2.0/33",
            "192.0.2.0/",
            "192.0.2.0/+8",
            "192.0.2.0/255.255.255.0",
            "2001:db8::/129",
            "192.0.2.7:0",
            "192.0.2.7:65536",
            "192.0.2.7:+80",
            "192.0.2.7:",
            "192.0.2.0/24:443",
            "[2001:db8::7",
            "[2001:db8::7]80",
            "[192.0.2.7]:80",
            "fe80::1%eth0",
            "c2.example",
            "c2.example:443",
            "http://192.0.2.7/x",
            "http://192.0.2.7:80/x",
            "\u{1b}[31m",
        ]
        .iter()
        .map(|text| message(text))
        .collect();
        insta::assert_snapshot!(messages.join("\n"));
    }

    #[test]
    fn a_lookup_takes_an_address_and_no_prefix() {
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        assert_eq!(address_and_port(" [2001:db8::7]:80 "), Ok((v6, Some(80))));
        assert_eq!(address_and_port("2001:db8::7"), Ok((v6, None)));
        assert!(matches!(
            address_and_port("192.0.2.7/32"),
            Err(ValueError::Prefix(_))
        ));
    }

    #[test]
    fn a_message_never_repeats_a_whole_file() {
        let long = "x".repeat(100_000);
        assert!(prefix(&long).unwrap_err().to_string().len() < 200);
    }
}
