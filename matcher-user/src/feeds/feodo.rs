//! Formats `feodo-csv` and `feodo-json`: Feodo Tracker's block list.
//!
//! ```text
//! # Last updated: 2024-04-04 07:03:03 UTC                        #
//! "first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware"
//! "2023-05-23 17:51:44","192.9.135.73","1194","online","2024-04-01","Pikabot"
//! # END 28 entries
//!
//! [{"ip_address":"51.178.161.32","port":4643,"status":"online","hostname":null,
//!   "as_number":16276,"as_name":"OVH","country":"FR",
//!   "first_seen":"2021-01-17 07:44:46","last_online":"2022-11-15","malware":"Dridex"}]
//! ```
//!
//! The header may be unquoted, or commented out as in older files; in JSON
//! `first_seen` may be absent. Times are UTC.

use serde::Deserialize;

use super::{
    FeedEntry, ParsedFeed, Texts,
    json::{self, Scalar},
    lines::quoted,
    rows::{self, Layout, Row, RowError},
    time::utc,
    value,
};

struct Columns {
    address: usize,
    port: usize,
    first_seen: Option<usize>,
    last_online: Option<usize>,
    malware: Option<usize>,
}

fn columns(row: &Row<'_>) -> Option<Columns> {
    Some(Columns {
        address: row.find(&["dst_ip"])?,
        port: row.find(&["dst_port"])?,
        first_seen: row.find(&["first_seen_utc", "first_seen"]),
        last_online: row.find(&["last_online"]),
        malware: row.find(&["malware"]),
    })
}

/// The number in the trailer `END 28 entries`.
fn trailer(comment: &str) -> Option<u64> {
    let (count, _) = comment.strip_prefix("END ")?.split_once(' ')?;
    value::number(count)
}

/// Reads the CSV.
pub(super) fn parse_csv(bytes: &[u8]) -> ParsedFeed {
    let layout = Layout {
        delimiter: ',',
        columns,
        wanted: "dst_ip and dst_port",
        trailer,
        short_rows: false,
    };
    let mut texts = Texts::default();
    rows::read(bytes, &layout, |feed, row, columns, line| {
        let address = value::address(row.text(columns.address)).map_err(RowError::at("dst_ip"))?;
        let mut entry = FeedEntry::bare(address, line);
        let port = value::port(row.text(columns.port)).map_err(RowError::at("dst_port"))?;
        entry.qualifier.port = Some(port);
        entry.said.malware = row
            .said(columns.malware)
            .and_then(|malware| texts.share(malware));
        entry.said.first_seen = rows::time(feed, row, columns.first_seen, "first_seen_utc", line);
        entry.said.last_seen = rows::time(feed, row, columns.last_online, "last_online", line);
        feed.entries.push(entry);
        Ok(())
    })
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Record<'a> {
    #[serde(borrow, default)]
    ip_address: Scalar<'a>,
    #[serde(borrow, default)]
    port: Scalar<'a>,
    #[serde(borrow, default)]
    first_seen: Scalar<'a>,
    #[serde(borrow, default)]
    last_online: Scalar<'a>,
    #[serde(borrow, default)]
    malware: Scalar<'a>,
}

/// Reads the JSON.
pub(super) fn parse_json(bytes: &[u8]) -> ParsedFeed {
    let mut texts = Texts::default();
    json::read(
        bytes,
        "a list of objects with \"ip_address\"",
        |feed, document, records| {
            json::items(document, |item| {
                let line = records.begin(feed, item);
                match json::object::<Record<'_>>(item)
                    .and_then(|record| entry(feed, &record, line, &mut texts))
                {
                    Ok(entry) => feed.entries.push(entry),
                    Err(reason) => records.bad(feed, line, reason),
                }
            })
        },
    )
}

fn entry(
    feed: &mut ParsedFeed,
    record: &Record<'_>,
    line: u32,
    texts: &mut Texts,
) -> Result<FeedEntry, String> {
    let address =
        value::address(record.ip_address.text()).map_err(|error| format!("ip_address: {error}"))?;
    let mut entry = FeedEntry::bare(address, line);
    let port = value::port(record.port.text()).map_err(|error| error.to_string())?;
    entry.qualifier.port = Some(port);
    entry.said.malware = texts.share(record.malware.text());
    let mut time = |given: &Scalar<'_>, name: &str| {
        let given = given.said()?;
        let time = utc(given);
        if time.is_none() {
            feed.note(
                line,
                format_args!("{name}: {} is not a time, left out", quoted(given)),
            );
        }
        time
    };
    entry.said.first_seen = time(&record.first_seen, "first_seen");
    entry.said.last_seen = time(&record.last_online, "last_online");
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::indicator::{Qualifier, Said};

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
            said: Said {
                malware: Some("Pikabot".into()),
                first_seen: Some("2023-05-23T17:51:44Z".parse().unwrap()),
                last_seen: Some("2024-04-01T00:00:00Z".parse().unwrap()),
                ..Said::default()
            }
            .into(),
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
        let feed = parse_csv(text.as_bytes());
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
            let feed = parse_csv(text.as_bytes());
            assert_eq!(problems(&feed), [""; 0], "{text}");
            assert_eq!(feed.entries, [pikabot(2)], "{text}");
        }
    }

    #[test]
    fn absent_times_and_malware_are_absent() {
        let feed = parse_csv(b"dst_ip,dst_port,malware,last_online\n192.0.2.7,443,None,\n");
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
        let feed = parse_csv(text.as_bytes());
        let good: Vec<u32> = feed.entries.iter().map(|entry| entry.line).collect();
        assert_eq!(good, [9, 10]);
        assert_eq!(feed.data_lines, 9);
        insta::assert_snapshot!(problems(&feed).join("\n"));
    }

    #[test]
    fn bytes_that_are_not_utf8_cost_only_their_row() {
        let text = [HEADER.as_bytes(), b"\"x\",\"\xff\"\n", ROW.as_bytes()];
        let feed = parse_csv(&text.join(&b'\n'));
        assert_eq!(feed.entries.len(), 1);
        assert_eq!(
            problems(&feed),
            ["feodo.csv:2: not UTF-8 text (byte 6 of the line)"]
        );
    }

    #[test]
    fn rows_without_a_header_are_no_list() {
        let feed = parse_csv(format!("# banner\n{ROW}\n{ROW}\n").as_bytes());
        assert_eq!(feed.entries, []);
        insta::assert_snapshot!(
            feed.not_this_format.unwrap().reason,
            @r#"expected a header that names dst_ip and dst_port before the first row, found "\"2023-05-23 17:51:44\",\"192.9.135.73\",\"1194\",\"online\",\"2024-0"..."#
        );
    }

    #[test]
    fn two_lists_in_one_file_are_both_read() {
        let one = format!("{HEADER}\n{ROW}\n# END 1 entries\n");
        let feed = parse_csv(format!("{one}{one}").as_bytes());
        assert_eq!(problems(&feed), [""; 0]);
        assert_eq!(feed.entries, [pikabot(2), pikabot(5)]);
    }

    #[test]
    fn the_json_list_says_the_same_as_the_csv() {
        let feed = parse_json(
            br#"[{"ip_address":"192.9.135.73","port":1194,"status":"online","hostname":null,"as_number":16276,
  "as_name":"OVH","country":"FR","first_seen":"2023-05-23 17:51:44","last_online":"2024-04-01","malware":"Pikabot"},
 {"ip_address":"192.9.135.73","port":"1194","malware":"Pikabot","last_online":"2024-04-01"}]"#,
        );
        assert_eq!(problems(&feed), [""; 0]);
        let mut without = pikabot(3);
        without.said.first_seen = None;
        assert_eq!(feed.entries, [pikabot(1), without]);
    }

    #[test]
    fn one_bad_record_costs_only_itself_and_a_cut_off_list_is_no_list() {
        let text = r#"[{"ip_address":"192.0.2.999","port":1},
{"ip_address":"192.0.2.1","port":0},
{"ip_address":"192.0.2.0/24","port":1},
{"port":1},
[],
{"ip_address":"192.0.2.1","port":1,"first_seen":"soon"}]"#;
        let feed = parse_json(text.as_bytes());
        assert_eq!(feed.entries.len(), 1);
        assert_eq!(feed.data_lines, 6);
        let cut = parse_json(&text.as_bytes()[..text.len() - 30]);
        let other = parse_json(b"{}");
        insta::assert_snapshot!(
            [
                problems(&feed).join("\n"),
                cut.not_this_format.unwrap().reason,
                other.not_this_format.unwrap().reason
            ]
            .join("\n")
        );
    }
}
