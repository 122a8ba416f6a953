//! A feed of MISP: a manifest, and an event a file.

use std::{collections::HashMap, fs, path::Path};

use super::{
    FetchError, Place, Staged, Validators,
    http::{Client, Question, Reply},
};
use crate::feeds::{FeedUrl, ManifestEvent, misp_manifest};

const MANIFEST: &str = "manifest.json";
const JSON: &str = "application/json";

/// Where the manifest is; `None` when the address is that of a single event.
pub(super) fn manifest_url(url: &FeedUrl) -> Option<FeedUrl> {
    let shown = url.to_string();
    if shown.ends_with(&format!("/{MANIFEST}")) {
        return Some(url.clone());
    }
    let is_event = shown.ends_with(".json");
    (!is_event)
        .then(|| url.as_folder().join(MANIFEST).ok())
        .flatten()
}

/// Asks for the manifest and for the events that changed; `None` when the
/// manifest did not.
pub(super) fn fetch(
    client: &mut Client<'_>,
    url: &FeedUrl,
    place: &Place,
    unless: Option<&Validators>,
) -> Result<Option<(Staged, Validators)>, FetchError> {
    let question = Question {
        url,
        accept: JSON,
        unless,
    };
    let manifest = match client.get(&question)? {
        Reply::Unchanged => return Ok(None),
        Reply::Body(body) => body,
    };
    let events = misp_manifest(&manifest.bytes).map_err(|reason| FetchError::Answer {
        url: url.to_string(),
        reason: format!("this is no manifest of a feed of MISP: {reason}"),
    })?;
    if events.is_empty() {
        return Err(FetchError::NotUsable("the manifest lists no event".into()));
    }
    place.tidy();
    let folder = place.new_folder()?;
    let kept = kept(place.copy());
    let keep = |source| FetchError::Keep {
        path: folder.clone(),
        source,
    };
    for ManifestEvent {
        uuid, timestamp, ..
    } in events
    {
        let name = format!("{uuid}.json");
        let unchanged = timestamp.is_some() && kept.get(&uuid) == Some(&timestamp);
        if unchanged && fs::hard_link(place.copy().join(&name), folder.join(&name)).is_ok() {
            continue;
        }
        let at = manifest
            .url
            .join(&name)
            .map_err(|error| FetchError::Answer {
                url: url.to_string(),
                reason: format!("event {name}: {error}"),
            })?;
        let question = Question {
            url: &at,
            accept: JSON,
            unless: None,
        };
        match client.get(&question) {
            Ok(Reply::Body(body)) => {
                fs::write(folder.join(&name), &body.bytes).map_err(keep)?;
            }
            // Nobody asked by version; the client reports it.
            Ok(Reply::Unchanged) => {}
            // Publishers take events away before the manifest says so; the
            // load notes what is missing.
            Err(FetchError::Gone { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    fs::write(folder.join(MANIFEST), &manifest.bytes).map_err(keep)?;
    Ok(Some((Staged::Folder(folder), manifest.validators)))
}

/// The events of the copy and when they had changed.
fn kept(copy: &Path) -> HashMap<String, Option<jiff::Timestamp>> {
    fs::read(copy.join(MANIFEST))
        .ok()
        .and_then(|bytes| misp_manifest(&bytes).ok())
        .unwrap_or_default()
        .into_iter()
        .map(|event| (event.uuid, event.timestamp))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_a_manifest_are_feeds_and_an_event_is_a_file() {
        let of = |url: &str| manifest_url(&url.parse().unwrap()).map(|it| it.to_string());
        let manifest = Some("https://h/feed/manifest.json".to_owned());
        assert_eq!(of("https://h/feed"), manifest);
        assert_eq!(of("https://h/feed/"), manifest);
        assert_eq!(of("https://h/feed/manifest.json"), manifest);
        assert_eq!(of("https://h/feed/0a.json"), None);
    }
}
