//! Merge, look-up and difference, each against its plainest form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::{
    feeds::{Format, parse},
    indicator::Said,
    protocol::Protocol,
    threads::LONG,
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn plain(text: &str) -> Vec<FeedEntry> {
    let feed = parse(Format::Plain, text.as_bytes());
    assert_eq!(feed.problems, []);
    feed.entries
}

fn merge(feeds: &[(&str, &[FeedEntry])]) -> IndicatorSet {
    IndicatorSet::merge(&Catalog::default(), feeds, NOW)
        .unwrap()
        .0
}

#[test]
fn the_same_indicator_from_several_feeds_is_one_that_names_them() {
    let one = FeedEntry {
        said: Said {
            id: Some("1".into()),
            confidence: Some(40),
            first_seen: Some(at(20)),
            last_seen: Some(at(30)),
            ..Said::default()
        }
        .into(),
        ..plain("192.0.2.7:443").remove(0)
    };
    let other = FeedEntry {
        said: Said {
            malware: Some("QakBot".into()),
            confidence: Some(90),
            first_seen: Some(at(10)),
            last_seen: Some(at(25)),
            ..Said::default()
        }
        .into(),
        ..one.clone()
    };
    let set = merge(&[
        ("zeta", &[other.clone(), other.clone()]),
        ("alpha", std::slice::from_ref(&one)),
        ("zeta", std::slice::from_ref(&one)),
    ]);
    let [indicator] = set.iter().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(indicator.id, IndicatorId(1));
    assert_eq!(indicator.qualifier.port, Some(443));
    // Each feed's own words are kept, once.
    let said: Vec<(&str, &Said)> = indicator
        .statements
        .iter()
        .map(|it| (&*it.feed, &it.said))
        .collect();
    assert_eq!(said.len(), 3);
    assert_eq!(said[0], ("alpha", &*one.said));
    assert!(said.contains(&("zeta", &*one.said)) && said.contains(&("zeta", &*other.said)));
    assert_eq!(indicator.feeds().join(" "), "alpha zeta");
    assert_eq!(indicator.malware().as_deref(), Some("QakBot"));
    assert_eq!(indicator.confidence(), Some(90));
    assert_eq!(indicator.first_seen(), Some(at(10)));
    assert_eq!(indicator.last_seen(), Some(at(30)));
}

#[test]
fn a_list_long_enough_for_two_threads_is_merged_as_a_short_one() {
    let template = plain("0.0.0.0").remove(0);
    let entry = |address: u32, line: u32| FeedEntry {
        value: IpAddr::from(Ipv4Addr::from_bits(address)).into(),
        line,
        ..template.clone()
    };
    let addresses = LONG as u32 / 2 + 1;
    // Scattered: the first is no neighbour of the second.
    let scattered = |at: u32| at.wrapping_mul(0x9e37_79b1);
    let one: Vec<FeedEntry> = (0..addresses).map(|at| entry(scattered(at), at)).collect();
    let other: Vec<FeedEntry> = one.iter().rev().cloned().collect();
    let set = merge(&[("one", &one), ("other", &other)]);
    let mut expected: Vec<u32> = (0..addresses).map(scattered).collect();
    expected.sort_unstable();
    assert_eq!(set.len(), expected.len());
    for ((indicator, address), id) in set.iter().zip(expected).zip(1..) {
        assert_eq!(indicator.value, entry(address, 0).value);
        assert_eq!(indicator.id, IndicatorId(id));
        assert_eq!(indicator.feeds().join(" "), "one other");
        assert_eq!(set.get(indicator.id), Some(indicator));
    }

    // One address alone, said again and again, is not cut in the middle.
    let same: Vec<FeedEntry> = (0..LONG as u32).map(|line| entry(7, line)).collect();
    let set = merge(&[("one", &same)]);
    let [indicator] = set.iter().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(indicator.statements.len(), 1);
}

#[test]
fn names_have_ids_of_the_same_kind_and_are_kept_apart() {
    let rpz = parse(
        Format::Rpz,
        b"c2.example CNAME .
*.c2.example CNAME .
",
    );
    let own = plain("192.0.2.7");
    let listed = [
        Listed {
            feed: "rpz",
            entries: &[],
            names: &rpz.names,
        },
        Listed::from(("own", own.as_slice())),
    ];
    let (set, catalog) = IndicatorSet::merge(&Catalog::default(), &listed, NOW).unwrap();
    assert_eq!((set.len(), set.names().len(), catalog.len()), (1, 2, 3));
    let ids: Vec<u32> = set.names().map(|it| it.id.0).collect();
    assert_eq!(ids, [2, 3]);
    assert_eq!(set.get(IndicatorId(2)), None);
    let found = set.covering_name(&"a.c2.example".parse().unwrap());
    assert_eq!(found.len(), 1);
    assert_eq!(catalog.names_listed_by("rpz").len(), 2);
    assert_eq!(catalog.listed_by("rpz").len(), 0);
    // Names that left come back with their ids.
    let (_, catalog) = IndicatorSet::merge(&catalog, &[("own", own.as_slice())], NOW).unwrap();
    let (again, _) = IndicatorSet::merge(&catalog, &listed, NOW).unwrap();
    assert_eq!(again.names().map(|it| it.id.0).collect::<Vec<_>>(), ids);
    assert!(diff_of_names(&set, &again).is_empty());
}

#[test]
fn a_feed_that_stays_keeps_its_own_words_and_no_others() {
    let own = plain("192.0.2.7 confidence=10");
    let other = plain("192.0.2.7 confidence=90 malware=x");
    let feeds = [("own", own.as_slice()), ("other", other.as_slice())];
    let (_, catalog) = IndicatorSet::merge(&Catalog::default(), &feeds, NOW).unwrap();
    let kept = catalog.listed_by("own");
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].said, own[0].said);
}

#[test]
fn another_qualifier_or_validity_is_another_indicator() {
    let entries = plain(
        "192.0.2.7\n192.0.2.7:443\n192.0.2.7:443 proto=tcp\n192.0.2.7 until=2027-01-01T00:00:00Z\n\
         192.0.2.7 until=2028-01-01T00:00:00Z\n192.0.2.0/24\n192.0.2.7\n",
    );
    let set = merge(&[("own", &entries)]);
    assert_eq!(set.len(), 6);
    assert!(!set.is_empty());
    let ids: Vec<u32> = set.iter().map(|indicator| indicator.id.0).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn the_summary_is_what_hits_print() {
    let entries = plain("198.51.100.0/24 proto=tcp port=443 malware=QakBot confidence=90");
    let set = merge(&[("feodo", &entries)]);
    let summary = summary(set.get(IndicatorId(1)).unwrap());
    insta::assert_snapshot!(
        serde_json::to_string(&summary).unwrap(),
        @r#"{"id":1,"value":"198.51.100.0/24","protocol":"tcp","port":443,"feeds":["feodo"],"malware":"QakBot","confidence":90}"#
    );
}

#[test]
fn validity_begins_with_from_and_ends_before_until() {
    let entries = plain("192.0.2.7 from=1970-01-01T00:00:10Z until=1970-01-01T00:00:20Z");
    let set = merge(&[("own", &entries)]);
    let ip = "192.0.2.7".parse().unwrap();
    let matches = |second| !set.lookup(ip, None, None, at(second)).is_empty();
    assert_eq!([9, 10, 19, 20].map(matches), [false, true, true, false]);
    let why = |second| {
        set.covering(ip, None, None, at(second))
            .remove(0)
            .mismatches
    };
    assert_eq!(why(9), [Mismatch::NotYetValid(at(10))]);
    assert_eq!(why(20), [Mismatch::Expired(at(20))]);
}

#[test]
fn the_most_specific_indicator_comes_first() {
    let entries = plain(
        "192.0.2.0/24\n192.0.2.7\n192.0.2.7 proto=tcp\n192.0.2.7:443\n192.0.2.7:443 proto=tcp\n\
         192.0.2.0/24 port=443\n0.0.0.0/0\n::/0\n",
    );
    let set = merge(&[("own", &entries)]);
    let found: Vec<String> = set
        .lookup(
            "192.0.2.7".parse().unwrap(),
            Some(443),
            Some(Protocol::TCP),
            NOW,
        )
        .into_iter()
        .map(|it| {
            format!(
                "{} {:?} {:?}",
                it.value, it.qualifier.port, it.qualifier.protocol
            )
        })
        .collect();
    insta::assert_snapshot!(found.join("\n"));
}

#[test]
fn a_packet_without_ports_matches_no_indicator_with_one() {
    let entries = plain("192.0.2.7:443\n192.0.2.0/24 proto=tcp");
    let set = merge(&[("own", &entries)]);
    let ip = "192.0.2.7".parse().unwrap();
    assert_eq!(
        set.lookup(ip, None, Some(Protocol(1)), NOW),
        [] as [&Indicator; 0]
    );
    assert_eq!(set.lookup(ip, None, Some(Protocol::TCP), NOW).len(), 1);
    assert_eq!(set.lookup(ip, Some(443), None, NOW).len(), 2);
}

#[test]
fn a_long_list_is_merged_again_with_only_its_differences() {
    // Long enough that anything which grows with the square takes minutes.
    let entries = |shift: u32| -> Vec<FeedEntry> {
        let template = plain("192.0.2.7").remove(0);
        (0..50_000u32)
            .map(|number| {
                let ip = Ipv4Addr::from((number + shift).wrapping_mul(2_654_435_761));
                FeedEntry {
                    value: IpNet::from(IpAddr::V4(ip)),
                    ..template.clone()
                }
            })
            .collect()
    };
    let (before, after) = (entries(0), entries(500));
    let (old, catalog) =
        IndicatorSet::merge(&Catalog::default(), &[("own", before.as_slice())], NOW).unwrap();
    let (new, catalog) = IndicatorSet::merge(&catalog, &[("own", after.as_slice())], NOW).unwrap();
    let diff = diff(&old, &new);
    assert_eq!(
        (diff.added.len(), diff.removed.len(), diff.changed.len()),
        (500, 500, 0)
    );
    assert_eq!(catalog.len(), 50_500);
}

/// Addresses that meet each other often.
fn any_addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..16).prop_map(|host| IpAddr::V4((0xc000_0200 + host).into())),
        (0u128..16).prop_map(|host| IpAddr::V6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | host))),
    ]
}

fn any_port() -> impl Strategy<Value = Option<u16>> {
    prop::sample::select(vec![None, Some(80), Some(443)])
}

fn any_protocol() -> impl Strategy<Value = Option<Protocol>> {
    prop::sample::select(vec![None, Some(Protocol::TCP), Some(Protocol::UDP)])
}

fn any_time() -> impl Strategy<Value = Option<Timestamp>> {
    prop::option::of((0i64..4).prop_map(at))
}

prop_compose! {
    fn any_entry()(
        addr in any_addr(), width in 0u8..6, protocol in any_protocol(), port in any_port(),
        malware in prop::option::of("[ab]"), confidence in prop::option::of(0u8..=100),
        seen in (any_time(), any_time()), valid in (any_time(), any_time()), line in 1u32..5,
    ) -> FeedEntry {
        let length = if addr.is_ipv4() { 32 } else { 128 } - width;
        FeedEntry {
            value: IpNet::new(addr, length).unwrap().trunc(),
            qualifier: Qualifier { protocol, port },
            said: Said {
                malware: malware.map(Into::into),
                confidence,
                first_seen: seen.0,
                last_seen: seen.1,
                ..Said::default()
            }.into(),
            valid_from: valid.0,
            valid_until: valid.1,
            line,
            part: 0,
        }
    }
}

fn any_feeds() -> impl Strategy<Value = Vec<(&'static str, Vec<FeedEntry>)>> {
    let name = prop::sample::select(vec!["feodo", "own", "drop"]);
    prop::collection::vec((name, prop::collection::vec(any_entry(), 0..12)), 0..4)
}

fn borrowed<'a>(feeds: &'a [(&'static str, Vec<FeedEntry>)]) -> Vec<(&'a str, &'a [FeedEntry])> {
    feeds
        .iter()
        .map(|(name, entries)| (*name, entries.as_slice()))
        .collect()
}

fn listed(set: &IndicatorSet) -> Vec<Indicator> {
    set.iter().cloned().collect()
}

proptest! {
    #[test]
    fn merge_does_not_depend_on_the_order(
        (feeds, shuffled) in any_feeds().prop_flat_map(|feeds| {
            let entries: Vec<(&'static str, FeedEntry)> = feeds
                .iter()
                .flat_map(|(name, entries)| entries.iter().map(|entry| (*name, entry.clone())))
                .collect();
            (Just(feeds), Just(entries).prop_shuffle())
        }),
    ) {
        let (set, catalog) =
            IndicatorSet::merge(&Catalog::default(), &borrowed(&feeds), NOW).unwrap();
        let parts: Vec<(&str, &[FeedEntry])> = shuffled
            .iter()
            .map(|(name, entry)| (*name, std::slice::from_ref(entry)))
            .collect();
        let (other, other_catalog) =
            IndicatorSet::merge(&Catalog::default(), &parts, NOW).unwrap();
        prop_assert_eq!(listed(&set), listed(&other));
        prop_assert_eq!(catalog, other_catalog);
    }

    #[test]
    fn merge_keeps_every_entry_and_invents_none(feeds in any_feeds()) {
        let set = merge(&borrowed(&feeds));
        for (name, entries) in &feeds {
            for entry in entries {
                let same: Vec<&Indicator> = set
                    .iter()
                    .filter(|indicator| identity(indicator) == entry_identity(entry))
                    .collect();
                let [indicator] = same.try_into().unwrap();
                let kept = |it: &Arc<Statement>| &*it.feed == *name && it.said == *entry.said;
                prop_assert!(indicator.statements.iter().any(kept));
                let first_seen = entry.said.first_seen;
                prop_assert!(indicator.confidence() >= entry.said.confidence);
                prop_assert!(indicator.last_seen() >= entry.said.last_seen);
                prop_assert!(first_seen.is_none_or(|seen| indicator.first_seen() <= Some(seen)));
                prop_assert!(indicator.malware().is_some() || entry.said.malware.is_none());
            }
        }
        for indicator in set.iter() {
            prop_assert_eq!(set.get(indicator.id), Some(indicator));
            prop_assert!(indicator.feeds().is_sorted_by(|a, b| a < b));
            for statement in indicator.statements.iter() {
                prop_assert!(feeds.iter().any(|(name, entries)| *name == &*statement.feed
                    && entries.iter().any(|entry| entry_identity(entry) == identity(indicator)
                        && *entry.said == statement.said)));
            }
        }
        prop_assert_eq!(set.get(IndicatorId(0)), None);
    }

    #[test]
    fn lookup_equals_looking_at_each(
        feeds in any_feeds(), addr in any_addr(), port in any_port(), protocol in any_protocol(),
        time in 0i64..4,
    ) {
        let set = merge(&borrowed(&feeds));
        let time = at(time);
        let mut scanned: Vec<&Indicator> = set
            .iter()
            .filter(|it| it.value.contains(&addr))
            .filter(|it| it.qualifier.port.is_none() || it.qualifier.port == port)
            .filter(|it| {
                protocol.is_none()
                    || it.qualifier.protocol.is_none()
                    || it.qualifier.protocol == protocol
            })
            .filter(|it| it.valid_from.is_none_or(|from| from <= time))
            .filter(|it| it.valid_until.is_none_or(|until| time < until))
            .collect();
        let mut found = set.lookup(addr, port, protocol, time);
        prop_assert!(found.is_sorted_by_key(|it| Reverse(it.value.prefix_len())));
        found.sort_by_key(|it| it.id);
        scanned.sort_by_key(|it| it.id);
        prop_assert_eq!(found, scanned);
        let covering = set.covering(addr, port, protocol, time);
        prop_assert_eq!(
            covering.len(),
            set.iter().filter(|it| it.value.contains(&addr)).count()
        );
    }

    #[test]
    fn a_difference_leads_from_the_old_list_to_the_new(before in any_feeds(), after in any_feeds()) {
        let (old, catalog) =
            IndicatorSet::merge(&Catalog::default(), &borrowed(&before), NOW).unwrap();
        let (new, catalog) = IndicatorSet::merge(&catalog, &borrowed(&after), NOW).unwrap();
        let diff = diff(&old, &new);
        let mut list = listed(&old);
        list.retain(|it| !diff.removed.contains(&it));
        for it in &mut list {
            if let Some((_, changed)) = diff.changed.iter().find(|(old, _)| *old == it) {
                *it = (*changed).clone();
            }
        }
        list.extend(diff.added.iter().map(|it| (*it).clone()));
        list.sort_by(|a, b| identity(a).cmp(&identity(b)));
        prop_assert_eq!(list, listed(&new));
        // Whatever was ever listed can be explained by its id.
        for indicator in old.iter().chain(new.iter()) {
            prop_assert_eq!(catalog.get(indicator.id).map(identity), Some(identity(indicator)));
        }
    }
}

proptest! {
    #[test]
    fn sort_keys_keep_the_order_of_values(
        a in any::<(bool, u32, u128, u8)>(),
        b in any::<(bool, u32, u128, u8)>(),
        names in proptest::array::uniform2("[a-z0-9]{1,20}(\\.[a-z]{2,5}){1,2}"),
    ) {
        let net = |(v4, short, long, length): (bool, u32, u128, u8)| -> IpNet {
            if v4 {
                IpNet::new(Ipv4Addr::from(short).into(), length % 33).unwrap()
            } else {
                IpNet::new(Ipv6Addr::from(long).into(), length % 129).unwrap()
            }
        };
        let (a, b) = (net(a), net(b));
        if a < b {
            prop_assert!(a.sort_key() <= b.sort_key());
        }
        let [a, b] = names.map(|name| name.parse::<DomainName>().unwrap());
        if a < b {
            prop_assert!(a.sort_key() <= b.sort_key());
        }
    }
}
