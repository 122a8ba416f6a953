//! Which formats there are, and how a feed is named on the command line.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// The layout of a feed file.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum Format {
    /// One address, prefix or `address:port` a line, with our own options
    /// behind it: `proto= port= from= until= malware= confidence=`.
    Plain,
    /// Feodo Tracker's CSV, read by the names in its header.
    FeodoCsv,
    /// Spamhaus DROP: JSON lines, or the old text form.
    SpamhausDrop,
}

impl Format {
    /// Every format that is read.
    pub const ALL: [Self; 3] = [Self::Plain, Self::FeodoCsv, Self::SpamhausDrop];

    /// The name in configuration and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::FeodoCsv => "feodo-csv",
            Self::SpamhausDrop => "spamhaus-drop",
        }
    }

    /// What an operator must know about such a list before loading it.
    pub fn caution(self) -> Option<&'static str> {
        match self {
            Self::Plain | Self::FeodoCsv => None,
            Self::SpamhausDrop => Some(
                "DROP lists netblocks that are hijacked or run by criminals, not C&C servers: \
                 contact with one is weaker evidence of an infection",
            ),
        }
    }
}

/// Names that are promised and not read yet.
const NOT_YET: [&str; 12] = [
    "feodo-json",
    "threatfox-csv",
    "threatfox-json",
    "netset",
    "dshield",
    "et-block",
    "sslbl-csv",
    "misp",
    "stix",
    "taxii",
    "cymru",
    "rpz",
];

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
        if NOT_YET.contains(&self.name.as_str()) {
            write!(f, "feed format {:?} is not supported yet", self.name)?;
        } else {
            write!(f, "unknown feed format {:?}", self.name)?;
        }
        let known = Format::ALL.map(Format::name).join(", ");
        write!(f, "; known formats: {known}")
    }
}

impl std::error::Error for UnknownFormat {}

/// A feed: its name in hits, and where and how to read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FeedSource {
    /// What hits and candidates call the feed.
    pub name: String,
    /// How to read the file.
    pub format: Format,
    /// The file.
    pub path: PathBuf,
}

impl FeedSource {
    /// A feed with the name that its format implies: `feodo` for `feodo-csv`,
    /// `spamhaus-drop` as it is (the list's own name), and for `plain`, which
    /// says nothing about its origin, the file's name without extension.
    pub fn unnamed(format: Format, path: PathBuf) -> Self {
        let name = match format {
            Format::FeodoCsv => "feodo".to_owned(),
            Format::SpamhausDrop => "spamhaus-drop".to_owned(),
            Format::Plain => path.file_stem().map_or_else(
                || "plain".to_owned(),
                |stem| stem.to_string_lossy().into_owned(),
            ),
        };
        Self { name, format, path }
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
            @r#"unknown feed format "feodo"; known formats: plain, feodo-csv, spamhaus-drop"#
        );
        insta::assert_snapshot!(
            "threatfox-csv".parse::<Format>().unwrap_err(),
            @r#"feed format "threatfox-csv" is not supported yet; known formats: plain, feodo-csv, spamhaus-drop"#
        );
    }

    #[test]
    fn a_source_is_named_after_its_format_or_file() {
        let name = |text: &str| text.parse::<FeedSource>().unwrap().name;
        assert_eq!(name("feodo-csv:/x/list.csv"), "feodo");
        assert_eq!(name("spamhaus-drop:drop_v4.json"), "spamhaus-drop");
        assert_eq!(name("plain:/x/own c2.v2.txt"), "own c2.v2");
        assert_eq!(name("plain:/"), "plain");
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
