//! Format `dshield`: DShield's recommended block list; a tab between
//! fields.
//!
//! ```text
//! Start        End            Netblock  Attacks  Name        Country  email
//! 43.229.53.0  43.229.53.255  24        788      Japan Inet  JP       admin@v6nic.net
//! ```
//!
//! It ranks networks by the number of targets that they *attack*: sources,
//! not C&C servers ([`super::Format::lists_sources`]).

use super::{
    FeedEntry, ParsedFeed,
    rows::{self, Layout, Row, RowError},
    value::{self, ValueError},
};

struct Columns {
    start: usize,
    end: Option<usize>,
    length: usize,
}

fn columns(row: &Row<'_>) -> Option<Columns> {
    Some(Columns {
        start: row.find(&["Start"])?,
        end: row.find(&["End"]),
        length: row.find(&["Netblock"])?,
    })
}

/// Reads a file of this format.
pub(super) fn parse(bytes: &[u8]) -> ParsedFeed {
    let layout = Layout {
        delimiter: '\t',
        columns,
        wanted: "Start and Netblock",
        trailer: rows::no_trailer,
        // Name, country and mail address are often absent.
        short_rows: true,
    };
    rows::read(bytes, &layout, |feed, row, columns, line| {
        let start = row.text(columns.start);
        value::address(start).map_err(RowError::at("Start"))?;
        let prefix = value::prefix(&format!("{start}/{}", row.text(columns.length)))
            .map_err(RowError::at("Netblock"))?;
        if let Some(end) = columns.end {
            let end = value::address(row.text(end)).map_err(RowError::at("End"))?;
            // A row whose parts contradict each other says nothing for sure.
            if end.addr() != prefix.net.broadcast() || prefix.had_host_bits {
                return Err(RowError::Value {
                    column: "Netblock",
                    error: ValueError::NotThePrefix {
                        start: start.to_owned(),
                        end: end.addr(),
                        length: prefix.net.prefix_len(),
                    },
                });
            }
        }
        feed.entries.push(FeedEntry::bare(prefix.net, line));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_whose_range_is_not_its_netblock_is_bad() {
        let feed = parse(
            b"Start\tEnd\tNetblock\tAttacks\n\
              192.0.2.0\t192.0.2.255\t24\t788\n\
              192.0.2.0\t192.0.2.255\t16\t788\n\
              192.0.2.0\t192.0.2.127\t24\n\
              192.0.2\t192.0.2.255\t24\n",
        );
        assert_eq!(feed.entries.len(), 1);
        let reasons: Vec<&str> = feed.problems.iter().map(|it| &*it.reason).collect();
        insta::assert_snapshot!(reasons.join("\n"));
    }
}
