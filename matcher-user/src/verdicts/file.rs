//! Where verdicts are kept: one JSON object a line, in the order in which
//! they were given. The file is written anew and renamed into place, so that a
//! crash leaves the old file or the new one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{Verdict, Verdicts};

/// The file of verdicts cannot be read or written. An unreadable one stops
/// loads: what is a false positive would match again.
#[derive(Debug, thiserror::Error)]
pub enum VerdictFileError {
    /// The system does not let us.
    #[error("cannot {action} the verdicts {}: {source}; the list in force stays", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no verdict.
    #[error(
        "{}:{line}: no verdict: {source}; the list in force stays. Mend the line (`matcher feed \
         verdicts` shows the others), or move the file away and give the verdicts again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

impl Verdicts {
    /// Reads the file; no verdicts when there is none yet.
    ///
    /// # Errors
    /// When it cannot be read, or a line is no verdict.
    pub fn load(path: &Path) -> Result<Self, VerdictFileError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                return Err(VerdictFileError::Io {
                    action: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let mut verdicts = Self::default();
        for (at, line) in text.lines().enumerate() {
            let verdict: Verdict =
                serde_json::from_str(line).map_err(|source| VerdictFileError::Damaged {
                    path: path.to_owned(),
                    line: at + 1,
                    source,
                })?;
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }

    /// Writes the file in one step; it is on disk when this returns. The
    /// caller holds a lock, so that no other process writes meanwhile.
    ///
    /// # Errors
    /// When the folder or the disk does not let us; the file is as it was.
    pub fn save(&self, path: &Path) -> Result<(), VerdictFileError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let beside = path.with_file_name(name);
        let written = fs::create_dir_all(folder)
            .and_then(|()| self.write_to(&beside))
            .and_then(|()| fs::rename(&beside, path))
            // The rename itself must be on disk too.
            .and_then(|()| File::open(folder)?.sync_all());
        written.map_err(|source| {
            // What counts is the first error.
            let _ = fs::remove_file(&beside);
            VerdictFileError::Io {
                action: "write",
                path: path.to_owned(),
                source,
            }
        })
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut text = Vec::new();
        for verdict in self.history() {
            serde_json::to_writer(&mut text, verdict)?;
            text.push(b'\n');
        }
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(path)?;
        file.write_all(&text)?;
        file.sync_all()
    }
}
