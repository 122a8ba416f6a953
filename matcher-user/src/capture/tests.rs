use std::{collections::BTreeMap, env, fs, path::PathBuf};

use proptest::prelude::*;

use super::*;

#[derive(Copy, Clone, Debug)]
enum Order {
    Little,
    Big,
}

const ORDERS: [Order; 2] = [Order::Little, Order::Big];

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn i64(self, value: i64) -> [u8; 8] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn u32s(self, values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| self.u32(*value)).collect()
    }

    fn pcap_header(self, magic: u32, link: u32) -> Vec<u8> {
        let mut bytes = self.u32(magic).to_vec();
        bytes.extend(self.u16(2));
        bytes.extend(self.u16(4));
        bytes.extend(self.u32s(&[0, 0, 65535, link]));
        bytes
    }

    fn pcap_packet(self, seconds: u32, fraction: u32, original: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = self.u32s(&[seconds, fraction, data.len() as u32, original]);
        bytes.extend(data);
        bytes
    }

    fn block(self, kind: u32, contents: &[u8]) -> Vec<u8> {
        let mut contents = contents.to_vec();
        contents.resize(contents.len().next_multiple_of(4), 0);
        let length = contents.len() as u32 + 12;
        let mut bytes = self.u32s(&[kind, length]);
        bytes.extend(contents);
        bytes.extend(self.u32(length));
        bytes
    }

    fn section(self) -> Vec<u8> {
        let mut contents = self.u32(0x1a2b_3c4d).to_vec();
        contents.extend(self.u16(1));
        contents.extend(self.u16(0));
        contents.extend(self.i64(-1));
        self.block(0x0a0d_0d0a, &contents)
    }

    fn interface(
        self,
        link: u16,
        snap_length: u32,
        resolution: Option<u8>,
        offset: i64,
    ) -> Vec<u8> {
        let mut contents = self.u16(link).to_vec();
        contents.extend(self.u16(0));
        contents.extend(self.u32(snap_length));
        if let Some(resolution) = resolution {
            contents.extend(self.u16(9));
            contents.extend(self.u16(1));
            contents.extend([resolution, 0, 0, 0]);
        }
        contents.extend(self.u16(14));
        contents.extend(self.u16(8));
        contents.extend(self.i64(offset));
        contents.extend([0; 4]);
        self.block(1, &contents)
    }

    fn enhanced(self, interface: u32, ticks: u64, original: u32, data: &[u8]) -> Vec<u8> {
        let mut contents = self.u32s(&[
            interface,
            (ticks >> 32) as u32,
            ticks as u32,
            data.len() as u32,
            original,
        ]);
        contents.extend(data);
        self.block(6, &contents)
    }

    fn old(self, interface: u16, ticks: u64, original: u32, data: &[u8]) -> Vec<u8> {
        let mut contents = self.u16(interface).to_vec();
        contents.extend(self.u16(7));
        contents.extend(self.u32s(&[
            (ticks >> 32) as u32,
            ticks as u32,
            data.len() as u32,
            original,
        ]));
        contents.extend(data);
        self.block(2, &contents)
    }

    fn simple(self, original: u32, data: &[u8]) -> Vec<u8> {
        let mut contents = self.u32(original).to_vec();
        contents.extend(data);
        self.block(3, &contents)
    }
}

/// The packets, and the error that ended the stream, as text.
fn read(bytes: &[u8]) -> (Vec<Packet>, Option<String>) {
    let capture = match Capture::new("x.pcap", bytes) {
        Ok(capture) => capture,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let mut packets = Vec::new();
    let mut problem = None;
    for next in capture {
        assert_eq!(problem, None, "the stream goes on after an error");
        match next {
            Ok(packet) => packets.push(packet),
            Err(error) => problem = Some(error.to_string()),
        }
    }
    (packets, problem)
}

fn packet(number: u64, time: &str, link: LinkType, data: &[u8], original_length: u32) -> Packet {
    Packet {
        number,
        time: time.parse().unwrap(),
        link,
        data: data.to_vec(),
        original_length,
    }
}

#[test]
fn pcap_is_read_in_both_byte_orders_and_resolutions() {
    for order in ORDERS {
        for (magic, fraction) in [(0xa1b2_c3d4, 250_000), (0xa1b2_3c4d, 250_000_000)] {
            let mut bytes = order.pcap_header(magic, 1);
            bytes.extend(order.pcap_packet(1_000_000_000, fraction, 3, b"abc"));
            bytes.extend(order.pcap_packet(4_000_000_000, 0, 1500, b"de"));
            let (packets, problem) = read(&bytes);
            assert_eq!(problem, None);
            assert_eq!(
                packets,
                [
                    packet(1, "2001-09-09T01:46:40.25Z", LinkType::Ethernet, b"abc", 3),
                    packet(2, "2096-10-02T07:06:40Z", LinkType::Ethernet, b"de", 1500),
                ]
            );
        }
    }
}

#[test]
fn a_fraction_beyond_the_second_carries_over() {
    let mut bytes = Order::Little.pcap_header(0xa1b2_c3d4, 101);
    bytes.extend(Order::Little.pcap_packet(1, 2_500_000, 0, b""));
    let (packets, _) = read(&bytes);
    assert_eq!(
        packets,
        [packet(1, "1970-01-01T00:00:03.5Z", LinkType::RawIp, b"", 0)]
    );
}

#[test]
fn the_modified_pcap_of_old_linux_is_read() {
    let order = Order::Little;
    let mut bytes = order.pcap_header(0xa1b2_cd34, 1);
    bytes.extend(order.u32s(&[1, 0, 2, 2]));
    bytes.extend([0; 8]);
    bytes.extend(b"ab");
    bytes.extend(order.u32s(&[2, 0, 1, 1]));
    bytes.extend([0; 8]);
    bytes.extend(b"c");
    let (packets, problem) = read(&bytes);
    assert_eq!(problem, None);
    assert_eq!(packets[0].data, b"ab");
    assert_eq!(packets[1].data, b"c");
}

#[test]
fn pcapng_is_read_in_both_byte_orders_with_each_interface_its_own() {
    for order in ORDERS {
        let mut bytes = order.section();
        bytes.extend(order.interface(1, 0, None, 0));
        bytes.extend(order.interface(101, 0, Some(9), -3600));
        bytes.extend(order.interface(113, 0, Some(0x80 | 10), 0));
        // Name resolution, which holds no packet.
        bytes.extend(order.block(4, &[0; 9]));
        bytes.extend(order.enhanced(1, 3_600_000_000_007, 9, b"abcde"));
        bytes.extend(order.enhanced(0, 1_500_000, 4, b"fghi"));
        bytes.extend(order.old(2, 1536, 2, b"jk"));
        let (packets, problem) = read(&bytes);
        assert_eq!(problem, None, "{order:?}");
        assert_eq!(
            packets,
            [
                packet(
                    1,
                    "1970-01-01T00:00:00.000000007Z",
                    LinkType::RawIp,
                    b"abcde",
                    9
                ),
                packet(2, "1970-01-01T00:00:01.5Z", LinkType::Ethernet, b"fghi", 4),
                packet(3, "1970-01-01T00:00:01.5Z", LinkType::Other(113), b"jk", 2),
            ],
            "{order:?}"
        );
    }
}

#[test]
fn a_simple_packet_is_as_long_as_the_first_interface_kept() {
    for order in ORDERS {
        let mut bytes = order.section();
        bytes.extend(order.interface(1, 6, None, 0));
        bytes.extend(order.simple(5, b"abcde"));
        bytes.extend(order.simple(900, b"abcdef"));
        let (packets, problem) = read(&bytes);
        assert_eq!(problem, None);
        assert_eq!(
            packets,
            [
                packet(1, "1970-01-01T00:00:00Z", LinkType::Ethernet, b"abcde", 5),
                packet(
                    2,
                    "1970-01-01T00:00:00Z",
                    LinkType::Ethernet,
                    b"abcdef",
                    900
                ),
            ]
        );
    }
}

#[test]
fn a_new_section_brings_its_own_byte_order_and_interfaces() {
    let mut bytes = Order::Little.section();
    bytes.extend(Order::Little.interface(1, 0, None, 0));
    bytes.extend(Order::Little.enhanced(0, 0, 1, b"a"));
    bytes.extend(Order::Big.section());
    bytes.extend(Order::Big.interface(101, 0, None, 0));
    bytes.extend(Order::Big.enhanced(0, 0, 1, b"b"));
    bytes.extend(Order::Little.section());
    bytes.extend(Order::Little.enhanced(0, 0, 1, b"c"));
    let (packets, problem) = read(&bytes);
    let links: Vec<LinkType> = packets.iter().map(|packet| packet.link).collect();
    assert_eq!(links, [LinkType::Ethernet, LinkType::RawIp]);
    assert_eq!(
        problem.unwrap(),
        "x.pcap: damaged at byte 228, after 2 whole packets: \
         a packet of interface 0, but the section describes only 0"
    );
}

#[test]
fn what_is_no_capture_is_named() {
    let message = |bytes: &[u8]| read(bytes).1.unwrap();
    assert_eq!(
        message(b""),
        "x.pcap: not a pcap or pcapng capture: the file is empty"
    );
    assert_eq!(
        message(b"Licence"),
        "x.pcap: not a pcap or pcapng capture: it starts with the bytes 4c 69 63 65"
    );
    assert_eq!(
        message(&[0x1f, 0x8b, 8, 0, 0]),
        "x.pcap: not a pcap or pcapng capture: it starts with the bytes 1f 8b 08 00 \
         (gzip: decompress it first)"
    );
    assert_eq!(
        message(&[0xd4, 0xc3]),
        "x.pcap: not a pcap or pcapng capture: it starts with the bytes d4 c3"
    );
    assert_eq!(
        message(&Order::Big.pcap_header(0xa1b2_c3d4, 1)[..20]),
        "x.pcap: not a pcap or pcapng capture: it ends within the file header (20 of 24 bytes)"
    );
}

#[test]
fn a_cut_capture_gives_the_packets_before_the_cut_and_the_place() {
    let order = Order::Little;
    let mut pcap = order.pcap_header(0xa1b2_c3d4, 1);
    pcap.extend(order.pcap_packet(1, 0, 3, b"abc"));
    let second = pcap.len();
    pcap.extend(order.pcap_packet(2, 0, 3, b"def"));
    let mut pcapng = order.section();
    pcapng.extend(order.interface(1, 0, None, 0));
    pcapng.extend(order.enhanced(0, 0, 3, b"abc"));
    let second_block = pcapng.len();
    pcapng.extend(order.enhanced(0, 0, 3, b"def"));
    for (bytes, second) in [(pcap, second), (pcapng, second_block)] {
        for end in second + 1..bytes.len() {
            let (packets, problem) = read(&bytes[..end]);
            assert_eq!(packets.len(), 1);
            assert_eq!(
                problem.unwrap(),
                format!(
                    "x.pcap: cut off within the record at byte {second}, after 1 whole packets"
                )
            );
        }
        assert_eq!(read(&bytes[..second]).1, None);
    }
}

#[test]
fn lengths_that_lie_are_damage_at_the_record_that_lies() {
    let order = Order::Little;
    let mut bytes = order.pcap_header(0xa1b2_c3d4, 1);
    bytes.extend(order.pcap_packet(1, 0, 3, b"abc"));
    bytes.extend(order.u32s(&[2, 0, u32::MAX, 3]));
    let (packets, problem) = read(&bytes);
    assert_eq!(packets.len(), 1);
    assert_eq!(
        problem.unwrap(),
        "x.pcap: damaged at byte 43, after 1 whole packets: a packet of 4294967295 bytes \
         cannot be: the longest that is read has 16777216"
    );

    let start = |order: Order| {
        let mut bytes = order.section();
        bytes.extend(order.interface(1, 0, None, 0));
        bytes
    };
    for order in ORDERS {
        let place = start(order).len();
        let cases = [
            (
                order.u32s(&[6, 8, 0]),
                "a block of 8 bytes cannot be: the shortest has 12",
            ),
            (
                order.u32s(&[6, 0x7fff_ffff, 0]),
                "a block of 2147483647 bytes cannot be: the longest that is read has 16777216",
            ),
            (
                order.block(6, &order.u32s(&[0, 0, 0, 99, 99])),
                "the block is too short for what it says it holds",
            ),
            (
                order.block(2, &order.u32s(&[0, 0, 0, 99, 99])),
                "a packet of 99 bytes in a block with 0",
            ),
            (
                order.block(2, &[]),
                "a packet block without room for its header",
            ),
            (
                order.simple(9, b"abcd"),
                "a packet of 9 bytes in a block with 4",
            ),
            (
                order.block(3, &[]),
                "the block is too short for what it says it holds",
            ),
            (
                [&order.block(6, &[0; 20])[..32 - 4], &order.u32(36)].concat(),
                "the block's lengths contradict each other",
            ),
        ];
        for (block, what) in cases {
            let mut bytes = start(order);
            bytes.extend(block);
            assert_eq!(
                read(&bytes).1.unwrap(),
                format!("x.pcap: damaged at byte {place}, after 0 whole packets: {what}")
            );
        }
    }
}

#[test]
fn another_version_of_pcapng_is_refused() {
    let mut bytes = Order::Little.section();
    bytes[12] = 2;
    assert_eq!(
        read(&bytes).1.unwrap(),
        "x.pcap: damaged at byte 0, after 0 whole packets: pcapng version 2.0 is unknown \
         (1.0 is read)"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Capture::open("/nonexistent/x.pcap").unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nonexistent/x.pcap: cannot read it (after 0 packets): No such file or directory (os error 2)"
    );
}

/// A small capture of every record type, to be damaged.
fn sample(pcapng: bool, order: Order) -> Vec<u8> {
    if pcapng {
        let mut bytes = order.section();
        bytes.extend(order.interface(1, 64, Some(9), 1));
        bytes.extend(order.enhanced(0, 1, 9, b"abcde"));
        bytes.extend(order.block(4, &[1, 2, 3]));
        bytes.extend(order.old(0, 2, 9, b"abcdef"));
        bytes.extend(order.simple(3, b"abc"));
        bytes
    } else {
        let mut bytes = order.pcap_header(0xa1b2_c3d4, 1);
        bytes.extend(order.pcap_packet(1, 2, 3, b"abc"));
        bytes.extend(order.pcap_packet(3, 4, 5, b"defg"));
        bytes
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, start in 0..5_usize) {
        let magics: [&[u8]; 5] = [
            &[], &[0xa1, 0xb2, 0xc3, 0xd4], &[0x4d, 0x3c, 0xb2, 0xa1], &[0x34, 0xcd, 0xb2, 0xa1],
            &[0x0a, 0x0d, 0x0d, 0x0a],
        ];
        read(&[magics[start], &bytes].concat());
    }

    #[test]
    fn no_damage_makes_it_panic(
        pcapng: bool,
        big: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        length: prop::sample::Index,
    ) {
        let mut bytes = sample(pcapng, ORDERS[usize::from(big)]);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(length.index(bytes.len() + 1));
        read(&bytes);
    }

    #[test]
    fn packets_come_back_as_they_were_written(
        big: bool,
        pcapng: bool,
        written in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..99)), 0..9),
    ) {
        let order = ORDERS[usize::from(big)];
        let mut bytes = if pcapng {
            [order.section(), order.interface(1, 0, Some(0), 0)].concat()
        } else {
            order.pcap_header(0xa1b2_c3d4, 1)
        };
        for (seconds, data) in &written {
            bytes.extend(if pcapng {
                order.enhanced(0, u64::from(*seconds), data.len() as u32, data)
            } else {
                order.pcap_packet(*seconds, 0, data.len() as u32, data)
            });
        }
        let (packets, problem) = read(&bytes);
        prop_assert_eq!(problem, None);
        let back: Vec<(u32, Vec<u8>)> = packets
            .into_iter()
            .map(|packet| (packet.time.as_second() as u32, packet.data))
            .collect();
        prop_assert_eq!(back, written);
    }
}

/// Captures of many programs and protocols, which are no part of the
/// repository: `MATCHER_PCAPS`, else beside the workspace.
#[test]
fn captures_from_everywhere_are_read() {
    let folder = env::var_os("MATCHER_PCAPS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/pcaps")),
        PathBuf::from,
    );
    let mut folders = vec![folder.clone()];
    let mut counts = BTreeMap::new();
    while let Some(next) = folders.pop() {
        let Ok(entries) = fs::read_dir(&next) else {
            println!(
                "skipped: there is no folder {}; MATCHER_PCAPS names another",
                next.display()
            );
            return;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|ext| ext == "pcap" || ext == "pcapng")
            {
                let (mut packets, mut problem) = (0, None);
                match Capture::open(&path) {
                    Ok(capture) => {
                        for next in capture {
                            match next {
                                Ok(packet) => {
                                    packets += 1;
                                    assert_eq!(packet.number, packets);
                                    assert_eq!(
                                        ethernet_frame(&packet).is_some(),
                                        !matches!(packet.link, LinkType::Other(_))
                                    );
                                }
                                Err(error) => problem = Some(error.problem.to_string()),
                            }
                        }
                    }
                    Err(error) => problem = Some(error.problem.to_string()),
                }
                let name = path.strip_prefix(&folder).unwrap().display().to_string();
                counts.insert(name, (packets, problem));
            }
        }
    }
    assert!(!counts.is_empty(), "no capture in {}", folder.display());
    for (name, (packets, problem)) in &counts {
        println!("{name}\t{packets}\t{}", problem.as_deref().unwrap_or("-"));
    }
    let whole = counts
        .values()
        .filter(|(_, problem)| problem.is_none())
        .count();
    // Most captures anywhere are whole: a reader that gives up early shows here.
    assert!(whole * 10 > counts.len() * 9, "{whole} of {}", counts.len());
}
