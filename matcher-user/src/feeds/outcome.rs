//! How the last load of each feed went, kept beside the catalog so that
//! `feed list` can tell.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Counts, Format};

/// How the last load of one feed went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedOutcome {
    /// Name of the feed.
    pub feed: String,
    /// Its format.
    pub format: Format,
    /// Its file.
    pub path: PathBuf,
    /// When it was loaded.
    pub at: Timestamp,
    /// When the file was last changed, as far as the system knows.
    pub file_changed: Option<Timestamp>,
    /// Why the file was not used; the last good list then stays in force.
    pub error: Option<String>,
    /// How many of its lines became what.
    pub counts: Counts,
    /// When its file was last used.
    pub last_used: Option<Timestamp>,
}

/// The outcomes of the last load, in the order of the feeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeedOutcomes(pub Vec<FeedOutcome>);

impl FeedOutcomes {
    /// The outcome of a feed by its name.
    pub fn of(&self, feed: &str) -> Option<&FeedOutcome> {
        self.0.iter().find(|outcome| outcome.feed == feed)
    }

    /// Reads the file; no outcomes when there is none yet.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is damaged.
    pub fn load(path: &Path) -> Result<Self, OutcomeError> {
        let error = |source| OutcomeError {
            path: path.to_owned(),
            source,
        };
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|it| error(it.into())),
            Err(it) if it.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(it) => Err(error(it)),
        }
    }

    /// Writes the file in one step.
    ///
    /// # Errors
    ///
    /// When the directory or the disk does not let us.
    pub fn save(&self, path: &Path) -> Result<(), OutcomeError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let beside = path.with_file_name(name);
        serde_json::to_vec(self)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(&beside, bytes))
            .and_then(|()| fs::rename(&beside, path))
            .map_err(|source| OutcomeError {
                path: path.to_owned(),
                source,
            })
    }
}

/// The file of outcomes cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot read or write how the last loads went, {}: {source}", path.display())]
pub struct OutcomeError {
    path: PathBuf,
    source: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_back_as_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("feeds.json");
        assert_eq!(FeedOutcomes::load(&path).unwrap(), FeedOutcomes::default());
        let outcomes = FeedOutcomes(vec![FeedOutcome {
            feed: "feodo".to_owned(),
            format: Format::FeodoCsv,
            path: "/x/feodo.csv".into(),
            at: Timestamp::UNIX_EPOCH,
            file_changed: None,
            error: Some("held back".to_owned()),
            counts: Counts::default(),
            last_used: None,
        }]);
        outcomes.save(&path).unwrap();
        let back = FeedOutcomes::load(&path).unwrap();
        assert_eq!(back, outcomes);
        assert!(back.of("feodo").is_some());
        assert!(back.of("other").is_none());
        fs::write(&path, "[").unwrap();
        assert!(FeedOutcomes::load(&path).is_err());
    }
}
