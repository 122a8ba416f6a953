//! Format `rpz`: response policy zones, lists of names in the form of a DNS
//! zone (RFC 1035 section 5; draft-vixie-dnsop-dns-rpz).
//!
//! ```text
//! $TTL 30
//! @ SOA rpz.example. hostmaster.example. 2202170343 300 1800 604800 30
//!  NS localhost.
//! 1008691.example CNAME . ; Malware download (2020-10-21)
//! *.1008691.example CNAME .
//! ```
//!
//! Names become entries, also those whose answer is replaced by an address of
//! the publisher's own. Names that the zone lets through (`rpz-passthru.`) and
//! triggers on addresses and name servers (`rpz-ip` and so on) are left out.

use super::{
    FeedEntry, ParsedFeed, Texts,
    lines::{lines, quoted},
};
use crate::indicator::DomainName;

const PASSTHRU: &str = "a name that the zone lets through";
const TRIGGER: &str = "a trigger on addresses or name servers";

/// Labels that make an owner a trigger of another kind than a name.
const TRIGGERS: [&str; 4] = ["rpz-ip", "rpz-client-ip", "rpz-nsip", "rpz-nsdname"];

/// Types of records that are about the zone, not about a listed name.
const OF_THE_ZONE: [&str; 2] = ["SOA", "NS"];

/// Reads a zone file.
pub(super) fn parse(bytes: &[u8]) -> ParsedFeed {
    let mut feed = ParsedFeed::default();
    let mut texts = Texts::default();
    let mut zone = Zone::default();
    for line in raw_lines(bytes) {
        let (number, text) = match line {
            Ok(line) => line,
            Err((number, error)) => {
                feed.data_lines += 1;
                feed.bad(number, error);
                continue;
            }
        };
        let (record, comment) = match text.split_once(';') {
            Some((record, comment)) => (record, comment),
            None => (text, ""),
        };
        // The zone's own SOA record may run over several lines.
        let opened = record.matches('(').count();
        let closed = record.matches(')').count();
        let inside = zone.open > 0;
        zone.open = (zone.open + opened).saturating_sub(closed);
        if inside || record.trim().is_empty() {
            continue;
        }
        match zone.record(record) {
            Line::OfTheZone => {}
            Line::LeftOut(reason) => {
                feed.data_lines += 1;
                feed.leave_out(reason);
            }
            Line::Listed(owner) => {
                feed.data_lines += 1;
                match owner.parse::<DomainName>() {
                    Ok(name) => {
                        let mut entry = FeedEntry::bare(name, number);
                        entry.said.reference = texts.share(comment);
                        feed.names.push(entry);
                    }
                    Err(error) => feed.bad(number, format_args!("{}: {error}", quoted(&owner))),
                }
            }
            Line::Bad(reason) => {
                feed.data_lines += 1;
                feed.bad(number, reason);
            }
        }
    }
    feed
}

/// Lines with their leading blanks, which mean "same owner as before".
fn raw_lines(bytes: &[u8]) -> impl Iterator<Item = Result<(u32, &str), (u32, String)>> {
    lines(bytes)
        .zip(bytes.split(|byte| *byte == b'\n'))
        .map(|(line, raw)| {
            let raw = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw);
            match (line.text(), std::str::from_utf8(raw)) {
                (Ok(_), Ok(text)) => Ok((line.number, text.trim_end())),
                (Err(error), _) => Err((line.number, error.to_string())),
                (_, Err(error)) => Err((line.number, error.to_string())),
            }
        })
}

/// What is known while reading.
#[derive(Default)]
struct Zone {
    /// The zone's own name in lower case, without the last dot; empty when
    /// nothing says it.
    origin: String,
    /// The owner of the last record.
    owner: String,
    /// Parentheses that are open.
    open: usize,
}

enum Line {
    /// About the zone itself.
    OfTheZone,
    Listed(String),
    LeftOut(&'static str),
    Bad(String),
}

impl Zone {
    fn record(&mut self, text: &str) -> Line {
        let same_owner = text.starts_with([' ', '\t']);
        let mut words = text.split_whitespace();
        if let Some(directive) = text.strip_prefix('$') {
            if let Some(origin) = directive.strip_prefix("ORIGIN") {
                self.set_origin(origin.trim());
            }
            return Line::OfTheZone;
        }
        if !same_owner {
            self.owner = words.next().unwrap_or_default().to_owned();
        }
        // TTL and class may stand before the type, in any order.
        let mut words = words.skip_while(|word| {
            word.bytes()
                .next()
                .is_some_and(|byte| byte.is_ascii_digit())
                || word.eq_ignore_ascii_case("IN")
        });
        let Some(kind) = words.next() else {
            return Line::Bad(format!("{} is no zone record", quoted(text)));
        };
        let kind = kind.to_ascii_uppercase();
        if kind == "SOA" && self.origin.is_empty() && self.owner.ends_with('.') {
            let owner = self.owner.clone();
            self.set_origin(&owner);
        }
        if OF_THE_ZONE.contains(&&*kind) || self.owner == "@" {
            return Line::OfTheZone;
        }
        if !["CNAME", "A", "AAAA", "TXT", "MX", "DNAME"].contains(&&*kind) {
            return Line::Bad(format!("{} is no zone record", quoted(text)));
        }
        let owner = self.relative();
        let trigger = |label: &str| TRIGGERS.iter().any(|it| label.eq_ignore_ascii_case(it));
        if owner.split('.').any(trigger) {
            return Line::LeftOut(TRIGGER);
        }
        let target = words.next().unwrap_or_default();
        if target
            .trim_end_matches('.')
            .eq_ignore_ascii_case("rpz-passthru")
        {
            return Line::LeftOut(PASSTHRU);
        }
        Line::Listed(owner)
    }

    fn set_origin(&mut self, origin: &str) {
        self.origin = origin.trim_end_matches('.').to_ascii_lowercase();
    }

    /// The owner without the zone's own name behind it.
    fn relative(&self) -> String {
        let Some(absolute) = self.owner.strip_suffix('.') else {
            return self.owner.clone();
        };
        let absolute = absolute.to_ascii_lowercase();
        match absolute.strip_suffix(&self.origin) {
            Some(front) if !self.origin.is_empty() && front.ends_with('.') => {
                front.trim_end_matches('.').to_owned()
            }
            _ => absolute,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(feed: &ParsedFeed) -> Vec<&str> {
        feed.names
            .iter()
            .map(|entry| entry.value.as_str())
            .collect()
    }

    #[test]
    fn the_published_layout_is_read() {
        let feed = parse(
            b"$TTL 30\n@ SOA rpz.example. hostmaster.example. 2202170343 300 1800 604800 30\n NS localhost.\n;\n; comment\n\
              1008691.example CNAME . ; Malware download (2020-10-21), see https://x\n*.1008691.example CNAME .\n",
        );
        assert_eq!(feed.problems, []);
        assert_eq!(names(&feed), ["1008691.example", "*.1008691.example"]);
        assert_eq!(
            feed.names[0].said.reference.as_deref(),
            Some("Malware download (2020-10-21), see https://x")
        );
        assert_eq!(feed.data_lines, 2);
    }

    #[test]
    fn absolute_owners_lose_the_zone_and_soa_may_run_over_lines() {
        let feed = parse(
            b"$ORIGIN rpz.example.\n@ 3600 IN SOA ns.example. a.example. (\n  1 ; serial\n  2 3 4 5 )\n  IN NS ns.example.\n\
              Bad.example.rpz.example. 60 IN CNAME rpz-drop.\nother.example A 192.0.2.1\n",
        );
        assert_eq!(feed.problems, []);
        assert_eq!(names(&feed), ["bad.example", "other.example"]);
    }

    #[test]
    fn what_is_let_through_and_other_triggers_are_left_out_and_bad_lines_named() {
        let feed = parse(
            b"good.example CNAME rpz-passthru.\n32.7.2.0.192.rpz-ip CNAME .\nns.x.rpz-nsdname CNAME .\n\
              bad.example CNAME .\ncom CNAME .\n<html>\nb\xff.example CNAME .\n",
        );
        assert_eq!(names(&feed), ["bad.example"]);
        let left_out: Vec<u32> = feed.left_out.iter().map(|it| it.records).collect();
        assert_eq!(left_out, [1, 2]);
        let reasons: Vec<String> = feed
            .problems
            .iter()
            .map(|it| format!("{} {}", it.line, it.reason))
            .collect();
        insta::assert_snapshot!(reasons.join("\n"));
    }
}
