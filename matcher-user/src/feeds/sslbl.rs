//! Format `sslbl-csv`: SSLBL's list of C&C addresses found by their
//! certificates.
//!
//! ```text
//! # Firstseen,DstIP,DstPort
//! 2024-12-30 10:00:00,1.2.3.4,443
//! ```
//!
//! The publisher deprecated the list on 2025-01-03: the file now holds
//! comments only, and is refused as empty.

use super::{
    FeedEntry, ParsedFeed,
    rows::{self, Layout, Row, RowError},
    value,
};

struct Columns {
    address: usize,
    port: usize,
    first_seen: Option<usize>,
}

fn columns(row: &Row<'_>) -> Option<Columns> {
    Some(Columns {
        address: row.find(&["DstIP"])?,
        port: row.find(&["DstPort"])?,
        first_seen: row.find(&["Firstseen"]),
    })
}

/// Reads a file of this format.
pub(super) fn parse(bytes: &[u8]) -> ParsedFeed {
    let layout = Layout {
        delimiter: ',',
        columns,
        wanted: "DstIP and DstPort",
        trailer: rows::no_trailer,
        short_rows: false,
    };
    rows::read(bytes, &layout, |feed, row, columns, line| {
        let address = value::address(row.text(columns.address)).map_err(RowError::at("DstIP"))?;
        let mut entry = FeedEntry::bare(address, line);
        let port = value::port(row.text(columns.port)).map_err(RowError::at("DstPort"))?;
        entry.qualifier.port = Some(port);
        entry.said.first_seen = rows::time(feed, row, columns.first_seen, "Firstseen", line);
        feed.entries.push(entry);
        Ok(())
    })
}
