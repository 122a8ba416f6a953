//! Headers in every order, whole and broken.

use std::net::{Ipv4Addr, Ipv6Addr};

use matcher_common::abi::Counter;

use super::{ALICE, ALICE6, Case, broken, id, packet};
use crate::frames::Frame;

const CC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 23);
const CC6: Ipv6Addr = Ipv6Addr::new(0x2a02, 0xdb8, 0xc2, 0, 0, 0, 0, 0x23);
const CLIENT: u16 = 51413;
/// Start of the IP header of an untagged frame.
const IP: usize = 14;

pub(super) fn cases() -> Vec<Case> {
    [link(), ipv4(), ipv6(), transport()].concat()
}

/// A frame with changed bytes.
fn changed(frame: Frame, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.build();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

fn cut(frame: Frame, length: usize) -> Vec<u8> {
    let mut frame = frame.build();
    frame.truncate(length);
    frame
}

fn tcp4() -> Frame {
    Frame::ethernet().ipv4(ALICE, CC).tcp(CLIENT, 443)
}

fn tcp6() -> Frame {
    Frame::ethernet().ipv6(ALICE6, CC6).tcp(CLIENT, 443)
}

fn link() -> Vec<Case> {
    vec![
        packet(
            "one VLAN tag",
            Frame::ethernet().vlan(100).ipv4(ALICE, CC).tcp(CLIENT, 443),
        )
        .tags(&[100])
        .ip(ALICE, CC, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST),
        packet(
            "QinQ: a service tag and a customer tag",
            Frame::ethernet()
                .service_vlan(7)
                .vlan(100)
                .ipv4(CC, ALICE)
                .udp(443, CLIENT),
        )
        .tags(&[7, 100])
        .ip(CC, ALICE, 17)
        .ports(443, CLIENT)
        .inbound_hit(id::HOST),
        packet(
            "two tags of 802.1Q, IPv6",
            Frame::ethernet()
                .vlan(7)
                .vlan(100)
                .ipv6(ALICE6, CC6)
                .tcp(CLIENT, 443),
        )
        .tags(&[7, 100])
        .ip(ALICE6, CC6, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST6),
        broken(
            "a frame that ends within a tag",
            cut(Frame::ethernet().vlan(100).protocol(0x0800), 16),
        )
        .unparsed(Counter::TruncatedLink),
        broken(
            "a frame that ends within the second tag",
            cut(Frame::ethernet().vlan(1).vlan(100).protocol(0x0800), 21),
        )
        .tags(&[1])
        .unparsed(Counter::TruncatedLink),
        packet("ARP", Frame::ethernet().protocol(0x0806).payload(&[0; 46]))
            .unparsed(Counter::NotIp),
        packet(
            "ARP behind a tag",
            Frame::ethernet().vlan(5).protocol(0x0806).payload(&[0; 46]),
        )
        .tags(&[5])
        .unparsed(Counter::NotIp),
    ]
}

fn ipv4() -> Vec<Case> {
    vec![
        packet(
            "IPv4 with the most options there can be",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .ipv4_options(&[1; 40])
                .tcp(CLIENT, 443),
        )
        .ip(ALICE, CC, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST),
        broken("an Ethernet header and nothing else", cut(tcp4(), IP))
            .unparsed(Counter::TruncatedIp),
        broken(
            "a frame that ends within the IPv4 header",
            cut(tcp4(), IP + 19),
        )
        .unparsed(Counter::TruncatedIp),
        broken(
            "a frame that ends within IPv4 options",
            cut(
                Frame::ethernet()
                    .ipv4(ALICE, CC)
                    .ipv4_options(&[1; 8])
                    .tcp(CLIENT, 443),
                IP + 27,
            ),
        )
        .unparsed(Counter::TruncatedIp),
        broken(
            "version 6 under the EtherType of IPv4",
            changed(tcp4(), IP, &[0x65]),
        )
        .unparsed(Counter::MalformedIp),
        broken("an IPv4 header of 16 bytes", changed(tcp4(), IP, &[0x44]))
            .unparsed(Counter::MalformedIp),
        broken(
            "a total length within the header",
            changed(tcp4(), IP + 2, &[0, 12]),
        )
        .unparsed(Counter::MalformedIp),
        broken(
            "total length 0, as segmentation offload leaves it",
            changed(tcp4(), IP + 2, &[0, 0]),
        )
        .ip(ALICE, CC, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST),
        broken(
            "ports behind the total length are padding",
            changed(tcp4(), IP + 2, &[0, 22]),
        )
        .ip(ALICE, CC, 6)
        .outbound_hit(id::HOST),
        packet(
            "an authentication header in IPv4",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .protocol(51)
                .payload(&authenticated(17, &[0xc8, 0xd5, 0, 53, 0, 8, 0, 0])),
        )
        .ip(ALICE, CC, 17)
        .ports(CLIENT, 53)
        .outbound_hit(id::HOST),
    ]
}

/// An authentication header of 24 bytes before `next`.
fn authenticated(next: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, 4];
    bytes.resize(24, 0);
    bytes.extend(body);
    bytes
}

fn ipv6() -> Vec<Case> {
    let mut eight = Frame::ethernet().ipv6(ALICE6, CC6).hop_by_hop(1);
    for units in 1..8 {
        eight = eight.destination_options(units);
    }
    let nine = eight.clone().routing();
    vec![
        packet(
            "every extension header of RFC 8200",
            Frame::ethernet()
                .ipv6(CC6, ALICE6)
                .hop_by_hop(1)
                .destination_options(3)
                .routing()
                .fragment(0, true, 9)
                .destination_options(1)
                .udp(443, CLIENT),
        )
        .ip(CC6, ALICE6, 17)
        .ports(443, CLIENT)
        .inbound_hit(id::HOST6),
        packet("eight extension headers", eight.tcp(CLIENT, 443))
            .ip(ALICE6, CC6, 6)
            .ports(CLIENT, 443)
            .outbound_hit(id::HOST6),
        packet("a ninth extension header", nine.tcp(CLIENT, 443))
            .ip(ALICE6, CC6, 43)
            .unparsed(Counter::ExtensionHeaders),
        broken(
            "a frame that ends within the IPv6 header",
            cut(tcp6(), IP + 39),
        )
        .unparsed(Counter::TruncatedIp),
        broken(
            "a frame that ends within the first bytes of IPv6",
            cut(tcp6(), IP + 7),
        )
        .unparsed(Counter::TruncatedIp),
        broken(
            "version 4 under the EtherType of IPv6",
            changed(tcp6(), IP, &[0x45]),
        )
        .unparsed(Counter::MalformedIp),
        broken(
            "a frame that ends where an extension header is announced",
            cut(
                Frame::ethernet()
                    .ipv6(ALICE6, CC6)
                    .hop_by_hop(1)
                    .tcp(CLIENT, 443),
                IP + 42,
            ),
        )
        .ip(ALICE6, CC6, 0)
        .unparsed(Counter::ExtensionHeaders),
        broken(
            "an extension header longer than the packet",
            changed(
                Frame::ethernet()
                    .ipv6(ALICE6, CC6)
                    .destination_options(1)
                    .tcp(CLIENT, 443),
                IP + 41,
                &[200],
            ),
        )
        .ip(ALICE6, CC6, 60)
        .unparsed(Counter::ExtensionHeaders),
        packet(
            "a later fragment that starts with destination options may hide a tunnel",
            Frame::ethernet()
                .ipv6(ALICE6, CC6)
                .fragment(1448, false, 9)
                .protocol(60)
                .payload(&[0; 40]),
        )
        .ip(ALICE6, CC6, 60)
        .at(1448)
        .unparsed(Counter::ExtensionHeaders),
        broken(
            "payload length 0, as segmentation offload leaves it",
            changed(tcp6(), IP + 4, &[0, 0]),
        )
        .ip(ALICE6, CC6, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST6),
        packet(
            "IPv6 with nothing in it",
            Frame::ethernet().ipv6(ALICE6, CC6),
        )
        .ip(ALICE6, CC6, 59)
        .outbound_hit(id::HOST6),
    ]
}

fn transport() -> Vec<Case> {
    vec![
        broken("a frame that ends within the ports", cut(tcp4(), IP + 23))
            .ip(ALICE, CC, 6)
            .outbound_hit(id::HOST),
        broken(
            "a frame that ends right behind the ports",
            cut(tcp6(), IP + 44),
        )
        .ip(ALICE6, CC6, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST6),
        packet(
            "a ping inside IPv6",
            Frame::ethernet().ipv6(CC6, ALICE6).icmpv6(129, 0),
        )
        .ip(CC6, ALICE6, 58)
        .inbound_hit(id::HOST6),
        packet(
            "SCTP from a listed host",
            Frame::ethernet().ipv4(CC, ALICE).sctp(2905, CLIENT),
        )
        .ip(CC, ALICE, 132)
        .ports(2905, CLIENT)
        .inbound_hit(id::HOST),
        packet(
            "ESP: encrypted, but its ends are known",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .protocol(50)
                .payload(&[0x5a; 32]),
        )
        .ip(ALICE, CC, 50)
        .outbound_hit(id::HOST),
        packet(
            "a packet of more than a page, in several buffers",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .udp(CLIENT, 443)
                .payload(&[0; 9000]),
        )
        .ip(ALICE, CC, 17)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST),
        packet(
            "ports beyond the first buffer of a packet",
            Frame::ethernet()
                .ipv6(ALICE6, CC6)
                .destination_options(250)
                .destination_options(250)
                .destination_options(250)
                .tcp(CLIENT, 443)
                .payload(&[0; 1000]),
        )
        .ip(ALICE6, CC6, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST6),
    ]
}
