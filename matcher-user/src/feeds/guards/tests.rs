//! Each guard by itself.

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::*;
use crate::threads::LONG;

fn entry(value: &str) -> FeedEntry {
    FeedEntry::bare(value.parse().unwrap(), 1)
}

fn judge(guards: &Guards, value: &str) -> Option<String> {
    guards
        .apply(&mut vec![entry(value)])
        .pop()
        .map(|problem| problem.reason)
}

fn refusals(guards: &Guards, values: &[&str]) -> String {
    let said = values
        .iter()
        .map(|value| judge(guards, value).expect(value));
    said.collect::<Vec<String>>().join("\n")
}

#[test]
fn bogons_and_what_overlaps_them_are_refused() {
    insta::assert_snapshot!(refusals(
        &Guards::default(),
        &[
            "0.0.0.0/32",
            "10.1.2.3/32",
            "100.64.0.0/10",
            "100.127.255.255/32",
            "127.0.0.1/32",
            "169.254.1.1/32",
            "172.16.0.0/12",
            "172.31.255.255/32",
            "192.0.0.8/32",
            "192.168.0.0/24",
            "224.0.0.1/32",
            "239.0.0.0/8",
            "240.0.0.1/32",
            "255.255.255.255/32",
            "192.0.0.0/16",
            "100.0.0.0/8",
            "0.0.0.0/0",
            "::/0",
            "::/128",
            "::1/128",
            "::ffff:192.0.2.7/128",
            "64:ff9b::c000:207/128",
            "fe80::1/128",
            "fc00::/7",
            "fd12::1/128",
            "ff02::1/128",
            "f000::/4",
            "4000::/32",
            "100::/64",
            "5f00::/16",
        ],
    ));
}

#[test]
fn neighbours_of_bogons_and_documentation_ranges_are_let_through() {
    for value in [
        "1.2.0.0/24",
        "9.255.255.255/32",
        "11.0.0.0/32",
        "100.63.255.255/32",
        "100.128.0.0/16",
        "126.255.255.255/32",
        "128.0.0.0/16",
        "169.253.0.0/16",
        "172.15.0.0/16",
        "172.32.0.0/16",
        "192.0.1.0/24",
        "192.167.0.0/16",
        "192.169.0.0/16",
        "223.255.255.255/32",
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "198.18.0.0/15",
        "2001:db8::/32",
        "2001:678:254::/48",
        "3fff::1/128",
    ] {
        assert_eq!(judge(&Guards::default(), value), None, "{value}");
    }
}

#[test]
fn wide_prefixes_are_refused_up_to_the_limit() {
    let guards = Guards::default();
    assert_eq!(judge(&guards, "16.0.0.0/12"), None);
    assert_eq!(judge(&guards, "2a00::/24"), None);
    insta::assert_snapshot!(refusals(&guards, &["16.0.0.0/11", "2a00::/23"]));
}

#[test]
fn own_space_is_refused_from_either_side() {
    let guards = Guards {
        own_prefixes: ["203.0.113.0/24", "203.0.113.128/25", "2001:db8:100::/40"]
            .map(|own| own.parse().unwrap())
            .to_vec(),
        ..Guards::default()
    };
    for value in [
        "203.0.112.0/32",
        "203.0.114.0/32",
        "2001:db8::/40",
        "2001:db8:200::1/128",
    ] {
        assert_eq!(judge(&guards, value), None, "{value}");
    }
    insta::assert_snapshot!(refusals(
        &guards,
        &[
            "203.0.113.7/32",
            "203.0.113.0/24",
            "203.0.0.0/16",
            "2001:db8::/32",
            "2001:db8:100::1/128"
        ],
    ));
}

#[test]
fn private_space_can_be_allowed_and_shared_space_not() {
    let guards = Guards {
        allow_private: true,
        ..Guards::default()
    };
    for value in [
        "10.0.0.1/32",
        "172.16.5.0/24",
        "192.168.1.1/32",
        "fd00::1/128",
    ] {
        assert_eq!(judge(&guards, value), None, "{value}");
    }
    for value in ["100.64.0.1/32", "127.0.0.1/32", "fe80::1/128"] {
        assert!(judge(&guards, value).is_some(), "{value}");
    }
}

#[test]
fn doubtful_entries_are_refused_and_unrated_ones_not() {
    let guards = Guards {
        min_confidence: Some(50),
        ..Guards::default()
    };
    let judge = |confidence| {
        guards
            .apply(&mut vec![FeedEntry {
                said: Said {
                    confidence,
                    ..Said::default()
                }
                .into(),
                ..entry("192.0.2.7/32")
            }])
            .pop()
    };
    assert_eq!(judge(None), None);
    assert_eq!(judge(Some(50)), None);
    insta::assert_snapshot!(
        judge(Some(49)).unwrap().reason,
        @"192.0.2.7 has confidence 49, below the 50 that this configuration asks for"
    );
}

#[test]
fn shared_services_are_never_matched_from_either_side() {
    let guards = Guards {
        allow: [
            ("198.51.100.0/24", "a partner's CDN"),
            ("update.example", "software updates"),
        ]
        .map(|(value, reason)| Allowed {
            value: value.parse().unwrap(),
            reason: reason.to_owned(),
        })
        .to_vec(),
        ..Guards::default()
    };
    assert_eq!(judge(&guards, "8.8.8.9/32"), None);
    insta::assert_snapshot!(refusals(
        &guards,
        &[
            "8.8.8.8/32",
            "8.8.8.0/24",
            "2001:4860:4860::8888/128",
            "198.41.0.4/32",
            "198.51.100.7/32",
            "198.51.0.0/16",
        ],
    ));
    let mut names: Vec<FeedEntry<DomainName>> = [
        "update.example",
        "a.update.example",
        "*.update.example",
        "c2.example",
    ]
    .map(|name| FeedEntry::bare(name.parse().unwrap(), 1))
    .to_vec();
    assert_eq!(guards.apply_to_names(&mut names).len(), 3);
    assert_eq!(names[0].value.as_str(), "c2.example");
    let off = Guards {
        never_match_defaults: false,
        ..Guards::default()
    };
    assert_eq!(judge(&off, "8.8.8.8/32"), None);
}

#[test]
fn a_stored_hit_is_judged_by_its_indicator_as_it_is_written() {
    let guards = Guards {
        allow: vec![Allowed {
            value: "198.51.100.7".parse().unwrap(),
            reason: "a partner".to_owned(),
        }],
        ..Guards::default()
    };
    let never = guards.never_matched();
    for value in [
        "198.51.100.7",
        "198.51.100.0/24",
        "8.8.8.8",
        "2606:4700:4700::1111",
    ] {
        assert!(never.overlaps_text(value), "{value}");
        // The same word as at a load.
        let prefix = value
            .parse::<IpNet>()
            .or_else(|_| value.parse::<IpAddr>().map(IpNet::from));
        let prefix = prefix.unwrap_or_else(|_| panic!("{value}"));
        assert!(judge(&guards, &prefix.to_string()).is_some(), "{value}");
    }
    for value in ["198.51.100.8", "198.51.101.0/24", "c2.example", ""] {
        assert!(!never.overlaps_text(value), "{value}");
    }
}

#[test]
fn the_shipped_list_holds_no_address_twice() {
    let mut addresses: Vec<IpAddr> = NEVER_MATCH.iter().map(|(address, _)| *address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), NEVER_MATCH.len());
}

#[test]
fn a_long_list_is_judged_as_its_entries_one_by_one_are() {
    let guards = Guards::default();
    // Some in 10.0.0.0/8, at both ends of each half among them.
    let is_private = |at: u32| at.is_multiple_of(7) || at == LONG as u32 - 1;
    let mut entries: Vec<FeedEntry> = (0..LONG as u32)
        .map(|at| {
            let first = if is_private(at) { 10 } else { 5 };
            let [_, b, c, d] = at.to_be_bytes();
            entry(&format!("{first}.{b}.{c}.{d}/32"))
        })
        .zip(1..)
        .map(|(entry, line)| FeedEntry { line, ..entry })
        .collect();
    let mut said = Vec::new();
    let mut kept = Vec::new();
    for entry in &entries {
        let mut alone = vec![entry.clone()];
        said.extend(guards.apply(&mut alone));
        kept.extend(alone);
    }
    assert!(guards.apply(&mut entries) == said);
    assert!(said.len() > LONG / 7 && entries == kept);
}

#[test]
fn own_space_is_matched_only_where_a_person_confirmed_the_very_entry() {
    let guards = Guards {
        own_prefixes: vec!["203.0.113.0/24".parse().unwrap()],
        confirmed: vec![Confirmed {
            value: "203.0.113.66/32".parse().unwrap(),
            by: "A. Person".to_owned(),
            reason: "seen in the sandbox".to_owned(),
            at: "2026-11-20T01:00:00Z".parse().unwrap(),
        }],
        ..Guards::default()
    };
    let mut entries = vec![entry("203.0.113.66/32"), entry("203.0.113.64/30")];
    let said = guards.apply(&mut entries);
    assert_eq!(entries, [entry("203.0.113.66/32")]);
    let said: Vec<(ProblemKind, &str)> = said
        .iter()
        .map(|it| (it.kind, it.reason.as_str()))
        .collect();
    insta::assert_debug_snapshot!(said);
}

#[test]
fn entries_seen_too_long_ago_are_refused_and_undated_ones_not() {
    let guards = Guards {
        max_age: Some(Duration::from_secs(30 * 24 * 60 * 60)),
        now: Some("2026-11-22T00:00:00Z".parse().unwrap()),
        ..Guards::default()
    };
    let seen = |last: Option<&str>, first: Option<&str>| {
        let mut entry = entry("192.0.2.7/32");
        entry.said.last_seen = last.map(|time| time.parse().unwrap());
        entry.said.first_seen = first.map(|time| time.parse().unwrap());
        guards.apply(&mut vec![entry]).pop().map(|it| it.reason)
    };
    assert_eq!(seen(None, None), None);
    assert_eq!(
        seen(Some("2026-10-23T00:00:00Z"), Some("2020-01-01T00:00:00Z")),
        None
    );
    insta::assert_snapshot!(
        seen(None, Some("2026-10-22T23:59:59Z")).unwrap(),
        @"192.0.2.7 was last seen at 2026-10-22T23:59:59Z, longer ago than the 30 days that this configuration allows"
    );
    // A feed may have an age of its own.
    let own = guards.for_feed(&FeedPolicy {
        max_age: Some(Duration::from_secs(60)),
        ..FeedPolicy::default()
    });
    assert_eq!(own.max_age, Some(Duration::from_secs(60)));
}

#[test]
fn no_guards_refuse_nothing() {
    for value in [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.1/32",
        "127.0.0.1/32",
        "ff02::1/128",
        "8.8.8.8/32",
    ] {
        assert_eq!(judge(&Guards::none(), value), None, "{value}");
    }
}

#[test]
fn refusals_keep_the_order_and_the_lines() {
    let at = |line, value: &str| FeedEntry {
        line,
        ..entry(value)
    };
    let mut entries = vec![
        at(3, "10.0.0.1/32"),
        at(5, "192.0.2.1/32"),
        at(9, "127.0.0.1/32"),
    ];
    let refused = Guards::default().apply(&mut entries);
    assert_eq!(entries, [at(5, "192.0.2.1/32")]);
    assert_eq!(
        refused
            .iter()
            .map(|problem| problem.line)
            .collect::<Vec<_>>(),
        [3, 9]
    );
}

#[test]
fn a_list_that_lost_too_much_is_held_back_and_a_tiny_one_is_not() {
    assert_eq!(
        shrunk(1000, 499, 0.5),
        Some(Shrunk {
            previous: 1000,
            now: 499
        })
    );
    assert_eq!(shrunk(1000, 500, 0.5), None);
    assert_eq!(shrunk(1000, 2000, 0.5), None);
    assert_eq!(shrunk(0, 3, 0.5), None);
    assert_eq!(shrunk(TINY_LIST, 1, 0.5), None);
    assert!(shrunk(TINY_LIST + 1, 1, 0.5).is_some());
    assert!(shrunk(3, 0, 0.0).is_some());
    assert_eq!(shrunk(0, 0, 1.0), None);
    insta::assert_snapshot!(
        shrunk(1000, 12, 0.5).unwrap(),
        @"held back, the last good list stays: 12 entries now, 1000 before"
    );
}

fn any_net() -> impl Strategy<Value = IpNet> {
    // Few bits of freedom, so that prefixes meet.
    prop_oneof![
        (0u32..64, 26u8..=32).prop_map(|(host, len)| Ipv4Net::new(
            (0xcb00_7100 + host).into(),
            len
        )
        .unwrap()
        .into()),
        (0u128..64, 122u8..=128).prop_map(|(host, len)| Ipv6Net::new(
            (0x2001_0db8 << 96 | host).into(),
            len
        )
        .unwrap()
        .into()),
    ]
    .prop_map(|net: IpNet| net.trunc())
}

proptest! {
    #[test]
    fn own_space_is_found_as_by_looking_at_each(
        own in prop::collection::vec(any_net(), 0..6), value in any_net(),
    ) {
        let found = Prefixes::new(own.iter().copied()).overlapping(value).is_some();
        prop_assert_eq!(found, own.iter().any(|own| overlap(*own, value)));
    }
}
