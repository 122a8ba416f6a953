//! The kernel's decision, packet by packet: against the described table, and
//! against the model on random packets in random worlds.

use std::{
    collections::{BTreeMap, HashMap},
    env,
};

use jiff::SignedDuration;
use matcher_common::abi::{AddressBytes, Counter, Flow, HitEvent, Setting, hit_flags};
use matcher_tests::{
    kernel::{Tally, drain, install, is_skipped, load, send},
    model::{
        Answer, Layer, Packet, World,
        worlds::{self, Sent},
    },
    packets::{self, octets, standard_world},
    traffic::random::Random,
};
use matcher_user::{
    clock::{WallOffset, boot_now_ns},
    kernel::{
        program::{Clock, LOOPBACK, Loaded},
        ring::Ring,
    },
};

/// A loaded program, and what is needed to judge it.
struct Bench {
    loaded: Loaded,
    ring: Ring,
    tally: Tally,
    /// The next sequence number of each CPU.
    sequences: HashMap<u16, u64>,
    generation: u64,
}

impl Bench {
    fn new(clock: Clock) -> Self {
        let loaded = load(clock);
        let ring = Ring::open(&loaded.tables).unwrap();
        let tally = Tally::start(&loaded.tables);
        Self {
            loaded,
            ring,
            tally,
            sequences: HashMap::new(),
            generation: 0,
        }
    }

    fn install(&mut self, world: &World) {
        self.generation = install(&mut self.loaded.tables, world);
    }

    /// Sends one packet, and holds everything that the kernel did against the
    /// answer: all counters, and the event in every field.
    fn check(&mut self, frame: &[u8], packet: &Packet, world: &World, answer: &Answer) {
        self.check_event(frame, packet, world, answer);
        assert_eq!(self.tally.take(&self.loaded.tables), answer.counts());
    }

    /// The same for many packets; the counters, which take a system call each,
    /// are read once. When they are off, the packets go one by one.
    fn check_all(
        &mut self,
        sent: &[(Sent, Answer)],
        world: &World,
        name: impl Fn(usize) -> String,
    ) {
        let mut expected: BTreeMap<Counter, u64> = BTreeMap::new();
        for (index, (sent, answer)) in sent.iter().enumerate() {
            let _case = OnFailure(|| name(index));
            self.check_event(&sent.frame, &sent.packet, world, answer);
            for (counter, count) in answer.counts() {
                *expected.entry(counter).or_default() += count;
            }
        }
        let counted = self.tally.take(&self.loaded.tables);
        if counted == Vec::from_iter(expected) {
            return;
        }
        for (index, (sent, answer)) in sent.iter().enumerate() {
            let _case = OnFailure(|| name(index));
            self.check(&sent.frame, &sent.packet, world, answer);
        }
        panic!("the counters were off for packets that are right one by one");
    }

    fn check_event(&mut self, frame: &[u8], packet: &Packet, world: &World, answer: &Answer) {
        let before = boot_now_ns();
        send(&mut self.loaded, frame);
        let after = boot_now_ns();
        let events = drain(&mut self.ring);
        let Some(hit) = answer.hit else {
            assert_eq!(events, []);
            return;
        };
        let [event] = events[..] else {
            panic!("{} events of one packet", events.len());
        };
        assert!((before..=after).contains(&event.boot_ns));
        let sequence = self.sequences.entry(event.cpu).or_default();
        assert_eq!(event.sequence, *sequence, "CPU {}", event.cpu);
        *sequence += 1;

        let layer = &packet.layers[hit.layer];
        let ends = |layer: &Layer| {
            let (source, destination) = layer.addresses;
            if hit.outbound {
                (octets(source), octets(destination))
            } else {
                (octets(destination), octets(source))
            }
        };
        let known_by = &packet.layers[hit.subscriber_layer];
        let outer = match hit.layer {
            0 => None,
            _ if hit.subscriber_layer < hit.layer => Some(known_by),
            inner => Some(&packet.layers[inner - 1]),
        };
        let mut flags = 0;
        for (flag, holds) in [
            (hit_flags::OUTBOUND, hit.outbound),
            (hit_flags::IPV6, layer.addresses.0.is_ipv6()),
            (hit_flags::PORTS, layer.ports.is_some()),
            (hit_flags::SOURCE_VALIDATED, world.source_validated),
            (hit_flags::OUTER, outer.is_some()),
            (
                hit_flags::OUTER_IPV6,
                outer.is_some_and(|outer| outer.addresses.0.is_ipv6()),
            ),
            (
                hit_flags::SUBSCRIBER_OUTER,
                hit.subscriber_layer < hit.layer,
            ),
        ] {
            flags |= if holds { flag } else { 0 };
        }
        let (source_port, destination_port) = layer.ports.unwrap_or_default();
        let (local_port, remote_port) = if hit.outbound {
            (source_port, destination_port)
        } else {
            (destination_port, source_port)
        };
        let (local, remote) = ends(layer);
        let expected = HitEvent {
            sequence: event.sequence,
            boot_ns: event.boot_ns,
            generation: self.generation as u32,
            packets: 1,
            cpu: event.cpu,
            reserved: [0; 6],
            flow: Flow {
                subscriber: ends(known_by).0,
                local,
                remote,
                outer_source: outer
                    .map_or(AddressBytes::default(), |outer| octets(outer.addresses.0)),
                outer_destination: outer
                    .map_or(AddressBytes::default(), |outer| octets(outer.addresses.1)),
                indicator: hit.indicator,
                ifindex: LOOPBACK,
                space: 0,
                local_port,
                remote_port,
                flags,
                vlan_ids: event.flow.vlan_ids,
                protocol: layer.protocol,
                tunnel: layer.tunnel.map_or(0, |tunnel| tunnel as u8),
                nat64: [0; 4],
                reserved: [0; 4],
            },
        };
        assert_eq!(event, expected);
    }
}

/// Says which packet it was when a check fails.
struct OnFailure<F: Fn() -> String>(F);

impl<F: Fn() -> String> Drop for OnFailure<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", (self.0)());
        }
    }
}

#[test]
fn every_packet_of_the_table_is_decided_as_it_is_written() {
    if is_skipped("every_packet_of_the_table_is_decided_as_it_is_written") {
        return;
    }
    let mut bench = Bench::new(Clock::Replay);
    for case in packets::table() {
        let _case = OnFailure(|| format!("the case: {}", case.description));
        let world = standard_world(&case.conditions);
        bench.install(&world);
        bench.check(&case.frame, &case.seen.packet, &world, &case.answer);
    }
}

const WORLDS: u64 = 250;
const PACKETS: u64 = 500;
const BATCH: u64 = 25;

/// `MATCHER_SEED` runs one world alone.
#[test]
fn on_random_packets_in_random_worlds_the_kernel_agrees_with_the_model() {
    if is_skipped("on_random_packets_in_random_worlds_the_kernel_agrees_with_the_model") {
        return;
    }
    let seeds = match env::var("MATCHER_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("MATCHER_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..WORLDS,
    };
    let whole = seeds.end - seeds.start == WORLDS;
    let mut bench = Bench::new(Clock::Replay);
    let mut verdicts: HashMap<Counter, u64> = HashMap::new();
    let mut port_unknown = 0;
    for seed in seeds {
        let mut random = Random::new(seed);
        let world = worlds::world(&mut random);
        bench.install(&world);
        for batch in 0..PACKETS / BATCH {
            let sent: Vec<(Sent, Answer)> = (0..BATCH)
                .map(|_| {
                    let sent = worlds::packet(&mut random, &world);
                    let answer = world.decide(&sent.packet);
                    *verdicts.entry(answer.verdict).or_default() += 1;
                    port_unknown += answer.port_unknown;
                    (sent, answer)
                })
                .collect();
            bench.check_all(&sent, &world, |index| {
                let (sent, answer) = &sent[index];
                format!(
                    "MATCHER_SEED={seed}, packet {index} of batch {batch}: {:?}\n\
                     expected {answer:?}\nin {world:#?}",
                    sent.packet
                )
            });
        }
    }
    println!("{verdicts:?}, {port_unknown} entries met without a port");
    if whole {
        // A test of the test: it does meet what it is there for.
        for verdict in [
            Counter::Matched,
            Counter::NoMatch,
            Counter::OptedOut,
            Counter::Transit,
            Counter::Spoofed,
            Counter::ForeignSource,
        ] {
            let count = verdicts.get(&verdict).copied().unwrap_or(0);
            assert!(count > WORLDS * PACKETS / 100, "{verdict:?} {count} times");
        }
        assert!(port_unknown > 100);
        assert!(verdicts.get(&Counter::SharedAddress) > Some(&100));
    }
}

/// Validity is held against the machine's clock and the wall offset, which
/// the agent rewrites after a step of the wall clock.
#[test]
fn an_entry_holds_by_the_wall_clock_of_the_machine() {
    if is_skipped("an_entry_holds_by_the_wall_clock_of_the_machine") {
        return;
    }
    let mut bench = Bench::new(Clock::Kernel);
    let mut world = standard_world(&packets::Conditions::default());
    let measured = WallOffset::measure();
    let now = measured.wall(boot_now_ns());
    let hour = SignedDuration::from_hours(1);
    for entry in &mut world.indicators {
        entry.valid_from = Some(now - hour);
        entry.valid_until = Some(now + hour);
    }
    bench.install(&world);
    let case = packets::table()
        .into_iter()
        .find(|case| case.answer.hit.is_some())
        .unwrap();
    let two_hours = 2 * 3_600_000_000_000;
    for (offset, matches) in [
        (measured.setting(), true),
        (measured.setting().wrapping_add(two_hours), false),
        (measured.setting().wrapping_sub(two_hours), false),
        (measured.setting(), true),
    ] {
        bench
            .loaded
            .tables
            .set(Setting::WallOffset, offset)
            .unwrap();
        let mut answer = case.answer.clone();
        if !matches {
            answer.verdict = Counter::NoMatch;
            answer.hit = None;
        }
        bench.check(&case.frame, &case.seen.packet, &world, &answer);
    }
}
