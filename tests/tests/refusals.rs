//! Refusals that hold at once, in the real kernel.

use matcher_common::abi::{Counter, Setting};
use matcher_tests::{
    edge::{CC, Edge, LIMITS, compiled},
    frames::Frame,
    kernel::is_skipped,
};
use matcher_user::{
    kernel::{KernelError, program::Limits},
    tables::{consent::ConsentEntries, spaces::SpaceTables},
};

const CC6: [u16; 8] = [0x2001, 0xdb8, 0xcc, 0, 0, 0, 0, 1];

fn from(host: u8) -> Vec<u8> {
    Frame::ethernet()
        .ipv4([203, 0, 113, host], CC)
        .tcp(51413, 443)
        .build()
}

fn edge() -> Edge {
    let mut edge = Edge::new(LIMITS);
    edge.set_spaces(SpaceTables::one([
        "203.0.113.0/24".parse().unwrap(),
        "2001:db8:100::/40".parse().unwrap(),
    ]));
    edge
}

#[test]
fn a_refusal_holds_with_the_next_packet_whatever_the_consent_tables_say() {
    if is_skipped("a_refusal_holds_with_the_next_packet_whatever_the_consent_tables_say") {
        return;
    }
    let mut edge = edge();
    // One with entries of their own for ports, others by default.
    edge.opt_out("203.0.113.9 ports=1024-2047\n");
    for host in [7, 8, 9] {
        assert_eq!(edge.exit(&from(host)), Counter::Matched, "{host}");
    }
    let lookups = |edge: &Edge| {
        edge.loaded
            .tables
            .counters()
            .unwrap()
            .get(Counter::LookupsV4)
    };
    let before = lookups(&edge);
    let tables = &mut edge.loaded.tables;
    tables
        .refuse_now(&"203.0.113.8/31".parse().unwrap(), 1)
        .unwrap();
    assert_eq!(edge.exit(&from(8)), Counter::OptedOut);
    assert_eq!(edge.exit(&from(9)), Counter::OptedOut);
    assert_eq!(lookups(&edge), before, "nothing of theirs is compared (R1)");
    assert_eq!(edge.exit(&from(7)), Counter::Matched);
    // From the other end, too; and who is no subscriber is none by it.
    let back = Frame::ethernet().ipv4(CC, [203, 0, 113, 8]).tcp(443, 51413);
    assert_eq!(edge.exit(&back.build()), Counter::OptedOut);
    let tables = &mut edge.loaded.tables;
    tables
        .refuse_now(&"192.0.2.0/24".parse().unwrap(), 1)
        .unwrap();
    let transit = Frame::ethernet().ipv4([192, 0, 2, 1], CC).tcp(51413, 443);
    assert_eq!(edge.exit(&transit.build()), Counter::Transit);

    let tables = &mut edge.loaded.tables;
    tables
        .end_refusal(&"203.0.113.8/31".parse().unwrap())
        .unwrap();
    for host in [7, 8, 9] {
        assert_eq!(edge.exit(&from(host)), Counter::Matched, "{host}");
    }
}

#[test]
fn a_refusal_of_ipv6_holds_inside_a_tunnel() {
    if is_skipped("a_refusal_of_ipv6_holds_inside_a_tunnel") {
        return;
    }
    let mut edge = edge();
    let b4 = [0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 7];
    // DS-Lite: the customer is known by the outer address.
    let frame = Frame::ethernet()
        .ipv6(b4, CC6)
        .ipv4([192, 168, 0, 2], CC)
        .tcp(51413, 443)
        .build();
    assert_eq!(edge.exit(&frame), Counter::Matched);
    let prefix = "2001:db8:100::/56".parse().unwrap();
    edge.loaded.tables.refuse_now(&prefix, 1).unwrap();
    assert_eq!(edge.exit(&frame), Counter::OptedOut);
    edge.loaded.tables.end_refusal(&prefix).unwrap();
    assert_eq!(edge.exit(&frame), Counter::Matched);
}

#[test]
fn refusals_are_counted_and_those_left_behind_are_ended() {
    if is_skipped("refusals_are_counted_and_those_left_behind_are_ended") {
        return;
    }
    let mut edge = edge();
    let tables = &mut edge.loaded.tables;
    let [old, new] = ["203.0.113.7/32", "2001:db8:100::/56"].map(|net| net.parse().unwrap());
    tables.refuse_now(&old, 100).unwrap();
    // Twice is once, said later.
    tables.refuse_now(&new, 100).unwrap();
    tables.refuse_now(&new, 500).unwrap();
    assert_eq!(tables.setting(Setting::RefusedNow).unwrap(), 2);
    assert_eq!(tables.refusals().unwrap(), [(old, 100), (new, 500)]);
    tables.end_refusals_before(500).unwrap();
    assert_eq!(tables.refusals().unwrap(), [(new, 500)]);
    tables.end_refusal(&old).unwrap();
    assert_eq!(tables.setting(Setting::RefusedNow).unwrap(), 1);
    tables.end_refusal(&new).unwrap();
    assert_eq!(tables.setting(Setting::RefusedNow).unwrap(), 0);
}

#[test]
fn a_change_of_consent_that_was_cut_off_is_in_force_with_the_next() {
    if is_skipped("a_change_of_consent_that_was_cut_off_is_in_force_with_the_next") {
        return;
    }
    let mut edge = Edge::new(Limits {
        max_consent_entries: 2,
        ..LIMITS
    });
    edge.set_spaces(SpaceTables::one(["203.0.113.0/24".parse().unwrap()]));
    let table = compiled("203.0.113.7\n203.0.113.8\n203.0.113.9\n", &[]);
    let tables = &mut edge.loaded.tables;
    let error = tables
        .set_consent(&ConsentEntries::from(&table))
        .unwrap_err();
    assert!(matches!(error, KernelError::TableFull { .. }), "{error}");
    let held = tables.consent().unwrap();
    assert_eq!(held.entries.len(), 2);
    // Nothing to write, and yet something to do.
    let _ = tables.set_consent(&held).unwrap();
    assert_eq!(edge.exit(&from(7)), Counter::OptedOut);
    assert_eq!(edge.exit(&from(8)), Counter::OptedOut);
    assert_eq!(edge.exit(&from(9)), Counter::Matched);
    // And with nothing to do nothing is done.
    let tables = &mut edge.loaded.tables;
    let before = tables.setting(Setting::ClassGeneration).unwrap();
    let _ = tables.set_consent(&held).unwrap();
    assert_eq!(tables.setting(Setting::ClassGeneration).unwrap(), before);
}
