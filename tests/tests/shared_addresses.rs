//! Subscribers who share an address, told apart by port: in the real kernel.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use matcher_common::abi::{Counter, purposes};
use matcher_tests::{
    edge::{CC, Edge, LIMITS, compiled},
    frames::Frame,
    kernel::{Tally, is_skipped, part},
};
use matcher_user::{
    consent::{PortLimit, Purpose},
    kernel::program::Limits,
    tables::{consent::ConsentEntries, spaces::SpaceTables},
};

/// Shared by many subscribers.
const POOL: [u8; 4] = [203, 0, 113, 9];

fn edge(limits: Limits) -> Edge {
    let mut edge = Edge::new(limits);
    edge.set_spaces(SpaceTables::one(["203.0.113.0/24".parse().unwrap()]));
    edge
}

/// From the shared address to the C&C server, and back: with TCP, whose ports
/// are never those of tunnels.
fn both_ways(port: u16) -> [Vec<u8>; 2] {
    [
        Frame::ethernet().ipv4(POOL, CC).tcp(port, 443).build(),
        Frame::ethernet().ipv4(CC, POOL).tcp(443, port).build(),
    ]
}

fn expect(edge: &mut Edge, port: u16, expected: Counter) {
    for frame in both_ways(port) {
        assert_eq!(edge.exit(&frame), expected, "port {port}");
    }
}

#[test]
fn the_boundary_ports_of_each_port_range_behave_as_computed() {
    if is_skipped("the_boundary_ports_of_each_port_range_behave_as_computed") {
        return;
    }
    let mut edge = edge(LIMITS);
    let map_e = |a, k, psid| PortLimit::MapE { a, k, psid };
    let limits = [
        map_e(6, 8, 0x34),
        map_e(4, 8, 0x34),
        map_e(6, 6, 0x34),
        map_e(0, 8, 0),
        map_e(0, 8, 0xff),
        map_e(15, 1, 1),
        PortLimit::read_ports("1024-2047").unwrap(),
        PortLimit::read_ports("0-0,7,9-10,65535").unwrap(),
        PortLimit::read_ports("5000-6000,5500-7000,7001").unwrap(),
    ];
    for limit in limits {
        edge.opt_out(&format!("203.0.113.9 {limit}\n"));
        let mut ports: Vec<u16> = limit
            .ranges()
            .flat_map(|range| {
                let (first, last) = (range.first(), range.last());
                [first.saturating_sub(1), first, last, last.saturating_add(1)]
            })
            .collect();
        ports.sort_unstable();
        ports.dedup();
        // The set with the most ranges has 32,767 of them: every hundredth.
        let step = if ports.len() > 10_000 { 99 } else { 1 };
        for port in ports.into_iter().step_by(step) {
            let expected = match limit.contains(port) {
                true => Counter::OptedOut,
                false => Counter::Matched,
            };
            expect(&mut edge, port, expected);
        }
    }
}

#[test]
fn a_packet_whose_port_cannot_be_known_passes_when_any_sharer_opted_out() {
    if is_skipped("a_packet_whose_port_cannot_be_known_passes_when_any_sharer_opted_out") {
        return;
    }
    let mut edge = edge(LIMITS);
    let to_cc = || Frame::ethernet().ipv4(POOL, CC);
    let inner = Frame::raw().ipv4([10, 0, 0, 1], CC).tcp(1, 443).build();
    let gre = [&[0, 0, 8, 0], &inner[..]].concat();
    let portless = [
        (
            "later fragment",
            to_cc()
                .fragment(1480, false, 7)
                .protocol(6)
                .payload(&[0; 64])
                .build(),
        ),
        ("ICMP", to_cc().icmp(8, 0).payload(&[0; 8]).build()),
        ("ESP", to_cc().protocol(50).payload(&[0; 32]).build()),
        ("GRE", to_cc().protocol(47).payload(&gre).build()),
    ];
    for (what, frame) in &portless {
        assert_eq!(
            edge.exit(frame),
            Counter::Matched,
            "{what}, nobody opted out"
        );
    }
    edge.opt_out("203.0.113.9 map-e=a:6,k:8,psid:0x34\n203.0.113.8\n");
    for (what, frame) in &portless {
        assert_eq!(edge.exit(frame), Counter::SharedAddress, "{what}");
    }
    // The others who share it are matched where the port is known.
    expect(&mut edge, 1231, Counter::Matched);
    // Another purpose is no reason.
    edge.opt_out("203.0.113.9 map-e=a:6,k:8,psid:0x34 purposes=notify\n");
    for (what, frame) in &portless {
        assert_eq!(edge.exit(frame), Counter::Matched, "{what}");
    }
    // All of the address: that is no longer about sharing.
    edge.opt_out("203.0.113.9 ports=0-40000\n203.0.113.9 ports=40001-65535\n");
    for (what, frame) in &portless {
        assert_eq!(edge.exit(frame), Counter::OptedOut, "{what}");
    }
}

#[test]
fn port_lines_and_prefixes_nest() {
    if is_skipped("port_lines_and_prefixes_nest") {
        return;
    }
    let mut edge = edge(LIMITS);
    edge.opt_out(
        "203.0.113.0/28 ports=1000-1999\n203.0.113.8/30 purposes=notify\n\
         203.0.113.9 ports=1500-2499 purposes=detect\n203.0.113.9 ports=3000 purposes=block\n",
    );
    for (port, expected) in [
        (999, Counter::Matched),
        (1000, Counter::OptedOut),
        (1999, Counter::OptedOut),
        (2499, Counter::OptedOut),
        (2500, Counter::Matched),
        (3000, Counter::Matched),
    ] {
        expect(&mut edge, port, expected);
    }
    let allowed = |edge: &Edge, address: &str, port| {
        edge.loaded
            .tables
            .allowed_purposes(0, address.parse().unwrap(), port)
            .unwrap()
            .to_string()
    };
    assert_eq!(
        allowed(&edge, "203.0.113.9", Some(2000)),
        "vulnerable,block,discover"
    );
    assert_eq!(
        allowed(&edge, "203.0.113.9", Some(3000)),
        "detect,vulnerable"
    );
    assert_eq!(allowed(&edge, "203.0.113.9", None), "none");
    assert_eq!(
        allowed(&edge, "203.0.113.10", Some(2000)),
        "detect,vulnerable,block,discover"
    );
    assert_eq!(allowed(&edge, "203.0.113.10", Some(1000)), "none");
}

#[test]
fn a_set_of_ranges_is_never_seen_half_written() {
    if is_skipped("a_set_of_ranges_is_never_seen_half_written") {
        return;
    }
    // Port 5000 is refused in each of them; places are short, so that each
    // change writes over what the one before it has left.
    let lists = [
        "203.0.113.9 ports=5000\n",
        "203.0.113.9 ports=1,3,5,7,9,11,13,5000,6000,7000\n",
        "203.0.113.9 map-e=a:6,k:8,psid:0xe2\n",
        "203.0.113.9 ports=4000-5000,5002-6000\n203.0.113.9 ports=5001 purposes=notify\n",
        "203.0.113.0/24 ports=2-5000\n203.0.113.9 ports=7\n",
    ];
    let limits = Limits {
        max_port_ranges: 220,
        ..LIMITS
    };
    let refusals: Vec<ConsentEntries> = lists
        .iter()
        .map(|list| ConsentEntries::from(&compiled(list, &[])))
        .collect();
    let mut edge = edge(limits);
    edge.opt_out(lists[0]);
    let [frame, _] = both_ways(5000);
    edge.exit(&frame);
    let (sender, mut tables) = part(edge.loaded);
    let mut tally = Tally::start(&tables);
    sender.send_meanwhile(&frame, &mut tables, |tables, number| {
        let change = tables
            .set_consent(&refusals[number % refusals.len()])
            .unwrap();
        assert_eq!(change.without_room, 0);
    });
    let counts = tally.take(&tables);
    assert!(matches!(counts[..], [(Counter::OptedOut, _)]), "{counts:?}");
}

#[test]
fn an_address_without_room_for_its_ranges_is_left_alone_as_a_whole() {
    if is_skipped("an_address_without_room_for_its_ranges_is_left_alone_as_a_whole") {
        return;
    }
    let mut edge = edge(Limits {
        max_port_ranges: 62,
        ..LIMITS
    });
    let list = "203.0.113.9 map-e=a:6,k:8,psid:0x34\n203.0.113.10 ports=5\n";
    let table = ConsentEntries::from(&compiled(list, &[]));
    for _ in 0..2 {
        let change = edge.loaded.tables.set_consent(&table).unwrap();
        assert_eq!(change.without_room, 1);
        assert_eq!(edge.loaded.tables.port_range_fill().unwrap(), (1, 62));
        expect(&mut edge, 1, Counter::OptedOut);
    }
    edge.opt_out("203.0.113.9 map-e=a:4,k:8,psid:0x34\n");
    expect(&mut edge, 1, Counter::Matched);
    expect(&mut edge, 4928, Counter::OptedOut);
}

/// Bytes of this process's own memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

/// A hundred thousand sharers, 63 ranges each: as MAP-E hands them out, in few
/// port sets, and the worst that there could be, each with ports of its own.
#[test]
fn a_hundred_thousand_opt_outs_of_sharers_load_and_hold() {
    if is_skipped("a_hundred_thousand_opt_outs_of_sharers_load_and_hold") {
        return;
    }
    const SHARERS: u32 = 100_000;
    let address = |index: u32| Ipv4Addr::from(0x0a00_0000 + index);
    let of_map_e = |index: u32| format!("map-e=a:6,k:8,psid:{}", index % 256);
    let own = |index: u32| {
        let first = index % 700;
        let ranges = (0..63).map(|range| {
            // Never the same 63 ranges: lengths count in base 2.
            let at = 1024 + range * 1000 + first;
            format!("{at}-{}", at + 1 + ((index / 700) >> (range % 8) & 1))
        });
        format!("ports={}", ranges.collect::<Vec<_>>().join(","))
    };
    let all_on_few = |index: u32| {
        let (address, psid) = (address(index / 200), (index % 200 * 37 + index / 200) % 256);
        format!("{address} map-e=a:6,k:8,psid:{psid}")
    };
    let lists: [(&str, String); 3] = [
        (
            "one on each address, 256 port sets",
            (0..SHARERS)
                .map(|index| format!("{} {}\n", address(index), of_map_e(index)))
                .collect(),
        ),
        (
            "200 on each of 500 addresses",
            (0..SHARERS).map(|index| all_on_few(index) + "\n").collect(),
        ),
        (
            "one on each address, each with ports of its own",
            (0..SHARERS)
                .map(|index| format!("{} {}\n", address(index), own(index)))
                .collect(),
        ),
    ];
    let mut edge = Edge::new(Limits {
        max_consent_entries: SHARERS + 1,
        max_port_ranges: 7_000_000,
        ..LIMITS
    });
    edge.set_spaces(SpaceTables::one(["10.0.0.0/8".parse().unwrap()]));
    for (what, list) in lists {
        let before = resident();
        let started = Instant::now();
        let table = compiled(&list, &[]);
        let compiled_in = started.elapsed();
        let memory = resident().saturating_sub(before) >> 20;
        let started = Instant::now();
        let entries = ConsentEntries::from(&table);
        let change = edge.loaded.tables.set_consent(&entries).unwrap();
        let loaded_in = started.elapsed();
        assert_eq!(change.without_room, 0);
        let (used, _) = edge.loaded.tables.port_range_fill().unwrap();
        let started = Instant::now();
        assert_eq!(edge.loaded.tables.set_consent(&entries).unwrap(), change);
        let renewed_in = started.elapsed();
        println!(
            "{what}: {} entries, {used} port ranges; read and compiled in {compiled_in:.2?} with \
             {memory} MiB, loaded in {loaded_in:.2?}, confirmed in {renewed_in:.2?}",
            table.entry_count()
        );
        // Quadratic work would take hours; the bounds leave room for a slow
        // machine.
        assert!(compiled_in < Duration::from_secs(30) && loaded_in < Duration::from_secs(30));
        for index in (0..SHARERS).step_by(9_973) {
            let address = table
                .entries()
                .nth(index as usize % table.entry_count())
                .unwrap()
                .0
                .prefix
                .addr();
            let IpAddr::V4(v4) = address else { panic!() };
            for port in (0..=u16::MAX).step_by(1021) {
                let expected = match table.allows(0, address, Some(port), Purpose::Detect) {
                    true => Counter::Matched,
                    false => Counter::OptedOut,
                };
                let frame = Frame::ethernet().ipv4(v4, CC).tcp(port, 443).build();
                assert_eq!(edge.exit(&frame), expected, "{address} {port}");
            }
            let ping = Frame::ethernet().ipv4(v4, CC).icmp(8, 0).build();
            assert_eq!(edge.exit(&ping), Counter::SharedAddress);
        }
    }
    assert_eq!(Purpose::Detect.bit(), purposes::DETECT as u8);
}
