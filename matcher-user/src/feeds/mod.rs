//! Threat feeds: from the bytes of a file to entries, line by line.
//!
//! Three formats are read ([`Format`]); every one gives [`FeedEntry`]s. A line
//! that cannot be read costs only itself and is reported with its number; a
//! file that is not a list at all (empty, deprecated, damaged) is an error, so
//! that it can never replace a good list ([`load`]). What may not become an
//! indicator, such as private space or the operator's own prefixes, is refused
//! entry by entry ([`guards`]).
//!
//! A feed says where malware is *controlled from*. Lists of attackers' source
//! addresses have the same look and another meaning: the operator, who names
//! file and format, says that a list is a C&C list.

mod bogons;
mod feodo_csv;
pub mod guards;
mod lines;
mod load;
mod plain;
pub mod report;
mod source;
mod spamhaus_drop;
mod value;

use std::{fmt, path::Path};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

pub use self::{
    guards::{Guards, Shrunk, shrunk},
    load::{Counts, DEFAULT_MAX_BAD_SHARE, FeedError, LoadedFeed, MAX_FEED_BYTES, load},
    source::{FeedSource, Format, SourceError, UnknownFormat},
    value::{ValueError, address_and_port},
};
use crate::indicator::Qualifier;

/// One line of a feed, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// Address (a prefix of full length) or prefix. Host bits are cleared: a
    /// line `192.0.2.7/24` is read as `192.0.2.0/24` and noted, because feeds
    /// that write prefixes that way mean the prefix.
    pub value: IpNet,
    /// Protocol and port, where the line names them.
    pub qualifier: Qualifier,
    /// Malware family as the feed spells it; never empty.
    pub malware: Option<String>,
    /// 0-100.
    pub confidence: Option<u8>,
    /// When the feed says it was first seen.
    pub first_seen: Option<Timestamp>,
    /// When the feed says it was last seen; the start of the day where it
    /// gives only a date.
    pub last_seen: Option<Timestamp>,
    /// The entry does not match before this time.
    pub valid_from: Option<Timestamp>,
    /// The entry does not match from this time on; later than `valid_from`.
    pub valid_until: Option<Timestamp>,
    /// Line in the file, from 1.
    pub line: u32,
}

impl FeedEntry {
    /// An entry that says nothing but its value.
    fn bare(value: IpNet, line: u32) -> Self {
        Self {
            value,
            qualifier: Qualifier::default(),
            malware: None,
            confidence: None,
            first_seen: None,
            last_seen: None,
            valid_from: None,
            valid_until: None,
            line,
        }
    }
}

/// What became of a line that has a problem.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemKind {
    /// The line could not be read; no entry came of it.
    Bad,
    /// The line was read, and a guard refused its entry.
    Refused,
    /// Worth a look; the line's entry, if it has one, is used.
    Note,
}

/// A line and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineProblem {
    /// Line in the file, from 1.
    pub line: u32,
    /// What became of the line.
    pub kind: ProblemKind,
    /// What is wrong, for a person.
    pub reason: String,
}

impl LineProblem {
    /// Prints as `PATH:LINE: reason`.
    pub fn at<'a>(&'a self, path: &'a Path) -> impl fmt::Display + 'a {
        struct At<'a>(&'a LineProblem, &'a Path);
        impl fmt::Display for At<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}: {}", self.1.display(), self.0.line, self.0.reason)
            }
        }
        At(self, path)
    }
}

/// What a feed file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedFeed {
    /// The lines that could be read, in file order, duplicates included.
    pub entries: Vec<FeedEntry>,
    /// Lines with problems, in file order.
    pub problems: Vec<LineProblem>,
    /// Lines that should be entries: neither blank, comment, header nor
    /// trailer.
    pub data_lines: u32,
    /// The file as a whole is not of its format (no header where one must
    /// be); `entries` is then empty.
    pub not_this_format: Option<LineProblem>,
    /// In a file without any data line: the comment line that says the list
    /// is deprecated or discontinued.
    pub deprecated: Option<u32>,
}

impl ParsedFeed {
    fn bad(&mut self, line: u32, reason: impl fmt::Display) {
        self.problem(line, ProblemKind::Bad, reason);
    }

    fn note(&mut self, line: u32, reason: impl fmt::Display) {
        self.problem(line, ProblemKind::Note, reason);
    }

    fn problem(&mut self, line: u32, kind: ProblemKind, reason: impl fmt::Display) {
        self.problems.push(LineProblem {
            line,
            kind,
            reason: reason.to_string(),
        });
    }
}

/// Reads a feed from its bytes. Any bytes at all give an answer: what cannot
/// be read is a problem of its line. A byte-order mark, CRLF line ends, blanks
/// around a line and quoted values are read as if they were not there.
pub fn parse(format: Format, bytes: &[u8]) -> ParsedFeed {
    let mut feed = match format {
        Format::Plain => plain::parse(bytes),
        Format::FeodoCsv => feodo_csv::parse(bytes),
        Format::SpamhausDrop => spamhaus_drop::parse(bytes),
    };
    if feed.data_lines == 0 && feed.not_this_format.is_none() {
        feed.deprecated = lines::says_deprecated(bytes);
    }
    feed
}

#[cfg(test)]
mod tests;
