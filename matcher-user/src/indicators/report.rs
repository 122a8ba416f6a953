//! What `feed lookup` says about an address or a name, and `feed diff` about
//! two lists: pure functions to text or to one JSON object.

use std::{fmt::Write as _, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;

use super::{Covering, Diff, IndicatorSet, diff, diff_of_names, summary};
use crate::{
    hit::{Endpoint, IndicatorSummary},
    indicator::{DomainName, Indicator, Statement, Tlp},
};

/// The answer for a person.
pub fn lookup_text(set: &IndicatorSet, asked: Endpoint, at: Timestamp) -> String {
    let (matches, others) = answer(set, asked, at);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut text, &endpoint_text(asked), at, &matches, &others);
    text
}

/// The answer for a program: one JSON object on one line.
pub fn lookup_json(set: &IndicatorSet, asked: Endpoint, at: Timestamp) -> String {
    #[derive(Serialize)]
    struct Report {
        address: IpAddr,
        port: Option<u16>,
        at: Timestamp,
        /// What a packet with this address (and port) would match.
        matches: Vec<Found>,
        /// What covers the address and does not match.
        others: Vec<Found>,
    }
    let (matches, others) = answer(set, asked, at);
    let found = |part: &[Covering<'_>]| part.iter().map(Found::from).collect();
    let report = Report {
        address: asked.ip,
        port: asked.port,
        at,
        matches: found(&matches),
        others: found(&others),
    };
    // Only maps with other keys than text cannot become JSON.
    serde_json::to_string(&report).unwrap_or_default()
}

/// The indicators that match, and those that only cover the address.
fn answer(
    set: &IndicatorSet,
    asked: Endpoint,
    at: Timestamp,
) -> (Vec<Covering<'_>>, Vec<Covering<'_>>) {
    set.covering(asked.ip, asked.port, None, at)
        .into_iter()
        .partition(|covering| covering.mismatches.is_empty())
}

#[derive(Serialize)]
struct Found {
    #[serde(flatten)]
    indicator: IndicatorSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seen: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tlp: Option<Tlp>,
    /// What each feed says, in its own words.
    said: Vec<Arc<Statement>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why_not: Vec<String>,
}

impl From<&Covering<'_>> for Found {
    fn from(covering: &Covering<'_>) -> Self {
        let indicator = covering.indicator;
        Self {
            indicator: summary(indicator),
            first_seen: indicator.first_seen(),
            last_seen: indicator.last_seen(),
            tlp: indicator.tlp(),
            said: indicator.statements.to_vec(),
            valid_from: indicator.valid_from,
            valid_until: indicator.valid_until,
            why_not: reasons(covering),
        }
    }
}

fn reasons(covering: &Covering<'_>) -> Vec<String> {
    covering
        .mismatches
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn endpoint_text(asked: Endpoint) -> String {
    match (asked.ip, asked.port) {
        (ip, None) => ip.to_string(),
        (ip, Some(port)) => std::net::SocketAddr::new(ip, port).to_string(),
    }
}

fn write(
    text: &mut String,
    asked: &str,
    at: Timestamp,
    matches: &[Covering<'_>],
    others: &[Covering<'_>],
) -> std::fmt::Result {
    match matches.len() {
        0 => writeln!(text, "{asked} at {at}: no match")?,
        1 => writeln!(text, "{asked} at {at}: matches 1 indicator")?,
        more => writeln!(text, "{asked} at {at}: matches {more} indicators")?,
    }
    for covering in matches {
        writeln!(text, "  {}", indicator_text(covering.indicator))?;
        sources(text, &covering.indicator.statements)?;
    }
    if !others.is_empty() {
        writeln!(text, "covered without a match:")?;
    }
    for covering in others {
        let reasons = reasons(covering).join(", ");
        writeln!(text, "  {}: {reasons}", indicator_text(covering.indicator))?;
    }
    Ok(())
}

fn indicator_text(indicator: &Indicator) -> String {
    one_line(indicator, &indicator.value_text())
}

fn one_line<V>(indicator: &Indicator<V>, value: &str) -> String {
    let mut text = format!("#{} {value}", indicator.id.0);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(name);
            text.push_str(&value);
        }
    };
    let time = |time: Option<Timestamp>| time.map(|it| it.to_string());
    add(" ", indicator.qualifier.protocol.map(|it| it.to_string()));
    add(" port ", indicator.qualifier.port.map(|it| it.to_string()));
    add(", feeds ", Some(indicator.feeds().join(" ")));
    add(
        ", malware ",
        indicator.malware().as_deref().map(str::to_owned),
    );
    add(
        ", confidence ",
        indicator.confidence().map(|it| it.to_string()),
    );
    add(", first seen ", time(indicator.first_seen()));
    add(", last seen ", time(indicator.last_seen()));
    add(", valid from ", time(indicator.valid_from));
    add(", until ", time(indicator.valid_until));
    add(", ", indicator.tlp().map(|it| it.to_string()));
    text
}

/// What the feeds call the entry, and where they say more.
fn sources(text: &mut String, statements: &[Arc<Statement>]) -> std::fmt::Result {
    for Statement { feed, said } in statements.iter().map(AsRef::as_ref) {
        let parts: Vec<&str> = [said.id.as_deref(), said.reference.as_deref()]
            .into_iter()
            .flatten()
            .collect();
        if !parts.is_empty() {
            writeln!(text, "    {feed}: {}", parts.join(", "))?;
        }
    }
    Ok(())
}

/// What lists a name, for a person. Nothing matches names yet.
pub fn name_lookup_text(set: &IndicatorSet, name: &DomainName) -> String {
    let found = set.covering_name(name);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = (|| {
        writeln!(
            text,
            "{name}: listed {} times; nothing matches names yet",
            found.len()
        )?;
        for indicator in &found {
            writeln!(text, "  {}", one_line(indicator, indicator.value.as_str()))?;
            sources(&mut text, &indicator.statements)?;
        }
        Ok::<_, std::fmt::Error>(())
    })();
    text
}

/// What lists a name, for a program: one JSON object on one line.
pub fn name_lookup_json(set: &IndicatorSet, name: &DomainName) -> String {
    #[derive(Serialize)]
    struct Report<'a> {
        name: &'a DomainName,
        /// Nothing is matched against names yet.
        matched: bool,
        listed: Vec<ListedName<'a>>,
    }
    let listed = set.covering_name(name);
    let report = Report {
        name,
        matched: false,
        listed: listed.into_iter().map(ListedName::from).collect(),
    };
    // Only maps with other keys than text cannot become JSON.
    serde_json::to_string(&report).unwrap_or_default()
}

#[derive(Serialize)]
struct ListedName<'a> {
    id: u32,
    value: &'a DomainName,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<Timestamp>,
    said: &'a [Arc<Statement>],
}

impl<'a> From<&'a Indicator<DomainName>> for ListedName<'a> {
    fn from(indicator: &'a Indicator<DomainName>) -> Self {
        Self {
            id: indicator.id.0,
            value: &indicator.value,
            valid_from: indicator.valid_from,
            valid_until: indicator.valid_until,
            said: &indicator.statements,
        }
    }
}

/// Indicators of one kind that the text of a difference shows.
const CHANGES_SHOWN: usize = 50;

/// What a load would change, for a person.
pub fn diff_text(old: &IndicatorSet, new: &IndicatorSet) -> String {
    let (addresses, names) = (diff(old, new), diff_of_names(old, new));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = (|| {
        write_diff(&mut text, "addresses and prefixes", &addresses, |it| {
            it.value_text()
        })?;
        if !names.is_empty() {
            write_diff(&mut text, "names", &names, |it| it.value.to_string())?;
        }
        Ok::<_, std::fmt::Error>(())
    })();
    text
}

fn write_diff<V>(
    text: &mut String,
    what: &str,
    diff: &Diff<'_, V>,
    value: impl Fn(&Indicator<V>) -> String,
) -> std::fmt::Result {
    let Diff {
        added,
        removed,
        changed,
    } = diff;
    writeln!(
        text,
        "{what}: {} added, {} removed, {} changed",
        added.len(),
        removed.len(),
        changed.len()
    )?;
    let signs = [("+", added), ("-", removed)];
    for (sign, list) in signs {
        for indicator in list.iter().take(CHANGES_SHOWN) {
            writeln!(
                text,
                "  {sign} {}",
                change_line(indicator, &value(indicator))
            )?;
        }
        more(text, list.len())?;
    }
    for (old, new) in changed.iter().take(CHANGES_SHOWN) {
        writeln!(text, "  ~ {}", one_line(old, &value(old)))?;
        writeln!(text, "    {}", one_line(new, &value(new)))?;
    }
    more(text, changed.len())
}

/// Without the id: a new indicator has none before it is loaded.
fn change_line<V>(indicator: &Indicator<V>, value: &str) -> String {
    let line = one_line(indicator, value);
    line.split_once(' ')
        .map_or(line.clone(), |(_, rest)| rest.to_owned())
}

fn more(text: &mut String, count: usize) -> std::fmt::Result {
    match count.checked_sub(CHANGES_SHOWN) {
        Some(more) if more > 0 => writeln!(text, "    and {more} more (--json shows all)"),
        _ => Ok(()),
    }
}

/// What a load would change, for a program: one JSON object on one line.
pub fn diff_json(old: &IndicatorSet, new: &IndicatorSet) -> String {
    #[derive(Serialize)]
    struct Report {
        added: Vec<IndicatorSummary>,
        removed: Vec<IndicatorSummary>,
        changed: Vec<Change>,
        names_added: Vec<String>,
        names_removed: Vec<String>,
        names_changed: Vec<String>,
    }
    #[derive(Serialize)]
    struct Change {
        old: IndicatorSummary,
        new: IndicatorSummary,
    }
    let (addresses, names) = (diff(old, new), diff_of_names(old, new));
    let all = |list: &[&Indicator]| list.iter().map(|it| summary(it)).collect();
    let text =
        |list: &[&Indicator<DomainName>]| list.iter().map(|it| it.value.to_string()).collect();
    let report = Report {
        added: all(&addresses.added),
        removed: all(&addresses.removed),
        changed: addresses
            .changed
            .iter()
            .map(|(old, new)| Change {
                old: summary(old),
                new: summary(new),
            })
            .collect(),
        names_added: text(&names.added),
        names_removed: text(&names.removed),
        names_changed: names
            .changed
            .iter()
            .map(|(_, new)| new.value.to_string())
            .collect(),
    };
    // Only maps with other keys than text cannot become JSON.
    serde_json::to_string(&report).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        feeds::{Format, address_and_port, parse},
        indicators::Catalog,
    };

    const OWN: &str = "\
198.51.100.0/24
198.51.100.23 proto=tcp port=443 malware=QakBot confidence=90
198.51.100.23:8080
198.51.100.23 from=2027-01-01T00:00:00Z
198.51.100.23 proto=udp port=8080 until=2026-01-01T00:00:00Z
2001:db8::/32
";

    const FEODO: &str = "\
first_seen_utc,dst_ip,dst_port,last_online,malware
2024-01-17 07:44:46,198.51.100.23,8080,2026-11-15,Dridex
";

    fn set() -> IndicatorSet {
        let own = parse(Format::Plain, OWN.as_bytes()).entries;
        let feodo = parse(Format::FeodoCsv, FEODO.as_bytes()).entries;
        let feeds = [("own", own.as_slice()), ("feodo", feodo.as_slice())];
        IndicatorSet::merge(&Catalog::default(), &feeds, Timestamp::UNIX_EPOCH)
            .unwrap()
            .0
    }

    fn asked(text: &str) -> (Endpoint, Timestamp) {
        let (ip, port) = address_and_port(text).unwrap();
        (
            Endpoint { ip, port },
            "2026-11-22T01:02:03Z".parse().unwrap(),
        )
    }

    #[test]
    fn the_text_answer_reads_well() {
        let text = [
            "198.51.100.23:8080",
            "198.51.100.23",
            "[2001:db8::7]:80",
            "192.0.2.1",
        ]
        .map(|text| {
            let (asked, at) = asked(text);
            lookup_text(&set(), asked, at)
        });
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn the_json_answer_has_the_same() {
        let (asked, at) = asked("198.51.100.23:8080");
        let json = lookup_json(&set(), asked, at);
        assert!(!json.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        insta::assert_json_snapshot!(value);
    }
}
