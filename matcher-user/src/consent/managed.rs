//! The lists that the product keeps itself, in its state folder, changed by
//! `matcher consent opt-out|opt-in|import`. People may edit them too: comments
//! and lines that are not concerned stay as they are.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    ConsentModel,
    atomic_file::write_atomically,
    list::{Entry, ListKind, ParsedList, Subject, WhomRef},
    ports::PortLimit,
    purpose::PurposeSet,
};

/// A list could not be changed; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ManagedError {
    /// The file or its folder refuses.
    #[error("{}: cannot {action}: {error}", path.display())]
    File {
        /// File or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        #[source]
        error: io::Error,
    },
    /// The subject cannot be found on the wire.
    #[error("{0} cannot be enforced yet: give the subscriber's addresses")]
    NotEnforceable(Subject),
}

/// Whom a change is about: an address or prefix, and where it is shared the
/// part that is one subscriber's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whom {
    /// Address or prefix.
    pub subject: Subject,
    /// Only these ports.
    pub ports: Option<PortLimit>,
    /// Only in this subscriber space.
    pub space: Option<u32>,
}

impl Whom {
    fn as_ref(&self) -> WhomRef<'_> {
        (&self.subject, self.ports.as_ref(), self.space)
    }
}

impl From<Subject> for Whom {
    fn from(subject: Subject) -> Self {
        Self {
            subject,
            ports: None,
            space: None,
        }
    }
}

impl fmt::Display for Whom {
    /// As a line of a list.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subject)?;
        if let Some(ports) = &self.ports {
            write!(f, " {ports}")?;
        }
        if let Some(space) = self.space {
            write!(f, " space={space}")?;
        }
        Ok(())
    }
}

/// A list that the product keeps itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedList {
    kind: ListKind,
    path: PathBuf,
}

impl ManagedList {
    /// Those who refused: `opt-out.list`.
    pub fn opt_outs(state_dir: &Path) -> Self {
        Self {
            kind: ListKind::OptOut,
            path: state_dir.join("opt-out.list"),
        }
    }

    /// Those who consented, in the opt-in model: `opt-in.list`.
    pub fn opt_ins(state_dir: &Path) -> Self {
        Self {
            kind: ListKind::OptIn,
            path: state_dir.join("opt-in.list"),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds someone for the purposes; false when the list said so already.
    ///
    /// # Errors
    /// The file cannot be changed, or the subject cannot be enforced.
    pub fn add(
        &self,
        whom: &Whom,
        purposes: PurposeSet,
        now: Timestamp,
    ) -> Result<bool, ManagedError> {
        enforceable(&whom.subject)?;
        let _lock = self.lock()?;
        let content = self.content()?;
        let said = content
            .list
            .entries
            .iter()
            .filter(|entry| entry.whom() == whom.as_ref() && entry.in_force(now))
            .fold(PurposeSet::NONE, |said, entry| said.union(entry.purposes));
        if said.covers(purposes) {
            return Ok(false);
        }
        let purposes = match purposes {
            PurposeSet::ALL => String::new(),
            some => format!(" purposes={some}"),
        };
        self.append(content, [format!("{whom}{purposes}  # {now:.0}")])?;
        Ok(true)
    }

    /// Takes the purposes from every line of exactly this subject, ports and
    /// space; false when the list said nothing of them. Lines of covering
    /// prefixes stay, and those of others who share the address.
    ///
    /// # Errors
    /// The file cannot be changed.
    pub fn remove(&self, whom: &Whom, purposes: PurposeSet) -> Result<bool, ManagedError> {
        let _lock = self.lock()?;
        let content = self.content()?;
        let concerned: Vec<&Entry> = content
            .list
            .entries
            .iter()
            .filter(|entry| entry.whom() == whom.as_ref())
            .filter(|entry| !entry.purposes.intersection(purposes).is_empty())
            .collect();
        if concerned.is_empty() {
            return Ok(false);
        }
        let mut concerned = concerned.into_iter().peekable();
        let mut text = Vec::with_capacity(content.bytes.len());
        for (index, line) in content
            .bytes
            .split_inclusive(|byte| *byte == b'\n')
            .enumerate()
        {
            let here = |entry: &&Entry| usize::try_from(entry.line) == Ok(index + 1);
            let Some(entry) = concerned.next_if(here) else {
                text.extend_from_slice(line);
                continue;
            };
            let rest = entry.purposes.without(purposes);
            if rest.is_empty() {
                continue;
            }
            let kept = Entry {
                purposes: rest,
                ..entry.clone()
            };
            text.extend_from_slice(kept.to_string().as_bytes());
            match line.iter().position(|byte| *byte == b'#') {
                Some(comment) => {
                    text.extend_from_slice(b"  ");
                    text.extend_from_slice(line.get(comment..).unwrap_or_default());
                }
                None => text.push(b'\n'),
            }
        }
        self.write(&text)?;
        Ok(true)
    }

    /// Adds the lines that the list does not have yet; gives their number.
    /// Lines of subjects that cannot be enforced are left out: reading them
    /// has reported them.
    ///
    /// # Errors
    /// The file cannot be changed.
    pub fn import(&self, entries: &[Entry], now: Timestamp) -> Result<usize, ManagedError> {
        let _lock = self.lock()?;
        let content = self.content()?;
        let mut said: HashSet<_> = content.list.entries.iter().map(Entry::meaning).collect();
        let lines: Vec<String> = entries
            .iter()
            .filter(|entry| enforceable(&entry.subject).is_ok())
            .filter(|entry| said.insert(entry.meaning()))
            .map(|entry| format!("{entry}  # {now:.0}, imported"))
            .collect();
        drop(said);
        let added = lines.len();
        if added > 0 {
            self.append(content, lines)?;
        }
        Ok(added)
    }

    fn content(&self) -> Result<Content, ManagedError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(self.error("read", error)),
        };
        let source: Arc<Path> = self.path.as_path().into();
        Ok(Content {
            list: ParsedList::read(self.kind, &source, &bytes),
            bytes,
        })
    }

    fn append(
        &self,
        content: Content,
        lines: impl IntoIterator<Item = String>,
    ) -> Result<(), ManagedError> {
        let mut text = content.bytes;
        if text.is_empty() {
            // Never a file of zero bytes: that is what a cut-off file is.
            text.extend_from_slice(
                b"# Kept by matcher (matcher consent opt-out|opt-in|import). Edits are kept.\n",
            );
        } else if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        for line in lines {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        self.write(&text)
    }

    fn write(&self, text: &[u8]) -> Result<(), ManagedError> {
        let text = if text.is_empty() {
            b"# Nobody is listed.\n"
        } else {
            text
        };
        write_atomically(&self.path, text).map_err(|error| self.error("write", error))
    }

    /// Two commands at once must not lose each other's change; held until
    /// dropped.
    fn lock(&self) -> Result<File, ManagedError> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(|error| ManagedError::File {
                path: folder.to_owned(),
                action: "make the folder",
                error,
            })?;
        }
        let path = self.path.with_extension("lock");
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|error| ManagedError::File {
                path,
                action: "lock",
                error,
            })
    }

    fn error(&self, action: &'static str, error: io::Error) -> ManagedError {
        ManagedError::File {
            path: self.path.clone(),
            action,
            error,
        }
    }
}

struct Content {
    bytes: Vec<u8>,
    list: ParsedList,
}

fn enforceable(subject: &Subject) -> Result<(), ManagedError> {
    match subject {
        Subject::Prefix(_) => Ok(()),
        Subject::Subscriber(_) => Err(ManagedError::NotEnforceable(subject.clone())),
    }
}

/// Opts someone out of the purposes, whatever the model; false when it
/// was so already. In the opt-in model its consent goes too.
///
/// # Errors
/// A list cannot be changed, or the subject cannot be enforced.
pub fn opt_out(
    model: ConsentModel,
    state_dir: &Path,
    whom: &Whom,
    purposes: PurposeSet,
    now: Timestamp,
) -> Result<bool, ManagedError> {
    let added = ManagedList::opt_outs(state_dir).add(whom, purposes, now)?;
    let removed = match model {
        ConsentModel::OptOut => false,
        ConsentModel::OptIn => ManagedList::opt_ins(state_dir).remove(whom, purposes)?,
    };
    Ok(added || removed)
}

/// Takes back an opt-out, and in the opt-in model adds the consent; false
/// when nothing changed. Other lines may still refuse: ask
/// [`super::ConsentLists::refusals`] after a reload.
///
/// # Errors
/// A list cannot be changed, or the subject cannot be enforced.
pub fn opt_in(
    model: ConsentModel,
    state_dir: &Path,
    whom: &Whom,
    purposes: PurposeSet,
    now: Timestamp,
) -> Result<bool, ManagedError> {
    let removed = ManagedList::opt_outs(state_dir).remove(whom, purposes)?;
    let added = match model {
        ConsentModel::OptOut => false,
        ConsentModel::OptIn => ManagedList::opt_ins(state_dir).add(whom, purposes, now)?,
    };
    Ok(added || removed)
}

#[cfg(test)]
mod tests;
