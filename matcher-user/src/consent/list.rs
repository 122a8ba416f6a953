//! The opt-out list of the contract, format `plain`:
//!
//! ```text
//! # a comment
//! 203.0.113.7
//! 2001:db8:100::/56              purposes=detect,notify
//! 198.51.100.9 ports=1024-2047
//! 198.51.100.9 map-e=a:4,k:8,psid:0x34
//! 10.0.0.7 space=7
//! subscriber=cust-4711           from=2026-12-01T00:00:00+09:00
//! ```
//!
//! Opt-in lists and exclusions are written the same way. A `#` starts a
//! comment wherever it stands. Where a line leaves doubt, the subscriber wins
//! ([`ListKind`] says how); a line is never dropped without a word.

use std::{fmt, path::Path, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    ports::PortLimit,
    prefix::{read_prefix, shortened},
    purpose::PurposeSet,
};
use crate::indicator::value_text;

/// What a list says of its subjects, and so who wins where a line is in doubt.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// They refuse. A line with an unreadable option refuses everything, from
    /// now on.
    OptOut,
    /// They consent. A line with an unreadable option grants nothing.
    OptIn,
    /// Ranges under other terms (wholesale, MVNO, business lines): they are
    /// left alone for every purpose, whatever else the line says.
    Exclusion,
}

/// Whom a line speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An address (full length) or prefix; IPv4-mapped IPv6 is kept as IPv4.
    Prefix(IpNet),
    /// A subscriber by the operator's own id. The wire carries no such id:
    /// without assignment records it cannot be enforced.
    Subscriber(Box<str>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(net) => f.write_str(&value_text(*net)),
            Self::Subscriber(id) => write!(f, "subscriber={id}"),
        }
    }
}

/// One line that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whom it speaks of.
    pub subject: Subject,
    /// The purposes refused, or granted in an opt-in list. Never empty.
    pub purposes: PurposeSet,
    /// Not in force before this time.
    pub from: Option<Timestamp>,
    /// The part of a shared address it is limited to.
    pub ports: Option<Box<PortLimit>>,
    /// The subscriber space it is limited to. A refusal without one holds in
    /// every space, a consent without one in space 0, that of the packets
    /// whose VLAN has none.
    pub space: Option<u32>,
    /// The file the line stands in.
    pub source: Arc<Path>,
    /// The line's number in that file, from 1.
    pub line: u32,
}

/// Subject, ports and space.
pub(crate) type WhomRef<'a> = (&'a Subject, Option<&'a PortLimit>, Option<u32>);
/// Whom a line speaks of, for which purposes, since when.
pub(crate) type Meaning<'a> = (WhomRef<'a>, PurposeSet, Option<Timestamp>);

impl Entry {
    /// What the line says, without where it stands.
    pub(crate) fn meaning(&self) -> Meaning<'_> {
        (self.whom(), self.purposes, self.from)
    }

    /// Whom the line speaks of: subject, ports and space.
    pub(crate) fn whom(&self) -> WhomRef<'_> {
        (&self.subject, self.ports.as_deref(), self.space)
    }

    /// Whether the line is in force at this time.
    pub fn in_force(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at)
    }

    /// The prefix, where the subject is one.
    pub fn prefix(&self) -> Option<IpNet> {
        match self.subject {
            Subject::Prefix(net) => Some(net),
            Subject::Subscriber(_) => None,
        }
    }
}

impl fmt::Display for Entry {
    /// The line as the parser reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subject)?;
        if self.purposes != PurposeSet::ALL {
            write!(f, " purposes={}", self.purposes)?;
        }
        if let Some(ports) = &self.ports {
            write!(f, " {ports}")?;
        }
        if let Some(space) = self.space {
            write!(f, " space={space}")?;
        }
        if let Some(from) = self.from {
            write!(f, " from={from}")?;
        }
        Ok(())
    }
}

/// How much a [`ListProblem`] weighs.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// The file is not clean: changes in the subscriber's disfavour wait.
    Error,
    /// The line is in force, in a way the reader should know.
    Note,
}

/// Something a person has to know about a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListProblem {
    /// The list.
    pub source: Arc<Path>,
    /// Line number from 1; 0 speaks of the whole file.
    pub line: u32,
    /// How much it weighs.
    pub weight: Weight,
    /// What is wrong, what was done about it.
    pub message: String,
}

impl fmt::Display for ListProblem {
    /// `FILE:LINE: error: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.source.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        let weight = match self.weight {
            Weight::Error => "error",
            Weight::Note => "note",
        };
        write!(f, " {weight}: {}", self.message)
    }
}

/// A list as it was read: what is in force of it on its own is decided by
/// [`super::state::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedList {
    /// What the list says of its subjects.
    pub kind: ListKind,
    /// The file.
    pub source: Arc<Path>,
    /// Readable lines, in the order of the file. A line in doubt is here as
    /// its [`ListKind`] has it.
    pub entries: Vec<Entry>,
    /// Errors and notes, in the order of the file.
    pub problems: Vec<ListProblem>,
    /// The file holds no byte at all.
    pub zero_bytes: bool,
}

impl ParsedList {
    /// Reads the bytes of a list; any bytes give a result.
    pub fn read(kind: ListKind, source: &Arc<Path>, bytes: &[u8]) -> Self {
        let mut list = Self {
            kind,
            source: Arc::clone(source),
            entries: Vec::new(),
            problems: Vec::new(),
            zero_bytes: bytes.is_empty(),
        };
        // Some editors start a file with a byte order mark.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            list.read_line(number, line);
        }
        list
    }

    /// Whether every line could be read and enforced as it stands.
    pub fn is_clean(&self) -> bool {
        !self
            .problems
            .iter()
            .any(|problem| problem.weight == Weight::Error)
    }

    fn read_line(&mut self, number: u32, line: &[u8]) {
        // Comments go first: they may be in any character set.
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let Ok(line) = str::from_utf8(line) else {
            self.problem(
                number,
                Weight::Error,
                "the line is not UTF-8 and was not applied; write it anew".to_owned(),
            );
            return;
        };
        let mut words = line.split_whitespace();
        let Some(subject) = words.next() else { return };
        let Some((subject, host_bits)) = self.read_subject(number, subject) else {
            return;
        };
        let mut options = Options::default();
        for word in words {
            if let Err(reason) = options.read(word) {
                let outcome = match self.kind {
                    ListKind::OptOut => format!("{subject} is opted out of everything, from now"),
                    ListKind::OptIn => format!("the line grants {subject} nothing"),
                    ListKind::Exclusion => format!("{subject} is excluded all the same"),
                };
                self.problem(number, Weight::Error, format!("{reason}: {outcome}"));
            }
        }
        self.keep(number, subject, host_bits, options);
    }

    /// The subject, and whether it has host bits: a prefix, or one address?
    fn read_subject(&mut self, number: u32, word: &str) -> Option<(Subject, bool)> {
        if let Some(id) = word.strip_prefix("subscriber=") {
            let message = if id.is_empty() {
                "subscriber= names nobody: the line was not applied".to_owned()
            } else {
                format!(
                    "subscriber={} cannot be enforced yet: give the subscriber's addresses",
                    shortened(id)
                )
            };
            self.problem(number, Weight::Error, message);
            return (!id.is_empty()).then(|| (Subject::Subscriber(id.into()), false));
        }
        let read = match read_prefix(word) {
            Ok(read) => read,
            Err(error) => {
                let message = format!("{error}, nor is it subscriber=ID: the line was not applied");
                self.problem(number, Weight::Error, message);
                return None;
            }
        };
        if read.host_bits {
            let (weight, outcome) = match self.kind {
                ListKind::OptIn => (Weight::Error, "the line grants nothing"),
                ListKind::OptOut => (Weight::Note, "the whole prefix is opted out"),
                ListKind::Exclusion => (Weight::Note, "the whole prefix is excluded"),
            };
            let message = format!(
                "{word} is an address inside {}, not a prefix: {outcome}",
                read.net
            );
            self.problem(number, weight, message);
        }
        Some((Subject::Prefix(read.net), read.host_bits))
    }

    /// Keeps the line as its kind has it, with a note where it is in force
    /// otherwise than written.
    fn keep(&mut self, number: u32, subject: Subject, host_bits: bool, options: Options) {
        let mut notes = Vec::new();
        if self.kind == ListKind::Exclusion && options.ports.is_some() {
            notes.push(format!(
                "an exclusion holds for whole addresses: all of {subject} is excluded"
            ));
        }
        let purposes = options.purposes.unwrap_or(PurposeSet::ALL);
        let kept = match self.kind {
            ListKind::OptOut => true,
            ListKind::Exclusion => {
                if purposes != PurposeSet::ALL {
                    notes.push(format!(
                        "an exclusion holds for every purpose: all are excluded for {subject}"
                    ));
                }
                true
            }
            ListKind::OptIn => {
                if purposes.lawful() != purposes {
                    notes.push(format!(
                        "discover is granted to {subject} only together with block"
                    ));
                }
                matches!(subject, Subject::Prefix(_)) && !host_bits && !options.unreadable
            }
        };
        for note in notes {
            self.problem(number, Weight::Note, note);
        }
        if !kept {
            return;
        }
        let mut entry = Entry {
            subject,
            purposes,
            from: options.from,
            ports: options.ports.map(Box::new),
            space: options.space,
            source: Arc::clone(&self.source),
            line: number,
        };
        if options.unreadable {
            // Whatever limits the line, it may be the part that cannot be read.
            entry.purposes = PurposeSet::ALL;
            entry.from = None;
            entry.ports = None;
            entry.space = None;
        }
        if self.kind == ListKind::Exclusion {
            entry.purposes = PurposeSet::ALL;
            entry.ports = None;
        }
        self.entries.push(entry);
    }

    fn problem(&mut self, line: u32, weight: Weight, message: String) {
        self.problems.push(ListProblem {
            source: Arc::clone(&self.source),
            line,
            weight,
            message,
        });
    }
}

/// The `key=value`s after a subject.
#[derive(Default)]
struct Options {
    purposes: Option<PurposeSet>,
    from: Option<Timestamp>,
    ports: Option<PortLimit>,
    space: Option<u32>,
    unreadable: bool,
}

impl Options {
    fn read(&mut self, word: &str) -> Result<(), String> {
        self.try_read(word).inspect_err(|_| self.unreadable = true)
    }

    fn try_read(&mut self, word: &str) -> Result<(), String> {
        let twice = |key| format!("{key}= is given twice");
        let Some((key, value)) = word.split_once('=') else {
            return Err(format!("{:?} is no key=value", shortened(word)));
        };
        match key {
            "purposes" => {
                let purposes = value
                    .parse()
                    .map_err(|error| format!("purposes={}: {error}", shortened(value)))?;
                match self.purposes.replace(purposes) {
                    Some(_) => Err(twice(key)),
                    None => Ok(()),
                }
            }
            "from" => {
                let from = value.parse().map_err(|_| {
                    format!(
                        "from={} is no RFC 3339 time with offset, as 2026-12-01T00:00:00+09:00",
                        shortened(value)
                    )
                })?;
                match self.from.replace(from) {
                    Some(_) => Err(twice(key)),
                    None => Ok(()),
                }
            }
            "ports" | "map-e" => {
                let (limit, form) = if key == "ports" {
                    (PortLimit::read_ports(value), "ports=1024-2047")
                } else {
                    let form = "map-e=a:4,k:8,psid:0x34 with a + k at most 16 and psid below 2^k";
                    (PortLimit::read_map_e(value), form)
                };
                let limit = limit.ok_or_else(|| {
                    format!("{key}={} is not of the form {form}", shortened(value))
                })?;
                match self.ports.replace(limit) {
                    Some(_) => Err("ports= or map-e= is given twice".to_owned()),
                    None => Ok(()),
                }
            }
            "space" => {
                let space = value.parse().map_err(|_| {
                    format!(
                        "space={} is no number of a subscriber space",
                        shortened(value)
                    )
                })?;
                match self.space.replace(space) {
                    Some(_) => Err(twice(key)),
                    None => Ok(()),
                }
            }
            _ => Err(format!(
                "{:?} is no option (known: purposes, ports, map-e, space, from)",
                shortened(key)
            )),
        }
    }
}

#[cfg(test)]
mod tests;
