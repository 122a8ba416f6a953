//! Who may be matched at all: conditions, roles of interfaces, consent.

use std::net::{Ipv4Addr, Ipv6Addr};

use matcher_common::abi::{Counter, Tunnel, role};

use super::{
    ALICE, ALICE6, BACK_IN, BOB, BOB6, Case, HOSTING, HOSTING6, IN_REFUSING_RANGE, NO_DETECT,
    NO_DETECT6, ONLY_DETECT, OPTED_OUT, OPTED_OUT6, SHARED, STRANGER, STRANGER6, id, packet, tcp,
};
use crate::frames::Frame;

const CC: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 23), 443);
const CC6: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2a02, 0xdb8, 0xc2, 0, 0, 0, 0, 0x23), 443);
const CLIENT: u16 = 51413;

pub(super) fn cases() -> Vec<Case> {
    [conditions(), roles(), opt_outs(), shared(), both_ends()].concat()
}

fn conditions() -> Vec<Case> {
    vec![
        tcp("the emergency stop is on", (ALICE, CLIENT), CC)
            .when(|conditions| conditions.stopped = true)
            .exit(Counter::Stopped),
        tcp("consent was not confirmed in time", (ALICE, CLIENT), CC)
            .when(|conditions| conditions.consent_confirmed = false)
            .exit(Counter::ConsentExpired),
        tcp("the stop comes before the deadline", (ALICE6, CLIENT), CC6)
            .when(|conditions| {
                conditions.stopped = true;
                conditions.consent_confirmed = false;
            })
            .exit(Counter::Stopped),
        tcp("the interface has no role", (ALICE, CLIENT), CC)
            .when(|conditions| conditions.role = None)
            .exit(Counter::InterfaceUnknown),
        tcp("neither end is a subscriber", (STRANGER, CLIENT), CC).exit(Counter::Transit),
        tcp(
            "neither end is a subscriber, IPv6",
            CC6,
            (STRANGER6, CLIENT),
        )
        .exit(Counter::Transit),
        tcp(
            "a subscriber and someone who is not listed",
            (ALICE, CLIENT),
            (STRANGER, 443),
        )
        .exit(Counter::NoMatch),
        tcp("the same the other way", (STRANGER6, 443), (ALICE6, CLIENT)).exit(Counter::NoMatch),
    ]
}

fn roles() -> Vec<Case> {
    vec![
        tcp("a subscriber on an access interface", (ALICE, CLIENT), CC)
            .on(role::ACCESS)
            .outbound_hit(id::HOST),
        tcp(
            "a subscriber on an access interface whose addresses cannot be forged",
            (ALICE6, CLIENT),
            CC6,
        )
        .on(role::ACCESS)
        .when(|conditions| conditions.source_validated = true)
        .outbound_hit(id::HOST6),
        tcp(
            "a foreign source on an access interface",
            CC,
            (ALICE, CLIENT),
        )
        .on(role::ACCESS)
        .exit(Counter::ForeignSource),
        tcp(
            "transit on an access interface has a foreign source",
            (STRANGER, CLIENT),
            CC,
        )
        .on(role::ACCESS)
        .exit(Counter::ForeignSource),
        tcp("an answer on a core interface", CC, (ALICE, CLIENT))
            .on(role::CORE)
            .inbound_hit(id::HOST),
        tcp("an answer on a core interface, IPv6", CC6, (ALICE6, CLIENT))
            .on(role::CORE)
            .inbound_hit(id::HOST6),
        tcp(
            "a subscriber's address as source on a core interface",
            (ALICE, CLIENT),
            CC,
        )
        .on(role::CORE)
        .exit(Counter::Spoofed),
        tcp("the same with an opted-out one", (OPTED_OUT6, CLIENT), CC6)
            .on(role::CORE)
            .exit(Counter::Spoofed),
        tcp("transit on a core interface", (STRANGER, CLIENT), CC)
            .on(role::CORE)
            .exit(Counter::Transit),
    ]
}

fn opt_outs() -> Vec<Case> {
    vec![
        tcp("an opted-out subscriber sends", (OPTED_OUT, CLIENT), CC).exit(Counter::OptedOut),
        tcp("an opted-out subscriber gets", CC, (OPTED_OUT, CLIENT)).exit(Counter::OptedOut),
        tcp(
            "an opted-out subscriber sends, IPv6",
            (OPTED_OUT6, CLIENT),
            CC6,
        )
        .exit(Counter::OptedOut),
        tcp(
            "an opted-out subscriber gets, IPv6",
            CC6,
            (OPTED_OUT6, CLIENT),
        )
        .exit(Counter::OptedOut),
        tcp(
            "an opted-out subscriber on an access interface",
            (OPTED_OUT, CLIENT),
            CC,
        )
        .on(role::ACCESS)
        .exit(Counter::OptedOut),
        tcp(
            "an opted-out subscriber behind a core interface",
            CC,
            (OPTED_OUT, CLIENT),
        )
        .on(role::CORE)
        .exit(Counter::OptedOut),
        tcp("detection alone is refused", (NO_DETECT, CLIENT), CC).exit(Counter::OptedOut),
        tcp(
            "detection alone is refused, IPv6",
            CC6,
            (NO_DETECT6, CLIENT),
        )
        .exit(Counter::OptedOut),
        tcp(
            "everything but detection is refused",
            (ONLY_DETECT, CLIENT),
            CC,
        )
        .outbound_hit(id::HOST),
        tcp("in a range that refuses", (IN_REFUSING_RANGE, CLIENT), CC).exit(Counter::OptedOut),
        tcp(
            "who consents in a range that refuses",
            CC,
            (BACK_IN, CLIENT),
        )
        .inbound_hit(id::HOST),
    ]
}

fn shared() -> Vec<Case> {
    let without_port = |description, frame: Frame, protocol| {
        packet(description, frame)
            .ip(SHARED, CC.0, protocol)
            .exit(Counter::SharedAddress)
    };
    let to_cc = || Frame::ethernet().ipv4(SHARED, CC.0);
    vec![
        tcp(
            "the last port before an opted-out sharer's",
            (SHARED, 1023),
            CC,
        )
        .outbound_hit(id::HOST),
        tcp("the first port of an opted-out sharer", (SHARED, 1024), CC).exit(Counter::OptedOut),
        tcp("the last port of an opted-out sharer", CC, (SHARED, 2047)).exit(Counter::OptedOut),
        tcp(
            "the first port after an opted-out sharer's",
            CC,
            (SHARED, 2048),
        )
        .inbound_hit(id::HOST),
        without_port(
            "ICMP of an address with an opted-out sharer",
            to_cc().icmp(8, 0),
            1,
        ),
        without_port(
            "ESP of an address with an opted-out sharer",
            to_cc().protocol(50).payload(&[0x5a; 32]),
            50,
        ),
        packet(
            "a later fragment of an address with an opted-out sharer",
            to_cc()
                .fragment(1480, false, 9)
                .protocol(17)
                .payload(&[0; 40]),
        )
        .ip(SHARED, CC.0, 17)
        .at(1480)
        .exit(Counter::SharedAddress),
        packet(
            "GRE of an address with an opted-out sharer",
            to_cc().gre().ipv4([192, 168, 1, 2], CC.0).tcp(CLIENT, 443),
        )
        .ip(SHARED, CC.0, 47)
        .inner(Tunnel::Gre, Ipv4Addr::new(192, 168, 1, 2), CC.0, 6)
        .ports(CLIENT, 443)
        .exit(Counter::SharedAddress),
    ]
}

fn both_ends() -> Vec<Case> {
    vec![
        tcp(
            "two subscribers, neither listed",
            (ALICE, CLIENT),
            (BOB, 80),
        )
        .exit(Counter::NoMatch)
        .lookups(2),
        tcp(
            "a subscriber reaches one who is listed",
            (ALICE, CLIENT),
            (HOSTING, 80),
        )
        .outbound_hit(id::HOSTING),
        tcp(
            "a listed subscriber answers another",
            (HOSTING, 80),
            (ALICE, CLIENT),
        )
        .inbound_hit(id::HOSTING)
        .lookups(2),
        tcp(
            "a listed subscriber answers another, IPv6",
            (HOSTING6, 80),
            (BOB6, CLIENT),
        )
        .inbound_hit(id::HOSTING6)
        .lookups(2),
        tcp(
            "a subscriber reaches an opted-out one who is listed",
            (ALICE, CLIENT),
            (OPTED_OUT, 80),
        )
        .exit(Counter::OptedOut),
        tcp(
            "an opted-out subscriber reaches one who is listed",
            (OPTED_OUT, CLIENT),
            (HOSTING, 80),
        )
        .exit(Counter::OptedOut),
        tcp(
            "an opted-out subscriber who is listed answers",
            (OPTED_OUT6, 80),
            (ALICE6, CLIENT),
        )
        .exit(Counter::OptedOut),
        tcp(
            "two opted-out subscribers",
            (OPTED_OUT, 80),
            (NO_DETECT, CLIENT),
        )
        .exit(Counter::OptedOut),
        tcp(
            "two subscribers on a core interface: spoofed",
            (ALICE, CLIENT),
            (HOSTING, 80),
        )
        .on(role::CORE)
        .exit(Counter::Spoofed),
    ]
}
