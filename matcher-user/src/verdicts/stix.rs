//! Opinions and sightings of STIX 2.1 (OASIS Standard, sections 4.7, 4.14 and
//! 5.2).
//!
//! Ids are made of the contents (RFC 9562, version 5), so that the same
//! verdict exported twice is one object for whoever reads both files, and one
//! that was taken back is the same object, revoked. The indicator of a false
//! positive is `benign` and revoked: nobody who reads the file matches it.

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::{Opinion, Subject, Value, share::Said};
use crate::indicator::{Tlp, value_text};

/// Names what is made here; drawn once.
const NAMESPACE: Uuid = Uuid::from_u128(0x7a1d_6c9e_3f42_4b0b_9a57_2c61_d4e8_5b13);

/// Marking definitions for TLP that the standard itself has (section 7.2.1.4).
fn marking(tlp: Tlp) -> Option<&'static str> {
    match tlp {
        Tlp::Clear => Some("marking-definition--613f2e26-407d-48c7-9eca-b8e91df99dc9"),
        Tlp::Green => Some("marking-definition--34098fce-860f-48ae-8e50-ebd3cc5e41da"),
        Tlp::Amber => Some("marking-definition--f88d31f6-486f-44da-b317-01333bde0b82"),
        // Never passed on.
        Tlp::AmberStrict | Tlp::Red => None,
    }
}

/// Whether a feed's id is a UUID, as MISP's are.
pub(super) fn bare_uuid(id: &str) -> bool {
    id.len() == 36 && Uuid::try_parse(id).is_ok()
}

/// Whether a feed's id is that of a STIX indicator.
fn indicator_id(id: &str) -> bool {
    id.strip_prefix("indicator--").is_some_and(bare_uuid)
}

fn id(kind: &str, name: &str) -> String {
    let uuid = Uuid::new_v5(&NAMESPACE, format!("{kind} {name}").as_bytes());
    format!("{kind}--{uuid}")
}

/// With the milliseconds that the standard asks for at least.
fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// A bundle; without any verdict it has no objects.
/// `since`: when the first verdict of all was given, so that the identity is the
/// same in every bundle.
pub(super) fn bundle(said: &[Said<'_>], organisation: Option<&str>, since: Timestamp) -> String {
    let mut objects = Vec::new();
    let mut creator = None;
    if let Some(name) = organisation.filter(|_| !said.is_empty()) {
        let id = id("identity", name);
        objects.push(json!({
            "type": "identity",
            "spec_version": "2.1",
            "id": id,
            "created": time(since),
            "modified": time(since),
            "name": name,
            "identity_class": "organization",
        }));
        creator = Some(id);
    }
    for said in said {
        let name = format!("{} {}", creator.as_deref().unwrap_or(""), said.subject());
        let maker = Maker {
            said,
            name: &name,
            creator: creator.as_deref(),
        };
        objects.extend(maker.objects());
    }
    let contents: String = objects.iter().map(ToString::to_string).collect();
    let mut bundle = json!({"type": "bundle", "id": id("bundle", &contents)});
    if let Some(bundle) = bundle.as_object_mut()
        && !objects.is_empty()
    {
        bundle.insert("objects".to_owned(), Json::Array(objects));
    }
    // Only maps with other keys than text cannot become JSON.
    let text = serde_json::to_string_pretty(&bundle).unwrap_or_default();
    text + "\n"
}

/// Makes the objects for one subject.
struct Maker<'a> {
    said: &'a Said<'a>,
    /// What ids are made of.
    name: &'a str,
    creator: Option<&'a str>,
}

impl Maker<'_> {
    fn objects(&self) -> Vec<Json> {
        let Said {
            first,
            confirmed,
            last,
        } = self.said;
        let indicator = id("indicator", self.name);
        let of_feeds = last
            .references
            .iter()
            .map(|reference| reference.id.clone())
            .filter(|id| indicator_id(id));
        let mut about: Vec<String> = of_feeds.collect();
        about.sort_unstable();
        about.dedup();
        let seen = about.first().cloned().unwrap_or(indicator.clone());
        about.insert(0, indicator.clone());

        let holds = last.verdict == Opinion::Confirmed;
        let mut objects = vec![
            self.object(
                "indicator",
                indicator,
                first.at,
                !holds,
                json!({
                    "name": self.said.subject().to_string(),
                    "indicator_types": [match last.verdict {
                        Opinion::Confirmed => "malicious-activity",
                        Opinion::FalsePositive => "benign",
                        Opinion::Clear => "unknown",
                    }],
                    "pattern": pattern(self.said.subject()),
                    "pattern_type": "stix",
                    "valid_from": time(first.at),
                }),
            ),
            self.object(
                "opinion",
                id("opinion", self.name),
                first.at,
                last.verdict == Opinion::Clear,
                json!({
                    "opinion": match last.verdict {
                        Opinion::Confirmed => "strongly-agree",
                        Opinion::FalsePositive => "strongly-disagree",
                        Opinion::Clear => "neutral",
                    },
                    "object_refs": about,
                }),
            ),
        ];
        if let Some(confirmed) = confirmed {
            objects.push(self.object(
                "sighting",
                id("sighting", self.name),
                confirmed.at,
                !holds,
                json!({"sighting_of_ref": seen}),
            ));
        }
        objects
    }

    fn object(&self, kind: &str, id: String, created: Timestamp, revoked: bool, own: Json) -> Json {
        let last = self.said.last;
        let mut object = json!({
            "type": kind,
            "spec_version": "2.1",
            "id": id,
            "created": time(created),
            "modified": time(last.at),
        });
        if let Some(object) = object.as_object_mut() {
            if let Some(creator) = self.creator {
                object.insert("created_by_ref".to_owned(), creator.into());
            }
            if revoked {
                object.insert("revoked".to_owned(), true.into());
            }
            if let Some(marking) = last.tlp.and_then(marking) {
                object.insert("object_marking_refs".to_owned(), json!([marking]));
            }
            if let Json::Object(own) = own {
                object.extend(own);
            }
        }
        object
    }
}

/// A pattern (section 9) of what the subject lists. Values hold no quotes:
/// they are addresses and checked names.
fn pattern(subject: &Subject) -> String {
    let (kind, value) = match &subject.value {
        Value::Name(name) => ("domain-name", name.to_string()),
        Value::Address(prefix) if prefix.addr().is_ipv4() => ("ipv4-addr", value_text(*prefix)),
        Value::Address(prefix) => ("ipv6-addr", value_text(*prefix)),
    };
    let only = subject.only.unwrap_or_default();
    if only.port.is_none() && only.protocol.is_none() {
        return format!("[{kind}:value = '{value}']");
    }
    let mut pattern = format!(
        "[network-traffic:dst_ref.type = '{kind}' AND network-traffic:dst_ref.value = '{value}'"
    );
    if let Some(port) = only.port {
        pattern += &format!(" AND network-traffic:dst_port = {port}");
    }
    if let Some(protocol) = only.protocol {
        pattern += &format!(" AND network-traffic:protocols[*] = '{protocol}'");
    }
    pattern + "]"
}
