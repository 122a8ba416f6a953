//! Run-time files: locks, the control socket, and what was attached with
//! which configuration.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::InstanceError;

/// The run directory of an instance.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

/// What an instance was attached with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Interfaces.
    #[serde(default)]
    pub interfaces: Vec<AttachedInterface>,
}

/// One attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedInterface {
    /// Index, in the network namespace it was attached in.
    pub ifindex: u32,
    /// Name at that time.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
}

/// What only one process at a time may do.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum LockName {
    /// Be the agent.
    Agent,
    /// Consume the ring buffer (design decision 12).
    Ring,
    /// Change consent or attachments.
    Changes,
    /// Load feeds.
    Load,
}

impl LockName {
    fn file(self) -> &'static str {
        match self {
            Self::Agent => "agent.lock",
            Self::Ring => "ring.lock",
            Self::Changes => "changes.lock",
            Self::Load => "load.lock",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Agent => "an agent is running already",
            Self::Ring => "hits are being read already (`matcher tail` without an agent)",
            Self::Changes => "consent or attachments are being changed",
            Self::Load => "feeds are being loaded",
        }
    }
}

/// A lock, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl RunDir {
    /// The directory at `path`, made when first needed.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
        }
    }

    /// The control socket of the agent.
    pub fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Where it is written down which list the kernel's tables hold.
    pub(super) fn in_force(&self) -> PathBuf {
        self.path.join("in-force.json")
    }

    /// Makes the directory.
    pub fn create(&self) -> Result<(), InstanceError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.path)
            .map_err(self.failed("make", ""))
    }

    /// What was attached.
    pub fn record(&self) -> Result<Record, InstanceError> {
        match fs::read(self.path.join(RECORD)) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(io::Error::from)
                .map_err(self.failed("read", RECORD)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(Record::default())
            }
            Err(error) => Err(self.failed("read", RECORD)(error)),
        }
    }

    /// Remembers what was attached, in one step.
    pub fn remember(&self, record: &Record) -> Result<(), InstanceError> {
        self.create()?;
        let mut text = serde_json::to_vec(record)
            .map_err(io::Error::from)
            .map_err(self.failed("write", RECORD))?;
        text.push(b'\n');
        let fresh = self.path.join("instance.json.new");
        fs::write(&fresh, &text)
            .and_then(|()| fs::rename(&fresh, self.path.join(RECORD)))
            .map_err(self.failed("write", RECORD))
    }

    /// Forgets what was attached.
    pub fn forget(&self) -> Result<(), InstanceError> {
        match fs::remove_file(self.path.join(RECORD)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove", RECORD)(error))
            }
            _ => Ok(()),
        }
    }

    /// Takes a lock, or says who has it.
    pub fn try_lock(&self, name: LockName) -> Result<Lock, InstanceError> {
        let mut file = self.lock_file(name)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                let by = if holder.is_empty() {
                    String::new()
                } else {
                    format!(" (process {holder})")
                };
                return Err(InstanceError::Busy(format!("{}{by}", name.what())));
            }
            Err(errno) => return Err(self.failed("lock", name.file())(errno.into())),
        }
        self.sign(file, name)
    }

    /// Takes a lock, waiting for whoever has it.
    pub fn lock(&self, name: LockName) -> Result<Lock, InstanceError> {
        let file = self.lock_file(name)?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| self.failed("lock", name.file())(errno.into()))?;
        self.sign(file, name)
    }

    fn lock_file(&self, name: LockName) -> Result<File, InstanceError> {
        self.create()?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(self.path.join(name.file()))
            .map_err(self.failed("open", name.file()))
    }

    fn sign(&self, mut file: File, name: LockName) -> Result<Lock, InstanceError> {
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(self.failed("write", name.file()))?;
        Ok(Lock { _file: file })
    }

    fn failed<'a>(
        &'a self,
        action: &'static str,
        file: &'a str,
    ) -> impl FnOnce(io::Error) -> InstanceError + 'a {
        move |source| InstanceError::File {
            action,
            path: if file.is_empty() {
                self.path.clone()
            } else {
                self.path.join(file)
            },
            source,
        }
    }
}

const RECORD: &str = "instance.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_names_the_process_that_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDir::at(&directory.path().join("run"));
        let held = run.try_lock(LockName::Agent).unwrap();
        let error = run.try_lock(LockName::Agent).unwrap_err().to_string();
        let expected = format!(
            "an agent is running already (process {})",
            std::process::id()
        );
        assert_eq!(error, expected);
        run.try_lock(LockName::Ring).unwrap();
        drop(held);
        run.try_lock(LockName::Agent).unwrap();
    }

    #[test]
    fn what_was_attached_is_remembered_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDir::at(&directory.path().join("run"));
        assert_eq!(run.record().unwrap(), Record::default());
        let record = Record {
            config: Some("/etc/matcher/matcher.toml".into()),
            interfaces: vec![AttachedInterface {
                ifindex: 3,
                name: "eth0".into(),
                mode: "native".into(),
            }],
        };
        run.remember(&record).unwrap();
        assert_eq!(run.record().unwrap(), record);
        run.forget().unwrap();
        run.forget().unwrap();
        assert_eq!(run.record().unwrap(), Record::default());
    }
}
