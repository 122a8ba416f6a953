//! Threat feeds: from the bytes of a file to entries, line by line.
//!
//! Every [`Format`] gives [`FeedEntry`]s: of addresses, which the kernel
//! matches, or of names, which nothing matches yet. A line that cannot be read
//! costs only itself and is reported with its number; a file that is not a
//! list at all (empty, deprecated, damaged) is an error, so that it can never
//! replace a good list ([`load`]). What may not become an indicator, such as
//! private space, shared services or the operator's own prefixes, is refused
//! entry by entry ([`guards`]).
//!
//! A feed says where malware is *controlled from*. Lists of attackers' source
//! addresses have the same look and another meaning ([`Format::lists_sources`]):
//! the operator has to say that such a list is to be matched.
//!
//! Parsers work on bytes and know neither files nor the network: [`parse`].

mod allow;
mod bogons;
mod brief;
mod cymru;
mod dshield;
mod error;
mod feodo;
pub mod guards;
mod json;
mod lines;
mod load;
mod misp;
mod netset;
mod outcome;
mod plain;
mod policy;
mod remote;
pub mod report;
mod rows;
mod rpz;
mod services;
mod source;
mod spamhaus_drop;
mod sslbl;
mod stix;
mod threatfox;
mod time;
mod url;
mod value;

use std::{collections::HashSet, fmt, path::Path, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

pub use self::{
    allow::{AllowFileError, Allowed, AllowedValue, read_allow_file},
    brief::Brief,
    error::FeedError,
    guards::{Confirmed, Guards, NeverMatched, Shrunk, shrunk},
    load::{Counts, DEFAULT_MAX_BAD_SHARE, LoadedFeed, MAX_FEED_BYTES, load},
    misp::{ManifestEvent, manifest as misp_manifest},
    outcome::{FeedOutcome, FeedOutcomes, OutcomeError},
    policy::FeedPolicy,
    remote::{Auth, FetchLimits, Remote},
    services::NEVER_MATCH,
    source::{FeedSource, Format, SourceError, UnknownFormat},
    url::{FeedUrl, UrlError},
    value::{ValueError, address_and_port},
};
use crate::indicator::{DomainName, Qualifier};

/// One record of a feed, read. `V` is an address or prefix, or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry<V = IpNet> {
    /// Address (a prefix of full length) or prefix. Host bits are cleared: a
    /// line `192.0.2.7/24` is read as `192.0.2.0/24` and noted, because feeds
    /// that write prefixes that way mean the prefix. Or a name.
    pub value: V,
    /// Protocol and port, where the record names them.
    pub qualifier: Qualifier,
    /// The entry does not match before this time.
    pub valid_from: Option<Timestamp>,
    /// The entry does not match from this time on; later than `valid_from`.
    pub valid_until: Option<Timestamp>,
    /// What else the feed says of it.
    pub said: Brief,
    /// Line in the file, from 1.
    pub line: u32,
    /// Which file of a feed that is a directory ([`LoadedFeed::parts`]); else 0.
    pub part: u32,
}

impl<V> FeedEntry<V> {
    /// An entry that says nothing but its value.
    fn bare(value: V, line: u32) -> Self {
        Self {
            value,
            qualifier: Qualifier::default(),
            valid_from: None,
            valid_until: None,
            said: Brief::default(),
            line,
            part: 0,
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
    /// Which file of a feed that is a directory; else 0.
    #[serde(skip)]
    pub part: u32,
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

/// Records of one kind that speak of something else than a C&C address or
/// name, such as the download addresses in ThreatFox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Why they are left out.
    pub reason: &'static str,
    /// How many.
    pub records: u32,
}

/// What a feed file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedFeed {
    /// The addresses and prefixes that could be read, in file order,
    /// duplicates included.
    pub entries: Vec<FeedEntry>,
    /// The names that could be read, likewise.
    pub names: Vec<FeedEntry<DomainName>>,
    /// Lines with problems, in file order.
    pub problems: Vec<LineProblem>,
    /// Records that should be entries: neither blank, comment, header nor
    /// trailer. Each became an entry (or several), is bad, or was left out.
    pub data_lines: u32,
    /// Records that are well-formed and no C&C entries.
    pub left_out: Vec<LeftOut>,
    /// The file as a whole is not of its format (no header where one must
    /// be, JSON that is cut off); what could be read before is not to be used.
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
            part: 0,
            line,
            kind,
            reason: reason.to_string(),
        });
    }

    fn leave_out(&mut self, reason: &'static str) {
        match self.left_out.iter_mut().find(|it| it.reason == reason) {
            Some(kind) => kind.records += 1,
            None => self.left_out.push(LeftOut { reason, records: 1 }),
        }
    }

    fn wrong_format(&mut self, line: u32, reason: impl fmt::Display) {
        self.not_this_format = Some(LineProblem {
            part: 0,
            line,
            kind: ProblemKind::Bad,
            reason: reason.to_string(),
        });
    }
}

/// Texts that many entries share, such as malware families, kept once.
#[derive(Default)]
struct Texts(HashSet<Arc<str>>);

impl Texts {
    /// A shared copy; `None` for texts that say nothing.
    fn share(&mut self, text: &str) -> Option<Arc<str>> {
        let text = text.trim();
        if text.is_empty() || text.eq_ignore_ascii_case("none") {
            return None;
        }
        if let Some(known) = self.0.get(text) {
            return Some(Arc::clone(known));
        }
        let text: Arc<str> = text.into();
        self.0.insert(Arc::clone(&text));
        Some(text)
    }
}

/// Reads a feed from its bytes. Any bytes at all give an answer: what cannot
/// be read is a problem of its line. A byte-order mark, CRLF line ends, blanks
/// around a line and quoted values are read as if they were not there.
pub fn parse(format: Format, bytes: &[u8]) -> ParsedFeed {
    let mut feed = match format {
        Format::Plain => plain::parse(bytes),
        Format::FeodoCsv => feodo::parse_csv(bytes),
        Format::FeodoJson => feodo::parse_json(bytes),
        Format::ThreatfoxCsv => threatfox::parse_csv(bytes),
        Format::ThreatfoxJson => threatfox::parse_json(bytes),
        Format::SpamhausDrop => spamhaus_drop::parse(bytes),
        Format::Netset => netset::parse(bytes),
        Format::Dshield => dshield::parse(bytes),
        Format::EtBlock => netset::parse_et_block(bytes),
        Format::SslblCsv => sslbl::parse(bytes),
        Format::Misp => misp::parse(bytes),
        Format::Stix | Format::Taxii => stix::parse(bytes),
        Format::Cymru => cymru::parse(bytes),
        Format::Rpz => rpz::parse(bytes),
    };
    if feed.data_lines == 0 && feed.not_this_format.is_none() {
        feed.deprecated = lines::says_deprecated(bytes);
    }
    feed
}

#[cfg(test)]
mod tests;
