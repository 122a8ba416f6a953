use std::collections::{BTreeMap, HashMap};

use super::super::hosts::*;
use super::*;
use matcher_common::{
    abi::{MAX_RULES, RuleSpan},
    table::hosts::{BUCKETS, Host, SLOTS_V4, SLOTS_V6, find_v4, find_v6},
};

fn find(image: &Image, address: IpAddr) -> Host {
    let lines = image.lines();
    match address {
        IpAddr::V4(address) => find_v4(&lines, address.to_bits()),
        IpAddr::V6(address) => {
            let (high, low) = words(address);
            find_v6(&lines, high, low)
        }
    }
}

/// Spans of which no two have the same first rule or, next to each other, the
/// same number; the last bits of both ends are among them.
fn spans(prefixes: impl IntoIterator<Item = IpNet>) -> Vec<(IpNet, RuleSpan)> {
    let distinct: BTreeMap<IpNet, ()> = prefixes.into_iter().map(|net| (net, ())).collect();
    (0_u32..)
        .zip(distinct.into_keys())
        .map(|(at, prefix)| {
            let span = RuleSpan {
                first: at.reverse_bits() ^ u32::MAX,
                count: MAX_RULES - at % MAX_RULES,
            };
            (prefix, span)
        })
        .collect()
}

fn build(family: Family, entries: &[(IpNet, RuleSpan)], numbers: &mut Numbers) -> Hosts {
    let plan = Plan::new(family, entries);
    let hosts = plan.build(numbers.seeds());
    assert_eq!(plan.bytes(), hosts.image.bytes().len() as u64);
    assert!(plan.bytes() <= bytes_at_most(family, entries.len() as u64));
    hosts
}

/// Every host is in the image or left, with its span, and the image says so;
/// nothing else is in it.
fn is_exact(family: Family, entries: &[(IpNet, RuleSpan)], hosts: &Hosts, others: &[IpAddr]) {
    let own: HashMap<IpAddr, RuleSpan> = entries
        .iter()
        .filter(|(net, _)| is_host(net) && net.addr().is_ipv4() == (family == Family::V4))
        .map(|(net, span)| (net.addr(), *span))
        .collect();
    let left: HashMap<IpAddr, RuleSpan> = hosts
        .left
        .iter()
        .map(|(net, span)| (net.addr(), *span))
        .collect();
    assert_eq!(left.len(), hosts.left.len());
    assert!(left.iter().all(|(address, span)| own[address] == *span));
    let ours = |address: &&IpAddr| address.is_ipv4() == (family == Family::V4);
    for address in own.keys().chain(others.iter().filter(ours)) {
        let found = find(&hosts.image, *address);
        let as_it_is = match own.get(address) {
            Some(_) if left.contains_key(address) => found == Host::Elsewhere,
            Some(span) => found == Host::Listed(*span),
            None => found == Host::NotListed || found == Host::Elsewhere && !left.is_empty(),
        };
        assert!(as_it_is, "{address}: {found:?}");
    }
}

/// Addresses that fall together, zero among them.
fn any_hosts() -> impl Strategy<Value = Vec<IpNet>> {
    let v4 = prop_oneof![
        Just(0),
        Just(u32::MAX),
        0xcb00_7100..0xcb00_71ff_u32,
        any::<u32>()
    ];
    let near = 0x2001_0db8_u128 << 96;
    let v6 = prop_oneof![
        Just(0),
        Just(u128::MAX),
        near..near + 256,
        (0_u128..256).prop_map(move |at| near + (at << 64)),
        any::<u128>()
    ];
    let either = prop_oneof![
        v4.prop_map(|bits| host(Ipv4Addr::from_bits(bits).into())),
        v6.prop_map(|bits| host(Ipv6Addr::from_bits(bits).into())),
    ];
    prop::collection::vec(either, 0..300)
}

proptest! {
    #[test]
    fn every_host_is_found_with_its_rules_and_no_other_address_is(
        list in any_hosts(),
        prefixes in prop::collection::vec(
            prop_oneof![prefix(Family::V4), prefix(Family::V6)], 0..40
        ),
        seed: u64,
    ) {
        let mut numbers = Numbers::new(seed);
        let all: Vec<IpNet> = list.into_iter().chain(prefixes).collect();
        let others = telling(&all, &mut numbers);
        let entries = spans(all);
        for family in [Family::V4, Family::V6] {
            is_exact(family, &entries, &build(family, &entries, &mut numbers), &others);
        }
    }

    #[test]
    fn an_image_that_is_cut_off_finds_the_right_rules_or_says_that_it_does_not_know(
        list in any_hosts(),
        lines in 0_usize..100,
        seed: u64,
    ) {
        let entries = spans(list);
        for family in [Family::V4, Family::V6] {
            let hosts = build(family, &entries, &mut Numbers::new(seed));
            let all = hosts.image.lines();
            let cut = Image { lines: all[..lines.min(all.len())].to_vec() };
            for (net, span) in &entries {
                if net.addr().is_ipv4() == (family == Family::V4) {
                    let found = find(&cut, net.addr());
                    prop_assert!(
                        found == Host::Listed(*span) || found == Host::Elsewhere,
                        "{}: {:?}", net, found
                    );
                }
            }
        }
    }
}

#[test]
fn a_list_without_hosts_is_a_head_alone_and_finds_nothing() {
    let mut numbers = Numbers::new(1);
    let zeros: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let entries = spans(["0.0.0.0/0", "::/0", "192.0.2.0/31"].map(|net| net.parse().unwrap()));
    for family in [Family::V4, Family::V6] {
        let hosts = build(family, &entries, &mut numbers);
        assert_eq!(hosts.image.lines().len(), 1);
        assert_eq!(hosts.left, []);
        is_exact(family, &entries, &hosts, &zeros);
    }
    // As a map is before the first list: all zeros, or not there.
    for (image, answer) in [
        (Image::filled(4, 0), Host::NotListed),
        (Image::filled(0, 0), Host::Elsewhere),
    ] {
        assert_eq!(zeros.map(|address| find(&image, address)), [answer; 2]);
    }
}

#[test]
fn an_address_of_zeros_is_found_if_it_is_listed_and_never_in_an_empty_slot() {
    let mut numbers = Numbers::new(2);
    let zeros: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    for others in 0..40 {
        let mut list: Vec<IpNet> = (0..others)
            .flat_map(|_| [host(numbers.v4()), host(numbers.v6())])
            .collect();
        for with in [false, true] {
            if with {
                list.extend(zeros.map(host));
            }
            let entries = spans(list.iter().copied());
            for family in [Family::V4, Family::V6] {
                is_exact(
                    family,
                    &entries,
                    &build(family, &entries, &mut numbers),
                    &zeros,
                );
            }
        }
    }
}

#[test]
fn what_finds_its_buckets_full_is_left_and_nothing_is_lost() {
    let mut numbers = Numbers::new(3);
    // All hashes are zero: everybody has the first bucket twice.
    let seeds = hash::Seeds {
        first: 1,
        second: 1,
        last: 0,
    };
    for (family, slots) in [(Family::V4, SLOTS_V4), (Family::V6, SLOTS_V6)] {
        for more in [0, 1, 100] {
            let list = (0..slots + more).map(|_| match family {
                Family::V4 => host(numbers.v4()),
                Family::V6 => host(numbers.v6()),
            });
            let entries = spans(list.collect::<Vec<_>>());
            let hosts = Plan::new(family, &entries).build(seeds);
            assert_eq!(hosts.left.len(), more as usize);
            is_exact(family, &entries, &hosts, &[]);
        }
    }
}

#[test]
fn a_span_that_no_slot_can_hold_is_left() {
    let mut numbers = Numbers::new(4);
    for count in [0, MAX_RULES + 1, u32::MAX] {
        let span = RuleSpan { first: 7, count };
        let entries = [host(numbers.v4()), host(numbers.v6())].map(|host| (host, span));
        for family in [Family::V4, Family::V6] {
            let hosts = build(family, &entries, &mut numbers);
            assert_eq!(hosts.left.len(), 1);
            for (net, _) in entries {
                if net.addr().is_ipv4() == (family == Family::V4) {
                    assert_eq!(find(&hosts.image, net.addr()), Host::Elsewhere);
                }
            }
        }
    }
}

/// Parts of a million that are left, of a list of a million.
fn left_of_a_million(family: Family, address: impl Fn(u32, &mut Numbers) -> IpAddr) -> usize {
    let mut numbers = Numbers::new(5);
    let list: Vec<IpNet> = (0..1_000_000)
        .map(|at| host(address(at, &mut numbers)))
        .collect();
    let others: Vec<IpAddr> = (0..100_000)
        .map(|at| address(at * 7 + 3_000_000, &mut numbers))
        .collect();
    let entries = spans(list);
    let hosts = build(family, &entries, &mut numbers);
    is_exact(family, &entries, &hosts, &others);
    hosts.left.len()
}

#[test]
fn of_a_million_hosts_less_than_one_in_1000_is_left() {
    let most = 1_000;
    let random = |_: u32, numbers: &mut Numbers| numbers.v4();
    assert!(left_of_a_million(Family::V4, random) < most);
    // Whole /24s, then one host in each of many.
    let dense = |at: u32, _: &mut Numbers| Ipv4Addr::from_bits(0x0a00_0000 + at).into();
    assert!(left_of_a_million(Family::V4, dense) < most);
    let spread = |at: u32, _: &mut Numbers| Ipv4Addr::from_bits(at << 8 | 1).into();
    assert!(left_of_a_million(Family::V4, spread) < most);

    let random = |_: u32, numbers: &mut Numbers| numbers.v6();
    assert!(left_of_a_million(Family::V6, random) < most);
    // The same of a /64.
    let base = 0x2001_0db8_u128 << 96;
    let dense = |at: u32, _: &mut Numbers| Ipv6Addr::from_bits(base + u128::from(at)).into();
    assert!(left_of_a_million(Family::V6, dense) < most);
    let spread =
        |at: u32, _: &mut Numbers| Ipv6Addr::from_bits(base + (u128::from(at) << 64) + 1).into();
    assert!(left_of_a_million(Family::V6, spread) < most);
}

#[test]
fn a_million_hosts_take_sixteen_megabytes_of_ipv4_and_28_of_ipv6() {
    assert_eq!(bytes_at_most(Family::V4, 1_000_000) / 1000, 16_000);
    assert_eq!(bytes_at_most(Family::V6, 1_000_000) / 1000, 28_444);
}

#[test]
fn other_seeds_make_another_image_that_finds_the_same() {
    let mut numbers = Numbers::new(6);
    let entries = spans((0..1000).flat_map(|at| {
        [
            host(Ipv4Addr::from_bits(0xcb00_7100 + at).into()),
            host(Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(at)).into()),
        ]
    }));
    for family in [Family::V4, Family::V6] {
        let [one, other] = [(); 2].map(|()| build(family, &entries, &mut numbers));
        is_exact(family, &entries, &one, &[]);
        is_exact(family, &entries, &other, &[]);
        // Not only in the head: hosts lie elsewhere.
        let differ = one.image.lines()[1..]
            .iter()
            .zip(&other.image.lines()[1..])
            .filter(|(one, other)| one != other)
            .count();
        assert!(differ * 10 > one.image.lines().len() * 9, "{differ}");
        assert_eq!(
            one.image.lines()[0][BUCKETS as usize],
            other.image.lines()[0][BUCKETS as usize]
        );
    }
}
