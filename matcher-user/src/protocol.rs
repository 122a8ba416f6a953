//! IP protocol numbers as people read them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers"). JSON
/// and text give the name of the five that hits usually carry, else the
/// number.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

const NAMES: [(u8, &str); 5] = [
    (1, "icmp"),
    (6, "tcp"),
    (17, "udp"),
    (58, "icmpv6"),
    (132, "sctp"),
];

impl Protocol {
    /// TCP, protocol 6.
    pub const TCP: Self = Self(6);
    /// UDP, protocol 17.
    pub const UDP: Self = Self(17);

    /// The name, for the protocols that have one here.
    pub fn name(self) -> Option<&'static str> {
        NAMES
            .iter()
            .find(|(number, _)| *number == self.0)
            .map(|(_, name)| *name)
    }

    /// Reads a name (any case) or a number from 0 to 255.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        NAMES
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text))
            .map(|(number, _)| Self(*number))
            .or_else(|| text.parse().ok().map(Self))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_u8(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u8),
            Name(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(Self(number)),
            Form::Name(name) => Self::parse(&name)
                .ok_or_else(|| de::Error::custom(format!("unknown protocol {name:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_json() {
        for number in 0..=u8::MAX {
            let json = serde_json::to_string(&Protocol(number)).unwrap();
            let back: Protocol = serde_json::from_str(&json).unwrap();
            assert_eq!(back, Protocol(number));
        }
    }

    #[test]
    fn names_and_numbers_are_read_and_others_refused() {
        assert_eq!(Protocol::parse(" TCP "), Some(Protocol::TCP));
        assert_eq!(Protocol::parse("47"), Some(Protocol(47)));
        assert_eq!(Protocol::parse("256"), None);
        assert_eq!(Protocol::parse("quic"), None);
    }
}
