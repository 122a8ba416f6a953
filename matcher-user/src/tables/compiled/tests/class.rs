use super::super::class::*;
use super::super::filter;
use super::*;
use matcher_common::table::class::{
    CLASS_BITS, LEAF, LEAF_LINES, NODE_LINES, ROOT, ROOT_LINES, class_v4, class_v6, head,
};

fn class_of(tree: &Image, consent: &Image, address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => class_v4(&tree.lines(), v4_key(address.to_bits())),
        IpAddr::V6(address) => {
            let (high, low) = words(address);
            class_v6(&tree.lines(), &consent.lines(), high, low)
        }
    }
}

fn expected(space: &[IpNet], refusals: &[IpNet], others: &[IpNet], address: IpAddr) -> Class {
    if !covers(space, address) {
        Class::Outside
    } else if covers(others, address) {
        Class::Closer
    } else if covers(refusals, address) {
        Class::Refuses
    } else {
        Class::Default
    }
}

/// Bytes that the tree of so many entries takes at most, wherever they lie:
/// each end of a prefix splits one node and one leaf (in IPv6 five nodes).
fn bytes_at_most(family: Family, entries: usize) -> u64 {
    let nodes = match family {
        Family::V4 => 1,
        Family::V6 => 5,
    };
    let path = u64::from(nodes * NODE_LINES + LEAF_LINES);
    (u64::from(ROOT + ROOT_LINES) + entries as u64 * 2 * path) * LINE_BYTES
}

fn build(family: Family, space: &[IpNet], refusals: &[IpNet], others: &[IpNet]) -> Image {
    let entries = space.len() + refusals.len() + others.len();
    let [space, refusals, others] = [space, refusals, others].map(|nets| nets.iter().copied());
    let plan = Plan::new(family, space, refusals, others);
    assert!(plan.bytes() <= bytes_at_most(family, entries));
    plan.build()
}

/// Lines of what hangs below an entry, and of all below that.
fn below(tree: &Image, entry: u64) -> usize {
    let first = (entry >> CLASS_BITS) as usize;
    if first == 0 {
        0
    } else if entry & u64::from(LEAF) != 0 {
        LEAF_LINES as usize
    } else {
        reached(tree, first, NODE_LINES as usize)
    }
}

/// Lines of a node or the root, and of all below it.
fn reached(tree: &Image, first: usize, lines: usize) -> usize {
    let words = tree.lines()[first..first + lines].as_flattened();
    let entries = words
        .iter()
        .flat_map(|word| [word & 0xffff_ffff, word >> 32]);
    lines + entries.map(|entry| below(tree, entry)).sum::<usize>()
}

fn no_filter() -> Image {
    filter::Plan::new(Family::V6, []).build(seeds([1; 24]))
}

proptest! {
    #[test]
    fn ipv4_classes_are_exact(
        space in prop::collection::vec(longer_prefix(Family::V4), 0..20),
        refusals in prop::collection::vec(prefix(Family::V4), 0..20),
        others in prop::collection::vec(prefix(Family::V4), 0..10),
        seed: u64,
    ) {
        let tree = build(Family::V4, &space, &refusals, &others);
        let all = [space.clone(), refusals.clone(), others.clone()].concat();
        for address in telling(&all, &mut Numbers::new(seed)) {
            prop_assert_eq!(
                class_of(&tree, &tree, address),
                expected(&space, &refusals, &others, address),
                "{}", address
            );
        }
    }

    #[test]
    fn lines_are_counted_as_they_are_used(
        space in prop::collection::vec(longer_prefix(Family::V4), 0..20),
        refusals in prop::collection::vec(prefix(Family::V4), 0..20),
        others in prop::collection::vec(prefix(Family::V4), 0..10),
        space_v6 in prop::collection::vec(prefix(Family::V6), 0..20),
        refusals_v6 in prop::collection::vec(prefix(Family::V6), 0..20),
        others_v6 in prop::collection::vec(prefix(Family::V6), 0..10),
    ) {
        for plan in [
            Plan::new(Family::V4, space, refusals, others),
            Plan::new(Family::V6, space_v6, refusals_v6, others_v6),
        ] {
            let image = plan.build();
            prop_assert_eq!(image.bytes().len() as u64, plan.bytes());
            prop_assert_eq!(image.lines().len(), 1 + reached(&image, 1, ROOT_LINES as usize));
        }
    }

    #[test]
    fn ipv6_classes_are_exact_but_for_parts_of_a_64(
        space in prop::collection::vec(prefix(Family::V6), 0..20),
        refusals in prop::collection::vec(prefix(Family::V6), 0..20),
        others in prop::collection::vec(prefix(Family::V6), 0..10),
        seed: u64,
    ) {
        let tree = build(Family::V6, &space, &refusals, &others);
        let none = no_filter();
        let all = [space.clone(), refusals.clone(), others.clone()].concat();
        for address in telling(&all, &mut Numbers::new(seed)) {
            let class = class_of(&tree, &none, address);
            let exact = expected(&space, &refusals, &others, address);
            let shared = all.iter().any(|prefix| {
                prefix.prefix_len() > 64 && prefix.supernet_to(64).contains(&address)
            });
            prop_assert!(
                class == exact || (class == Class::Closer && shared),
                "{}: {:?}, not {:?}", address, class, exact
            );
        }
    }

    #[test]
    fn a_filter_beside_a_tree_of_the_space_alone_is_never_wrong(
        space in prop::collection::vec(prefix(Family::V6), 0..20),
        consent in prop::collection::vec(prefix(Family::V6), 0..20),
        seed: u64,
    ) {
        let tree = build(Family::V6, &space, &[], &[]);
        let mut numbers = Numbers::new(seed);
        let filter = filter::Plan::new(Family::V6, consent.iter().copied()).build(numbers.seeds());
        let both = [space.clone(), consent.clone()].concat();
        for address in telling(&both, &mut numbers) {
            let class = class_of(&tree, &filter, address);
            let exact = expected(&space, &[], &consent, address);
            prop_assert!(class == exact || class == Class::Closer, "{}: {:?}", address, class);
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
    let nobody = build(Family::V4, &space, &[], &[]);
    let tree = build(Family::V4, &space, &["100.64.3.7/32".parse().unwrap()], &[]);
    // The head has the /8, the root each /24: a leaf.
    assert_eq!(tree.lines().len(), nobody.lines().len() + 1);
    let class = |text: &str| class_of(&tree, &tree, text.parse().unwrap());
    assert_eq!(class("100.64.3.7"), Class::Refuses);
    assert_eq!(class("100.64.3.6"), Class::Default);
    assert_eq!(class("100.64.3.8"), Class::Default);
    assert_eq!(class("100.65.3.7"), Class::Default);
    assert_eq!(class("100.128.0.0"), Class::Outside);
    // The next one in the same /24 has its bits in the same leaf, and one that
    // no subscriber has takes nothing.
    let refused = ["100.64.3.7/32", "100.64.3.8/32", "8.8.8.8/32"].map(|net| net.parse().unwrap());
    let more = build(Family::V4, &space, &refused, &[]);
    assert_eq!(more.lines().len(), tree.lines().len());
    let class = |text: &str| class_of(&more, &more, text.parse().unwrap());
    assert_eq!(class("100.64.3.7"), Class::Refuses);
    assert_eq!(class("100.64.3.8"), Class::Refuses);
    assert_eq!(class("100.64.3.9"), Class::Default);
    assert_eq!(class("8.8.8.8"), Class::Outside);
}

#[test]
fn whoever_has_not_the_bits_in_common_is_outside() {
    let near: Vec<IpNet> = ["2400:8800:10::/44", "2400:88ff::/64"]
        .map(|net| net.parse().unwrap())
        .to_vec();
    let far: Vec<IpNet> = [near[0], "2a02::/16".parse().unwrap()].to_vec();
    for (space, bits) in [(&near, 24), (&far, 0), (&near[..1].to_vec(), 40)] {
        let tree = build(Family::V6, space, &[], &[]);
        assert_eq!(tree.lines()[0][head::BITS as usize], bits, "{space:?}");
        for (address, class) in [
            ("2400:8800:10::", Class::Default),
            ("2400:8800:1f:ffff:ffff:ffff:ffff:ffff", Class::Default),
            ("2400:8800:20::", Class::Outside),
            ("2400:8800:f:ffff::", Class::Outside),
            ("2400:8700:10::", Class::Outside),
            ("2500:8800:10::", Class::Outside),
            ("a400:8800:10::", Class::Outside),
            ("::", Class::Outside),
        ] {
            assert_eq!(
                class_of(&tree, &no_filter(), address.parse().unwrap()),
                class,
                "{address}"
            );
        }
    }
}

#[test]
fn a_million_opt_outs_in_a_ten_are_exact() {
    let mut numbers = Numbers::new(7);
    let space: Vec<IpNet> = vec!["100.64.0.0/10".parse().unwrap()];
    let mut refused = vec![false; 1 << 22];
    let consent: Vec<IpNet> = (0..1_000_000)
        .map(|_| {
            let at = numbers.next() as usize % refused.len();
            refused[at] = true;
            host(Ipv4Addr::from_bits(0x6440_0000 + at as u32).into())
        })
        .collect();
    let plan = Plan::new(Family::V4, space, consent, []);
    let tree = plan.build();
    for (at, refused) in refused.iter().enumerate() {
        let class = class_v4(&tree.lines(), v4_key(0x6440_0000 + at as u32));
        let expected = if *refused {
            Class::Refuses
        } else {
            Class::Default
        };
        assert_eq!(class, expected, "{at}");
    }
    assert!(plan.bytes() < 2 << 20, "{}", plan.bytes());
}

#[test]
fn opt_outs_of_one_length_share_leaves() {
    let space: Vec<IpNet> = vec!["2001:db8::/32".parse().unwrap()];
    let refused = ["2001:db8:7:100::/56", "2001:db8:7:ff00::/56"].map(|net| net.parse().unwrap());
    let tree = build(Family::V6, &space, &refused, &[]);
    // The head has the /32, the root each /48, and below that of both is a leaf.
    let lines = ROOT + ROOT_LINES + LEAF_LINES;
    assert_eq!(tree.lines().len(), lines as usize);
    let class = |text: &str| class_of(&tree, &no_filter(), text.parse().unwrap());
    assert_eq!(class("2001:db8:7:1ff:ffff::"), Class::Refuses);
    assert_eq!(class("2001:db8:7:ff00::1"), Class::Refuses);
    assert_eq!(class("2001:db8:7:200::1"), Class::Default);
    assert_eq!(class("2001:db8:8::1"), Class::Default);
    assert_eq!(class("2001:db9::1"), Class::Outside);
    // Who is given a /64 takes a node in the place of the leaf, and one below it.
    let refused = [
        refused[0],
        refused[1],
        "2001:db8:7:205::/64".parse().unwrap(),
    ];
    let deeper = build(Family::V6, &space, &refused, &[]);
    assert_eq!(
        deeper.lines().len(),
        tree.lines().len() + NODE_LINES as usize
    );
    let class = |text: &str| class_of(&deeper, &no_filter(), text.parse().unwrap());
    assert_eq!(class("2001:db8:7:205::1"), Class::Refuses);
    assert_eq!(class("2001:db8:7:204::1"), Class::Default);
    assert_eq!(class("2001:db8:7:1ff:ffff::"), Class::Refuses);
}

#[test]
fn a_tree_without_a_line_says_look_closer() {
    let nothing: &[Line] = &[];
    assert_eq!(class_v4(&nothing, v4_key(1)), Class::Closer);
    assert_eq!(class_v6(&nothing, &nothing, 1, 1), Class::Closer);
}
