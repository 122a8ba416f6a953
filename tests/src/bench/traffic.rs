//! Pairs of addresses for the packets of a row, each with a known answer.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use matcher_common::abi::Counter;
use matcher_user::kernel::bench::Flows;

use super::{
    Family,
    lists::{Covered, inside, remote},
    population::Population,
};
use crate::{frames::Frame, traffic::Random};

/// What the packets of a row have in common.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A consenting subscriber and an address that is not listed, both uniform.
    Miss,
    /// The same, the address in the same /24 (IPv4) or /48 (IPv6) as a listed
    /// host: clouds.
    NearMiss,
    /// The same, the address one of a thousand.
    HotSet,
    /// The same, the address one of as many as there are pairs, by Zipf's law:
    /// the second half as often as the first, the third a third.
    Zipf,
    /// A consenting subscriber and a listed address.
    Hit,
    /// One consenting subscriber and one listed address.
    Flood,
    /// Two addresses that are no subscriber's.
    Transit,
    /// A subscriber who opted out and an address that is not listed.
    OptedOut,
}

/// Addresses of the hot set.
const HOT: usize = 1_000;

impl Traffic {
    /// As the report writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::NearMiss => "near-miss",
            Self::HotSet => "hot-set",
            Self::Zipf => "zipf",
            Self::Hit => "hit",
            Self::Flood => "flood",
            Self::Transit => "transit",
            Self::OptedOut => "opted-out",
        }
    }

    /// The exit that every packet must take.
    pub fn exit(self) -> Counter {
        match self {
            Self::Miss | Self::NearMiss | Self::HotSet | Self::Zipf => Counter::NoMatch,
            Self::Hit | Self::Flood => Counter::Matched,
            Self::Transit => Counter::Transit,
            Self::OptedOut => Counter::OptedOut,
        }
    }

    /// Look-ups in the C&C tables for `packets`: one for each, or none (R1).
    pub fn lookups(self, packets: u64) -> u64 {
        match self.exit() {
            Counter::NoMatch | Counter::Matched => packets,
            _ => 0,
        }
    }

    /// Matches among `packets`.
    pub fn matches(self, packets: u64) -> u64 {
        match self.exit() {
            Counter::Matched => packets,
            _ => 0,
        }
    }
}

/// The two ends of a packet: the subscriber's, where there is one, and the
/// other.
pub type Pair = (IpAddr, IpAddr);

/// Makes pairs of one family.
pub struct Pairs<'a> {
    family: Family,
    population: &'a Population,
    /// The largest list: what misses keep away from.
    listed: &'a [IpNet],
    covered: Covered,
}

impl<'a> Pairs<'a> {
    /// With these subscribers and this list.
    pub fn new(family: Family, population: &'a Population, listed: &'a [IpNet]) -> Self {
        Self {
            family,
            population,
            listed,
            covered: Covered::by(listed),
        }
    }

    /// `count` pairs; hits are of the first `entries` of the list.
    ///
    /// # Errors
    /// Hits of an empty list, near misses of a list without hosts, or opt-outs
    /// where nobody opted out: a mistake of the benchmark.
    pub fn of(
        &self,
        traffic: Traffic,
        entries: usize,
        count: usize,
        random: &mut Random,
    ) -> Result<Vec<Pair>> {
        let listed = self.listed.get(..entries).context("the list is shorter")?;
        let mut far: Box<dyn FnMut(&mut Random) -> IpAddr> = match traffic {
            Traffic::Hit | Traffic::Flood if listed.is_empty() => bail!("nothing is listed"),
            Traffic::Hit => Box::new(|random| inside(*random.of(listed), random)),
            Traffic::Flood => {
                let one = inside(*random.of(listed), random);
                Box::new(move |_| one)
            }
            Traffic::NearMiss => {
                let hosts: Vec<IpNet> = listed
                    .iter()
                    .filter(|prefix| prefix.prefix_len() == self.family.bits())
                    .copied()
                    .collect();
                if hosts.is_empty() {
                    bail!("no host is listed");
                }
                Box::new(move |random| self.beside(&hosts, random))
            }
            Traffic::HotSet => {
                let hot: Vec<IpAddr> = (0..HOT).map(|_| self.unlisted(random)).collect();
                Box::new(move |random| *random.of(&hot))
            }
            Traffic::Zipf => {
                let ranked: Vec<IpAddr> = (0..count).map(|_| self.unlisted(random)).collect();
                let law = Zipf::new(count);
                Box::new(move |random| ranked[law.rank(random)])
            }
            Traffic::Miss | Traffic::Transit | Traffic::OptedOut => {
                Box::new(|random| self.unlisted(random))
            }
        };
        let one = self.population.consenting(random)?;
        (0..count)
            .map(|_| {
                let near = match traffic {
                    Traffic::Flood => one,
                    Traffic::Transit => self.unlisted(random),
                    Traffic::OptedOut => self.population.opted_out(random)?,
                    _ => self.population.consenting(random)?,
                };
                Ok((near, far(random)))
            })
            .collect()
    }

    fn unlisted(&self, random: &mut Random) -> IpAddr {
        loop {
            let address = remote(self.family, random);
            if !self.covered.contains(address) {
                break address;
            }
        }
    }

    /// An unlisted address in the /24 or /48 of a listed host.
    fn beside(&self, hosts: &[IpNet], random: &mut Random) -> IpAddr {
        let length = match self.family {
            Family::V4 => 24,
            Family::V6 => 48,
        };
        loop {
            let around = IpNet::new(random.of(hosts).addr(), length).map(|net| net.trunc());
            let Ok(around) = around else { continue };
            let address = inside(around, random);
            if !self.covered.contains(address) {
                break address;
            }
        }
    }
}

/// Ranks by Zipf's law with exponent 1.
struct Zipf {
    /// Sum of the weights up to each rank.
    sums: Vec<f64>,
}

impl Zipf {
    fn new(ranks: usize) -> Self {
        let sums = (1..=ranks)
            .scan(0.0, |sum, rank| {
                *sum += 1.0 / rank as f64;
                Some(*sum)
            })
            .collect();
        Self { sums }
    }

    fn rank(&self, random: &mut Random) -> usize {
        let all = self.sums.last().copied().unwrap_or(0.0);
        let point = (random.next() >> 11) as f64 / (1u64 << 53) as f64 * all;
        self.sums
            .partition_point(|sum| *sum <= point)
            .min(self.sums.len() - 1)
    }
}

/// Which end sends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Either, as often as the other, in no order that a branch predictor learns.
    Either,
    /// The subscriber, always.
    Outbound,
}

/// What the packets carry.
///
/// # Errors
/// Addresses of two families, which would be a mistake of the benchmark.
pub fn flows(
    family: Family,
    pairs: &[Pair],
    direction: Direction,
    random: &mut Random,
) -> Result<Flows> {
    let mut flows = match family {
        Family::V4 => Flows::V4(Vec::with_capacity(pairs.len())),
        Family::V6 => Flows::V6(Vec::with_capacity(pairs.len())),
    };
    for (near, far) in pairs {
        if direction == Direction::Outbound || random.next() & 1 == 0 {
            push(&mut flows, *near, *far)?;
        } else {
            push(&mut flows, *far, *near)?;
        }
    }
    Ok(flows)
}

fn push(flows: &mut Flows, source: IpAddr, destination: IpAddr) -> Result<()> {
    match (flows, source, destination) {
        (Flows::V4(flows), IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut flow = [0; 8];
            flow[..4].copy_from_slice(&source.octets());
            flow[4..].copy_from_slice(&destination.octets());
            flows.push(flow);
        }
        (Flows::V6(flows), IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut flow = [0; 32];
            flow[..16].copy_from_slice(&source.octets());
            flow[16..].copy_from_slice(&destination.octets());
            flows.push(flow);
        }
        _ => bail!("{source} and {destination} are of two families"),
    }
    Ok(())
}

/// The packet whose addresses change: TCP without payload, the smallest that
/// carries ports and flags. Its IPv4 checksum is wrong once they have; nothing
/// that is measured reads it (the generator of live frames writes a right one).
pub fn frame(family: Family) -> Vec<u8> {
    let ethernet = Frame::ethernet();
    match family {
        Family::V4 => ethernet.ipv4([192, 0, 2, 1], [192, 0, 2, 2]),
        Family::V6 => ethernet.ipv6(
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1],
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2],
        ),
    }
    .tcp(51_413, 443)
    .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::lists::prefixes;

    #[test]
    fn the_pairs_are_what_their_name_says() {
        for family in Family::ALL {
            let mut random = Random::new(5);
            let population = Population::new(family, 100, &mut random).unwrap();
            let listed = prefixes(family, 400, &mut random);
            let space = Population::space(family).unwrap();
            let makes = Pairs::new(family, &population, &listed);
            let covered = Covered::by(&listed);
            let around = match family {
                Family::V4 => 24,
                Family::V6 => 48,
            };
            for traffic in [
                Traffic::Miss,
                Traffic::NearMiss,
                Traffic::HotSet,
                Traffic::Zipf,
                Traffic::Hit,
                Traffic::Flood,
                Traffic::Transit,
                Traffic::OptedOut,
            ] {
                let pairs = makes.of(traffic, listed.len(), 2_000, &mut random).unwrap();
                assert_eq!(pairs.len(), 2_000);
                for (near, far) in &pairs {
                    assert_eq!(space.contains(near), traffic != Traffic::Transit);
                    let hit = traffic.exit() == Counter::Matched;
                    assert_eq!(covered.contains(*far), hit, "{traffic:?} {far}");
                    if traffic == Traffic::NearMiss {
                        let beside = IpNet::new(*far, around).unwrap().trunc();
                        assert!(listed.iter().any(|host| beside.contains(&host.addr())));
                    }
                }
                let mut fars: Vec<IpAddr> = pairs.iter().map(|(_, far)| *far).collect();
                fars.sort_unstable();
                fars.dedup();
                match traffic {
                    Traffic::Flood => assert_eq!(fars.len(), 1),
                    Traffic::HotSet => assert!(fars.len() <= HOT),
                    Traffic::Zipf => assert!((300..1_500).contains(&fars.len())),
                    _ => assert!(fars.len() > 300, "{traffic:?} {}", fars.len()),
                }
            }
        }
    }
}
