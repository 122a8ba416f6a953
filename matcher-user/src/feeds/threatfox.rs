//! Formats `threatfox-csv` and `threatfox-json`: ThreatFox exports, and the
//! answers of its API.
//!
//! ```text
//! # "first_seen_utc","ioc_id","ioc_value","ioc_type","threat_type","fk_malware","malware_alias","malware_printable","last_seen_utc","confidence_level","is_compromised","reference","tags","anonymous","reporter"
//! "2026-08-30 01:20:00", "1891270", "1.2.3.4:8080", "ip:port", "botnet_cc", "win.gh0st", "None", "Gh0st", "", "80", "False", "None", "None", "0", "x"
//! # Number of entries: 1
//!
//! {"1891270":[{"ioc_value":"1.2.3.4:8080","ioc_type":"ip:port","threat_type":"botnet_cc",...}]}
//!
//! {"query_status":"ok","data":[{"id":"1891270","ioc":"1.2.3.4:8080","malware":"win.gh0st","first_seen":"2026-08-30 01:20:00 UTC",...}]}
//! ```
//!
//! Only `threat_type` = `botnet_cc` is C&C; the others (`payload`,
//! `payload_delivery`, ...) are left out. Of the C&C entries, `ip:port` and
//! `domain` are read: a URL names a page on a host that others may share.

use serde::Deserialize;

use super::{
    FeedEntry, ParsedFeed, Texts,
    json::{self, Scalar},
    lines::quoted,
    rows::{self, Layout, Row, RowError},
    time::utc,
    value,
};
use crate::indicator::Said;

const NOT_C2: &str = "no C&C entry (threat_type is not botnet_cc)";
const NO_ADDRESS: &str = "a C&C entry that is neither an address nor a name (URL, hash)";

struct Columns {
    value: usize,
    kind: usize,
    threat: usize,
    id: Option<usize>,
    malware: [Option<usize>; 2],
    first_seen: Option<usize>,
    last_seen: Option<usize>,
    confidence: Option<usize>,
    reference: Option<usize>,
}

fn columns(row: &Row<'_>) -> Option<Columns> {
    Some(Columns {
        value: row.find(&["ioc_value", "ioc"])?,
        kind: row.find(&["ioc_type"])?,
        threat: row.find(&["threat_type"])?,
        id: row.find(&["ioc_id", "id"]),
        malware: [
            row.find(&["malware_printable"]),
            row.find(&["fk_malware", "malware"]),
        ],
        first_seen: row.find(&["first_seen_utc", "first_seen"]),
        last_seen: row.find(&["last_seen_utc", "last_seen"]),
        confidence: row.find(&["confidence_level"]),
        reference: row.find(&["reference"]),
    })
}

/// The number in the trailer `Number of entries: 1`.
fn trailer(comment: &str) -> Option<u64> {
    value::number(comment.strip_prefix("Number of entries:")?.trim())
}

/// Reads the CSV.
pub(super) fn parse_csv(bytes: &[u8]) -> ParsedFeed {
    let layout = Layout {
        delimiter: ',',
        columns,
        wanted: "ioc_value, ioc_type and threat_type",
        trailer,
        short_rows: false,
    };
    let mut texts = Texts::default();
    rows::read(bytes, &layout, |feed, row, columns, line| {
        let ioc = Ioc {
            value: row.text(columns.value),
            kind: row.text(columns.kind),
            threat: row.text(columns.threat),
        };
        let Some(mut listed) = ioc.read(feed).map_err(RowError::Other)? else {
            return Ok(());
        };
        let share = |texts: &mut Texts, column| row.said(column).and_then(|it| texts.share(it));
        let [printable, key] = columns.malware;
        listed.said = Said {
            // Ids and most references are used once: nothing to share.
            id: row.said(columns.id).map(Into::into),
            reference: share(&mut texts, columns.reference),
            malware: share(&mut texts, printable).or_else(|| share(&mut texts, key)),
            confidence: rows::confidence(
                feed,
                row.said(columns.confidence),
                "confidence_level",
                line,
            ),
            first_seen: rows::time(feed, row, columns.first_seen, "first_seen_utc", line),
            last_seen: rows::time(feed, row, columns.last_seen, "last_seen_utc", line),
            tlp: None,
        };
        listed.add_to(feed, line);
        Ok(())
    })
}

/// What every layout says of an entry first.
struct Ioc<'a> {
    value: &'a str,
    kind: &'a str,
    threat: &'a str,
}

/// An address or a name, and what is said of it.
struct Listed {
    value: Value,
    said: Said,
}

enum Value {
    Address(ipnet::IpNet, u16),
    Name(crate::indicator::DomainName),
}

impl Ioc<'_> {
    /// `None` for what is left out.
    fn read(&self, feed: &mut ParsedFeed) -> Result<Option<Listed>, String> {
        if !self.threat.eq_ignore_ascii_case("botnet_cc") {
            feed.leave_out(NOT_C2);
            return Ok(None);
        }
        let value = match self.kind {
            "ip:port" => {
                let (prefix, port) = value::prefix_and_port(self.value)
                    .map_err(|error| format!("ioc_value: {error}"))?;
                let port =
                    port.ok_or_else(|| format!("ioc_value: {} has no port", quoted(self.value)))?;
                Value::Address(prefix.net, port)
            }
            "domain" => Value::Name(
                self.value
                    .parse()
                    .map_err(|error| format!("ioc_value: {}: {error}", quoted(self.value)))?,
            ),
            _ => {
                feed.leave_out(NO_ADDRESS);
                return Ok(None);
            }
        };
        Ok(Some(Listed {
            value,
            said: Said::default(),
        }))
    }
}

impl Listed {
    fn add_to(self, feed: &mut ParsedFeed, line: u32) {
        match self.value {
            Value::Address(address, port) => {
                let mut entry = FeedEntry::bare(address, line);
                entry.qualifier.port = Some(port);
                entry.said = self.said.into();
                feed.entries.push(entry);
            }
            Value::Name(name) => {
                let mut entry = FeedEntry::bare(name, line);
                entry.said = self.said.into();
                feed.names.push(entry);
            }
        }
    }
}

/// The names of the export and those of the API.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Record<'a> {
    #[serde(borrow, default)]
    ioc_value: Scalar<'a>,
    #[serde(borrow, default)]
    ioc: Scalar<'a>,
    #[serde(borrow, default)]
    ioc_type: Scalar<'a>,
    #[serde(borrow, default)]
    threat_type: Scalar<'a>,
    #[serde(borrow, default)]
    ioc_id: Scalar<'a>,
    #[serde(borrow, default)]
    id: Scalar<'a>,
    #[serde(borrow, default)]
    malware: Scalar<'a>,
    #[serde(borrow, default)]
    fk_malware: Scalar<'a>,
    #[serde(borrow, default)]
    malware_printable: Scalar<'a>,
    #[serde(borrow, default)]
    first_seen_utc: Scalar<'a>,
    #[serde(borrow, default)]
    first_seen: Scalar<'a>,
    #[serde(borrow, default)]
    last_seen_utc: Scalar<'a>,
    #[serde(borrow, default)]
    last_seen: Scalar<'a>,
    #[serde(borrow, default)]
    confidence_level: Scalar<'a>,
    #[serde(borrow, default)]
    reference: Scalar<'a>,
}

/// Reads the JSON of exports and of the API.
pub(super) fn parse_json(bytes: &[u8]) -> ParsedFeed {
    const WANTED: &str = "an object of lists by id, or an answer of the API with \"data\"";
    let mut texts = Texts::default();
    json::read(bytes, WANTED, |feed, document, records| {
        let mut status = None;
        let mut lists = Vec::new();
        json::members(document, |key, value| match &*key {
            "query_status" => status = Some(value.get().trim_matches('"').to_owned()),
            "data" => lists.push((None, value)),
            _ => lists.push((Some(key), value)),
        })?;
        if let Some(status) = status.filter(|status| status != "ok") {
            return Err(format!("the answer {} of the API", quoted(&status)));
        }
        for (id, list) in lists {
            let mut one = |feed: &mut ParsedFeed, item| {
                let line = records.begin(feed, item);
                let read = json::object::<Record<'_>>(item)
                    .and_then(|record| listed(feed, &record, id.as_deref(), line, &mut texts));
                match read {
                    Ok(Some(listed)) => listed.add_to(feed, line),
                    Ok(None) => {}
                    Err(reason) => records.bad(feed, line, reason),
                }
            };
            if json::items(list, |item| one(feed, item)).is_err() {
                one(feed, list);
            }
        }
        Ok(())
    })
}

fn listed(
    feed: &mut ParsedFeed,
    record: &Record<'_>,
    key: Option<&str>,
    line: u32,
    texts: &mut Texts,
) -> Result<Option<Listed>, String> {
    fn first<'a>(given: [&'a Scalar<'_>; 2]) -> Option<&'a str> {
        given.into_iter().find_map(Scalar::said)
    }
    let ioc = Ioc {
        value: first([&record.ioc_value, &record.ioc]).unwrap_or_default(),
        kind: record.ioc_type.text(),
        threat: record.threat_type.text(),
    };
    if ioc.threat.is_empty() || ioc.kind.is_empty() {
        return Err("the record has no threat_type or no ioc_type".to_owned());
    }
    let Some(mut listed) = ioc.read(feed)? else {
        return Ok(None);
    };
    let mut time = |given: Option<&str>, name: &str| {
        let given = given?;
        let time = utc(given);
        if time.is_none() {
            feed.note(
                line,
                format_args!("{name}: {} is not a time, left out", quoted(given)),
            );
        }
        time
    };
    let first_seen = time(
        first([&record.first_seen_utc, &record.first_seen]),
        "first_seen",
    );
    let last_seen = time(
        first([&record.last_seen_utc, &record.last_seen]),
        "last_seen",
    );
    listed.said = Said {
        id: first([&record.ioc_id, &record.id]).or(key).map(Into::into),
        reference: texts.share(record.reference.text()),
        malware: texts
            .share(record.malware_printable.text())
            .or_else(|| texts.share(first([&record.fk_malware, &record.malware])?)),
        confidence: rows::confidence(
            feed,
            record.confidence_level.said(),
            "confidence_level",
            line,
        ),
        first_seen,
        last_seen,
        tlp: None,
    };
    Ok(Some(listed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"# "first_seen_utc","ioc_id","ioc_value","ioc_type","threat_type","fk_malware","malware_alias","malware_printable","last_seen_utc","confidence_level","is_compromised","reference","tags","anonymous","reporter""#;
    const ROW: &str = r#""2026-08-30 01:20:00", "1891270", "192.0.2.4:8080", "ip:port", "botnet_cc", "win.gh0st", "None", "Gh0st", "", "80", "False", "None", "a,b", "0", "x""#;

    fn gh0st(line: u32) -> FeedEntry {
        let mut entry = FeedEntry::bare("192.0.2.4/32".parse().unwrap(), line);
        entry.qualifier.port = Some(8080);
        entry.said = Said {
            id: Some("1891270".into()),
            malware: Some("Gh0st".into()),
            confidence: Some(80),
            first_seen: Some("2026-08-30T01:20:00Z".parse().unwrap()),
            ..Said::default()
        }
        .into();
        entry
    }

    #[test]
    fn fifteen_and_fourteen_columns_read_the_same() {
        let feed = parse_csv(format!("{HEADER}\n{ROW}\n# Number of entries: 1\n").as_bytes());
        assert_eq!(feed.problems, []);
        assert_eq!(feed.entries, [gh0st(2)]);
        let older = parse_csv(
            format!(
                "{}\n{}\n",
                HEADER.replace("\"is_compromised\",", ""),
                ROW.replace(" \"False\",", "")
            )
            .as_bytes(),
        );
        assert_eq!(older.problems, []);
        assert_eq!(older.entries, [gh0st(2)]);
    }

    #[test]
    fn what_is_no_cc_address_or_name_is_left_out_and_counted() {
        let text = format!(
            "{HEADER}\n{ROW}\n{}\n{}\n{}\n{}\n",
            ROW.replace("botnet_cc", "payload_delivery"),
            ROW.replace("192.0.2.4:8080", "http://192.0.2.4/x")
                .replace("ip:port", "url"),
            ROW.replace("192.0.2.4:8080", "C2.example")
                .replace("ip:port", "domain"),
            ROW.replace(":8080", ""),
        );
        let feed = parse_csv(text.as_bytes());
        assert_eq!(feed.entries.len(), 1);
        assert_eq!(feed.names.len(), 1);
        assert_eq!(feed.data_lines, 5);
        let left_out: Vec<u32> = feed.left_out.iter().map(|it| it.records).collect();
        assert_eq!(left_out, [1, 1]);
        assert_eq!(feed.problems.len(), 1);
        insta::assert_snapshot!(
            feed.problems[0].reason,
            @r#"ioc_value: "192.0.2.4" has no port"#
        );
    }

    #[test]
    fn the_export_and_the_api_read_the_same() {
        let export = br#"{"1891270":[{"ioc_value":"192.0.2.4:8080","ioc_type":"ip:port","threat_type":"botnet_cc","malware":"win.gh0st","malware_printable":"Gh0st","first_seen_utc":"2026-08-30 01:20:00","last_seen_utc":null,"confidence_level":80,"reference":null}]}"#;
        let api = br#"{"query_status":"ok","data":[{"id":"1891270","ioc":"192.0.2.4:8080","threat_type":"botnet_cc","ioc_type":"ip:port","malware":"win.gh0st","malware_printable":"Gh0st","confidence_level":80,"first_seen":"2026-08-30 01:20:00 UTC","last_seen":null,"reference":null,"tags":["a"]}]}"#;
        for text in [&export[..], &api[..]] {
            let feed = parse_json(text);
            assert_eq!(feed.problems, []);
            assert_eq!(feed.entries, [gh0st(1)]);
        }
        let refused = parse_json(br#"{"query_status":"unknown_auth_key","data":"x"}"#);
        insta::assert_snapshot!(
            refused.not_this_format.unwrap().reason,
            @r#"expected an object of lists by id, or an answer of the API with "data", found the answer "unknown_auth_key" of the API"#
        );
    }
}
