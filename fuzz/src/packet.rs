//! Packets: what must hold of every answer of the parser.

use std::cell::Cell;

use matcher_common::{
    abi::{AddressBytes, Counter, CounterKind, IpLayer, Packet, Tunnel},
    parse::{self, Family, Frame, MAX_HEADERS, MAX_VLAN_TAGS, protocol},
};
use zerocopy::IntoBytes as _;

/// Reads of one header, at most: an extension header that is a jumbogram's, a GTP-U header.
const READS_PER_HEADER: u32 = 5;

/// Protocols with ports.
const WITH_PORTS: [u8; 5] = [
    protocol::TCP,
    protocol::UDP,
    protocol::UDP_LITE,
    protocol::DCCP,
    protocol::SCTP,
];

/// A frame that counts how often it is read.
struct Counted<'a> {
    bytes: &'a [u8],
    reads: Cell<u32>,
}

impl Frame for Counted<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.reads.set(self.reads.get() + 1);
        self.bytes.read(offset)
    }
}

/// Parses the frame and checks what came of it.
///
/// # Panics
/// When something does not hold that must.
pub fn check(bytes: &[u8]) {
    let frame = Counted {
        bytes,
        reads: Cell::new(0),
    };
    let packet = parse::parse(&frame);
    let reads = frame.reads.get();
    assert!(reads <= MAX_HEADERS * READS_PER_HEADER, "{reads} reads");
    check_packet(&packet);
    check_plain(bytes, &packet);
    check_cut_off(bytes, &packet);
}

fn check_packet(packet: &Packet) {
    assert!(packet.layer_count as usize <= packet.layers.len());
    assert!(packet.vlan_tags <= MAX_VLAN_TAGS);
    assert!(packet.vlan_ids.iter().all(|id| *id < 4096));
    assert_eq!(packet.reserved, [0; 3]);
    assert_eq!(packet.unparsed == 0, packet.unparsed().is_none());
    if let Some(counter) = packet.unparsed() {
        assert_eq!(counter.kind(), CounterKind::Exit, "{counter:?}");
        let decided = [Counter::Matched, Counter::NoMatch, Counter::Transit];
        assert!(!decided.contains(&counter), "{counter:?}");
    }
    // Nothing was seen, and nothing is said of why.
    assert!(!packet.layers().is_empty() || packet.unparsed().is_some());
    for (index, layer) in packet.layers().iter().enumerate() {
        check_layer(layer);
        let tunnel = Tunnel::from_number(layer.tunnel);
        assert_eq!(tunnel.is_some(), index > 0, "layer {index}: {layer:?}");
    }
}

fn check_layer(layer: &IpLayer) {
    assert!(matches!(layer.ip_version, 4 | 6), "{layer:?}");
    assert_eq!(layer.reserved, [0; 6]);
    assert_eq!(layer.fragment_offset % 8, 0, "{layer:?}");
    match layer.ports() {
        Some(_) => {
            assert_eq!(layer.has_ports, 1);
            assert_eq!(layer.fragment_offset, 0, "ports of a later fragment");
            assert!(WITH_PORTS.contains(&layer.protocol), "{layer:?}");
        }
        None => assert_eq!((layer.source_port, layer.destination_port), (0, 0)),
    }
    if layer.family() == Family::V4 {
        // The addresses come first, sixteen bytes each.
        let bytes = layer.as_bytes();
        let mut behind = bytes[4..16].iter().chain(&bytes[20..32]);
        assert!(behind.all(|byte| *byte == 0), "{layer:?}");
    }
}

/// The short way for plain packets sees what the long one does, whatever was in its place before.
fn check_plain(bytes: &[u8], packet: &Packet) {
    let mut plain = Packet {
        layer_count: 3,
        unparsed: 7,
        vlan_ids: [1, 2],
        vlan_tags: 2,
        reserved: [9; 3],
        layers: [IpLayer {
            fragment_offset: 8,
            has_ports: 1,
            source_port: 5,
            ..IpLayer::default()
        }; 4],
    };
    if parse::parse_plain(bytes, &mut plain) {
        let head = |packet: &Packet| {
            let tags = (packet.vlan_ids, packet.vlan_tags, packet.reserved);
            (packet.layer_count, packet.unparsed, tags)
        };
        assert_eq!(head(&plain), head(packet));
        assert_eq!(plain.layers(), packet.layers());
    }
    let v4 = parse::ends_v4(bytes).map(|ends| ends.map(AddressBytes::from_v4));
    let v6 = parse::ends_v6(bytes).map(|ends| ends.map(AddressBytes::from_v6));
    if let Some([source, destination]) = v4.or(v6) {
        assert_eq!((packet.unparsed(), packet.vlan_tags), (None, 0));
        let [layer] = packet.layers() else {
            panic!("of one layer: {packet:?}");
        };
        assert_eq!((layer.source, layer.destination), (source, destination));
    }
}

/// Of a frame that is cut off somewhere, no layer is seen that the whole one does not have.
fn check_cut_off(bytes: &[u8], whole: &Packet) {
    let sum = bytes
        .iter()
        .fold(0, |sum: usize, byte| sum * 31 % 65_521 + usize::from(*byte));
    let cut = parse::parse(&bytes[..sum % (bytes.len() + 1)]);
    check_packet(&cut);
    let ends = |packet: &Packet| -> Vec<_> {
        let layers = packet.layers().iter();
        layers
            .map(|layer| {
                (
                    layer.ip_version,
                    layer.source,
                    layer.destination,
                    layer.tunnel,
                )
            })
            .collect()
    };
    assert!(ends(whole).starts_with(&ends(&cut)), "{cut:?}\n{whole:?}");
}
