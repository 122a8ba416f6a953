//! The Traffic Light Protocol (FIRST, TLP 2.0): to whom an entry may be
//! passed on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A marking; the strictest is the greatest.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tlp {
    /// No limit. TLP 1.0 called it white.
    #[serde(rename = "clear")]
    Clear,
    /// Within the community.
    #[serde(rename = "green")]
    Green,
    /// Within the organisation and to its clients.
    #[serde(rename = "amber")]
    Amber,
    /// Within the organisation.
    #[serde(rename = "amber+strict")]
    AmberStrict,
    /// For the eyes of the recipients only.
    #[serde(rename = "red")]
    Red,
}

impl Tlp {
    /// Reads `amber`, `TLP:AMBER+STRICT`, `tlp:white` and the like.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        match text.strip_prefix("tlp:").unwrap_or(&text) {
            "clear" | "white" => Some(Self::Clear),
            "green" => Some(Self::Green),
            "amber" => Some(Self::Amber),
            "amber+strict" => Some(Self::AmberStrict),
            "red" => Some(Self::Red),
            _ => None,
        }
    }
}

impl fmt::Display for Tlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clear => "TLP:CLEAR",
            Self::Green => "TLP:GREEN",
            Self::Amber => "TLP:AMBER",
            Self::AmberStrict => "TLP:AMBER+STRICT",
            Self::Red => "TLP:RED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markings_are_read_back_as_written_and_the_strictest_is_the_greatest() {
        let all = [
            Tlp::Clear,
            Tlp::Green,
            Tlp::Amber,
            Tlp::AmberStrict,
            Tlp::Red,
        ];
        assert!(all.is_sorted());
        for marking in all {
            assert_eq!(Tlp::parse(&marking.to_string()), Some(marking));
        }
        assert_eq!(Tlp::parse("tlp:white"), Some(Tlp::Clear));
        assert_eq!(Tlp::parse("tlp:ex:chr"), None);
    }
}
