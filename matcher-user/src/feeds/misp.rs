//! Format `misp`: events of MISP (core format, draft-dulaunoy-misp-core-format).
//!
//! ```text
//! {"Event":{"uuid":"...","info":"...","Tag":[{"name":"tlp:amber"}],
//!   "Attribute":[{"type":"ip-dst|port","value":"5.6.7.8|5678","to_ids":true,"timestamp":"1603642920"}],
//!   "Object":[{"name":"ip-port","Attribute":[...]}]}}
//! ```
//!
//! One event, a list of events, or the answer of a search (`{"response":[...]}`).
//! Only attributes marked `to_ids` are read: the publisher says of the others
//! that they are no detection. `ip-src` and the like are sources, no C&C. In an
//! object of addresses and ports (`ip-port`) the destination ports limit the
//! addresses.
//!
//! A feed of MISP is a directory of events with a `manifest.json`
//! ([`manifest`]); the loader reads such a directory file by file.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Brief, FeedEntry, ParsedFeed, Texts,
    json::{self, Records, Scalar, Structure},
    lines::quoted,
    time::{unix, utc},
    value,
};
use crate::{
    indicator::{DomainName, Qualifier, Said, Tlp},
    protocol::Protocol,
};

const NOT_FOR_IDS: &str = "an attribute that is not marked to_ids";
const DELETED: &str = "a deleted attribute";
const OTHER_TYPE: &str = "an attribute that is neither a destination address nor a name";

/// One event in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestEvent {
    /// The event's UUID: its file is `UUID.json`.
    pub uuid: String,
    /// When it was changed last.
    pub timestamp: Option<Timestamp>,
    /// Its title.
    pub info: String,
}

/// Reads a `manifest.json`: the events of a feed and when they changed.
///
/// # Errors
///
/// When it is no object of events by UUID.
pub fn manifest(bytes: &[u8]) -> Result<Vec<ManifestEvent>, String> {
    #[derive(Deserialize)]
    #[serde(expecting = "an object")]
    struct Summary<'a> {
        #[serde(borrow, default)]
        info: Scalar<'a>,
        #[serde(borrow, default)]
        timestamp: Scalar<'a>,
    }
    let events: BTreeMap<Cow<'_, str>, Summary<'_>> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    events
        .into_iter()
        .map(|(uuid, summary)| {
            // The name becomes part of a path.
            let is_uuid = uuid.len() == 36
                && uuid
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
            if !is_uuid {
                return Err(format!("{} is not a UUID", quoted(&uuid)));
            }
            Ok(ManifestEvent {
                uuid: uuid.into_owned(),
                timestamp: unix(summary.timestamp.text()),
                info: summary.info.text().to_owned(),
            })
        })
        .collect()
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Event<'a> {
    #[serde(borrow, default)]
    uuid: Scalar<'a>,
    #[serde(borrow, default)]
    info: Scalar<'a>,
    #[serde(borrow, rename = "Tag", default)]
    tags: Vec<Tag<'a>>,
    #[serde(borrow, rename = "Attribute", default)]
    attributes: Vec<&'a RawValue>,
    #[serde(borrow, rename = "Object", default)]
    objects: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Object<'a> {
    #[serde(borrow, default)]
    name: Scalar<'a>,
    #[serde(borrow, default)]
    deleted: Scalar<'a>,
    #[serde(borrow, rename = "Attribute", default)]
    attributes: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Attribute<'a> {
    #[serde(borrow, default)]
    uuid: Scalar<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Scalar<'a>,
    #[serde(borrow, default)]
    value: Scalar<'a>,
    #[serde(borrow, default)]
    to_ids: Scalar<'a>,
    #[serde(borrow, default)]
    deleted: Scalar<'a>,
    #[serde(borrow, default)]
    object_relation: Scalar<'a>,
    #[serde(borrow, default)]
    timestamp: Scalar<'a>,
    #[serde(borrow, default)]
    first_seen: Scalar<'a>,
    #[serde(borrow, default)]
    last_seen: Scalar<'a>,
    #[serde(borrow, rename = "Tag", default)]
    tags: Vec<Tag<'a>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Tag<'a> {
    #[serde(borrow, default)]
    name: Scalar<'a>,
}

/// Reads events.
pub(super) fn parse(bytes: &[u8]) -> ParsedFeed {
    let mut reader = Reader {
        texts: Texts::default(),
    };
    json::read(
        bytes,
        "an \"Event\", a list of events, or a \"response\"",
        |feed, document, records| reader.document(feed, document, records),
    )
}

struct Reader {
    texts: Texts,
}

/// What an event says of all its attributes.
struct Context {
    reference: Option<Arc<str>>,
    tags: Marks,
}

/// What tags say.
#[derive(Clone, Default)]
struct Marks {
    tlp: Option<Tlp>,
    malware: Option<Arc<str>>,
    confidence: Option<u8>,
}

impl Reader {
    fn document<'a>(
        &mut self,
        feed: &mut ParsedFeed,
        document: &'a RawValue,
        records: &mut Records<'a>,
    ) -> Structure {
        if document.get().starts_with('[') {
            let mut result = Ok(());
            json::items(document, |item| {
                if result.is_ok() {
                    result = self.document(feed, item, records);
                }
            })?;
            return result;
        }
        let mut event = None;
        let mut response = None;
        // PyMISP writes events without the object around them.
        let mut is_event = false;
        json::members(document, |key, value| match &*key {
            "Event" => event = Some(value),
            "response" => response = Some(value),
            "Attribute" | "Object" | "info" => is_event = true,
            _ => {}
        })?;
        match (event, response) {
            (Some(event), _) => self.event(feed, event, records),
            (None, Some(response)) => return self.document(feed, response, records),
            (None, None) if is_event => self.event(feed, document, records),
            (None, None) => return Err(quoted(document.get())),
        }
        Ok(())
    }

    fn event<'a>(&mut self, feed: &mut ParsedFeed, event: &'a RawValue, records: &mut Records<'a>) {
        let read = match json::object::<Event<'_>>(event) {
            Ok(event) => event,
            Err(reason) => {
                let line = records.begin(feed, event);
                records.bad(feed, line, format_args!("event: {reason}"));
                return;
            }
        };
        let reference = match (read.uuid.said(), read.info.said()) {
            (Some(uuid), Some(info)) => Some(format!("{uuid} {info}")),
            (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
            (None, None) => None,
        };
        let context = Context {
            reference: reference.and_then(|text| self.texts.share(&text)),
            tags: self.marks(&read.tags, &Marks::default()),
        };
        for attribute in read.attributes {
            self.attribute(feed, attribute, records, &context, &[]);
        }
        for object in read.objects {
            let read = match json::object::<Object<'_>>(object) {
                Ok(object) => object,
                Err(reason) => {
                    let line = records.begin(feed, object);
                    records.bad(feed, line, format_args!("object: {reason}"));
                    continue;
                }
            };
            if read.deleted.is_true() {
                continue;
            }
            let limits = if read.name.text() == "ip-port" {
                limits(&read.attributes)
            } else {
                Vec::new()
            };
            for attribute in read.attributes {
                self.attribute(feed, attribute, records, &context, &limits);
            }
        }
    }

    /// `limits`: what the object around it says of ports and protocol; one
    /// entry for each, or one without limit when there is none.
    fn attribute<'a>(
        &mut self,
        feed: &mut ParsedFeed,
        attribute: &'a RawValue,
        records: &mut Records<'a>,
        context: &Context,
        limits: &[Qualifier],
    ) {
        let line = records.begin(feed, attribute);
        let read = json::object::<Attribute<'_>>(attribute).and_then(|attribute| {
            if attribute.deleted.is_true() {
                return Ok(Err(DELETED));
            }
            if !attribute.to_ids.is_true() {
                return Ok(Err(NOT_FOR_IDS));
            }
            let values = values(&attribute)?;
            Ok(match values.is_empty() {
                true => Err(OTHER_TYPE),
                false => Ok((values, attribute)),
            })
        });
        let (values, attribute) = match read {
            Ok(Ok(read)) => read,
            Ok(Err(reason)) => return feed.leave_out(reason),
            Err(reason) => return records.bad(feed, line, reason),
        };
        let said = Brief::from(self.said(&attribute, context));
        for value in values {
            match value {
                Value::Address(address, port) => {
                    let own = [Qualifier {
                        protocol: None,
                        port,
                    }];
                    let limits = if port.is_none() && !limits.is_empty() {
                        limits
                    } else {
                        &own
                    };
                    for qualifier in limits {
                        let mut entry = FeedEntry::bare(address, line);
                        entry.qualifier = *qualifier;
                        entry.said = said.clone();
                        feed.entries.push(entry);
                    }
                }
                Value::Name(name) => {
                    let mut entry = FeedEntry::bare(name, line);
                    entry.said = said.clone();
                    feed.names.push(entry);
                }
            }
        }
    }

    fn said(&mut self, attribute: &Attribute<'_>, context: &Context) -> Said {
        let marks = self.marks(&attribute.tags, &context.tags);
        let seen = |given: &Scalar<'_>| given.said().and_then(utc);
        Said {
            id: attribute.uuid.said().map(Into::into),
            reference: context.reference.clone(),
            malware: marks.malware,
            confidence: marks.confidence,
            first_seen: seen(&attribute.first_seen),
            // The attribute's last change is when somebody still stood by it.
            last_seen: seen(&attribute.last_seen).or_else(|| unix(attribute.timestamp.text())),
            tlp: marks.tlp,
        }
    }

    /// What the tags say; what they do not say is as around them.
    fn marks(&mut self, tags: &[Tag<'_>], around: &Marks) -> Marks {
        let mut marks = Marks::default();
        for tag in tags {
            let tag = tag.name.text();
            if let Some(level) = tag
                .get(..4)
                .filter(|it| it.eq_ignore_ascii_case("tlp:"))
                .and(Tlp::parse(tag))
            {
                marks.tlp = marks.tlp.max(Some(level));
            } else if let Some(family) = family(tag) {
                marks.malware = marks.malware.or_else(|| self.texts.share(family));
            } else if let Some(level) = confidence(tag) {
                marks.confidence = Some(level);
            }
        }
        Marks {
            tlp: marks.tlp.or(around.tlp),
            malware: marks.malware.or_else(|| around.malware.clone()),
            confidence: marks.confidence.or(around.confidence),
        }
    }
}

/// Galaxies of malware families.
const GALAXIES: [&str; 9] = [
    "malpedia",
    "mitre-malware",
    "botnet",
    "rat",
    "banker",
    "backdoor",
    "stealer",
    "ransomware",
    "tool",
];

/// The family in `misp-galaxy:malpedia="QakBot"`.
fn family(tag: &str) -> Option<&str> {
    let (galaxy, family) = tag.strip_prefix("misp-galaxy:")?.split_once('=')?;
    let family = family.trim_matches('"');
    // MITRE's clusters end with an id: `QakBot - S0650`.
    let family = family.split_once(" - S").map_or(family, |(name, _)| name);
    GALAXIES.contains(&galaxy).then_some(family)
}

/// The level in `misp:confidence-level="usually-confident"`, as the numbers of
/// the MISP taxonomy.
fn confidence(tag: &str) -> Option<u8> {
    match tag
        .strip_prefix("misp:confidence-level=")?
        .trim_matches('"')
    {
        "completely-confident" => Some(100),
        "usually-confident" => Some(75),
        "fairly-confident" => Some(50),
        "rarely-confident" => Some(25),
        "unconfident" => Some(0),
        _ => None,
    }
}

enum Value {
    Address(IpNet, Option<u16>),
    Name(DomainName),
}

/// What an attribute lists; nothing for other types.
fn values(attribute: &Attribute<'_>) -> Result<Vec<Value>, String> {
    let text = attribute.value.text();
    let relation = attribute.object_relation.text();
    let kind = attribute.kind.text();
    if relation.starts_with("src") || relation.ends_with("-src") {
        return Ok(Vec::new());
    }
    let address = |text: &str| {
        value::prefix(text)
            .map(|prefix| prefix.net)
            .map_err(|error| format!("{kind}: {error}"))
    };
    let port = |text: &str| {
        value::port(text)
            .map(Some)
            .map_err(|error| format!("{kind}: {error}"))
    };
    let name = |text: &str| {
        text.parse()
            .map_err(|error| format!("{kind}: {}: {error}", quoted(text)))
    };
    // MISP writes `a|b`, older exports `a:b`.
    let pair = || {
        text.split_once('|')
            .or_else(|| text.rsplit_once(':'))
            .ok_or_else(|| format!("{kind}: {} has no |", quoted(text)))
    };
    Ok(match kind {
        "ip-dst" => vec![Value::Address(address(text)?, None)],
        "ip-dst|port" => {
            let (left, right) = pair()?;
            vec![Value::Address(address(left)?, port(right)?)]
        }
        "domain" | "hostname" => vec![Value::Name(name(text)?)],
        "hostname|port" => vec![Value::Name(name(pair()?.0)?)],
        "domain|ip" => {
            let (left, right) = pair()?;
            vec![
                Value::Name(name(left)?),
                Value::Address(address(right)?, None),
            ]
        }
        _ => Vec::new(),
    })
}

/// Destination ports and protocol of an `ip-port` object.
fn limits(attributes: &[&RawValue]) -> Vec<Qualifier> {
    let mut ports = Vec::new();
    let mut protocol = None;
    for attribute in attributes {
        let Ok(attribute) = json::object::<Attribute<'_>>(attribute) else {
            continue;
        };
        if attribute.deleted.is_true() {
            continue;
        }
        match attribute.object_relation.text() {
            "dst-port" => ports.extend(value::port(attribute.value.text())),
            "protocol" => protocol = Protocol::parse(attribute.value.text()),
            _ => {}
        }
    }
    match (ports.is_empty(), protocol) {
        (true, None) => Vec::new(),
        (true, protocol) => vec![Qualifier {
            protocol,
            port: None,
        }],
        (false, protocol) => ports
            .into_iter()
            .map(|port| Qualifier {
                protocol,
                port: Some(port),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(feed: &ParsedFeed) -> Vec<String> {
        let addresses = feed.entries.iter().map(|entry| {
            let Qualifier { protocol, port } = entry.qualifier;
            format!(
                "{} {} {}",
                entry.value,
                protocol.map_or("-".to_owned(), |it| it.to_string()),
                port.map_or("-".to_owned(), |it| it.to_string())
            )
        });
        let names = feed.names.iter().map(|entry| entry.value.to_string());
        addresses.chain(names).collect()
    }

    fn event(inside: &str) -> ParsedFeed {
        parse(format!(r#"{{"Event":{{"uuid":"u","info":"i",{inside}}}}}"#).as_bytes())
    }

    #[test]
    fn only_what_is_marked_for_detection_is_read() {
        let feed = event(
            r#""Tag":[{"name":"tlp:amber"},{"name":"misp-galaxy:malpedia=\"QakBot\""}],
            "Attribute":[
              {"uuid":"a1","type":"ip-dst|port","value":"192.0.2.6|5678","to_ids":true,"timestamp":"1603642920"},
              {"type":"ip-dst","value":"192.0.2.7","to_ids":false},
              {"type":"ip-dst","value":"192.0.2.8","to_ids":"1","deleted":true},
              {"type":"ip-src","value":"192.0.2.9","to_ids":true},
              {"type":"domain|ip","value":"c2.example|192.0.2.10","to_ids":true,"Tag":[{"name":"tlp:red"}]},
              {"type":"ip-dst|port","value":"192.0.2.6","to_ids":true},
              17]"#,
        );
        assert_eq!(
            listing(&feed),
            ["192.0.2.6/32 - 5678", "192.0.2.10/32 - -", "c2.example"]
        );
        let said = &feed.entries[0].said;
        assert_eq!(said.id.as_deref(), Some("a1"));
        assert_eq!(said.reference.as_deref(), Some("u i"));
        assert_eq!(said.malware.as_deref(), Some("QakBot"));
        assert_eq!(said.tlp, Some(Tlp::Amber));
        assert_eq!(said.last_seen, Timestamp::from_second(1_603_642_920).ok());
        assert_eq!(feed.names[0].said.tlp, Some(Tlp::Red));
        assert_eq!(feed.left_out.len(), 3);
        let reasons: Vec<String> = feed
            .problems
            .iter()
            .map(|it| format!("{} {}", it.line, it.reason))
            .collect();
        insta::assert_snapshot!(reasons.join("\n"));
    }

    #[test]
    fn the_ports_of_an_ip_port_object_limit_its_addresses() {
        let feed = event(
            r#""Object":[{"name":"ip-port","Attribute":[
              {"type":"ip-dst","object_relation":"ip","value":"192.0.2.6","to_ids":true},
              {"type":"ip-dst","object_relation":"ip-src","value":"192.0.2.66","to_ids":true},
              {"type":"port","object_relation":"dst-port","value":"443","to_ids":false},
              {"type":"port","object_relation":"dst-port","value":8443,"to_ids":false},
              {"type":"text","object_relation":"protocol","value":"TCP","to_ids":false}]}]"#,
        );
        assert_eq!(
            listing(&feed),
            ["192.0.2.6/32 tcp 443", "192.0.2.6/32 tcp 8443"]
        );
    }

    #[test]
    fn a_search_and_a_list_of_events_are_read() {
        let one =
            r#"{"Event":{"Attribute":[{"type":"hostname","value":"a.example","to_ids":true}]}}"#;
        for text in [
            format!(r#"{{"response":[{one},{one}]}}"#),
            format!("[{one},{one}]"),
        ] {
            assert_eq!(listing(&parse(text.as_bytes())).len(), 2);
        }
        let other = parse(br#"{"errors":["x"]}"#);
        assert!(other.not_this_format.is_some());
    }

    #[test]
    fn a_manifest_names_events_by_uuid_only() {
        let events = manifest(
            br#"{"5cf9f2f3-1b0c-4b5f-9a3e-0a0b0c0d0e0f":{"info":"x","timestamp":"1603642920","Orgc":{"name":"o"}}}"#,
        )
        .unwrap();
        assert_eq!(
            events[0].timestamp,
            Timestamp::from_second(1_603_642_920).ok()
        );
        assert!(manifest(br#"{"../../etc/passwd":{"info":"x"}}"#).is_err());
        assert!(manifest(b"[]").is_err());
    }
}
