//! All lists that consent depends on, read again as one, each over its own
//! last good reading.

use std::{
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    ConsentModel,
    atomic_file::write_atomically,
    list::{ListKind, ListProblem, ParsedList, Weight},
    managed::ManagedList,
    ports::PortLimit,
    purpose::PurposeSet,
    state::{List, Unreadable, apply},
    table::{ConsentInputs, ConsentTable, Space},
};

/// Where consent comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentSources {
    /// Who consents when no list names them.
    pub model: ConsentModel,
    /// The operator's lists: opt-outs in the opt-out model, else consents.
    pub lists: Vec<PathBuf>,
    /// The operator states that there is no opt-out list. Without this and
    /// without a list nothing is matched in the opt-out model.
    pub no_list: bool,
    /// Lists of excluded ranges.
    pub exclusions: Vec<PathBuf>,
    /// Since when the prior notice holds (see [`ConsentInputs`]).
    pub notice_since: Option<Timestamp>,
    /// Where the product keeps its own lists, and the last good readings of
    /// the others, so that a restart does not lose what waits for a clean
    /// file. `None` for a run that leaves nothing behind (replay, check).
    pub state_dir: Option<PathBuf>,
}

/// One file, and what is in force of it.
#[derive(Clone, Debug)]
struct ListFile {
    kind: ListKind,
    path: Arc<Path>,
    /// Kept by the product: not there means that nobody is on it yet.
    managed: bool,
    list: Option<List>,
    matching_allowed: bool,
    /// `list` differs from its last good reading on disk.
    changed: bool,
}

/// What reading the lists again gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// What a person has to know, in the order of the lists.
    pub problems: Vec<ListProblem>,
    /// Changes in the subscribers' disfavour that wait for a clean file.
    pub held_back: usize,
    /// False when nothing may be matched, because a list of people who refuse
    /// is unknown.
    pub matching_allowed: bool,
}

/// Whom to explain.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Address or prefix.
    pub prefix: IpNet,
    /// In this subscriber space; in any where there is none.
    pub space: Option<u32>,
    /// With these ports; with any where there are none.
    pub ports: Option<&'a PortLimit>,
}

impl From<IpNet> for Asked<'_> {
    fn from(prefix: IpNet) -> Self {
        Self {
            prefix,
            space: None,
            ports: None,
        }
    }
}

/// A line that covers what was asked for, in whole or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// The list.
    pub source: Arc<Path>,
    /// Line number; 0 is a line that the file no longer has, kept in force
    /// until the file is clean.
    pub line: u32,
    /// The line, without its comment.
    pub text: String,
    /// What the list says of its subjects.
    pub kind: ListKind,
    /// The purposes it speaks of.
    pub purposes: PurposeSet,
    /// Not in force before this time.
    pub from: Option<Timestamp>,
    /// It covers all of what was asked for, not only a part.
    pub whole: bool,
}

impl fmt::Display for Mention {
    /// `FILE:LINE: text`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.text)?;
        if self.line == 0 {
            f.write_str(" (no longer in the file; in force until the file is clean)")?;
        }
        Ok(())
    }
}

/// All lists of a configuration and what is in force of them. Before the
/// first [`ConsentLists::reload`] nothing may be matched.
#[derive(Clone, Debug)]
pub struct ConsentLists {
    sources: ConsentSources,
    /// The subscriber spaces besides 0.
    spaces: Vec<Space>,
    files: Vec<ListFile>,
}

impl ConsentLists {
    /// Names the lists; reads the last good readings, but no list yet.
    pub fn new(sources: ConsentSources) -> Self {
        let state_dir = sources.state_dir.as_deref();
        let managed = state_dir.into_iter().flat_map(|folder| {
            let opt_outs = (ListKind::OptOut, ManagedList::opt_outs(folder));
            let opt_ins = (ListKind::OptIn, ManagedList::opt_ins(folder));
            [opt_outs, opt_ins]
                .into_iter()
                .filter(|(kind, _)| {
                    *kind == ListKind::OptOut || sources.model == ConsentModel::OptIn
                })
                .map(|(kind, list)| (kind, list.path().to_owned(), true))
        });
        let kind = sources.model.list_kind();
        let own = sources.lists.iter().map(|path| (kind, path.clone(), false));
        let exclusions = sources
            .exclusions
            .iter()
            .map(|path| (ListKind::Exclusion, path.clone(), false));
        let files = managed
            .chain(own)
            .chain(exclusions)
            .map(|(kind, path, managed)| {
                let path: Arc<Path> = path.into();
                let list = state_dir.and_then(|folder| last_good(folder, kind, &path));
                ListFile {
                    kind,
                    path,
                    managed,
                    list,
                    matching_allowed: false,
                    changed: false,
                }
            })
            .collect();
        Self {
            sources,
            spaces: Vec::new(),
            files,
        }
    }

    /// Says which subscriber spaces there are besides 0, and where their
    /// subscribers are. Until then there are none.
    pub fn set_spaces(&mut self, spaces: Vec<Space>) {
        self.spaces = spaces;
    }

    /// Reads every list again and decides what is in force. What was read is
    /// kept over a restart only after [`ConsentLists::remember`].
    pub fn reload(&mut self) -> Reload {
        let mut reload = Reload {
            matching_allowed: !self.refusals_are_unstated(),
            ..Reload::default()
        };
        for file in &mut self.files {
            let read = read_list(file);
            let readable = read.is_ok();
            let outcome = apply(file.list.as_ref(), read);
            file.changed |= readable;
            file.list = outcome.list;
            file.matching_allowed = outcome.matching_allowed;
            reload.problems.extend(outcome.problems);
            reload.held_back += outcome.held_back;
            reload.matching_allowed &= outcome.matching_allowed;
        }
        let unknown = self.lines_of_unknown_spaces();
        reload.problems.extend(unknown);
        reload
    }

    fn lines_of_unknown_spaces(&self) -> Vec<ListProblem> {
        self.files
            .iter()
            .filter_map(|file| file.list.as_ref())
            .flat_map(|list| list.entries.iter().map(|entry| (list.kind, entry)))
            .filter_map(|(kind, entry)| {
                let space = entry.space.filter(|space| *space != 0)?;
                if self.spaces.iter().any(|known| known.id == space) {
                    return None;
                }
                let outcome = match kind {
                    ListKind::OptIn => "grants nothing",
                    ListKind::OptOut | ListKind::Exclusion => "holds in every space",
                };
                Some(ListProblem {
                    source: Arc::clone(&entry.source),
                    line: entry.line,
                    weight: Weight::Note,
                    message: format!(
                        "there is no subscriber space {space} (see [[subscribers.space]]): the \
                         line {outcome}"
                    ),
                })
            })
            .collect()
    }

    /// Neither a list nor the word that there is none (design decision 2).
    fn refusals_are_unstated(&self) -> bool {
        self.sources.model == ConsentModel::OptOut
            && self.sources.lists.is_empty()
            && !self.sources.no_list
    }

    /// Writes what is in force of each list to the state folder, where it
    /// differs, so that removals wait for a clean file over a restart too.
    ///
    /// # Errors
    /// The system's, for the first file that could not be written.
    pub fn remember(&mut self) -> io::Result<()> {
        let Some(state_dir) = &self.sources.state_dir else {
            return Ok(());
        };
        for file in &mut self.files {
            if let Some(list) = file.list.as_ref().filter(|_| file.changed) {
                let path = last_good_path(state_dir, list.kind, &list.source);
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                write_atomically(&path, &last_good_text(list)?)?;
                file.changed = false;
            }
        }
        Ok(())
    }

    /// What [`ConsentTable::compile`] works on.
    pub fn inputs(&self) -> ConsentInputs<'_> {
        ConsentInputs {
            model: self.sources.model,
            lists: self
                .files
                .iter()
                .filter_map(|file| file.list.as_ref())
                .collect(),
            spaces: &self.spaces,
            notice_since: self.sources.notice_since,
            matching_allowed: !self.refusals_are_unstated()
                && self.files.iter().all(|file| file.matching_allowed),
        }
    }

    /// The consent of every address at this instant.
    pub fn compile(&self, at: Timestamp) -> ConsentTable {
        ConsentTable::compile(&self.inputs(), at)
    }

    /// The lines in the lists that speak of what is asked for, or of a part
    /// of it.
    pub fn explain(&self, asked: Asked<'_>) -> Vec<Mention> {
        let prefix = asked.prefix.trunc();
        self.files
            .iter()
            .filter_map(|file| file.list.as_ref())
            .flat_map(|list| list.entries.iter().map(|entry| (list.kind, entry)))
            .filter_map(|(kind, entry)| {
                let net = entry.prefix()?;
                let ports = entry.ports.as_deref();
                let holds = (net.contains(&prefix) || prefix.contains(&net))
                    && match (entry.space, asked.space) {
                        (Some(own), Some(asked)) => own == asked,
                        _ => true,
                    }
                    && match (ports, asked.ports) {
                        (Some(own), Some(asked)) => own.touches(asked),
                        _ => true,
                    };
                let whole = net.contains(&prefix)
                    && (ports.is_none() || ports == asked.ports)
                    && (entry.space.is_none() || entry.space == asked.space);
                holds.then(|| Mention {
                    source: Arc::clone(&entry.source),
                    line: entry.line,
                    text: entry.to_string(),
                    kind,
                    purposes: entry.purposes,
                    from: entry.from,
                    whole,
                })
            })
            .collect()
    }

    /// The lines that refuse one of the purposes for what is asked for, or for
    /// a part of it: what stands in the way of an opt-in.
    pub fn refusals(&self, asked: Asked<'_>, purposes: PurposeSet) -> Vec<Mention> {
        let mut mentions = self.explain(asked);
        mentions.retain(|mention| {
            mention.kind != ListKind::OptIn && !mention.purposes.intersection(purposes).is_empty()
        });
        mentions
    }
}

fn read_list(file: &ListFile) -> Result<ParsedList, Unreadable> {
    match fs::read(&file.path) {
        Ok(bytes) => Ok(ParsedList::read(file.kind, &file.path, &bytes)),
        // Nobody asked the product for anything yet. One that vanished is
        // another matter: it was not empty.
        Err(error)
            if file.managed
                && error.kind() == io::ErrorKind::NotFound
                && file
                    .list
                    .as_ref()
                    .is_none_or(|list| list.entries.is_empty()) =>
        {
            Ok(ParsedList::read(file.kind, &file.path, b""))
        }
        Err(error) => Err(Unreadable {
            kind: file.kind,
            source_file: Arc::clone(&file.path),
            reason: format!("cannot be read: {error}"),
        }),
    }
}

/// First line of a last good reading: whose it is.
fn last_good_header(kind: ListKind, source: &Path) -> String {
    format!("# last good reading ({kind:?}) of {}", source.display())
}

/// The file's name is a hash (FNV-1a) of whose it is; the header settles a
/// collision.
fn last_good_path(state_dir: &Path, kind: ListKind, source: &Path) -> PathBuf {
    let hash = last_good_header(kind, source)
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    state_dir
        .join("last-good")
        .join(format!("{hash:016x}.list"))
}

fn last_good_text(list: &List) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    writeln!(text, "{}", last_good_header(list.kind, &list.source))?;
    for entry in &list.entries {
        writeln!(text, "{entry}")?;
    }
    Ok(text)
}

/// What was in force of the list before a restart. A copy that cannot be read
/// is none: then an unreadable list stops matching.
fn last_good(state_dir: &Path, kind: ListKind, source: &Arc<Path>) -> Option<List> {
    let bytes = fs::read(last_good_path(state_dir, kind, source)).ok()?;
    let header = last_good_header(kind, source);
    bytes
        .strip_prefix(header.as_bytes())
        .filter(|rest| rest.starts_with(b"\n"))?;
    let parsed = ParsedList::read(kind, source, &bytes);
    // The product wrote it: an error other than an id that cannot be enforced
    // means that it was damaged.
    let errors = parsed
        .problems
        .iter()
        .filter(|problem| problem.weight == Weight::Error);
    let ids = parsed
        .entries
        .iter()
        .filter(|entry| entry.prefix().is_none());
    if errors.count() != ids.count() {
        return None;
    }
    let mut entries = parsed.entries;
    for entry in &mut entries {
        entry.line = 0;
    }
    Some(List {
        kind,
        source: Arc::clone(source),
        entries,
    })
}

#[cfg(test)]
mod tests;
