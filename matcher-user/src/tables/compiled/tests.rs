//! Both tables against a plain list of prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use matcher_common::table::{class::Class, v4_key};
use proptest::prelude::*;

use super::*;

mod class;
mod filter;
mod hosts;

/// Numbers that are the same in every run.
struct Numbers(fastrand::Rng);

impl Numbers {
    fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    fn seeds(&mut self) -> hash::Seeds {
        let mut random = [0; 24];
        self.0.fill(&mut random);
        seeds(random)
    }

    fn v4(&mut self) -> IpAddr {
        Ipv4Addr::from_bits(self.0.u32(..)).into()
    }

    /// Somewhere in 2000::/3.
    fn v6(&mut self) -> IpAddr {
        let high = self.next() >> 3 | 1 << 61;
        Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(self.next())).into()
    }
}

fn host(address: IpAddr) -> IpNet {
    address.into()
}

fn maybe(image: &Image, address: IpAddr) -> bool {
    ask(image, address, table::filter::maybe, table::filter::maybe)
}

/// What nearly all addresses are asked alone.
fn maybe_near(image: &Image, address: IpAddr) -> bool {
    ask(
        image,
        address,
        table::filter::maybe_near,
        table::filter::maybe_near,
    )
}

fn ask<'a>(
    image: &'a Image,
    address: IpAddr,
    v4: impl Fn(&&'a [Line], u64) -> bool,
    v6: impl Fn(&&'a [Line], (u64, u64)) -> bool,
) -> bool {
    let lines = image.lines();
    match address {
        IpAddr::V4(address) => v4(&lines, v4_key(address.to_bits())),
        IpAddr::V6(address) => v6(&lines, words(address)),
    }
}

fn words(address: Ipv6Addr) -> (u64, u64) {
    let bits = address.to_bits();
    ((bits >> 64) as u64, bits as u64)
}

fn covers(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

/// Prefixes of every length. They fall together, nest and touch, because
/// their bits come from few patterns.
fn prefix(family: Family) -> BoxedStrategy<IpNet> {
    let flip = (0_u32..128, 0_u8..3);
    match family {
        Family::V4 => (anchor_v4(), flip, 0_u8..=32)
            .prop_map(|(anchor, (bit, flips), length)| {
                let bits = if flips > 0 {
                    anchor ^ 1 << (bit % 32)
                } else {
                    anchor
                };
                let net = Ipv4Net::new(Ipv4Addr::from_bits(bits), length).unwrap();
                IpNet::from(net.trunc())
            })
            .boxed(),
        Family::V6 => (anchor_v6(), flip, 0_u8..=128)
            .prop_map(|(anchor, (bit, flips), length)| {
                let bits = if flips > 0 { anchor ^ 1 << bit } else { anchor };
                let net = Ipv6Net::new(Ipv6Addr::from_bits(bits), length).unwrap();
                IpNet::from(net.trunc())
            })
            .boxed(),
    }
}

/// Prefixes long enough that two of them rarely say the same.
fn longer_prefix(family: Family) -> BoxedStrategy<IpNet> {
    let shortest = match family {
        Family::V4 => 12,
        Family::V6 => 20,
    };
    prefix(family)
        .prop_filter("short", move |prefix| prefix.prefix_len() >= shortest)
        .boxed()
}

fn anchor_v4() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(u32::MAX),
        Just(0xcb00_7100),
        Just(0xcb00_71ff),
        Just(0xcb00_ffff),
        any::<u32>(),
    ]
}

fn anchor_v6() -> impl Strategy<Value = u128> {
    prop_oneof![
        Just(0),
        Just(u128::MAX),
        Just(0x2001_0db8_0100_ffff_0000_0000_0000_0000),
        Just(0x2001_0db8_0100_ffff_ffff_ffff_ffff_ffff),
        any::<u128>(),
    ]
}

/// Addresses at the ends of the prefixes, just outside them, and anywhere.
fn telling(prefixes: &[IpNet], numbers: &mut Numbers) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for prefix in prefixes {
        match (prefix.network(), prefix.broadcast()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let (first, last) = (first.to_bits(), last.to_bits());
                let inside = first + (numbers.next() as u32 & (last - first));
                for bits in [
                    first,
                    last,
                    inside,
                    first.wrapping_sub(1),
                    last.wrapping_add(1),
                ] {
                    found.push(Ipv4Addr::from_bits(bits).into());
                }
                found.push(numbers.v4());
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let (first, last) = (first.to_bits(), last.to_bits());
                let random = u128::from(numbers.next()) << 64 | u128::from(numbers.next());
                let inside = first + (random & (last - first));
                for bits in [
                    first,
                    last,
                    inside,
                    first.wrapping_sub(1),
                    last.wrapping_add(1),
                ] {
                    found.push(Ipv6Addr::from_bits(bits).into());
                }
                found.push(numbers.v6());
            }
            _ => unreachable!("a prefix has one family"),
        }
    }
    found
}

#[test]
fn seeds_are_odd_and_take_all_random_bytes() {
    let seeds = seeds(std::array::from_fn(|at| at as u8 * 2));
    assert_eq!(seeds.first, 0x0e0c_0a08_0604_0201);
    assert_eq!(seeds.second, 0x1e1c_1a18_1614_1211);
    assert_eq!(seeds.last, 0x2e2c_2a28_2624_2221);
}
