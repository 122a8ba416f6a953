//! Names in the DNS, as lists of C&C names hold them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A host name: lower case, in ASCII, without the dot at its end. With `*.`
/// in front it speaks of every name below, not of the name itself (RFC 4592).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DomainName(Box<str>);

/// Longest name in characters (RFC 1035 section 2.3.4).
const LONGEST: usize = 253;

impl DomainName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this, as an entry of a list, speaks of `asked`.
    pub fn covers(&self, asked: &Self) -> bool {
        match self.0.strip_prefix("*.") {
            None => self == asked,
            Some(parent) => asked
                .0
                .strip_suffix(parent)
                .is_some_and(|front| front.len() > 1 && front.ends_with('.')),
        }
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        let own = self.0.strip_prefix("*.").unwrap_or(&self.0);
        own == &*other.0
            || own
                .strip_suffix(&*other.0)
                .is_some_and(|front| front.ends_with('.'))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> Self {
        name.0.into()
    }
}

impl TryFrom<String> for DomainName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for DomainName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let name = text.strip_prefix("*.").unwrap_or(text);
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if !name.is_ascii() {
            return Err(NameError::NotAscii);
        }
        if text.len() > LONGEST {
            return Err(NameError::TooLong);
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if !name.split('.').all(label) {
            return Err(NameError::Label);
        }
        let Some((_, last)) = name.rsplit_once('.') else {
            return Err(NameError::OneLabel);
        };
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NameError::Address);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

/// Why a text is no name.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("no name")]
    Empty,
    /// Letters that the DNS does not have.
    #[error("the name has letters beyond ASCII; write it as xn--...")]
    NotAscii,
    /// More than 253 characters.
    #[error("the name has more than {LONGEST} characters")]
    TooLong,
    /// A part that is empty, longer than 63 characters, or has other
    /// characters than letters, digits, `-` and `_`.
    #[error("a part of the name is empty, too long, or has a character that no host name has")]
    Label,
    /// A name of one part would cover a whole top-level domain.
    #[error("the name has one part only")]
    OneLabel,
    /// The last part is a number.
    #[error("the last part is a number: this is an address, or a part of one")]
    Address,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_read_in_lower_case_without_the_last_dot() {
        assert_eq!(name("C2.Example.").as_str(), "c2.example");
        assert_eq!(name("*.C2.Example").as_str(), "*.c2.example");
        assert_eq!(name("_a-1.example").as_str(), "_a-1.example");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{}example", "a.".repeat(130));
        let label = format!("{}.example", "a".repeat(64));
        for (text, error) in [
            ("", NameError::Empty),
            ("*.", NameError::Label),
            ("bücher.example", NameError::NotAscii),
            (long.as_str(), NameError::TooLong),
            (label.as_str(), NameError::Label),
            ("a..example", NameError::Label),
            ("a b.example", NameError::Label),
            ("a.*.example", NameError::Label),
            ("com", NameError::OneLabel),
            ("*.com", NameError::OneLabel),
            ("192.0.2.7", NameError::Address),
        ] {
            assert_eq!(text.parse::<DomainName>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_wildcard_covers_what_is_below_and_not_the_name_itself() {
        let wild = name("*.c2.example");
        assert!(wild.covers(&name("a.c2.example")));
        assert!(wild.covers(&name("a.b.c2.example")));
        assert!(!wild.covers(&name("c2.example")));
        assert!(!wild.covers(&name("xc2.example")));
        assert!(name("c2.example").covers(&name("C2.example")));
        assert!(!name("c2.example").covers(&name("a.c2.example")));
        assert!(wild.is_within(&name("c2.example")));
        assert!(!wild.is_within(&name("x.c2.example")));
        assert!(name("a.c2.example").is_within(&name("c2.example")));
        assert!(!name("xc2.example").is_within(&name("c2.example")));
    }
}
