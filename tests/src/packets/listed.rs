//! The C&C list of the table, and packets to and from what it lists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use matcher_common::abi::{Counter, MAX_RULES};
use matcher_user::{indicator::Indicator, protocol::Protocol};

use super::{
    ALICE, ALICE6, BOB, Case, HOSTING, HOSTING6, OPTED_OUT, OPTED_OUT6, indicator, limited, now,
    packet, tcp, udp,
};
use crate::frames::Frame;

/// Ids of the indicators, after what they list.
pub mod id {
    /// 198.51.100.23.
    pub const HOST: u32 = 1;
    /// 198.51.100.40, TCP port 443.
    pub const PORT_443: u32 = 2;
    /// 198.51.100.40, TCP port 8080.
    pub const PORT_8080: u32 = 3;
    /// 198.51.100.40, UDP.
    pub const ONLY_UDP: u32 = 4;
    /// 198.51.101.0/24.
    pub const NETWORK: u32 = 5;
    /// 198.51.101.9 in that network, port 443 of any protocol.
    pub const HOST_IN_NETWORK: u32 = 6;
    /// 198.51.102.1, expired.
    pub const EXPIRED: u32 = 7;
    /// 198.51.102.2, not valid yet.
    pub const FUTURE: u32 = 8;
    /// 198.51.102.3, within its time.
    pub const CURRENT: u32 = 9;
    /// 198.51.103.0/24.
    pub const LIVE_NETWORK: u32 = 10;
    /// 198.51.103.5 in that network, expired.
    pub const EXPIRED_IN_NETWORK: u32 = 11;
    /// 198.51.102.4, whose time ends right now.
    pub const ENDS_NOW: u32 = 12;
    /// 198.51.102.5, whose time starts right now.
    pub const STARTS_NOW: u32 = 13;
    /// 198.51.104.1, SCTP.
    pub const ONLY_SCTP: u32 = 14;
    /// A subscriber, IPv4.
    pub const HOSTING: u32 = 15;
    /// A subscriber, IPv6.
    pub const HOSTING6: u32 = 16;
    /// An opted-out subscriber, IPv4.
    pub const OPTED_OUT: u32 = 17;
    /// An opted-out subscriber, IPv6.
    pub const OPTED_OUT6: u32 = 18;
    /// 2a02:db8:c2::23.
    pub const HOST6: u32 = 19;
    /// 2a02:db8:c2::40, port 443.
    pub const PORT6_443: u32 = 20;
    /// 2a02:db8:c3::/48.
    pub const NETWORK6: u32 = 21;
    /// 2a02:db8:c3::9 in that network, TCP port 8443.
    pub const HOST_IN_NETWORK6: u32 = 22;
    /// 198.51.106.1 twice without limits: the lower id.
    pub const LOWER: u32 = 23;
    /// 198.51.106.1 twice without limits: the higher id.
    pub const HIGHER: u32 = 24;
    /// The first of 198.51.105.1, TCP ports 1 to 256, one id each.
    pub const FIRST_OF_MANY: u32 = 1001;
}

const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 23);
const PORTS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 40);
const IN_NETWORK: Ipv4Addr = Ipv4Addr::new(198, 51, 101, 77);
const HOST_IN_NETWORK: Ipv4Addr = Ipv4Addr::new(198, 51, 101, 9);
const EXPIRED: Ipv4Addr = Ipv4Addr::new(198, 51, 102, 1);
const FUTURE: Ipv4Addr = Ipv4Addr::new(198, 51, 102, 2);
const CURRENT: Ipv4Addr = Ipv4Addr::new(198, 51, 102, 3);
const ENDS_NOW: Ipv4Addr = Ipv4Addr::new(198, 51, 102, 4);
const STARTS_NOW: Ipv4Addr = Ipv4Addr::new(198, 51, 102, 5);
const EXPIRED_IN_NETWORK: Ipv4Addr = Ipv4Addr::new(198, 51, 103, 5);
const SCTP: Ipv4Addr = Ipv4Addr::new(198, 51, 104, 1);
const MANY: Ipv4Addr = Ipv4Addr::new(198, 51, 105, 1);
const TWICE: Ipv4Addr = Ipv4Addr::new(198, 51, 106, 1);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2a02, 0xdb8, 0xc2, 0, 0, 0, 0, 0x23);
const PORTS6: Ipv6Addr = Ipv6Addr::new(0x2a02, 0xdb8, 0xc2, 0, 0, 0, 0, 0x40);
const IN_NETWORK6: Ipv6Addr = Ipv6Addr::new(0x2a02, 0xdb8, 0xc3, 1, 2, 3, 4, 5);
const HOST_IN_NETWORK6: Ipv6Addr = Ipv6Addr::new(0x2a02, 0xdb8, 0xc3, 0, 0, 0, 0, 9);

/// The C&C list: see [`id`].
///
/// # Panics
/// Never: its parts are constants.
pub fn indicators() -> Vec<Indicator> {
    let host = |id, address: IpAddr| indicator(id, IpNet::from(address));
    let net = |id, text: &str| indicator(id, text.parse().expect("a prefix"));
    let at = |hours: i64| now() + jiff::SignedDuration::from_hours(hours);
    let valid = |mut entry: Indicator, from: Option<i64>, until: Option<i64>| {
        entry.valid_from = from.map(at);
        entry.valid_until = until.map(at);
        entry
    };
    let tcp = Some(Protocol::TCP);
    let mut list = vec![
        host(id::HOST, HOST.into()),
        limited(host(id::PORT_443, PORTS.into()), tcp, Some(443)),
        limited(host(id::PORT_8080, PORTS.into()), tcp, Some(8080)),
        limited(host(id::ONLY_UDP, PORTS.into()), Some(Protocol::UDP), None),
        net(id::NETWORK, "198.51.101.0/24"),
        limited(
            host(id::HOST_IN_NETWORK, HOST_IN_NETWORK.into()),
            None,
            Some(443),
        ),
        valid(host(id::EXPIRED, EXPIRED.into()), None, Some(-1)),
        valid(host(id::FUTURE, FUTURE.into()), Some(1), None),
        valid(host(id::CURRENT, CURRENT.into()), Some(-1), Some(1)),
        net(id::LIVE_NETWORK, "198.51.103.0/24"),
        valid(
            host(id::EXPIRED_IN_NETWORK, EXPIRED_IN_NETWORK.into()),
            Some(-48),
            Some(-24),
        ),
        valid(host(id::ENDS_NOW, ENDS_NOW.into()), None, Some(0)),
        valid(host(id::STARTS_NOW, STARTS_NOW.into()), Some(0), None),
        limited(host(id::ONLY_SCTP, SCTP.into()), Some(Protocol(132)), None),
        host(id::HOSTING, HOSTING.into()),
        host(id::HOSTING6, HOSTING6.into()),
        host(id::OPTED_OUT, OPTED_OUT.into()),
        host(id::OPTED_OUT6, OPTED_OUT6.into()),
        host(id::HOST6, HOST6.into()),
        limited(host(id::PORT6_443, PORTS6.into()), None, Some(443)),
        net(id::NETWORK6, "2a02:db8:c3::/48"),
        limited(
            host(id::HOST_IN_NETWORK6, HOST_IN_NETWORK6.into()),
            tcp,
            Some(8443),
        ),
        host(id::HIGHER, TWICE.into()),
        host(id::LOWER, TWICE.into()),
    ];
    let many = (0..MAX_RULES).map(|index| {
        let entry = host(id::FIRST_OF_MANY + index, MANY.into());
        limited(entry, tcp, u16::try_from(index + 1).ok())
    });
    list.extend(many);
    list
}

const CLIENT: u16 = 51413;

pub(super) fn cases() -> Vec<Case> {
    [
        whole_addresses(),
        ports(),
        prefixes(),
        times(),
        without_ports(),
    ]
    .concat()
}

fn whole_addresses() -> Vec<Case> {
    vec![
        tcp(
            "a subscriber opens a connection to a listed host",
            (ALICE, CLIENT),
            (HOST, 443),
        )
        .outbound_hit(id::HOST),
        tcp(
            "a listed host answers a subscriber",
            (HOST, 443),
            (ALICE, CLIENT),
        )
        .inbound_hit(id::HOST),
        udp("a datagram to a listed host", (ALICE, CLIENT), (HOST, 53)).outbound_hit(id::HOST),
        tcp("to a listed host over IPv6", (ALICE6, CLIENT), (HOST6, 443)).outbound_hit(id::HOST6),
        tcp(
            "from a listed host over IPv6",
            (HOST6, 443),
            (ALICE6, CLIENT),
        )
        .inbound_hit(id::HOST6),
        packet(
            "SCTP to a host listed for SCTP",
            Frame::ethernet().ipv4(ALICE, SCTP).sctp(CLIENT, 2905),
        )
        .ip(ALICE, SCTP, 132)
        .ports(CLIENT, 2905)
        .outbound_hit(id::ONLY_SCTP),
        tcp(
            "TCP to a host listed for SCTP",
            (ALICE, CLIENT),
            (SCTP, 2905),
        )
        .exit(Counter::NoMatch),
        tcp(
            "of two equal entries the lower id is hit",
            (ALICE, CLIENT),
            (TWICE, 80),
        )
        .outbound_hit(id::LOWER),
        tcp(
            "a neighbour of a listed host",
            (ALICE, CLIENT),
            (Ipv4Addr::new(198, 51, 100, 24), 443),
        )
        .exit(Counter::NoMatch),
    ]
}

fn ports() -> Vec<Case> {
    vec![
        tcp("to a listed port", (ALICE, CLIENT), (PORTS, 443)).outbound_hit(id::PORT_443),
        tcp(
            "to another listed port of the host",
            (ALICE, CLIENT),
            (PORTS, 8080),
        )
        .outbound_hit(id::PORT_8080),
        tcp(
            "to a port that is not listed",
            (ALICE, CLIENT),
            (PORTS, 8443),
        )
        .exit(Counter::NoMatch),
        tcp(
            "a listed port on the subscriber's side counts nothing",
            (ALICE, 443),
            (PORTS, CLIENT),
        )
        .exit(Counter::NoMatch),
        tcp("from a listed port", (PORTS, 443), (ALICE, CLIENT)).inbound_hit(id::PORT_443),
        tcp(
            "inbound, a listed port on the subscriber's side",
            (PORTS, CLIENT),
            (ALICE, 443),
        )
        .exit(Counter::NoMatch),
        udp(
            "a listed protocol on any port",
            (ALICE, CLIENT),
            (PORTS, 443),
        )
        .outbound_hit(id::ONLY_UDP),
        udp(
            "a listed protocol from any port",
            (PORTS, 5),
            (ALICE, CLIENT),
        )
        .inbound_hit(id::ONLY_UDP),
        udp(
            "a port of any protocol, over IPv6",
            (ALICE6, CLIENT),
            (PORTS6, 443),
        )
        .outbound_hit(id::PORT6_443),
        tcp("another port, over IPv6", (ALICE6, CLIENT), (PORTS6, 444)).exit(Counter::NoMatch),
        tcp(
            "the first of as many entries as can cover an address",
            (ALICE, CLIENT),
            (MANY, 1),
        )
        .outbound_hit(id::FIRST_OF_MANY),
        tcp(
            "the last of as many entries as can cover an address",
            (ALICE, CLIENT),
            (MANY, 256),
        )
        .outbound_hit(id::FIRST_OF_MANY + MAX_RULES - 1),
        tcp(
            "none of as many entries as can cover an address",
            (ALICE, CLIENT),
            (MANY, 257),
        )
        .exit(Counter::NoMatch),
    ]
}

fn prefixes() -> Vec<Case> {
    vec![
        tcp("to a listed network", (ALICE, CLIENT), (IN_NETWORK, 22)).outbound_hit(id::NETWORK),
        tcp(
            "to a host in a listed network, listed itself for this port",
            (ALICE, CLIENT),
            (HOST_IN_NETWORK, 443),
        )
        .outbound_hit(id::HOST_IN_NETWORK),
        tcp(
            "to a host in a listed network, listed itself for another port",
            (ALICE, CLIENT),
            (HOST_IN_NETWORK, 80),
        )
        .outbound_hit(id::NETWORK),
        tcp(
            "to a listed network over IPv6",
            (ALICE6, CLIENT),
            (IN_NETWORK6, 22),
        )
        .outbound_hit(id::NETWORK6),
        tcp(
            "to a host in a listed network over IPv6, listed for this port",
            (ALICE6, CLIENT),
            (HOST_IN_NETWORK6, 8443),
        )
        .outbound_hit(id::HOST_IN_NETWORK6),
        udp(
            "to a host in a listed network over IPv6, listed for another protocol",
            (ALICE6, CLIENT),
            (HOST_IN_NETWORK6, 8443),
        )
        .outbound_hit(id::NETWORK6),
        tcp(
            "the first address behind a listed network",
            (ALICE, CLIENT),
            (Ipv4Addr::new(198, 51, 102, 0), 22),
        )
        .exit(Counter::NoMatch),
    ]
}

fn times() -> Vec<Case> {
    vec![
        tcp(
            "to an entry whose time is over",
            (ALICE, CLIENT),
            (EXPIRED, 443),
        )
        .exit(Counter::NoMatch),
        tcp(
            "to an entry whose time has not come",
            (ALICE, CLIENT),
            (FUTURE, 443),
        )
        .exit(Counter::NoMatch),
        tcp(
            "to an entry within its time",
            (ALICE, CLIENT),
            (CURRENT, 443),
        )
        .outbound_hit(id::CURRENT),
        tcp(
            "at its end an entry no longer holds",
            (ALICE, CLIENT),
            (ENDS_NOW, 443),
        )
        .exit(Counter::NoMatch),
        tcp(
            "at its start an entry holds",
            (ALICE, CLIENT),
            (STARTS_NOW, 443),
        )
        .outbound_hit(id::STARTS_NOW),
        tcp(
            "an expired entry does not hide the network around it",
            (ALICE, CLIENT),
            (EXPIRED_IN_NETWORK, 443),
        )
        .outbound_hit(id::LIVE_NETWORK),
    ]
}

fn without_ports() -> Vec<Case> {
    vec![
        packet(
            "a ping to a listed host",
            Frame::ethernet().ipv4(ALICE, HOST).icmp(8, 0),
        )
        .ip(ALICE, HOST, 1)
        .outbound_hit(id::HOST),
        packet(
            "a ping to a host listed with ports of another protocol",
            Frame::ethernet().ipv4(ALICE, PORTS).icmp(8, 0),
        )
        .ip(ALICE, PORTS, 1)
        .exit(Counter::NoMatch),
        packet(
            "a ping to a host listed with a port of any protocol",
            Frame::ethernet().ipv6(ALICE6, PORTS6).icmpv6(128, 0),
        )
        .ip(ALICE6, PORTS6, 58)
        .exit(Counter::NoMatch)
        .port_unknown(1),
        packet(
            "a later fragment to a listed host",
            Frame::ethernet()
                .ipv4(ALICE, HOST)
                .fragment(1480, false, 7)
                .protocol(17)
                .payload(&[0; 32]),
        )
        .ip(ALICE, HOST, 17)
        .at(1480)
        .outbound_hit(id::HOST),
        packet(
            "a later fragment to a host listed with two ports: no port, no hit",
            Frame::ethernet()
                .ipv4(ALICE, PORTS)
                .fragment(1480, true, 7)
                .protocol(6)
                .payload(&[0; 32]),
        )
        .ip(ALICE, PORTS, 6)
        .at(1480)
        .exit(Counter::NoMatch)
        .port_unknown(2),
        packet(
            "a later fragment to a host listed with a port, in a listed network",
            Frame::ethernet()
                .ipv4(ALICE, HOST_IN_NETWORK)
                .fragment(8, false, 7)
                .protocol(6)
                .payload(&[0; 32]),
        )
        .ip(ALICE, HOST_IN_NETWORK, 6)
        .at(8)
        .outbound_hit(id::NETWORK)
        .port_unknown(1),
        packet(
            "a later fragment over IPv6 to a host listed with a port",
            Frame::ethernet()
                .ipv6(ALICE6, PORTS6)
                .fragment(1448, false, 7)
                .protocol(17)
                .payload(&[0; 32]),
        )
        .ip(ALICE6, PORTS6, 17)
        .at(1448)
        .exit(Counter::NoMatch)
        .port_unknown(1),
        packet(
            "the first fragment carries the ports",
            Frame::ethernet()
                .ipv4(ALICE, PORTS)
                .fragment(0, true, 7)
                .tcp(CLIENT, 8080),
        )
        .ip(ALICE, PORTS, 6)
        .ports(CLIENT, 8080)
        .outbound_hit(id::PORT_8080),
        packet(
            "a later fragment between subscribers, one of them listed",
            Frame::ethernet()
                .ipv4(HOSTING, BOB)
                .fragment(8, false, 7)
                .protocol(6)
                .payload(&[0; 32]),
        )
        .ip(HOSTING, BOB, 6)
        .at(8)
        .inbound_hit(id::HOSTING)
        .lookups(2),
    ]
}
