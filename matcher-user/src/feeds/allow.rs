//! Destinations that are never matched, whatever a feed says: the operator's
//! own list, each with its reason. Apart from consent: that says whose traffic
//! is not looked at.

use std::{
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use ipnet::IpNet;

use super::{
    lines::{lines, quoted},
    value,
};
use crate::indicator::DomainName;

/// What is never matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedValue {
    /// Every entry that overlaps it is refused.
    Prefix(IpNet),
    /// Every entry of this name, or of one below it, is refused.
    Name(DomainName),
}

impl FromStr for AllowedValue {
    type Err = String;

    /// Reads an address, a prefix or a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match value::prefix(text) {
            Ok(prefix) if prefix.had_host_bits => Err(format!(
                "{} has bits set beyond the prefix length; write {}",
                quoted(text),
                prefix.net
            )),
            Ok(prefix) => Ok(Self::Prefix(prefix.net)),
            Err(error) => match text.parse() {
                Ok(name) => Ok(Self::Name(name)),
                // A number at the end was meant to be an address.
                Err(_) => Err(error.to_string()),
            },
        }
    }
}

/// One destination that is never matched, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The destination.
    pub value: AllowedValue,
    /// Why, for a person; never empty.
    pub reason: String,
}

/// Reads a file of destinations: an address, prefix or name a line, then the
/// reason; `#` and `;` begin comment lines.
///
/// # Errors
///
/// When the file cannot be read, or a line of it: a destination that was meant
/// to be spared must not be matched, so no part of such a file is used.
pub fn read_allow_file(path: &Path) -> Result<Vec<Allowed>, AllowFileError> {
    let bytes = fs::read(path).map_err(|source| AllowFileError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let mut allowed = Vec::new();
    for line in lines(&bytes) {
        if line.is_blank() || line.comment().is_some() {
            continue;
        }
        let read = line
            .text()
            .map_err(|error| error.to_string())
            .and_then(|text| {
                let (value, reason) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
                let reason = reason.trim().trim_start_matches('#').trim();
                if reason.is_empty() {
                    return Err(format!("{} has no reason behind it", quoted(value)));
                }
                Ok(Allowed {
                    value: value.parse()?,
                    reason: reason.to_owned(),
                })
            });
        allowed.push(read.map_err(|reason| AllowFileError::Line {
            path: path.to_owned(),
            line: line.number,
            reason,
        })?);
    }
    Ok(allowed)
}

/// What is wrong with a file of destinations.
#[derive(Debug, thiserror::Error)]
pub enum AllowFileError {
    /// The operating system does not give us the file.
    #[error("cannot read the allowlist {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A line cannot be read.
    #[error("{}:{line}: {reason}; write ADDRESS, PREFIX or NAME, then the reason", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u32,
        /// What is wrong.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_a_reason_or_the_file_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("allow.txt");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            read_allow_file(&path).map_err(|error| {
                error
                    .to_string()
                    .replace(path.to_str().unwrap(), "allow.txt")
            })
        };
        let allowed = read(
            "# shared\n198.51.100.0/24  CDN of a partner, ticket 4711\n\nUpdate.example # updates\n",
        )
        .unwrap();
        assert_eq!(allowed[0].reason, "CDN of a partner, ticket 4711");
        assert_eq!(
            allowed[1],
            Allowed {
                value: AllowedValue::Name("update.example".parse().unwrap()),
                reason: "updates".to_owned()
            }
        );
        let said: Vec<String> = ["192.0.2.1\n", "192.0.2.1/24 x\n", "192.0.2 x\n", "\u{fe}\n"]
            .map(|text| read(text).unwrap_err())
            .to_vec();
        insta::assert_snapshot!(said.join("\n"));
    }
}
