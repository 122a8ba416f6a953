//! A file as numbered lines of bytes. Lines, not the whole file, are checked
//! for UTF-8, so that one bad byte costs one line.

use std::iter;

use memchr::memchr;

/// A line without its end and without blanks around it.
#[derive(Copy, Clone, Debug)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u32,
    pub(super) bytes: &'a [u8],
}

impl<'a> Line<'a> {
    pub(super) fn is_blank(self) -> bool {
        self.bytes.is_empty()
    }

    /// The text behind the marks of a comment line; `None` for other lines.
    /// Comments may be in any encoding.
    pub(super) fn comment(self) -> Option<&'a [u8]> {
        let is_mark = |byte: &u8| matches!(byte, b'#' | b';');
        if !self.bytes.first().is_some_and(is_mark) {
            return None;
        }
        let start = self.bytes.iter().position(|byte| !is_mark(byte));
        Some(
            start
                .and_then(|start| self.bytes.get(start..))
                .unwrap_or_default()
                .trim_ascii(),
        )
    }

    /// The line as text.
    pub(super) fn text(self) -> Result<&'a str, NotUtf8> {
        std::str::from_utf8(self.bytes).map_err(|error| NotUtf8 {
            column: error.valid_up_to() + 1,
        })
    }
}

/// A line that is not UTF-8.
#[derive(Debug, thiserror::Error)]
#[error("not UTF-8 text (byte {column} of the line)")]
pub(super) struct NotUtf8 {
    column: usize,
}

/// The lines of a file, blank ones and comments included.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    lines_from(1, bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))
}

/// The lines of a part of a file that begins with line `first`.
fn lines_from(first: u32, bytes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = Some(bytes);
    let bytes = iter::from_fn(move || {
        let bytes = rest?;
        let end = memchr(b'\n', bytes);
        rest = end.and_then(|end| bytes.get(end + 1..));
        end.map_or(Some(bytes), |end| bytes.get(..end))
    });
    bytes.zip(first..).map(|(bytes, number)| Line {
        number,
        bytes: bytes.trim_ascii(),
    })
}

/// The [`lines`] of a file in two parts of about the same length, for two readers.
/// `None` where there is one line.
pub(super) fn lines_in_two(
    bytes: &[u8],
) -> Option<(
    impl Iterator<Item = Line<'_>>,
    impl Iterator<Item = Line<'_>>,
)> {
    let is_end = |byte: &u8| *byte == b'\n';
    let middle = bytes.len() / 2;
    let cut = middle + bytes.get(middle..)?.iter().position(is_end)?;
    let (first, second) = (bytes.get(..cut)?, bytes.get(cut + 1..)?);
    let ends = first.iter().filter(|byte| is_end(byte)).count();
    // The line that the cut ends, and the one behind it.
    let number = u32::try_from(ends).ok()?.checked_add(2)?;
    Some((lines(first), lines_from(number, second)))
}

/// The first comment line that says that the list is no longer kept.
pub(super) fn says_deprecated(bytes: &[u8]) -> Option<u32> {
    lines(bytes)
        .find(|line| {
            line.comment().is_some_and(|text| {
                let text = text.to_ascii_lowercase();
                [&b"deprecated"[..], b"discontinued"]
                    .iter()
                    .any(|word| text.windows(word.len()).any(|window| window == *word))
            })
        })
        .map(|line| line.number)
}

/// A piece of a feed inside a message: quoted, control characters escaped, and
/// short, since a "line" of a broken file can be the whole file.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
    }
}
