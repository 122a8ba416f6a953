//! R1, consent before collation: what must not be compared reaches no C&C
//! table at all. And the switches that stop everything: the deadline of
//! consent, and the emergency stop.

use std::{
    net::{IpAddr, Ipv6Addr},
    thread,
    time::Duration,
};

use ipnet::IpNet;
use matcher_common::abi::{Counter, Setting};
use matcher_tests::{
    kernel::{self, Sender, Tally, install, is_skipped},
    matcher::PATIENCE,
    model::{ALL_PURPOSES, Consent, World},
    packets::{
        self, ALICE, ALICE6, BOB, BOB6, Case, Conditions, HOSTING, HOSTING6, standard_world,
    },
};
use matcher_user::{
    clock::boot_now_ns,
    kernel::{
        program::{Clock, Loaded},
        ring::Ring,
        tables::Tables,
    },
    tables::{
        compiled::{Family, class},
        spaces::SpaceTables,
    },
};

/// Packets of the table that are hits, by description: both directions, both
/// families, both ends subscribers, and subscribers in several layers.
const HITS: [&str; 14] = [
    "a subscriber opens a connection to a listed host",
    "a listed host answers a subscriber",
    "to a listed host over IPv6",
    "from a listed host over IPv6",
    "a subscriber reaches one who is listed",
    "a listed subscriber answers another",
    "a listed subscriber answers another, IPv6",
    "a later fragment to a listed host",
    "DS-Lite: the subscriber is known by the address of the B4",
    "DS-Lite, the answer",
    "MAP-E: the subscriber's own IPv4 address is the nearer one",
    "GRE with checksum, key and sequence number",
    "L2TP with PPP: wholesale access",
    "GTP-U with a sequence number and extension headers",
];

fn case(description: &str) -> Case {
    packets::table()
        .into_iter()
        .find(|case| case.description == description)
        .unwrap_or_else(|| panic!("no case {description:?}"))
}

/// The set-up of the table, with nobody opted out but these.
fn world(refusing: &[IpNet]) -> World {
    let refuse_all = |prefix: &IpNet| (*prefix, ALL_PURPOSES);
    World {
        consent: Consent::Refusals(refusing.iter().map(refuse_all).collect()),
        ..standard_world(&Conditions::default())
    }
}

fn ready(clock: Clock) -> (Loaded, Ring, Tally) {
    let mut loaded = kernel::load(clock);
    install(&mut loaded.tables, &world(&[]));
    // Has the program verified, which takes longer than what is timed here.
    kernel::send(&mut loaded, &[0; 14]);
    let ring = Ring::open(&loaded.tables).unwrap();
    let tally = Tally::start(&loaded.tables);
    (loaded, ring, tally)
}

#[test]
fn an_opted_out_subscribers_packet_meets_no_look_up_and_gives_no_hit() {
    if is_skipped("an_opted_out_subscribers_packet_meets_no_look_up_and_gives_no_hit") {
        return;
    }
    let (mut loaded, mut ring, mut tally) = ready(Clock::Replay);
    for description in HITS {
        let case = case(description);
        let packet = &case.seen.packet;
        let consenting = world(&[]);
        let subscribers: Vec<IpNet> = packet
            .layers
            .iter()
            .flat_map(|layer| [layer.addresses.0, layer.addresses.1])
            .filter(|address| consenting.is_subscriber(*address))
            .map(IpNet::from)
            .collect();
        assert!(!subscribers.is_empty());

        let matched = case.answer.counts();
        let lookups = [Counter::LookupsV4, Counter::LookupsV6];
        assert!(matched.iter().any(|(counter, _)| lookups.contains(counter)));
        // One end opted out is enough, whichever it is; and so are both.
        let mut refusals: Vec<Vec<IpNet>> = subscribers.iter().map(|one| vec![*one]).collect();
        refusals.push(subscribers);
        for refusing in refusals {
            install(&mut loaded.tables, &consenting);
            tally.take(&loaded.tables);
            kernel::send(&mut loaded, &case.frame);
            assert_eq!(tally.take(&loaded.tables), matched, "{description}");
            assert_eq!(kernel::drain(&mut ring).len(), 1, "{description}");

            install(&mut loaded.tables, &world(&refusing));
            tally.take(&loaded.tables);
            kernel::send_often(&mut loaded, &case.frame, 100);
            assert_eq!(
                tally.take(&loaded.tables),
                [(Counter::OptedOut, 100)],
                "{description}, {refusing:?} opted out"
            );
            assert_eq!(kernel::drain(&mut ring), []);
        }
    }
}

#[test]
fn both_ends_subscribers_is_among_the_hits_in_both_families() {
    for (from, to) in [
        (HOSTING.into(), ALICE.into()),
        (HOSTING6.into(), BOB6.into()),
    ] {
        let found = HITS
            .iter()
            .any(|hit| case(hit).seen.packet.layers[0].addresses == (from, to));
        assert!(found, "{from} to {to}");
    }
}

#[test]
fn with_the_deadline_past_nothing_is_looked_up() {
    if is_skipped("with_the_deadline_past_nothing_is_looked_up") {
        return;
    }
    let (mut loaded, mut ring, mut tally) = ready(Clock::Kernel);
    // 0: no consent list was ever loaded.
    for deadline in [0, 1, boot_now_ns()] {
        loaded
            .tables
            .set(Setting::ConsentDeadline, deadline)
            .unwrap();
        for description in HITS {
            kernel::send(&mut loaded, &case(description).frame);
        }
        assert_eq!(
            tally.take(&loaded.tables),
            [(Counter::ConsentExpired, HITS.len() as u64)]
        );
    }
    assert_eq!(kernel::drain(&mut ring), []);
}

#[test]
fn matching_stops_at_the_deadline_and_starts_again_when_it_is_renewed() {
    if is_skipped("matching_stops_at_the_deadline_and_starts_again_when_it_is_renewed") {
        return;
    }
    let (mut loaded, mut ring, mut tally) = ready(Clock::Kernel);
    let case = case(HITS[0]);
    let (mut rounds, mut lead) = (0, Duration::from_millis(300));
    while rounds < 2 {
        let deadline = boot_now_ns() + lead.as_nanos() as u64;
        loaded
            .tables
            .set(Setting::ConsentDeadline, deadline)
            .unwrap();
        let (mut matched, mut expired) = (0, 0);
        while expired < 100 {
            let before = boot_now_ns();
            kernel::send(&mut loaded, &case.frame);
            let after = boot_now_ns();
            match tally.take(&loaded.tables)[0] {
                (Counter::Matched, 1) => {
                    assert!(before < deadline);
                    assert_eq!(expired, 0, "never again after the deadline");
                    matched += 1;
                }
                (Counter::ConsentExpired, 1) => {
                    assert!(after >= deadline);
                    expired += 1;
                }
                other => panic!("{other:?}"),
            }
            for event in kernel::drain(&mut ring) {
                assert!(event.boot_ns < deadline);
            }
            if matched > 0 && before < deadline {
                thread::sleep(Duration::from_millis(5));
            }
        }
        if matched > 0 {
            rounds += 1;
        } else {
            // No packet came in time: the machine has something else to do.
            lead *= 2;
            assert!(lead < PATIENCE);
        }
    }
}

#[test]
fn the_emergency_stop_stops_everything_until_it_is_lifted() {
    if is_skipped("the_emergency_stop_stops_everything_until_it_is_lifted") {
        return;
    }
    let (mut loaded, mut ring, mut tally) = ready(Clock::Kernel);
    let table = packets::table();
    loaded.tables.set(Setting::Stopped, 1).unwrap();
    for case in &table {
        kernel::send(&mut loaded, &case.frame);
    }
    assert_eq!(
        tally.take(&loaded.tables),
        [(Counter::Stopped, table.len() as u64)]
    );
    assert_eq!(kernel::drain(&mut ring), []);

    loaded.tables.set(Setting::Stopped, 0).unwrap();
    let case = case(HITS[0]);
    kernel::send(&mut loaded, &case.frame);
    let counts = case.answer.counts();
    assert_eq!(tally.take(&loaded.tables), counts);
}

fn frame_between(from: impl Into<IpAddr>, to: impl Into<IpAddr>) -> Vec<u8> {
    matcher_tests::frames::Frame::ethernet()
        .ip(from.into(), to.into())
        .tcp(51413, 80)
        .build()
}

/// IPv6 opt-outs that share neither leaves nor nodes: of the tree of classes they
/// fill more than there is, so that the filter tells of them.
#[test]
fn ipv6_opt_outs_too_far_apart_for_the_tree_meet_no_look_up() {
    if is_skipped("ipv6_opt_outs_too_far_apart_for_the_tree_meet_no_look_up") {
        return;
    }
    let space: IpNet = "2400::/24".parse().unwrap();
    let listed: IpAddr = "2a02:db8:c2::23".parse().unwrap();
    // A /64 in each of 4,000 /40s.
    let at = |number: u128| Ipv6Addr::from_bits(0x2400 << 112 | number << 88 | number << 64);
    let refusing: Vec<IpNet> = (0..4000)
        .map(|number| IpNet::new(at(number).into(), 64).unwrap())
        .collect();
    let world = World {
        subscribers: vec![space],
        indicators: vec![packets::indicator(1, listed.into())],
        ..world(&refusing)
    };
    let tree = class::Plan::new(Family::V6, [space], refusing, []);
    assert!(tree.bytes() > 8 << 20, "{}", tree.bytes());
    let (mut loaded, mut ring, mut tally) = ready(Clock::Replay);
    install(&mut loaded.tables, &world);
    tally.take(&loaded.tables);
    for number in (0..4000).step_by(97) {
        let inside = at(number).to_bits() | 0xabcd;
        for (source, exit) in [
            (inside, Counter::OptedOut),
            (inside + (1 << 64), Counter::Matched),
        ] {
            let source = Ipv6Addr::from_bits(source);
            kernel::send(&mut loaded, &frame_between(source, listed));
            let counts = tally.take(&loaded.tables);
            let looked_up = counts.contains(&(Counter::LookupsV6, 1));
            assert!(counts.contains(&(exit, 1)), "{source}: {counts:?}");
            assert_eq!(looked_up, exit == Counter::Matched, "{source}: {counts:?}");
            let hits = usize::from(exit == Counter::Matched);
            assert_eq!(kernel::drain(&mut ring).len(), hits, "{source}");
        }
    }
}

fn parted(refusing: &[IpNet]) -> (Sender, Tables) {
    let mut loaded = kernel::load(Clock::Replay);
    install(&mut loaded.tables, &world(refusing));
    kernel::part(loaded)
}

#[test]
fn a_subscriber_stays_one_while_the_subscriber_space_is_rewritten() {
    if is_skipped("a_subscriber_stays_one_while_the_subscriber_space_is_rewritten") {
        return;
    }
    // BOB opted out. Were he no subscriber for a moment, ALICE's packet to him
    // would be compared.
    for (from, to, spaces) in [
        (
            ALICE.into(),
            BOB.into(),
            [["203.0.113.0/24"; 2], ["203.0.113.0/29", "203.0.113.8/29"]],
        ),
        (
            ALICE6.into(),
            BOB6.into(),
            [
                ["2001:db8:100::/40"; 2],
                ["2001:db8:100::7/128", "2001:db8:100::/64"],
            ],
        ),
    ] {
        let (from, to): (IpAddr, IpAddr) = (from, to);
        let (sender, mut tables) = parted(&[to.into()]);
        let spaces = spaces.map(|space| space.map(|prefix| prefix.parse::<IpNet>().unwrap()));
        tables.set_spaces(&SpaceTables::one(spaces[0])).unwrap();
        let mut tally = Tally::start(&tables);
        let frame = frame_between(from, to);
        sender.send_meanwhile(&frame, &mut tables, |tables, number| {
            tables
                .set_spaces(&SpaceTables::one(spaces[number % 2]))
                .unwrap();
        });
        let counts = tally.take(&tables);
        assert!(matches!(counts[..], [(Counter::OptedOut, _)]), "{counts:?}");
    }
}

#[test]
fn an_opt_out_holds_while_the_consent_table_is_rewritten() {
    if is_skipped("an_opt_out_holds_while_the_consent_table_is_rewritten") {
        return;
    }
    let net = |text: &str| -> IpNet { text.parse().unwrap() };
    let (sender, mut tables) = parted(&[net("203.0.113.8/32")]);
    // BOB is opted out in each of them, for ever other reasons.
    let consents = [
        Consent::LongestPrefix(vec![], 0),
        Consent::Refusals(vec![(net("203.0.113.8/32"), ALL_PURPOSES)]),
        Consent::LongestPrefix(vec![(net("203.0.113.7/32"), ALL_PURPOSES)], 0),
        Consent::Refusals(vec![(net("203.0.113.8/29"), 1)]),
        Consent::LongestPrefix(
            vec![
                (net("203.0.113.0/24"), ALL_PURPOSES),
                (net("203.0.113.8/30"), 0),
            ],
            0,
        ),
    ];
    let mut tally = Tally::start(&tables);
    let frame = frame_between(HOSTING, BOB);
    sender.send_meanwhile(&frame, &mut tables, |tables, number| {
        let consent = &consents[number % consents.len()];
        kernel::set_consent(tables, consent, &[]);
    });
    let counts = tally.take(&tables);
    assert!(matches!(counts[..], [(Counter::OptedOut, _)]), "{counts:?}");
}
