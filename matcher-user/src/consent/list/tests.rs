use proptest::prelude::*;

use super::*;
use crate::consent::{PortRange, Purpose};

fn read(kind: ListKind, bytes: &[u8]) -> ParsedList {
    ParsedList::read(kind, &Path::new("x.list").into(), bytes)
}

/// Entries and problems, as a person would see them.
fn shown(kind: ListKind, text: &str) -> String {
    let list = read(kind, text.as_bytes());
    let entries = list
        .entries
        .iter()
        .map(|entry| format!("{}: {entry}\n", entry.line));
    let problems = list.problems.iter().map(|problem| format!("{problem}\n"));
    let clean = format!("clean: {}\n", list.is_clean());
    entries.chain(problems).chain([clean]).collect()
}

const EVERY_FORM: &str = "\u{feff}# the list of the contract
203.0.113.7
2001:db8:100::/56              purposes=detect,notify   # default: all purposes

198.51.100.9 ports=1024-2047\r
198.51.100.9 map-e=a:4,k:8,psid:0x34
198.51.100.0/24\u{3000}from=2026-12-01T00:00:00+09:00
";

const EVERY_MISTAKE: &str = "203.0.113
203.0.113.1 purposes=detekt
203.0.113.2 purposes=
203.0.113.3 purpose=detect
203.0.113.4 purposes=detect, notify
203.0.113.5 purposes=detect from=2026-12-01
203.0.113.6 purposes=detect purposes=notify
203.0.113.7 purposes=detect ports=2047-1024
203.0.113.8 purposes=detect map-e=a:15,k:2,psid:0
203.0.113.9/24 purposes=detect
subscriber=cust-4711 from=2026-12-01T00:00:00+09:00
subscriber=
";

#[test]
fn an_opt_out_list_is_read_in_every_form() {
    insta::assert_snapshot!(shown(ListKind::OptOut, EVERY_FORM));
}

#[test]
fn an_opt_in_list_grants_only_what_is_beyond_doubt() {
    insta::assert_snapshot!(shown(ListKind::OptIn, EVERY_FORM));
    insta::assert_snapshot!(shown(ListKind::OptIn, EVERY_MISTAKE));
}

#[test]
fn an_exclusion_holds_for_every_purpose() {
    insta::assert_snapshot!(shown(
        ListKind::Exclusion,
        "203.0.113.0/24 purposes=detect\n203.0.113.7 from=x purposes=notify\n198.51.100.9 ports=5\n"
    ));
}

#[test]
fn a_line_in_doubt_opts_out_of_everything_and_is_reported() {
    insta::assert_snapshot!(shown(ListKind::OptOut, EVERY_MISTAKE));
}

#[test]
fn a_comment_may_be_in_any_character_set() {
    // Shift_JIS: "test", then a name that ends in 0x5c.
    let list = read(
        ListKind::OptOut,
        b"203.0.113.7 # \x83\x65\x83\x58\x83\x67\x95\x5c\n",
    );
    assert!(list.is_clean());
    assert_eq!(list.entries.len(), 1);
    let list = read(ListKind::OptOut, b"203.0.113.7\n\x83\x65 203.0.113.8\n");
    assert!(!list.is_clean());
    assert_eq!((list.entries.len(), list.problems[0].line), (1, 2));
}

#[test]
fn map_e_parameters_are_those_of_the_rfc() {
    let limit = |text| PortLimit::read_map_e(text);
    assert_eq!(
        limit("a:6,k:8,psid:0x34"),
        Some(PortLimit::MapE {
            a: 6,
            k: 8,
            psid: 0x34
        })
    );
    assert_eq!(
        limit("psid:52,k:6,a:4"),
        Some(PortLimit::MapE {
            a: 4,
            k: 6,
            psid: 52
        })
    );
    for wrong in [
        "",
        "a:6,k:8",
        "a:6,k:8,psid:256",
        "a:16,k:0,psid:0",
        "a:9,k:8,psid:0",
        "a:6,k:8,psid:1,x:1",
        "a:6,a:6,k:8,psid:1",
        "a:600,k:8,psid:1",
    ] {
        assert_eq!(limit(wrong), None, "{wrong}");
    }
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let subject = prop_oneof![
        (any::<u32>(), 0u8..=32).prop_map(|(bits, length)| {
            Subject::Prefix(
                IpNet::new(std::net::IpAddr::V4(bits.into()), length)
                    .unwrap()
                    .trunc(),
            )
        }),
        // Not mapped IPv4, which is read as IPv4.
        (any::<u128>(), 1u8..=128).prop_map(|(bits, length)| {
            let ip = std::net::IpAddr::V6((bits | 1 << 127).into());
            Subject::Prefix(IpNet::new(ip, length).unwrap().trunc())
        }),
        "[a-z0-9-]{1,12}".prop_map(|id| Subject::Subscriber(id.into())),
    ];
    let ports = prop_oneof![
        Just(None),
        prop::collection::vec((any::<u16>(), any::<u16>()), 1..4).prop_map(|ranges| {
            let range = |(a, b): (u16, u16)| PortRange {
                first: a.min(b),
                last: a.max(b),
            };
            Some(PortLimit::Ports(ranges.into_iter().map(range).collect()))
        }),
        (0u8..=15, any::<u8>(), any::<u16>()).prop_map(|(a, k, psid)| {
            let k = k % (17 - a);
            let psid = (u32::from(psid) % (1 << k)) as u16;
            Some(PortLimit::MapE { a, k, psid })
        }),
    ];
    let from = prop::option::of((-1_000_000_000i64..4_000_000_000, 0i32..1_000_000_000));
    let space = prop::option::of(any::<u32>());
    (subject, 1u8..32, from, ports, space).prop_map(|(subject, bits, from, ports, space)| Entry {
        space,
        subject,
        purposes: PurposeSet::from_bits(bits),
        from: from.map(|(second, nano)| Timestamp::new(second, nano).unwrap()),
        ports: ports.map(Box::new),
        source: Path::new("x.list").into(),
        line: 1,
    })
}

proptest! {
    #[test]
    fn every_entry_survives_its_text(entry in any_entry()) {
        let list = read(ListKind::OptOut, entry.to_string().as_bytes());
        prop_assert_eq!(list.entries, vec![entry]);
    }

    #[test]
    fn any_bytes_give_a_list(bytes: Vec<u8>) {
        for kind in [ListKind::OptOut, ListKind::OptIn, ListKind::Exclusion] {
            let list = read(kind, &bytes);
            prop_assert!(list.entries.iter().all(|entry| !entry.purposes.is_empty()));
        }
    }

    #[test]
    fn a_readable_subject_is_never_dropped_from_an_opt_out_list(
        options in "[ a-z0-9=,:.-]{0,40}|\\PC{0,40}",
    ) {
        // The comment sign and line ends are the format's own.
        let options = options.replace(['#', '\n'], "");
        let list = read(ListKind::OptOut, format!("203.0.113.7 {options}\n").as_bytes());
        prop_assert_eq!(list.entries.len(), 1);
        if !list.is_clean() {
            prop_assert_eq!(list.entries[0].purposes, PurposeSet::ALL);
            prop_assert_eq!(list.entries[0].from, None);
        }
    }

    #[test]
    fn a_line_that_is_not_clean_grants_nothing(options in "[ a-z0-9=,:.-]{1,40}") {
        let list = read(ListKind::OptIn, format!("203.0.113.7 {options}\n").as_bytes());
        prop_assert!(list.is_clean() || list.entries.is_empty());
    }
}

#[test]
fn purposes_are_read_in_any_case() {
    let list = read(ListKind::OptOut, b"203.0.113.7 purposes=Detect,BLOCK\n");
    let expected = [Purpose::Detect, Purpose::Block].into_iter().collect();
    assert_eq!(list.entries[0].purposes, expected);
}
