//! Tables of fields between delimiters, with a header that names the columns.
//!
//! Columns are found by name, in any order, beside any others; the header may
//! be commented out. Without a header nothing is read: guessing which column
//! is the C&C's would be worse than reading nothing.
//!
//! The fields are split here and not by a CSV library, because the published
//! files write `"a", "b, c"`: a blank between comma and quote, which CSV takes
//! for an unquoted field and splits at the comma inside. A row ends with its
//! line, so that a quote which nobody closed costs one row.

use std::{borrow::Cow, fmt};

use super::{
    ParsedFeed,
    lines::{Line, NotUtf8, lines, quoted},
    value::{self, ValueError},
};

/// Why a row is no entry.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error(transparent)]
    NotUtf8(#[from] NotUtf8),
    #[error("a quote is not closed")]
    OpenQuote,
    #[error("the row has {found} fields and the header {wanted}: cut off?")]
    TooShort { found: usize, wanted: usize },
    #[error("{column}: {error}")]
    Value {
        column: &'static str,
        error: ValueError,
    },
    #[error("{0}")]
    Other(String),
}

impl RowError {
    /// Puts a column's name before what is wrong with its value.
    pub(super) fn at(column: &'static str) -> impl Fn(ValueError) -> Self {
        move |error| Self::Value { column, error }
    }
}

/// The fields of one line, without quotes and blanks around them.
pub(super) struct Row<'a>(Vec<Cow<'a, str>>);

impl<'a> Row<'a> {
    pub(super) fn split(text: &'a str, delimiter: char) -> Result<Self, RowError> {
        let mut fields = Vec::with_capacity(16);
        let mut rest = text;
        loop {
            let (field, after) = field(rest, delimiter)?;
            fields.push(field);
            match after {
                Some(after) => rest = after,
                None => return Ok(Self(fields)),
            }
        }
    }

    /// A field's text; empty where the row has no such field.
    pub(super) fn text(&self, column: usize) -> &str {
        self.0.get(column).map_or("", |field| field)
    }

    /// A field that says something.
    pub(super) fn said(&self, column: Option<usize>) -> Option<&str> {
        let text = self.text(column?);
        (!text.is_empty() && !text.eq_ignore_ascii_case("none")).then_some(text)
    }

    /// Where the column with one of these names stands.
    pub(super) fn find(&self, names: &[&str]) -> Option<usize> {
        self.0
            .iter()
            .position(|field| names.iter().any(|name| field.eq_ignore_ascii_case(name)))
    }
}

/// The first field, and what follows its delimiter.
fn field(text: &str, delimiter: char) -> Result<(Cow<'_, str>, Option<&str>), RowError> {
    let blank = |letter: char| letter.is_whitespace() && letter != delimiter;
    let text = text.trim_start_matches(blank);
    let Some(inside) = text.strip_prefix('"') else {
        return Ok(match text.split_once(delimiter) {
            Some((field, rest)) => (field.trim_end().into(), Some(rest)),
            None => (text.trim_end().into(), None),
        });
    };
    let mut value: Cow<'_, str> = Cow::Borrowed("");
    let mut rest = inside;
    loop {
        let (part, after) = rest.split_once('"').ok_or(RowError::OpenQuote)?;
        if value.is_empty() {
            value = part.into();
        } else {
            value.to_mut().push_str(part);
        }
        // Two quotes are one inside the field.
        match after.strip_prefix('"') {
            Some(more) => {
                value.to_mut().push('"');
                rest = more;
            }
            None => {
                rest = after;
                break;
            }
        }
    }
    let value = match value {
        Cow::Borrowed(text) => text.trim().into(),
        Cow::Owned(text) => text.trim().to_owned().into(),
    };
    match rest.split_once(delimiter) {
        Some((between, rest)) if between.trim().is_empty() => Ok((value, Some(rest))),
        None if rest.trim().is_empty() => Ok((value, None)),
        _ => Err(RowError::Other(
            "text follows the closing quote of a field".to_owned(),
        )),
    }
}

/// What a table of one format looks like. `C` is where its columns stand.
pub(super) struct Layout<C> {
    pub(super) delimiter: char,
    /// `None` for a row that is no header.
    pub(super) columns: fn(&Row<'_>) -> Option<C>,
    /// The columns that there must be, for the message.
    pub(super) wanted: &'static str,
    /// The number of entries that a trailer (a comment) speaks of.
    pub(super) trailer: fn(&str) -> Option<u64>,
    /// Rows may end early; else a row that is shorter than the header is
    /// taken to be cut off, perhaps inside its address.
    pub(super) short_rows: bool,
}

/// Reads a table; `entry` puts what a row says into the feed.
pub(super) fn read<C>(
    bytes: &[u8],
    layout: &Layout<C>,
    mut entry: impl FnMut(&mut ParsedFeed, &Row<'_>, &C, u32) -> Result<(), RowError>,
) -> ParsedFeed {
    let mut feed = ParsedFeed::default();
    let mut header: Option<(C, usize)> = None;
    // Rows since the last trailer, for files that were put together of several.
    let mut rows = 0;
    let read_header = |text: &str| {
        let row = Row::split(text, layout.delimiter).ok()?;
        let columns = (layout.columns)(&row)?;
        Some((columns, row.0.len()))
    };
    for line in lines(bytes) {
        if line.is_blank() {
            continue;
        }
        if let Some(comment) = line.comment() {
            // Comments may be in any encoding.
            let Ok(comment) = std::str::from_utf8(comment) else {
                continue;
            };
            if let Some(said) = (layout.trailer)(comment) {
                if said != rows {
                    feed.note(
                        line.number,
                        format_args!("the trailer says {said} entries, the file has {rows}"),
                    );
                }
                rows = 0;
            } else if let Some(found) = read_header(comment) {
                header = Some(found);
            }
            continue;
        }
        let text = line.text();
        if let Some(found) = text.as_ref().ok().and_then(|text| read_header(text)) {
            header = Some(found);
            continue;
        }
        let Some((columns, width)) = &header else {
            feed = ParsedFeed::default();
            feed.wrong_format(line.number, no_header(line, layout.wanted));
            return feed;
        };
        feed.data_lines += 1;
        rows += 1;
        let done = text.map_err(RowError::from).and_then(|text| {
            let row = Row::split(text, layout.delimiter)?;
            if row.0.len() < *width && !layout.short_rows {
                return Err(RowError::TooShort {
                    found: row.0.len(),
                    wanted: *width,
                });
            }
            entry(&mut feed, &row, columns, line.number)
        });
        if let Err(error) = done {
            feed.bad(line.number, error);
        }
    }
    feed
}

fn no_header(line: Line<'_>, wanted: &str) -> impl fmt::Display {
    let found = quoted(&String::from_utf8_lossy(line.bytes));
    format!("expected a header that names {wanted} before the first row, found {found}")
}

/// A table without trailers.
pub(super) fn no_trailer(_: &str) -> Option<u64> {
    None
}

/// A time, or a note that there is none.
pub(super) fn time(
    feed: &mut ParsedFeed,
    row: &Row<'_>,
    column: Option<usize>,
    name: &str,
    line: u32,
) -> Option<jiff::Timestamp> {
    let given = row.said(column)?;
    let time = super::time::utc(given);
    if time.is_none() {
        feed.note(
            line,
            format_args!("{name}: {} is not a time, left out", quoted(given)),
        );
    }
    time
}

/// A confidence from 0 to 100, or a note that it is none.
pub(super) fn confidence(
    feed: &mut ParsedFeed,
    given: Option<&str>,
    name: &str,
    line: u32,
) -> Option<u8> {
    let given = given?;
    let percent = value::number(given).filter(|percent: &u8| *percent <= 100);
    if percent.is_none() {
        feed.note(
            line,
            format_args!(
                "{name}: {} is not a number from 0 to 100, left out",
                quoted(given)
            ),
        );
    }
    percent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<String> {
        let row = Row::split(text, ',').unwrap();
        row.0.into_iter().map(Cow::into_owned).collect()
    }

    #[test]
    fn fields_are_split_as_the_published_files_write_them() {
        assert_eq!(fields("a,b,,c"), ["a", "b", "", "c"]);
        assert_eq!(fields(r#""a","b""#), ["a", "b"]);
        assert_eq!(
            fields(r#""a", "b, c" ,"""d""", """#),
            ["a", "b, c", "\"d\"", ""]
        );
        assert_eq!(fields(r#"a b , c"d "#), ["a b", "c\"d"]);
        assert_eq!(fields(""), [""]);
        assert_eq!(
            Row::split("1.2.3.4\t\tx", '\t').unwrap().0,
            ["1.2.3.4", "", "x"]
        );
    }

    #[test]
    fn an_open_quote_and_text_behind_a_quote_are_errors() {
        assert!(matches!(
            Row::split(r#"a,"b"#, ','),
            Err(RowError::OpenQuote)
        ));
        assert!(matches!(
            Row::split(r#""a"b,c"#, ','),
            Err(RowError::Other(_))
        ));
    }
}
