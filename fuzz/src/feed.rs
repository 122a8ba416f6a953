//! Feeds: any bytes give entries and problems that fit the file.

use matcher_user::{
    feeds::{self, FeedEntry, Format, ParsedFeed, ProblemKind},
    indicator::Said,
};

/// Whether each record of the format has a line of its own.
fn is_by_line(format: Format) -> bool {
    !matches!(
        format,
        Format::FeodoJson
            | Format::ThreatfoxJson
            | Format::Misp
            | Format::Stix
            | Format::Taxii
            | Format::Rpz
    )
}

/// Parses the bytes and checks what came of it.
///
/// # Panics
/// When something does not hold that must.
pub fn check(format: Format, bytes: &[u8]) {
    let feed = feeds::parse(format, bytes);
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let in_file = |line: u32| (1..=lines).contains(&(line as usize));
    for entry in &feed.entries {
        assert!(in_file(entry.line), "{entry:?} of {lines} lines");
        assert_eq!(entry.value.trunc(), entry.value, "host bits are cleared");
        check_entry(entry);
    }
    for name in &feed.names {
        assert!(in_file(name.line), "{name:?} of {lines} lines");
        check_entry(name);
    }
    for problem in feed.problems.iter().chain(&feed.not_this_format) {
        assert!(in_file(problem.line), "{problem:?} of {lines} lines");
        assert!(!problem.reason.is_empty(), "{problem:?}");
    }
    if is_by_line(format) {
        check_lines(&feed, lines);
    }
    assert_eq!(
        feeds::parse(format, bytes),
        feed,
        "the same bytes, another answer"
    );
}

fn check_entry<V: std::fmt::Debug>(entry: &FeedEntry<V>) {
    let Said {
        malware,
        confidence,
        ..
    } = &*entry.said;
    assert!(malware.as_deref() != Some(""), "{entry:?}");
    assert!(confidence.is_none_or(|percent| percent <= 100), "{entry:?}");
    if let (Some(from), Some(until)) = (entry.valid_from, entry.valid_until) {
        assert!(from < until, "{entry:?}");
    }
}

/// Every record is an entry, bad, or left out.
fn check_lines(feed: &ParsedFeed, lines: usize) {
    let records = feed.data_lines as usize;
    assert!(records <= lines, "{records} records of {lines} lines");
    let bad = feed
        .problems
        .iter()
        .filter(|problem| problem.kind == ProblemKind::Bad)
        .count();
    let left_out: u32 = feed.left_out.iter().map(|kind| kind.records).sum();
    let known = feed.entries.len() + feed.names.len() + bad + left_out as usize;
    assert!(
        known >= records || feed.not_this_format.is_some(),
        "{known} of {records} records are accounted for"
    );
}
