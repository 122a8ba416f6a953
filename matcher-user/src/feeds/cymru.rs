//! Format `cymru`: reports of Team Cymru's CSIRT Assistance Program.
//!
//! ```text
//! #category|address|asn|timestamp|optional_information|asninfo
//! bot|172.16.0.21|64496|2019-03-25 03:44:22|family: nivdort;dest_addr: 172.16.0.22; dest_port: 80;protocol: 6;|Example AS Name, AT
//! controller|172.16.0.23|64496|2019-03-25 03:44:22|family: nivdort;|Example AS Name, AT
//! bots|172.16.0.21|64496|2017-10-31 10:00:05|srcport 59249 mwtype Conficker destaddr 172.16.0.22|Example AS Name
//! ```
//!
//! The address of a `bot` is an infected device, never a C&C server; what it
//! called is in `dest_addr`. Only the address of a `controller` is one itself.
//! Every other category is left out.

use super::{
    Brief, FeedEntry, ParsedFeed, Texts,
    lines::quoted,
    rows::{self, Layout, Row, RowError},
    value::{self, ValueError},
};
use crate::{indicator::Said, protocol::Protocol};

struct Columns {
    category: usize,
    address: usize,
    timestamp: Option<usize>,
    information: usize,
}

fn columns(row: &Row<'_>) -> Option<Columns> {
    Some(Columns {
        category: row.find(&["category", "type"])?,
        address: row.find(&["address", "ip"])?,
        timestamp: row.find(&["timestamp"]),
        information: row.find(&["optional_information", "notes", "comments"])?,
    })
}

/// Reads a file of this format.
pub(super) fn parse(bytes: &[u8]) -> ParsedFeed {
    let layout = Layout {
        delimiter: '|',
        columns,
        wanted: "category, address and optional_information",
        trailer: rows::no_trailer,
        short_rows: false,
    };
    let mut texts = Texts::default();
    rows::read(bytes, &layout, |feed, row, columns, line| {
        let information = information(row.text(columns.information));
        let find = |keys: [&str; 2]| {
            information
                .iter()
                .find(|(key, _)| keys.contains(key))
                .map(|(_, value)| *value)
        };
        let family = find(["family", "mwtype"]);
        let said = Brief::from(Said {
            malware: family.and_then(|family| texts.share(family)),
            last_seen: rows::time(feed, row, columns.timestamp, "timestamp", line),
            ..Said::default()
        });
        let own = row.text(columns.address);
        let category = row.text(columns.category);
        let (address, column) = match category {
            "controller" | "controllers" => (own, "address"),
            "bot" | "bots" => match find(["dest_addr", "destaddr"]) {
                Some(address) => (address, "dest_addr"),
                None => {
                    feed.leave_out("an infected device of which no C&C address is told");
                    return Ok(());
                }
            },
            _ => {
                feed.leave_out("another category than bot or controller");
                return Ok(());
            }
        };
        let address = value::address(address).map_err(RowError::at(column))?;
        let ports = match find(["dest_port", "dest_port"]) {
            None => vec![None],
            Some(ports) => ports
                .split(',')
                .map(|port| value::port(port.trim()).map(Some))
                .collect::<Result<_, ValueError>>()
                .map_err(RowError::at("dest_port"))?,
        };
        let protocol =
            match find(["protocol", "protocol"]) {
                None => None,
                Some(given) => Some(Protocol::parse(given).ok_or_else(|| {
                    RowError::Other(format!("protocol: {} is none", quoted(given)))
                })?),
            };
        for port in ports {
            let mut entry = FeedEntry::bare(address, line);
            entry.qualifier.port = port;
            entry.qualifier.protocol = protocol;
            entry.said = said.clone();
            feed.entries.push(entry);
        }
        Ok(())
    })
}

/// The parts of the fifth field: `key: value;` now, `key value` before.
fn information(text: &str) -> Vec<(&str, &str)> {
    if text.contains(':') {
        return text
            .split(';')
            .filter_map(|part| part.split_once(':'))
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
    }
    const KEYS: [&str; 3] = ["srcport", "mwtype", "destaddr"];
    let mut parts = Vec::new();
    let mut words = text.split_whitespace().peekable();
    while let Some(key) = words.next() {
        if KEYS.contains(&key)
            && let Some(value) = words.next_if(|word| !KEYS.contains(word))
        {
            parts.push((key, value));
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "#category|address|asn|timestamp|optional_information|asninfo";

    fn read(row: &str) -> ParsedFeed {
        parse(format!("{HEADER}\n{row}\n").as_bytes())
    }

    #[test]
    fn what_a_bot_called_is_read_and_the_bot_is_not() {
        let feed = read(
            "bot|192.0.2.21|64496|2019-03-25 03:44:22|family: nivdort;dest_addr: 198.51.100.22; dest_port: 80,8080;protocol: 6;|Example AS Name, AT",
        );
        assert_eq!(feed.problems, []);
        let read: Vec<(String, Option<u16>, Option<Protocol>)> = feed
            .entries
            .iter()
            .map(|it| {
                (
                    it.value.to_string(),
                    it.qualifier.port,
                    it.qualifier.protocol,
                )
            })
            .collect();
        let entry = |port| {
            (
                "198.51.100.22/32".to_owned(),
                Some(port),
                Some(Protocol::TCP),
            )
        };
        assert_eq!(read, [entry(80), entry(8080)]);
        assert_eq!(feed.entries[0].said.malware.as_deref(), Some("nivdort"));
    }

    #[test]
    fn the_older_layout_is_read_too() {
        let feed = read(
            "bots|192.0.2.21|64496|2017-10-31 10:00:05|srcport 59249 mwtype Conficker destaddr 198.51.100.22|Example",
        );
        assert_eq!(feed.problems, []);
        assert_eq!(feed.entries.len(), 1);
        assert_eq!(feed.entries[0].said.malware.as_deref(), Some("Conficker"));
    }

    #[test]
    fn other_categories_and_bots_without_destination_are_left_out() {
        for row in [
            "scanner|192.0.2.21|64496|2019-03-25 03:44:22|ports_scanned: 22;|x",
            "bot|192.0.2.21|64496|2019-03-25 03:44:22|family: x;|x",
        ] {
            let feed = read(row);
            assert_eq!((feed.entries.len(), feed.left_out.len()), (0, 1), "{row}");
        }
        let feed = read("controller|192.0.2.23|64496|2019-03-25 03:44:22||x");
        assert_eq!(feed.entries.len(), 1);
    }
}
