use std::{
    path::Path,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::consent::{Entry, ParsedList, PortLimit, PortRange, Subject};

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
        spaces: &[],
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
    let text = |(at, answer): (SpacePrefix, Answer)| match answer {
        Answer::Whole(allowed) => format!("{at} {allowed}"),
        Answer::ByPort(by_port) => {
            let ranges = by_port.ranges().iter();
            let ranges = ranges.map(|run| format!(", {}-{} {}", run.first, run.last, run.value));
            let ranges: String = ranges.collect();
            let (outside, portless) = (by_port.outside(), by_port.portless());
            format!("{at} {outside}{ranges}, unknown {portless}")
        }
    };
    table.entries().map(text).collect()
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
    assert!(!table.allows(0, "203.0.113.200".parse().unwrap(), None, Purpose::Detect));
    assert!(table.allows(0, "203.0.114.0".parse().unwrap(), None, Purpose::Detect));
    assert!(!table.allows(0, "2001:db8::1".parse().unwrap(), None, Purpose::Block));
    assert!(table.allows(0, "2001:db9::".parse().unwrap(), None, Purpose::Block));
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
    assert!(
        table
            .allowed(0, "198.51.100.1".parse().unwrap(), None)
            .is_empty()
    );
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
fn lines_limited_to_ports_refuse_for_those_ports_alone() {
    let lists = [list(
        ListKind::OptOut,
        "198.51.100.9 ports=1024-2047,4096\n198.51.100.9 ports=2000-2100 purposes=detect\n198.51.100.8/31 purposes=notify\n198.51.100.10 map-e=a:4,k:8,psid:0x34\n198.51.100.11 ports=0-65535\n",
    )];
    let table = ConsentTable::compile(&inputs(ConsentModel::OptOut, &lists), noon());
    let shown = shown(&table);
    assert_eq!(
        shown[..2],
        [
            "198.51.100.8/31 detect,vulnerable,block,discover",
            "198.51.100.9/32 detect,vulnerable,block,discover, 1024-2047 none, 2048-2100 \
             vulnerable,block,discover, 4096-4096 none, unknown none",
        ]
    );
    assert!(shown[2].starts_with(
        "198.51.100.10/32 detect,notify,vulnerable,block,discover, 4928-4943 none, 9024-9039 none"
    ));
    assert_eq!(shown[3], "198.51.100.11/32 none");
}

#[test]
fn in_the_opt_in_model_ports_are_granted() {
    let lists = [
        list(
            ListKind::OptIn,
            "198.51.100.9 ports=1024-2047 purposes=detect\n",
        ),
        list(ListKind::OptOut, "198.51.100.9 ports=2000\n"),
    ];
    let table = ConsentTable::compile(&inputs(ConsentModel::OptIn, &lists), noon());
    assert_eq!(
        shown(&table),
        ["198.51.100.9/32 none, 1024-1999 detect, 2001-2047 detect, unknown none"]
    );
}

#[test]
fn a_line_holds_in_its_space_and_one_without_in_all() {
    let lists = [list(
        ListKind::OptOut,
        "0.0.0.4 space=1\n0.0.0.5 purposes=detect\n0.0.0.64 purposes=notify\n::9 space=0 purposes=block\n",
    )];
    let spaces = known_spaces();
    let inputs = ConsentInputs {
        spaces: &spaces,
        ..inputs(ConsentModel::OptOut, &lists)
    };
    let table = ConsentTable::compile(&inputs, noon());
    assert_eq!(
        shown(&table),
        [
            "0.0.0.5/32 notify,vulnerable,block,discover",
            "0.0.0.64/32 detect,vulnerable,block,discover",
            "::9/128 detect,notify,vulnerable",
            "0.0.0.4/32 space=1 none",
            "0.0.0.5/32 space=1 notify,vulnerable,block,discover",
            "0.0.0.5/32 space=2 notify,vulnerable,block,discover",
        ]
    );
}

#[test]
fn the_whole_space_can_be_opted_out() {
    let lists = [list(ListKind::OptOut, "0.0.0.0/0\n::/0\n255.255.255.255\n")];
    let table = ConsentTable::compile(&inputs(ConsentModel::OptOut, &lists), noon());
    assert_eq!(shown(&table), ["0.0.0.0/0 none", "::/0 none"]);
    for address in ["0.0.0.0", "255.255.255.255", "::", "ffff::"] {
        assert!(table.allowed(0, address.parse().unwrap(), None).is_empty());
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
    assert!(
        table
            .allowed(0, "203.0.113.7".parse().unwrap(), None)
            .is_empty()
    );
    assert_eq!(table.closed(), Some(Closed::UnknownRefusals));
    assert_eq!(table.entry_count(), 0);
}

/// Few ports, so that ranges meet.
fn limit() -> impl Strategy<Value = PortLimit> {
    let range = (0u16..12, 0u16..4).prop_map(|(first, more)| PortRange {
        first,
        last: first + more,
    });
    prop_oneof![
        prop::collection::vec(range, 1..4).prop_map(PortLimit::Ports),
        // Blocks of 4 in each 16 ports, at the ends of the numbers too.
        (0u16..4).prop_map(|psid| PortLimit::MapE { a: 12, k: 2, psid }),
        (0u16..2).prop_map(|psid| PortLimit::MapE { a: 0, k: 1, psid }),
    ]
}

/// Ports in and around them, and none.
fn asked_ports() -> impl Iterator<Item = Option<u16>> {
    (0..34)
        .chain(u16::MAX - 16..=u16::MAX)
        .map(Some)
        .chain([None])
}

/// Few addresses, times and spaces, so that lines cover each other and come
/// into force at different times.
fn any_list() -> impl Strategy<Value = List> {
    let entry = (
        any::<bool>(),
        0u8..32,
        0u8..=8,
        1u8..32,
        prop::option::of(0i64..4),
        prop_oneof![3 => Just(None), 2 => limit().prop_map(Some)],
        prop_oneof![3 => Just(None), 2 => (0u32..4).prop_map(Some)],
    );
    let kind = prop_oneof![
        Just(ListKind::OptOut),
        Just(ListKind::OptIn),
        Just(ListKind::Exclusion)
    ];
    (kind, prop::collection::vec(entry, 0..16)).prop_map(|(kind, entries)| {
        let entry = |(v4, bits, spare, purposes, from, ports, space): (
            bool,
            u8,
            u8,
            u8,
            Option<i64>,
            Option<PortLimit>,
            Option<u32>,
        )| {
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
                ports: ports.map(Box::new),
                space,
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

/// Spaces 1 and 2; 3 is a number that lists use and nobody knows.
fn known_spaces() -> [Space; 2] {
    let space = |id, nets: &[&str]| Space {
        id,
        prefixes: nets.iter().map(|net| net.parse().unwrap()).collect(),
    };
    [
        space(1, &["0.0.0.0/28", "255.255.255.248/29", "::8/125"]),
        space(2, &["0.0.0.4/30", "::/120", "ffff::/16"]),
    ]
}

/// The rule of consent, straight from the lines.
fn by_the_lines(
    model: ConsentModel,
    lists: &[List],
    (space, address, port): (u32, IpAddr, u16),
    at: Timestamp,
) -> PurposeSet {
    let holds = |kind: ListKind, entry: &Entry| {
        let here = match entry.space {
            None if kind == ListKind::OptIn => space == 0,
            None => true,
            Some(named) if named < 3 => named == space,
            Some(_) => kind != ListKind::OptIn,
        };
        here && entry.in_force(at)
            && entry.prefix().is_some_and(|net| net.contains(&address))
            && entry
                .ports
                .as_ref()
                .is_none_or(|ports| ports.contains(port))
    };
    let said = |wanted: fn(ListKind) -> bool| {
        lists
            .iter()
            .filter(|list| wanted(list.kind))
            .flat_map(|list| list.entries.iter().map(|entry| (list.kind, entry)))
            .filter(|(kind, entry)| holds(*kind, entry))
            .fold(PurposeSet::NONE, |said, (_, entry)| {
                said.union(entry.purposes)
            })
    };
    let refused = said(|kind| kind != ListKind::OptIn);
    let granted = match model {
        ConsentModel::OptOut => PurposeSet::ALL,
        ConsentModel::OptIn => said(|kind| kind == ListKind::OptIn),
    };
    granted.without(refused).lawful()
}

fn by_longest_match(table: &ConsentTable, space: u32, address: IpAddr) -> Answer {
    table
        .entries()
        .filter(|(at, _)| at.space == space && at.prefix.contains(&address))
        .max_by_key(|(at, _)| at.prefix.prefix_len())
        .map_or(Answer::Whole(table.default_allowed()), |(_, answer)| answer)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_table_the_longest_match_and_the_lines_agree_on_every_port(
        opt_in: bool,
        lists in prop::collection::vec(any_list(), 0..4),
        second in 0i64..4,
    ) {
        let model = if opt_in { ConsentModel::OptIn } else { ConsentModel::OptOut };
        let at = Timestamp::from_second(second).unwrap();
        let spaces = known_spaces();
        let inputs = ConsentInputs { spaces: &spaces, ..inputs(model, &lists) };
        let table = ConsentTable::compile(&inputs, at);
        let numbers = (0..18u32).chain([30, 31, 255, 256]);
        for (space, number) in (0..4).flat_map(|space| numbers.clone().map(move |n| (space, n))) {
            for address in [
                IpAddr::V4(number.into()),
                IpAddr::V4((u32::MAX - number).into()),
                IpAddr::V6(u128::from(number).into()),
                IpAddr::V6((u128::MAX - u128::from(number)).into()),
            ] {
                let subscriber = space == 0 || spaces.iter().any(|known| {
                    known.id == space && known.prefixes.iter().any(|net| net.contains(&address))
                });
                let longest = by_longest_match(&table, space, address);
                let answer = table.answer(space, address);
                let mut of_all = PurposeSet::ALL;
                for port in asked_ports() {
                    let expected = match port {
                        Some(port) => {
                            let asked = (space, address, port);
                            let said = by_the_lines(model, &lists, asked, at);
                            of_all = of_all.intersection(said);
                            said
                        }
                        None => of_all,
                    };
                    prop_assert_eq!(
                        table.allowed(space, address, port), expected, "{} {:?}", address, port
                    );
                    prop_assert_eq!(answer.allowed(port), expected, "{} {:?}", address, port);
                    if subscriber {
                        prop_assert_eq!(longest.allowed(port), expected, "{} {:?}", address, port);
                    }
                    for purpose in Purpose::ALL {
                        let refused = table.refused(purpose);
                        prop_assert_eq!(
                            refused.contains(space, address, port),
                            !expected.contains(purpose)
                        );
                        prop_assert!(expected.contains(purpose) || !refused.is_empty());
                    }
                }
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
            let now = ConsentTable { valid_until: then.valid_until, ..table };
            prop_assert_eq!(then, now);
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
            space: None,
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
        table.entry_count()
    );
    assert!(table.entry_count() > 500_000);
    // Quadratic work would take hours; the bound only leaves room for a slow
    // machine.
    assert!(took < Duration::from_secs(20), "{took:?}");
}
