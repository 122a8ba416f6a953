//! The fixtures of every format in their published layouts.

use std::path::PathBuf;

use super::*;

mod properties;

fn fixture(format: Format, file: &str) -> LoadedFeed {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/feeds")
        .join(file);
    let mut feed = LoadedFeed::read(&FeedSource::unnamed(format, path)).unwrap();
    feed.source.path = PathBuf::from(file);
    feed
}

/// Entries one a line, then the problems.
fn listing(feed: &LoadedFeed) -> String {
    let mut said: Vec<String> = feed
        .entries
        .iter()
        .map(|entry| {
            let mut line = format!("{:>3} {}", entry.line, entry.value);
            let mut add = |name: &str, value: Option<String>| {
                if let Some(value) = value {
                    line += &format!(" {name}={value}");
                }
            };
            add("proto", entry.qualifier.protocol.map(|it| it.to_string()));
            add("port", entry.qualifier.port.map(|it| it.to_string()));
            add("id", entry.said.id.as_deref().map(str::to_owned));
            add("malware", entry.said.malware.as_deref().map(str::to_owned));
            add("confidence", entry.said.confidence.map(|it| it.to_string()));
            add("first_seen", entry.said.first_seen.map(|it| it.to_string()));
            add("last_seen", entry.said.last_seen.map(|it| it.to_string()));
            add("from", entry.valid_from.map(|it| it.to_string()));
            add("until", entry.valid_until.map(|it| it.to_string()));
            add("tlp", entry.said.tlp.map(|it| it.to_string()));
            add("see", entry.said.reference.as_deref().map(str::to_owned));
            line
        })
        .collect();
    said.extend(feed.names.iter().map(|entry| {
        let id = entry.said.id.as_deref().unwrap_or("-");
        format!("{:>3} name {} id={id}", entry.line, entry.value)
    }));
    let left_out = feed.left_out.iter();
    said.extend(left_out.map(|it| format!("left out: {} x {}", it.records, it.reason)));
    said.extend(feed.problem_lines());
    said.extend(
        feed.usable(DEFAULT_MAX_BAD_SHARE)
            .err()
            .map(|error| error.to_string()),
    );
    said.join("\n")
}

#[test]
fn feodo_fixtures_read_the_same_in_every_layout() {
    let quoted = fixture(Format::FeodoCsv, "feodo.csv");
    insta::assert_snapshot!("feodo", listing(&quoted));
    let unquoted = fixture(Format::FeodoCsv, "feodo-unquoted.csv");
    assert_eq!(unquoted.problems, []);
    assert_eq!(unquoted.entries, quoted.entries);
    let crlf: Vec<FeedEntry> = fixture(Format::FeodoCsv, "feodo-crlf-bom.csv").entries;
    assert_eq!(crlf, quoted.entries);
}

#[test]
fn broken_feodo_fixtures_say_what_is_wrong() {
    insta::assert_snapshot!(
        "feodo_broken_rows",
        listing(&fixture(Format::FeodoCsv, "feodo-broken-rows.csv"))
    );
    insta::assert_snapshot!(
        "feodo_no_header",
        listing(&fixture(Format::FeodoCsv, "feodo-no-header.csv"))
    );
    insta::assert_snapshot!(
        "sslbl_deprecated",
        listing(&fixture(Format::FeodoCsv, "sslbl-deprecated.csv"))
    );
    insta::assert_snapshot!(
        "error_page",
        listing(&fixture(Format::FeodoCsv, "error-page.html"))
    );
}

#[test]
fn drop_fixtures_are_read_in_all_three_layouts() {
    insta::assert_snapshot!(
        "drop_v4",
        listing(&fixture(Format::SpamhausDrop, "drop_v4.json"))
    );
    insta::assert_snapshot!(
        "drop_v6",
        listing(&fixture(Format::SpamhausDrop, "drop_v6.json"))
    );
    insta::assert_snapshot!(
        "drop_text",
        listing(&fixture(Format::SpamhausDrop, "drop.txt"))
    );
}

#[test]
fn a_drop_file_that_was_cut_off_says_so() {
    insta::assert_snapshot!(
        "drop_cut_off",
        listing(&fixture(Format::SpamhausDrop, "drop_v4-cut-off.json"))
    );
}

#[test]
fn plain_fixtures_are_read_and_their_bad_lines_named() {
    insta::assert_snapshot!("plain", listing(&fixture(Format::Plain, "plain.txt")));
    insta::assert_snapshot!(
        "plain_broken",
        listing(&fixture(Format::Plain, "plain-broken.txt"))
    );
}

#[test]
fn the_feodo_json_fixture_is_read() {
    let feed = fixture(Format::FeodoJson, "feodo.json");
    insta::assert_snapshot!("feodo_json", listing(&feed));
}

#[test]
fn threatfox_fixtures_are_read_old_and_new_csv_export_and_api() {
    let csv = fixture(Format::ThreatfoxCsv, "threatfox.csv");
    insta::assert_snapshot!("threatfox_csv", listing(&csv));
    insta::assert_snapshot!(
        "threatfox_csv_14_columns",
        listing(&fixture(Format::ThreatfoxCsv, "threatfox-14-columns.csv"))
    );
    let export = fixture(Format::ThreatfoxJson, "threatfox-export.json");
    insta::assert_snapshot!("threatfox_export", listing(&export));
    let api = fixture(Format::ThreatfoxJson, "threatfox-api.json");
    assert_eq!(api.problems, []);
    assert_eq!(api.entries[0].said, csv.entries[0].said);
    assert_eq!(api.entries[0].said, export.entries[0].said);
}

#[test]
fn the_netset_fixture_is_read_and_its_bogons_are_refused() {
    let mut feed = fixture(Format::Netset, "firehol.netset");
    assert_eq!(feed.entries.len(), 6);
    feed.guard(&Guards::default());
    insta::assert_snapshot!("netset", listing(&feed));
}

#[test]
fn the_dshield_fixture_is_read() {
    insta::assert_snapshot!("dshield", listing(&fixture(Format::Dshield, "dshield.txt")));
}

#[test]
fn the_et_block_fixture_is_read_without_its_dshield_part() {
    insta::assert_snapshot!(
        "et_block",
        listing(&fixture(Format::EtBlock, "emerging-block.txt"))
    );
}

#[test]
fn the_sslbl_fixture_is_read_and_the_deprecated_one_is_no_list() {
    insta::assert_snapshot!("sslbl", listing(&fixture(Format::SslblCsv, "sslbl.csv")));
    insta::assert_snapshot!(
        "sslbl_csv_deprecated",
        listing(&fixture(Format::SslblCsv, "sslbl-deprecated.csv"))
    );
}

#[test]
fn cymru_fixtures_of_both_layouts_are_read() {
    insta::assert_snapshot!("cymru", listing(&fixture(Format::Cymru, "cymru.txt")));
    insta::assert_snapshot!(
        "cymru_2017",
        listing(&fixture(Format::Cymru, "cymru-2017.txt"))
    );
}

#[test]
fn the_rpz_fixture_is_read_as_names() {
    insta::assert_snapshot!("rpz", listing(&fixture(Format::Rpz, "urlhaus.rpz")));
}

#[test]
fn misp_files_written_by_pymisp_are_read_without_loss() {
    let event = fixture(Format::Misp, "misp-event.json");
    insta::assert_snapshot!("misp_event", listing(&event));
    // The same event in the layout of a feed, beside another one.
    let whole = fixture(Format::Misp, "misp-feed");
    assert_eq!(whole.problems, []);
    assert_eq!(whole.parts.len(), 3, "two events and the manifest");
    let said = |feed: &LoadedFeed| -> Vec<(IpNet, Qualifier, Brief)> {
        let first = feed.entries.iter().filter(|entry| entry.part == 0);
        first
            .map(|it| (it.value, it.qualifier, it.said.clone()))
            .collect()
    };
    let ids = |feed: &LoadedFeed| -> Vec<(IpNet, Qualifier)> {
        said(feed)
            .into_iter()
            .map(|(value, it, _)| (value, it))
            .collect()
    };
    assert_eq!(ids(&whole), ids(&event));
    assert_eq!(whole.entries.len(), event.entries.len() + 1);
    let manifest = std::fs::read(whole.parts.last().unwrap()).unwrap();
    let manifest = misp_manifest(&manifest).unwrap();
    assert_eq!(manifest.len(), 2);
}

#[test]
fn stix_files_written_by_stix2_are_read_without_loss() {
    insta::assert_snapshot!("stix", listing(&fixture(Format::Stix, "stix-bundle.json")));
    // What a TAXII server sends page by page says the same.
    let bundle = fixture(Format::Stix, "stix-bundle.json");
    let pages = fixture(Format::Taxii, "taxii-pages.json");
    assert_eq!(pages.problems, []);
    let said = |feed: &LoadedFeed| -> Vec<(IpNet, Qualifier, Brief)> {
        feed.entries
            .iter()
            .map(|it| (it.value, it.qualifier, it.said.clone()))
            .collect()
    };
    assert_eq!(said(&pages), said(&bundle));
    assert_eq!(pages.names.len(), bundle.names.len());
}

#[test]
fn an_entry_stays_small() {
    // A million entries of a bulk list must fit beside everything else.
    assert!(size_of::<FeedEntry>() <= 88, "{}", size_of::<FeedEntry>());
}

#[test]
fn a_page_of_taxii_without_objects_is_no_error_of_its_own() {
    let feed = parse(Format::Taxii, b"{}\n{\"more\":false}\n");
    assert_eq!((feed.data_lines, feed.not_this_format), (0, None));
}
