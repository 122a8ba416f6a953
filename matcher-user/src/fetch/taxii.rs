//! A TAXII 2.1 server as a feed: discovery, API roots, collections, pages of
//! objects (OASIS TAXII 2.1, sections 4 and 5).
//!
//! Only what was added since the last time is asked for; the copy is one
//! envelope with the last version of every object. What a server deletes is
//! in no answer: once a day everything is read anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    FetchError, FetchState, Place, Staged,
    http::{Body, Client, Question, Reply},
    state::CollectionState,
};
use crate::feeds::{FeedUrl, Remote};

const TAXII: &str = "application/taxii+json;version=2.1";
/// After so long everything is read from the beginning.
const WHOLE: Duration = Duration::from_secs(24 * 3600);
/// Objects that a page may have; servers often give fewer.
const PAGE: &str = "1000";

/// What a server says about itself at any of the addresses that may be
/// configured.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct About {
    default: Option<String>,
    api_roots: Option<Vec<String>>,
    versions: Option<IgnoredAny>,
    collections: Option<Vec<Collection>>,
    id: Option<String>,
    title: Option<String>,
    #[serde(default = "yes")]
    can_read: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(expecting = "a JSON object")]
struct Collection {
    id: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    alias: Option<String>,
    #[serde(default = "yes")]
    can_read: bool,
}

fn yes() -> bool {
    true
}

/// One page. `objects` is left out when there are none.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Envelope<'a> {
    #[serde(default)]
    more: bool,
    #[serde(default)]
    next: Option<String>,
    #[serde(borrow, default)]
    objects: Vec<&'a RawValue>,
}

#[derive(Serialize)]
struct Copy<'a> {
    objects: Vec<&'a RawValue>,
}

/// What tells the versions of an object apart.
#[derive(Deserialize)]
struct Version {
    id: String,
    #[serde(default)]
    modified: Option<String>,
    #[serde(default)]
    created: Option<String>,
}

/// Objects by id, each in its last version.
#[derive(Default)]
struct Objects(BTreeMap<String, (Option<Timestamp>, Box<RawValue>)>);

impl Objects {
    /// Takes up a page. Objects without an id, which no STIX object is, are
    /// left to the parser of the whole to speak of; they have no versions.
    fn add(&mut self, objects: &[&RawValue]) {
        for object in objects {
            let Ok(version) = serde_json::from_str::<Version>(object.get()) else {
                let key = format!("~{}", self.0.len());
                self.0.insert(key, (None, (*object).to_owned()));
                continue;
            };
            let time = version.modified.or(version.created);
            let time: Option<Timestamp> = time.and_then(|it| it.parse().ok());
            let older = self
                .0
                .get(&version.id)
                .is_some_and(|(known, _)| *known > time);
            if !older {
                self.0.insert(version.id, (time, (*object).to_owned()));
            }
        }
    }

    fn envelope(&self) -> Vec<u8> {
        let copy = Copy {
            objects: self.0.values().map(|(_, object)| &**object).collect(),
        };
        // Raw JSON always becomes JSON.
        serde_json::to_vec(&copy).unwrap_or_default()
    }
}

/// Asks the server; `None` when nothing is new. Notes in `state` how far it
/// was read.
pub(super) fn fetch(
    client: &mut Client<'_>,
    remote: &Remote,
    place: &Place,
    state: &mut FetchState,
    now: Timestamp,
) -> Result<Option<Staged>, FetchError> {
    let collections = collections(client, remote)?;
    let known: BTreeSet<&str> = state.collections.iter().map(|it| it.id.as_str()).collect();
    let current: BTreeSet<&str> = collections.iter().map(|(it, _)| it.id.as_str()).collect();
    let before = fs::read(place.copy()).ok();
    let kept = before
        .as_deref()
        .and_then(|bytes| serde_json::from_slice::<Envelope<'_>>(bytes).ok());
    let recent = state
        .whole
        .is_some_and(|whole| whole <= now && now.duration_since(whole).unsigned_abs() < WHOLE);
    let mut objects = Objects::default();
    let goes_on = match kept {
        Some(kept) if recent && known == current => {
            objects.add(&kept.objects);
            true
        }
        _ => false,
    };
    let mut progress = Vec::new();
    for (collection, url) in &collections {
        let since = state
            .collections
            .iter()
            .find(|it| goes_on && it.id == collection.id)
            .map(|it| it.added.clone());
        let added = pages(client, url, since, &mut objects)?;
        if let Some(added) = added {
            progress.push(CollectionState {
                id: collection.id.clone(),
                added,
            });
        }
    }
    state.collections = progress;
    if !goes_on {
        state.whole = Some(now);
    }
    let fresh = objects.envelope();
    if before.is_some_and(|before| before == fresh) {
        return Ok(None);
    }
    Ok(Some(Staged::File(fresh)))
}

/// Reads a collection page by page; gives up to what was added.
fn pages(
    client: &mut Client<'_>,
    url: &FeedUrl,
    since: Option<String>,
    objects: &mut Objects,
) -> Result<Option<String>, FetchError> {
    let mut since = since;
    let mut added = since.clone();
    let mut next: Option<String> = None;
    let mut seen = BTreeSet::new();
    loop {
        let mut query = vec![("limit", PAGE)];
        // Servers want the same filter on every page.
        if let Some(since) = &since {
            query.push(("added_after", since));
        }
        if let Some(next) = &next {
            query.push(("next", next));
        }
        let at = url.with_query(query);
        let body = get(client, &at)?;
        // The address alone does not tell: some servers keep `next` over all
        // pages and move on by themselves.
        let mut page = DefaultHasher::new();
        (at.in_full(), &body.bytes).hash(&mut page);
        if !seen.insert(page.finish()) {
            return Err(FetchError::Answer {
                url: url.to_string(),
                reason: "the server gives the same page again and again".into(),
            });
        }
        let page: Envelope<'_> = read(&body)?;
        objects.add(&page.objects);
        if body.added_last.is_some() {
            added = body.added_last.clone();
        }
        if !page.more {
            return Ok(added);
        }
        // Without `next` one goes on behind what was added last.
        next = page.next.filter(|it| !it.is_empty());
        if next.is_none() {
            since.clone_from(&added);
        }
    }
}

/// Follows whatever address was configured to collections and the addresses
/// of their objects.
fn collections(
    client: &mut Client<'_>,
    remote: &Remote,
) -> Result<Vec<(Collection, FeedUrl)>, FetchError> {
    let start = &remote.url;
    let join = |base: &FeedUrl, path: &str| {
        let url = base.as_folder().join(path);
        url.map_err(|error| FetchError::Answer {
            url: base.to_string(),
            reason: format!("it names {path:?}: {error}"),
        })
    };
    let body = get(client, start)?;
    let about: About = read(&body)?;
    let mut found: Vec<(Collection, FeedUrl)> = Vec::new();
    let mut take = |listed: Vec<Collection>, base: &FeedUrl| -> Result<(), FetchError> {
        for collection in listed {
            let url = join(base, &format!("{}/objects/", collection.id))?;
            found.push((collection, url));
        }
        Ok(())
    };
    if let Some(id) = about.id {
        let collection = Collection {
            id,
            title: about.title.unwrap_or_default(),
            alias: None,
            can_read: about.can_read,
        };
        found.push((collection, join(&body.url, "objects/")?));
    } else if let Some(listed) = about.collections {
        take(listed, &body.url)?;
    } else {
        let roots = if about.versions.is_some() {
            vec![body.url.clone()]
        } else {
            let roots = match (about.default, about.api_roots) {
                (Some(default), _) => vec![default],
                (None, Some(roots)) => roots,
                (None, None) => {
                    return Err(FetchError::Answer {
                        url: start.to_string(),
                        reason: "this is neither the discovery nor an API root nor a collection \
                                 of a TAXII 2.1 server"
                            .into(),
                    });
                }
            };
            roots
                .iter()
                .map(|root| join(&body.url, root))
                .collect::<Result<_, _>>()?
        };
        for root in roots {
            if !root.is_tls() && start.is_tls() {
                return Err(FetchError::PlainRedirect {
                    url: start.to_string(),
                    to: root.to_string(),
                });
            }
            let base = join(&root, "collections/")?;
            let about: About = read(&get(client, &base)?)?;
            take(about.collections.unwrap_or_default(), &base)?;
        }
    }
    let wanted = |collection: &Collection| {
        remote.collections.is_empty()
            || remote.collections.iter().any(|it| {
                *it == collection.id
                    || *it == collection.title
                    || Some(it) == collection.alias.as_ref()
            })
    };
    found.retain(|(collection, _)| collection.can_read && wanted(collection));
    if found.is_empty() {
        return Err(FetchError::Answer {
            url: start.to_string(),
            reason: "no collection there is both configured and readable for us".into(),
        });
    }
    Ok(found)
}

fn get(client: &mut Client<'_>, url: &FeedUrl) -> Result<Body, FetchError> {
    let question = Question {
        url,
        accept: TAXII,
        unless: None,
    };
    match client.get(&question)? {
        Reply::Body(body) => Ok(body),
        // Nobody asked by version; the client reports it.
        Reply::Unchanged => Err(FetchError::Status {
            url: url.to_string(),
            status: 304,
        }),
    }
}

fn read<'b, T: Deserialize<'b>>(body: &'b Body) -> Result<T, FetchError> {
    serde_json::from_slice(&body.bytes).map_err(|error| FetchError::Answer {
        url: body.url.to_string(),
        reason: format!("this is no answer of a TAXII 2.1 server: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn of_several_versions_the_last_is_kept_in_whatever_order_they_come() {
        let old = raw(r#"{"id":"indicator--1","modified":"2026-01-01T00:00:00.000Z","v":1}"#);
        let new = raw(r#"{"id":"indicator--1","modified":"2026-01-02T00:00:00Z","revoked":true}"#);
        let other = raw(r#"{"id":"marking-definition--1","created":"2017-01-20T00:00:00.000Z"}"#);
        for order in [[&*old, &*new, &*other], [&*new, &*other, &*old]] {
            let mut objects = Objects::default();
            objects.add(&order);
            assert_eq!(
                String::from_utf8(objects.envelope()).unwrap(),
                format!(r#"{{"objects":[{},{}]}}"#, new.get(), other.get())
            );
        }
    }
}
