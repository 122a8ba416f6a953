use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use proptest::prelude::*;

use super::*;
use crate::{
    hit::{Endpoint, IndicatorSummary},
    indicator::{IndicatorId, Qualifier, Quality},
    protocol::Protocol,
};

const BASE: i64 = 1_795_305_600; // 2026-11-22T00:00:00Z
const DAY: Duration = Duration::from_secs(86_400);

fn policy() -> Policy {
    Policy {
        require_two_way: true,
        min_contacts: 1,
        quality: Quality::ANY,
        retention: 30 * DAY,
    }
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(BASE * 1000 + milliseconds).unwrap()
}

fn summary(id: u32) -> Arc<IndicatorSummary> {
    Arc::new(IndicatorSummary {
        id: IndicatorId(id),
        value: format!("198.51.100.{id}"),
        qualifier: Qualifier::default(),
        feeds: vec!["feodo".into()],
        malware: None,
        confidence: None,
    })
}

fn hit(direction: Direction, milliseconds: i64, port: u16) -> Hit {
    Hit {
        time: at(milliseconds),
        interface: Some("eth0".into()),
        direction,
        protocol: Protocol::TCP,
        subscriber: Endpoint {
            ip: "203.0.113.7".parse().unwrap(),
            port: Some(port),
        },
        remote: Endpoint {
            ip: "198.51.100.23".parse().unwrap(),
            port: Some(443),
        },
        local_ip: "203.0.113.7".parse().unwrap(),
        nat64: None,
        encapsulation: None,
        space: 0,
        vlan_ids: [0; 2],
        indicator: summary(23),
        packets: 1,
        sequence: 0,
        source_validated: true,
        several_flows: false,
    }
}

fn outbound(milliseconds: i64, port: u16) -> Hit {
    hit(Direction::Outbound, milliseconds, port)
}

fn inbound(milliseconds: i64, port: u16) -> Hit {
    hit(Direction::Inbound, milliseconds, port)
}

/// Numbers the hits from 1 as the store does.
fn observed(policy: Policy, hits: &[Hit]) -> Aggregator {
    let mut aggregator = Aggregator::new(policy);
    for (record, hit) in (1..).zip(hits) {
        aggregator.observe(Cursor(record), hit);
    }
    aggregator
}

const HOUR: i64 = 3_600_000;

#[test]
fn an_answered_contact_is_a_finding() {
    let mut beacon = outbound(0, 50_000);
    beacon.packets = 3;
    let hits = [
        beacon,
        inbound(40, 50_000),
        outbound(HOUR, 50_001),
        inbound(HOUR + 40, 50_001),
    ];
    let findings = observed(policy(), &hits).findings();
    assert_eq!(
        findings,
        [Finding {
            address: outbound(0, 1).subscriber_address(),
            ports: vec![50_000, 50_001],
            more_ports: false,
            indicators: vec![summary(23)],
            more_indicators: false,
            remotes: vec![Remote {
                ip: "198.51.100.23".parse().unwrap(),
                port: Some(443),
                protocol: Protocol::TCP,
            }],
            more_remotes: false,
            first_seen: at(0),
            last_seen: at(HOUR),
            contacts: Contacts {
                count: 4,
                distinct_hours: 2,
                two_way: true,
            },
            rule: Rule::Answered,
            records: vec![Cursor(1), Cursor(3), Cursor(4)],
            record_count: 2,
            revision: Cursor(4),
        }]
    );
}

/// A bot that opens more connections than the kernel tells apart.
#[test]
fn packets_of_many_flows_are_counted_where_a_contact_is_proved() {
    let many = |direction, milliseconds, packets| Hit {
        packets,
        several_flows: true,
        ..hit(direction, milliseconds, 60_000)
    };
    let beyond = many(Direction::Outbound, 9_000, 1_000_000);
    let count = |hits: &[Hit]| {
        let findings = observed(policy(), hits).findings();
        findings.first().map(|finding| finding.contacts.count)
    };
    let proof = [outbound(0, 50_000), inbound(40, 50_000)];
    let [out, answered] = proof.clone();
    assert_eq!(
        count(&[out.clone(), answered.clone(), beyond.clone()]),
        Some(1_000_001)
    );
    // In any order, and after a rebuild from the store.
    assert_eq!(count(&[beyond.clone(), out, answered]), Some(1_000_001));

    // Alone it proves nothing, nor with answers of which nobody knows to what.
    assert_eq!(count(std::slice::from_ref(&beyond)), None);
    assert_eq!(
        count(&[beyond.clone(), many(Direction::Inbound, 9_100, 5)]),
        None
    );
    // What it sent to another entry of the list stays out.
    let mut other = beyond.clone();
    other.indicator = summary(24);
    assert_eq!(count(&[&proof[..], &[other]].concat()), Some(1));
    // Where anybody can forge the source, nothing is counted.
    let mut forged = beyond;
    forged.source_validated = false;
    assert_eq!(count(&[&proof[..], &[forged]].concat()), Some(1));
}

/// A scan of so many ports that the kernel does not tell them apart.
#[test]
fn what_many_inbound_packets_may_have_provoked_is_no_contact() {
    let scan = Hit {
        several_flows: true,
        packets: 30_000,
        ..inbound(9_000, 60_000)
    };
    let reset_then_retry = [outbound(9_001, 443), inbound(10_000, 443)];
    let first = inbound(0, 1);
    let hits = [&[first.clone(), scan][..], &reset_then_retry].concat();
    assert_eq!(observed(policy(), &hits).findings(), []);
    let hits = [&[first][..], &reset_then_retry].concat();
    assert_eq!(observed(policy(), &hits).findings().len(), 1);
}

#[test]
fn without_an_answer_there_is_a_finding_only_where_none_is_asked_for() {
    let hits = [outbound(0, 50_000)];
    assert_eq!(observed(policy(), &hits).findings(), []);
    let one_way = Policy {
        require_two_way: false,
        ..policy()
    };
    let findings = observed(one_way, &hits).findings();
    assert_eq!(findings.len(), 1);
    assert!(!findings[0].contacts.two_way);
    assert_eq!(findings[0].rule, Rule::OwnPackets);
}

#[test]
fn an_answer_from_another_port_or_flow_or_later_than_the_window_is_none() {
    let mut other_remote_port = inbound(40, 50_000);
    other_remote_port.remote.port = Some(8443);
    let mut other_protocol = inbound(40, 50_000);
    other_protocol.protocol = Protocol::UDP;
    let late = inbound(HOUR + 1, 50_000);
    for answer in [other_remote_port, other_protocol, late, inbound(40, 50_001)] {
        let hits = [outbound(0, 50_000), answer];
        assert_eq!(observed(policy(), &hits).findings(), []);
    }
    let just_in_time = [outbound(0, 50_000), inbound(HOUR, 50_000)];
    assert_eq!(observed(policy(), &just_in_time).findings().len(), 1);
}

#[test]
fn a_packet_that_may_be_forged_does_not_make_an_inbound_one_an_answer() {
    let mut unvalidated = outbound(0, 50_000);
    unvalidated.source_validated = false;
    let hits = [unvalidated, inbound(40, 50_000)];
    assert_eq!(observed(policy(), &hits).findings(), []);
}

#[test]
fn the_answer_to_a_scan_is_not_a_contact() {
    // A listed host scans; the subscriber's reset goes back, twice.
    let hits = [
        inbound(0, 22),
        outbound(1, 22),
        inbound(5_000, 22),
        outbound(5_001, 22),
    ];
    assert_eq!(observed(policy(), &hits).findings(), []);
    let one_way = Policy {
        require_two_way: false,
        ..policy()
    };
    assert_eq!(observed(one_way, &hits).findings(), []);
}

#[test]
fn answers_to_scans_do_not_count_beside_a_contact_that_the_subscriber_made() {
    let hits = [
        inbound(0, 22),
        outbound(1, 22),
        outbound(9_000, 50_000),
        inbound(9_040, 50_000),
    ];
    let findings = observed(policy(), &hits).findings();
    assert_eq!(findings[0].contacts.count, 1);
    assert_eq!(findings[0].ports, [50_000]);
}

#[test]
fn packets_without_ports_pair_by_addresses_and_protocol() {
    let mut hits = [outbound(0, 1), inbound(40, 1)];
    for hit in &mut hits {
        hit.protocol = Protocol(1);
        hit.subscriber.port = None;
        hit.remote.port = None;
    }
    let findings = observed(policy(), &hits).findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].ports, Vec::<u16>::new());
    assert_eq!(findings[0].remotes[0].port, None);
}

#[test]
fn a_doubtful_indicator_is_no_finding() {
    let hits = [outbound(0, 1), inbound(40, 1)];
    assert_eq!(observed(policy(), &hits).findings().len(), 1);
    let two_feeds = Policy {
        quality: Quality {
            min_feeds: 2,
            min_confidence: 0,
        },
        ..policy()
    };
    assert_eq!(observed(two_feeds, &hits).findings(), []);
}

#[test]
fn fewer_contacts_than_asked_for_are_no_finding() {
    let three = Policy {
        min_contacts: 3,
        ..policy()
    };
    let mut hits = vec![outbound(0, 1), inbound(40, 1), outbound(80, 1)];
    assert_eq!(observed(three, &hits).findings(), []);
    hits.push(inbound(120, 1));
    assert_eq!(
        observed(three, &hits).findings(),
        [],
        "only own packets count"
    );
    hits.push(outbound(160, 1));
    assert_eq!(observed(three, &hits).findings().len(), 1);
}

#[test]
fn take_changed_gives_a_finding_once_until_a_new_hit() {
    let mut aggregator = observed(policy(), &[outbound(0, 1), inbound(40, 1)]);
    assert_eq!(aggregator.take_changed()[0].revision, Cursor(2));
    assert_eq!(aggregator.take_changed(), []);
    aggregator.observe(Cursor(3), &outbound(80, 1));
    assert_eq!(aggregator.take_changed()[0].revision, Cursor(3));
}

#[test]
fn a_long_run_of_beacons_from_ever_new_ports_is_counted_in_full() {
    let mut hits = Vec::new();
    for beacon in 0..5_000_u16 {
        let time = i64::from(beacon) * 60_000;
        hits.push(outbound(time, 10_000 + beacon));
        hits.push(inbound(time + 40, 10_000 + beacon));
    }
    let aggregator = observed(policy(), &hits);
    let finding = &aggregator.findings()[0];
    assert_eq!(finding.contacts.count, 5_000);
    assert_eq!(finding.contacts.distinct_hours, 84);
    assert_eq!(finding.ports, (14_984..15_000).collect::<Vec<u16>>());
    assert!(finding.more_ports);
    assert_eq!(finding.records.len(), LISTED);
    assert_eq!(aggregator.beyond(), Beyond::default());
}

#[test]
fn a_scan_of_one_subscriber_does_not_push_its_contact_out() {
    let mut hits = vec![outbound(0, 50_000), inbound(40, 50_000)];
    for scan in 0..1_000 {
        let mut probe = inbound(20_000 + i64::from(scan) * 1_000, 22);
        probe.remote.port = Some(30_000 + scan);
        let mut reset = outbound(20_001 + i64::from(scan) * 1_000, 22);
        reset.remote.port = Some(30_000 + scan);
        hits.extend([probe, reset]);
    }
    let aggregator = observed(policy(), &hits);
    assert_eq!(aggregator.findings()[0].contacts.count, 1);
    assert!(aggregator.beyond().contacts > 0);
    assert!(aggregator.size.contacts <= CONTACTS_PER_ENDPOINT);
}

#[test]
fn a_sweep_over_the_whole_space_stays_within_bounds_and_hides_no_contact() {
    let mut aggregator = Aggregator::new(policy());
    aggregator.observe(Cursor(1), &outbound(0, 50_000));
    let mut record = 1;
    for target in 0..100_000_u32 {
        record += 1;
        let mut probe = inbound(i64::from(target), 22);
        probe.subscriber.ip = Ipv4Addr::from_bits(0x6440_0000 + target).into();
        aggregator.observe(Cursor(record), &probe);
    }
    aggregator.observe(Cursor(record + 1), &inbound(100_040, 50_000));
    assert_eq!(aggregator.findings().len(), 1);
    assert!(aggregator.endpoints.len() <= MAX_UNPROVEN + 1);
    assert_eq!(aggregator.size.contacts, aggregator.endpoints.len());
    assert!(aggregator.beyond().endpoints > 60_000);
}

#[test]
fn after_a_forgotten_probe_its_answer_is_not_taken_for_a_beginning() {
    let mut aggregator = Aggregator::new(policy());
    let address = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0x6440_0000 + number));
    let from = |mut hit: Hit, number| {
        hit.subscriber.ip = address(number);
        hit
    };
    let flood = u32::try_from(MAX_UNPROVEN).unwrap() + 100;
    for number in 0..flood {
        aggregator.observe(Cursor(u64::from(number)), &from(inbound(0, 22), number));
    }
    // The probe of number 0 is forgotten by now; its reset comes, and then
    // the scanner goes on.
    aggregator.observe(Cursor(1_000_000), &from(outbound(500, 22), 0));
    aggregator.observe(Cursor(1_000_001), &from(inbound(600, 22), 0));
    assert_eq!(aggregator.findings(), []);
}

#[test]
fn retention_keeps_whole_hours_and_never_longer() {
    let one_day = Policy {
        retention: DAY,
        ..policy()
    };
    let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let later: Timestamp = "2026-11-22T12:00:00.000000001Z".parse().unwrap();
    assert_eq!(one_day.keep_from(noon).to_string(), "2026-11-21T12:00:00Z");
    assert_eq!(one_day.keep_from(later).to_string(), "2026-11-21T13:00:00Z");
    let for_ever = Policy {
        retention: Duration::MAX,
        ..policy()
    };
    assert_eq!(for_ever.keep_from(noon), Timestamp::MIN);
}

#[test]
fn an_address_that_is_forgotten_leaves_nothing() {
    let mut aggregator = observed(policy(), &[outbound(0, 50_000), inbound(40, 50_000)]);
    let address = outbound(0, 1).subscriber_address();
    assert_eq!(aggregator.forget(&[address].into()), 1);
    assert_eq!(aggregator.forget(&[address].into()), 0);
    assert_eq!(aggregator.findings(), []);
    assert_eq!(aggregator.take_changed(), []);
    assert_eq!(aggregator.size, Size::default());
}

#[test]
fn the_same_address_in_two_spaces_is_two_subscribers() {
    let mut answer = inbound(40, 50_000);
    answer.space = 7;
    let apart = observed(policy(), &[outbound(0, 50_000), answer.clone()]);
    assert_eq!(apart.findings(), []);
    let mut asked = outbound(0, 50_000);
    asked.space = 7;
    let findings = observed(policy(), &[asked, answer]).findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].address.to_string(), "203.0.113.7 in space 7");
}

/// Hits of a few subscribers and remote ends within `span` milliseconds, so
/// that they meet often.
fn any_hit(span: i64) -> impl Strategy<Value = Hit> {
    (
        0..3_u8,
        0..3_u8,
        prop::option::weighted(0.9, 1..4_u16),
        any::<bool>(),
        prop::bool::weighted(0.8),
        0..span,
        1..4_u32,
    )
        .prop_map(|(host, remote, port, out, validated, time, packets)| {
            let direction = if out {
                Direction::Outbound
            } else {
                Direction::Inbound
            };
            let mut hit = hit(direction, time, 0);
            hit.subscriber = Endpoint {
                ip: Ipv4Addr::new(203, 0, 113, host).into(),
                port,
            };
            hit.remote.ip = Ipv4Addr::new(198, 51, 100, remote).into();
            hit.indicator = summary(u32::from(remote));
            hit.source_validated = validated;
            hit.packets = packets;
            hit
        })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), 0..4_u32).prop_map(|(require_two_way, min_contacts)| Policy {
        require_two_way,
        min_contacts,
        ..policy()
    })
}

proptest! {
    #[test]
    fn within_the_window_the_order_of_hits_does_not_matter(
        (hits, shuffled) in prop::collection::vec(any_hit(HOUR), 1..60)
            .prop_map(|hits| (1..).map(Cursor).zip(hits).collect::<Vec<_>>())
            .prop_flat_map(|hits| (Just(hits.clone()), Just(hits).prop_shuffle())),
        policy in any_policy(),
    ) {
        let run = |hits: &[(Cursor, Hit)]| {
            let mut aggregator = Aggregator::new(policy);
            for (record, hit) in hits {
                aggregator.observe(*record, hit);
            }
            aggregator.findings()
        };
        prop_assert_eq!(run(&hits), run(&shuffled));
    }

    #[test]
    fn forged_packets_alone_are_never_a_finding(
        mut hits in prop::collection::vec(any_hit(3 * HOUR), 0..80),
        policy in any_policy(),
    ) {
        for hit in &mut hits {
            hit.source_validated &= hit.direction == Direction::Inbound;
        }
        let mut aggregator = observed(policy, &hits);
        prop_assert_eq!(aggregator.findings(), []);
        prop_assert_eq!(aggregator.take_changed(), []);
    }

    /// Whatever a forger sends, it cannot add to what the subscriber's own
    /// packets count for.
    #[test]
    fn counts_never_exceed_the_validated_packets_of_the_subscriber(
        hits in prop::collection::vec(any_hit(5 * HOUR), 0..80),
        policy in any_policy(),
    ) {
        for finding in observed(policy, &hits).findings() {
            let own: u64 = hits
                .iter()
                .filter(|hit| hit.direction == Direction::Outbound && hit.source_validated)
                .filter(|hit| hit.subscriber_address() == finding.address)
                .map(|hit| u64::from(hit.packets))
                .sum();
            prop_assert!(finding.contacts.count <= own);
            prop_assert!(finding.contacts.count >= u64::from(policy.min_contacts));
            prop_assert!(finding.first_seen <= finding.last_seen);
            prop_assert!(finding.contacts.two_way || !policy.require_two_way);
        }
    }

    #[test]
    fn a_forgotten_subscriber_leaves_what_the_others_would_have_alone(
        hits in prop::collection::vec(any_hit(5 * HOUR), 0..80),
        policy in any_policy(),
    ) {
        let erased = hits.first().map(Hit::subscriber_address);
        let mut aggregator = observed(policy, &hits);
        aggregator.forget(&erased.into_iter().collect());
        let mut others = Aggregator::new(policy);
        for (record, hit) in (1..).zip(&hits) {
            if Some(hit.subscriber_address()) != erased {
                others.observe(Cursor(record), hit);
            }
        }
        prop_assert_eq!(aggregator.findings(), others.findings());
        prop_assert_eq!(aggregator.size, others.size);
    }

    /// Restart: the store has purged what is past the retention.
    #[test]
    fn what_is_rebuilt_from_kept_hits_is_what_the_running_agent_has(
        exchanges in prop::collection::vec((0..3_u8, 0..10 * 60_i64), 0..60),
        hours in 0..12_i64,
    ) {
        let policy = Policy { retention: Duration::from_secs(5 * 3600), ..policy() };
        // Each exchange has a port of its own and lies within one minute.
        let mut hits = Vec::new();
        for ((host, minute), port) in exchanges.iter().zip(1..) {
            for mut hit in [outbound(minute * 60_000, port), inbound(minute * 60_000 + 40, port)] {
                hit.subscriber.ip = Ipv4Addr::new(203, 0, 113, *host).into();
                hits.push(hit);
            }
        }
        hits.sort_by_key(|hit| hit.time);
        let hits: Vec<(Cursor, Hit)> = (1..).map(Cursor).zip(hits).collect();
        let now = at(hours * HOUR);

        let mut running = Aggregator::new(policy);
        for (record, hit) in hits.iter().filter(|(_, hit)| hit.time <= now) {
            running.expire(hit.time);
            running.observe(*record, hit);
        }
        running.expire(now);
        let mut rebuilt = Aggregator::new(policy);
        for (record, hit) in hits.iter().filter(|(_, hit)| hit.time <= now) {
            if hit.time >= policy.keep_from(now) {
                rebuilt.observe(*record, hit);
            }
        }
        prop_assert_eq!(running.findings(), rebuilt.findings());
        rebuilt.expire(now);
        prop_assert_eq!(running.findings(), rebuilt.findings());
        prop_assert_eq!(running.size, rebuilt.size);
    }
}
