//! Sightings as MISP takes them at `/sightings/add` (MISP automation API,
//! "Sightings"; misp-core-format, "Sighting").

use serde::Serialize;

use super::{Opinion, Verdict, share::Said, stix::bare_uuid};

#[derive(Serialize)]
struct Sighting<'a> {
    /// Updates every attribute with this value; of `ip-dst|port`, with this
    /// address, whatever the port (MISP, `Sighting::saveSightings`).
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// Updates this attribute only.
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<&'a str>,
    /// `0` seen, `1` false positive.
    r#type: &'static str,
    /// Unix time, seconds; text, as PyMISP writes it.
    timestamp: String,
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
            timestamp: verdict.at.as_second().to_string(),
            source: organisation,
        };
        let uuids = attributes(verdict);
        let sightings: Vec<Sighting<'_>> = if uuids.is_empty() {
            vec![sighting(Some(said.subject().value.to_string()), None)]
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

/// Attributes that the feeds of a verdict named by their UUID.
fn attributes(verdict: &Verdict) -> Vec<&str> {
    let mut uuids: Vec<&str> = verdict
        .references
        .iter()
        .map(|reference| reference.id.as_str())
        .filter(|id| bare_uuid(id))
        .collect();
    uuids.sort_unstable();
    uuids.dedup();
    uuids
}

/// Whether a sighting can say what a verdict says and no more: by value MISP
/// would take it for every port of the address.
pub(super) fn can_say(verdict: &Verdict) -> bool {
    let only = verdict.subject.only.unwrap_or_default();
    (only.port.is_none() && only.protocol.is_none()) || !attributes(verdict).is_empty()
}
