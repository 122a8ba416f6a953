//! One feed that is fetched from a server of the test, with its copy and its
//! past in a folder of its own.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use matcher_tests::{feed_server::FeedServer, fetching::Fetching};
//! use matcher_user::feeds::Format;
//!
//! let server = FeedServer::start()?;
//! server.list("/list.txt", "1", "192.0.2.1\n");
//! let feed = Fetching::new(Format::Plain, &server.url("/list.txt"))?;
//! feed.new_copy()?;
//! assert_eq!(feed.listed()?, ["192.0.2.1/32"]);
//! # Ok(())
//! # }
//! ```

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use matcher_user::{
    feeds::{FeedSource, FetchLimits, Format, LoadedFeed, Remote},
    fetch::{FetchError, FetchOutcome, FetchState, Place, fetch},
};
use tempfile::TempDir;

use crate::matcher::PATIENCE;

/// One feed that is fetched from a server of the test.
#[derive(Debug)]
pub struct Fetching {
    /// The feed.
    pub source: FeedSource,
    /// Where and how it is fetched.
    pub remote: Remote,
    folder: TempDir,
}

impl Fetching {
    /// A feed that was never fetched. A hundred thousand bytes are too many
    /// for it; time has no limit that a busy machine could come to.
    ///
    /// # Errors
    /// The address is none, or the folder cannot be made.
    pub fn new(format: Format, url: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let remote = Remote {
            url: url.parse()?,
            every: Duration::from_secs(3600),
            auth: None,
            ca_file: None,
            plain_http: false,
            collections: Vec::new(),
            limits: FetchLimits {
                bytes: 100_000,
                total: PATIENCE,
                idle: PATIENCE,
            },
        };
        let source = FeedSource {
            name: "test".into(),
            remote: Some(Arc::new(remote.clone())),
            ..FeedSource::unnamed(format, Remote::copy_path(folder.path(), "test"))
        };
        Ok(Self {
            source,
            remote,
            folder,
        })
    }

    /// A file beside the copy's folder that only its owner can read.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&self, name: &str, contents: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, contents)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// The folder of the copy.
    pub fn place(&self) -> &Path {
        self.source.path.parent().unwrap_or(Path::new("."))
    }

    /// Fetches it.
    ///
    /// # Errors
    /// Somebody else fetches it, or the folder cannot be made.
    pub fn now(&self) -> Result<FetchOutcome> {
        let _lock = Place::of(&self.source).lock()?.context("nobody else")?;
        let now = Timestamp::now();
        let fetched = fetch(&self.source, &self.remote, 0.5, now, 0.0, &|_, _| ());
        Ok(fetched.keep(&self.source))
    }

    /// Fetches it, which brings a new copy.
    ///
    /// # Errors
    /// It does not.
    pub fn new_copy(&self) -> Result<()> {
        let outcome = self.now()?;
        ensure!(matches!(outcome, FetchOutcome::New), "{outcome:?}");
        Ok(())
    }

    /// Fetches it, and nothing has changed.
    ///
    /// # Errors
    /// It has.
    pub fn unchanged(&self) -> Result<()> {
        let outcome = self.now()?;
        ensure!(matches!(outcome, FetchOutcome::Unchanged), "{outcome:?}");
        Ok(())
    }

    /// Fetches it, which fails with this.
    ///
    /// # Errors
    /// It does not fail.
    pub fn failure(&self) -> Result<FetchError> {
        match self.now()? {
            FetchOutcome::Failed(error) => Ok(error),
            other => bail!("{other:?}"),
        }
    }

    /// The bytes of the copy.
    ///
    /// # Errors
    /// There is none, or it is no text.
    pub fn copy(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.source.path)?)
    }

    /// What the copy lists, as a load would read it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn listed(&self) -> Result<Vec<String>> {
        let loaded = LoadedFeed::read(&self.source)?;
        let values = loaded.entries.iter().map(|it| it.value.to_string());
        Ok(values.collect())
    }

    /// What is kept of its past.
    pub fn state(&self) -> FetchState {
        Place::of(&self.source).state()
    }
}
