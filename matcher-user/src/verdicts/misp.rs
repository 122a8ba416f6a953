//! Sightings as MISP takes them at `/sightings/add` (MISP automation API,
//! "Sightings"; misp-core-format, "Sighting").

use serde::Serialize;

use super::{Opinion, Value, share::Said, stix::bare_uuid};
use crate::indicator::value_text;

#[derive(Serialize)]
struct Sighting<'a> {
    /// Updates every attribute with this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// Updates this attribute only.
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<&'a str>,
    /// `0` seen, `1` false positive.
    r#type: &'static str,
    /// Unix time, seconds.
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
}

/// One sighting a line: one for each attribute that a feed named by its UUID,
/// else one by value.
pub(super) fn lines(said: &[Said<'_>], organisation: Option<&str>) -> String {
    let mut text = String::new();
    for said in said {
        let verdict = said.last;
        let sighting = |value, uuid| Sighting {
            value,
            uuid,
            r#type: match verdict.verdict {
                Opinion::FalsePositive => "1",
                Opinion::Confirmed | Opinion::Clear => "0",
            },
            timestamp: verdict.at.as_second(),
            source: organisation,
        };
        let mut uuids: Vec<&str> = verdict
            .references
            .iter()
            .map(|reference| reference.id.as_str())
            .filter(|id| bare_uuid(id))
            .collect();
        uuids.sort_unstable();
        uuids.dedup();
        let sightings: Vec<Sighting<'_>> = if uuids.is_empty() {
            vec![sighting(Some(misp_value(said)), None)]
        } else {
            uuids
                .into_iter()
                .map(|uuid| sighting(None, Some(uuid)))
                .collect()
        };
        for sighting in sightings {
            // Only maps with other keys than text cannot become JSON.
            text.push_str(&serde_json::to_string(&sighting).unwrap_or_default());
            text.push('\n');
        }
    }
    text
}

/// As MISP writes it: `ip-dst|port` has both with a bar between.
fn misp_value(said: &Said<'_>) -> String {
    let subject = said.subject();
    let port = subject.only.and_then(|only| only.port);
    match (&subject.value, port) {
        (Value::Address(prefix), Some(port)) => format!("{}|{port}", value_text(*prefix)),
        (value, _) => value.to_string(),
    }
}
