//! Repetition in the real kernel (design decision 7): few events, and every
//! packet counted once, whatever happens meanwhile.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::Path,
    process,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use matcher_common::abi::{
    CANARY_INDICATOR, Counter, Flow, HitEvent, InterfaceSettings, hit_flags, role,
};
use matcher_tests::{
    cleanup::Cleanup,
    frames::Frame,
    kernel::{LIMITS, install, is_skipped},
    matcher::{CC, CC_PORT, answer, beacon, subscriber},
    model::{Consent, World},
    packets,
};
use matcher_user::kernel::{
    folds::Folding,
    object::Object,
    pins::Pins,
    program::{LOOPBACK, Limits},
    ring::Ring,
    tables::Tables,
};

/// So long that it does not end during a test.
const LONG: Duration = Duration::from_secs(600);
/// Every event is one of its own.
const NO_BOUND: u32 = u32::MAX;

/// A pinned program with tables of its own, which nothing is attached to.
struct Edge {
    pins: Pins,
    tables: Tables,
    ring: Ring,
    /// What was read so far, by flow.
    read: HashMap<Flow, u64>,
    events: u64,
    _unpin: Cleanup,
}

impl Edge {
    fn new(limits: Limits, folding: Folding) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = format!("/sys/fs/bpf/matcher-test-fold-{}-{number}", process::id());
        let pins = Pins::at(Path::new(&directory));
        let unpin = {
            let pins = pins.clone();
            Cleanup::new(move || pins.remove_all().expect("what was pinned is removed"))
        };
        let object = Object::built_in().unwrap();
        let mut tables = pins.open_or_create(&object, limits).unwrap();
        let indicator = |id, value: &str| packets::indicator(id, value.parse().unwrap());
        install(
            &mut tables,
            &World {
                role: Some(role::BOTH),
                source_validated: true,
                stopped: false,
                consent_confirmed: true,
                subscribers: vec!["203.0.113.0/24".parse().unwrap()],
                consent: Consent::Refusals(vec![]),
                sharers: vec![],
                indicators: vec![
                    indicator(1, "198.51.100.23/32"),
                    indicator(2, "192.0.2.0/24"),
                    indicator(CANARY_INDICATOR, "198.19.255.1/32"),
                ],
                now: packets::now(),
            },
        );
        tables.set_folding(folding).unwrap();
        let ring = Ring::open(&tables).unwrap();
        Self {
            pins,
            tables,
            ring,
            read: HashMap::new(),
            events: 0,
            _unpin: unpin.unwrap(),
        }
    }

    fn send(&self, frame: &[u8], times: u32) {
        let outcome = self.pins.run(frame, LOOPBACK, times).unwrap();
        assert_eq!(outcome.action, 2, "every packet passes (XDP_PASS)");
    }

    fn note(&mut self, events: &[HitEvent]) {
        for event in events {
            *self.read.entry(event.flow).or_default() += u64::from(event.packets);
        }
    }

    /// Events that wait.
    fn drain(&mut self) -> Vec<HitEvent> {
        let events = matcher_tests::kernel::drain(&mut self.ring);
        assert!(events.iter().all(|event| event.packets == 1));
        self.events += events.len() as u64;
        self.note(&events);
        events
    }

    /// Closes the generation and takes its summaries.
    fn sweep(&mut self) -> Vec<HitEvent> {
        let closed = self.tables.close_folds().unwrap();
        let summaries = self.tables.folds(closed).unwrap();
        self.tables.clear_folds(closed).unwrap();
        assert_eq!(self.tables.folds(closed).unwrap(), []);
        self.note(&summaries);
        summaries
    }

    fn count(&self, counter: Counter) -> u64 {
        self.tables.counters().unwrap().get(counter)
    }

    /// Reads all that is there, and holds it against the counters.
    fn settle(&mut self, sent: u64) {
        self.drain();
        self.sweep();
        let count = |counter| self.count(counter);
        assert_eq!(count(Counter::Matched), sent);
        let (delivered, folded) = (count(Counter::Delivered), count(Counter::Folded));
        assert_eq!(sent, delivered + folded + count(Counter::Lost));
        assert_eq!(self.events, delivered);
        assert_eq!(self.read.values().sum::<u64>(), delivered + folded);
    }
}

fn folding(window: Duration, bound: u32) -> Folding {
    Folding { window, bound }
}

fn flow(host: u8, port: u16) -> Vec<u8> {
    beacon(subscriber(host), port)
}

#[test]
fn a_million_packets_of_one_flow_are_one_event_and_an_exact_count() {
    if is_skipped("a_million_packets_of_one_flow_are_one_event_and_an_exact_count") {
        return;
    }
    let mut edge = Edge::new(LIMITS, folding(LONG, 64));
    edge.send(&flow(7, 1), 1_000_000);
    let [event] = edge.drain()[..] else {
        panic!("one event");
    };
    let [summary] = edge.sweep()[..] else {
        panic!("one summary");
    };
    assert_eq!(summary.packets, 999_999);
    assert_eq!(summary.flow, event.flow);
    assert!(summary.boot_ns > event.boot_ns);
    edge.settle(1_000_000);
    assert_eq!(edge.count(Counter::Delivered), 1);
    assert_eq!(edge.count(Counter::Lost), 0);
}

#[test]
fn packets_that_differ_in_anything_but_time_are_not_folded() {
    if is_skipped("packets_that_differ_in_anything_but_time_are_not_folded") {
        return;
    }
    let mut edge = Edge::new(LIMITS, folding(LONG, NO_BOUND));
    let from = subscriber(7);
    let tagged = Frame::ethernet().vlan(9).ipv4(from, CC).tcp(1, CC_PORT);
    let tunnel = |outer: u8| {
        let outer = Frame::ethernet().ipv4(subscriber(outer), Ipv4Addr::new(192, 0, 3, 1));
        outer.ipv4(from, CC).tcp(1, CC_PORT).build()
    };
    let frames = [
        flow(7, 1),
        flow(8, 1),
        flow(7, 2),
        answer(from, 1),
        Frame::ethernet().ipv4(from, CC).udp(1, CC_PORT).build(),
        Frame::ethernet().ipv4(from, CC).tcp(1, 80).build(),
        Frame::ethernet()
            .ipv4(from, [192, 0, 2, 1])
            .tcp(1, CC_PORT)
            .build(),
        tagged.build(),
        tunnel(9),
        tunnel(10),
    ];
    for frame in &frames {
        edge.send(frame, 3);
    }
    assert_eq!(edge.drain().len(), frames.len());
    // Where the source can be forged it is another flow, too.
    let settings = InterfaceSettings {
        role: role::BOTH,
        source_validated: 0,
    };
    edge.tables.set_interface(LOOPBACK, settings).unwrap();
    edge.send(&frames[0], 3);
    assert_eq!(edge.drain().len(), 1);
    let all = frames.len() + 1;
    assert_eq!(edge.read.len(), all);
    edge.settle(3 * all as u64);
    assert!(edge.read.values().all(|packets| *packets == 3));
}

#[test]
fn a_flow_gets_another_event_in_the_next_window_also_without_an_agent() {
    if is_skipped("a_flow_gets_another_event_in_the_next_window_also_without_an_agent") {
        return;
    }
    const WINDOW: Duration = Duration::from_secs(1);
    let mut edge = Edge::new(LIMITS, folding(WINDOW, 64));
    let frame = flow(7, 1);
    edge.send(&frame, 100);
    assert_eq!(edge.drain().len(), 1);
    assert_eq!(edge.sweep().len(), 1);
    edge.send(&frame, 100);
    assert_eq!(edge.drain().len(), 1);
    // The window is over, and nobody closed it: what was folded stays.
    thread::sleep(WINDOW * 2);
    edge.send(&frame, 100);
    assert_eq!(edge.drain().len(), 1);
    let [summary] = edge.sweep()[..] else {
        panic!("one summary");
    };
    assert_eq!(summary.packets, 198);
    edge.settle(300);
}

#[test]
fn events_of_one_subscriber_and_one_indicator_are_bounded() {
    if is_skipped("events_of_one_subscriber_and_one_indicator_are_bounded") {
        return;
    }
    const BOUND: u32 = 4;
    let mut edge = Edge::new(LIMITS, folding(LONG, BOUND));
    for port in 1..=100 {
        edge.send(&flow(7, port), 3);
    }
    let events = edge.drain();
    assert_eq!(events.len(), 4);
    // Others have bounds of their own.
    edge.send(&flow(8, 1), 1);
    let other = Frame::ethernet()
        .ipv4(subscriber(7), [192, 0, 2, 1])
        .tcp(1, 2)
        .build();
    edge.send(&other, 1);
    assert_eq!(edge.drain().len(), 2);
    // Inbound, and where the source can be forged, the bound is the same, and
    // what is beyond it is counted apart.
    edge.send(&answer(subscriber(7), 200), 5);
    let forgeable = InterfaceSettings {
        role: role::BOTH,
        source_validated: 0,
    };
    edge.tables.set_interface(LOOPBACK, forgeable).unwrap();
    edge.send(&flow(7, 300), 7);
    assert_eq!(edge.drain(), []);

    let summaries = edge.sweep();
    let several = |event: &&HitEvent| event.flow.flags & hit_flags::SEVERAL_FLOWS != 0;
    let beyond: Vec<(u16, u32)> = summaries
        .iter()
        .filter(several)
        .map(|event| (event.flow.flags, event.packets))
        .collect();
    // Without ports: behind a shared address each may be another subscriber.
    let (out, valid) = (hit_flags::OUTBOUND, hit_flags::SOURCE_VALIDATED);
    let expected = [(out | valid, 96 * 3), (valid, 5), (out, 7)];
    assert_eq!(
        beyond,
        expected.map(|(flags, packets)| (flags | hit_flags::SEVERAL_FLOWS, packets))
    );
    let of_flows: Vec<u32> = summaries
        .iter()
        .filter(|event| !several(event))
        .map(|event| event.packets)
        .collect();
    assert_eq!(of_flows, [2, 2, 2, 2]);
    // The next window has places again.
    edge.send(&flow(7, 400), 1);
    assert_eq!(edge.drain().len(), 1);
    edge.settle(300 + 2 + 5 + 7 + 1);
}

/// Each is awaited (design decision 11).
#[test]
fn canaries_are_neither_folded_nor_bounded() {
    if is_skipped("canaries_are_neither_folded_nor_bounded") {
        return;
    }
    let mut edge = Edge::new(LIMITS, folding(LONG, 1));
    let canary = |port| {
        Frame::ethernet()
            .ipv4(subscriber(7), [198, 19, 255, 1])
            .udp(port, 9)
            .build()
    };
    edge.send(&canary(1), 5);
    edge.send(&canary(2), 5);
    assert_eq!(edge.drain().len(), 10);
    assert_eq!(edge.sweep(), []);
    // They take no place of others.
    edge.send(&flow(7, 1), 5);
    assert_eq!(edge.drain().len(), 1);
    edge.settle(15);
    assert_eq!(edge.count(Counter::Folded), 4);
}

#[test]
fn a_full_table_folds_nothing_and_loses_nothing() {
    if is_skipped("a_full_table_folds_nothing_and_loses_nothing") {
        return;
    }
    let limits = Limits {
        max_flows: 8,
        ..LIMITS
    };
    let mut edge = Edge::new(limits, folding(LONG, 2));
    for round in 0..3 {
        for host in 1..=100 {
            for port in 1..=3 {
                edge.send(&flow(host, port), 2);
            }
        }
        assert!(edge.drain().len() > 500, "round {round}");
        edge.sweep();
    }
    assert!(edge.count(Counter::FoldsFull) > 0);
    assert!(edge.count(Counter::Folded) > 0);
    assert_eq!(edge.count(Counter::Lost), 0);
    edge.settle(3 * 600);
}

#[test]
fn while_the_ring_is_full_known_flows_are_counted_and_new_ones_ask_again() {
    if is_skipped("while_the_ring_is_full_known_flows_are_counted_and_new_ones_ask_again") {
        return;
    }
    const WINDOW: Duration = Duration::from_millis(500);
    let limits = Limits {
        ring_bytes: 4096,
        ..LIMITS
    };
    let fits = 4095 / (8 + size_of::<HitEvent>() as u64);
    let mut edge = Edge::new(limits, folding(WINDOW, 64));
    for port in 1..=fits {
        edge.send(&flow(7, port as u16), 10);
    }
    assert_eq!(edge.count(Counter::Delivered), fits);
    assert_eq!(edge.count(Counter::Lost), 0);
    let new = flow(8, 1);
    edge.send(&new, 10);
    assert_eq!(edge.count(Counter::Lost), 10);
    // A window later those that have an entry are counted all the same.
    thread::sleep(WINDOW * 2);
    for port in 1..=fits {
        edge.send(&flow(7, port as u16), 10);
    }
    assert_eq!(edge.count(Counter::Lost), 10);
    assert_eq!(edge.drain().len() as u64, fits);
    // There is room again: one event for each flow, of which one was never seen.
    edge.send(&new, 10);
    for port in 1..=fits {
        edge.send(&flow(7, port as u16), 10);
    }
    assert_eq!(edge.drain().len() as u64, fits);
    // The last one had no room, and is counted in its entry.
    assert_eq!(edge.count(Counter::Lost), 10);
    edge.settle(20 + fits * 30);
}

/// Same flows from both CPUs, while generations are closed as fast as it goes.
#[test]
fn closing_generations_under_traffic_of_two_cpus_loses_no_packet_and_doubles_none() {
    if is_skipped("closing_generations_under_traffic_of_two_cpus_loses_no_packet_and_doubles_none")
    {
        return;
    }
    const RUNS: u64 = 60;
    const ROUNDS: u64 = 11;
    const REPEAT: u32 = 20_000;
    let limits = Limits {
        ring_bytes: 1 << 22,
        ..LIMITS
    };
    // Some flows are beyond the bound, some are late.
    let mut edge = Edge::new(limits, folding(Duration::from_millis(2), 3));
    let frames: Vec<Vec<u8>> = (1..=6)
        .flat_map(|port| [flow(7, port), answer(subscriber(7), port), flow(8, port)])
        .collect();
    let mut sent_to: HashMap<u8, u64> = HashMap::new();
    let done = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    let pins = edge.pins.clone();
    let runs: Vec<u64> = thread::scope(|scope| {
        let senders: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut run = 0;
                    // As long as it takes to close some generations meanwhile.
                    while run < RUNS || rounds.load(Ordering::SeqCst) < ROUNDS {
                        let frame = &frames[run as usize % frames.len()];
                        pins.run(frame, LOOPBACK, REPEAT).unwrap();
                        run += 1;
                    }
                    done.store(true, Ordering::SeqCst);
                    run
                })
            })
            .collect();
        while !done.load(Ordering::SeqCst) {
            edge.sweep();
            edge.drain();
            rounds.fetch_add(1, Ordering::SeqCst);
        }
        let joined = senders.into_iter().map(|sender| sender.join().unwrap());
        joined.collect()
    });
    let sent = runs.iter().sum::<u64>() * u64::from(REPEAT);
    edge.settle(sent);
    assert_eq!(edge.count(Counter::Lost), 0);
    // Also for each subscriber.
    for (flow, packets) in &edge.read {
        let [.., host] = flow.subscriber.v4();
        *sent_to.entry(host).or_default() += packets;
    }
    let each: Vec<u64> = [7, 8].map(|host| sent_to[&host]).to_vec();
    // Two of three frames are of the first one.
    let of_seven = runs.iter().flat_map(|runs| 0..*runs);
    let of_seven = of_seven.filter(|run| run % 3 != 2).count() as u64;
    let expected = of_seven * u64::from(REPEAT);
    assert_eq!(each, [expected, sent - expected]);
}
