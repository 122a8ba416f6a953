//! A feed file, read and judged: is this a list that may replace the last one?

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{FeedEntry, FeedSource, Format, Guards, LineProblem, ParsedFeed, ProblemKind, parse};

/// Larger files are not read: 1 GiB, some ten times a list of 1,000,000
/// entries in its widest layout.
pub const MAX_FEED_BYTES: u64 = 1 << 30;

/// A file with a larger share of bad data lines than this is taken to be
/// damaged or of another format, and is not used at all.
pub const DEFAULT_MAX_BAD_SHARE: f64 = 0.5;

/// Reads a feed and judges it with the default share of bad lines.
///
/// # Errors
///
/// When the file cannot be read, or is no list that may be used
/// ([`LoadedFeed::usable`]).
pub fn load(source: &FeedSource) -> Result<LoadedFeed, FeedError> {
    let feed = LoadedFeed::read(source)?;
    feed.usable(DEFAULT_MAX_BAD_SHARE)?;
    Ok(feed)
}

/// A feed file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedFeed {
    /// Name, format and path.
    pub source: FeedSource,
    /// The entries that may become indicators, in file order.
    pub entries: Vec<FeedEntry>,
    /// Lines with problems, in file order; those of guards are added by
    /// [`Self::guard`].
    pub problems: Vec<LineProblem>,
    /// Lines that should be entries.
    pub data_lines: u32,
    not_this_format: Option<LineProblem>,
    deprecated: Option<u32>,
    hint: Option<&'static str>,
}

/// How many lines of a feed became what.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Lines that should be entries.
    pub data_lines: usize,
    /// Entries that may become indicators.
    pub entries: usize,
    /// Lines that could not be read.
    pub bad: usize,
    /// Entries that guards refused.
    pub refused: usize,
    /// Lines worth a look, used all the same.
    pub notes: usize,
}

impl LoadedFeed {
    /// Reads a feed without judging it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is larger than [`MAX_FEED_BYTES`].
    pub fn read(source: &FeedSource) -> Result<Self, FeedError> {
        let bytes = read_bytes(&source.path)?;
        Ok(Self::new(
            source.clone(),
            parse(source.format, &bytes),
            &bytes,
        ))
    }

    fn new(source: FeedSource, parsed: ParsedFeed, bytes: &[u8]) -> Self {
        Self {
            source,
            entries: parsed.entries,
            problems: parsed.problems,
            data_lines: parsed.data_lines,
            not_this_format: parsed.not_this_format,
            deprecated: parsed.deprecated,
            hint: hint(bytes),
        }
    }

    /// Takes out the entries that `guards` refuse and reports each as a
    /// problem of its line.
    pub fn guard(&mut self, guards: &Guards) {
        let refused = guards.apply(&mut self.entries);
        if !refused.is_empty() {
            self.problems.extend(refused);
            // Stable: what the parser said of a line comes first.
            self.problems.sort_by_key(|problem| problem.line);
        }
    }

    /// Is this a list that may replace the last good one? Say so before or
    /// after the guards: a list of which they refuse every entry is not.
    ///
    /// # Errors
    ///
    /// When the file holds no entry, is not of its format, or more than
    /// `max_bad_share` (0 to 1) of its data lines are bad.
    pub fn usable(&self, max_bad_share: f64) -> Result<(), FeedError> {
        let path = || self.source.path.clone();
        if let Some(problem) = &self.not_this_format {
            return Err(FeedError::NotThisFormat {
                path: path(),
                format: self.source.format,
                problem: problem.clone(),
                hint: self.hint,
            });
        }
        let counts = self.counts();
        if counts.data_lines == 0 {
            return Err(FeedError::Empty {
                path: path(),
                deprecated: self.deprecated,
            });
        }
        let first = |kind| {
            self.problems
                .iter()
                .find(|problem| problem.kind == kind)
                .cloned()
        };
        let none_was_read = counts.entries == 0 && counts.refused == 0;
        if let Some(first) = first(ProblemKind::Bad)
            && (none_was_read || counts.bad as f64 > max_bad_share * counts.data_lines as f64)
        {
            return Err(FeedError::TooManyBadLines {
                path: path(),
                format: self.source.format,
                bad: counts.bad,
                data_lines: counts.data_lines,
                first,
                hint: self.hint,
            });
        }
        if let Some(first) = first(ProblemKind::Refused)
            && counts.entries == 0
        {
            return Err(FeedError::AllRefused {
                path: path(),
                refused: counts.refused,
                first,
            });
        }
        Ok(())
    }

    /// How many lines became what.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            data_lines: self.data_lines as usize,
            entries: self.entries.len(),
            ..Counts::default()
        };
        for problem in &self.problems {
            match problem.kind {
                ProblemKind::Bad => counts.bad += 1,
                ProblemKind::Refused => counts.refused += 1,
                ProblemKind::Note => counts.notes += 1,
            }
        }
        counts
    }

    /// The problems as `PATH:LINE: reason`.
    pub fn problem_lines(&self) -> impl Iterator<Item = String> {
        self.problems
            .iter()
            .map(|problem| problem.at(&self.source.path).to_string())
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, FeedError> {
    let unreadable = |source| FeedError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    // A device or a pipe has no size to ask for first.
    File::open(path)
        .and_then(|file| file.take(MAX_FEED_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FEED_BYTES {
        return Err(FeedError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// What a file that is no feed often is instead.
fn hint(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        Some("the file is UTF-16; save it as UTF-8")
    } else if bytes.starts_with(b"\x1f\x8b") {
        Some("the file is compressed with gzip; unpack it first")
    } else if bytes.starts_with(b"PK\x03\x04") {
        Some("the file is a ZIP archive; unpack it first")
    } else if bytes.trim_ascii_start().starts_with(b"<") {
        Some("the file looks like a web page, perhaps the error page of a download")
    } else {
        None
    }
}

fn in_brackets(hint: &Option<&'static str>) -> String {
    hint.map(|hint| format!(" ({hint})")).unwrap_or_default()
}

/// Why a feed cannot be used. The message names the file.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The operating system does not give us the file.
    #[error("cannot read feed {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is larger than [`MAX_FEED_BYTES`].
    #[error("feed {} is larger than {MAX_FEED_BYTES} bytes: not read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Nothing but comments, headers and blank lines.
    #[error(
        "feed {} has no entries{}: not used",
        path.display(),
        deprecated
            .map(|line| format!(", and line {line} says that the list is deprecated"))
            .unwrap_or_default()
    )]
    Empty {
        /// The file.
        path: PathBuf,
        /// The comment line that says that the list is deprecated.
        deprecated: Option<u32>,
    },
    /// The file has another structure than the format.
    #[error(
        "{}; this is no {format} feed: not used{}",
        problem.at(path), in_brackets(hint)
    )]
    NotThisFormat {
        /// The file.
        path: PathBuf,
        /// The format it should have.
        format: Format,
        /// Where that shows.
        problem: LineProblem,
        /// What the file may be instead.
        hint: Option<&'static str>,
    },
    /// So many lines are bad that the others are not trusted either.
    #[error(
        "feed {} is damaged or not in format {format}: not used; {bad} of {data_lines} lines \
         cannot be read{}; the first: {}",
        path.display(), in_brackets(hint), first.at(path)
    )]
    TooManyBadLines {
        /// The file.
        path: PathBuf,
        /// The format it should have.
        format: Format,
        /// Lines that could not be read.
        bad: usize,
        /// Lines that should be entries.
        data_lines: usize,
        /// The first that could not be read.
        first: LineProblem,
        /// What the file may be instead.
        hint: Option<&'static str>,
    },
    /// Guards refused whatever could be read.
    #[error(
        "feed {}: every entry ({refused}) was refused: not used; the first: {}",
        path.display(), first.at(path)
    )]
    AllRefused {
        /// The file.
        path: PathBuf,
        /// Entries that were refused.
        refused: usize,
        /// The first of them.
        first: LineProblem,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(format: Format, text: &str) -> LoadedFeed {
        let source = FeedSource::unnamed(format, PathBuf::from("list"));
        LoadedFeed::new(source, parse(format, text.as_bytes()), text.as_bytes())
    }

    fn verdict(format: Format, text: &str) -> String {
        match feed(format, text).usable(DEFAULT_MAX_BAD_SHARE) {
            Ok(()) => "usable".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_file_without_entries_never_counts_as_a_list() {
        let verdicts = [
            verdict(Format::Plain, ""),
            verdict(Format::Plain, "# all quiet\n\n"),
            verdict(
                Format::FeodoCsv,
                "# Firstseen,DstIP,DstPort\n# ATTENTION: This list has been Deprecated on 2025-01-03\n",
            ),
            verdict(Format::FeodoCsv, "dst_ip,dst_port\n# END 0 entries\n"),
            verdict(Format::SpamhausDrop, r#"{"type":"metadata","records":0}"#),
        ];
        insta::assert_snapshot!(verdicts.join("\n"));
    }

    #[test]
    fn a_file_of_another_kind_says_what_it_may_be() {
        let verdicts = [
            verdict(Format::FeodoCsv, "<!DOCTYPE html>\n<p>504</p>\n"),
            verdict(Format::Plain, "\n <html>\n"),
            verdict(Format::Plain, "PK\u{3}\u{4}"),
            verdict(Format::SpamhausDrop, "[]\n"),
        ];
        insta::assert_snapshot!(verdicts.join("\n"));
    }

    #[test]
    fn half_bad_lines_are_borne_and_more_are_not() {
        assert_eq!(verdict(Format::Plain, "192.0.2.1\nx\n"), "usable");
        insta::assert_snapshot!(verdict(Format::Plain, "192.0.2.1\nx\ny\n"));
        let feed = feed(Format::Plain, "192.0.2.1\nx\ny\n");
        assert!(feed.usable(0.7).is_ok());
        assert!(feed.usable(0.0).is_err());
    }

    #[test]
    fn no_share_makes_a_file_without_any_good_line_usable() {
        let feed = feed(Format::Plain, "x\n");
        assert!(matches!(
            feed.usable(1.0),
            Err(FeedError::TooManyBadLines { .. })
        ));
    }

    #[test]
    fn refusals_join_the_problems_in_line_order_and_are_not_bad_lines() {
        let mut feed = feed(
            Format::Plain,
            "10.0.0.1\nx\n10.0.0.2\n198.51.100.7/24\n127.0.0.1\n",
        );
        feed.guard(&Guards::default());
        assert!(feed.usable(DEFAULT_MAX_BAD_SHARE).is_ok());
        assert_eq!(
            feed.counts(),
            Counts {
                data_lines: 5,
                entries: 1,
                bad: 1,
                refused: 3,
                notes: 1
            }
        );
        let lines: Vec<u32> = feed.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_list_that_the_guards_refuse_whole_is_not_used() {
        let mut feed = feed(Format::Plain, "10.0.0.1\n10.0.0.2\n");
        assert!(feed.usable(DEFAULT_MAX_BAD_SHARE).is_ok());
        feed.guard(&Guards::default());
        insta::assert_snapshot!(feed.usable(DEFAULT_MAX_BAD_SHARE).unwrap_err());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_the_reason() {
        let message = |path: &str| {
            load(&FeedSource::unnamed(Format::Plain, path.into()))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message("/no/such/list.txt"),
            "cannot read feed /no/such/list.txt: No such file or directory (os error 2)"
        );
        assert_eq!(
            message("/"),
            "cannot read feed /: Is a directory (os error 21)"
        );
    }

    #[test]
    fn a_file_on_disk_is_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"192.0.2.7:443\n").unwrap();
        let feed = load(&FeedSource::unnamed(Format::Plain, file.path().into())).unwrap();
        assert_eq!(feed.entries.len(), 1);
        assert_eq!(feed.problem_lines().count(), 0);
    }
}
