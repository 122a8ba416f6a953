//! What `feed lookup` says about an address: pure functions from a list to
//! text or to one JSON object.

use std::{fmt::Write as _, net::IpAddr};

use jiff::Timestamp;
use serde::Serialize;

use super::{Covering, IndicatorSet, summary};
use crate::{
    hit::{Endpoint, IndicatorSummary},
    indicator::Indicator,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why_not: Vec<String>,
}

impl From<&Covering<'_>> for Found {
    fn from(covering: &Covering<'_>) -> Self {
        let indicator = covering.indicator;
        Self {
            indicator: summary(indicator),
            first_seen: indicator.first_seen,
            last_seen: indicator.last_seen,
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
    let mut text = format!("#{} {}", indicator.id.0, indicator.value_text());
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(name);
            text.push_str(&value);
        }
    };
    add(" ", indicator.qualifier.protocol.map(|it| it.to_string()));
    add(" port ", indicator.qualifier.port.map(|it| it.to_string()));
    add(", feeds ", Some(indicator.feeds.join(" ")));
    add(", malware ", indicator.malware.clone());
    add(
        ", confidence ",
        indicator.confidence.map(|it| it.to_string()),
    );
    add(
        ", first seen ",
        indicator.first_seen.map(|it| it.to_string()),
    );
    add(", last seen ", indicator.last_seen.map(|it| it.to_string()));
    add(
        ", valid from ",
        indicator.valid_from.map(|it| it.to_string()),
    );
    add(", until ", indicator.valid_until.map(|it| it.to_string()));
    text
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
