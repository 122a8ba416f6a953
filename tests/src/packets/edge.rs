//! What stands between Ethernet and IP at the edge of an access network, and
//! transports beyond TCP and UDP.

use std::net::{Ipv4Addr, Ipv6Addr};

use matcher_common::abi::Counter;

use super::{ALICE, ALICE6, Case, broken, id, packet};
use crate::frames::Frame;

const CC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 23);
const CC6: Ipv6Addr = Ipv6Addr::new(0x2a02, 0xdb8, 0xc2, 0, 0, 0, 0, 0x23);
const CLIENT: u16 = 51413;
/// Start of what follows an untagged Ethernet header.
const NETWORK: usize = 14;

pub(super) fn cases() -> Vec<Case> {
    [vlan(), llc(), pppoe(), mpls(), lengths(), transport()].concat()
}

fn plain(frame: Frame) -> Frame {
    frame.ipv4(ALICE, CC).tcp(CLIENT, 443)
}

fn changed(frame: Frame, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.build();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

fn vlan() -> Vec<Case> {
    let four = Frame::ethernet()
        .service_vlan(1)
        .service_vlan(2)
        .vlan(3)
        .vlan(4);
    vec![
        packet("a stack of four VLAN tags", plain(four.clone()))
            .tags(&[1, 2, 3, 4])
            .ip(ALICE, CC, 6)
            .ports(CLIENT, 443)
            .outbound_hit(id::HOST),
        packet("a fifth VLAN tag", plain(four.vlan(5)))
            .tags(&[1, 2, 3, 4])
            .unparsed(Counter::VlanDepth),
        packet(
            "a tag with a priority alone",
            plain(Frame::ethernet().vlan(0)),
        )
        .tags(&[0])
        .ip(ALICE, CC, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST),
        broken(
            "a tag of the type used before 802.1ad",
            changed(plain(Frame::ethernet().vlan(9)), 12, &[0x91, 0]),
        )
        .tags(&[9])
        .ip(ALICE, CC, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST),
    ]
}

fn llc() -> Vec<Case> {
    vec![
        packet(
            "LLC is named",
            Frame::ethernet().protocol(0x0026).payload(&[0x42; 46]),
        )
        .unparsed(Counter::Llc),
        packet(
            "SNAP is named, even with IP above it",
            Frame::ethernet().protocol(0x05dc).payload(
                &[
                    &[0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00][..],
                    &plain(Frame::raw()).build(),
                ]
                .concat(),
            ),
        )
        .unparsed(Counter::Llc),
        packet(
            "an EtherType that is none of ours",
            Frame::ethernet().protocol(0x0600).payload(&[0x45; 46]),
        )
        .unparsed(Counter::NotIp),
    ]
}

fn pppoe() -> Vec<Case> {
    let session = |code, body: &[u8]| {
        let mut bytes = vec![0x11, code, 0, 7];
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        Frame::ethernet().protocol(0x8864).payload(&bytes)
    };
    vec![
        packet("a PPPoE session", plain(Frame::ethernet().pppoe()))
            .ip(ALICE, CC, 6)
            .ports(CLIENT, 443)
            .outbound_hit(id::HOST),
        packet(
            "a PPPoE session with a compressed protocol field",
            Frame::ethernet()
                .pppoe_compressed()
                .ipv6(CC6, ALICE6)
                .udp(443, CLIENT),
        )
        .ip(CC6, ALICE6, 17)
        .ports(443, CLIENT)
        .inbound_hit(id::HOST6),
        packet(
            "a PPPoE session behind two VLAN tags",
            Frame::ethernet()
                .service_vlan(7)
                .vlan(100)
                .pppoe()
                .ipv6(ALICE6, CC6)
                .tcp(CLIENT, 443),
        )
        .tags(&[7, 100])
        .ip(ALICE6, CC6, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST6),
        packet(
            "PPP's control protocols in a PPPoE session",
            session(0, &[0xc0, 0x21, 9, 1, 0, 8, 1, 2, 3, 4]),
        )
        .unparsed(Counter::Ppp),
        packet(
            "compressed PPP datagrams",
            session(0, &[0x00, 0xfd, 1, 2, 3, 4]),
        )
        .unparsed(Counter::Ppp),
        packet("a PPPoE session with a code", session(9, &[0, 0x21])).unparsed(Counter::Pppoe),
        broken(
            "PPPoE of another version",
            changed(plain(Frame::ethernet().pppoe()), NETWORK, &[0x21]),
        )
        .unparsed(Counter::Pppoe),
        broken(
            "IP that is longer than the PPPoE session says",
            changed(plain(Frame::ethernet().pppoe()), NETWORK + 4, &[0, 2 + 19]),
        )
        .unparsed(Counter::TruncatedIp),
        broken(
            "ports behind the length of the PPPoE session are padding",
            changed(plain(Frame::ethernet().pppoe()), NETWORK + 4, &[0, 2 + 22]),
        )
        .ip(ALICE, CC, 6)
        .outbound_hit(id::HOST),
        packet(
            "PPPoE discovery",
            Frame::ethernet()
                .protocol(0x8863)
                .payload(&[0x11, 9, 0, 0, 0, 0]),
        )
        .unparsed(Counter::NotIp),
    ]
}

fn mpls() -> Vec<Case> {
    let mut eight = Frame::ethernet();
    for label in 0..8 {
        eight = eight.mpls(16 + label);
    }
    vec![
        packet("an MPLS label", plain(Frame::ethernet().mpls(100)))
            .ip(ALICE, CC, 6)
            .ports(CLIENT, 443)
            .outbound_hit(id::HOST),
        packet(
            "a stack of eight MPLS labels",
            eight.clone().ipv6(ALICE6, CC6).tcp(CLIENT, 443),
        )
        .ip(ALICE6, CC6, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST6),
        packet("a ninth MPLS label", plain(eight.mpls(99))).unparsed(Counter::Mpls),
        packet(
            "an MPLS label behind a VLAN tag",
            plain(Frame::ethernet().vlan(3).mpls(100)),
        )
        .tags(&[3])
        .ip(ALICE, CC, 6)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST),
        packet(
            "a pseudowire behind an MPLS label",
            Frame::ethernet().mpls(100).payload(&[0; 60]),
        )
        .unparsed(Counter::Mpls),
        packet("MPLS that ends with its label", Frame::ethernet().mpls(100))
            .unparsed(Counter::Mpls),
    ]
}

fn lengths() -> Vec<Case> {
    let jumbo = |length: u32| {
        let mut option = vec![6, 0, 0xc2, 4];
        option.extend(length.to_be_bytes());
        option.extend([0xc8, 0xd5, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10]);
        option.extend([0; 6]);
        changed(
            Frame::ethernet()
                .ipv6(ALICE6, CC6)
                .protocol(0)
                .payload(&option),
            NETWORK + 4,
            &[0, 0],
        )
    };
    vec![
        broken("a jumbogram", jumbo(70_000))
            .ip(ALICE6, CC6, 6)
            .ports(CLIENT, 443)
            .outbound_hit(id::HOST6),
        broken(
            "payload length 0 and hop-by-hop options without a jumbo payload",
            changed(
                Frame::ethernet()
                    .ipv6(ALICE6, CC6)
                    .hop_by_hop(1)
                    .tcp(CLIENT, 443),
                NETWORK + 4,
                &[0, 0],
            ),
        )
        .ip(ALICE6, CC6, 0)
        .unparsed(Counter::MalformedIp),
        packet(
            "six bytes of a fragment header",
            Frame::ethernet()
                .ipv6(ALICE6, CC6)
                .protocol(44)
                .payload(&[6, 0, 0, 0, 1, 0]),
        )
        .ip(ALICE6, CC6, 44)
        .unparsed(Counter::ExtensionHeaders),
        broken("a jumbogram that needs not be one", jumbo(65_535))
            .ip(ALICE6, CC6, 0)
            .unparsed(Counter::MalformedIp),
    ]
}

fn transport() -> Vec<Case> {
    let quoted = Frame::raw().ipv4(ALICE, CC).tcp(CLIENT, 443).build();
    let quoted6 = Frame::raw().ipv6(ALICE6, CC6).tcp(CLIENT, 443).build();
    let stranger = Ipv4Addr::new(192, 0, 2, 1);
    let stranger6 = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
    vec![
        packet(
            "UDP-Lite",
            Frame::ethernet().ipv4(ALICE, CC).udp_lite(CLIENT, 443),
        )
        .ip(ALICE, CC, 136)
        .ports(CLIENT, 443)
        .outbound_hit(id::HOST),
        packet(
            "DCCP",
            Frame::ethernet().ipv6(CC6, ALICE6).dccp(443, CLIENT),
        )
        .ip(CC6, ALICE6, 33)
        .ports(443, CLIENT)
        .inbound_hit(id::HOST6),
        packet(
            "an ICMP error that quotes a packet to a listed host",
            Frame::ethernet()
                .ipv4(stranger, ALICE)
                .icmp(3, 1)
                .payload(&quoted),
        )
        .ip(stranger, ALICE, 1)
        .exit(Counter::NoMatch),
        packet(
            "an ICMPv6 error that quotes a packet to a listed host",
            Frame::ethernet()
                .ipv6(stranger6, ALICE6)
                .icmpv6(1, 0)
                .payload(&quoted6),
        )
        .ip(stranger6, ALICE6, 58)
        .exit(Counter::NoMatch),
    ]
}
