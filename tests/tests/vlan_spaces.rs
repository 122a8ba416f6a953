//! Overlapping private space, told apart by VLAN: in the real kernel.

use matcher_common::abi::{Counter, Setting};
use matcher_tests::{
    edge::{CC, Edge, LIMITS, compiled},
    frames::Frame,
    kernel::{Tally, is_skipped, part},
};
use matcher_user::{
    subscribers::{SpaceSource, SubscriberSpace, SubscriberSpaces},
    tables::{consent::ConsentEntries, spaces::SpaceTables},
};

const CUSTOMER: [u8; 4] = [10, 0, 0, 7];

fn spaces(default: &[&str], others: &[&str]) -> SpaceTables {
    let default = SubscriberSpace::new(default.iter().map(|net| net.parse().unwrap()));
    let others: Vec<SpaceSource> = others.iter().map(|space| space.parse().unwrap()).collect();
    SpaceTables::new(&SubscriberSpaces::load(default, &others).unwrap(), &[])
}

/// From the customer's address to the C&C server in VLANs, outermost first.
fn in_vlans(vlans: &[u16]) -> Vec<u8> {
    let frame = match vlans {
        [] => Frame::ethernet(),
        [one] => Frame::ethernet().vlan(*one),
        [outer, inner, ..] => Frame::ethernet().service_vlan(*outer).vlan(*inner),
    };
    frame.ipv4(CUSTOMER, CC).tcp(51413, 443).build()
}

#[test]
fn the_same_private_address_has_in_each_vlan_the_consent_of_its_own_subscriber() {
    if is_skipped("the_same_private_address_has_in_each_vlan_the_consent_of_its_own_subscriber") {
        return;
    }
    let mut edge = Edge::new(LIMITS);
    edge.set_spaces(spaces(
        &["203.0.113.0/24"],
        &[
            "7:100,300-302:10.0.0.0/8",
            "9:200,100.5,100.7-8:10.0.0.0/24",
        ],
    ));
    edge.opt_out("10.0.0.7 space=7\n");
    for (vlans, expected) in [
        (&[100][..], Counter::OptedOut),
        (&[100, 4], Counter::OptedOut),
        (&[100, 5], Counter::Matched),
        (&[100, 6], Counter::OptedOut),
        (&[100, 7], Counter::Matched),
        (&[100, 8], Counter::Matched),
        (&[300], Counter::OptedOut),
        (&[302, 1], Counter::OptedOut),
        (&[303], Counter::Transit),
        (&[200], Counter::Matched),
        (&[], Counter::Transit),
        (&[0, 0], Counter::Transit),
    ] {
        assert_eq!(edge.exit(&in_vlans(vlans)), expected, "{vlans:?}");
    }
    // A line that names no space holds in all of them.
    edge.opt_out("10.0.0.0/29 purposes=detect\n");
    for vlans in [&[100][..], &[200]] {
        assert_eq!(edge.exit(&in_vlans(vlans)), Counter::OptedOut, "{vlans:?}");
    }
    // So does one for a space that does not exist.
    edge.opt_out("10.0.0.7 space=8\n");
    for vlans in [&[100][..], &[200]] {
        assert_eq!(edge.exit(&in_vlans(vlans)), Counter::OptedOut, "{vlans:?}");
    }
    // And ports are told apart in each.
    edge.opt_out("10.0.0.7 ports=51413 space=9\n10.0.0.7 ports=51412 space=7\n");
    assert_eq!(edge.exit(&in_vlans(&[100])), Counter::Matched);
    assert_eq!(edge.exit(&in_vlans(&[200])), Counter::OptedOut);
    // Without spaces nothing is asked of VLANs.
    edge.set_spaces(spaces(&["10.0.0.0/8"], &[]));
    assert_eq!(edge.loaded.tables.setting(Setting::VlanSpaces).unwrap(), 0);
    edge.opt_out("10.0.0.8\n");
    assert_eq!(edge.exit(&in_vlans(&[100])), Counter::Matched);
}

#[test]
fn whoever_opted_out_stays_so_while_spaces_change() {
    if is_skipped("whoever_opted_out_stays_so_while_spaces_change") {
        return;
    }
    // In VLAN 100 the customer has opted out in each of these worlds; which
    // space that is, and what the others say, changes.
    let worlds = [
        (spaces(&["10.0.0.0/8"], &[]), "10.0.0.7\n"),
        (
            spaces(&["10.0.0.0/8"], &["7:100:10.0.0.0/8"]),
            "10.0.0.7 space=7\n",
        ),
        (
            spaces(
                &["10.0.0.0/24"],
                &["7:90:10.0.0.0/8", "9:100-200:10.0.0.0/24"],
            ),
            "10.0.0.7 space=9\n",
        ),
        (
            spaces(&["10.0.0.0/8"], &["9:100:10.0.0.7/32"]),
            "10.0.0.0/24 space=9\n10.0.0.9\n",
        ),
        (
            spaces(&["10.0.0.0/9"], &["9:200:10.0.0.7/32"]),
            "10.0.0.7 space=0\n",
        ),
    ];
    let worlds: Vec<_> = worlds
        .into_iter()
        .map(|(spaces, list)| {
            let consent = ConsentEntries::from(&compiled(list, &spaces.for_consent()));
            (spaces, consent)
        })
        .collect();
    let mut edge = Edge::new(LIMITS);
    let (spaces, consent) = &worlds[0];
    let _ = edge
        .loaded
        .tables
        .set_spaces_and_consent(spaces, consent)
        .unwrap();
    let frame = in_vlans(&[100]);
    assert_eq!(edge.exit(&frame), Counter::OptedOut);
    let (sender, mut tables) = part(edge.loaded);
    let mut tally = Tally::start(&tables);
    sender.send_meanwhile(&frame, &mut tables, |tables, number| {
        let (spaces, consent) = &worlds[number % worlds.len()];
        let _ = tables.set_spaces_and_consent(spaces, consent).unwrap();
    });
    // Nothing is matched while spaces change.
    let nothing_compared = [Counter::ConsentExpired, Counter::OptedOut];
    let counts = tally.take(&tables);
    assert!(
        counts
            .iter()
            .all(|(counter, _)| nothing_compared.contains(counter))
            && counts
                .iter()
                .any(|(counter, _)| *counter == Counter::OptedOut),
        "{counts:?}"
    );
}
