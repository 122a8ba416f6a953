//! Formats `stix` and `taxii`: indicators of STIX 2.1 (and 2.0), in a bundle,
//! in the envelope of a TAXII 2.1 server, or one after the other.
//!
//! ```text
//! {"type":"bundle","objects":[{"type":"indicator","pattern_type":"stix",
//!   "pattern":"[ipv4-addr:value = '203.0.113.10']","valid_from":"2026-01-01T00:00:00Z"}]}
//! {"more":true,"next":"...","objects":[...]}
//! ```
//!
//! Of several versions of an object the last counts, and a revoked one is left
//! out. Malware families come from `indicates` relationships, TLP from object
//! markings (TLP 1 of STIX itself, TLP 2 by its extension). What a pattern may
//! say is in [`pattern`].

mod pattern;

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use self::pattern::{Found, FoundValue, PatternError};
use super::{
    Brief, FeedEntry, ParsedFeed, Texts,
    json::{self, Records, Scalar, Structure},
    lines::quoted,
    rows,
    time::utc,
};
use crate::indicator::{Said, Tlp};

/// The markings that the specifications fix: STIX 2.1 section 7.2.1.4 (TLP 1),
/// and the extension of OASIS for TLP 2.
const TLP_MARKINGS: [(&str, Tlp); 9] = [
    ("613f2e26-407d-48c7-9eca-b8e91df99dc9", Tlp::Clear),
    ("34098fce-860f-48ae-8e50-ebd3cc5e41da", Tlp::Green),
    ("f88d31f6-486f-44da-b317-01333bde0b82", Tlp::Amber),
    ("5e57c739-391a-4eb3-b6be-7d15ca92d5ed", Tlp::Red),
    ("94868c89-83c2-464b-929b-a1a8aa3c8487", Tlp::Clear),
    ("bab4a63c-aed9-4cf5-a766-dfca5abac2bb", Tlp::Green),
    ("55d920b0-5e8b-4f79-9ee9-91f868d9b421", Tlp::Amber),
    ("939a9414-2ddd-4d32-a0cd-375ea402b003", Tlp::AmberStrict),
    ("e828b379-4e03-4974-9ac4-e53a884c97c1", Tlp::Red),
];

const REVOKED: &str = "a revoked indicator";
const OLDER: &str = "an older version of an indicator";
const BENIGN: &str = "an indicator of benign activity";
const OTHER_LANGUAGE: &str = "a pattern in another language than STIX";

/// What is read of every object first.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Head<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Scalar<'a>,
    #[serde(borrow, default)]
    id: Scalar<'a>,
    #[serde(borrow, default)]
    modified: Scalar<'a>,
    #[serde(borrow, default)]
    name: Scalar<'a>,
    #[serde(borrow, default)]
    relationship_type: Scalar<'a>,
    #[serde(borrow, default)]
    source_ref: Scalar<'a>,
    #[serde(borrow, default)]
    target_ref: Scalar<'a>,
    #[serde(borrow, default)]
    definition: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Definition<'a> {
    #[serde(borrow, default)]
    tlp: Scalar<'a>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Indicator<'a> {
    #[serde(borrow, default)]
    name: Scalar<'a>,
    #[serde(borrow, default)]
    pattern: Scalar<'a>,
    #[serde(borrow, default)]
    pattern_type: Scalar<'a>,
    #[serde(borrow, default)]
    created: Scalar<'a>,
    #[serde(borrow, default)]
    valid_from: Scalar<'a>,
    #[serde(borrow, default)]
    valid_until: Scalar<'a>,
    #[serde(borrow, default)]
    revoked: Scalar<'a>,
    #[serde(borrow, default)]
    confidence: Scalar<'a>,
    #[serde(borrow, default)]
    indicator_types: Vec<Scalar<'a>>,
    #[serde(borrow, default)]
    labels: Vec<Scalar<'a>>,
    #[serde(borrow, default)]
    object_marking_refs: Vec<Scalar<'a>>,
    #[serde(borrow, default)]
    external_references: Vec<External<'a>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct External<'a> {
    #[serde(borrow, default)]
    url: Scalar<'a>,
}

/// Reads bundles, envelopes, lists of objects or single ones.
pub(super) fn parse(bytes: &[u8]) -> ParsedFeed {
    // All objects first: what an indicator refers to may come after it, and
    // on a later page.
    let mut known = Known::default();
    let first = json::read(bytes, WANTED, |_, document, _| {
        each_object(document, &mut |object| known.note(object))
    });
    if first.not_this_format.is_some() {
        return first;
    }
    let mut texts = Texts::default();
    json::read(bytes, WANTED, |feed, document, records| {
        each_object(document, &mut |object| {
            read_object(feed, object, records, &known, &mut texts);
        })
    })
}

const WANTED: &str = "a bundle, an envelope with \"objects\", or STIX objects";

fn each_object<'a>(document: &'a RawValue, each: &mut dyn FnMut(&'a RawValue)) -> Structure {
    if document.get().starts_with('[') {
        return json::items(document, each);
    }
    let mut objects = None;
    let mut is_object = false;
    let mut is_envelope = false;
    json::members(document, |key, value| match &*key {
        "objects" => objects = Some(value),
        "type" => is_object = value.get() != r#""bundle""#,
        "more" | "next" => is_envelope = true,
        _ => {}
    })?;
    match objects {
        Some(objects) => json::items(objects, each),
        None if is_object => {
            each(document);
            Ok(())
        }
        // A page without objects leaves them out; so does an empty bundle.
        None if is_envelope || document.get().contains("\"bundle\"") => Ok(()),
        None if document
            .get()
            .trim_matches(['{', '}', ' ', '\n', '\r', '\t'])
            .is_empty() =>
        {
            Ok(())
        }
        None => Err(quoted(document.get())),
    }
}

/// What indicators refer to.
#[derive(Default)]
struct Known {
    /// The last version of each object that has several.
    last: HashMap<String, Option<Timestamp>>,
    tlp: HashMap<String, Tlp>,
    malware: HashMap<String, Arc<str>>,
    /// Malware by the indicator that indicates it.
    indicates: HashMap<String, String>,
}

impl Known {
    fn note(&mut self, object: &RawValue) {
        // What cannot be read is reported when it is read as an indicator.
        let Ok(head) = json::object::<Head<'_>>(object) else {
            return;
        };
        let id = head.id.text();
        match head.kind.text() {
            "indicator" => {
                let modified = utc(head.modified.text());
                let last = self.last.entry(id.to_owned()).or_default();
                *last = (*last).max(modified);
            }
            "malware" | "tool" | "infrastructure" => {
                if let Some(name) = head.name.said() {
                    self.malware.insert(id.to_owned(), name.into());
                }
            }
            "relationship" if head.relationship_type.text() == "indicates" => {
                self.indicates.insert(
                    head.source_ref.text().to_owned(),
                    head.target_ref.text().to_owned(),
                );
            }
            "marking-definition" => {
                let defined = head
                    .definition
                    .and_then(|it| json::object::<Definition<'_>>(it).ok())
                    .and_then(|it| Tlp::parse(it.tlp.text()));
                let named = head.name.said().filter(|name| {
                    name.get(..4)
                        .is_some_and(|it| it.eq_ignore_ascii_case("tlp:"))
                });
                if let Some(tlp) = defined.or_else(|| Tlp::parse(named?)) {
                    self.tlp.insert(id.to_owned(), tlp);
                }
            }
            _ => {}
        }
    }

    /// The strictest marking.
    fn tlp(&self, markings: &[Scalar<'_>]) -> Option<Tlp> {
        markings
            .iter()
            .filter_map(|marking| {
                let id = marking.text();
                self.tlp.get(id).copied().or_else(|| {
                    let uuid = id.strip_prefix("marking-definition--")?;
                    TLP_MARKINGS
                        .iter()
                        .find(|(known, _)| *known == uuid)
                        .map(|(_, tlp)| *tlp)
                })
            })
            .max()
    }

    fn malware(&self, indicator: &str) -> Option<Arc<str>> {
        self.malware.get(self.indicates.get(indicator)?).cloned()
    }
}

fn read_object<'a>(
    feed: &mut ParsedFeed,
    object: &'a RawValue,
    records: &mut Records<'a>,
    known: &Known,
    texts: &mut Texts,
) {
    let head = match json::object::<Head<'_>>(object) {
        Ok(head) if head.kind.text() == "indicator" => head,
        // Other objects are no entries, however many there are.
        Ok(_) => return,
        Err(reason) => {
            let line = records.begin(feed, object);
            return records.bad(feed, line, reason);
        }
    };
    let line = records.begin(feed, object);
    let id = head.id.text();
    if known
        .last
        .get(id)
        .is_some_and(|last| *last > utc(head.modified.text()))
    {
        return feed.leave_out(OLDER);
    }
    let read = json::object::<Indicator<'_>>(object)
        .and_then(|indicator| Ok((listed(&indicator)?, indicator)));
    let (listed, indicator) = match read {
        Ok((Ok(listed), indicator)) => (listed, indicator),
        Ok((Err(reason), _)) => return feed.leave_out(reason),
        Err(reason) => return records.bad(feed, line, format_args!("{id}: {reason}")),
    };
    let said = Brief::from(Said {
        id: head.id.said().map(Into::into),
        reference: indicator
            .external_references
            .iter()
            .find_map(|it| it.url.said())
            .or_else(|| indicator.name.said())
            .and_then(|text| texts.share(text)),
        malware: known.malware(id),
        confidence: rows::confidence(feed, indicator.confidence.said(), "confidence", line),
        first_seen: utc(indicator.created.text()),
        last_seen: utc(head.modified.text()),
        tlp: known.tlp(&indicator.object_marking_refs),
    });
    for found in listed.found {
        match found.value {
            FoundValue::Address(address) => feed.entries.push(FeedEntry {
                qualifier: found.qualifier,
                valid_from: listed.valid_from,
                valid_until: listed.valid_until,
                said: said.clone(),
                ..FeedEntry::bare(address, line)
            }),
            FoundValue::Name(name) => feed.names.push(FeedEntry {
                qualifier: found.qualifier,
                valid_from: listed.valid_from,
                valid_until: listed.valid_until,
                said: said.clone(),
                ..FeedEntry::bare(name, line)
            }),
        }
    }
}

/// What an indicator lists, and when it is valid.
struct Listed {
    found: Vec<Found>,
    valid_from: Option<Timestamp>,
    valid_until: Option<Timestamp>,
}

/// The inner error says why an indicator is left out.
fn listed(indicator: &Indicator<'_>) -> Result<Result<Listed, &'static str>, String> {
    if indicator.revoked.is_true() {
        return Ok(Err(REVOKED));
    }
    let benign = |label: &Scalar<'_>| label.text().eq_ignore_ascii_case("benign");
    if indicator
        .indicator_types
        .iter()
        .chain(&indicator.labels)
        .any(benign)
    {
        return Ok(Err(BENIGN));
    }
    // STIX 2.0 has no pattern_type.
    if indicator
        .pattern_type
        .said()
        .is_some_and(|kind| kind != "stix")
    {
        return Ok(Err(OTHER_LANGUAGE));
    }
    // A time that cannot be read would widen when the entry matches.
    let time = |given: &Scalar<'_>, name: &str| match given.said() {
        None => Ok(None),
        Some(given) => utc(given)
            .map(Some)
            .ok_or_else(|| format!("{name}: {} is not a time", quoted(given))),
    };
    let valid_from = time(&indicator.valid_from, "valid_from")?;
    let valid_until = time(&indicator.valid_until, "valid_until")?;
    if let (Some(from), Some(until)) = (valid_from, valid_until)
        && until <= from
    {
        return Err(format!(
            "valid_until {until} is not later than valid_from {from}"
        ));
    }
    match pattern::read(indicator.pattern.text()) {
        Ok(found) => Ok(Ok(Listed {
            found,
            valid_from,
            valid_until,
        })),
        Err(PatternError::NotC2(reason)) => Ok(Err(reason)),
        Err(error) => Err(error.to_string()),
    }
}
