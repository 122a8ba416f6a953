//! Properties of every format, and the fixtures in their published layouts.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::{
    indicator::{Qualifier, Said},
    protocol::Protocol,
};

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
    let said = |feed: &LoadedFeed| -> Vec<(IpNet, Qualifier, Said)> {
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
    let said = |feed: &LoadedFeed| -> Vec<(IpNet, Qualifier, Said)> {
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
    assert!(size_of::<FeedEntry>() <= 192, "{}", size_of::<FeedEntry>());
}

#[test]
fn a_page_of_taxii_without_objects_is_no_error_of_its_own() {
    let feed = parse(Format::Taxii, b"{}\n{\"more\":false}\n");
    assert_eq!((feed.data_lines, feed.not_this_format), (0, None));
}

fn any_format() -> impl Strategy<Value = Format> {
    prop::sample::select(Format::ALL.to_vec())
}

/// Formats of one value a line.
fn line_format() -> impl Strategy<Value = Format> {
    prop::sample::select(vec![
        Format::Plain,
        Format::FeodoCsv,
        Format::SpamhausDrop,
        Format::Netset,
        Format::EtBlock,
    ])
}

/// Bytes that get further into the parsers than noise does.
fn feed_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "192.0.2.7",
        "2001:db8::7",
        "[2001:db8::7]",
        "/24",
        "/",
        ":443",
        ":",
        ",",
        "\"",
        "'",
        " ",
        "\t",
        "\n",
        "\r\n",
        "#",
        ";",
        "{\"cidr\":\"",
        "\"}",
        "{\"type\":\"metadata\"",
        "}",
        ",\"records\":3",
        "dst_ip,dst_port,malware",
        "port=",
        "proto=tcp",
        "from=",
        "until=",
        "2026-12-01T00:00:00Z",
        "2024-04-04 07:03:03",
        "malware=",
        "# END 3 entries",
        "\u{feff}",
        "é",
        "\0",
        "99999999999999999999",
        "[",
        "]",
        "null",
        "true",
        "{\"Event\":{\"Attribute\":[",
        "{\"type\":\"ip-dst\",\"to_ids\":true,\"value\":\"192.0.2.7\"}",
        "{\"type\":\"bundle\",\"objects\":[",
        "{\"type\":\"indicator\",\"id\":\"i\",\"pattern\":\"[ipv4-addr:value = '192.0.2.7']\"}",
        "{\"1\":[{\"ioc_value\":\"192.0.2.7:80\",\"ioc_type\":\"ip:port\",\"threat_type\":\"botnet_cc\"}",
        "{\"ip_address\":\"192.0.2.7\",\"port\":443}",
        "ioc_value,ioc_type,threat_type\n",
        "192.0.2.7:80,ip:port,botnet_cc\n",
        "category|address|optional_information\n",
        "controller|192.0.2.7|\n",
        "Start\tEnd\tNetblock\n192.0.2.0\t192.0.2.255\t24\n",
        "c2.example CNAME .",
        "$ORIGIN",
        "(",
        ")",
    ]);
    prop::collection::vec(
        prop_oneof![
            8 => piece.prop_map(|text| text.as_bytes().to_vec()),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
        ],
        0..60,
    )
    .prop_map(|pieces| pieces.concat())
}

/// What holds for every file.
fn check_any(format: Format, bytes: &[u8]) -> Result<(), TestCaseError> {
    let feed = parse(format, bytes);
    let bad = feed
        .problems
        .iter()
        .filter(|problem| problem.kind == ProblemKind::Bad)
        .count();
    let lines = bytes.split(|byte| *byte == b'\n').count() as u32;
    let left_out: usize = feed.left_out.iter().map(|it| it.records as usize).sum();
    let read = feed.entries.len() + feed.names.len() + bad + left_out;
    if feed.not_this_format.is_none() {
        // Every record became something; records of some formats more than one.
        prop_assert!(
            feed.data_lines as usize <= read,
            "{} {read}",
            feed.data_lines
        );
    }
    for entry in &feed.entries {
        prop_assert_eq!(entry.value, entry.value.trunc());
        prop_assert!((1..=lines).contains(&entry.line));
        prop_assert_ne!(entry.qualifier.port, Some(0));
        prop_assert!(
            entry
                .said
                .malware
                .as_ref()
                .is_none_or(|name| !name.is_empty())
        );
        prop_assert!(entry.said.confidence.is_none_or(|percent| percent <= 100));
        if let (Some(from), Some(until)) = (entry.valid_from, entry.valid_until) {
            prop_assert!(from < until);
        }
    }
    for problem in &feed.problems {
        prop_assert!((1..=lines).contains(&problem.line));
        prop_assert!(!problem.reason.contains('\n'));
        prop_assert!(problem.reason.len() < 1000);
    }
    Ok(())
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    (0i64..4_000_000_000).prop_map(|second| Timestamp::from_second(second).unwrap())
}

fn any_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0u8..=32)
            .prop_map(|(bits, len)| IpNet::new(std::net::Ipv4Addr::from(bits).into(), len)),
        (any::<u128>(), 0u8..=128)
            .prop_map(|(bits, len)| IpNet::new(std::net::Ipv6Addr::from(bits).into(), len)),
    ]
    .prop_map(|net| net.unwrap().trunc())
}

/// Names as feeds have them, blanks, quotes and comment marks included.
fn any_name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9][A-Za-z0-9 ;#'.,é=-]{0,11}[A-Za-z0-9]"
        .prop_filter("that is how feeds write nothing", |name| {
            !name.eq_ignore_ascii_case("none")
        })
}

fn plain_entry() -> impl Strategy<Value = FeedEntry> {
    let times = (
        prop::option::of(any_time()),
        prop::option::of(1i64..100_000_000),
    );
    let qualifier = (prop::option::of(1u16..), any::<u8>(), any::<bool>());
    (
        any_net(),
        qualifier,
        prop::option::of(any_name()),
        prop::option::of(0u8..=100),
        times,
    )
        .prop_map(
            |(value, (port, number, named), malware, confidence, (from, seconds))| {
                let protocol = named.then_some(if port.is_some() {
                    Protocol::UDP
                } else {
                    Protocol(number)
                });
                FeedEntry {
                    qualifier: Qualifier { protocol, port },
                    said: Said {
                        malware: malware.map(Into::into),
                        confidence,
                        ..Said::default()
                    },
                    valid_from: from,
                    valid_until: seconds.map(|seconds| {
                        from.unwrap_or_default() + jiff::SignedDuration::from_secs(seconds)
                    }),
                    ..FeedEntry::bare(value, 0)
                }
            },
        )
}

/// Writes an entry as format `plain` has it.
fn plain_line(entry: &FeedEntry) -> String {
    let mut line = entry.value.to_string();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            line += &format!(" {key}={value}");
        }
    };
    add("port", entry.qualifier.port.map(|it| it.to_string()));
    add("proto", entry.qualifier.protocol.map(|it| it.to_string()));
    add(
        "malware",
        entry.said.malware.as_ref().map(|it| format!("\"{it}\"")),
    );
    add("confidence", entry.said.confidence.map(|it| it.to_string()));
    add("from", entry.valid_from.map(|it| it.to_string()));
    add("until", entry.valid_until.map(|it| it.to_string()));
    line
}

fn host_entry() -> impl Strategy<Value = FeedEntry> {
    let host = any::<u32>().prop_map(|bits| IpNet::from(std::net::IpAddr::V4(bits.into())));
    let times = (prop::option::of(any_time()), prop::option::of(0i64..40_000));
    (host, 1u16.., prop::option::of(any_name()), times).prop_map(
        |(value, port, malware, (first_seen, day))| FeedEntry {
            qualifier: Qualifier {
                protocol: None,
                port: Some(port),
            },
            said: Said {
                malware: malware.map(Into::into),
                first_seen,
                last_seen: day.map(|day| Timestamp::from_second(day * 86_400).unwrap()),
                ..Said::default()
            },
            ..FeedEntry::bare(value, 0)
        },
    )
}

/// Writes a Feodo Tracker file with its columns in the order given.
fn feodo_file(entries: &[FeedEntry], order: &[usize], quote: bool) -> String {
    let line = |fields: [String; 6]| {
        let fields: Vec<String> = order
            .iter()
            .map(|&column| &fields[column])
            // A comma cannot stand in a field without quotes.
            .map(|field| {
                if quote || field.contains(',') {
                    format!("\"{field}\"")
                } else {
                    field.clone()
                }
            })
            .collect();
        fields.join(",")
    };
    let header = [
        "first_seen_utc",
        "dst_ip",
        "dst_port",
        "c2_status",
        "last_online",
        "malware",
    ];
    let mut lines = vec!["# banner".to_owned(), line(header.map(str::to_owned))];
    lines.extend(entries.iter().map(|entry| {
        let time = |time: Option<Timestamp>, layout: &str| {
            time.map_or(String::new(), |time| time.strftime(layout).to_string())
        };
        line([
            time(entry.said.first_seen, "%Y-%m-%d %H:%M:%S"),
            entry.value.addr().to_string(),
            entry.qualifier.port.unwrap().to_string(),
            "online".to_owned(),
            time(entry.said.last_seen, "%Y-%m-%d"),
            entry.said.malware.as_deref().unwrap_or_default().to_owned(),
        ])
    }));
    lines.push(format!("# END {} entries", entries.len()));
    lines.join("\n")
}

/// Numbers the entries as lines that follow each other.
fn numbered(mut entries: Vec<FeedEntry>, first: u32) -> Vec<FeedEntry> {
    for (line, entry) in (first..).zip(&mut entries) {
        entry.line = line;
    }
    entries
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(format in any_format(), bytes: Vec<u8>) {
        check_any(format, &bytes)?;
    }

    #[test]
    fn any_torn_feed_gives_an_answer(format in any_format(), bytes in feed_like()) {
        check_any(format, &bytes)?;
    }

    #[test]
    fn a_bad_line_never_changes_what_the_others_say(
        format in line_format(), junk in feed_like(), good in prop::collection::vec(host_entry(), 1..8),
        place in any::<prop::sample::Index>(),
    ) {
        // One line, which no format takes for an entry, a header or a comment.
        let mut junk = junk;
        junk.retain(|byte| *byte != b'\n');
        junk.insert(0, b'!');
        let text = match format {
            Format::FeodoCsv => feodo_file(&good, &[0, 1, 2, 3, 4, 5], true),
            Format::Plain => good.iter().map(plain_line).collect::<Vec<_>>().join("\n"),
            _ => good.iter().map(|entry| entry.value.to_string()).collect::<Vec<_>>().join("\n"),
        };
        let values = |bytes: &[u8]| -> Vec<IpNet> {
            parse(format, bytes).entries.iter().map(|entry| entry.value).collect()
        };
        let mut lines: Vec<&[u8]> = text.split('\n').map(str::as_bytes).collect();
        let before = values(&lines.join(&b'\n'));
        prop_assert_eq!(before.len(), good.len());
        // Behind the header, without which there is no list.
        let first = if format == Format::FeodoCsv { 2 } else { 0 };
        let place = first + place.index(lines.len() - first);
        if !String::from_utf8_lossy(&junk).to_ascii_lowercase().contains("dst_ip") {
            lines.insert(place, &junk);
            prop_assert_eq!(values(&lines.join(&b'\n')), before);
        }
    }

    #[test]
    fn plain_files_round_trip(entries in prop::collection::vec(plain_entry(), 0..20)) {
        let entries = numbered(entries, 1);
        let text: Vec<String> = entries.iter().map(plain_line).collect();
        let feed = parse(Format::Plain, text.join("\n").as_bytes());
        prop_assert_eq!(feed.problems, []);
        prop_assert_eq!(feed.entries, entries);
    }

    #[test]
    fn feodo_files_round_trip_in_any_column_order(
        entries in prop::collection::vec(host_entry(), 0..20),
        order in Just(vec![0, 1, 2, 3, 4, 5]).prop_shuffle(),
        quote: bool,
    ) {
        let entries = numbered(entries, 3);
        let feed = parse(Format::FeodoCsv, feodo_file(&entries, &order, quote).as_bytes());
        prop_assert_eq!(feed.problems, []);
        prop_assert_eq!(feed.entries, entries);
    }

    #[test]
    fn drop_files_round_trip(nets in prop::collection::vec(any_net(), 0..20), json: bool) {
        let mut text = String::new();
        for net in &nets {
            text += &if json {
                format!("{{\"cidr\":\"{net}\",\"sblid\":\"SBL1\",\"rir\":\"apnic\"}}\n")
            } else {
                format!("{net} ; SBL1\n")
            };
        }
        if json {
            text += &format!("{{\"type\":\"metadata\",\"records\":{}}}\n", nets.len());
        }
        let feed = parse(Format::SpamhausDrop, text.as_bytes());
        prop_assert_eq!(feed.problems, []);
        let listed = Said { id: Some("SBL1".into()), ..Said::default() };
        let want = nets
            .into_iter()
            .map(|net| FeedEntry { said: listed.clone(), ..FeedEntry::bare(net, 0) })
            .collect();
        prop_assert_eq!(feed.entries, numbered(want, 1));
    }
}
