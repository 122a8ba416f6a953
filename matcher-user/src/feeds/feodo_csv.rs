//! Format `feodo-csv`: Feodo Tracker's block list.
//!
//! ```text
//! # Last updated: 2024-04-04 07:03:03 UTC                        #
//! "first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware"
//! "2023-05-23 17:51:44","192.9.135.73","1194","online","2024-04-01","Pikabot"
//! # END 28 entries
//! ```
//!
//! Columns are found by name, in any order, beside any others; the header may
//! be unquoted, or commented out as in older files. Times are UTC. Without a
//! header nothing is read: guessing which column is the C&C's would be worse
//! than reading nothing.

use csv::{ByteRecord, ReaderBuilder};
use jiff::{Timestamp, civil, tz::TimeZone};

use super::{
    FeedEntry, LineProblem, ParsedFeed, ProblemKind,
    lines::{Line, NotUtf8, lines, quoted},
    value::{self, ValueError},
};

#[derive(Debug, thiserror::Error)]
enum RowError {
    #[error(transparent)]
    NotUtf8(#[from] NotUtf8),
    #[error("a quote is not closed")]
    OpenQuote,
    #[error("not a CSV row: {0}")]
    Csv(#[from] csv::Error),
    #[error("the row has {found} fields and the header {wanted}: cut off?")]
    TooShort { found: usize, wanted: usize },
    #[error("dst_ip: {0}")]
    Address(ValueError),
    #[error("dst_ip: {} is a prefix", quoted(.0))]
    Prefix(String),
    #[error("dst_port: {0}")]
    Port(ValueError),
}

/// Where the header puts what we read.
struct Columns {
    address: usize,
    port: usize,
    first_seen: Option<usize>,
    last_online: Option<usize>,
    malware: Option<usize>,
    count: usize,
}

impl Columns {
    /// `None` for a record that is no header.
    fn of(record: &Record) -> Option<Self> {
        let find = |names: &[&str]| {
            record.fields().position(|field| {
                names
                    .iter()
                    .any(|name| field.eq_ignore_ascii_case(name.as_bytes()))
            })
        };
        Some(Self {
            address: find(&["dst_ip"])?,
            port: find(&["dst_port"])?,
            first_seen: find(&["first_seen_utc", "first_seen"]),
            last_online: find(&["last_online"]),
            malware: find(&["malware"]),
            count: record.0.len(),
        })
    }
}

/// Reads a file of this format.
pub(super) fn parse(bytes: &[u8]) -> ParsedFeed {
    let mut feed = ParsedFeed::default();
    let mut columns: Option<Columns> = None;
    // Rows since the last trailer, for files that were put together of several.
    let mut rows = 0;
    for line in lines(bytes) {
        if line.is_blank() {
            continue;
        }
        if let Some(comment) = line.comment() {
            if let Some(said) = entries_said(comment) {
                if said != rows {
                    feed.note(
                        line.number,
                        format_args!("the trailer says {said} entries, the file has {rows}"),
                    );
                }
                rows = 0;
            } else if let Some(found) = Record::read(comment)
                .ok()
                .and_then(|record| Columns::of(&record))
            {
                columns = Some(found);
            }
            continue;
        }
        let record = Record::read(line.bytes);
        if let Some(found) = record.as_ref().ok().and_then(Columns::of) {
            columns = Some(found);
            continue;
        }
        let Some(columns) = &columns else {
            feed.not_this_format = Some(no_header(line));
            return feed;
        };
        feed.data_lines += 1;
        rows += 1;
        match record.and_then(|record| entry(&record, columns, line, &mut feed)) {
            Ok(entry) => feed.entries.push(entry),
            Err(error) => feed.bad(line.number, error),
        }
    }
    feed
}

/// The number in the trailer `END 28 entries`.
fn entries_said(comment: &[u8]) -> Option<u64> {
    let comment = std::str::from_utf8(comment).ok()?;
    let (count, _) = comment.strip_prefix("END ")?.split_once(' ')?;
    value::number(count)
}

fn no_header(line: Line<'_>) -> LineProblem {
    let found = quoted(&String::from_utf8_lossy(line.bytes));
    LineProblem {
        line: line.number,
        kind: ProblemKind::Bad,
        reason: format!(
            "expected a header that names dst_ip and dst_port before the first row, found {found}"
        ),
    }
}

fn entry(
    record: &Record,
    columns: &Columns,
    line: Line<'_>,
    feed: &mut ParsedFeed,
) -> Result<FeedEntry, RowError> {
    line.text()?;
    // A row that lost its end may have lost the end of its address.
    if record.0.len() < columns.count {
        return Err(RowError::TooShort {
            found: record.0.len(),
            wanted: columns.count,
        });
    }
    let address = record.text(columns.address);
    let prefix = value::prefix(address).map_err(RowError::Address)?;
    if address.contains('/') {
        return Err(RowError::Prefix(address.to_owned()));
    }
    let mut entry = FeedEntry::bare(prefix.net, line.number);
    entry.qualifier.port = Some(value::port(record.text(columns.port)).map_err(RowError::Port)?);
    entry.malware = said(record, columns.malware).map(str::to_owned);
    let mut time = |column: Option<usize>, name: &str| {
        let given = said(record, column)?;
        let time = utc(given);
        if time.is_none() {
            feed.note(
                line.number,
                format_args!("{name}: {} is not a time, left out", quoted(given)),
            );
        }
        time
    };
    entry.first_seen = time(columns.first_seen, "first_seen_utc");
    entry.last_seen = time(columns.last_online, "last_online");
    Ok(entry)
}

/// A field that says something.
fn said(record: &Record, column: Option<usize>) -> Option<&str> {
    let text = record.text(column?);
    (!text.is_empty() && !text.eq_ignore_ascii_case("none")).then_some(text)
}

/// `YYYY-MM-DD HH:MM:SS` or `YYYY-MM-DD` (its first moment), in UTC.
fn utc(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    let time: civil::DateTime = text.parse().ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

/// One CSV row. Read by itself, so that a quote which nobody closed ends with
/// its line.
struct Record(ByteRecord);

impl Record {
    fn read(line: &[u8]) -> Result<Self, RowError> {
        // Inside an open quote the line end becomes part of the last field,
        // where no line end can be otherwise.
        let line = [line, b"\n"].concat();
        let mut record = ByteRecord::new();
        ReaderBuilder::new()
            .has_headers(false)
            .buffer_capacity(line.len())
            .from_reader(line.as_slice())
            .read_byte_record(&mut record)?;
        if record.iter().any(|field| field.ends_with(b"\n")) {
            return Err(RowError::OpenQuote);
        }
        Ok(Self(record))
    }

    /// Fields without blanks and leftover quotes around them (`", "` between
    /// fields leaves both).
    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(bare)
    }

    /// A field's text; empty where the row has no such field or the field is
    /// not UTF-8 (the caller has checked the line).
    fn text(&self, column: usize) -> &str {
        self.0
            .get(column)
            .map(bare)
            .and_then(|field| std::str::from_utf8(field).ok())
            .unwrap_or_default()
    }
}

fn bare(field: &[u8]) -> &[u8] {
    let field = field.trim_ascii();
    field
        .strip_prefix(b"\"")
        .and_then(|field| field.strip_suffix(b"\""))
        .map_or(field, <[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::indicator::Qualifier;

    const HEADER: &str =
        r#""first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware""#;
    const ROW: &str =
        r#""2023-05-23 17:51:44","192.9.135.73","1194","online","2024-04-01","Pikabot""#;

    fn pikabot(line: u32) -> FeedEntry {
        FeedEntry {
            qualifier: Qualifier {
                protocol: None,
                port: Some(1194),
            },
            malware: Some("Pikabot".to_owned()),
            first_seen: Some("2023-05-23T17:51:44Z".parse().unwrap()),
            last_seen: Some("2024-04-01T00:00:00Z".parse().unwrap()),
            ..FeedEntry::bare("192.9.135.73/32".parse().unwrap(), line)
        }
    }

    fn problems(feed: &ParsedFeed) -> Vec<String> {
        let path = std::path::Path::new("feodo.csv");
        feed.problems
            .iter()
            .map(|problem| problem.at(path).to_string())
            .collect()
    }

    #[test]
    fn the_published_layout_is_read() {
        let text = format!(
            "################################\r\n\
             # Last updated: 2024-04-04 07:03:03 UTC     #\r\n\
             {HEADER}\r\n{ROW}\r\n# END 1 entries\r\n"
        );
        let feed = parse(text.as_bytes());
        assert_eq!(problems(&feed), [""; 0]);
        assert_eq!(feed.entries, [pikabot(4)]);
        assert_eq!(feed.data_lines, 1);
    }

    #[test]
    fn columns_are_found_by_name_wherever_they_stand() {
        for text in [
            "first_seen_utc,dst_ip,dst_port,c2_status,last_online,malware\n\
             2023-05-23 17:51:44,192.9.135.73,1194,online,2024-04-01,Pikabot\n",
            "# first_seen_utc,dst_ip,dst_port,last_online,malware\n\
             2023-05-23 17:51:44,192.9.135.73,1194,2024-04-01,Pikabot\n",
            "Malware,DST_PORT,confidence,dst_ip,last_online,first_seen_utc\n\
             Pikabot,1194,\"a, b\",192.9.135.73,2024-04-01 00:00:00,2023-05-23 17:51:44 UTC\n",
            "\"first_seen_utc\", \"dst_ip\", \"dst_port\", \"last_online\", \"malware\"\n\
             \"2023-05-23 17:51:44\", \"192.9.135.73\", \"1194\", \"2024-04-01\", \"Pikabot\"\n",
        ] {
            let feed = parse(text.as_bytes());
            assert_eq!(problems(&feed), [""; 0], "{text}");
            assert_eq!(feed.entries, [pikabot(2)], "{text}");
        }
    }

    #[test]
    fn absent_times_and_malware_are_absent() {
        let feed = parse(b"dst_ip,dst_port,malware,last_online\n192.0.2.7,443,None,\n");
        assert_eq!(problems(&feed), [""; 0]);
        let mut want = FeedEntry::bare("192.0.2.7/32".parse().unwrap(), 2);
        want.qualifier.port = Some(443);
        assert_eq!(feed.entries, [want]);
    }

    #[test]
    fn one_bad_row_costs_only_itself() {
        let text = [
            HEADER,
            r#""2023-05-23 17:51:44","192.9.135","1194","online","2024-04-01","Pikabot""#,
            r#""2023-05-23 17:51:44","192.9.135.0/24","1194","online","2024-04-01","Pikabot""#,
            r#""2023-05-23 17:51:44","192.9.135.73","0","online","2024-04-01","Pikabot""#,
            r#""2023-05-23 17:51:44","192.9.135.73","","online","2024-04-01","Pikabot""#,
            r#""2023-05-23 17:51:44","192.9.135.73"#,
            r#""2023-05-23 17:51:44","192.9.135.7"#,
            r#""2023-05-23 17:51:44","192.9.135.7""#,
            r#""23 May","192.9.135.73","1194","online","2024-04-31","Pikabot""#,
            ROW,
            "# END 12 entries",
        ]
        .join("\n");
        let feed = parse(text.as_bytes());
        let good: Vec<u32> = feed.entries.iter().map(|entry| entry.line).collect();
        assert_eq!(good, [9, 10]);
        assert_eq!(feed.data_lines, 9);
        insta::assert_snapshot!(problems(&feed).join("\n"));
    }

    #[test]
    fn bytes_that_are_not_utf8_cost_only_their_row() {
        let text = [HEADER.as_bytes(), b"\"x\",\"\xff\"\n", ROW.as_bytes()];
        let feed = parse(&text.join(&b'\n'));
        assert_eq!(feed.entries.len(), 1);
        assert_eq!(
            problems(&feed),
            ["feodo.csv:2: not UTF-8 text (byte 6 of the line)"]
        );
    }

    #[test]
    fn rows_without_a_header_are_no_list() {
        let feed = parse(format!("# banner\n{ROW}\n{ROW}\n").as_bytes());
        assert_eq!(feed.entries, []);
        insta::assert_snapshot!(
            feed.not_this_format.unwrap().reason,
            @r#"expected a header that names dst_ip and dst_port before the first row, found "\"2023-05-23 17:51:44\",\"192.9.135.73\",\"1194\",\"online\",\"2024-0"..."#
        );
    }

    #[test]
    fn two_lists_in_one_file_are_both_read() {
        let one = format!("{HEADER}\n{ROW}\n# END 1 entries\n");
        let feed = parse(format!("{one}{one}").as_bytes());
        assert_eq!(problems(&feed), [""; 0]);
        assert_eq!(feed.entries, [pikabot(2), pikabot(5)]);
    }
}
