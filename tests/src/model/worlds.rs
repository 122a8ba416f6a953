//! Random worlds and random packets, the same for the same seed.
//!
//! Everything stays close together: prefixes and addresses are made from a
//! handful of anchors by changing low bits, so that prefixes nest, addresses
//! fall inside and right outside of them, and the lists overlap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use matcher_common::abi::{Counter, MAX_LAYERS, MAX_RULES, Tunnel, role};
use matcher_user::{
    indicator::{Indicator, IndicatorId, Qualifier},
    protocol::Protocol,
};

use super::{ALL_PURPOSES, Consent, Layer, Packet, Sharer, World, covers};
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

/// Never all ports of an address: that would be an opt-out of the address.
fn sharers(random: &mut Random) -> Vec<Sharer> {
    prefixes(random, 3)
        .into_iter()
        .map(|prefix| {
            let ports = *random.of(&[(0, 52), (53, 442), (443, 443), (400, 9000)]);
            Sharer {
                prefix,
                ports,
                refused: purposes(random),
            }
        })
        .collect()
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
    let consent = consent(random);
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
        sharers: match &consent {
            Consent::Refusals(_) => sharers(random),
            Consent::LongestPrefix(..) => Vec::new(),
        },
        consent,
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
        0 => 5,
        1 => 4,
        2..=5 => 2,
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
            layers: Vec::new(),
        },
    };
    if tags == 5 {
        return other(Counter::VlanDepth, frame.protocol(0x0800));
    }
    match random.within(0, 100) {
        0 => return other(Counter::NotIp, frame.protocol(0x0806)),
        // Bytes of 0x55 are no PPPoE session, and no end of an MPLS stack.
        1 => return other(Counter::Pppoe, frame.protocol(0x8864)),
        2 => return other(Counter::Llc, frame.protocol(0x0155)),
        3..=8 => frame = frame.pppoe(),
        9..=11 => frame = frame.mpls(100).mpls(200),
        _ => {}
    }
    let mut packet = Packet::default();
    let depth = *random.of(&[1, 1, 1, 1, 1, 1, 2, 2, 3, 4, 5]);
    for inner in 1..=depth {
        let (with_ip, goes_on) = network(random, world, frame, &mut packet, inner < depth);
        frame = with_ip;
        if !goes_on {
            break;
        }
    }
    finished(random, frame, packet)
}

/// Adds an IP layer and what it carries: a tunnel, if `more` is to come. False
/// when nothing can follow.
fn network(
    random: &mut Random,
    world: &World,
    frame: Frame,
    packet: &mut Packet,
    more: bool,
) -> (Frame, bool) {
    let ipv4 = chance(random, 50);
    let (source, destination) = (end(random, world, ipv4), end(random, world, ipv4));
    let (mut frame, tunnel) = into_tunnel(random, frame, packet, ipv4);
    frame = frame.ip(source, destination);
    let mut later_fragment = false;
    let mut too_many_headers = false;
    let mut offset = 0;
    if ipv4 {
        if chance(random, 20) {
            let options = random.within(1, 41) as usize;
            frame = frame.ipv4_options(&random.bytes(options));
        }
        if chance(random, 15) {
            later_fragment = chance(random, 70);
            offset = fragment_offset(random, later_fragment);
            frame = frame.fragment(offset, true, 1);
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
                    offset = fragment_offset(random, later_fragment);
                    frame.fragment(offset, false, 1)
                }
                _ => frame.destination_options(random.within(1, 4) as u8),
            };
        }
        too_many_headers = count > 8;
    }
    if packet.layers.len() == MAX_LAYERS {
        packet.unparsed = Some(Counter::TooDeep);
        return (frame.protocol(59), false);
    }
    packet.layers.push(Layer {
        addresses: (source, destination),
        protocol: 59,
        fragment_offset: offset,
        ports: None,
        tunnel,
    });
    if too_many_headers {
        packet.unparsed = Some(Counter::ExtensionHeaders);
        return (frame.protocol(59), false);
    }
    if more && !later_fragment {
        return (frame, true);
    }
    (transport(random, frame, packet, later_fragment), false)
}

/// Puts the innermost layer so far in front of a tunnel.
fn into_tunnel(
    random: &mut Random,
    frame: Frame,
    packet: &mut Packet,
    ipv4: bool,
) -> (Frame, Option<Tunnel>) {
    let Some(outer) = packet.layers.last_mut() else {
        return (frame, None);
    };
    let (protocol, ports, frame, tunnel) = match random.within(0, 10) {
        0 => (47, None, frame.gre(), Tunnel::Gre),
        1 => (
            47,
            None,
            frame.gre_with(true, Some(3), true).inner_ethernet(),
            Tunnel::Gre,
        ),
        2 => (97, None, frame.etherip(), Tunnel::EtherIp),
        3 => (17, Some((54321, 4789)), frame.vxlan(), Tunnel::Vxlan),
        4 => (17, Some((54321, 6081)), frame.geneve(2), Tunnel::Geneve),
        5 => (
            17,
            Some((2152, 2152)),
            frame.gtp_u(&[1], true),
            Tunnel::GtpU,
        ),
        6 => (
            17,
            Some((1701, 1701)),
            frame.l2tp(true, false, None),
            Tunnel::L2tp,
        ),
        _ => {
            let tunnel = match (ipv4, outer.addresses.0.is_ipv4()) {
                (true, true) => Tunnel::Ip4In4,
                (true, false) => Tunnel::Ip4In6,
                (false, true) => Tunnel::Ip6In4,
                (false, false) => Tunnel::Ip6In6,
            };
            (if ipv4 { 4 } else { 41 }, None, frame, tunnel)
        }
    };
    outer.protocol = protocol;
    outer.ports = ports;
    (frame, Some(tunnel))
}

fn fragment_offset(random: &mut Random, later: bool) -> u16 {
    if later {
        random.within(1, 0x2000) as u16 * 8
    } else {
        0
    }
}

fn transport(
    random: &mut Random,
    frame: Frame,
    packet: &mut Packet,
    later_fragment: bool,
) -> Frame {
    let (source, destination) = (*random.of(&PORTS), *random.of(&PORTS));
    let unread = chance(random, 5);
    let protocol = if unread {
        *random.of(&[55, 98, 115])
    } else {
        *random.of(&[6, 6, 17, 17, 132, 136, 33, 1, 58, 50])
    };
    if unread {
        packet.unparsed = Some(if later_fragment {
            Counter::TunnelFragment
        } else {
            Counter::Tunnel
        });
    }
    if let Some(layer) = packet.layers.last_mut() {
        layer.protocol = protocol;
        if matches!(protocol, 6 | 17 | 132 | 136 | 33) && !later_fragment {
            layer.ports = Some((source, destination));
        }
    }
    match protocol {
        protocol if later_fragment || unread => frame.protocol(protocol.into()),
        6 => frame.tcp(source, destination),
        17 => frame.udp(source, destination),
        132 => frame.sctp(source, destination),
        136 => frame.udp_lite(source, destination),
        33 => frame.dccp(source, destination),
        1 => frame.icmp(8, 0),
        58 => frame.icmpv6(128, 0),
        protocol => frame.protocol(protocol.into()),
    }
}

fn finished(random: &mut Random, frame: Frame, packet: Packet) -> Sent {
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
