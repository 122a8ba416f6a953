//! Where the last good copy of a fetched feed is kept, with what is known of
//! its past. Whatever is written here is there as a whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{FetchError, FetchState};
use crate::feeds::FeedSource;

/// The folder of one fetched feed.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
    copy: PathBuf,
}

/// A new copy that is complete and not in force yet.
#[derive(Debug)]
pub(super) enum Staged {
    /// The bytes of a file.
    File(Vec<u8>),
    /// A folder of files, beside the copy.
    Folder(PathBuf),
}

/// Held while a feed is being fetched.
#[derive(Debug)]
pub struct FetchLock {
    _file: File,
}

impl Place {
    /// Of a feed that is fetched.
    pub fn of(source: &FeedSource) -> Self {
        Self {
            folder: source.path.parent().unwrap_or(Path::new(".")).to_owned(),
            copy: source.path.clone(),
        }
    }

    /// There is a copy.
    pub fn has_copy(&self) -> bool {
        self.copy.exists()
    }

    /// The copy.
    pub(super) fn copy(&self) -> &Path {
        &self.copy
    }

    /// What was kept; nothing when there is nothing, or it is damaged: then
    /// everything is asked for anew.
    pub fn state(&self) -> FetchState {
        fs::read(self.folder.join(STATE))
            .ok()
            .and_then(|bytes| FetchState::read(&bytes).ok())
            .unwrap_or_default()
    }

    /// `None` while somebody else fetches this feed.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made.
    pub fn lock(&self) -> Result<Option<FetchLock>, FetchError> {
        let lock = || -> io::Result<Option<FetchLock>> {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(&self.folder)?;
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o640)
                .open(self.folder.join("lock"))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(FetchLock { _file: file })),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
                Err(errno) => Err(errno.into()),
            }
        };
        lock().map_err(|source| self.failed(source))
    }

    /// Puts a new copy into the place of the old one, in one step.
    pub(super) fn keep(&self, staged: Staged) -> Result<(), FetchError> {
        match staged {
            Staged::File(bytes) => self.write(&self.copy, &bytes),
            Staged::Folder(folder) => self.keep_folder(&folder),
        }
        .map_err(|source| self.failed(source))
    }

    /// After the copy, so that no validator ever speaks of bytes that are not
    /// there.
    pub(super) fn keep_state(&self, state: &FetchState) -> Result<(), FetchError> {
        serde_json::to_vec(state)
            .map_err(io::Error::from)
            .and_then(|bytes| self.write(&self.folder.join(STATE), &bytes))
            .map_err(|source| self.failed(source))
    }

    /// Keeps what was not used, for a person to look at; the next one
    /// replaces it.
    pub(super) fn keep_rejected(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.join("rejected");
        // Only for a person: the fetch has failed already, and says so.
        let _ = self.write(&path, bytes);
        path
    }

    /// An empty folder for a copy of many files.
    pub(super) fn new_folder(&self) -> Result<PathBuf, FetchError> {
        let make = || {
            let number = self.folders()?.last().map_or(1, |(number, _)| number + 1);
            let path = self.folder.join(format!("{FOLDER}{number}"));
            fs::create_dir(&path)?;
            Ok(path)
        };
        make().map_err(|source| self.failed(source))
    }

    /// Removes folders that a crash left behind, and those before the last.
    pub(super) fn tidy(&self) {
        let current = fs::read_link(&self.copy).ok();
        let folders = self.folders().unwrap_or_default();
        let number_of_current = folders
            .iter()
            .find(|(_, path)| current.as_deref().is_some_and(|it| path.ends_with(it)))
            .map(|(number, _)| *number);
        for (number, path) in folders {
            // One may still be read by a command.
            let kept =
                number_of_current.is_some_and(|current| number == current || number + 1 == current);
            if !kept {
                // The next fetch tries again.
                let _ = fs::remove_dir_all(path);
            }
        }
    }

    fn folders(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(FOLDER));
            if let Some(number) = number.and_then(|it| it.parse().ok()) {
                folders.push((number, entry.path()));
            }
        }
        folders.sort_unstable();
        Ok(folders)
    }

    fn keep_folder(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            File::open(entry?.path())?.sync_all()?;
        }
        File::open(folder)?.sync_all()?;
        let name = folder.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let fresh = self.folder.join("copy.new");
        remove_if_there(&fresh)?;
        symlink(name, &fresh)?;
        // A feed that was a file before has a file here.
        fs::rename(&fresh, &self.copy)?;
        File::open(&self.folder)?.sync_all()
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        remove_if_there(&fresh)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(&self.folder)?.sync_all()
    }

    pub(super) fn failed(&self, source: io::Error) -> FetchError {
        FetchError::Keep {
            path: self.folder.clone(),
            source,
        }
    }
}

const STATE: &str = "state.json";
const FOLDER: &str = "files-";

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feeds::Format;

    fn place(folder: &Path) -> Place {
        let place = Place::of(&FeedSource::unnamed(Format::Plain, folder.join("f/copy")));
        place.lock().unwrap().unwrap();
        place
    }

    #[test]
    fn one_at_a_time_fetches_a_feed() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let held = place.lock().unwrap();
        assert!(held.is_some());
        assert!(place.lock().unwrap().is_none());
        drop(held);
        assert!(place.lock().unwrap().is_some());
    }

    #[test]
    fn a_damaged_state_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let state = FetchState {
            failures: 3,
            ..FetchState::default()
        };
        place.keep_state(&state).unwrap();
        assert_eq!(place.state(), state);
        fs::write(folder.path().join("f/state.json"), "{\"failures\":").unwrap();
        assert_eq!(place.state(), FetchState::default());
    }

    #[test]
    fn folders_are_switched_in_one_step_and_old_ones_removed() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        for round in 0..5 {
            let fresh = place.new_folder().unwrap();
            fs::write(fresh.join("a.json"), round.to_string()).unwrap();
            // A crash leaves one behind now and then.
            if round == 2 {
                continue;
            }
            place.keep(Staged::Folder(fresh)).unwrap();
            place.tidy();
            let read = fs::read_to_string(place.copy().join("a.json")).unwrap();
            assert_eq!(read, round.to_string());
        }
        assert!(place.folders().unwrap().len() <= 2);
    }
}
