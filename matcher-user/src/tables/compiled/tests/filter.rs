use super::super::filter::*;
use super::*;

fn build(family: Family, prefixes: &[IpNet], numbers: &mut Numbers) -> Image {
    let plan = Plan::new(family, prefixes.iter().copied());
    let image = plan.build(numbers.seeds());
    assert_eq!(plan.bytes(), image.bytes().len() as u64);
    assert!(plan.bytes() <= bytes_at_most(prefixes.len() as u64));
    image
}

fn no_false_no(family: Family, list: &[IpNet], seed: u64) {
    let mut numbers = Numbers::new(seed);
    let image = build(family, list, &mut numbers);
    for address in telling(list, &mut numbers) {
        if covers(list, address) {
            assert!(maybe(&image, address), "{address} in {list:?}");
            assert!(maybe_near(&image, address), "{address} near {list:?}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_an_ipv4_entry_covers_is_a_maybe(
        list in prop::collection::vec(prefix(Family::V4), 0..70),
        seed: u64,
    ) {
        no_false_no(Family::V4, &list, seed);
    }

    #[test]
    fn whatever_an_ipv6_entry_covers_is_a_maybe(
        list in prop::collection::vec(prefix(Family::V6), 0..70),
        seed: u64,
    ) {
        no_false_no(Family::V6, &list, seed);
    }

    #[test]
    fn hosts_of_the_other_family_are_never_taken_for_ones_own(seed: u64) {
        let mut numbers = Numbers::new(seed);
        let mixed: Vec<IpNet> = (0..50)
            .flat_map(|_| [host(numbers.v4()), host(numbers.v6())])
            .collect();
        for family in [Family::V4, Family::V6] {
            let own: Vec<IpNet> = mixed
                .iter()
                .copied()
                .filter(|net| net.addr().is_ipv4() == (family == Family::V4))
                .collect();
            let seeds = numbers.seeds();
            prop_assert_eq!(
                Plan::new(family, mixed.iter().copied()).build(seeds),
                Plan::new(family, own).build(seeds)
            );
        }
    }
}

#[test]
fn an_empty_list_answers_no_and_a_list_of_one_knows_that_one() {
    let mut numbers = Numbers::new(1);
    for (family, texts) in [
        (
            Family::V4,
            [
                "0.0.0.0/0",
                "198.51.100.0/24",
                "198.51.100.128/25",
                "198.51.100.7/32",
            ],
        ),
        (
            Family::V6,
            [
                "::/0",
                "2001:db8::/32",
                "2001:db8:0:1::/64",
                "2001:db8::1/128",
            ],
        ),
    ] {
        for text in texts {
            let prefix: IpNet = text.parse().unwrap();
            let image = build(family, &[], &mut numbers);
            for address in telling(&[prefix], &mut numbers) {
                assert!(!maybe(&image, address), "{address}");
            }
            let image = build(family, &[prefix], &mut numbers);
            assert!(maybe(&image, prefix.network()) && maybe(&image, prefix.broadcast()));
        }
    }
}

#[test]
fn more_lengths_than_levels_are_held_without_a_false_no() {
    let mut numbers = Numbers::new(3);
    let all: Vec<IpNet> = (17..=127)
        .map(|length| {
            let IpAddr::V6(address) = numbers.v6() else {
                unreachable!()
            };
            Ipv6Net::new(address, length).unwrap().trunc().into()
        })
        .collect();
    let image = build(Family::V6, &all, &mut numbers);
    for address in telling(&all, &mut numbers) {
        let told = maybe(&image, address) && maybe_near(&image, address);
        assert!(told || !covers(&all, address), "{address}");
    }
}

/// One million entries, 95 % hosts, 5 % prefixes of the lengths given.
fn million(family: Family, lengths: &[u8], numbers: &mut Numbers) -> Vec<IpNet> {
    (0..1_000_000)
        .map(|at| {
            let address = match family {
                Family::V4 => numbers.v4(),
                Family::V6 => numbers.v6(),
            };
            if at % 20 == 0 {
                let length = lengths[(numbers.next() % lengths.len() as u64) as usize];
                IpNet::new(address, length).unwrap().trunc()
            } else {
                host(address)
            }
        })
        .collect()
}

/// Share of addresses that are a maybe though nothing covers them, in parts
/// of a million.
fn false_maybes(image: &Image, addresses: impl Iterator<Item = IpAddr>) -> u64 {
    share(addresses, |address| maybe(image, address))
}

/// Share of addresses for which this holds, in parts of a million.
fn share(addresses: impl Iterator<Item = IpAddr>, holds: impl Fn(IpAddr) -> bool) -> u64 {
    let (mut seen, mut found) = (0_u64, 0_u64);
    for address in addresses {
        seen += 1;
        found += u64::from(holds(address));
    }
    found * 1_000_000 / seen
}

#[test]
fn of_addresses_by_the_million_one_in_thirty_is_near_an_entry() {
    let mut numbers = Numbers::new(7);
    for (family, lengths) in [
        (Family::V4, &[20, 21, 22, 23, 24, 25, 26, 27, 28][..]),
        (Family::V6, &[32, 40, 44, 48, 56, 64][..]),
    ] {
        let list = million(family, lengths, &mut numbers);
        let image = Plan::before_hosts(family, list).build(numbers.seeds());
        let random = (0..1_000_000).map(|_| match family {
            Family::V4 => numbers.v4(),
            Family::V6 => numbers.v6(),
        });
        let near = share(random, |address| maybe_near(&image, address));
        assert!(near < 33_000, "{family:?}: {near} in a million");
    }
}

#[test]
fn of_a_million_entries_less_than_two_uncovered_addresses_in_1000_are_a_maybe() {
    of_a_million_less_are_a_maybe(Plan::new, 2_000);
}

#[test]
fn before_a_table_of_hosts_less_than_15_uncovered_addresses_in_1000_are_a_maybe() {
    of_a_million_less_are_a_maybe(Plan::before_hosts, 15_000);
}

fn of_a_million_less_are_a_maybe(plan: impl Fn(Family, Vec<IpNet>) -> Plan, limit: u64) {
    let mut numbers = Numbers::new(4);
    for (family, lengths) in [
        (Family::V4, &[24, 25, 26, 27, 28, 29, 30, 31][..]),
        (Family::V6, &[32, 40, 44, 48, 56, 64][..]),
    ] {
        let mut list = million(family, lengths, &mut numbers);
        let image = plan(family, list.clone()).build(numbers.seeds());
        list.sort_unstable();
        // Prefixes nest nowhere deeper than one in another: the neighbours in
        // the order of the list tell.
        let covered = |address: IpAddr| {
            let at = list.partition_point(|net| net.network() <= address);
            list[at.saturating_sub(64)..at]
                .iter()
                .any(|net| net.contains(&address))
        };
        let random: Vec<IpAddr> = (0..1_000_000)
            .map(|_| {
                if family == Family::V4 {
                    numbers.v4()
                } else {
                    numbers.v6()
                }
            })
            .filter(|address| !covered(*address))
            .collect();
        let near: Vec<IpAddr> = list
            .iter()
            .filter(|net| net.prefix_len() == net.max_prefix_len())
            .map(|net| match net.addr() {
                IpAddr::V4(address) => {
                    Ipv4Addr::from_bits(address.to_bits() ^ (numbers.next() as u32 % 255 + 1))
                        .into()
                }
                IpAddr::V6(address) => {
                    let other = u128::from(numbers.next()) << 16 | 1;
                    IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() ^ other))
                }
            })
            .filter(|address| !covered(*address))
            .collect();
        assert!(random.len() > 900_000 && near.len() > 800_000);
        for (kind, addresses) in [("uniform", random), ("near", near)] {
            let share = false_maybes(&image, addresses.into_iter());
            assert!(share < limit, "{family:?} {kind}: {share} in a million");
        }
    }
}

#[test]
fn whole_blocks_of_hosts_do_not_make_their_neighbours_maybes() {
    let mut numbers = Numbers::new(5);
    // Every second address of 1,024 adjacent /24s, and ::1 to ::ff of 1,024
    // adjacent /64s: what a plain multiplication would map to few words.
    let v4 = |at: u32| IpAddr::from(Ipv4Addr::from_bits(0xc612_0000 + at));
    let v6 = |net: u32, at: u32| {
        let high = 0x2001_0db8_0000_0000_u64 + u64::from(net);
        IpAddr::from(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(at)))
    };
    let list: Vec<IpNet> = (0..1 << 17).map(|at| host(v4(at * 2))).collect();
    let image = build(Family::V4, &list, &mut numbers);
    let share = false_maybes(&image, (0..1 << 17).map(|at| v4(at * 2 + 1)));
    assert!(share < 2_000, "{share} in a million");

    let list: Vec<IpNet> = (0..1 << 10)
        .flat_map(|net| (1..256).map(move |at| host(v6(net, at))))
        .collect();
    let image = build(Family::V6, &list, &mut numbers);
    let near = (0..1 << 10).flat_map(|net| (256..512).map(move |at| v6(net, at)));
    let share = false_maybes(&image, near);
    assert!(share < 2_000, "{share} in a million");
}

#[test]
fn a_million_hosts_take_two_megabytes() {
    let mut numbers = Numbers::new(6);
    let v4 = Plan::new(Family::V4, (0..1_000_000).map(|_| host(numbers.v4())));
    let v6 = Plan::new(Family::V6, (0..1_000_000).map(|_| host(numbers.v6())));
    for plan in [v4, v6] {
        assert_eq!(plan.bytes() / 1000, 2_133);
    }
}
