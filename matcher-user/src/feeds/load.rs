//! A feed file, read and judged: is this a list that may replace the last one?

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Brief, FeedEntry, FeedError, FeedSource, Format, Guards, LeftOut, LineProblem, ParsedFeed,
    ProblemKind, misp_manifest, parse,
};
use crate::indicator::{DomainName, Said};

/// Larger files are not read: 1 GiB, some ten times a list of 1,000,000
/// entries in its widest layout.
pub const MAX_FEED_BYTES: u64 = 1 << 30;

/// A file with a larger share of bad data lines than this is taken to be
/// damaged or of another format, and is not used at all.
pub const DEFAULT_MAX_BAD_SHARE: f64 = 0.5;

/// Reads a feed and judges it with the default share of bad lines.
///
/// # Errors
///
/// When the file cannot be read, or is no list that may be used
/// ([`LoadedFeed::usable`]).
pub fn load(source: &FeedSource) -> Result<LoadedFeed, FeedError> {
    let feed = LoadedFeed::read(source)?;
    feed.usable(DEFAULT_MAX_BAD_SHARE)?;
    Ok(feed)
}

/// A feed file that was read, or a directory of them.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedFeed {
    /// Name, format and path.
    pub source: FeedSource,
    /// The addresses and prefixes that may become indicators, in file order.
    pub entries: Vec<FeedEntry>,
    /// The names that may, likewise.
    pub names: Vec<FeedEntry<DomainName>>,
    /// Lines with problems, in file order; those of guards are added by
    /// [`Self::guard`].
    pub problems: Vec<LineProblem>,
    /// Records that should be entries.
    pub data_lines: u32,
    /// Records that are well-formed and no C&C entries.
    pub left_out: Vec<LeftOut>,
    /// The files of a feed that is a directory; empty for a single file.
    pub parts: Vec<PathBuf>,
    not_this_format: Option<LineProblem>,
    deprecated: Option<u32>,
    hint: Option<&'static str>,
}

/// How many lines of a feed became what.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records that should be entries.
    pub data_lines: usize,
    /// Addresses and prefixes that may become indicators.
    pub entries: usize,
    /// Names that may.
    pub names: usize,
    /// Records that are well-formed and no C&C entries.
    pub left_out: usize,
    /// Lines that could not be read.
    pub bad: usize,
    /// Entries that guards refused.
    pub refused: usize,
    /// Lines worth a look, used all the same.
    pub notes: usize,
}

impl LoadedFeed {
    /// Reads a feed without judging it. Of a directory every file is read, in
    /// order of name; of a directory of MISP events every event.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or all are larger than [`MAX_FEED_BYTES`].
    pub fn read(source: &FeedSource) -> Result<Self, FeedError> {
        let mut room = MAX_FEED_BYTES;
        let misp = source.format == Format::Misp;
        let directory = match source.path.file_name() {
            // The manifest stands for the feed that it lists.
            Some(name) if misp && name == MANIFEST => source.path.parent(),
            _ if source.path.is_dir() => Some(source.path.as_path()),
            _ => None,
        };
        let Some(directory) = directory else {
            let bytes = read_bytes(&source.path, &mut room)?;
            let parsed = parse(source.format, &bytes);
            return Ok(Self::new(source.clone(), parsed, &bytes));
        };
        let mut feed = Self::new(source.clone(), ParsedFeed::default(), &[]);
        for path in files(directory, misp)? {
            let bytes = read_bytes(&path, &mut room)?;
            feed.add_part(path, parse(source.format, &bytes));
        }
        feed.fill_in();
        if misp {
            feed.note_missing_events(directory, &mut room)?;
        }
        Ok(feed)
    }

    /// A feed from what was parsed, and the bytes it was parsed from: for
    /// those who fetch a feed by other means than a file.
    pub fn new(source: FeedSource, parsed: ParsedFeed, bytes: &[u8]) -> Self {
        let mut feed = Self {
            source,
            entries: parsed.entries,
            names: parsed.names,
            problems: parsed.problems,
            data_lines: parsed.data_lines,
            left_out: parsed.left_out,
            parts: Vec::new(),
            not_this_format: parsed.not_this_format,
            deprecated: parsed.deprecated,
            hint: hint(bytes),
        };
        feed.fill_in();
        feed
    }

    /// Gives entries what the operator says of the whole feed.
    fn fill_in(&mut self) {
        let policy = &self.source.policy;
        if policy.confidence.is_none() && policy.malware.is_none() {
            return;
        }
        let of_all = Brief::from(Said {
            confidence: policy.confidence,
            malware: policy.malware.clone(),
            ..Said::default()
        });
        let addresses = self.entries.iter_mut().map(|entry| &mut entry.said);
        for said in addresses.chain(self.names.iter_mut().map(|entry| &mut entry.said)) {
            if said.is_nothing() {
                said.clone_from(&of_all);
                continue;
            }
            said.confidence = said.confidence.or(policy.confidence);
            if said.malware.is_none() {
                said.malware.clone_from(&policy.malware);
            }
        }
    }

    fn add_part(&mut self, path: PathBuf, mut parsed: ParsedFeed) {
        let part = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        self.parts.push(path);
        // A file that is something else costs only itself.
        if let Some(problem) = parsed.not_this_format.take() {
            parsed.entries.clear();
            parsed.names.clear();
            parsed.problems = vec![problem];
            parsed.data_lines = 1;
        }
        for entry in &mut parsed.entries {
            entry.part = part;
        }
        for entry in &mut parsed.names {
            entry.part = part;
        }
        for problem in &mut parsed.problems {
            problem.part = part;
        }
        self.entries.append(&mut parsed.entries);
        self.names.append(&mut parsed.names);
        self.problems.append(&mut parsed.problems);
        self.data_lines = self.data_lines.saturating_add(parsed.data_lines);
        for kind in parsed.left_out {
            match self.left_out.iter_mut().find(|it| it.reason == kind.reason) {
                Some(known) => known.records = known.records.saturating_add(kind.records),
                None => self.left_out.push(kind),
            }
        }
    }

    /// Notes the events that the manifest has and the directory has not.
    fn note_missing_events(&mut self, directory: &Path, room: &mut u64) -> Result<(), FeedError> {
        let path = directory.join(MANIFEST);
        if !path.exists() {
            return Ok(());
        }
        let bytes = read_bytes(&path, room)?;
        let part = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        self.parts.push(path);
        let mut note = |reason| {
            self.problems.push(LineProblem {
                part,
                line: 1,
                kind: ProblemKind::Note,
                reason,
            });
        };
        match misp_manifest(&bytes) {
            Ok(events) => {
                for event in events {
                    let name = format!("{}.json", event.uuid);
                    if !directory.join(&name).exists() {
                        note(format!("there is no {name}, which the manifest lists"));
                    }
                }
            }
            Err(error) => note(format!("not a manifest of events: {error}")),
        }
        Ok(())
    }

    /// The file that a problem or an entry is in.
    pub fn file(&self, part: u32) -> &Path {
        usize::try_from(part)
            .ok()
            .and_then(|part| self.parts.get(part))
            .unwrap_or(&self.source.path)
    }

    /// Takes out the entries that `guards` refuse and reports each as a
    /// problem of its line.
    pub fn guard(&mut self, guards: &Guards) {
        let guards = guards.for_feed(&self.source.policy);
        let mut refused = guards.apply(&mut self.entries);
        refused.extend(guards.apply_to_names(&mut self.names));
        if !refused.is_empty() {
            self.problems.extend(refused);
            // Stable: what the parser said of a line comes first.
            self.problems
                .sort_by_key(|problem| (problem.part, problem.line));
        }
    }

    /// Is this a list that may replace the last good one? Say so before or
    /// after the guards: a list of which they refuse every entry is not.
    ///
    /// # Errors
    ///
    /// When the file holds no entry, is not of its format, or more than
    /// `max_bad_share` (0 to 1; the feed's own policy goes first) of its data
    /// lines are bad.
    pub fn usable(&self, max_bad_share: f64) -> Result<(), FeedError> {
        let max_bad_share = self.source.policy.max_bad_share.unwrap_or(max_bad_share);
        let path = || self.source.path.clone();
        if let Some(problem) = &self.not_this_format {
            return Err(FeedError::NotThisFormat {
                path: path(),
                format: self.source.format,
                problem: problem.clone(),
                hint: self.hint,
            });
        }
        let counts = self.counts();
        if counts.data_lines == 0 {
            return Err(FeedError::Empty {
                path: path(),
                deprecated: self.deprecated,
            });
        }
        let first = |kind| {
            self.problems
                .iter()
                .find(|problem| problem.kind == kind)
                .cloned()
        };
        let listed = counts.entries + counts.names;
        let none_was_read = listed == 0 && counts.refused == 0 && counts.left_out == 0;
        if let Some(first) = first(ProblemKind::Bad)
            && (none_was_read || counts.bad as f64 > max_bad_share * counts.data_lines as f64)
        {
            return Err(FeedError::TooManyBadLines {
                path: path(),
                format: self.source.format,
                bad: counts.bad,
                data_lines: counts.data_lines,
                part: self.file(first.part).to_owned(),
                first,
                hint: self.hint,
            });
        }
        if let Some(first) = first(ProblemKind::Refused)
            && listed == 0
        {
            return Err(FeedError::AllRefused {
                path: path(),
                refused: counts.refused,
                part: self.file(first.part).to_owned(),
                first,
            });
        }
        if listed == 0 {
            return Err(FeedError::NothingListed {
                path: path(),
                left_out: self.left_out.clone(),
            });
        }
        Ok(())
    }

    /// How many lines became what.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            data_lines: self.data_lines as usize,
            entries: self.entries.len(),
            names: self.names.len(),
            left_out: self.left_out.iter().map(|it| it.records as usize).sum(),
            ..Counts::default()
        };
        for problem in &self.problems {
            match problem.kind {
                ProblemKind::Bad => counts.bad += 1,
                ProblemKind::Refused => counts.refused += 1,
                ProblemKind::Note => counts.notes += 1,
            }
        }
        counts
    }

    /// The problems as `PATH:LINE: reason`.
    pub fn problem_lines(&self) -> impl Iterator<Item = String> {
        self.problems
            .iter()
            .map(|problem| problem.at(self.file(problem.part)).to_string())
    }
}

/// Lists the events of a feed of MISP.
const MANIFEST: &str = "manifest.json";

/// The files of a directory in order of name, without hidden ones; of a feed
/// of MISP the events.
fn files(directory: &Path, misp: bool) -> Result<Vec<PathBuf>, FeedError> {
    let unreadable = |source| FeedError::Unreadable {
        path: directory.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_event = name.ends_with(".json") && name != MANIFEST;
        if path.is_file() && !name.starts_with('.') && (is_event || !misp) {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Reads a file of at most `room` bytes, and takes them from it.
fn read_bytes(path: &Path, room: &mut u64) -> Result<Vec<u8>, FeedError> {
    let unreadable = |source| FeedError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    // A device or a pipe has no size to ask for first.
    File::open(path)
        .and_then(|file| file.take(*room + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    *room = room
        .checked_sub(bytes.len() as u64)
        .ok_or_else(|| FeedError::TooLarge {
            path: path.to_owned(),
        })?;
    Ok(bytes)
}

/// What a file that is no feed often is instead.
fn hint(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        Some("the file is UTF-16; save it as UTF-8")
    } else if bytes.starts_with(b"\x1f\x8b") {
        Some("the file is compressed with gzip; unpack it first")
    } else if bytes.starts_with(b"PK\x03\x04") {
        Some("the file is a ZIP archive; unpack it first")
    } else if bytes.trim_ascii_start().starts_with(b"<") {
        Some("the file looks like a web page, perhaps the error page of a download")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(format: Format, text: &str) -> LoadedFeed {
        let source = FeedSource::unnamed(format, PathBuf::from("list"));
        LoadedFeed::new(source, parse(format, text.as_bytes()), text.as_bytes())
    }

    fn verdict(format: Format, text: &str) -> String {
        match feed(format, text).usable(DEFAULT_MAX_BAD_SHARE) {
            Ok(()) => "usable".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_file_without_entries_never_counts_as_a_list() {
        let verdicts = [
            verdict(Format::Plain, ""),
            verdict(Format::Plain, "# all quiet\n\n"),
            verdict(
                Format::FeodoCsv,
                "# Firstseen,DstIP,DstPort\n# ATTENTION: This list has been Deprecated on 2025-01-03\n",
            ),
            verdict(Format::FeodoCsv, "dst_ip,dst_port\n# END 0 entries\n"),
            verdict(Format::SpamhausDrop, r#"{"type":"metadata","records":0}"#),
        ];
        insta::assert_snapshot!(verdicts.join("\n"));
    }

    #[test]
    fn a_file_of_another_kind_says_what_it_may_be() {
        let verdicts = [
            verdict(Format::FeodoCsv, "<!DOCTYPE html>\n<p>504</p>\n"),
            verdict(Format::Plain, "\n <html>\n"),
            verdict(Format::Plain, "PK\u{3}\u{4}"),
            verdict(Format::SpamhausDrop, "[]\n"),
        ];
        insta::assert_snapshot!(verdicts.join("\n"));
    }

    #[test]
    fn half_bad_lines_are_borne_and_more_are_not() {
        assert_eq!(verdict(Format::Plain, "192.0.2.1\nx\n"), "usable");
        insta::assert_snapshot!(verdict(Format::Plain, "192.0.2.1\nx\ny\n"));
        let feed = feed(Format::Plain, "192.0.2.1\nx\ny\n");
        assert!(feed.usable(0.7).is_ok());
        assert!(feed.usable(0.0).is_err());
    }

    #[test]
    fn no_share_makes_a_file_without_any_good_line_usable() {
        let feed = feed(Format::Plain, "x\n");
        assert!(matches!(
            feed.usable(1.0),
            Err(FeedError::TooManyBadLines { .. })
        ));
    }

    #[test]
    fn refusals_join_the_problems_in_line_order_and_are_not_bad_lines() {
        let mut feed = feed(
            Format::Plain,
            "10.0.0.1\nx\n10.0.0.2\n198.51.100.7/24\n127.0.0.1\n",
        );
        feed.guard(&Guards::default());
        assert!(feed.usable(DEFAULT_MAX_BAD_SHARE).is_ok());
        assert_eq!(
            feed.counts(),
            Counts {
                data_lines: 5,
                entries: 1,
                names: 0,
                left_out: 0,
                bad: 1,
                refused: 3,
                notes: 1
            }
        );
        let lines: Vec<u32> = feed.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_list_that_the_guards_refuse_whole_is_not_used() {
        let mut feed = feed(Format::Plain, "10.0.0.1\n10.0.0.2\n");
        assert!(feed.usable(DEFAULT_MAX_BAD_SHARE).is_ok());
        feed.guard(&Guards::default());
        insta::assert_snapshot!(feed.usable(DEFAULT_MAX_BAD_SHARE).unwrap_err());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_the_reason() {
        let message = |path: &str| {
            load(&FeedSource::unnamed(Format::Plain, path.into()))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message("/no/such/list.txt"),
            "cannot read feed /no/such/list.txt: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_directory_is_read_file_by_file_and_a_broken_one_costs_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            fs::write(directory.path().join(name), text).unwrap();
        };
        let event = |ip: &str| {
            format!(
                r#"{{"Event":{{"info":"i","Attribute":[{{"type":"ip-dst","value":"{ip}","to_ids":true}}]}}}}"#
            )
        };
        let uuid = |digit: u32| format!("5cf9f2f3-1b0c-4b5f-9a3e-0a0b0c0d0e0{digit}");
        write(&format!("{}.json", uuid(1)), &event("192.0.2.1"));
        write(&format!("{}.json", uuid(2)), "{\"Event\":");
        write(&format!("{}.json", uuid(3)), &event("10.0.0.1"));
        write("hashes.csv", "x");
        write(
            "manifest.json",
            &format!(r#"{{"{}":{{}},"{}":{{}}}}"#, uuid(1), uuid(4)),
        );
        let mut whole = String::new();
        for path in [
            directory.path().to_owned(),
            directory.path().join("manifest.json"),
        ] {
            let mut feed = LoadedFeed::read(&FeedSource::unnamed(Format::Misp, path)).unwrap();
            feed.guard(&Guards::default());
            assert!(feed.usable(DEFAULT_MAX_BAD_SHARE).is_ok());
            assert_eq!(feed.entries.len(), 1);
            let said: Vec<String> = feed.problem_lines().collect();
            let said = said
                .join("\n")
                .replace(directory.path().to_str().unwrap(), "DIR");
            assert!(whole.is_empty() || whole == said);
            whole = said;
        }
        insta::assert_snapshot!(whole);
    }

    #[test]
    fn a_feed_of_other_things_than_cc_is_not_used() {
        let feed = feed(
            Format::ThreatfoxCsv,
            "ioc_value,ioc_type,threat_type\n192.0.2.1:80,ip:port,payload_delivery\n",
        );
        insta::assert_snapshot!(feed.usable(1.0).unwrap_err());
    }

    #[test]
    fn the_operator_may_rate_a_whole_feed() {
        let mut source = FeedSource::unnamed(Format::Plain, PathBuf::from("list"));
        source.policy.confidence = Some(70);
        source.policy.malware = Some("QakBot".into());
        source.policy.max_bad_share = Some(0.0);
        let text = b"192.0.2.1\n192.0.2.2 confidence=10\nx\n";
        let feed = LoadedFeed::new(source, parse(Format::Plain, text), text);
        let confidence: Vec<Option<u8>> = feed
            .entries
            .iter()
            .map(|entry| entry.said.confidence)
            .collect();
        assert_eq!(confidence, [Some(70), Some(10)]);
        assert_eq!(feed.entries[0].said.malware.as_deref(), Some("QakBot"));
        assert!(feed.usable(1.0).is_err(), "the feed's own share goes first");
    }

    #[test]
    fn a_file_on_disk_is_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"192.0.2.7:443\n").unwrap();
        let feed = load(&FeedSource::unnamed(Format::Plain, file.path().into())).unwrap();
        assert_eq!(feed.entries.len(), 1);
        assert_eq!(feed.problem_lines().count(), 0);
    }
}
