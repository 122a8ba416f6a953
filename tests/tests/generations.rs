//! A new C&C list is switched in as a whole: each packet is decided by the old
//! list or by the new one, never by half of one (design decision 6).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use matcher_common::abi::{Counter, MAX_RULES, Setting};
use matcher_tests::{
    kernel::{self, LIMITS, Tally, drain, install, is_skipped, load_with, part},
    packets::{self, ALICE, ALICE6, Conditions, HOSTING, HOSTING6, indicator, standard_world},
};
use matcher_user::{
    indicator::Indicator,
    kernel::{
        KernelError,
        program::{Clock, Limits},
        ring::Ring,
    },
    tables::indicators::{IndicatorTables, compile},
};

const OLD: u32 = 1;
const NEW: u32 = 2;

/// A list that holds `address` under `id`, and `other` with so many ports that
/// no packet here has.
fn list(id: u32, address: IpAddr, other: IpAddr, ports: u32) -> IndicatorTables {
    let mut list = vec![indicator(id, address.into())];
    list.extend((1..=ports).map(|port| {
        let mut entry = indicator(100 + port, other.into());
        entry.qualifier.port = u16::try_from(port).ok();
        entry
    }));
    compile(&list).unwrap()
}

/// A packet between two subscribers, of whom the sender is listed: it is held
/// against everything that is listed for the receiver first, which takes long
/// enough for two switches to overtake it if nobody waits for it.
fn switch_while_packets_come(from: IpAddr, to: IpAddr) {
    let mut loaded = kernel::load(Clock::Replay);
    let mut world = standard_world(&Conditions::default());
    world.indicators.clear();
    install(&mut loaded.tables, &world);
    let lists = [list(NEW, from, to, 0), list(OLD, from, to, MAX_RULES)];
    loaded.tables.load_indicators(&lists[1]).unwrap();
    let frame = matcher_tests::frames::Frame::ethernet()
        .ip(from, to)
        .udp(51413, 4444)
        .build();
    let mut ring = Ring::open(&loaded.tables).unwrap();
    let (sender, mut tables) = part(loaded);
    let mut tally = Tally::start(&tables);
    let mut by_generation: BTreeMap<u32, u32> = BTreeMap::new();
    sender.send_meanwhile(&frame, &mut tables, |tables, _| {
        // Right after each other: the second is built where the list is that
        // packets still under way were decided by.
        for list in &lists {
            tables.load_indicators(list).unwrap();
        }
        for event in drain(&mut ring) {
            assert!([OLD, NEW].contains(&event.flow.indicator), "{event:?}");
            let known = by_generation
                .entry(event.generation)
                .or_insert(event.flow.indicator);
            assert_eq!(*known, event.flow.indicator, "one list a generation");
        }
    });
    let counts: BTreeMap<Counter, u64> = tally.take(&tables).into_iter().collect();
    let count = |counter| counts.get(&counter).copied().unwrap_or(0);
    assert!(count(Counter::Matched) > 0);
    assert_eq!(
        count(Counter::NoMatch),
        0,
        "listed in both lists, and missed"
    );
    assert!(by_generation.len() > 2, "{by_generation:?}");
}

#[test]
fn an_address_that_both_lists_hold_is_hit_at_every_moment() {
    if is_skipped("an_address_that_both_lists_hold_is_hit_at_every_moment") {
        return;
    }
    switch_while_packets_come(HOSTING.into(), ALICE.into());
}

#[test]
fn an_address_that_both_lists_hold_is_hit_at_every_moment_over_ipv6() {
    if is_skipped("an_address_that_both_lists_hold_is_hit_at_every_moment_over_ipv6") {
        return;
    }
    switch_while_packets_come(HOSTING6.into(), ALICE6.into());
}

#[test]
fn a_list_that_does_not_fit_leaves_the_old_one_in_force() {
    if is_skipped("a_list_that_does_not_fit_leaves_the_old_one_in_force") {
        return;
    }
    let limits = Limits {
        max_indicators: 300,
        ..LIMITS
    };
    let mut loaded = load_with(limits, Clock::Replay);
    let world = standard_world(&Conditions::default());
    let generation = install(&mut loaded.tables, &world);
    let case = packets::table()
        .into_iter()
        .find(|case| case.answer.hit.is_some())
        .unwrap();
    let mut ring = Ring::open(&loaded.tables).unwrap();
    let too_many: Vec<Indicator> = (1..=301)
        .map(|id| indicator(id + 5000, IpAddr::V4(Ipv4Addr::from(id)).into()))
        .collect();
    for _ in 0..3 {
        let error = loaded
            .tables
            .load_indicators(&compile(&too_many).unwrap())
            .unwrap_err();
        assert!(
            matches!(error, KernelError::TableFull { entries: 300, .. }),
            "{error}"
        );
        assert_eq!(
            loaded.tables.setting(Setting::Generation).unwrap(),
            generation
        );
        kernel::send(&mut loaded, &case.frame);
        let [event] = drain(&mut ring)[..] else {
            panic!("one hit");
        };
        assert_eq!(event.flow.indicator, case.answer.hit.unwrap().indicator);
        assert_eq!(u64::from(event.generation), generation);
    }
    // And the next list that fits goes in.
    let next = install(&mut loaded.tables, &world);
    assert_eq!(next, generation + 1);
    kernel::send(&mut loaded, &case.frame);
    assert_eq!(drain(&mut ring)[0].generation, next as u32);
}

/// So many that some of the IPv6 hosts, 3 in 10,000, find their buckets in the
/// table of hosts full, and are hit by the tries.
#[test]
fn every_host_of_a_long_list_is_hit_and_its_neighbour_is_not() {
    if is_skipped("every_host_of_a_long_list_is_hit_and_its_neighbour_is_not") {
        return;
    }
    const HOSTS: u32 = 20_000;
    let limits = Limits {
        max_indicators: 2 * HOSTS,
        ..LIMITS
    };
    let mut loaded = load_with(limits, Clock::Replay);
    let mut world = standard_world(&Conditions::default());
    world.indicators.clear();
    install(&mut loaded.tables, &world);
    let v4 = |at: u32| IpAddr::from(Ipv4Addr::from_bits(0xc612_0000 + 2 * at));
    let v6 = |at: u32| {
        IpAddr::from(Ipv6Addr::from_bits(
            (0x2001_0db8_0300 << 80) + 2 * u128::from(at),
        ))
    };
    let list: Vec<Indicator> = (0..HOSTS)
        .flat_map(|at| {
            [
                indicator(2 * at + 1, v4(at).into()),
                indicator(2 * at + 2, v6(at).into()),
            ]
        })
        .collect();
    let tables = compile(&list).unwrap();
    let mut ring = Ring::open(&loaded.tables).unwrap();
    // Into both halves, and over what one held before.
    for _ in 0..3 {
        loaded.tables.load_indicators(&tables).unwrap();
    }
    let mut hits = |from: IpAddr, to: IpAddr| -> Vec<u32> {
        let frame = matcher_tests::frames::Frame::ethernet()
            .ip(from, to)
            .udp(51413, 4444)
            .build();
        kernel::send(&mut loaded, &frame);
        drain(&mut ring)
            .iter()
            .map(|event| event.flow.indicator)
            .collect()
    };
    let beside = |address: IpAddr| match address {
        IpAddr::V4(address) => IpAddr::from(Ipv4Addr::from_bits(address.to_bits() + 1)),
        IpAddr::V6(address) => IpAddr::from(Ipv6Addr::from_bits(address.to_bits() + 1)),
    };
    for at in 0..HOSTS {
        for (from, to, id) in [
            (IpAddr::from(ALICE), v4(at), 2 * at + 1),
            (IpAddr::from(ALICE6), v6(at), 2 * at + 2),
        ] {
            assert_eq!(hits(from, to), [id], "{to}");
            assert_eq!(hits(from, beside(to)), [0_u32; 0], "beside {to}");
        }
    }
}
