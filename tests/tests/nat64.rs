//! NAT64: a destination inside the prefix is looked up as the IPv4 address that
//! it carries (RFC 6052), in the real kernel.

use std::net::{Ipv4Addr, Ipv6Addr};

use matcher_common::abi::{Counter, Setting};
use matcher_tests::{
    edge::{CC, Edge, LIMITS},
    frames::Frame,
    kernel::is_skipped,
};
use matcher_user::{
    nat64::Nat64Prefix,
    subscribers::{SubscriberSpace, SubscriberSpaces},
    tables::spaces::SpaceTables,
};

const CUSTOMER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 7);

fn spaces(nat64: &[Nat64Prefix]) -> SpaceTables {
    let own = SubscriberSpace::new(["2001:db8:100::/40".parse().unwrap()]);
    SpaceTables::new(&SubscriberSpaces::one(own), nat64)
}

#[test]
fn a_destination_of_each_prefix_length_is_looked_up_as_the_ipv4_address() {
    if is_skipped("a_destination_of_each_prefix_length_is_looked_up_as_the_ipv4_address") {
        return;
    }
    let mut edge = Edge::new(LIMITS);
    let prefixes: Vec<Nat64Prefix> = [
        "64:ff9b::/96",
        "2001:db9::/32",
        "2001:dba:100::/40",
        "2001:dbb:122::/48",
        "2001:dbc:122:300::/56",
        "2001:dbd:122:344::/64",
        "2001:dbe:122:344::/96",
    ]
    .iter()
    .map(|prefix| prefix.parse().unwrap())
    .collect();
    let between =
        |from: Ipv6Addr, to: Ipv6Addr| Frame::ethernet().ipv6(from, to).tcp(51413, 443).build();
    edge.set_spaces(spaces(&[]));
    assert_eq!(edge.loaded.tables.setting(Setting::Nat64).unwrap(), 0);
    for prefix in &prefixes {
        let cc = prefix.embed(CC.into());
        assert_eq!(
            edge.exit(&between(CUSTOMER, cc)),
            Counter::NoMatch,
            "{prefix}"
        );
    }
    edge.set_spaces(spaces(&prefixes));
    for prefix in &prefixes {
        let cc = prefix.embed(CC.into());
        assert_eq!(
            edge.exit(&between(CUSTOMER, cc)),
            Counter::Matched,
            "to {cc}"
        );
        assert_eq!(
            edge.exit(&between(cc, CUSTOMER)),
            Counter::Matched,
            "from {cc}"
        );
        // Each of the four bytes counts, and what is behind them does not.
        for byte in 0..4 {
            let mut other = CC;
            other[byte] ^= 1;
            let other = prefix.embed(Ipv4Addr::from(other));
            assert_eq!(
                edge.exit(&between(CUSTOMER, other)),
                Counter::NoMatch,
                "{other}"
            );
        }
        if prefix.prefix().prefix_len() < 96 {
            let mut bytes = cc.octets();
            bytes[15] = 0xff;
            let suffixed = Ipv6Addr::from(bytes);
            assert_eq!(edge.exit(&between(CUSTOMER, suffixed)), Counter::Matched);
        }
    }
    // One is taken away.
    edge.set_spaces(spaces(&prefixes[1..]));
    let cc = prefixes[0].embed(CC.into());
    assert_eq!(edge.exit(&between(CUSTOMER, cc)), Counter::NoMatch);
    let cc = prefixes[1].embed(CC.into());
    assert_eq!(edge.exit(&between(CUSTOMER, cc)), Counter::Matched);
}

#[test]
fn an_opted_out_subscriber_stays_so_behind_nat64() {
    if is_skipped("an_opted_out_subscriber_stays_so_behind_nat64") {
        return;
    }
    let mut edge = Edge::new(LIMITS);
    let prefix: Nat64Prefix = "64:ff9b::/96".parse().unwrap();
    edge.set_spaces(spaces(&[prefix]));
    edge.opt_out("2001:db8:100::7\n");
    let cc = prefix.embed(CC.into());
    let frame = Frame::ethernet().ipv6(CUSTOMER, cc).tcp(51413, 443).build();
    assert_eq!(edge.exit(&frame), Counter::OptedOut);
}
