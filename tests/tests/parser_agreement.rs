//! The parser on the host and the parser in the kernel are the same code:
//! they must see the same in every frame, whole, cut off or broken.

use matcher_common::parse;
use matcher_tests::{
    frames::Frame,
    kernel::{is_skipped, load},
    packets::{self, ALICE, ALICE6, BOB6, STRANGER},
    traffic::random::Random,
};
use matcher_user::kernel::program::{Clock, FRAME_BYTES, Loaded};

/// What both see.
fn compare(loaded: &mut Loaded, frame: &[u8], what: impl FnOnce() -> String) {
    let host = parse::parse(frame);
    let kernel = loaded
        .parse(frame)
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(
        host == kernel,
        "{}: host {host:?}, kernel {kernel:?}, frame {frame:02x?}",
        what()
    );
}

#[test]
fn the_host_sees_in_every_packet_of_the_table_what_is_written_there() {
    for case in packets::table() {
        let parsed = parse::parse(&case.frame[..]);
        assert_eq!(parsed, case.seen.parsed(), "{}", case.description);
    }
}

#[test]
fn the_kernel_sees_in_every_packet_of_the_table_what_is_written_there() {
    if is_skipped("the_kernel_sees_in_every_packet_of_the_table_what_is_written_there") {
        return;
    }
    let mut loaded = load(Clock::Replay);
    for case in packets::table() {
        let seen = loaded
            .parse(&case.frame)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(seen, case.seen.parsed(), "{}", case.description);
    }
}

#[test]
fn they_agree_at_every_length_that_a_packet_can_be_cut_to() {
    if is_skipped("they_agree_at_every_length_that_a_packet_can_be_cut_to") {
        return;
    }
    let mut loaded = load(Clock::Replay);
    for case in packets::table() {
        // Of long frames the headers, and around the first buffer's end.
        let lengths = (*FRAME_BYTES.start()..=case.frame.len().min(256))
            .chain((256..case.frame.len()).step_by(97));
        for length in lengths {
            compare(&mut loaded, &case.frame[..length], || {
                format!("{}, cut to {length} bytes", case.description)
            });
        }
    }
}

#[test]
fn they_agree_on_changed_packets() {
    if is_skipped("they_agree_on_changed_packets") {
        return;
    }
    let mut loaded = load(Clock::Replay);
    let table = packets::table();
    let short: Vec<_> = table.iter().filter(|case| case.frame.len() < 400).collect();
    for seed in 0..20_000 {
        let mut random = Random::new(seed);
        let case = random.of(&short);
        let mut frame = case.frame.clone();
        for _ in 0..random.within(1, 5) {
            // Headers, mostly: what stands behind them is not read.
            let at = random.within(12, frame.len().min(80) as u64) as usize;
            match random.within(0, 4) {
                0 => frame[at] ^= 1 << random.within(0, 8),
                1 => frame[at] = random.next() as u8,
                2 => frame[at] = *random.of(&[0, 4, 6, 17, 41, 43, 44, 47, 51, 60, 132, 255]),
                _ => {
                    let end = random.within(14, frame.len() as u64 + 1) as usize;
                    frame.truncate(end.max(40));
                }
            }
        }
        compare(&mut loaded, &frame, || {
            format!("seed {seed}, from {}", case.description)
        });
    }
}

#[test]
fn they_agree_on_random_bytes_behind_every_ether_type() {
    if is_skipped("they_agree_on_random_bytes_behind_every_ether_type") {
        return;
    }
    let mut loaded = load(Clock::Replay);
    const ETHER_TYPES: [u16; 8] = [
        0x0800, 0x86dd, 0x8100, 0x88a8, 0x9100, 0x8864, 0x8847, 0x0806,
    ];
    for seed in 0..20_000 {
        let mut random = Random::new(seed);
        let length = random.within(14, 200) as usize;
        let mut frame = random.bytes(length);
        frame[12..14].copy_from_slice(&random.of(&ETHER_TYPES).to_be_bytes());
        // Half of them with a version that fits.
        if length > 14 && random.within(0, 2) == 0 {
            let version = if frame[12] == 0x08 { 0x45 } else { 0x60 };
            frame[14] = version | (frame[14] & 0x0a);
        }
        compare(&mut loaded, &frame, || format!("seed {seed}"));
    }
}

/// Chains of long extension headers, up to what one packet can hold.
#[test]
fn they_agree_on_headers_far_into_the_packet() {
    if is_skipped("they_agree_on_headers_far_into_the_packet") {
        return;
    }
    let mut loaded = load(Clock::Replay);
    for headers in 1..=8 {
        for units in [16, 100, 200, 254, 255] {
            let mut frame = Frame::ethernet().vlan(7).vlan(8).ipv6(ALICE6, BOB6);
            for _ in 0..headers {
                frame = frame.destination_options(units);
            }
            let frame = frame.tcp(51413, 443).payload(&[0; 64]).build();
            for shorter in [0, 64, 80, 81, 84, 85, 90] {
                compare(&mut loaded, &frame[..frame.len() - shorter], || {
                    format!("{headers} headers of {units} units, cut by {shorter}")
                });
            }
        }
    }
}

#[test]
fn they_agree_on_the_longest_headers_there_can_be() {
    if is_skipped("they_agree_on_the_longest_headers_there_can_be") {
        return;
    }
    let mut loaded = load(Clock::Replay);
    // Eight times 256 units of 8 bytes.
    let mut chain = Vec::new();
    for next in [60, 60, 60, 60, 60, 60, 60, 6] {
        let start = chain.len();
        chain.extend([next, 255]);
        chain.resize(start + 2048, 0);
    }
    chain.extend([0xc8, 0xd5, 0x01, 0xbb]);
    let frame = Frame::ethernet()
        .vlan(7)
        .vlan(8)
        .ipv6(ALICE6, BOB6)
        .protocol(60)
        .payload(&chain)
        .build();
    let parsed = parse::parse(&frame[..]);
    let layer = parsed.layers()[0];
    assert_eq!((layer.source_port, layer.destination_port), (51413, 443));
    compare(&mut loaded, &frame, || {
        "eight of the longest headers".to_owned()
    });
}

#[test]
fn they_agree_on_the_shortest_and_the_longest_frame() {
    if is_skipped("they_agree_on_the_shortest_and_the_longest_frame") {
        return;
    }
    let mut loaded = load(Clock::Replay);
    let headers = 14 + 20 + 8;
    let longest = Frame::ethernet()
        .ipv4(ALICE, STRANGER)
        .udp(1, 2)
        .payload(&vec![0; FRAME_BYTES.end() - headers])
        .build();
    assert_eq!(longest.len(), *FRAME_BYTES.end());
    compare(&mut loaded, &longest, || "the longest".to_owned());
    compare(&mut loaded, &longest[..*FRAME_BYTES.start()], || {
        "the shortest".to_owned()
    });
}
