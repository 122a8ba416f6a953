//! Which formats there are, and how a feed is named on the command line.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{FeedPolicy, Remote};

/// The layout of a feed file.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum Format {
    /// One address, prefix or `address:port` a line, with our own options
    /// behind it: `proto= port= from= until= malware= confidence=`.
    Plain,
    /// Feodo Tracker's CSV, read by the names in its header.
    FeodoCsv,
    /// Feodo Tracker's JSON.
    FeodoJson,
    /// ThreatFox's CSV export.
    ThreatfoxCsv,
    /// ThreatFox's JSON export, and the answers of its API.
    ThreatfoxJson,
    /// Spamhaus DROP: JSON lines, or the old text form.
    SpamhausDrop,
    /// FireHOL's .netset and .ipset files.
    Netset,
    /// DShield's recommended block list.
    Dshield,
    /// Emerging Threats' block list.
    EtBlock,
    /// SSLBL's CSV of addresses.
    SslblCsv,
    /// MISP events: a file, or a directory with or without a manifest.
    Misp,
    /// STIX 2.1 bundles.
    Stix,
    /// Pages of a TAXII 2.1 server: STIX objects in envelopes.
    Taxii,
    /// Reports of Team Cymru's CSIRT Assistance Program.
    Cymru,
    /// DNS response policy zones: names.
    Rpz,
}

impl Format {
    /// Every format that is read.
    pub const ALL: [Self; 15] = [
        Self::Plain,
        Self::FeodoCsv,
        Self::FeodoJson,
        Self::ThreatfoxCsv,
        Self::ThreatfoxJson,
        Self::SpamhausDrop,
        Self::Netset,
        Self::Dshield,
        Self::EtBlock,
        Self::SslblCsv,
        Self::Misp,
        Self::Stix,
        Self::Taxii,
        Self::Cymru,
        Self::Rpz,
    ];

    /// The name in configuration and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::FeodoCsv => "feodo-csv",
            Self::FeodoJson => "feodo-json",
            Self::ThreatfoxCsv => "threatfox-csv",
            Self::ThreatfoxJson => "threatfox-json",
            Self::SpamhausDrop => "spamhaus-drop",
            Self::Netset => "netset",
            Self::Dshield => "dshield",
            Self::EtBlock => "et-block",
            Self::SslblCsv => "sslbl-csv",
            Self::Misp => "misp",
            Self::Stix => "stix",
            Self::Taxii => "taxii",
            Self::Cymru => "cymru",
            Self::Rpz => "rpz",
        }
    }

    /// The format lists addresses that attack, by its publisher's own
    /// account. An infected device need not call them: a configuration that
    /// names such a feed must say that it is meant.
    pub fn lists_sources(self) -> bool {
        self == Self::Dshield
    }

    /// What an operator must know about such a list before loading it.
    pub fn caution(self) -> Option<&'static str> {
        match self {
            Self::Plain
            | Self::FeodoCsv
            | Self::FeodoJson
            | Self::ThreatfoxCsv
            | Self::ThreatfoxJson
            | Self::Netset
            | Self::SslblCsv
            | Self::Misp
            | Self::Stix
            | Self::Taxii => None,
            Self::SpamhausDrop | Self::EtBlock => Some(
                "DROP lists netblocks that are hijacked or run by criminals, not C&C servers: \
                 contact with one is weaker evidence of an infection",
            ),
            Self::Dshield => Some(
                "DShield lists networks that attack, not C&C servers: contact with one is no \
                 evidence of an infection by itself",
            ),
            Self::Cymru => Some(
                "what a bot called may be a sinkhole: contact with it shows an infection all the \
                 same, but nobody controls anything from there",
            ),
            Self::Rpz => Some(
                "the zone lists names; nothing matches names yet, so they are kept and no \
                 packet is held against them",
            ),
        }
    }

    /// What hits call a feed of this format that was given no name; `None`
    /// for formats that say nothing about where a list comes from.
    fn implied_name(self) -> Option<&'static str> {
        match self {
            Self::FeodoCsv | Self::FeodoJson => Some("feodo"),
            Self::ThreatfoxCsv | Self::ThreatfoxJson => Some("threatfox"),
            Self::SslblCsv => Some("sslbl"),
            Self::SpamhausDrop | Self::Dshield | Self::EtBlock | Self::Cymru => Some(self.name()),
            Self::Plain | Self::Netset | Self::Misp | Self::Stix | Self::Taxii | Self::Rpz => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<Format> for &'static str {
    fn from(format: Format) -> Self {
        format.name()
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| UnknownFormat {
                name: text.to_owned(),
            })
    }
}

impl TryFrom<String> for Format {
    type Error = UnknownFormat;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A format name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFormat {
    /// The name as given.
    pub name: String,
}

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Format::ALL.map(Format::name).join(", ");
        write!(
            f,
            "unknown feed format {:?}; known formats: {known}",
            self.name
        )
    }
}

impl std::error::Error for UnknownFormat {}

/// A feed: its name in hits, and where and how to read it.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedSource {
    /// What hits and candidates call the feed.
    pub name: String,
    /// How to read the file.
    pub format: Format,
    /// The file, or a directory of files; of a feed that is fetched, our
    /// last good copy.
    pub path: PathBuf,
    /// What the operator says about this feed.
    pub policy: FeedPolicy,
    /// Where it is fetched from; `None` for a feed that is a file.
    pub remote: Option<Arc<Remote>>,
}

impl FeedSource {
    /// A feed with the name that its format implies: `feodo` for `feodo-csv`,
    /// `spamhaus-drop` as it is (the list's own name), and for those that say
    /// nothing about their origin, such as `plain`, the file's name without
    /// extension.
    pub fn unnamed(format: Format, path: PathBuf) -> Self {
        let name = match format.implied_name() {
            Some(name) => name.to_owned(),
            None => path.file_stem().map_or_else(
                || format.name().to_owned(),
                |stem| stem.to_string_lossy().into_owned(),
            ),
        };
        Self {
            name,
            format,
            path,
            policy: FeedPolicy::default(),
            remote: None,
        }
    }
}

impl FromStr for FeedSource {
    type Err = SourceError;

    /// Reads `FORMAT:PATH`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (format, path) = text
            .split_once(':')
            .ok_or_else(|| SourceError::NoColon(text.to_owned()))?;
        let format = format.parse()?;
        if path.is_empty() {
            return Err(SourceError::NoPath(format));
        }
        Ok(Self::unnamed(format, PathBuf::from(path)))
    }
}

impl fmt::Display for FeedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.format, self.path.display())
    }
}

/// What is wrong with a `FORMAT:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There is no colon.
    #[error("{0:?} is not FORMAT:PATH, such as feodo-csv:/var/lib/feeds/feodo.csv")]
    NoColon(String),
    /// Nothing follows the colon.
    #[error("no path after {0}:")]
    NoPath(Format),
    /// The format cannot be used.
    #[error(transparent)]
    Format(#[from] UnknownFormat),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_by_its_name() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
            let json = serde_json::to_string(&format).unwrap();
            assert_eq!(serde_json::from_str::<Format>(&json).unwrap(), format);
        }
    }

    #[test]
    fn an_unknown_format_is_answered_with_the_known_ones() {
        insta::assert_snapshot!(
            "feodo".parse::<Format>().unwrap_err(),
            @r#"unknown feed format "feodo"; known formats: plain, feodo-csv, feodo-json, threatfox-csv, threatfox-json, spamhaus-drop, netset, dshield, et-block, sslbl-csv, misp, stix, taxii, cymru, rpz"#
        );
    }

    #[test]
    fn a_source_is_named_after_its_format_or_file() {
        let name = |text: &str| text.parse::<FeedSource>().unwrap().name;
        assert_eq!(name("feodo-csv:/x/list.csv"), "feodo");
        assert_eq!(name("spamhaus-drop:drop_v4.json"), "spamhaus-drop");
        assert_eq!(name("plain:/x/own c2.v2.txt"), "own c2.v2");
        assert_eq!(name("plain:/"), "plain");
        assert_eq!(name("threatfox-json:/x/full.json"), "threatfox");
        assert_eq!(name("netset:/x/firehol_level1.netset"), "firehol_level1");
        assert_eq!(name("misp:/x/osint/"), "osint");
    }

    #[test]
    fn a_path_may_contain_colons_and_may_not_be_empty() {
        let source: FeedSource = "plain:/x/a:b.txt".parse().unwrap();
        assert_eq!(source.path, PathBuf::from("/x/a:b.txt"));
        assert_eq!(source.to_string(), "plain:/x/a:b.txt");
        insta::assert_snapshot!(
            "plain:".parse::<FeedSource>().unwrap_err(), @"no path after plain:"
        );
        insta::assert_snapshot!(
            "feodo.csv".parse::<FeedSource>().unwrap_err(),
            @r#""feodo.csv" is not FORMAT:PATH, such as feodo-csv:/var/lib/feeds/feodo.csv"#
        );
    }
}
