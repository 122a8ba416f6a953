use super::super::class::*;
use super::super::filter;
use super::*;
use matcher_common::table::class::{
    CLASS_BITS, LEAF_LINES, LEAF_SHIFT_V4, LEAF_SHIFT_V6, NODE_LINES, ROOT_LINES, ROOT_SHIFT, STEP,
    class_v4, class_v6,
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
fn bytes_at_most(family: Family, subscriber_prefixes: usize, consent_entries: usize) -> u64 {
    let (ends, nodes) = match family {
        Family::V4 => ((subscriber_prefixes + consent_entries) * 2, 1),
        Family::V6 => (subscriber_prefixes * 2, 5),
    };
    let path = u64::from(nodes * NODE_LINES + LEAF_LINES);
    (u64::from(ROOT_LINES) + ends as u64 * path) * LINE_BYTES
}

fn build_v4(space: &[IpNet], refusals: &[IpNet], others: &[IpNet]) -> Image {
    let [space, refusals, others] = [space, refusals, others].map(|nets| nets.iter().copied());
    let entries = refusals.len() + others.len();
    let most = bytes_at_most(Family::V4, space.len(), entries);
    let plan = Plan::v4(space, refusals, others);
    assert!(plan.bytes() <= most);
    plan.build()
}

fn build_v6(space: &[IpNet]) -> Image {
    let plan = Plan::v6(space.iter().copied());
    assert!(plan.bytes() <= bytes_at_most(Family::V6, space.len(), 0));
    plan.build()
}

/// Lines of the root, node or leaf at line `first`, and of all below it.
fn reached(tree: &Image, first: usize, shift: u32, leaf_shift: u32) -> usize {
    if shift == leaf_shift {
        return LEAF_LINES as usize;
    }
    let own = if shift == ROOT_SHIFT {
        ROOT_LINES
    } else {
        NODE_LINES
    } as usize;
    let entries = tree.lines()[first..first + own].as_flattened();
    let below = entries
        .iter()
        .flat_map(|word| [word & 0xffff_ffff, word >> 32])
        .map(|entry| entry >> CLASS_BITS)
        .filter(|down| *down != 0)
        .map(|down| reached(tree, down as usize, shift - STEP, leaf_shift));
    own + below.sum::<usize>()
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
        let tree = build_v4(&space, &refusals, &others);
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
    ) {
        for (plan, leaf_shift) in [
            (Plan::v4(space, refusals, others), LEAF_SHIFT_V4),
            (Plan::v6(space_v6), LEAF_SHIFT_V6),
        ] {
            let image = plan.build();
            prop_assert_eq!(image.bytes().len() as u64, plan.bytes());
            prop_assert_eq!(image.lines().len(), reached(&image, 0, ROOT_SHIFT, leaf_shift));
        }
    }

    #[test]
    fn ipv6_classes_are_never_wrong_and_seldom_closer_than_needed(
        space in prop::collection::vec(prefix(Family::V6), 0..20),
        consent in prop::collection::vec(prefix(Family::V6), 0..20),
        seed: u64,
    ) {
        let tree = build_v6(&space);
        let mut numbers = Numbers::new(seed);
        let refuse = filter::Plan::new(Family::V6, consent.iter().copied()).build(numbers.seeds());
        let none = no_filter();
        let both = [space.clone(), consent.clone()].concat();
        for address in telling(&both, &mut numbers) {
            let class = class_of(&tree, &refuse, address);
            let exact = expected(&space, &[], &consent, address);
            prop_assert!(class == exact || class == Class::Closer, "{}: {:?}", address, class);
            // Without consent entries only a /64 that is shared out is closer.
            let alone = class_of(&tree, &none, address);
            let exact = expected(&space, &[], &[], address);
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
    let nobody = build_v4(&space, &[], &[]);
    let tree = build_v4(&space, &["100.64.3.7/32".parse().unwrap()], &[]);
    // A node and a leaf.
    assert_eq!(tree.lines().len(), nobody.lines().len() + 16 + 1);
    let class = |text: &str| class_of(&tree, &tree, text.parse().unwrap());
    assert_eq!(class("100.64.3.7"), Class::Refuses);
    assert_eq!(class("100.64.3.6"), Class::Default);
    assert_eq!(class("100.64.3.8"), Class::Default);
    assert_eq!(class("100.65.3.7"), Class::Default);
    assert_eq!(class("100.128.0.0"), Class::Outside);
    // The next one in the same /24 has its bits in the same leaf, and one that
    // no subscriber has takes nothing.
    let refused = ["100.64.3.7/32", "100.64.3.8/32", "8.8.8.8/32"].map(|net| net.parse().unwrap());
    let more = build_v4(&space, &refused, &[]);
    assert_eq!(more.lines().len(), tree.lines().len());
    let class = |text: &str| class_of(&more, &more, text.parse().unwrap());
    assert_eq!(class("100.64.3.7"), Class::Refuses);
    assert_eq!(class("100.64.3.8"), Class::Refuses);
    assert_eq!(class("100.64.3.9"), Class::Default);
    assert_eq!(class("8.8.8.8"), Class::Outside);
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
    let plan = Plan::v4(space, consent, []);
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
fn a_tree_without_a_line_says_look_closer() {
    let nothing: &[Line] = &[];
    assert_eq!(class_v4(&nothing, v4_key(1)), Class::Closer);
    assert_eq!(class_v6(&nothing, &nothing, 1, 1), Class::Closer);
}
