use std::{
    path::Path,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::consent::{Entry, ParsedList, Subject};

fn list(kind: ListKind, text: &str) -> List {
    let source = Path::new("x.list").into();
    let parsed = ParsedList::read(kind, &source, text.as_bytes());
    List {
        kind,
        source,
        entries: parsed.entries,
    }
}

fn inputs(model: ConsentModel, lists: &[List]) -> ConsentInputs<'_> {
    ConsentInputs {
        model,
        lists: lists.iter().collect(),
        notice_since: None,
        matching_allowed: true,
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn noon() -> Timestamp {
    at("2026-12-01T12:00:00Z")
}

fn shown(table: &ConsentTable) -> Vec<String> {
    let entries = table.entries().iter();
    entries
        .map(|(net, allowed)| format!("{net} {allowed}"))
        .collect()
}

#[test]
fn refusals_accumulate_down_to_the_covered() {
    let lists = [list(
        ListKind::OptOut,
        "203.0.113.7 purposes=notify\n203.0.113.0/24 purposes=detect\n2001:db8::/32\n203.0.113.7 purposes=vulnerable\n203.0.113.128/25 purposes=detect\n",
    )];
    let table = ConsentTable::compile(&inputs(ConsentModel::OptOut, &lists), noon());
    assert_eq!(table.default_allowed(), PurposeSet::ALL);
    assert_eq!(
        shown(&table),
        [
            "203.0.113.0/24 notify,vulnerable,block,discover",
            "203.0.113.7/32 block,discover",
            "2001:db8::/32 none",
        ]
    );
    assert!(!table.allows("203.0.113.200".parse().unwrap(), Purpose::Detect));
    assert!(table.allows("203.0.114.0".parse().unwrap(), Purpose::Detect));
    assert!(!table.allows("2001:db8::1".parse().unwrap(), Purpose::Block));
    assert!(table.allows("2001:db9::".parse().unwrap(), Purpose::Block));
}

#[test]
fn a_refusal_wins_over_every_consent() {
    let lists = [
        list(
            ListKind::OptIn,
            "203.0.113.0/24 purposes=detect\n203.0.113.8/29 purposes=notify\n198.51.100.1\n",
        ),
        list(ListKind::OptOut, "203.0.113.9 purposes=detect\n"),
        list(ListKind::Exclusion, "198.51.100.0/24\n"),
    ];
    let table = ConsentTable::compile(&inputs(ConsentModel::OptIn, &lists), noon());
    assert_eq!(table.default_allowed(), PurposeSet::NONE);
    assert_eq!(
        shown(&table),
        [
            "203.0.113.0/24 detect",
            "203.0.113.8/29 detect,notify",
            "203.0.113.9/32 notify",
        ]
    );
    assert!(table.allowed("198.51.100.1".parse().unwrap()).is_empty());
}

#[test]
fn consents_do_not_count_in_the_opt_out_model() {
    let lists = [
        list(ListKind::OptIn, "203.0.113.7\n"),
        list(ListKind::OptOut, "203.0.113.7\n"),
    ];
    let table = ConsentTable::compile(&inputs(ConsentModel::OptOut, &lists), noon());
    assert_eq!(shown(&table), ["203.0.113.7/32 none"]);
}

#[test]
fn the_whole_space_can_be_opted_out() {
    let lists = [list(ListKind::OptOut, "0.0.0.0/0\n::/0\n255.255.255.255\n")];
    let table = ConsentTable::compile(&inputs(ConsentModel::OptOut, &lists), noon());
    assert_eq!(shown(&table), ["0.0.0.0/0 none", "::/0 none"]);
    for address in ["0.0.0.0", "255.255.255.255", "::", "ffff::"] {
        assert!(table.allowed(address.parse().unwrap()).is_empty());
    }
}

#[test]
fn a_line_counts_from_its_time_and_the_table_says_when_to_look_again() {
    let lists = [list(
        ListKind::OptOut,
        "203.0.113.1 from=2026-12-01T12:00:00Z\n203.0.113.2 from=2026-12-03T00:00:00Z\n203.0.113.3 from=2026-12-02T00:00:00Z\n",
    )];
    let inputs = inputs(ConsentModel::OptOut, &lists);
    let table = ConsentTable::compile(&inputs, noon());
    assert_eq!(shown(&table), ["203.0.113.1/32 none"]);
    assert_eq!(table.valid_until(), Some(at("2026-12-02T00:00:00Z")));
    let table = ConsentTable::compile(&inputs, at("2026-12-03T00:00:00Z"));
    assert_eq!((shown(&table).len(), table.valid_until()), (3, None));
}

#[test]
fn nobody_has_consented_before_the_notice_holds() {
    let since = at("2026-12-02T00:00:00Z");
    let lists = [];
    let inputs = ConsentInputs {
        notice_since: Some(since),
        ..inputs(ConsentModel::OptOut, &lists)
    };
    let table = ConsentTable::compile(&inputs, noon());
    assert_eq!(table.default_allowed(), PurposeSet::NONE);
    assert_eq!(table.valid_until(), Some(since));
    assert_eq!(table.closed(), Some(Closed::NoNoticeBefore(since)));
    let table = ConsentTable::compile(&inputs, since);
    assert_eq!(
        (table.default_allowed(), table.closed()),
        (PurposeSet::ALL, None)
    );
}

#[test]
fn unknown_refusals_forbid_everything() {
    let lists = [list(ListKind::OptIn, "203.0.113.7\n")];
    let inputs = ConsentInputs {
        matching_allowed: false,
        ..inputs(ConsentModel::OptIn, &lists)
    };
    let table = ConsentTable::compile(&inputs, noon());
    assert!(table.allowed("203.0.113.7".parse().unwrap()).is_empty());
    assert_eq!(table.closed(), Some(Closed::UnknownRefusals));
    assert!(table.entries().is_empty());
}

/// Few addresses and times, so that lines cover each other and come into
/// force at different times.
fn any_list() -> impl Strategy<Value = List> {
    let entry = (
        any::<bool>(),
        0u8..32,
        0u8..=8,
        1u8..32,
        prop::option::of(0i64..4),
    );
    let kind = prop_oneof![
        Just(ListKind::OptOut),
        Just(ListKind::OptIn),
        Just(ListKind::Exclusion)
    ];
    (kind, prop::collection::vec(entry, 0..16)).prop_map(|(kind, entries)| {
        let entry = |(v4, bits, spare, purposes, from): (bool, u8, u8, u8, Option<i64>)| {
            // The ends of the number space too.
            let bits = if bits < 16 {
                u32::from(bits)
            } else {
                u32::MAX - u32::from(bits - 16)
            };
            let net = if v4 {
                let spare = if spare == 8 { 32 } else { spare };
                IpNet::new(IpAddr::V4(bits.into()), 32 - spare)
            } else {
                let spare = if spare == 8 { 128 } else { spare };
                let bits = if bits > 16 {
                    u128::MAX - u128::from(u32::MAX - bits)
                } else {
                    bits.into()
                };
                IpNet::new(IpAddr::V6(bits.into()), 128 - spare)
            };
            Entry {
                subject: Subject::Prefix(net.unwrap().trunc()),
                purposes: PurposeSet::from_bits(purposes),
                from: from.map(|second| Timestamp::from_second(second).unwrap()),
                ports: None,
                source: Path::new("x.list").into(),
                line: 1,
            }
        };
        List {
            kind,
            source: Path::new("x.list").into(),
            entries: entries.into_iter().map(entry).collect(),
        }
    })
}

/// The rule of consent, straight from the lines.
fn by_the_lines(model: ConsentModel, lists: &[List], address: IpAddr, at: Timestamp) -> PurposeSet {
    let said = |wanted: fn(ListKind) -> bool| {
        lists
            .iter()
            .filter(|list| wanted(list.kind))
            .flat_map(|list| &list.entries)
            .filter(|entry| entry.in_force(at))
            .filter(|entry| entry.prefix().is_some_and(|net| net.contains(&address)))
            .fold(PurposeSet::NONE, |said, entry| said.union(entry.purposes))
    };
    let refused = said(|kind| kind != ListKind::OptIn);
    let granted = match model {
        ConsentModel::OptOut => PurposeSet::ALL,
        ConsentModel::OptIn => said(|kind| kind == ListKind::OptIn),
    };
    granted.without(refused).lawful()
}

fn by_longest_match(table: &ConsentTable, address: IpAddr) -> PurposeSet {
    table
        .entries()
        .iter()
        .filter(|(net, _)| net.contains(&address))
        .max_by_key(|(net, _)| net.prefix_len())
        .map_or(table.default_allowed(), |(_, allowed)| *allowed)
}

proptest! {
    #[test]
    fn the_table_the_longest_match_and_the_lines_agree(
        opt_in: bool,
        lists in prop::collection::vec(any_list(), 0..4),
        second in 0i64..4,
    ) {
        let model = if opt_in { ConsentModel::OptIn } else { ConsentModel::OptOut };
        let at = Timestamp::from_second(second).unwrap();
        let table = ConsentTable::compile(&inputs(model, &lists), at);
        let numbers = (0..300u32).chain((0..300).map(|below| u32::MAX - below));
        for number in numbers {
            let high = if number > 300 { u128::MAX - u128::from(u32::MAX - number) } else { number.into() };
            for address in [IpAddr::V4(number.into()), IpAddr::V6(high.into())] {
                let expected = by_the_lines(model, &lists, address, at);
                prop_assert_eq!(table.allowed(address), expected, "{}", address);
                prop_assert_eq!(by_longest_match(&table, address), expected, "{}", address);
            }
        }
    }

    #[test]
    fn nothing_changes_before_the_table_says_so(
        opt_in: bool,
        lists in prop::collection::vec(any_list(), 0..4),
        second in 0i64..4,
        later in 0i64..4,
    ) {
        let model = if opt_in { ConsentModel::OptIn } else { ConsentModel::OptOut };
        let now = Timestamp::from_second(second).unwrap();
        let later = Timestamp::from_second(second + later).unwrap();
        let inputs = inputs(model, &lists);
        let table = ConsentTable::compile(&inputs, now);
        if table.valid_until().is_none_or(|until| later < until) {
            let then = ConsentTable::compile(&inputs, later);
            prop_assert_eq!(then.entries(), table.entries());
        }
    }
}

#[test]
fn a_million_lines_compile_in_seconds() {
    // Nested prefixes spread over the space, in no order.
    let mut bits = 1u32;
    let entries = (0..1_000_000u32).map(|index| {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let net = IpNet::new(IpAddr::V4(bits.into()), 32 - (index % 12) as u8).unwrap();
        Entry {
            subject: Subject::Prefix(net.trunc()),
            purposes: PurposeSet::from_bits((index % 31) as u8 + 1),
            from: None,
            ports: None,
            source: Path::new("x.list").into(),
            line: index,
        }
    });
    let lists = [List {
        kind: ListKind::OptOut,
        source: Path::new("x.list").into(),
        entries: entries.collect(),
    }];
    let start = Instant::now();
    let table = ConsentTable::compile(&inputs(ConsentModel::OptOut, &lists), noon());
    let took = start.elapsed();
    println!(
        "1,000,000 lines compiled in {took:?} to {} entries",
        table.entries().len()
    );
    assert!(table.entries().len() > 500_000);
    // Quadratic work would take hours; the bound only leaves room for a slow
    // machine.
    assert!(took < Duration::from_secs(20), "{took:?}");
}
