//! Feeds: any bytes give entries and problems that fit the file.

use matcher_user::feeds::{self, Format, ProblemKind};

/// The target of each format: a new format does not compile without one.
pub fn target(format: Format) -> &'static str {
    match format {
        Format::Plain => "feed_plain",
        Format::FeodoCsv => "feed_feodo_csv",
        Format::SpamhausDrop => "feed_spamhaus_drop",
    }
}

/// Parses the bytes and checks what came of it.
///
/// # Panics
/// When something does not hold that must.
pub fn check(format: Format, bytes: &[u8]) {
    let feed = feeds::parse(format, bytes);
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let in_file = |line: u32| (1..=lines).contains(&(line as usize));
    assert!(
        feed.data_lines as usize <= lines,
        "{} data lines of {lines}",
        feed.data_lines
    );
    for entry in &feed.entries {
        assert!(in_file(entry.line), "{entry:?} of {lines} lines");
        assert_eq!(entry.value.trunc(), entry.value, "host bits are cleared");
        assert!(entry.malware.as_deref() != Some(""), "{entry:?}");
        assert!(
            entry.confidence.is_none_or(|percent| percent <= 100),
            "{entry:?}"
        );
        if let (Some(from), Some(until)) = (entry.valid_from, entry.valid_until) {
            assert!(from < until, "{entry:?}");
        }
    }
    for problem in feed.problems.iter().chain(&feed.not_this_format) {
        assert!(in_file(problem.line), "{problem:?} of {lines} lines");
        assert!(!problem.reason.is_empty(), "{problem:?}");
    }
    // Bad lines and entries are both data.
    let bad = |problem: &&feeds::LineProblem| problem.kind == ProblemKind::Bad;
    let bad = feed.problems.iter().filter(bad).count();
    assert!(feed.entries.len() <= feed.data_lines as usize);
    assert!(
        feed.entries.len() + bad >= feed.data_lines as usize || feed.not_this_format.is_some(),
        "{} entries and {bad} bad lines of {} data lines",
        feed.entries.len(),
        feed.data_lines
    );
    if feed.not_this_format.is_some() {
        assert!(
            feed.entries.is_empty(),
            "entries of a file of another format"
        );
    }
}
