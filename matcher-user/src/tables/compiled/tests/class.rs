use super::super::class::*;
use super::super::filter;
use super::*;
use matcher_common::table::class::{class_v4, class_v6};

fn class_of(tree: &Image, consent: &Image, address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => class_v4(&tree.lines(), v4_key(address.to_bits())),
        IpAddr::V6(address) => {
            let (high, low) = words(address);
            class_v6(&tree.lines(), &consent.lines(), high, low)
        }
    }
}

fn expected(space: &[IpNet], consent: &[IpNet], address: IpAddr) -> Class {
    match (covers(space, address), covers(consent, address)) {
        (false, _) => Class::Outside,
        (true, false) => Class::Default,
        (true, true) => Class::Closer,
    }
}

fn build_v4(space: &[IpNet], consent: &[IpNet]) -> (Image, Spare) {
    let plan = Plan::v4(space.iter().copied(), consent.iter().copied());
    let (image, spare) = plan.build();
    assert_eq!(plan.bytes(), image.bytes().len() as u64);
    let bound = bytes_at_most(Family::V4, space.len() as u64, consent.len() as u64);
    assert!(plan.bytes() <= bound);
    (image, spare)
}

fn no_filter() -> Image {
    filter::Plan::new(Family::V6, []).build(seeds([1; 24]))
}

proptest! {
    #[test]
    fn ipv4_classes_are_exact(
        space in prop::collection::vec(longer_prefix(Family::V4), 0..20),
        consent in prop::collection::vec(prefix(Family::V4), 0..20),
        seed: u64,
    ) {
        let (tree, _) = build_v4(&space, &consent);
        let both = [space.clone(), consent.clone()].concat();
        for address in telling(&both, &mut Numbers(seed)) {
            prop_assert_eq!(
                class_of(&tree, &tree, address),
                expected(&space, &consent, address),
                "{}", address
            );
        }
    }

    #[test]
    fn lines_are_counted_as_they_are_used(
        space in prop::collection::vec(longer_prefix(Family::V4), 0..20),
        consent in prop::collection::vec(prefix(Family::V4), 0..20),
        space_v6 in prop::collection::vec(prefix(Family::V6), 0..20),
    ) {
        for plan in [Plan::v4(space, consent), Plan::v6(space_v6)] {
            let (image, spare) = plan.build();
            let used = image.lines().len() as u64 - spare.lines();
            prop_assert_eq!(used, plan.used_lines());
            let first_spare = used as usize;
            prop_assert!(image.lines()[first_spare..].as_flattened().iter().all(|word| *word == 0));
        }
    }

    #[test]
    fn an_opt_out_is_in_force_and_no_write_on_the_way_tells_a_lie(
        space in prop::collection::vec(longer_prefix(Family::V4), 1..10),
        consent in prop::collection::vec(longer_prefix(Family::V4), 0..6),
        added in prop::collection::vec(prefix(Family::V4), 1..6),
        without_room: bool,
        seed: u64,
    ) {
        let (mut tree, mut spare) = build_v4(&space, &consent);
        if without_room {
            spare.exhaust();
        }
        let all = [space.clone(), consent.clone(), added.clone()].concat();
        let mut in_force = consent;
        let addresses = telling(&all, &mut Numbers(seed));
        for prefix in added {
            let additions = spare.look_closer(&tree.lines(), &prefix);
            let steps = additions.chunks(additions.len().div_ceil(50).max(1));
            for step in steps {
                tree.apply(step);
                for address in &addresses {
                    let class = class_of(&tree, &tree, *address);
                    let before = expected(&space, &in_force, *address);
                    prop_assert!(class == before || class == Class::Closer, "{}", address);
                }
            }
            in_force.push(prefix);
            for address in &addresses {
                let class = class_of(&tree, &tree, *address);
                let now = expected(&space, &in_force, *address);
                prop_assert!(class == now || class == Class::Closer, "{}", address);
            }
        }
    }

    #[test]
    fn ipv6_classes_are_never_wrong_and_seldom_closer_than_needed(
        space in prop::collection::vec(prefix(Family::V6), 0..20),
        consent in prop::collection::vec(prefix(Family::V6), 0..20),
        seed: u64,
    ) {
        let (tree, _) = Plan::v6(space.iter().copied()).build();
        let mut numbers = Numbers(seed);
        let refuse = filter::Plan::new(Family::V6, consent.iter().copied()).build(numbers.seeds());
        let none = no_filter();
        let both = [space.clone(), consent.clone()].concat();
        for address in telling(&both, &mut numbers) {
            let class = class_of(&tree, &refuse, address);
            let exact = expected(&space, &consent, address);
            prop_assert!(class == exact || class == Class::Closer, "{}: {:?}", address, class);
            // Without consent entries only a /64 that is shared out is closer.
            let alone = class_of(&tree, &none, address);
            let exact = expected(&space, &[], address);
            let shared = space.iter().any(|prefix| {
                prefix.prefix_len() > 64
                    && prefix.supernet_to(64).contains(&address)
            });
            prop_assert!(
                alone == exact || (alone == Class::Closer && shared),
                "{}: {:?}", address, alone
            );
        }
    }
}

trait To64 {
    fn supernet_to(&self, length: u8) -> IpNet;
}

impl To64 for IpNet {
    fn supernet_to(&self, length: u8) -> IpNet {
        IpNet::new(self.addr(), length).unwrap().trunc()
    }
}

#[test]
fn one_opt_out_touches_one_subscriber() {
    let space: Vec<IpNet> = vec!["100.64.0.0/10".parse().unwrap()];
    let (mut tree, mut spare) = build_v4(&space, &[]);
    let additions = spare.look_closer(&tree.lines(), &"100.64.3.7/32".parse().unwrap());
    // A node, a leaf, and where they hang.
    assert_eq!(additions.len(), (16 + 1) * 8 + 1);
    tree.apply(&additions);
    let class = |text: &str| class_of(&tree, &tree, text.parse().unwrap());
    assert_eq!(class("100.64.3.7"), Class::Closer);
    assert_eq!(class("100.64.3.6"), Class::Default);
    assert_eq!(class("100.64.3.8"), Class::Default);
    assert_eq!(class("100.65.3.7"), Class::Default);
    assert_eq!(class("100.128.0.0"), Class::Outside);
    // The next one in the same /24 is a single word.
    let additions = spare.look_closer(&tree.lines(), &"100.64.3.8/32".parse().unwrap());
    assert_eq!(additions.len(), 1);
    // Twice is nothing to do.
    assert_eq!(
        spare.look_closer(&tree.lines(), &"100.64.3.7/32".parse().unwrap()),
        []
    );
    // Nor is what no subscriber has.
    assert_eq!(
        spare.look_closer(&tree.lines(), &"8.8.8.8/32".parse().unwrap()),
        []
    );
}

#[test]
fn a_million_opt_outs_in_a_ten_are_exact() {
    let mut numbers = Numbers(7);
    let space: Vec<IpNet> = vec!["100.64.0.0/10".parse().unwrap()];
    let mut refused = vec![false; 1 << 22];
    let consent: Vec<IpNet> = (0..1_000_000)
        .map(|_| {
            let at = numbers.next() as usize % refused.len();
            refused[at] = true;
            host(Ipv4Addr::from_bits(0x6440_0000 + at as u32).into())
        })
        .collect();
    let plan = Plan::v4(space, consent);
    let (tree, _) = plan.build();
    for (at, refused) in refused.iter().enumerate() {
        let class = class_v4(&tree.lines(), v4_key(0x6440_0000 + at as u32));
        assert_eq!(class == Class::Closer, *refused, "{at}");
        assert_ne!(class, Class::Outside);
    }
    assert!(plan.bytes() < 2 << 20, "{}", plan.bytes());
}

#[test]
fn a_tree_without_a_line_says_look_closer() {
    let nothing: &[Line] = &[];
    assert_eq!(class_v4(&nothing, v4_key(1)), Class::Closer);
    assert_eq!(class_v6(&nothing, &nothing, 1, 1), Class::Closer);
}
