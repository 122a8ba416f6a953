//! A TAXII 2.1 server as a feed: its collections, their pages, and what was
//! added since.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::Result;
use matcher_tests::{
    feed_server::{FeedServer, reply},
    fetching::Fetching,
};
use matcher_user::feeds::Format;

fn indicator(number: u8, modified: u8, more: &str) -> String {
    format!(
        r#"{{"type":"indicator","spec_version":"2.1","id":"indicator--00000000-0000-4000-8000-{number:012}","created":"2026-01-01T00:00:00Z","modified":"2026-01-01T00:00:{modified:02}Z","pattern_type":"stix","valid_from":"2026-01-01T00:00:00Z","pattern":"[ipv4-addr:value = '192.0.2.{number}']"{more}}}"#
    )
}

#[test]
fn a_taxii_collection_is_read_page_by_page_and_then_by_what_was_added() -> Result<()> {
    let server = FeedServer::start()?;
    let json = [("Content-Type", "application/taxii+json;version=2.1")];
    server.on("/taxii2/", move |_, out| {
        reply(out, 200, &json, br#"{"title":"x","api_roots":["/root/"]}"#)
    });
    server.on("/root/collections/", move |_, out| {
        let listed = br#"{"collections":[{"id":"c1","title":"C2","can_read":true},{"id":"c2","title":"no","can_read":false}]}"#;
        reply(out, 200, &json, listed)
    });
    let asks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asks);
    server.on("/root/collections/c1/objects/", move |asked, out| {
        counted.fetch_add(1, Ordering::SeqCst);
        let (date, page) = if asked.target.contains("added_after=2026-01-03") {
            // Nothing new: `objects` is left out.
            return reply(out, 200, &json, b"{}");
        } else if asked.target.contains("added_after=2026-01-02") {
            let revoked = indicator(1, 9, r#","revoked":true"#);
            ("2026-01-03", format!(r#"{{"objects":[{revoked}]}}"#))
        } else if asked.target.contains("next=p2") {
            let last = indicator(2, 1, "");
            (
                "2026-01-02",
                format!(r#"{{"more":false,"objects":[{last}]}}"#),
            )
        } else {
            let first = indicator(1, 1, "");
            (
                "2026-01-01",
                format!(r#"{{"more":true,"next":"p2","objects":[{first}]}}"#),
            )
        };
        let added = format!("{date}T00:00:00.000001Z");
        let headers = [json[0], ("X-TAXII-Date-Added-Last", added.as_str())];
        reply(out, 200, &headers, page.as_bytes())
    });
    let feed = Fetching::new(Format::Taxii, &server.url("/taxii2/"))?;
    feed.new_copy()?;
    assert_eq!(feed.listed()?, ["192.0.2.1/32", "192.0.2.2/32"]);
    assert_eq!(asks.load(Ordering::SeqCst), 2);
    // A revocation on a later page ends what an earlier one said.
    feed.new_copy()?;
    assert_eq!(feed.listed()?, ["192.0.2.2/32"]);
    feed.unchanged()?;
    assert_eq!(asks.load(Ordering::SeqCst), 4);
    let accept = server.last()?.header("accept").map(str::to_owned);
    assert_eq!(
        accept.as_deref(),
        Some("application/taxii+json;version=2.1")
    );

    // A server that never comes to an end.
    server.on("/root/collections/c1/objects/", move |_, out| {
        reply(out, 200, &json, br#"{"more":true,"next":"p2"}"#)
    });
    let error = feed.failure()?.to_string();
    assert!(error.contains("the same page again"), "{error}");
    assert_eq!(feed.listed()?, ["192.0.2.2/32"]);
    Ok(())
}

/// As medallion does.
#[test]
fn a_taxii_server_that_keeps_next_over_all_pages_is_read_to_its_end() -> Result<()> {
    let server = FeedServer::start()?;
    server.on("/c/", |_, out| {
        reply(out, 200, &[], br#"{"id":"c","title":"C2","can_read":true}"#)
    });
    let asks = AtomicUsize::new(0);
    server.on("/c/objects/", move |_, out| {
        let number = u8::try_from(asks.fetch_add(1, Ordering::SeqCst) + 1).unwrap_or(u8::MAX);
        let page = format!(
            r#"{{"more":{},"next":"same","objects":[{}]}}"#,
            number < 5,
            indicator(number, 1, "")
        );
        reply(out, 200, &[], page.as_bytes())
    });
    let feed = Fetching::new(Format::Taxii, &server.url("/c/"))?;
    feed.new_copy()?;
    assert_eq!(feed.listed()?.len(), 5);
    Ok(())
}

#[test]
fn what_is_no_taxii_server_is_told() -> Result<()> {
    let server = FeedServer::start()?;
    server.on("/taxii2/", |_, out| reply(out, 200, &[], b"<html>"));
    let feed = Fetching::new(Format::Taxii, &server.url("/taxii2/"))?;
    let error = feed.failure()?.to_string();
    assert!(error.contains("no answer of a TAXII 2.1 server"), "{error}");
    Ok(())
}
