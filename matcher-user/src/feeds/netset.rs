//! Formats `netset` (FireHOL's .netset and .ipset files) and `et-block`
//! (Emerging Threats' block list): comments, and one address or prefix a line.
//!
//! ```text
//! # Maintainer      : abuse.ch
//! # Category        : malware
//! 1.2.3.4
//! 1.10.16.0/20
//! ```
//!
//! `et-block` is put together of several lists, each under a comment that
//! names it (`#Spamhaus DROP Nets`, `#Dshield Top Attackers`). DShield lists
//! the sources of attacks, so that part is left out.

use super::{
    FeedEntry, ParsedFeed, Texts,
    lines::{NotUtf8, lines},
    value::{self, ValueError},
};

#[derive(Debug, thiserror::Error)]
enum NetsetError {
    #[error(transparent)]
    NotUtf8(#[from] NotUtf8),
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// FireHOL's categories that are sources of attacks or of other abuse, and no
/// places that malware calls.
const SOURCES: [&str; 5] = ["attacks", "abuse", "spam", "reputation", "anonymizers"];

/// Reads a file of format `netset`.
pub(super) fn parse(bytes: &[u8]) -> ParsedFeed {
    let mut feed = ParsedFeed::default();
    for line in lines(bytes) {
        if line.is_blank() {
            continue;
        }
        if let Some(comment) = line.comment() {
            if let Some(category) = category(comment) {
                feed.note(
                    line.number,
                    format_args!(
                        "the list says that its category is {category:?}: such addresses attack, \
                         malware need not call them"
                    ),
                );
            }
            continue;
        }
        entry(&mut feed, line.number, line.text().map_err(Into::into));
    }
    feed
}

/// A category that is no list of C&C servers.
fn category(comment: &[u8]) -> Option<&'static str> {
    let comment = std::str::from_utf8(comment).ok()?;
    let (key, category) = comment.split_once(':')?;
    let category = category.trim();
    SOURCES
        .into_iter()
        .find(|known| key.trim() == "Category" && category.eq_ignore_ascii_case(known))
}

fn entry(feed: &mut ParsedFeed, line: u32, text: Result<&str, NetsetError>) {
    feed.data_lines += 1;
    let read = text.and_then(|text| {
        // Quoted values and comments behind them occur in copies of the lists.
        let text = match text.split_once(['#', ';']) {
            Some((value, _)) => value.trim_end(),
            None => text,
        };
        Ok(value::prefix(text.trim_matches('"'))?)
    });
    match read {
        Ok(prefix) => {
            if let Some(note) = prefix.note() {
                feed.note(line, note);
            }
            feed.entries.push(FeedEntry::bare(prefix.net, line));
        }
        Err(error) => feed.bad(line, error),
    }
}

/// Reads a file of format `et-block`.
pub(super) fn parse_et_block(bytes: &[u8]) -> ParsedFeed {
    let mut feed = ParsedFeed::default();
    let mut texts = Texts::default();
    let mut section = None;
    for line in lines(bytes) {
        if line.is_blank() {
            continue;
        }
        if let Some(comment) = line.comment() {
            section = std::str::from_utf8(comment)
                .ok()
                .and_then(|comment| texts.share(comment));
            continue;
        }
        let dshield = section
            .as_deref()
            .is_some_and(|section| section.to_ascii_lowercase().contains("dshield"));
        if dshield && line.text().is_ok_and(|text| value::prefix(text).is_ok()) {
            feed.data_lines += 1;
            feed.leave_out("a source of attacks (DShield), no C&C address");
            continue;
        }
        let before = feed.entries.len();
        entry(&mut feed, line.number, line.text().map_err(Into::into));
        for entry in feed.entries.iter_mut().skip(before) {
            if section.is_some() {
                entry.said.reference.clone_from(&section);
            }
        }
    }
    feed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_attackers_says_so() {
        let feed = parse(b"#\n# Category        : attacks\n#\n192.0.2.1\n");
        assert_eq!(feed.entries.len(), 1);
        assert_eq!((feed.problems.len(), feed.problems[0].line), (1, 2));
        let feed = parse(b"# Category : malware\n192.0.2.1\n");
        assert_eq!(feed.problems, []);
    }

    #[test]
    fn the_dshield_part_of_the_block_list_is_left_out() {
        let feed = parse_et_block(
            b"# Feodo\n192.0.2.1\n\n#Spamhaus DROP Nets\n198.51.100.0/24\n\n\
              #Dshield Top Attackers\n203.0.113.0/24\nx\n",
        );
        let read: Vec<(String, Option<&str>)> = feed
            .entries
            .iter()
            .map(|it| (it.value.to_string(), it.said.reference.as_deref()))
            .collect();
        assert_eq!(
            read,
            [
                ("192.0.2.1/32".to_owned(), Some("Feodo")),
                ("198.51.100.0/24".to_owned(), Some("Spamhaus DROP Nets"))
            ]
        );
        assert_eq!(feed.left_out.len(), 1);
        assert_eq!(feed.problems.len(), 1);
        assert_eq!(feed.data_lines, 4);
    }
}
