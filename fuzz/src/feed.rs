//! Feeds: any bytes give entries and problems that fit the file.

use matcher_user::feeds::{self, Format};

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
        if let (Some(from), Some(until)) = (entry.valid_from, entry.valid_until) {
            assert!(from < until, "{entry:?}");
        }
    }
    for problem in feed.problems.iter().chain(&feed.not_this_format) {
        assert!(in_file(problem.line), "{problem:?} of {lines} lines");
        assert!(!problem.reason.is_empty(), "{problem:?}");
    }
    assert_eq!(
        feeds::parse(format, bytes),
        feed,
        "the same bytes, another answer"
    );
}
