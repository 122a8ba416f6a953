//! What holds of every format whatever the bytes, and of what is written and
//! read again.

use proptest::prelude::*;

use super::super::*;
use crate::{
    indicator::{Qualifier, Said},
    protocol::Protocol,
};

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
                    }
                    .into(),
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
            }
            .into(),
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
            .map(|net| FeedEntry { said: listed.clone().into(), ..FeedEntry::bare(net, 0) })
            .collect();
        prop_assert_eq!(feed.entries, numbered(want, 1));
    }
}
