//! Whose packet it is, of those with several headers that have an owner.

use std::net::Ipv4Addr;

use matcher_common::abi::{Counter, Tunnel, role};

use super::{
    super::{
        ALICE, ALICE6, BOB, Case, OPTED_OUT, OPTED_OUT6, STRANGER, STRANGER6, broken, id, packet,
    },
    CC, CC6, CLIENT, INSIDE, IP, RELAY, RELAY6, changed,
};
use crate::frames::Frame;

/// Design decision 1: consent of every subscriber in any layer, and then the
/// look-ups, outermost layer first.
pub(super) fn subscribers() -> Vec<Case> {
    let four_layers = |innermost: Ipv4Addr| {
        Frame::ethernet()
            .ipv6(ALICE6, RELAY6)
            .ipv4(INSIDE, RELAY)
            .gre()
            .ipv6(STRANGER6, RELAY6)
            .ipv4(innermost, CC)
    };
    let in_order = packet(
        "four layers: the nearest subscriber around it",
        four_layers(INSIDE).tcp(CLIENT, 443),
    )
    .ip(ALICE6, RELAY6, 4)
    .inner(Tunnel::Ip4In6, INSIDE, RELAY, 47)
    .inner(Tunnel::Gre, STRANGER6, RELAY6, 4)
    .inner(Tunnel::Ip4In6, INSIDE, CC, 6)
    .ports(CLIENT, 443)
    .hit(true, id::HOST, 3, 0)
    .lookups_of(2, 2);
    vec![
        in_order,
        packet(
            "an opted-out subscriber in the innermost of four layers",
            four_layers(OPTED_OUT).tcp(CLIENT, 443),
        )
        .ip(ALICE6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, INSIDE, RELAY, 47)
        .inner(Tunnel::Gre, STRANGER6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, OPTED_OUT, CC, 6)
        .ports(CLIENT, 443)
        .exit(Counter::OptedOut),
        packet(
            "a fifth layer",
            four_layers(INSIDE).ipv4(INSIDE, CC).tcp(CLIENT, 443),
        )
        .ip(ALICE6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, INSIDE, RELAY, 47)
        .inner(Tunnel::Gre, STRANGER6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, INSIDE, CC, 4)
        .unparsed(Counter::TooDeep),
        packet(
            "the tunnel itself goes to a listed host: the outermost layer first",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .ipv6(STRANGER6, CC6)
                .tcp(CLIENT, 443),
        )
        .ip(ALICE, CC, 41)
        .inner(Tunnel::Ip6In4, STRANGER6, CC6, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 0, 0),
        packet(
            "an opted-out subscriber around a consenting one",
            Frame::ethernet()
                .ipv6(OPTED_OUT6, RELAY6)
                .ipv4(ALICE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(OPTED_OUT6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, ALICE, CC, 6)
        .ports(CLIENT, 443)
        .exit(Counter::OptedOut),
        packet(
            "an opted-out subscriber inside a consenting one",
            Frame::ethernet()
                .ipv6(ALICE6, RELAY6)
                .ipv4(OPTED_OUT, CC)
                .tcp(CLIENT, 443),
        )
        .ip(ALICE6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, OPTED_OUT, CC, 6)
        .ports(CLIENT, 443)
        .exit(Counter::OptedOut),
        packet(
            "a consenting subscriber sends through the tunnel of an opted-out receiver",
            Frame::ethernet()
                .ipv4(STRANGER, OPTED_OUT)
                .ipv4(ALICE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(STRANGER, OPTED_OUT, 4)
        .inner(Tunnel::Ip4In4, ALICE, CC, 6)
        .ports(CLIENT, 443)
        .exit(Counter::OptedOut),
        packet(
            "no subscriber in any layer",
            Frame::ethernet()
                .ipv4(STRANGER, RELAY)
                .ipv4(INSIDE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(STRANGER, RELAY, 4)
        .inner(Tunnel::Ip4In4, INSIDE, CC, 6)
        .ports(CLIENT, 443)
        .exit(Counter::Transit),
        packet(
            "a tunnel in which nothing is listed",
            Frame::ethernet()
                .ipv6(ALICE6, RELAY6)
                .ipv4(INSIDE, STRANGER)
                .tcp(CLIENT, 443),
        )
        .ip(ALICE6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, INSIDE, STRANGER, 6)
        .ports(CLIENT, 443)
        .exit(Counter::NoMatch)
        .lookups_of(1, 1),
        packet(
            "hairpin: two subscribers in one tunnel, neither listed",
            Frame::ethernet()
                .ipv6(ALICE6, RELAY6)
                .ipv4(ALICE, BOB)
                .tcp(CLIENT, 80),
        )
        .ip(ALICE6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, ALICE, BOB, 6)
        .ports(CLIENT, 80)
        .exit(Counter::NoMatch)
        .lookups_of(2, 1),
        packet(
            "a subscriber's address inside a tunnel on a core interface: spoofed",
            Frame::ethernet()
                .ipv4(STRANGER, RELAY)
                .ipv4(ALICE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(STRANGER, RELAY, 4)
        .inner(Tunnel::Ip4In4, ALICE, CC, 6)
        .ports(CLIENT, 443)
        .on(role::CORE)
        .exit(Counter::Spoofed),
        packet(
            "a subscriber inside a carrier's tunnel on an access interface",
            Frame::ethernet()
                .ipv4(STRANGER, RELAY)
                .l2tp(false, false, None)
                .ipv4(ALICE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(STRANGER, RELAY, 17)
        .ports(1701, 1701)
        .inner(Tunnel::L2tp, ALICE, CC, 6)
        .ports(CLIENT, 443)
        .on(role::ACCESS)
        .hit(true, id::HOST, 1, 1),
        packet(
            "a later fragment inside a tunnel has no port",
            Frame::ethernet()
                .ipv6(ALICE6, RELAY6)
                .ipv4(INSIDE, CC)
                .fragment(1400, false, 3)
                .protocol(6)
                .payload(&[0x50; 40]),
        )
        .ip(ALICE6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, INSIDE, CC, 6)
        .at(1400)
        .hit(true, id::HOST, 1, 0)
        .lookups_of(1, 1),
        packet(
            "the first fragment of a tunnel holds the inner headers",
            Frame::ethernet()
                .ipv6(ALICE6, RELAY6)
                .fragment(0, true, 3)
                .ipv4(INSIDE, CC)
                .tcp(CLIENT, 443),
        )
        .ip(ALICE6, RELAY6, 4)
        .inner(Tunnel::Ip4In6, INSIDE, CC, 6)
        .ports(CLIENT, 443)
        .hit(true, id::HOST, 1, 0)
        .lookups_of(1, 1),
    ]
}

/// Whose packet it is cannot be known: it passes unmatched, and why is counted.
pub(super) fn out_of_reach() -> Vec<Case> {
    vec![
        packet(
            "a later fragment of a tunnel",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .fragment(1480, false, 4)
                .protocol(4)
                .payload(&[0; 40]),
        )
        .ip(ALICE, CC, 4)
        .at(1480)
        .unparsed(Counter::TunnelFragment),
        broken(
            "a broken layer inside a good one",
            changed(
                Frame::ethernet()
                    .ipv4(ALICE, CC)
                    .ipv4(INSIDE, STRANGER)
                    .tcp(CLIENT, 443),
                IP + 20,
                &[0x35],
            ),
        )
        .ip(ALICE, CC, 4)
        .unparsed(Counter::MalformedIp),
        broken(
            "an inner header behind the end of the outer packet is padding",
            changed(
                Frame::ethernet()
                    .ipv4(ALICE, CC)
                    .ipv4(INSIDE, STRANGER)
                    .tcp(CLIENT, 443),
                IP + 2,
                &[0, 39],
            ),
        )
        .ip(ALICE, CC, 4)
        .unparsed(Counter::TruncatedIp),
        packet(
            "a PIM Register carries a sender's packet",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .protocol(103)
                .payload(&[0x21, 0, 0, 0, 0, 0, 0, 0, 0x45]),
        )
        .ip(ALICE, CC, 103)
        .unparsed(Counter::Tunnel),
        packet(
            "PIM between routers",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .protocol(103)
                .payload(&[0x20, 0, 0, 0]),
        )
        .ip(ALICE, CC, 103)
        .outbound_hit(id::HOST),
        packet(
            "minimal encapsulation",
            Frame::ethernet()
                .ipv4(ALICE, CC)
                .protocol(55)
                .payload(&[0; 40]),
        )
        .ip(ALICE, CC, 55)
        .unparsed(Counter::Tunnel),
    ]
}
