//! Random worlds and random packets, the same for the same seed.
//!
//! Everything stays close together: prefixes and addresses are made from a
//! handful of anchors by changing low bits, so that prefixes nest, addresses
//! fall inside and right outside of them, and the lists overlap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use matcher_common::abi::{Counter, MAX_RULES, role};
use matcher_user::{
    indicator::{Indicator, IndicatorId, Qualifier},
    protocol::Protocol,
};

use super::{ALL_PURPOSES, Consent, Packet, World, covers};
use crate::{frames::Frame, packets::indicator, traffic::random::Random};

/// A frame, and what is known of it because it was made so.
#[derive(Clone, Debug)]
pub struct Sent {
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
    /// What it says.
    pub packet: Packet,
}

const ANCHORS: [&str; 7] = [
    "203.0.113.64",
    "198.51.100.16",
    "10.1.0.0",
    "255.255.255.255",
    "2001:db8:100::",
    "2a02:db8:c2:0:8000::23",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
];

/// Ports and protocols are few, so that qualifiers are met.
const PORTS: [u16; 5] = [0, 53, 443, 8080, 65_535];
const PROTOCOLS: [u8; 4] = [6, 17, 132, 1];

fn chance(random: &mut Random, percent: u64) -> bool {
    random.within(0, 100) < percent
}

/// An anchor with some of its low bits changed.
fn address(random: &mut Random) -> IpAddr {
    let anchor: IpAddr = random.of(&ANCHORS).parse().expect("an address");
    // Mostly the last few bits.
    let width = if anchor.is_ipv4() { 32 } else { 128 };
    let most = if chance(random, 80) { 5 } else { width };
    let bits = random.within(0, most + 1) as u32;
    let noise = u128::from(random.next()) << 64 | u128::from(random.next());
    let mask = 1u128.checked_shl(bits).map_or(u128::MAX, |bit| bit - 1);
    match anchor {
        IpAddr::V4(anchor) => Ipv4Addr::from(u32::from(anchor) ^ (noise & mask) as u32).into(),
        IpAddr::V6(anchor) => Ipv6Addr::from(u128::from(anchor) ^ (noise & mask)).into(),
    }
}

fn prefix(random: &mut Random) -> IpNet {
    let address = address(random);
    let width = if address.is_ipv4() { 32u64 } else { 128 };
    let host_bits = match random.within(0, 20) {
        0 => random.within(0, width + 1),
        1..=8 => 0,
        _ => random.within(0, 8),
    };
    IpNet::new(address, (width - host_bits) as u8)
        .expect("a length of the family")
        .trunc()
}

fn prefixes(random: &mut Random, most: u64) -> Vec<IpNet> {
    (0..random.within(0, most + 1))
        .map(|_| prefix(random))
        .collect()
}

fn purposes(random: &mut Random) -> u32 {
    match random.within(0, 3) {
        0 => ALL_PURPOSES,
        _ => random.within(1, u64::from(ALL_PURPOSES) + 1) as u32,
    }
}

fn consent(random: &mut Random) -> Consent {
    let prefixes = prefixes(random, 12);
    if chance(random, 60) {
        let refused = |prefix| (prefix, purposes(random));
        return Consent::Refusals(prefixes.into_iter().map(refused).collect());
    }
    let mut entries: Vec<(IpNet, u32)> = prefixes
        .into_iter()
        .map(|prefix| (prefix, random.within(0, u64::from(ALL_PURPOSES) + 1) as u32))
        .collect();
    entries.sort_unstable();
    entries.dedup_by_key(|(prefix, _)| *prefix);
    let default = *random.of(&[0, 1, ALL_PURPOSES, ALL_PURPOSES - 1]);
    Consent::LongestPrefix(entries, default)
}

/// An entry with random limits; times are close to `now`, also in between
/// two nanoseconds of it.
fn entry(random: &mut Random, id: u32, value: IpNet, now: Timestamp) -> Indicator {
    let time = |random: &mut Random| {
        let distance = match random.within(0, 3) {
            0 => random.within(0, 3) as i64 - 1,
            _ => random.within(0, 2_000_000_000_000) as i64 - 1_000_000_000_000,
        };
        now + SignedDuration::from_nanos(distance)
    };
    let mut entry = indicator(id, value);
    entry.qualifier = Qualifier {
        protocol: chance(random, 30).then(|| Protocol(*random.of(&PROTOCOLS))),
        port: chance(random, 40).then(|| *random.of(&PORTS)),
    };
    entry.valid_from = chance(random, 20).then(|| time(random));
    entry.valid_until = chance(random, 20).then(|| time(random));
    entry
}

fn indicators(random: &mut Random, now: Timestamp) -> Vec<Indicator> {
    let mut list: Vec<Indicator> = Vec::new();
    // Ids in no order.
    let mut ids: Vec<u32> = (1..=60).collect();
    for place in (1..ids.len()).rev() {
        ids.swap(place, random.within(0, place as u64 + 1) as usize);
    }
    let count = random.within(0, ids.len() as u64 + 1) as usize;
    for id in ids.into_iter().take(count) {
        // The same prefix several times, with other limits.
        let value = match list.last() {
            Some(last) if chance(random, 30) => last.value,
            _ => prefix(random),
        };
        list.push(entry(random, id, value, now));
    }
    // Now and then as many as an address can bear, the last of them broad.
    if chance(random, 10) {
        let value = IpNet::from(address(random));
        let covering = list
            .iter()
            .filter(|entry| covers(&entry.value, value.addr()))
            .count() as u32;
        list.extend((covering..MAX_RULES).map(|index| {
            let mut entry = indicator(1000 + index, value);
            entry.qualifier.port = Some(20_000 + index as u16);
            entry
        }));
        list.retain(|entry| entry.id.0 >= 1000 || entry.value != value);
    }
    list.sort_by_key(|entry| IndicatorId(entry.id.0.reverse_bits()));
    list
}

/// A world.
///
/// # Panics
/// Never: its parts are constants.
pub fn world(random: &mut Random) -> World {
    let day = random.within(0, 4000) as i64;
    let now = Timestamp::from_second(1_700_000_000 + day * 86_400).expect("a time")
        + SignedDuration::from_nanos(random.within(0, 1_000_000_000) as i64);
    World {
        role: match random.within(0, 20) {
            0 => None,
            1..=3 => Some(role::ACCESS),
            4..=6 => Some(role::CORE),
            _ => Some(role::BOTH),
        },
        source_validated: chance(random, 50),
        stopped: chance(random, 2),
        consent_confirmed: !chance(random, 2),
        subscribers: prefixes(random, 8),
        consent: consent(random),
        indicators: indicators(random, now),
        now,
    }
}

/// An address that the lists speak of, or any.
fn end(random: &mut Random, world: &World, ipv4: bool) -> IpAddr {
    let listed = match random.within(0, 3) {
        0 => world.subscribers.clone(),
        1 => world.indicators.iter().map(|entry| entry.value).collect(),
        _ => Vec::new(),
    };
    let inside: Vec<IpNet> = listed
        .into_iter()
        .filter(|prefix| prefix.addr().is_ipv4() == ipv4)
        .collect();
    if !inside.is_empty() {
        let prefix = random.of(&inside);
        return if chance(random, 50) {
            prefix.network()
        } else {
            prefix.broadcast()
        };
    }
    loop {
        let address = address(random);
        if address.is_ipv4() == ipv4 {
            return address;
        }
    }
}

/// A packet in the world.
pub fn packet(random: &mut Random, world: &World) -> Sent {
    let mut frame = Frame::ethernet();
    let tags = match random.within(0, 40) {
        0 => 3,
        1..=5 => 2,
        6..=15 => 1,
        _ => 0,
    };
    for _ in 0..tags {
        frame = if chance(random, 50) {
            frame.vlan(random.next() as u16)
        } else {
            frame.service_vlan(random.next() as u16)
        };
    }
    let other = |unparsed, frame: Frame| Sent {
        frame: frame.payload(&[0x55; 60]).build(),
        packet: Packet {
            unparsed: Some(unparsed),
            addresses: None,
            protocol: 0,
            ports: None,
        },
    };
    if tags == 3 {
        return other(Counter::VlanDepth, frame.protocol(0x0800));
    }
    match random.within(0, 100) {
        0 => return other(Counter::NotIp, frame.protocol(0x0806)),
        1 => return other(Counter::Pppoe, frame.protocol(0x8864)),
        2 => return other(Counter::Mpls, frame.protocol(0x8847)),
        _ => {}
    }

    let ipv4 = chance(random, 50);
    let (source, destination) = (end(random, world, ipv4), end(random, world, ipv4));
    frame = frame.ip(source, destination);
    let mut later_fragment = false;
    let mut too_many_headers = false;
    if ipv4 {
        if chance(random, 20) {
            let options = random.within(1, 41) as usize;
            frame = frame.ipv4_options(&random.bytes(options));
        }
        if chance(random, 15) {
            later_fragment = chance(random, 70);
            frame = frame.fragment(fragment_offset(random, later_fragment), true, 1);
        }
    } else {
        let headers = *random.of(&[0, 0, 0, 0, 1, 2, 3, 7, 8, 9]);
        let mut count = 0;
        while count < headers && !later_fragment {
            count += 1;
            frame = match random.within(0, 5) {
                0 => frame.hop_by_hop(random.within(1, 4) as u8),
                1 => frame.routing(),
                2 => {
                    // What follows a later fragment's header is payload.
                    later_fragment = chance(random, 50);
                    frame.fragment(fragment_offset(random, later_fragment), false, 1)
                }
                _ => frame.destination_options(random.within(1, 4) as u8),
            };
        }
        too_many_headers = count > 8;
    }
    transport(
        random,
        frame,
        Packet {
            unparsed: too_many_headers.then_some(Counter::ExtensionHeaders),
            addresses: Some((source, destination)),
            protocol: 0,
            ports: None,
        },
        later_fragment,
    )
}

fn fragment_offset(random: &mut Random, later: bool) -> u16 {
    if later {
        random.within(1, 0x2000) as u16 * 8
    } else {
        0
    }
}

fn transport(random: &mut Random, frame: Frame, mut packet: Packet, later_fragment: bool) -> Sent {
    let (source, destination) = (*random.of(&PORTS), *random.of(&PORTS));
    packet.protocol = if chance(random, 5) {
        *random.of(&[4, 41, 47, 55, 94, 97, 98, 115, 137, 143])
    } else {
        *random.of(&[6, 6, 17, 17, 132, 1, 58, 50])
    };
    let tunnel = matches!(
        packet.protocol,
        4 | 41 | 47 | 55 | 94 | 97 | 98 | 115 | 137 | 143
    );
    if tunnel && packet.unparsed.is_none() {
        packet.unparsed = Some(Counter::Tunnel);
    }
    let frame = match packet.protocol {
        protocol if later_fragment || tunnel => frame.protocol(protocol.into()),
        6 => frame.tcp(source, destination),
        17 => frame.udp(source, destination),
        132 => frame.sctp(source, destination),
        1 => frame.icmp(8, 0),
        58 => frame.icmpv6(128, 0),
        protocol => frame.protocol(protocol.into()),
    };
    if matches!(packet.protocol, 6 | 17 | 132) && !later_fragment {
        packet.ports = Some((source, destination));
    }
    let payload = random.within(0, 30) as usize;
    let mut bytes = frame.payload(&random.bytes(payload)).build();
    // Padding to the least that Ethernet sends, not always zeros.
    if bytes.len() < 60 && chance(random, 50) {
        let padding = random.bytes(60 - bytes.len());
        bytes.extend(padding);
    }
    Sent {
        frame: bytes,
        packet,
    }
}
