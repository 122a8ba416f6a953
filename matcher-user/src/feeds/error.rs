//! Why a feed cannot be used, for a person.

use std::{io, path::PathBuf};

use super::{Format, LeftOut, LineProblem, MAX_FEED_BYTES};

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
        path.display(), in_brackets(hint), first.at(part)
    )]
    TooManyBadLines {
        /// The file or directory.
        path: PathBuf,
        /// The file with the first.
        part: PathBuf,
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
        path.display(), first.at(part)
    )]
    AllRefused {
        /// The file or directory.
        path: PathBuf,
        /// The file with the first.
        part: PathBuf,
        /// Entries that were refused.
        refused: usize,
        /// The first of them.
        first: LineProblem,
    },
    /// Every record is something else than a C&C entry.
    #[error(
        "feed {} lists no C&C address or name: not used; it holds {}",
        path.display(), left_out_text(left_out)
    )]
    NothingListed {
        /// The file or directory.
        path: PathBuf,
        /// What it holds instead.
        left_out: Vec<LeftOut>,
    },
}

fn left_out_text(left_out: &[LeftOut]) -> String {
    let kinds: Vec<String> = left_out
        .iter()
        .map(|LeftOut { reason, records }| format!("{records} x {reason}"))
        .collect();
    kinds.join(", ")
}
