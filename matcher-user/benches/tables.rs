//! What a look-up in the compiled tables costs on the host, beside the
//! alternatives that were not taken: `cargo bench -p matcher-user --bench
//! tables`.
//!
//! Two figures a line: nanoseconds a look-up when the processor may work on
//! many at once, as on a stream of packets, and when each has to wait for the
//! one before it. The least of nine rounds over a million addresses, each
//! round in another order of the candidates.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark: it prints, and a wrong index is a bug in it"
)]

use std::{hint::black_box, time::Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use matcher_common::{
    abi::RuleSpan,
    table::{
        Line,
        class::{Class, class_v4, class_v6},
        filter::maybe,
        hash::{self, Seeds},
        hosts::{Host, find_v4, find_v6},
        v4_key,
    },
};
use matcher_user::tables::compiled::{Family, class, filter, hosts, seeds};

/// Addresses looked up a round.
const LOOKUPS: usize = 1 << 20;
const ROUNDS: usize = 9;

/// Numbers that are the same in every run.
struct Numbers(fastrand::Rng);

impl Numbers {
    fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    /// From 0 to `bound`, the first of them far more often: Zipf with
    /// exponent one.
    fn zipf(&mut self, bound: usize) -> usize {
        ((bound as f64).powf(self.0.f64()) - 1.0) as usize % bound
    }

    fn seeds(&mut self) -> Seeds {
        let mut random = [0; 24];
        self.0.fill(&mut random);
        seeds(random)
    }

    fn address(&mut self, family: Family) -> Address {
        match family {
            Family::V4 => (v4_key(self.0.u32(..)), 0),
            Family::V6 => (self.next() >> 3 | 1 << 61, self.next()),
        }
    }
}

/// The two words of an address.
type Address = (u64, u64);
/// A look-up under test.
type Lookup<'a> = (&'a str, Box<dyn Fn(&[Address], bool) -> f64 + 'a>);

/// Nanoseconds a look-up over all addresses. `chained`: the next address
/// depends on the answer to the last.
#[inline(always)]
fn time(addresses: &[Address], chained: bool, lookup: impl Fn(Address) -> u64) -> f64 {
    let start = Instant::now();
    let mut found = 0;
    if chained {
        for &(high, low) in addresses {
            // The answer changes nothing, but the processor has to wait for it.
            found = black_box(lookup((high ^ (found >> 8), low)));
        }
    } else {
        for &address in addresses {
            found += lookup(address);
        }
    }
    black_box(found);
    start.elapsed().as_secs_f64() * 1e9 / addresses.len() as f64
}

fn net(address: Address, family: Family, length: u8) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::new(((address.0 >> 32) as u32).into(), length)
            .expect("a length below 33")
            .trunc()
            .into(),
        Family::V6 => {
            let bits = u128::from(address.0) << 64 | u128::from(address.1);
            Ipv6Net::new(bits.into(), length)
                .expect("a length below 129")
                .trunc()
                .into()
        }
    }
}

/// 95 % hosts, 5 % prefixes.
fn list(family: Family, entries: usize, numbers: &mut Numbers) -> (Vec<Address>, Vec<IpNet>) {
    let lengths: &[u8] = match family {
        Family::V4 => &[20, 21, 22, 23, 24, 24, 24, 25, 26, 27, 28, 29, 30],
        Family::V6 => &[29, 32, 32, 36, 40, 44, 48, 48, 56, 64],
    };
    let hosts = entries - entries / 20;
    let addresses: Vec<Address> = (0..hosts).map(|_| numbers.address(family)).collect();
    let host_length = if family == Family::V4 { 32 } else { 128 };
    let mut prefixes: Vec<IpNet> = addresses
        .iter()
        .map(|address| net(*address, family, host_length))
        .collect();
    while prefixes.len() < entries {
        let length = lengths[numbers.below(lengths.len())];
        prefixes.push(net(numbers.address(family), family, length));
    }
    (addresses, prefixes)
}

/// The same /24 or /48, another host.
fn neighbour(family: Family, (high, low): Address, numbers: &mut Numbers) -> Address {
    match family {
        Family::V4 => (high ^ (numbers.next() % 255 + 1) << 32, 0),
        Family::V6 => (high ^ (numbers.next() & 0xffff), low ^ numbers.next() << 1),
    }
}

fn traffic(
    family: Family,
    hosts: &[Address],
    numbers: &mut Numbers,
) -> Vec<(&'static str, Vec<Address>)> {
    let crowd: Vec<Address> = (0..LOOKUPS).map(|_| numbers.address(family)).collect();
    let mut make = |pick: &mut dyn FnMut(&mut Numbers) -> Address| -> Vec<Address> {
        (0..LOOKUPS).map(|_| pick(numbers)).collect()
    };
    vec![
        ("uniform", make(&mut |numbers| numbers.address(family))),
        (
            "near miss",
            make(&mut |numbers| {
                let host = hosts[numbers.below(hosts.len())];
                neighbour(family, host, numbers)
            }),
        ),
        ("hot set", make(&mut |numbers| crowd[numbers.below(1000)])),
        ("Zipf", make(&mut |numbers| crowd[numbers.zipf(LOOKUPS)])),
    ]
}

fn measure(title: &str, traffic: &[(&str, Vec<Address>)], lookups: &[Lookup<'_>]) {
    for (kind, addresses) in traffic {
        let mut least = vec![[f64::MAX; 2]; lookups.len()];
        for round in 0..ROUNDS {
            for step in 0..lookups.len() {
                let at = (round + step) % lookups.len();
                // Untimed: what the candidate before it left in the caches.
                lookups[at].1(addresses, false);
                for chained in [false, true] {
                    let ns = lookups[at].1(addresses, chained);
                    let slot = &mut least[at][usize::from(chained)];
                    *slot = slot.min(ns);
                }
            }
        }
        for ((name, _), [stream, chained]) in lookups.iter().zip(least) {
            println!("{title:<22} {kind:<10} {name:<40} {stream:>6.1} {chained:>6.1}");
        }
    }
}

/// Alternative: bitmap of all /24s with ranks, then 256-bit leaves. Exact.
struct RankLeaf {
    words: Vec<u64>,
    ranks: Vec<u32>,
    leaves: Vec<[u64; 4]>,
}

impl RankLeaf {
    fn new(prefixes: &[IpNet]) -> Self {
        let mut spans: Vec<(u32, u32)> = prefixes
            .iter()
            .map(|prefix| match prefix {
                IpNet::V4(net) => (net.network().to_bits(), net.broadcast().to_bits()),
                IpNet::V6(_) => unreachable!("a table of IPv4"),
            })
            .collect();
        spans.sort_unstable();
        let mut words = vec![0_u64; 1 << 18];
        for (first, last) in &spans {
            for at in first >> 8..=last >> 8 {
                words[at as usize / 64] |= 1 << (at % 64);
            }
        }
        let mut ranks = Vec::new();
        let mut rank = 0;
        for word in &words {
            ranks.push(rank);
            rank += word.count_ones();
        }
        let mut table = Self {
            words,
            ranks,
            leaves: vec![[0; 4]; rank as usize],
        };
        for (first, last) in spans {
            for at in first >> 8..=last >> 8 {
                let leaf = table.leaf(at).expect("its bit was set");
                for bit in first.max(at << 8)..=last.min(at << 8 | 255) {
                    table.leaves[leaf][bit as usize % 256 / 64] |= 1 << (bit % 64);
                }
            }
        }
        table
    }

    #[inline(always)]
    fn leaf(&self, at: u32) -> Option<usize> {
        let word = self.words[at as usize / 64];
        let bit = 1 << (at % 64);
        // BPF has no population count.
        let mut below = word & (bit - 1);
        below -= below >> 1 & 0x5555_5555_5555_5555;
        below = (below & 0x3333_3333_3333_3333) + (below >> 2 & 0x3333_3333_3333_3333);
        below = (below + (below >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
        let count = below.wrapping_mul(0x0101_0101_0101_0101) >> 56;
        (word & bit != 0).then(|| self.ranks[at as usize / 64] as usize + count as usize)
    }

    #[inline(always)]
    fn holds(&self, address: u32) -> bool {
        self.leaf(address >> 8).is_some_and(|leaf| {
            self.leaves[leaf][address as usize % 256 / 64] >> (address % 64) & 1 != 0
        })
    }
}

/// Alternative: a Bloom filter in blocks of a word, 32 bits a host, prefixes
/// in a probe a length in use.
struct EveryLength {
    words: Vec<u64>,
    seeds: Seeds,
    lengths: Vec<u32>,
}

impl EveryLength {
    fn new(prefixes: &[IpNet], seeds: Seeds) -> Self {
        let mut lengths: Vec<u32> = prefixes.iter().map(|net| net.prefix_len().into()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut words = vec![0; prefixes.len().div_ceil(2) + 1024];
        for prefix in prefixes {
            let (high, low) = match prefix {
                IpNet::V4(net) => (v4_key(net.addr().to_bits()), 0),
                IpNet::V6(net) => {
                    let bits = net.addr().to_bits();
                    ((bits >> 64) as u64, bits as u64)
                }
            };
            let length = prefix.prefix_len().into();
            let (word, bits) = Self::probe(seeds, high, low, length, words.len());
            words[word] |= bits;
        }
        Self {
            words,
            seeds,
            lengths,
        }
    }

    #[inline(always)]
    fn probe(seeds: Seeds, high: u64, low: u64, length: u32, words: usize) -> (usize, u64) {
        let hash = if length > 64 {
            hash::long(seeds, high, low, length)
        } else {
            hash::short(seeds, high, length)
        };
        let bits = [26, 20, 14, 8, 2].map(|shift| 1_u64 << (hash >> shift & 63));
        let word = ((hash >> 32) * words as u64) >> 32;
        (word as usize, bits.iter().fold(0, |all, bit| all | bit))
    }

    #[inline(always)]
    fn holds(&self, high: u64, low: u64) -> bool {
        self.lengths.iter().any(|length| {
            let (word, bits) = Self::probe(self.seeds, high, low, *length, self.words.len());
            self.words[word] & bits == bits
        })
    }
}

fn membership(family: Family, entries: usize) {
    let mut numbers = Numbers::new(entries as u64);
    let (hosts, prefixes) = list(family, entries, &mut numbers);
    let start = Instant::now();
    let plan = filter::Plan::new(family, prefixes.iter().copied());
    let image = plan.build(numbers.seeds());
    let title = format!("C&C {family:?} {entries}");
    println!(
        "{title:<22} built in {:.0} ms, {:.1} MB",
        start.elapsed().as_secs_f64() * 1e3,
        plan.bytes() as f64 / 1e6
    );
    let lines: &[Line] = image.lines();
    let traffic = traffic(family, &hosts, &mut numbers);
    let share = traffic[0]
        .1
        .iter()
        .filter(|(high, low)| match family {
            Family::V4 => maybe(&lines, *high),
            Family::V6 => maybe(&lines, (*high, *low)),
        })
        .count() as f64
        / LOOKUPS as f64;
    println!(
        "{title:<22} {:.3} % of uniform traffic is a maybe or covered",
        share * 100.0
    );
    let every = EveryLength::new(&prefixes, numbers.seeds());
    match family {
        Family::V4 => {
            let exact = RankLeaf::new(&prefixes);
            println!(
                "{title:<22} rank and leaves: {:.1} MB",
                (exact.leaves.len() * 32 + (3 << 20)) as f64 / 1e6
            );
            let lookups: Vec<Lookup<'_>> = vec![
                (
                    "filter",
                    Box::new(|a, c| time(a, c, |(high, _)| maybe(&lines, high).into())),
                ),
                (
                    "rank and leaves",
                    Box::new(|a, c| {
                        time(a, c, |(high, _)| exact.holds((high >> 32) as u32).into())
                    }),
                ),
                (
                    "blocks of a word, a probe a length",
                    Box::new(|a, c| time(a, c, |(high, low)| every.holds(high, low).into())),
                ),
            ];
            measure(&title, &traffic, &lookups);
        }
        Family::V6 => {
            let lookups: Vec<Lookup<'_>> = vec![
                (
                    "filter",
                    Box::new(|a, c| time(a, c, |words| maybe(&lines, words).into())),
                ),
                (
                    "blocks of a word, a probe a length",
                    Box::new(|a, c| time(a, c, |(high, low)| every.holds(high, low).into())),
                ),
            ];
            measure(&title, &traffic, &lookups);
        }
    }
}

/// Hosts alone, asked for in no order; and addresses that are not listed, which
/// ask both buckets.
fn rules_of_hosts(family: Family, entries: usize) {
    let mut numbers = Numbers::new(entries as u64 + 2);
    let addresses: Vec<Address> = (0..entries).map(|_| numbers.address(family)).collect();
    let length = if family == Family::V4 { 32 } else { 128 };
    let mut listed: Vec<IpNet> = addresses
        .iter()
        .map(|address| net(*address, family, length))
        .collect();
    // As lists come.
    listed.sort_unstable();
    listed.dedup();
    let listed: Vec<(IpNet, RuleSpan)> = (0..)
        .zip(listed)
        .map(|(first, host)| (host, RuleSpan { first, count: 1 }))
        .collect();
    let seeds = numbers.seeds();
    let mut least = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        black_box(hosts::Plan::new(family, &listed).build(seeds));
        least = least.min(start.elapsed().as_secs_f64());
    }
    let plan = hosts::Plan::new(family, &listed);
    let built = plan.build(seeds);
    let title = format!("hosts {family:?} {entries}");
    println!(
        "{title:<22} built in {:.0} ms, {:.1} MB, {} of {} left",
        least * 1e3,
        plan.bytes() as f64 / 1e6,
        built.left.len(),
        listed.len(),
    );
    let lines: &[Line] = built.image.lines();
    let mut pick = |listed: bool| -> Vec<Address> {
        (0..LOOKUPS)
            .map(|_| {
                if listed {
                    addresses[numbers.below(entries)]
                } else {
                    numbers.address(family)
                }
            })
            .collect()
    };
    let traffic = [("listed", pick(true)), ("not listed", pick(false))];
    let first = |found: Host| match found {
        Host::Listed(span) => span.first.into(),
        Host::NotListed | Host::Elsewhere => 0,
    };
    let lookup: Lookup<'_> = match family {
        Family::V4 => (
            "two buckets",
            Box::new(|a, c| {
                time(a, c, |(high, _)| {
                    first(find_v4(&lines, (high >> 32) as u32))
                })
            }),
        ),
        Family::V6 => (
            "two buckets",
            Box::new(|a, c| time(a, c, |(high, low)| first(find_v6(&lines, high, low)))),
        ),
    };
    measure(&title, &traffic, &[lookup]);
}

/// A million active subscribers; as many opt-outs as entries beside them.
fn classes(family: Family, entries: usize, space_prefixes: usize) {
    let mut numbers = Numbers::new(entries as u64 + 1);
    let v6_base = 0x2001_0db8_0000_0000_u64;
    // Subscriber number n of 2^22, spread over the prefixes of the space.
    let per_prefix = (1_u64 << 22) / space_prefixes as u64;
    let subscriber = |numbers: &mut Numbers| -> Address {
        let number = numbers.next() % (per_prefix * space_prefixes as u64);
        let (prefix, at) = (number / per_prefix, number % per_prefix);
        match family {
            Family::V4 if space_prefixes == 1 => (v4_key(0x6440_0000 + at as u32), 0),
            // /22s, one in each /18.
            Family::V4 => (v4_key(((prefix << 14) + at % 1024) as u32), 0),
            // A /56 each.
            Family::V6 => (
                (v6_base + (prefix << 32) + (at << 8)) | numbers.next() & 0xff,
                numbers.next(),
            ),
        }
    };
    let space: Vec<IpNet> = (0..space_prefixes as u64)
        .map(|prefix| match family {
            Family::V4 if space_prefixes == 1 => net((v4_key(0x6440_0000), 0), family, 10),
            Family::V4 => net((v4_key((prefix << 14) as u32), 0), family, 22),
            Family::V6 => net((v6_base + (prefix << 32), 0), family, 32),
        })
        .collect();
    let refused: Vec<IpNet> = (0..entries)
        .map(|_| {
            let length = if family == Family::V4 { 32 } else { 56 };
            net(subscriber(&mut numbers), family, length)
        })
        .collect();
    let title = format!("class {family:?} {entries}/{space_prefixes}");
    let start = Instant::now();
    let plan = class::Plan::new(family, space, refused, []);
    let no_filter = filter::Plan::new(Family::V6, []);
    let tree = plan.build();
    let no_filter = no_filter.build(numbers.seeds());
    println!(
        "{title:<22} built in {:.0} ms, {:.1} MB",
        start.elapsed().as_secs_f64() * 1e3,
        plan.bytes() as f64 / 1e6
    );
    let (tree, no_filter): (&[Line], &[Line]) = (tree.lines(), no_filter.lines());
    let class_of = |(high, low)| match family {
        Family::V4 => class_v4(&tree, high),
        Family::V6 => class_v6(&tree, &no_filter, high, low),
    };
    let mut active: Vec<Address> = Vec::new();
    while active.len() < LOOKUPS {
        let address = subscriber(&mut numbers);
        if class_of(address) == Class::Default {
            active.push(address);
        }
    }
    let hot: Vec<Address> = (0..LOOKUPS).map(|_| active[numbers.below(1000)]).collect();
    let zipf: Vec<Address> = (0..LOOKUPS)
        .map(|_| active[numbers.zipf(LOOKUPS)])
        .collect();
    let outside: Vec<Address> = (0..LOOKUPS).map(|_| numbers.address(family)).collect();
    let traffic = [
        ("subscriber", active),
        ("hot set", hot),
        ("Zipf", zipf),
        ("outside", outside),
    ];
    let lookups: Vec<Lookup<'_>> = match family {
        Family::V4 => vec![(
            "tree",
            Box::new(|a, c| time(a, c, |(high, _)| class_v4(&tree, high) as u64)),
        )],
        Family::V6 => vec![(
            "tree, filter",
            Box::new(|a, c| {
                time(a, c, |(high, low)| {
                    class_v6(&tree, &no_filter, high, low) as u64
                })
            }),
        )],
    };
    measure(&title, &traffic, &lookups);
}

fn main() {
    // `cargo test` runs benches too: only that they start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!(
        "{:<22} {:<10} {:<40} {:>6} {:>6}",
        "table", "traffic", "", "stream", "chain"
    );
    for family in [Family::V4, Family::V6] {
        for entries in [1_000, 100_000, 1_000_000] {
            membership(family, entries);
        }
    }
    for family in [Family::V4, Family::V6] {
        for entries in [1_000, 100_000, 1_000_000] {
            rules_of_hosts(family, entries);
        }
    }
    for family in [Family::V4, Family::V6] {
        for entries in [1_000, 100_000, 1_000_000] {
            classes(family, entries, 1);
        }
        classes(family, 1_000_000, 10_000);
    }
}
