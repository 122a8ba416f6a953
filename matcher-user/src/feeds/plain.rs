//! Format `plain`: one address, prefix or `address:port` a line, then
//! optional `key=value`s of our own:
//!
//! ```text
//! # comment
//! 192.0.2.7
//! 198.51.100.0/24       ; comment
//! 192.0.2.7:443         proto=tcp malware="Two Words" confidence=90
//! [2001:db8::7]:80      from=2026-12-01T00:00:00+09:00 until=2027-01-01T00:00:00Z
//! 2001:db8:7::/48       port=443
//! ```
//!
//! The same address may stand on several lines with different qualifiers. A
//! comment runs from the first `#` or `;` outside quotes to the end of the
//! line.

use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    Brief, FeedEntry, ParsedFeed,
    lines::{Line, lines, lines_in_two, quoted},
    value::{self, ValueError},
};
use crate::{indicator::Said, protocol::Protocol, threads::both};

/// IP protocols whose headers have ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

#[derive(Debug, thiserror::Error)]
enum PlainError {
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error("a quote is not closed")]
    OpenQuote,
    #[error("{} is not KEY=VALUE", quoted(.0))]
    NotAnOption(String),
    #[error(
        "unknown option {}; known options: proto, port, from, until, malware, confidence",
        quoted(.0)
    )]
    UnknownOption(String),
    #[error("{0}= is given twice")]
    Twice(&'static str),
    #[error("{0}= has no value")]
    NoValue(&'static str),
    #[error("proto={} is not tcp, udp, sctp, icmp, icmpv6 or a number from 0 to 255", quoted(.0))]
    Protocol(String),
    #[error("the address has port {behind} and the options say port={option}")]
    TwoPorts { behind: u16, option: u16 },
    #[error("protocol {0} has no ports, so an entry with a port can never match")]
    NoPorts(Protocol),
    #[error("{key}={} is not a time such as 2026-12-01T00:00:00+09:00", quoted(.given))]
    Time { key: &'static str, given: String },
    #[error("until={until} is not later than from={from}")]
    NeverValid { from: Timestamp, until: Timestamp },
    #[error("confidence={} is not a number from 0 to 100", quoted(.0))]
    Confidence(String),
}

/// Bytes of a line, about.
const LINE: usize = 16;

/// Bytes that a line may have which is one value and nothing else.
#[expect(
    clippy::indexing_slicing,
    reason = "in a constant, which has no get_mut"
)]
const IS_PLAIN: [bool; 256] = {
    let mut is_plain = [false; 256];
    let mut byte = 0;
    while byte < is_plain.len() {
        let no_mark = !matches!(byte as u8, b'"' | b'\'' | b'=' | b'#' | b';');
        is_plain[byte] = (byte as u8).is_ascii_graphic() && no_mark;
        byte += 1;
    }
    is_plain
};

/// Reads a file of this format.
pub(super) fn parse(bytes: &[u8]) -> ParsedFeed {
    let Some((one, other)) = lines_in_two(bytes) else {
        return read(lines(bytes));
    };
    let (mut feed, rest) = both(bytes.len() / LINE, || read(one), || read(other));
    feed.entries.extend(rest.entries);
    feed.problems.extend(rest.problems);
    feed.data_lines += rest.data_lines;
    feed
}

fn read<'a>(lines: impl Iterator<Item = Line<'a>>) -> ParsedFeed {
    let mut feed = ParsedFeed::default();
    for line in lines {
        if line.is_blank() || line.comment().is_some() {
            continue;
        }
        feed.data_lines += 1;
        let read = line
            .text()
            .map_err(|error| error.to_string())
            .and_then(|text| entry(text, line.number).map_err(|error| error.to_string()));
        match read {
            Ok((entry, note)) => {
                if let Some(note) = note {
                    feed.note(line.number, note);
                }
                feed.entries.push(entry);
            }
            Err(reason) => feed.bad(line.number, reason),
        }
    }
    feed
}

/// One line, and what is to be noted about it.
fn entry(text: &str, line: u32) -> Result<(FeedEntry, Option<String>), PlainError> {
    // Nearly every line of a long list is one value and nothing else.
    let is_plain = |byte: u8| IS_PLAIN.get(usize::from(byte)) == Some(&true);
    if text.bytes().all(is_plain) {
        let (prefix, port) = value::prefix_and_port(text)?;
        let mut entry = FeedEntry::bare(prefix.net, line);
        entry.qualifier.port = port;
        return Ok((entry, prefix.note()));
    }
    let words = words(text)?;
    let mut words = words.iter();
    let first = words.next().map_or("", String::as_str);
    let (prefix, port) = value::prefix_and_port(first)?;
    let mut options = Options::default();
    for word in words {
        options.take(word)?;
    }
    Ok((options.entry(prefix.net, port, line)?, prefix.note()))
}

/// The `key=value`s of a line.
#[derive(Default)]
struct Options {
    protocol: Option<Protocol>,
    port: Option<u16>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    malware: Option<String>,
    confidence: Option<u8>,
}

impl Options {
    fn take(&mut self, word: &str) -> Result<(), PlainError> {
        let (key, given) = word
            .split_once('=')
            .ok_or_else(|| PlainError::NotAnOption(word.to_owned()))?;
        match key {
            "proto" => once("proto", &mut self.protocol, given, |given| {
                Protocol::parse(given).ok_or_else(|| PlainError::Protocol(given.to_owned()))
            }),
            "port" => once("port", &mut self.port, given, |given| {
                Ok(value::port(given)?)
            }),
            "from" => once("from", &mut self.from, given, |given| time("from", given)),
            "until" => once("until", &mut self.until, given, |given| {
                time("until", given)
            }),
            "malware" => once("malware", &mut self.malware, given, |given| {
                Ok(given.to_owned())
            }),
            "confidence" => once("confidence", &mut self.confidence, given, |given| {
                value::number(given)
                    .filter(|percent: &u8| *percent <= 100)
                    .ok_or_else(|| PlainError::Confidence(given.to_owned()))
            }),
            _ => Err(PlainError::UnknownOption(key.to_owned())),
        }
    }

    /// The entry, once what belongs together agrees.
    fn entry(self, value: IpNet, port: Option<u16>, line: u32) -> Result<FeedEntry, PlainError> {
        if let (Some(behind), Some(option)) = (port, self.port)
            && behind != option
        {
            return Err(PlainError::TwoPorts { behind, option });
        }
        let port = port.or(self.port);
        if let (Some(protocol), Some(_)) = (self.protocol, port)
            && !WITH_PORTS.contains(&protocol.0)
        {
            return Err(PlainError::NoPorts(protocol));
        }
        if let (Some(from), Some(until)) = (self.from, self.until)
            && until <= from
        {
            return Err(PlainError::NeverValid { from, until });
        }
        let mut entry = FeedEntry::bare(value, line);
        entry.qualifier.protocol = self.protocol;
        entry.qualifier.port = port;
        entry.said = Brief::from(Said {
            malware: self.malware.map(Into::into),
            confidence: self.confidence,
            ..Said::default()
        });
        entry.valid_from = self.from;
        entry.valid_until = self.until;
        Ok(entry)
    }
}

/// Fills an option that may be given once and not empty.
fn once<T>(
    key: &'static str,
    slot: &mut Option<T>,
    given: &str,
    read: impl FnOnce(&str) -> Result<T, PlainError>,
) -> Result<(), PlainError> {
    let given = given.trim();
    if slot.is_some() {
        return Err(PlainError::Twice(key));
    }
    if given.is_empty() {
        return Err(PlainError::NoValue(key));
    }
    *slot = Some(read(given)?);
    Ok(())
}

fn time(key: &'static str, given: &str) -> Result<Timestamp, PlainError> {
    given.parse().map_err(|_| PlainError::Time {
        key,
        given: given.to_owned(),
    })
}

/// The words of a line up to its comment. `"` and `'` hold blanks and comment
/// marks together; they open only where a value can begin, so that an
/// apostrophe inside a name is a letter.
fn words(text: &str) -> Result<Vec<String>, PlainError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut value_begins = true;
    for letter in text.chars() {
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => word.get_or_insert_default().push(letter),
            None if matches!(letter, '#' | ';') => break,
            None if letter.is_whitespace() => words.extend(word.take()),
            None if matches!(letter, '"' | '\'') && value_begins => {
                quote = Some(letter);
                // Quotes around nothing are a word too.
                word.get_or_insert_default();
            }
            None => word.get_or_insert_default().push(letter),
        }
        value_begins = quote.is_none() && (letter.is_whitespace() || letter == '=');
    }
    if quote.is_some() {
        return Err(PlainError::OpenQuote);
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::indicator::Qualifier;

    fn only(text: &str) -> FeedEntry {
        let feed = parse(text.as_bytes());
        assert_eq!(feed.problems, [], "{text}");
        let [entry] = <[FeedEntry; 1]>::try_from(feed.entries).unwrap();
        entry
    }

    #[test]
    fn comments_blank_lines_crlf_bom_and_quotes_do_not_matter() {
        let feed = parse(
            b"\xef\xbb\xbf# banner\r\n\r\n  192.0.2.7  \r\n; old style\r\n\"198.51.100.0/24\" # why\r\n\
              '2001:db8::/32';x\r\n# caf\xe9\r\n192.0.2.8",
        );
        assert_eq!(feed.problems, []);
        assert_eq!(feed.data_lines, 4);
        let read: Vec<_> = feed
            .entries
            .iter()
            .map(|entry| (entry.line, entry.value.to_string()))
            .collect();
        let want = [
            (3, "192.0.2.7/32"),
            (5, "198.51.100.0/24"),
            (6, "2001:db8::/32"),
            (8, "192.0.2.8/32"),
        ];
        assert_eq!(read, want.map(|(line, value)| (line, value.to_owned())));
    }

    #[test]
    fn a_long_file_is_read_as_its_lines_one_by_one_are() {
        let line = |at: u32| match at % 5 {
            0 => String::new(),
            1 => format!("192.0.2.{}", at % 300),
            2 => format!("2001:db8::{at:x} port=443 malware=\"Two Words\""),
            3 => format!("198.51.{}.7/24", at % 256),
            _ => format!("# {at}"),
        };
        let lines: Vec<String> = (1..=120_000).map(line).collect();
        let whole = parse(lines.join("\r\n").as_bytes());
        let mut one_by_one = ParsedFeed::default();
        for (text, number) in lines.iter().zip(1..) {
            let mut feed = parse(text.as_bytes());
            for entry in &mut feed.entries {
                entry.line = number;
            }
            for problem in &mut feed.problems {
                problem.line = number;
            }
            one_by_one.entries.append(&mut feed.entries);
            one_by_one.problems.append(&mut feed.problems);
            one_by_one.data_lines += feed.data_lines;
        }
        assert!(whole.problems.len() > 1_000);
        assert!(whole == one_by_one);
    }

    #[test]
    fn options_qualify_the_entry() {
        let entry = only(
            "198.51.100.0/24 proto=TCP port=443 from=2026-12-01T00:00:00+09:00 \
             until=2027-01-01T00:00:00Z malware=\"Two; Words\" confidence=90 # real",
        );
        assert_eq!(
            entry,
            FeedEntry {
                qualifier: Qualifier {
                    protocol: Some(Protocol::TCP),
                    port: Some(443)
                },
                said: Said {
                    malware: Some("Two; Words".into()),
                    confidence: Some(90),
                    ..Said::default()
                }
                .into(),
                valid_from: Some("2026-11-30T15:00:00Z".parse().unwrap()),
                valid_until: Some("2027-01-01T00:00:00Z".parse().unwrap()),
                ..FeedEntry::bare("198.51.100.0/24".parse().unwrap(), 1)
            }
        );
    }

    #[test]
    fn an_apostrophe_inside_a_name_is_a_letter() {
        assert_eq!(
            only("192.0.2.7 malware=O'Neil").said.malware.as_deref(),
            Some("O'Neil")
        );
    }

    #[test]
    fn the_port_may_be_said_twice_if_it_is_the_same() {
        assert_eq!(only("192.0.2.7:80 port=80").qualifier.port, Some(80));
        assert_eq!(
            only("[2001:db8::7]:80 proto=17").qualifier.protocol,
            Some(Protocol::UDP)
        );
    }

    #[test]
    fn one_bad_line_costs_only_itself() {
        let feed = parse(
            [
                "192.0.2.1",
                "192.0.2.2 proto=quic",
                "192.0.2.3 port=80 port=81",
                "192.0.2.4:80 port=81",
                "192.0.2.5:80 proto=icmp",
                "192.0.2.6 from=tomorrow",
                "192.0.2.7 from=2026-12-01T00:00:00Z until=2026-12-01T00:00:00Z",
                "192.0.2.8 malware=",
                "192.0.2.9 malware=\"open",
                "192.0.2.10 confidence=101",
                "192.0.2.11 seen=now",
                "192.0.2.12 cutwail",
                "\"\" port=80",
                "192.0.2.14/24",
                "evil.example",
                "192.0.2.16",
            ]
            .join("\n")
            .as_bytes(),
        );
        assert_eq!(feed.data_lines, 16);
        let good: Vec<u32> = feed.entries.iter().map(|entry| entry.line).collect();
        assert_eq!(good, [1, 14, 16]);
        let path = std::path::Path::new("c2.txt");
        let said: Vec<String> = feed
            .problems
            .iter()
            .map(|problem| problem.at(path).to_string())
            .collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn bytes_that_are_not_utf8_cost_only_their_line() {
        let feed = parse(b"192.0.2.1\n192.0.2.2 malware=\xff\n\x00\xfe\n192.0.2.4\n");
        assert_eq!(feed.entries.len(), 2);
        assert_eq!(feed.problems.len(), 2);
        insta::assert_snapshot!(
            feed.problems[0].reason, @"not UTF-8 text (byte 19 of the line)"
        );
    }
}
