//! What is in force of a list after it was read anew (design decision 2):
//! consent fails closed. Whatever favours the subscriber applies at once;
//! whatever does not waits for a file without errors.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    list::{Entry, ListKind, ListProblem, ParsedList, Weight, WhomRef},
    purpose::{Purpose, PurposeSet},
};

/// What is in force of one list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// What the list says of its subjects.
    pub kind: ListKind,
    /// The file.
    pub source: Arc<Path>,
    /// Its lines; line 0 is one that the file no longer has, kept from an
    /// earlier reading.
    pub entries: Vec<Entry>,
}

/// A list file that could not be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", source_file.display())]
pub struct Unreadable {
    /// What the list would say of its subjects.
    pub kind: ListKind,
    /// The file.
    pub source_file: Arc<Path>,
    /// Why, in the words of the system.
    pub reason: String,
}

/// The result of [`apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What is in force now; `None` when the list was never readable.
    pub list: Option<List>,
    /// Removals of opt-outs (or additions of consents) that wait for a clean
    /// file.
    pub held_back: usize,
    /// What a person has to know, in the order of the file.
    pub problems: Vec<ListProblem>,
    /// False when a list of people who refuse is unknown: then nobody may be
    /// matched.
    pub matching_allowed: bool,
}

/// Applies a new reading of a list over what is in force of it.
///
/// - Opt-outs and exclusions: readable lines apply at once; lines that are
///   gone stay in force until the file is clean. A file without any readable
///   line, or one of zero bytes that held lines before, counts as unreadable:
///   it was cut off or overwritten.
/// - Consents: lines that are gone are gone at once; new ones wait until the
///   file is clean.
/// - An unreadable file leaves in force what was; where there was nothing, a
///   list of people who refuse forbids all matching.
pub fn apply(previous: Option<&List>, read: Result<ParsedList, Unreadable>) -> Outcome {
    let mut parsed = match read {
        Ok(parsed) => parsed,
        Err(unreadable) => return keep(previous, unreadable, Vec::new()),
    };
    let refusals = parsed.kind != ListKind::OptIn;
    let held_lines = previous.is_some_and(|list| !list.entries.is_empty());
    if refusals && parsed.zero_bytes && held_lines {
        let unreadable = Unreadable {
            kind: parsed.kind,
            source_file: parsed.source,
            reason: "the file is empty (a comment line says that it is meant to be)".to_owned(),
        };
        return keep(previous, unreadable, parsed.problems);
    }
    if refusals && parsed.entries.is_empty() && !parsed.is_clean() {
        let unreadable = Unreadable {
            kind: parsed.kind,
            source_file: parsed.source,
            reason: "no line of it can be read".to_owned(),
        };
        return keep(previous, unreadable, parsed.problems);
    }
    let clean = parsed.is_clean();
    let (entries, held_back) = match (clean, refusals) {
        (true, _) => (parsed.entries, 0),
        (false, true) => united(previous, parsed.entries),
        (false, false) => agreed(previous, &parsed.entries),
    };
    if held_back > 0 {
        let message = if refusals {
            format!("opt-outs gone from it stay in force until it has no errors: {held_back}")
        } else {
            format!("new consents in it wait until it has no errors: {held_back}")
        };
        parsed.problems.push(ListProblem {
            source: Arc::clone(&parsed.source),
            line: 0,
            weight: Weight::Error,
            message,
        });
    }
    Outcome {
        list: Some(List {
            kind: parsed.kind,
            source: parsed.source,
            entries,
        }),
        held_back,
        problems: parsed.problems,
        matching_allowed: true,
    }
}

/// Leaves in force what was.
fn keep(
    previous: Option<&List>,
    unreadable: Unreadable,
    mut problems: Vec<ListProblem>,
) -> Outcome {
    let matching_allowed = previous.is_some() || unreadable.kind == ListKind::OptIn;
    let outcome = match (previous, unreadable.kind) {
        (Some(list), _) => format!(
            "its last good reading stays in force (lines: {})",
            list.entries.len()
        ),
        (None, ListKind::OptIn) => "it grants nothing".to_owned(),
        (None, ListKind::OptOut | ListKind::Exclusion) => {
            "nothing is matched until it can be read".to_owned()
        }
    };
    problems.push(ListProblem {
        source: unreadable.source_file,
        line: 0,
        weight: Weight::Error,
        message: format!("{}: {outcome}", unreadable.reason),
    });
    Outcome {
        list: previous.cloned(),
        held_back: 0,
        problems,
        matching_allowed,
    }
}

/// The new lines, and those of the previous reading that are gone from it.
fn united(previous: Option<&List>, new: Vec<Entry>) -> (Vec<Entry>, usize) {
    let meanings: HashSet<_> = new.iter().map(Entry::meaning).collect();
    let mut gone: Vec<Entry> = previous
        .into_iter()
        .flat_map(|list| &list.entries)
        .filter(|entry| !meanings.contains(&entry.meaning()))
        .cloned()
        .collect();
    for entry in &mut gone {
        entry.line = 0;
    }
    drop(meanings);
    let held_back = gone.len();
    let mut entries = new;
    entries.append(&mut gone);
    (entries, held_back)
}

/// From when someone's consent to each purpose was in force before:
/// `Some(None)` is "always", `None` is "never".
type GrantedFrom = [Option<Option<Timestamp>>; Purpose::ALL.len()];

/// Of the new consents, what the previous reading granted too.
fn agreed(previous: Option<&List>, new: &[Entry]) -> (Vec<Entry>, usize) {
    let mut before: HashMap<WhomRef<'_>, GrantedFrom> = HashMap::new();
    for entry in previous.into_iter().flat_map(|list| &list.entries) {
        let granted = before.entry(entry.whom()).or_default();
        for (slot, purpose) in granted.iter_mut().zip(Purpose::ALL) {
            if entry.purposes.contains(purpose) {
                // `None` (always) sorts before every time.
                *slot = Some(slot.map_or(entry.from, |from| from.min(entry.from)));
            }
        }
    }
    let mut entries = Vec::new();
    let mut held_back = 0;
    for entry in new {
        let granted = before.get(&entry.whom()).copied().unwrap_or_default();
        // At most one line a purpose: they may have been granted at different
        // times.
        let mut parts: Vec<(Option<Timestamp>, PurposeSet)> = Vec::new();
        for (from, purpose) in granted.into_iter().zip(Purpose::ALL) {
            let Some(from) = from else { continue };
            if !entry.purposes.contains(purpose) {
                continue;
            }
            let from = from.max(entry.from);
            match parts.iter_mut().find(|(known, _)| *known == from) {
                Some((_, purposes)) => *purposes = purposes.union(purpose.into()),
                None => parts.push((from, purpose.into())),
            }
        }
        if parts != [(entry.from, entry.purposes)] {
            held_back += 1;
        }
        entries.extend(parts.into_iter().map(|(from, purposes)| Entry {
            purposes,
            from,
            ..entry.clone()
        }));
    }
    (entries, held_back)
}

#[cfg(test)]
mod tests;
