//! Packets inside packets: who is the subscriber, and who may be matched.

mod owners;

use std::net::{Ipv4Addr, Ipv6Addr};

use matcher_common::abi::{Counter, Tunnel};

use super::{ALICE, ALICE6, Case, STRANGER, STRANGER6, id, packet};
use crate::frames::Frame;

const CC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 23);
const CC6: Ipv6Addr = Ipv6Addr::new(0x2a02, 0xdb8, 0xc2, 0, 0, 0, 0, 0x23);
const CLIENT: u16 = 51413;
/// The other end of a tunnel: an AFTR, a border relay.
const RELAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const RELAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x99);
/// A machine behind a subscriber's router.
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
/// Start of the IP header of an untagged frame.
const IP: usize = 14;

pub(super) fn cases() -> Vec<Case> {
    [
        ip_in_ip(),
        gre(),
        ethernet(),
        l2tp(),
        over_udp(),
        owners::subscribers(),
        owners::out_of_reach(),
    ]
    .concat()
}

fn changed(frame: Frame, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.build();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

fn ip_in_ip() -> Vec<Case> {
    vec![
        packet(
            "DS-Lite: the subscriber is known by the address of the B4",
            Frame::ethernet()
                .ipv6(ALICE6, RELAY6)
                .ipv4(INSIDE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(ALICE6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, INSIDE, CC, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 0)
        .lookups_of(1, 1),
        packet(
            "DS-Lite, the answer",
            Frame::ethernet()
                .ipv6(RELAY6, ALICE6)
                .ipv4(CC, INSIDE)
                .tcp(443, CLIENT),
        )
        .ip(RELAY6, ALICE6, 4)
        .inner(Tunnel::Ip4In6, CC, INSIDE, 6)
        .ports(443, CLIENT)
        .hit(false, id::HOST, 1, 0)
        .lookups_of(1, 1),
        packet(
            "MAP-E: the subscriber's own IPv4 address is the nearer one",
            Frame::ethernet()
                .ipv6(ALICE6, RELAY6)
                .destination_options(1)
                .ipv4(ALICE, CC)
                .udp(CLIENT, 443),
        )
        .ip(ALICE6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, ALICE, CC, 17)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 1)
        .lookups_of(1, 1),
        packet(
            "6in4",
            Frame::ethernet()
                .ipv4(ALICE, RELAY)
                .ipv6(STRANGER6, CC6)
                .tcp(CLIENT, 443),
        )
        .ip(ALICE, RELAY, 41)
        .inner(Tunnel::Ip6In4, STRANGER6, CC6, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST6, 1, 0)
        .lookups_of(1, 1),
        packet(
            "4in4",
            Frame::ethernet()
                .ipv4(RELAY, STRANGER)
                .ipv4(CC, ALICE)
                .tcp(443, CLIENT),
        )
        .ip(RELAY, STRANGER, 4)
        .inner(Tunnel::Ip4In4, CC, ALICE, 6)
        .ports(443, CLIENT)
        .hit(false, id::HOST, 1, 1),
        packet(
            "6in6",
            Frame::ethernet()
                .ipv6(RELAY6, STRANGER6)
                .ipv6(ALICE6, CC6)
                .tcp(CLIENT, 443),
        )
        .ip(RELAY6, STRANGER6, 41)
        .inner(Tunnel::Ip6In6, ALICE6, CC6, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST6, 1, 1),
        packet(
            "IP in IP as KA9Q numbered it",
            Frame::ethernet()
                .ipv4(ALICE, RELAY)
                .protocol(94)
                .payload(&Frame::raw().ipv4(INSIDE, CC).icmp(8, 0).build()),
        )
        .ip(ALICE, RELAY, 94)
        .inner(Tunnel::Ip4In4, INSIDE, CC, 1)
        .hit(true, id::HOST, 1, 0)
        .lookups(2),
    ]
}

fn gre() -> Vec<Case> {
    let carried = |description, gre: fn(Frame) -> Frame| {
        packet(
            description,
            gre(Frame::ethernet().ipv4(ALICE, RELAY))
                .ipv4(INSIDE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(ALICE, RELAY, 47)
        .inner(Tunnel::Gre, INSIDE, CC, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 0)
        .lookups(2)
    };
    let broken_gre = |description, bytes: &[u8], reason| {
        packet(
            description,
            Frame::ethernet()
                .ipv4(ALICE, RELAY)
                .protocol(47)
                .payload(bytes),
        )
        .ip(ALICE, RELAY, 47)
        .unparsed(reason)
    };
    vec![
        carried("GRE", Frame::gre),
        carried("GRE with a checksum", |frame| {
            frame.gre_with(true, None, false)
        }),
        carried("GRE with a key", |frame| {
            frame.gre_with(false, Some(7), false)
        }),
        carried("GRE with a sequence number", |frame| {
            frame.gre_with(false, None, true)
        }),
        carried("GRE with checksum, key and sequence number", |frame| {
            frame.gre_with(true, Some(7), true)
        }),
        carried("Ethernet over GRE", |frame| {
            frame.gre_with(false, Some(7), false).inner_ethernet()
        }),
        carried("Ethernet with VLAN tags over GRE", |frame| {
            frame.gre().inner_ethernet().service_vlan(3).vlan(4)
        }),
        carried("MPLS over GRE", |frame| frame.gre().mpls(17).mpls(18)),
        packet(
            "PPTP",
            Frame::ethernet()
                .ipv4(ALICE, RELAY)
                .pptp(true)
                .ipv4(INSIDE, CC)
                .udp(CLIENT, 443),
        )
        .ip(ALICE, RELAY, 47)
        .inner(Tunnel::Pptp, INSIDE, CC, 17)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 0)
        .lookups(2),
        packet(
            "an acknowledgment of PPTP alone",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .protocol(47)
                .payload(&[0x20, 0x81, 0x88, 0x0b, 0, 0, 0, 9, 0, 0, 0, 1]),
        )
        .ip(ALICE, CC, 47)
        .outbound_hit(id::HOST),
        broken_gre(
            "GRE with source routes",
            &[0x40, 0, 8, 0, 0, 0, 0, 0, 0x45],
            Counter::Tunnel,
        ),
        broken_gre(
            "GRE with what is no packet",
            &[0, 0, 0x88, 0xbe, 0, 0, 0, 0],
            Counter::Tunnel,
        ),
        broken_gre(
            "GRE of another version",
            &[0, 2, 8, 0, 0x45, 0, 0, 0],
            Counter::Tunnel,
        ),
        broken_gre("GRE cut off", &[0, 0, 8], Counter::TruncatedTunnel),
    ]
}

fn ethernet() -> Vec<Case> {
    vec![
        packet(
            "EtherIP",
            Frame::ethernet()
                .ipv6(ALICE6, RELAY6)
                .etherip()
                .ipv4(INSIDE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(ALICE6, RELAY6, 97)
        .inner(Tunnel::EtherIp, INSIDE, CC, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 0)
        .lookups_of(1, 1),
        packet(
            "EtherIP of another version",
            Frame::ethernet()
                .ipv4(ALICE, RELAY)
                .protocol(97)
                .payload(&[0x20; 40]),
        )
        .ip(ALICE, RELAY, 97)
        .unparsed(Counter::Tunnel),
        packet(
            "Ethernet in IPv6 without a header of its own",
            Frame::ethernet()
                .ipv6(ALICE6, RELAY6)
                .routing()
                .inner_ethernet()
                .ipv4(INSIDE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(ALICE6, RELAY6, 143)
        .inner(Tunnel::EthernetInIp, INSIDE, CC, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 0)
        .lookups_of(1, 1),
        packet(
            "MPLS in IP",
            Frame::ethernet()
                .ipv4(ALICE, RELAY)
                .mpls(100)
                .ipv4(INSIDE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(ALICE, RELAY, 137)
        .inner(Tunnel::MplsInIp, INSIDE, CC, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 0)
        .lookups(2),
        packet(
            "a bridged frame without IP",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .etherip()
                .protocol(0x0806)
                .payload(&[0; 46]),
        )
        .ip(ALICE, CC, 97)
        .unparsed(Counter::NotIp),
    ]
}

fn l2tp() -> Vec<Case> {
    let wholesale = |description, l2tp: fn(Frame) -> Frame| {
        packet(
            description,
            l2tp(Frame::ethernet().ipv4(STRANGER, RELAY))
                .ipv4(ALICE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(STRANGER, RELAY, 17)
        .ports(1701, 1701)
        .inner(Tunnel::L2tp, ALICE, CC, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 1)
    };
    vec![
        wholesale("L2TP with PPP: wholesale access", |frame| {
            frame.l2tp(false, false, None)
        }),
        wholesale("L2TP with a length", |frame| frame.l2tp(true, false, None)),
        wholesale("L2TP with sequence numbers", |frame| {
            frame.l2tp(true, true, None)
        }),
        wholesale("L2TP with an offset", |frame| {
            frame.l2tp(true, true, Some(6))
        }),
        packet(
            "L2TP's control messages are plain UDP",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .udp(1701, 1701)
                .payload(&[0xc8, 0x02, 0, 12, 0, 5, 0, 0, 0, 1, 0, 0]),
        )
        .ip(ALICE, CC, 17)
        .ports(1701, 1701)
        .outbound_hit(id::HOST),
        packet(
            "L2TPv3 hides where its packet starts",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .udp(CLIENT, 1701)
                .payload(&[0, 3, 0, 0, 0, 0, 0, 9, 0x45]),
        )
        .ip(ALICE, CC, 17)
        .ports(CLIENT, 1701)
        .unparsed(Counter::Tunnel),
        packet(
            "L2TPv3 above IP",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .protocol(115)
                .payload(&[0; 40]),
        )
        .ip(ALICE, CC, 115)
        .unparsed(Counter::Tunnel),
        packet(
            "PPP's control protocols in L2TP",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .l2tp(false, false, None)
                .protocol(0xc021)
                .payload(&[9, 1, 0, 4]),
        )
        .ip(ALICE, CC, 17)
        .ports(1701, 1701)
        .unparsed(Counter::Ppp),
    ]
}

fn over_udp() -> Vec<Case> {
    const TUNNEL_CLIENT: u16 = 54321;
    vec![
        packet(
            "VXLAN",
            Frame::ethernet()
                .ipv4(RELAY, STRANGER)
                .vxlan()
                .vlan(12)
                .ipv4(CC, ALICE)
                .tcp(443, CLIENT),
        )
        .ip(RELAY, STRANGER, 17)
        .ports(TUNNEL_CLIENT, 4789)
        .inner(Tunnel::Vxlan, CC, ALICE, 6)
        .ports(443, CLIENT)
        .hit(false, id::HOST, 1, 1),
        packet(
            "what goes to VXLAN's port and is none is plain UDP",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .udp(CLIENT, 4789)
                .payload(&[0; 40]),
        )
        .ip(ALICE, CC, 17)
        .ports(CLIENT, 4789)
        .outbound_hit(id::HOST),
        packet(
            "VXLAN-GPE with Ethernet in it",
            Frame::ethernet()
                .ipv4(RELAY, STRANGER)
                .udp(TUNNEL_CLIENT, 4790)
                .payload(&gpe(
                    3,
                    &Frame::ethernet().ipv4(CC, ALICE).icmp(0, 0).build(),
                )),
        )
        .ip(RELAY, STRANGER, 17)
        .ports(TUNNEL_CLIENT, 4790)
        .inner(Tunnel::Vxlan, CC, ALICE, 1)
        .hit(false, id::HOST, 1, 1),
        packet(
            "VXLAN-GPE with something else in it",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .udp(TUNNEL_CLIENT, 4790)
                .payload(&gpe(1, &Frame::raw().ipv4(INSIDE, CC).icmp(8, 0).build())),
        )
        .ip(ALICE, CC, 17)
        .ports(TUNNEL_CLIENT, 4790)
        .unparsed(Counter::Tunnel),
        packet(
            "MPLS over UDP",
            Frame::ethernet()
                .ipv4(RELAY, STRANGER)
                .udp(TUNNEL_CLIENT, 6635)
                .mpls(17)
                .ipv4(ALICE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(RELAY, STRANGER, 17)
        .ports(TUNNEL_CLIENT, 6635)
        .inner(Tunnel::MplsInIp, ALICE, CC, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 1),
        packet(
            "Geneve with options, and Ethernet in it",
            Frame::ethernet()
                .ipv6(RELAY6, STRANGER6)
                .geneve(3)
                .inner_ethernet()
                .ipv6(ALICE6, CC6)
                .tcp(CLIENT, 443),
        )
        .ip(RELAY6, STRANGER6, 17)
        .ports(TUNNEL_CLIENT, 6081)
        .inner(Tunnel::Geneve, ALICE6, CC6, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST6, 1, 1),
        packet(
            "Geneve with IP in it",
            Frame::ethernet()
                .ipv4(RELAY, STRANGER)
                .geneve(0)
                .ipv4(ALICE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(RELAY, STRANGER, 17)
        .ports(TUNNEL_CLIENT, 6081)
        .inner(Tunnel::Geneve, ALICE, CC, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 1),
        packet(
            "GTP-U",
            Frame::ethernet()
                .ipv4(STRANGER, RELAY)
                .gtp_u(&[], false)
                .ipv4(ALICE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(STRANGER, RELAY, 17)
        .ports(2152, 2152)
        .inner(Tunnel::GtpU, ALICE, CC, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 1),
        packet(
            "GTP-U with a sequence number and extension headers",
            Frame::ethernet()
                .ipv6(STRANGER6, RELAY6)
                .gtp_u(&[1, 2], true)
                .ipv6(CC6, ALICE6)
                .udp(443, CLIENT),
        )
        .ip(STRANGER6, RELAY6, 17)
        .ports(2152, 2152)
        .inner(Tunnel::GtpU, CC6, ALICE6, 17)
        .ports(443, CLIENT)
        .hit(false, id::HOST6, 1, 1),
        packet(
            "GTP-U's signalling is plain UDP",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .udp(2152, 2152)
                .payload(&[0x32, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0]),
        )
        .ip(ALICE, CC, 17)
        .ports(2152, 2152)
        .outbound_hit(id::HOST),
    ]
}

/// VXLAN with the protocol of what follows.
fn gpe(protocol: u8, body: &[u8]) -> Vec<u8> {
    [&[0x0c, 0, 0, protocol, 0, 0, 42, 0], body].concat()
}
