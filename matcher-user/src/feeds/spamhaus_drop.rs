//! Format `spamhaus-drop`: Spamhaus DROP, as JSON lines closed by a metadata
//! line, or in the old text form. IPv4 and IPv6 come in files of their own.
//!
//! ```text
//! {"cidr":"1.10.16.0/20","sblid":"SBL256894","rir":"apnic"}
//! {"type":"metadata","timestamp":1786063442,"size":5752,"records":91,"copyright":"...","terms":"..."}
//!
//! ; Spamhaus DROP List 2015/09/14
//! 1.4.0.0/17 ; SBL256893
//! ```
//!
//! DROP lists netblocks that are hijacked or run by criminals, not C&C
//! servers as such ([`super::Format::caution`] tells the operator).

use std::borrow::Cow;

use serde::Deserialize;

use super::{
    FeedEntry, ParsedFeed,
    lines::{NotUtf8, lines},
    value::{self, Prefix, ValueError},
};

#[derive(Debug, thiserror::Error)]
enum DropError {
    #[error(transparent)]
    NotUtf8(#[from] NotUtf8),
    #[error("not a JSON line of DROP: {}", without_line(.0))]
    Json(#[from] serde_json::Error),
    #[error("the JSON object has no \"cidr\"")]
    NoCidr,
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// serde_json counts lines inside the one line it is given.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((reason, _)) => format!("{reason} at column {}", error.column()),
        None => text,
    }
}

/// Either kind of JSON line.
#[derive(Deserialize)]
struct JsonLine<'a> {
    #[serde(borrow)]
    cidr: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    records: Option<u64>,
    #[serde(borrow)]
    sblid: Option<Cow<'a, str>>,
}

enum Content<'a> {
    /// A prefix, and the number of its listing.
    Prefix(Prefix, Option<Cow<'a, str>>),
    /// The closing line, and the number of records it speaks of.
    Metadata(Option<u64>),
}

/// Reads a file of this format.
pub(super) fn parse(bytes: &[u8]) -> ParsedFeed {
    let mut feed = ParsedFeed::default();
    // JSON lines since the last metadata line, for files put together of several.
    let mut unclosed: u64 = 0;
    let mut last_line = 1;
    for line in lines(bytes) {
        if line.is_blank() || line.comment().is_some() {
            continue;
        }
        last_line = line.number;
        let is_json = line.bytes.starts_with(b"{");
        let content = line.text().map_err(DropError::from).and_then(|text| {
            if is_json {
                json(text)
            } else {
                let (prefix, comment) = text.split_once([';', '#']).unwrap_or((text, ""));
                let prefix = prefix.trim().trim_matches('"');
                Ok(Content::Prefix(
                    value::prefix(prefix)?,
                    Some(comment.trim().into()),
                ))
            }
        });
        match content {
            Ok(Content::Metadata(records)) => {
                if let Some(records) = records.filter(|records| *records != unclosed) {
                    feed.note(
                        line.number,
                        format_args!(
                            "the metadata line says {records} records, the file has {unclosed}"
                        ),
                    );
                }
                unclosed = 0;
                continue;
            }
            Ok(Content::Prefix(prefix, id)) => {
                if let Some(note) = prefix.note() {
                    feed.note(line.number, note);
                }
                let mut entry = FeedEntry::bare(prefix.net, line.number);
                entry.said.id = id.filter(|id| !id.is_empty()).map(|id| (&*id).into());
                feed.entries.push(entry);
            }
            Err(error) => feed.bad(line.number, error),
        }
        feed.data_lines += 1;
        if is_json {
            unclosed += 1;
        }
    }
    if unclosed > 0 {
        feed.note(
            last_line,
            "the metadata line that closes the list is missing: cut off?",
        );
    }
    feed
}

fn json(text: &str) -> Result<Content<'_>, DropError> {
    let line: JsonLine<'_> = serde_json::from_str(text)?;
    match (line.cidr, line.kind.as_deref()) {
        (None, Some("metadata")) => Ok(Content::Metadata(line.records)),
        (Some(cidr), _) => Ok(Content::Prefix(value::prefix(cidr.trim())?, line.sblid)),
        (None, _) => Err(DropError::NoCidr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(feed: &ParsedFeed) -> Vec<String> {
        feed.entries
            .iter()
            .map(|entry| format!("{} {}", entry.line, entry.value))
            .collect()
    }

    fn problems(feed: &ParsedFeed) -> Vec<String> {
        let path = std::path::Path::new("drop.json");
        feed.problems
            .iter()
            .map(|problem| problem.at(path).to_string())
            .collect()
    }

    #[test]
    fn json_lines_of_both_families_are_read_duplicates_included() {
        let feed = parse(
            br#"{"cidr":"1.10.16.0/20","sblid":"SBL256894","rir":"apnic"}
{"cidr":"1.10.16.0/20","sblid":"SBL256894","rir":"apnic"}
{"rir":"ripencc","new_key":[1],"sblid":"SBL697648","cidr":"2001:678:254::/48"}
{"type":"metadata","timestamp":1786063442,"size":5752,"records":3,"copyright":"(c)","terms":"x"}
"#,
        );
        assert_eq!(problems(&feed), [""; 0]);
        assert_eq!(
            read(&feed),
            ["1 1.10.16.0/20", "2 1.10.16.0/20", "3 2001:678:254::/48"]
        );
        assert_eq!(feed.data_lines, 3);
    }

    #[test]
    fn the_old_text_form_is_read() {
        let feed = parse(
            b"; Spamhaus DROP List 2015/09/14 - (c) 2015 The Spamhaus Project\r\n\
              ; Expires: Mon, 14 Sep 2015 18:13:26 GMT\r\n\
              1.4.0.0/17 ; SBL256893\r\n1.10.16.0/20;SBL256894\r\n2a06:5280::/29 ; SBL334219\r\n",
        );
        assert_eq!(problems(&feed), [""; 0]);
        assert_eq!(
            read(&feed),
            ["3 1.4.0.0/17", "4 1.10.16.0/20", "5 2a06:5280::/29"]
        );
    }

    #[test]
    fn one_bad_line_costs_only_itself_and_the_count_is_checked() {
        let text = [
            r#"{"cidr":"1.10.16.0/20","sblid":"SBL256894","rir":"apnic"}"#,
            r#"{"cidr":"1.10.16.0/20","sblid"#,
            r#"{"cidr":17}"#,
            r#"{"sblid":"SBL1"}"#,
            r#"{"cidr":"1.10.16.0/40"}"#,
            r#"{"cidr":"1.10.16.9/20"}"#,
            "<html>",
            r#"{"type":"metadata","records":91}"#,
            r#"{"cidr":"1.4.0.0/17"}"#,
        ]
        .join("\n");
        let feed = parse(text.as_bytes());
        assert_eq!(
            read(&feed),
            ["1 1.10.16.0/20", "6 1.10.16.0/20", "9 1.4.0.0/17"]
        );
        insta::assert_snapshot!(problems(&feed).join("\n"));
    }

    #[test]
    fn a_metadata_line_alone_is_no_data() {
        let feed = parse(br#"{"type":"metadata","records":0}"#);
        assert_eq!(feed.data_lines, 0);
        assert_eq!(problems(&feed), [""; 0]);
    }
}
