//! A feed of MISP: a manifest, and a file for each event in it.

use anyhow::Result;
use matcher_tests::{
    feed_server::{FeedServer, reply},
    fetching::Fetching,
};
use matcher_user::feeds::Format;

const MANIFEST: &str = "/feed/manifest.json";
const EVENT_A: &str = "5f8f2a1e-0000-4000-8000-00000000000a";
const EVENT_B: &str = "5f8f2a1e-0000-4000-8000-00000000000b";

fn event(uuid: &str, address: &str) -> String {
    format!(
        r#"{{"Event":{{"uuid":"{uuid}","info":"x","Attribute":[{{"type":"ip-dst","category":"Network activity","value":"{address}","to_ids":true}}]}}}}"#
    )
}

/// Gives a manifest of these events, which were changed at these times.
fn manifest(server: &FeedServer, version: &str, events: &[(&str, u32)]) {
    let events: Vec<String> = events
        .iter()
        .map(|(uuid, time)| format!(r#""{uuid}":{{"info":"x","timestamp":"{time}"}}"#))
        .collect();
    server.list(MANIFEST, version, format!("{{{}}}", events.join(",")));
}

#[test]
fn of_a_feed_of_misp_only_events_that_changed_are_fetched() -> Result<()> {
    let server = FeedServer::start()?;
    let [a, b] = [EVENT_A, EVENT_B].map(|uuid| format!("/feed/{uuid}.json"));
    manifest(&server, "1", &[(EVENT_A, 1), (EVENT_B, 1)]);
    server.list(&a, "1", event(EVENT_A, "192.0.2.1"));
    server.list(&b, "1", event(EVENT_B, "192.0.2.2"));
    let feed = Fetching::new(Format::Misp, &server.url("/feed/"))?;
    feed.new_copy()?;
    assert_eq!(feed.listed()?, ["192.0.2.1/32", "192.0.2.2/32"]);
    feed.unchanged()?;

    let asked = server.asked().len();
    manifest(&server, "2", &[(EVENT_A, 1), (EVENT_B, 2)]);
    server.list(&b, "2", event(EVENT_B, "192.0.2.3"));
    feed.new_copy()?;
    let paths: Vec<String> = server.asked()[asked..]
        .iter()
        .map(|it| it.target.clone())
        .collect();
    assert_eq!(paths, [MANIFEST, &b]);
    assert_eq!(feed.listed()?, ["192.0.2.1/32", "192.0.2.3/32"]);

    // An event that breaks off: all of the last good feed stays.
    manifest(&server, "3", &[(EVENT_A, 3), (EVENT_B, 3)]);
    server.on(&b, |_, out| reply(out, 500, &[], b"oops"));
    feed.failure()?;
    assert_eq!(feed.listed()?, ["192.0.2.1/32", "192.0.2.3/32"]);

    // An event that is gone: the rest goes on.
    server.on(&b, |_, out| reply(out, 404, &[], b"oops"));
    feed.new_copy()?;
    assert_eq!(feed.listed()?, ["192.0.2.1/32"]);
    Ok(())
}
