//! What `feed check` says about a feed: pure functions from a feed to text or
//! to one JSON object.

use std::fmt::Write as _;

use ipnet::IpNet;
use serde::Serialize;

use super::{Counts, FeedEntry, LeftOut, LineProblem, LoadedFeed, ProblemKind};
use crate::indicator::value_text;

/// Problems of one kind that the text shows; JSON has all of them.
const PROBLEMS_SHOWN: usize = 20;

/// Prefixes shown as the widest.
const WIDEST_SHOWN: usize = 5;

/// The report for a person. `feed` has been through the guards; the verdict is
/// that of [`LoadedFeed::usable`].
pub fn check_text(feed: &LoadedFeed, max_bad_share: f64) -> String {
    let summary = Summary::of(feed, max_bad_share);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = summary.write(feed, &mut text);
    text
}

/// The report for a program: one JSON object on one line.
pub fn check_json(feed: &LoadedFeed, max_bad_share: f64) -> String {
    #[derive(Serialize)]
    struct Report<'a> {
        #[serde(flatten)]
        summary: Summary,
        left_out: &'a [LeftOut],
        problems: Vec<Problem<'a>>,
    }
    #[derive(Serialize)]
    struct Problem<'a> {
        #[serde(flatten)]
        problem: &'a LineProblem,
        /// In a feed that is a directory.
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<String>,
    }
    let report = Report {
        summary: Summary::of(feed, max_bad_share),
        left_out: &feed.left_out,
        problems: feed
            .problems
            .iter()
            .map(|problem| Problem {
                problem,
                file: (!feed.parts.is_empty())
                    .then(|| feed.file(problem.part).display().to_string()),
            })
            .collect(),
    };
    // Only maps with other keys than text cannot become JSON.
    serde_json::to_string(&report).unwrap_or_default()
}

#[derive(Serialize)]
struct Summary {
    feed: String,
    format: &'static str,
    path: String,
    usable: bool,
    /// Why not.
    error: Option<String>,
    caution: Option<&'static str>,
    counts: Counts,
    ipv4: Shares,
    ipv6: Shares,
    names: usize,
    with_port: usize,
    with_validity: usize,
    with_confidence: usize,
    widest: Vec<Wide>,
}

/// Entries of one family.
#[derive(Default, Serialize)]
struct Shares {
    entries: usize,
    hosts: usize,
    prefixes: usize,
}

#[derive(Serialize)]
struct Wide {
    value: String,
    line: u32,
}

impl Summary {
    fn of(feed: &LoadedFeed, max_bad_share: f64) -> Self {
        let (mut ipv4, mut ipv6) = (Shares::default(), Shares::default());
        for entry in &feed.entries {
            let shares = match entry.value {
                IpNet::V4(_) => &mut ipv4,
                IpNet::V6(_) => &mut ipv6,
            };
            shares.entries += 1;
            if is_host(entry) {
                shares.hosts += 1;
            } else {
                shares.prefixes += 1;
            }
        }
        let error = feed.usable(max_bad_share).err();
        let count = |is: fn(&FeedEntry) -> bool| feed.entries.iter().filter(|e| is(e)).count();
        Self {
            feed: feed.source.name.clone(),
            format: feed.source.format.name(),
            path: feed.source.path.display().to_string(),
            usable: error.is_none(),
            error: error.map(|error| error.to_string()),
            caution: feed.source.format.caution(),
            counts: feed.counts(),
            ipv4,
            ipv6,
            names: feed.names.len(),
            with_confidence: count(|entry| entry.said.confidence.is_some()),
            with_port: count(|entry| entry.qualifier.port.is_some()),
            with_validity: count(|e| e.valid_from.is_some() || e.valid_until.is_some()),
            widest: widest(&feed.entries),
        }
    }

    fn write(&self, feed: &LoadedFeed, text: &mut String) -> std::fmt::Result {
        let verdict = if self.usable { "usable" } else { "NOT USABLE" };
        writeln!(text, "{}: {verdict}", self.path)?;
        if let Some(error) = &self.error {
            writeln!(text, "  {error}")?;
        }
        if let Some(caution) = self.caution {
            writeln!(text, "  caution: {caution}")?;
        }
        let Counts {
            entries,
            data_lines,
            ..
        } = self.counts;
        writeln!(
            text,
            "  feed           {} (format {})",
            self.feed, self.format
        )?;
        writeln!(
            text,
            "  entries        {entries} of {data_lines} data lines"
        )?;
        for (family, shares) in [("IPv4", &self.ipv4), ("IPv6", &self.ipv6)] {
            let Shares {
                entries,
                hosts,
                prefixes,
            } = shares;
            writeln!(
                text,
                "    {family}         {entries} (hosts {hosts}, prefixes {prefixes})"
            )?;
        }
        if self.names > 0 {
            writeln!(
                text,
                "  names          {} (nothing matches names yet)",
                self.names
            )?;
        }
        writeln!(text, "  with port      {}", self.with_port)?;
        writeln!(text, "  with validity  {}", self.with_validity)?;
        if !self.widest.is_empty() {
            writeln!(text, "  widest prefixes")?;
            for wide in &self.widest {
                writeln!(text, "    {} (line {})", wide.value, wide.line)?;
            }
        }
        for LeftOut { reason, records } in &feed.left_out {
            writeln!(text, "  left out: {records} x {reason}")?;
        }
        let kinds = [
            (
                ProblemKind::Refused,
                self.counts.refused,
                "refused by guards",
            ),
            (ProblemKind::Bad, self.counts.bad, "could not be read"),
            (
                ProblemKind::Note,
                self.counts.notes,
                "notes (the entries are used)",
            ),
        ];
        for (kind, count, heading) in kinds {
            if count == 0 {
                continue;
            }
            writeln!(text, "  {heading}: {count}")?;
            let of_kind = feed.problems.iter().filter(|problem| problem.kind == kind);
            for problem in of_kind.take(PROBLEMS_SHOWN) {
                writeln!(text, "    {}", problem.at(feed.file(problem.part)))?;
            }
            if let Some(more) = count.checked_sub(PROBLEMS_SHOWN).filter(|more| *more > 0) {
                writeln!(text, "    and {more} more")?;
            }
        }
        Ok(())
    }
}

fn is_host(entry: &FeedEntry) -> bool {
    entry.value.prefix_len() == entry.value.max_prefix_len()
}

/// The prefixes that cover most addresses of their family, widest first;
/// hosts are no prefixes. IPv4 and IPv6 are ranked by the share of their
/// family's space, which is what the length says.
fn widest(entries: &[FeedEntry]) -> Vec<Wide> {
    let mut prefixes: Vec<&FeedEntry> = entries.iter().filter(|entry| !is_host(entry)).collect();
    prefixes.sort_by_key(|entry| (entry.value.prefix_len(), entry.value));
    prefixes.dedup_by_key(|entry| entry.value);
    prefixes
        .into_iter()
        .take(WIDEST_SHOWN)
        .map(|entry| Wide {
            value: value_text(entry.value),
            line: entry.line,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::feeds::{DEFAULT_MAX_BAD_SHARE, FeedSource, Format, Guards};

    /// A feed from text, under a path that is the same on every machine.
    fn feed(format: Format, text: &str) -> LoadedFeed {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut feed = LoadedFeed::read(&FeedSource::unnamed(format, file.path().into())).unwrap();
        feed.source = FeedSource::unnamed(format, PathBuf::from("/var/lib/feeds/c2.list"));
        feed.guard(&Guards::default());
        feed
    }

    const MIXED: &str = "\
192.0.2.7:443 proto=tcp malware=Qakbot
198.51.100.0/24
198.51.100.0/24 port=8080
203.0.113.64/29 until=2027-01-01T00:00:00Z
[2001:db8::7]:80
2001:db8:7::1/48
10.0.0.1
0.0.0.0/0
evil.example
";

    #[test]
    fn the_text_report_reads_well() {
        insta::assert_snapshot!(check_text(
            &feed(Format::Plain, MIXED),
            DEFAULT_MAX_BAD_SHARE
        ));
    }

    #[test]
    fn the_json_report_has_every_problem() {
        let json = check_json(&feed(Format::Plain, MIXED), DEFAULT_MAX_BAD_SHARE);
        assert!(!json.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        insta::assert_json_snapshot!(value);
    }

    #[test]
    fn a_long_list_of_problems_is_cut_in_text_and_not_in_json() {
        let text: String = (0..25).map(|host| format!("10.0.0.{host}\n")).collect();
        let feed = feed(Format::Plain, &(text + "192.0.2.1\n"));
        let text = check_text(&feed, DEFAULT_MAX_BAD_SHARE);
        assert!(text.contains("c2.list:20: "));
        assert!(!text.contains("c2.list:21: "));
        assert!(text.ends_with("    and 5 more\n"), "{text}");
        let json = check_json(&feed, DEFAULT_MAX_BAD_SHARE);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["problems"].as_array().unwrap().len(), 25);
    }

    #[test]
    fn a_feed_that_cannot_be_used_says_so_first() {
        insta::assert_snapshot!(check_text(
            &feed(
                Format::SpamhausDrop,
                "<html>\n<title>429 Too Many Requests</title>\n"
            ),
            DEFAULT_MAX_BAD_SHARE,
        ));
    }
}
