//! Each kind of header four ways: read back as written, arbitrary bytes in its
//! place, too short at every length, and too long.

mod legal;

use core::cell::Cell;
use proptest::{collection::vec, prelude::*};
use std::vec::Vec;

use self::legal::{Legal, any_frame, ipv4, ipv6, is_truncation, plain_ipv4, plain_ipv6, tunneled};
use super::*;
use crate::abi::{AddressBytes, Tunnel};

/// A frame that notes how far it was read, and how often.
struct Watched<'a> {
    bytes: &'a [u8],
    read_to: Cell<usize>,
    reads: Cell<usize>,
}

impl<'a> Watched<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            read_to: Cell::new(0),
            reads: Cell::new(0),
        }
    }
}

impl Frame for Watched<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.reads.set(self.reads.get() + 1);
        let bytes = self.bytes.read(offset)?;
        self.read_to.set(self.read_to.get().max(offset + N));
        Some(bytes)
    }
}

/// The most that one header needs, IPv6 with a jumbo payload option.
const READS_OF_A_HEADER: usize = 4;

/// Protocols that start with ports.
const WITH_PORTS: [u8; 5] = [
    protocol::TCP,
    protocol::UDP,
    protocol::DCCP,
    protocol::SCTP,
    protocol::UDP_LITE,
];

/// What holds for the result of any bytes whatever.
fn check_sanity(bytes: &[u8]) -> Result<Packet, TestCaseError> {
    let frame = Watched::new(bytes);
    let parsed = parse(&frame);
    prop_assert!(frame.reads.get() <= READS_OF_A_HEADER * MAX_HEADERS as usize);
    prop_assert!(parsed.vlan_tags <= MAX_VLAN_TAGS);
    prop_assert!(parsed.layer_count as usize <= MAX_LAYERS);
    prop_assert!(parsed.layer_count > 0 || parsed.unparsed().is_some());
    prop_assert_eq!(parsed.unparsed == 0, parsed.unparsed().is_none());
    for (index, ip) in parsed.layers().iter().enumerate() {
        prop_assert_eq!(ip.fragment_offset % 8, 0);
        prop_assert_eq!(ip.tunnel != 0, index > 0);
        prop_assert!(ip.tunnel == 0 || Tunnel::from_number(ip.tunnel).is_some());
        if ip.ports().is_some() {
            prop_assert_eq!(ip.fragment_offset, 0);
            prop_assert!(WITH_PORTS.contains(&ip.protocol));
        } else {
            prop_assert_eq!((ip.source_port, ip.destination_port), (0, 0));
        }
        // Nothing can follow a later fragment.
        if index + 1 < parsed.layers().len() {
            prop_assert_eq!(ip.fragment_offset, 0);
        }
        if ip.family() == Family::V4 {
            prop_assert!(
                [ip.source, ip.destination]
                    .iter()
                    .all(|address| address.octets()[4..] == [0; 12])
            );
        }
    }
    for unused in &parsed.layers[parsed.layers().len()..] {
        prop_assert_eq!(*unused, IpLayer::default());
    }
    let mut plain = Packet::default();
    if parse_plain(bytes, &mut plain) {
        prop_assert_eq!(plain, parsed);
    }
    check_ends(bytes, &parsed)?;
    Ok(parsed)
}

/// Who is told without taking the packet apart is who its only layer names, and
/// nothing that a verdict depends on stands around or above it.
fn check_ends(bytes: &[u8], parsed: &Packet) -> Result<(), TestCaseError> {
    let v4 = ends_v4(bytes).map(|ends| ends.map(AddressBytes::from_v4));
    let v6 = ends_v6(bytes).map(|ends| ends.map(AddressBytes::from_v6));
    let Some(ends) = v4.or(v6) else {
        return Ok(());
    };
    prop_assert!(v4.is_none() || v6.is_none());
    prop_assert_eq!(parsed.unparsed(), None);
    prop_assert_eq!(parsed.vlan_tags, 0);
    let [layer] = parsed.layers() else {
        return Err(TestCaseError::fail("not of one layer"));
    };
    prop_assert_eq!([layer.source, layer.destination], ends);
    prop_assert_eq!(layer.ip_version, if v4.is_some() { 4 } else { 6 });
    Ok(())
}

fn check_read_back(legal: &Legal) -> Result<(), TestCaseError> {
    let frame = Watched::new(&legal.bytes);
    prop_assert_eq!(parse(&frame), legal.expected);
    // R3: nothing beyond the headers and ports.
    prop_assert!(frame.read_to.get() <= legal.transport + 4);
    check_sanity(&legal.bytes).map(drop)
}

/// A prefix of a frame gives the same answer, or none because it was cut off,
/// or fewer layers, or the last of them without ports; and what was known once
/// stays known.
fn check_too_short(legal: &Legal) -> Result<(), TestCaseError> {
    let mut known = false;
    for length in 0..=legal.end {
        let parsed = check_sanity(&legal.bytes[..length])?;
        // The short way may see less of the frame than the whole of it.
        let mut plain = Packet::default();
        if parse_plain(&legal.bytes[..length], &mut plain) {
            prop_assert_eq!(plain, legal.expected, "of {} bytes", length);
        }
        check_ends(&legal.bytes[..length], &legal.expected)?;
        let same = parsed == legal.expected;
        let cut_off = parsed.unparsed().is_some_and(is_truncation);
        let without_ports = parsed
            .layers()
            .last()
            .is_some_and(|last| last.has_ports == 0 && WITH_PORTS.contains(&last.protocol));
        // A header above UDP that is cut off leaves a plain UDP packet.
        let plain_udp = parsed.layers().len() < legal.expected.layers().len()
            && parsed.layers().last().map(|last| last.protocol) == Some(protocol::UDP);
        prop_assert!(
            same || cut_off || without_ports || plain_udp,
            "cut to {} bytes: {:?}",
            length,
            parsed
        );
        prop_assert!(same || !known, "known before, not at {} bytes", length);
        known = same;
        // An address is never half read.
        prop_assert!(parsed.layers().len() <= legal.expected.layers().len());
        for (ip, whole) in parsed.layers().iter().zip(legal.expected.layers()) {
            prop_assert_eq!(ip.source, whole.source);
            prop_assert_eq!(ip.destination, whole.destination);
            prop_assert_eq!(ip.tunnel, whole.tunnel);
        }
    }
    prop_assert!(known);
    Ok(())
}

fn check_too_long(legal: &Legal, padding: &[u8]) -> Result<(), TestCaseError> {
    let mut longer = legal.bytes.clone();
    longer.extend(padding);
    prop_assert_eq!(parse(&longer[..]), legal.expected);
    Ok(())
}

/// Bytes that nobody chose, from `keep` on.
fn check_arbitrary(legal: &Legal, keep: usize, noise: &[u8]) -> Result<(), TestCaseError> {
    let mut bytes = legal.bytes[..keep].to_vec();
    bytes.extend(noise);
    let parsed = check_sanity(&bytes)?;
    // The IP length decides where the packet ends, not what stands behind it.
    if let Some(end) = stated_end(&bytes, legal.network, &parsed)
        && end <= bytes.len()
    {
        prop_assert_eq!(parse(&bytes[..end]), parsed);
    }
    Ok(())
}

/// Where the IP header at `network` says that the packet ends.
fn stated_end(bytes: &[u8], network: usize, parsed: &Packet) -> Option<usize> {
    let field = |at: usize| {
        let bytes = bytes.get(network + at..network + at + 2)?;
        Some(usize::from(bytes[0]) << 8 | usize::from(bytes[1])).filter(|length| *length != 0)
    };
    match parsed.layers().first()?.family() {
        Family::V4 => Some(network + field(2)?),
        Family::V6 => Some(network + 40 + field(4)?),
    }
}

macro_rules! four_ways {
    ($kind:ident, $legal:expr, $start:expr) => {
        mod $kind {
            use super::*;

            proptest! {
                #[test]
                fn legal_headers_are_read_back(legal in $legal) {
                    check_read_back(&legal)?;
                }

                #[test]
                fn arbitrary_bytes_are_borne(
                    legal in $legal,
                    noise in vec(any::<u8>(), 0..160),
                ) {
                    let start: fn(&Legal) -> usize = $start;
                    check_arbitrary(&legal, start(&legal), &noise)?;
                }

                #[test]
                fn too_short_never_becomes_something_else(legal in $legal) {
                    check_too_short(&legal)?;
                }

                #[test]
                fn trailing_bytes_change_nothing(
                    legal in $legal,
                    padding in vec(any::<u8>(), 0..80),
                ) {
                    check_too_long(&legal, &padding)?;
                }
            }
        }
    };
}

four_ways!(ethernet_and_vlan, any_frame(), |_| 12);
four_ways!(ipv4_with_options, ipv4(), |legal| legal.network + 1);
four_ways!(ipv6_fixed_header, ipv6(), |legal| legal.network + 1);
four_ways!(extension_headers, ipv6(), |legal| legal.network + 40);
four_ways!(transport_headers, any_frame(), |legal| legal.transport);
four_ways!(tunnels, tunneled(), |legal| legal.network + 20);

proptest! {
    #[test]
    fn any_bytes_at_all_are_borne(bytes in vec(any::<u8>(), 0..200)) {
        check_sanity(&bytes)?;
    }

    #[test]
    fn a_changed_byte_is_borne(legal in any_frame(), at in any::<prop::sample::Index>(), to: u8) {
        let mut bytes = legal.bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] = to;
        check_sanity(&bytes)?;
    }
}

const UDP_HEADER: [u8; 8] = [0x30, 0x39, 0x00, 0x35, 0, 8, 0, 0];
const UDP_PORTS: Ports = Ports {
    source: 12345,
    destination: 53,
};
const IPV4_START: usize = 14;
const IPV6_START: usize = 14;

fn outcome(bytes: &[u8]) -> Result<(), Counter> {
    parse(bytes).unparsed().map_or(Ok(()), Err)
}

fn ports_of(bytes: &[u8]) -> Option<Ports> {
    parse(bytes).layers().last().and_then(IpLayer::ports)
}

/// The one layer of a frame.
fn layer(bytes: &[u8]) -> IpLayer {
    let [layer] = *parse(bytes).layers() else {
        panic!("not one layer");
    };
    layer
}

#[test]
fn a_total_length_of_0_means_to_the_frames_end() {
    let mut frame = plain_ipv4(protocol::UDP, &UDP_HEADER);
    frame[IPV4_START + 2..IPV4_START + 4].fill(0);
    assert_eq!(outcome(&frame), Ok(()));
    assert_eq!(ports_of(&frame), Some(UDP_PORTS));
}

#[test]
fn a_payload_length_of_0_means_to_the_frames_end() {
    let mut frame = plain_ipv6(protocol::UDP, &UDP_HEADER);
    frame[IPV6_START + 4..IPV6_START + 6].fill(0);
    assert_eq!(outcome(&frame), Ok(()));
    assert_eq!(ports_of(&frame), Some(UDP_PORTS));
}

#[test]
fn ports_behind_the_stated_length_are_padding() {
    for (length, known) in [(23u16, false), (24, true)] {
        let mut frame = plain_ipv4(protocol::UDP, &UDP_HEADER);
        frame[IPV4_START + 2..IPV4_START + 4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(outcome(&frame), Ok(()));
        assert_eq!(ports_of(&frame).is_some(), known, "total length {length}");
    }
    for (length, known) in [(3u16, false), (4, true)] {
        let mut frame = plain_ipv6(protocol::UDP, &UDP_HEADER);
        frame[IPV6_START + 4..IPV6_START + 6].copy_from_slice(&length.to_be_bytes());
        assert_eq!(outcome(&frame), Ok(()));
        assert_eq!(ports_of(&frame).is_some(), known, "payload length {length}");
    }
}

#[test]
fn versions_and_lengths_that_cannot_be_are_malformed() {
    let good = plain_ipv4(protocol::UDP, &UDP_HEADER);
    for (what, at, bytes) in [
        ("version 0", 0, &[0x05][..]),
        ("version 6 under the EtherType of IPv4", 0, &[0x65]),
        ("header length 16", 0, &[0x44]),
        ("header length 0", 0, &[0x40]),
        ("total length 19", 2, &[0, 19]),
        ("total length 1", 2, &[0, 1]),
        ("header length 24 in a total of 20", 0, &[0x46, 0, 0, 20]),
    ] {
        let mut frame = good.clone();
        frame[IPV4_START + at..][..bytes.len()].copy_from_slice(bytes);
        assert_eq!(outcome(&frame), Err(Counter::MalformedIp), "{what}");
        assert_eq!(parse(&frame[..]).layers(), [], "{what}");
    }
    let mut frame = plain_ipv6(protocol::UDP, &UDP_HEADER);
    for version in [0x00, 0x40, 0x50, 0x70, 0xf0] {
        frame[IPV6_START] = version;
        assert_eq!(outcome(&frame), Err(Counter::MalformedIp), "{version:#x}");
    }
}

#[test]
fn what_is_no_ip_is_named() {
    let mut frame = plain_ipv4(protocol::UDP, &UDP_HEADER);
    for (ether_type, reason) in [
        (0x0806u16, Counter::NotIp), // ARP
        (0x88cc, Counter::NotIp),    // LLDP
        (0x0600, Counter::NotIp),    // the first that is no length
        (0x05ff, Counter::Llc),      // an 802.3 length
        (0x8863, Counter::NotIp),    // PPPoE discovery
        (0x8864, Counter::Pppoe),
        (0x8847, Counter::Mpls),
        (0x8848, Counter::Mpls),
    ] {
        frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        assert_eq!(outcome(&frame), Err(reason), "{ether_type:#06x}");
        assert_eq!(parse(&frame[..]).layers(), []);
    }
}

#[test]
fn four_tags_are_read_and_a_fifth_is_refused() {
    let inner = plain_ipv4(protocol::UDP, &UDP_HEADER);
    for tags in 0..=6 {
        let mut frame = inner[..12].to_vec();
        for tag in 1..=tags {
            frame.extend([0x81, 0x00, 0xe0, tag]);
        }
        frame.extend(&inner[12..]);
        let parsed = parse(&frame[..]);
        if tags <= MAX_VLAN_TAGS {
            assert_eq!(parsed.unparsed(), None);
            assert_eq!(parsed.vlan_tags, tags);
            let ids = [1, 2].map(|tag| if tag <= u16::from(tags) { tag } else { 0 });
            assert_eq!(parsed.vlan_ids, ids);
        } else {
            assert_eq!(parsed.unparsed(), Some(Counter::VlanDepth));
            assert_eq!(parsed.layers(), []);
        }
    }
}

#[test]
fn a_tunnel_that_cannot_be_read_is_named_beside_the_outer_addresses() {
    // IANA: minimal encapsulation, ENCAP, L2TPv3.
    for number in [55, 98, 115] {
        for frame in [plain_ipv4(number, &[0; 40]), plain_ipv6(number, &[0; 40])] {
            assert_eq!(outcome(&frame), Err(Counter::Tunnel), "{number}");
            let ip = layer(&frame);
            assert_eq!(ip.protocol, number);
            assert_ne!(ip.destination, AddressBytes::default());
        }
    }
}

#[test]
fn a_chain_of_more_headers_than_are_read_is_too_deep() {
    // Four layers of IPv6 with eight extension headers each, and tags and
    // labels around: the number of headers stays below the bound.
    let mut packet = plain_ipv6(60, &destination_options(8))[IPV6_START..].to_vec();
    for _ in 1..MAX_LAYERS {
        let mut chain = Vec::new();
        for left in (0..8).rev() {
            chain.extend([if left == 0 { 41 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        chain.extend(&packet);
        packet = plain_ipv6(60, &chain)[IPV6_START..].to_vec();
    }
    let mut frame = Vec::from([0x02; 12]);
    frame.extend([0x86, 0xdd]);
    frame.extend(&packet);
    assert_eq!(outcome(&frame), Ok(()));
    assert_eq!(ports_of(&frame), Some(UDP_PORTS));
    // One layer more.
    let deeper = plain_ipv6(41, &packet);
    assert_eq!(outcome(&deeper), Err(Counter::TooDeep));
    assert_eq!(parse(&deeper[..]).layers().len(), MAX_LAYERS);
}

#[test]
fn the_length_of_an_authentication_header_is_in_words_minus_2() {
    // 24 bytes: the fixed 12 and an integrity check value of 12 (RFC 4302).
    let mut body = Vec::from([protocol::UDP, 4, 0, 0]);
    body.resize(24, 0xaa);
    body.extend(UDP_HEADER);
    for frame in [plain_ipv4(51, &body), plain_ipv6(51, &body)] {
        assert_eq!(outcome(&frame), Ok(()));
        let ip = layer(&frame);
        assert_eq!(ip.protocol, protocol::UDP);
        assert_eq!(ip.ports(), Some(UDP_PORTS));
    }
}

#[test]
fn fragment_offsets_are_in_bytes() {
    let mut frame = plain_ipv4(protocol::UDP, &UDP_HEADER);
    for (field, bytes) in [
        (0x2000u16, 0),
        (0x0001, 8),
        (0x20b9, 1480),
        (0x1fff, 65_528),
        // The reserved bit and "don't fragment" are no part of the offset.
        (0xc000, 0),
    ] {
        frame[IPV4_START + 6..][..2].copy_from_slice(&field.to_be_bytes());
        let ip = layer(&frame);
        assert_eq!(ip.fragment_offset, bytes, "{field:#06x}");
        assert_eq!(ip.protocol, protocol::UDP);
        assert_eq!(ip.ports().is_some(), bytes == 0, "{field:#06x}");
    }
    for (field, bytes) in [
        (0x0001u16, 0),
        (0x0009, 8),
        (0x05c8, 1480),
        (0xfff8, 65_528),
    ] {
        let mut body = Vec::from([protocol::UDP, 0]);
        body.extend(field.to_be_bytes());
        body.extend([0; 4]);
        body.extend(UDP_HEADER);
        let ip = layer(&plain_ipv6(44, &body));
        assert_eq!(ip.fragment_offset, bytes, "{field:#06x}");
        assert_eq!(ip.protocol, protocol::UDP);
        assert_eq!(ip.ports().is_some(), bytes == 0, "{field:#06x}");
    }
}

fn destination_options(count: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for left in (0..count).rev() {
        let next = if left == 0 { protocol::UDP } else { 60 };
        body.extend([next, 0, 1, 4, 0, 0, 0, 0]);
    }
    body.extend(UDP_HEADER);
    body
}

#[test]
fn eight_extension_headers_are_followed_and_a_ninth_is_refused() {
    let eight = plain_ipv6(60, &destination_options(8));
    assert_eq!(ports_of(&eight), Some(UDP_PORTS));
    let nine = plain_ipv6(60, &destination_options(9));
    assert_eq!(outcome(&nine), Err(Counter::ExtensionHeaders));
}

#[test]
fn an_extension_header_that_the_packet_is_too_short_for_is_refused() {
    let mut frame = plain_ipv6(60, &destination_options(1));
    // 16 bytes of options, where header and packet have 8 and 16.
    frame[IPV6_START + 41] = 2;
    assert_eq!(outcome(&frame), Err(Counter::ExtensionHeaders));
}

#[test]
fn what_stands_behind_the_packet_is_never_taken_for_an_extension_header() {
    // Announces destination options, and ends: what follows is padding.
    let mut frame = plain_ipv6(60, &[60, 0, 1, 4, 0, 0, 0, 0]);
    let cut_off = parse(&frame[..]);
    frame.extend([44, 0, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(parse(&frame[..]), cut_off);
    assert_eq!(cut_off.unparsed(), Some(Counter::ExtensionHeaders));
}

#[test]
fn a_later_fragment_that_starts_with_an_extension_header_may_hide_a_tunnel() {
    // RFC 2473 section 4.1.1: tunnels put destination options before the inner
    // packet, so that is what their fragments announce.
    let mut body = Vec::from([60, 0, 0x05, 0xc8, 0, 0, 0, 0]);
    body.extend([0; 40]);
    assert_eq!(
        outcome(&plain_ipv6(44, &body)),
        Err(Counter::ExtensionHeaders)
    );
    let mut frame = plain_ipv4(51, &[0; 40]);
    frame[IPV4_START + 7] = 185;
    assert_eq!(outcome(&frame), Err(Counter::ExtensionHeaders));
}

#[test]
fn ipv4_knows_no_ipv6_extension_headers() {
    // Protocol 60 in IPv4 is nothing that could be skipped.
    let frame = plain_ipv4(60, &destination_options(1));
    assert_eq!(outcome(&frame), Ok(()));
    assert_eq!(layer(&frame).protocol, 60);
}

#[test]
fn a_frame_that_ends_within_ipv4_options_is_cut_off() {
    let mut frame = plain_ipv4(protocol::UDP, &[1; 48]);
    frame[IPV4_START] = 0x4f;
    assert_eq!(outcome(&frame[..IPV4_START + 60]), Ok(()));
    assert_eq!(
        outcome(&frame[..IPV4_START + 59]),
        Err(Counter::TruncatedIp)
    );
}
