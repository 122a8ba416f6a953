//! What can go wrong with the store, and what to do about it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rusqlite::ErrorCode;

use super::RingIdentity;
use crate::candidate::CandidateId;

/// An error of the store, with its file.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {failure}")]
pub struct StoreError {
    /// The database file.
    pub path: StorePath,
    /// What is wrong with it.
    #[source]
    pub failure: Box<Failure>,
}

impl StoreError {
    /// Nothing went wrong, but deleted records leave the files only later.
    pub fn is_deferred(&self) -> bool {
        matches!(*self.failure, Failure::NotGoneYet)
    }
}

/// What is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The file or its directory could not be made or protected.
    #[error("cannot {doing}: {source}; state_dir must be a directory that the agent may write to")]
    File {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("cannot {doing} the store: {source}; {}", advice(.source))]
    Sqlite {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// A later build wrote the file.
    #[error(
        "the store has schema version {found}, this build knows up to {known}; run the newer \
         build, or move the file away to start an empty store"
    )]
    Newer {
        /// Version in the file.
        found: usize,
        /// Version of this build.
        known: usize,
    },
    /// Another program's database.
    #[error("this is a database of another program; give another state_dir")]
    NotOurs,
    /// A drain position that is already behind.
    #[error(
        "{ring} is stored up to position {recorded}, and {hits} hits up to position {asked} were \
         to be stored; does a second agent drain the same ring?"
    )]
    Backwards {
        /// The ring.
        ring: RingIdentity,
        /// Position in the store.
        recorded: u64,
        /// Position that was to be stored.
        asked: u64,
        /// Hits that were to be stored with it.
        hits: usize,
    },
    /// Folded packets that are stored.
    #[error(
        "what was folded in generation {generation} beside {ring} is stored already; does a \
         second agent drain the same ring?"
    )]
    FoldedAlready {
        /// The ring.
        ring: RingIdentity,
        /// The generation.
        generation: u64,
    },
    /// A time that a row cannot hold.
    #[error("the time {0} is outside the years 1678 to 2261; check the clock")]
    Time(Timestamp),
    /// An indicator that is no JSON.
    #[error("cannot write an indicator as JSON: {0}")]
    Indicator(#[source] serde_json::Error),
    /// A row that this build did not write so.
    #[error(
        "record {cursor} has no valid {field}: the file is damaged or was edited; move it away to \
         start an empty store"
    )]
    Row {
        /// The record.
        cursor: i64,
        /// The column.
        field: &'static str,
    },
    /// Deleted rows whose bytes are still in the files.
    #[error(
        "the records are deleted, but another process reads the store, so their bytes stay in the \
         file ending in -wal; end that process, the next deletion or start finishes the work"
    )]
    NotGoneYet,
    /// The candidate was erased since.
    #[error("{0} is not in the store; it was erased with its last hit")]
    NoSuchCandidate(CandidateId),
}

/// Where the store is, as errors tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePath(Option<PathBuf>);

impl StorePath {
    pub(super) fn file(path: &Path) -> Self {
        Self(Some(path.to_owned()))
    }

    pub(super) fn memory() -> Self {
        Self(None)
    }

    pub(super) fn fails(&self, failure: Failure) -> StoreError {
        StoreError {
            path: self.clone(),
            failure: Box::new(failure),
        }
    }

    pub(super) fn failed(
        &self,
        doing: &'static str,
    ) -> impl Fn(rusqlite::Error) -> StoreError + Copy + '_ {
        move |source| self.fails(Failure::Sqlite { doing, source })
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(path) => path.display().fmt(f),
            None => f.write_str("the store in memory"),
        }
    }
}

fn advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "free some space; the store is as it was before this step",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process holds it: does a second agent run?"
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "move it away to start an empty store"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "check owner and mode of the file and its directory, and that the file system is \
             writable"
        }
        _ => "the store is as it was before this step",
    }
}
