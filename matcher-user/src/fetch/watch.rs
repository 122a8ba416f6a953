//! Feeds that are files: noticing that one changed.
//!
//! The kernel (inotify) says when to look; what is compared are
//! [`Fingerprints`], so that a load follows a change and nothing else: not a
//! file that was only touched by a reader, and also a change that inotify
//! cannot see, as on a network file system, once somebody looks.

use std::{
    collections::BTreeSet,
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::inotify::{self, CreateFlags, Reader, WatchFlags},
    io::Errno,
};

/// A file that changed less than this ago is left alone: whoever writes it in
/// place may not be done.
pub const SETTLING: Duration = Duration::from_millis(500);

/// What tells a version of a file from another: inode, size, time of change.
type Fingerprint = (PathBuf, u64, u64, i64, i64);

/// Versions of all files of some feeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprints {
    files: BTreeSet<Fingerprint>,
    /// When the last of them changed.
    changed: Option<SystemTime>,
}

impl Fingerprints {
    /// Of these files, and of the files in those that are folders. What is not
    /// there is no version.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut all = Self::default();
        for path in paths {
            all.add(path);
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                all.add(&entry.path());
            }
        }
        all
    }

    fn add(&mut self, path: &Path) {
        let Ok(metadata) = fs::metadata(path) else {
            return;
        };
        if metadata.is_dir() {
            return;
        }
        self.changed = self.changed.max(metadata.modified().ok());
        self.files.insert((
            path.to_owned(),
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        ));
    }

    /// Nothing changed for a moment.
    pub fn are_settled(&self, now: SystemTime) -> bool {
        self.changed.is_none_or(|changed| {
            // A time in the future says nothing.
            now.duration_since(changed)
                .map_or(true, |age| age >= SETTLING)
        })
    }
}

/// Hears of changes in the folders of feeds.
#[derive(Debug)]
pub struct Watcher {
    inotify: OwnedFd,
    watched: BTreeSet<PathBuf>,
}

impl Watcher {
    /// Watches nothing yet.
    ///
    /// # Errors
    ///
    /// When the kernel has no inotify, or the user no instances left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            watched: BTreeSet::new(),
        })
    }

    /// Watches these files, wherever links lead, by the folders they are in:
    /// a file that is replaced by another is seen too. Gives the folders that
    /// cannot be watched, with the reason; changes there are found when
    /// somebody looks.
    pub fn watch<'a>(
        &mut self,
        paths: impl IntoIterator<Item = &'a Path>,
    ) -> Vec<(PathBuf, io::Error)> {
        let mut folders = BTreeSet::new();
        for path in paths {
            let real = fs::canonicalize(path).ok();
            for path in [Some(path.to_owned()), real].into_iter().flatten() {
                if path.is_dir() {
                    folders.insert(path.clone());
                }
                if let Some(parent) = path.parent() {
                    folders.insert(parent.to_owned());
                }
            }
        }
        let mut failed = Vec::new();
        self.watched.clear();
        for folder in folders {
            let flags = WatchFlags::CLOSE_WRITE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            // Adding one again changes nothing.
            match inotify::add_watch(&self.inotify, &folder, flags) {
                Ok(_) => {
                    self.watched.insert(folder);
                }
                Err(errno) => failed.push((folder, errno.into())),
            }
        }
        failed
    }

    /// Forgets what was heard so far; true when there was something.
    pub fn drain(&mut self) -> bool {
        let mut heard = false;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(_) => heard = true,
                Err(Errno::INTR) => {}
                // Nothing left; anything else is seen by the next look.
                Err(_) => return heard,
            }
        }
    }
}

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn watching(paths: &[&Path]) -> Watcher {
        let mut watcher = Watcher::new().unwrap();
        let failed = watcher.watch(paths.iter().copied());
        assert!(failed.is_empty(), "{failed:?}");
        assert!(!watcher.drain());
        watcher
    }

    #[test]
    fn a_file_that_is_written_or_replaced_or_removed_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.txt");
        fs::write(&file, "1").unwrap();
        let mut watcher = watching(&[&file]);
        let mut before = Fingerprints::of([&*file]);
        let steps: [(&str, &dyn Fn()); 4] = [
            ("in place", &|| fs::write(&file, "22").unwrap()),
            ("by a rename", &|| {
                let other = folder.path().join("b.txt");
                fs::write(&other, "33").unwrap();
                fs::rename(&other, &file).unwrap();
            }),
            ("removed", &|| fs::remove_file(&file).unwrap()),
            ("made again", &|| fs::write(&file, "44").unwrap()),
        ];
        for (how, change) in steps {
            change();
            assert!(watcher.drain(), "{how}");
            let after = Fingerprints::of([&*file]);
            assert_ne!(before.files, after.files, "{how}");
            before = after;
        }
    }

    #[test]
    fn a_folder_s_files_count_and_so_does_the_folder_itself() {
        let folder = tempfile::tempdir().unwrap();
        let events = folder.path().join("events");
        fs::create_dir(&events).unwrap();
        let mut watcher = watching(&[&events]);
        let before = Fingerprints::of([&*events]);
        fs::write(events.join("1.json"), "{}").unwrap();
        assert!(watcher.drain());
        let one = Fingerprints::of([&*events]);
        assert_ne!(before, one);
        // Replaced as a whole.
        fs::rename(&events, folder.path().join("old")).unwrap();
        fs::create_dir(&events).unwrap();
        assert!(watcher.drain());
        assert_eq!(Fingerprints::of([&*events]), before);
    }

    #[test]
    fn a_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let [real, links] = ["real", "links"].map(|name| folder.path().join(name));
        fs::create_dir(&real).unwrap();
        fs::create_dir(&links).unwrap();
        fs::write(real.join("a.txt"), "1").unwrap();
        let link = links.join("a.txt");
        symlink(real.join("a.txt"), &link).unwrap();
        let mut watcher = watching(&[&link]);
        let before = Fingerprints::of([&*link]);
        fs::write(real.join("a.txt"), "22").unwrap();
        assert!(watcher.drain());
        assert_ne!(before, Fingerprints::of([&*link]));
    }

    #[test]
    fn reading_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.txt");
        fs::write(&file, "1").unwrap();
        let mut watcher = watching(&[&file]);
        let before = Fingerprints::of([&*file]);
        fs::read(&file).unwrap();
        assert!(!watcher.drain());
        assert_eq!(before, Fingerprints::of([&*file]));
    }

    #[test]
    fn a_file_that_is_being_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.txt");
        fs::write(&file, "1").unwrap();
        let prints = Fingerprints::of([&*file]);
        let changed = fs::metadata(&file).unwrap().modified().unwrap();
        assert!(!prints.are_settled(changed));
        assert!(prints.are_settled(changed + SETTLING));
        assert!(Fingerprints::default().are_settled(changed));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let failed = Watcher::new()
            .unwrap()
            .watch([Path::new("/nowhere/at/all.txt")]);
        assert_eq!(failed[0].0, Path::new("/nowhere/at"));
    }
}
