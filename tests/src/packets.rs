//! One described table of packets: what the parser sees of each, and how the
//! program decides it under [`standard_world`]. The tests of the parser, on
//! the host and in the kernel, those of the decision, and the benchmark all
//! read it.
//!
//! | who | address | consent |
//! |---|---|---|
//! | [`ALICE`], [`ALICE6`], [`BOB`], [`BOB6`] | in 203.0.113.0/24, 2001:db8:100::/40 | everything |
//! | [`OPTED_OUT`], [`OPTED_OUT6`] | 203.0.113.66, 2001:db8:166::/48 | nothing |
//! | [`NO_DETECT`], [`NO_DETECT6`] | 203.0.113.71, 2001:db8:171::/48 | everything but detection |
//! | [`ONLY_DETECT`] | 203.0.113.70 | detection alone |
//! | [`IN_REFUSING_RANGE`] | 203.0.113.128/25 | nothing |
//! | [`SHARED`] | 203.0.113.80 | nothing for ports 1024 to 2047, else everything |
//! | [`BACK_IN`] | 203.0.113.200 inside that range | everything |
//! | [`HOSTING`], [`HOSTING6`] | consenting subscribers who are listed as C&C themselves | everything |
//! | [`STRANGER`], [`STRANGER6`] | neither subscriber nor listed | |
//!
//! The C&C list is [`indicators`], the time [`now`].

mod consent;
mod edge;
mod headers;
mod listed;
mod tunnels;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use jiff::Timestamp;
use matcher_common::abi::{self, AddressBytes, Counter, IpLayer, Tunnel, purposes, role};
use matcher_user::{
    indicator::{Indicator, IndicatorId, Qualifier},
    protocol::Protocol,
};

pub use self::listed::{id, indicators};
use crate::{
    frames::Frame,
    model::{ALL_PURPOSES, Answer, Consent, Hit, Layer, Packet, Sharer, World},
};

/// A consenting subscriber.
pub const ALICE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// A consenting subscriber.
pub const ALICE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 7);
/// Another consenting subscriber.
pub const BOB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 8);
/// Another consenting subscriber.
pub const BOB6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 8);
/// A subscriber who refuses everything, and is listed as C&C.
pub const OPTED_OUT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
/// A subscriber who refuses everything, and is listed as C&C.
pub const OPTED_OUT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x166, 0, 0, 0, 0, 1);
/// A subscriber who allows detection and nothing else.
pub const ONLY_DETECT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 70);
/// A subscriber who refuses detection alone.
pub const NO_DETECT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 71);
/// A subscriber who refuses detection alone.
pub const NO_DETECT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x171, 0, 0, 0, 0, 1);
/// A subscriber in a range that refuses everything.
pub const IN_REFUSING_RANGE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 129);
/// A subscriber in that range who consents all the same.
pub const BACK_IN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
/// A consenting subscriber whose machine is a C&C server.
pub const HOSTING: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// A consenting subscriber whose machine is a C&C server.
pub const HOSTING6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x99);
/// An address of several subscribers, of whom the one with ports 1024 to 2047
/// refuses everything.
pub const SHARED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// No subscriber, not listed.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// No subscriber, not listed.
pub const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);

/// One packet of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows, as a sentence.
    pub description: &'static str,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
    /// What the parser sees.
    pub seen: Seen,
    /// What is other than usual.
    pub conditions: Conditions,
    /// What the program decides.
    pub answer: Answer,
}

/// What the parser sees of a frame.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// VLAN tags that were read.
    pub vlan_tags: u8,
    /// Ids of the first two.
    pub vlan_ids: [u16; 2],
    /// The IP layers, and why parsing ended early.
    pub packet: Packet,
}

/// What decides over a packet beside the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Role of the interface; usually [`role::BOTH`].
    pub role: Option<u32>,
    /// Usually not.
    pub source_validated: bool,
    /// The emergency stop; usually off.
    pub stopped: bool,
    /// The deadline of consent lies ahead; usually so.
    pub consent_confirmed: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            role: Some(role::BOTH),
            source_validated: false,
            stopped: false,
            consent_confirmed: true,
        }
    }
}

impl Seen {
    /// The form in which the parser tells it.
    pub fn parsed(&self) -> abi::Packet {
        let mut parsed = abi::Packet {
            layer_count: self.packet.layers.len() as u32,
            vlan_tags: self.vlan_tags,
            vlan_ids: self.vlan_ids,
            unparsed: self.packet.unparsed.map_or(0, |reason| reason as u32 + 1),
            ..abi::Packet::default()
        };
        for (place, layer) in parsed.layers.iter_mut().zip(&self.packet.layers) {
            *place = IpLayer {
                source: octets(layer.addresses.0),
                destination: octets(layer.addresses.1),
                fragment_offset: layer.fragment_offset,
                ip_version: if layer.addresses.0.is_ipv4() { 4 } else { 6 },
                protocol: layer.protocol,
                tunnel: layer.tunnel.map_or(0, |tunnel| tunnel as u8),
                ..IpLayer::default()
            };
            if let Some((source, destination)) = layer.ports {
                place.has_ports = 1;
                place.source_port = source;
                place.destination_port = destination;
            }
        }
        parsed
    }
}

/// An address as the ABI has it.
pub fn octets(address: IpAddr) -> AddressBytes {
    match address {
        IpAddr::V4(address) => AddressBytes::from_v4(address.octets()),
        IpAddr::V6(address) => AddressBytes::from_v6(address.octets()),
    }
}

/// Every packet.
pub fn table() -> Vec<Case> {
    [
        headers::cases(),
        edge::cases(),
        tunnels::cases(),
        consent::cases(),
        listed::cases(),
    ]
    .concat()
}

/// The set-up that the table is decided under, but for a case's conditions.
///
/// # Panics
/// Never: its parts are constants.
pub fn standard_world(conditions: &Conditions) -> World {
    let net = |text: &str| -> IpNet { text.parse().expect("a prefix") };
    let host = |address: IpAddr| IpNet::from(address);
    World {
        role: conditions.role,
        source_validated: conditions.source_validated,
        stopped: conditions.stopped,
        consent_confirmed: conditions.consent_confirmed,
        subscribers: vec![net("203.0.113.0/24"), net("2001:db8:100::/40")],
        consent: Consent::LongestPrefix(
            vec![
                (host(OPTED_OUT.into()), 0),
                (net("2001:db8:166::/48"), 0),
                (host(NO_DETECT.into()), ALL_PURPOSES & !purposes::DETECT),
                (net("2001:db8:171::/48"), ALL_PURPOSES & !purposes::DETECT),
                (host(ONLY_DETECT.into()), purposes::DETECT),
                (net("203.0.113.128/25"), 0),
                (host(BACK_IN.into()), ALL_PURPOSES),
            ],
            ALL_PURPOSES,
        ),
        sharers: vec![Sharer {
            prefix: host(SHARED.into()),
            ports: (1024, 2047),
            refused: ALL_PURPOSES,
        }],
        indicators: indicators(),
        now: now(),
    }
}

/// The time of the set-up.
///
/// # Panics
/// Never: it is a constant.
pub fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().expect("a time")
}

/// An entry without limits.
pub fn indicator(id: u32, value: IpNet) -> Indicator {
    Indicator::bare(IndicatorId(id), value, "table")
}

/// A case being written; [`Draft::exit`] or [`Draft::hit`] ends it.
struct Draft {
    description: &'static str,
    frame: Vec<u8>,
    seen: Seen,
    conditions: Conditions,
}

fn packet(description: &'static str, frame: Frame) -> Draft {
    broken(description, frame.build())
}

fn broken(description: &'static str, frame: Vec<u8>) -> Draft {
    Draft {
        description,
        frame,
        seen: Seen::default(),
        conditions: Conditions::default(),
    }
}

/// A TCP segment between two addresses.
fn tcp(
    description: &'static str,
    from: (impl Into<IpAddr>, u16),
    to: (impl Into<IpAddr>, u16),
) -> Draft {
    let (source, destination) = (from.0.into(), to.0.into());
    packet(
        description,
        Frame::ethernet().ip(source, destination).tcp(from.1, to.1),
    )
    .ip(source, destination, 6)
    .ports(from.1, to.1)
}

/// A datagram between two addresses.
fn udp(
    description: &'static str,
    from: (impl Into<IpAddr>, u16),
    to: (impl Into<IpAddr>, u16),
) -> Draft {
    let (source, destination) = (from.0.into(), to.0.into());
    packet(
        description,
        Frame::ethernet()
            .ip(source, destination)
            .udp(from.1, to.1)
            .payload(b"data"),
    )
    .ip(source, destination, 17)
    .ports(from.1, to.1)
}

impl Draft {
    fn ip(
        mut self,
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        protocol: u8,
    ) -> Self {
        self.seen.packet.layers.push(Layer {
            addresses: (source.into(), destination.into()),
            protocol,
            fragment_offset: 0,
            ports: None,
            tunnel: None,
        });
        self
    }

    /// The next layer, inside the ones so far.
    fn inner(
        self,
        tunnel: Tunnel,
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        protocol: u8,
    ) -> Self {
        self.ip(source, destination, protocol)
            .last(|layer| layer.tunnel = Some(tunnel))
    }

    fn last(mut self, change: impl FnOnce(&mut Layer)) -> Self {
        change(self.seen.packet.layers.last_mut().expect("an IP layer"));
        self
    }

    fn ports(self, source: u16, destination: u16) -> Self {
        self.last(|layer| layer.ports = Some((source, destination)))
    }

    fn at(self, fragment_offset: u16) -> Self {
        self.last(|layer| layer.fragment_offset = fragment_offset)
    }

    fn tags(mut self, ids: &[u16]) -> Self {
        self.seen.vlan_tags = ids.len() as u8;
        for (place, id) in self.seen.vlan_ids.iter_mut().zip(ids) {
            *place = *id;
        }
        self
    }

    fn on(mut self, role: u32) -> Self {
        self.conditions.role = Some(role);
        self
    }

    fn when(mut self, change: impl FnOnce(&mut Conditions)) -> Self {
        change(&mut self.conditions);
        self
    }

    fn answered(self, verdict: Counter, hit: Option<Hit>) -> Case {
        let looked_up = matches!(verdict, Counter::NoMatch | Counter::Matched);
        let lookups = match self.seen.packet.layers.first() {
            Some(layer) if looked_up && layer.addresses.0.is_ipv4() => (1, 0),
            Some(_) if looked_up => (0, 1),
            _ => (0, 0),
        };
        Case {
            description: self.description,
            frame: self.frame,
            seen: self.seen,
            conditions: self.conditions,
            answer: Answer {
                verdict,
                lookups,
                port_unknown: 0,
                hit,
            },
        }
    }

    /// Passes unmatched; one look-up if it came that far.
    fn exit(self, verdict: Counter) -> Case {
        self.answered(verdict, None)
    }

    /// The parser stops for this reason, and so does the program.
    fn unparsed(mut self, reason: Counter) -> Case {
        self.seen.packet.unparsed = Some(reason);
        self.exit(reason)
    }

    /// The subscriber sent it to this indicator.
    fn outbound_hit(self, indicator: u32) -> Case {
        self.hit(true, indicator, 0, 0)
    }

    /// The subscriber got it from this indicator.
    fn inbound_hit(self, indicator: u32) -> Case {
        self.hit(false, indicator, 0, 0)
    }

    /// A hit in a layer, by the subscriber that a layer names.
    fn hit(self, outbound: bool, indicator: u32, layer: usize, subscriber_layer: usize) -> Case {
        let hit = Hit {
            outbound,
            indicator,
            layer,
            subscriber_layer,
        };
        self.answered(Counter::Matched, Some(hit))
    }
}

impl Case {
    /// Look-ups, all in the family of the outermost layer.
    fn lookups(self, lookups: u64) -> Self {
        if self.answer.lookups.0 > 0 {
            self.lookups_of(lookups, 0)
        } else {
            self.lookups_of(0, lookups)
        }
    }

    /// Look-ups in the tables for IPv4 and for IPv6.
    fn lookups_of(mut self, v4: u64, v6: u64) -> Self {
        self.answer.lookups = (v4, v6);
        self
    }

    fn port_unknown(mut self, entries: u64) -> Self {
        self.answer.port_unknown = entries;
        self
    }
}

fn limited(mut indicator: Indicator, protocol: Option<Protocol>, port: Option<u16>) -> Indicator {
    indicator.qualifier = Qualifier { protocol, port };
    indicator
}

#[cfg(test)]
mod tests;
