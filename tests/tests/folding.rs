//! Repetition in the real kernel (design decision 7): few events, and every
//! packet counted once, whatever happens meanwhile.

use std::{
    collections::HashMap,
    fs,
    net::Ipv4Addr,
    path::Path,
    process,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use matcher_common::abi::{
    CANARY_INDICATOR, Counter, Flow, HitEvent, InterfaceSettings, hit_flags, role,
};
use matcher_tests::{
    cleanup::Cleanup,
    frames::Frame,
    kernel::{LIMITS, install},
    lab::Lab,
    matcher::{CC, CC_PORT, Deployment, answer, beacon, subscriber, wait_until},
    model::{Consent, World},
    packets,
    skip::skip,
};
use matcher_user::{
    clock::WallOffset,
    drain::Names,
    indicators::Catalog,
    kernel::{
        attach,
        folds::Folding,
        object::Object,
        pins::Pins,
        program::{LOOPBACK, Limits},
        ring::Ring,
        tables::Tables,
    },
    store::{RingIdentity, Store},
};
use rustix::process::Signal;
use serde_json::Value;

/// So long that it does not end during a test.
const LONG: Duration = Duration::from_secs(600);
/// Every event is one of its own.
const NO_BOUND: u32 = u32::MAX;

fn is_skipped(test: &str) -> bool {
    matcher_tests::kernel::is_skipped(test)
}

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
        .map(|event| (event.flow.local_port, event.packets))
        .collect();
    assert_eq!(beyond, [(5, 96 * 3), (200, 5), (300, 7)]);
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
    let pins = edge.pins.clone();
    let (sent, rounds) = thread::scope(|scope| {
        let senders: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for run in 0..RUNS {
                        let frame = &frames[run as usize % frames.len()];
                        pins.run(frame, LOOPBACK, REPEAT).unwrap();
                    }
                    done.store(true, Ordering::SeqCst);
                    RUNS * u64::from(REPEAT)
                })
            })
            .collect();
        let mut rounds = 0;
        while !done.load(Ordering::SeqCst) {
            edge.sweep();
            edge.drain();
            rounds += 1;
        }
        let sent: u64 = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .sum();
        (sent, rounds)
    });
    assert!(rounds > 10, "{rounds} generations");
    edge.settle(sent);
    assert_eq!(edge.count(Counter::Lost), 0);
    // Also for each subscriber.
    for (flow, packets) in &edge.read {
        let [.., host] = flow.subscriber.v4();
        *sent_to.entry(host).or_default() += packets;
    }
    let each: Vec<u64> = [7, 8].map(|host| sent_to[&host]).to_vec();
    // Two of three frames are of the first one.
    let of_seven = (0..RUNS).filter(|run| run % 3 != 2).count() as u64;
    let expected = of_seven * 2 * u64::from(REPEAT);
    assert_eq!(each, [expected, sent - expected]);
}

/// A deployment whose kernel folds.
fn folding_deployment(window: &str) -> Result<Deployment> {
    let deployment = Deployment::new()?;
    deployment.configure("window = \"0s\"", &format!("window = \"{window}\""))?;
    Ok(deployment)
}

fn is_skipped_in_lab(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

fn stored_packets(deployment: &Deployment) -> Result<u64> {
    let hits = deployment.stored()?;
    Ok(hits.iter().map(|hit| u64::from(hit.packets)).sum())
}

/// As if they came in on the access interface, as fast as the kernel decides.
fn run_on_access(deployment: &Deployment, frame: &[u8], times: u32) -> Result<()> {
    let edge = deployment.lab().edge();
    edge.run(|| -> Result<()> {
        let ifindex = attach::ifindex("access0")?;
        deployment.pins().run(frame, ifindex, times)?;
        Ok(())
    })?
}

#[test]
fn a_million_packets_reach_the_candidate_the_last_window_too() -> Result<()> {
    let test = "a_million_packets_reach_the_candidate_the_last_window_too";
    if is_skipped_in_lab(test) {
        return Ok(());
    }
    let deployment = folding_deployment("1s")?;
    let candidates = deployment.folder().join("candidates");
    let mut agent = deployment.agent_with(fs::File::create(&candidates)?, &["run"])?;
    agent.wait_for_log("indicators in force")?;
    let frame = beacon(subscriber(7), 1);
    deployment.access()?.send_all([&frame], 1_000)?;
    deployment
        .core()?
        .send_all([answer(subscriber(7), 1)], 1_000)?;
    run_on_access(&deployment, &frame, 999_999)?;
    let start = Instant::now();
    // Nothing comes any more: time alone brings it.
    wait_until("the last window is stored", || {
        Ok(stored_packets(&deployment)? == 1_000_001)
    })?;
    assert!(start.elapsed() < Duration::from_secs(20));
    let records = deployment.stored()?.len();
    assert!(records < 50, "{records} records of a million packets");
    let hits = &deployment.status()?["hits"];
    assert_eq!(hits["matched"], 1_000_001);
    assert_eq!(hits["lost"], 0);
    let sum = hits["delivered"].as_u64().context("delivered")?
        + hits["folded"].as_u64().context("folded")?;
    assert_eq!(sum, 1_000_001);

    // What is folded in the moment of the end is not left behind either.
    run_on_access(&deployment, &frame, 500)?;
    agent.signal(Signal::TERM)?;
    assert_eq!(agent.wait()?, 0);
    let text = fs::read_to_string(&candidates)?;
    let last: Value = serde_json::from_str(text.lines().last().context("a candidate")?)?;
    assert_eq!(last["contacts"]["count"], 1_000_500, "{last}");
    Ok(())
}

#[test]
fn a_generation_is_stored_once_wherever_the_agent_is_killed() -> Result<()> {
    let test = "a_generation_is_stored_once_wherever_the_agent_is_killed";
    if is_skipped_in_lab(test) {
        return Ok(());
    }
    let deployment = folding_deployment("10m")?;
    let agent = deployment.agent()?;
    let mut sent = 0;
    let mut send = |host: u8, times: u32| -> Result<()> {
        sent += u64::from(times);
        run_on_access(&deployment, &beacon(subscriber(host), 1), times)
    };
    send(7, 1_000)?;
    agent.kill()?;
    let tables = || deployment.tables();
    let ring = RingIdentity(Ring::open(&tables()?)?.id().0.clone());
    let path = deployment.folder().join("state/hits.db");
    let stored = |sent: u64| {
        wait_until("all is stored", || Ok(stored_packets(&deployment)? == sent))?;
        // And no more comes.
        thread::sleep(Duration::from_millis(300));
        assert_eq!(stored_packets(&deployment)?, sent);
        anyhow::Ok(())
    };

    // Closed, and killed before it was stored.
    tables()?.close_folds()?;
    send(7, 1_000)?;
    let agent = deployment.agent()?;
    stored(2_000)?;

    // Stored, and killed before it was emptied.
    send(8, 1_000)?;
    agent.kill()?;
    let mut kernel = tables()?;
    let closed = kernel.close_folds()?;
    let (mut names, offset) = (Names::default(), WallOffset::measure());
    let hits: Vec<_> = kernel
        .folds(closed)?
        .iter()
        .map(|summary| names.hit(summary, offset, &Catalog::default(), |_| None))
        .collect();
    assert_eq!(hits.len(), 1);
    Store::open(&path, "edge-1")?.commit_folds(&ring, closed, &hits)?;
    send(8, 1_000)?;
    let agent = deployment.agent()?;
    stored(4_000)?;

    // Emptied, and killed before anything else.
    agent.kill()?;
    let closed = kernel.close_folds()?;
    kernel.clear_folds(closed)?;
    send(8, 1_000)?;
    let _agent = deployment.agent()?;
    stored(5_000)?;
    assert_eq!(deployment.status()?["hits"]["lost"], 0);
    assert_eq!(deployment.counter("matched")?, sent);
    Ok(())
}

#[test]
fn kills_at_any_moment_lose_no_folded_packet_and_double_none() -> Result<()> {
    let test = "kills_at_any_moment_lose_no_folded_packet_and_double_none";
    if is_skipped_in_lab(test) {
        return Ok(());
    }
    let deployment = folding_deployment("1s")?;
    let mut agent = deployment.agent()?;
    let done = AtomicBool::new(false);
    let mut kills = 0;
    let sent = thread::scope(|scope| -> Result<u64> {
        let sending = scope.spawn(|| -> Result<u64> {
            let mut sent = 0;
            while !done.load(Ordering::SeqCst) {
                let port = 1 + (sent / 100 % 200) as u16;
                run_on_access(&deployment, &beacon(subscriber(7), port), 100)?;
                sent += 100;
                thread::sleep(Duration::from_millis(2));
            }
            Ok(sent)
        });
        let killing = || -> Result<()> {
            while kills < 5 {
                thread::sleep(Duration::from_millis(900 + 170 * kills));
                agent.kill()?;
                kills += 1;
                agent = deployment.agent()?;
            }
            Ok(())
        };
        let killed = killing();
        done.store(true, Ordering::SeqCst);
        let sent = sending.join().expect("the sender does not panic");
        killed?;
        sent
    })?;
    // The one before went with the scope.
    let _agent = deployment.agent()?;
    wait_until("everything is stored", || {
        Ok(stored_packets(&deployment)? >= sent)
    })?;
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(stored_packets(&deployment)?, sent);
    assert_eq!(deployment.counter("matched")?, sent);
    assert_eq!(deployment.counter("lost")?, 0);
    assert!(deployment.counter("folded")? > 0);
    Ok(())
}

#[test]
fn of_those_who_opt_out_nothing_folded_is_kept() -> Result<()> {
    let test = "of_those_who_opt_out_nothing_folded_is_kept";
    if is_skipped_in_lab(test) {
        return Ok(());
    }
    let deployment = folding_deployment("10m")?;
    let _agent = deployment.agent()?;
    for host in [7, 8] {
        for port in 1..=100 {
            run_on_access(&deployment, &beacon(subscriber(host), port), 10)?;
        }
    }
    deployment
        .matcher(["consent", "opt-out", "203.0.113.7"])?
        .succeeded();
    // When the command returns the kernel holds nothing of theirs.
    let mut kernel = deployment.tables()?;
    for _ in 0..2 {
        let closed = kernel.close_folds()?;
        assert_eq!(kernel.folds(closed)?, []);
    }
    wait_until("those of the other are stored", || {
        Ok(stored_packets(&deployment)? == 1_000)
    })?;
    let stored = deployment.stored()?;
    assert!(stored.iter().all(|hit| hit.subscriber.ip == subscriber(8)));
    assert!(stored.iter().any(|hit| hit.several_flows));
    assert_eq!(deployment.counter("matched")?, 2_000);
    Ok(())
}

#[test]
fn tail_without_an_agent_prints_what_was_folded_once() -> Result<()> {
    let test = "tail_without_an_agent_prints_what_was_folded_once";
    if is_skipped_in_lab(test) {
        return Ok(());
    }
    let deployment = folding_deployment("10m")?;
    deployment.start()?;
    run_on_access(&deployment, &beacon(subscriber(7), 1), 1_000)?;
    let packets = |hits: Vec<Value>| -> Vec<u64> {
        hits.iter()
            .filter_map(|hit| hit["packets"].as_u64())
            .collect()
    };
    assert_eq!(packets(deployment.hits()?), [1, 999]);
    assert_eq!(packets(deployment.hits()?), [0; 0]);
    let hits = &deployment.status()?["hits"];
    assert_eq!(
        *hits,
        serde_json::json!({"matched": 1000, "delivered": 1, "folded": 999, "lost": 0})
    );
    Ok(())
}
