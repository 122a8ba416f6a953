//! Frames with legal headers of every kind the parser reads, each beside what
//! the parser must say of it.

use proptest::{collection::vec, prelude::*};
use std::vec::Vec;

use super::super::{Family, IpLayer, Packet, Ports};
use crate::abi::{AddressBytes, Counter, MAX_LAYERS, Tunnel};

/// A frame, and what is known of it because it was written so.
#[derive(Clone, Debug)]
pub(super) struct Legal {
    pub(super) bytes: Vec<u8>,
    pub(super) expected: Packet,
    /// Where the first IP header starts.
    pub(super) network: usize,
    /// Where the innermost transport header starts.
    pub(super) transport: usize,
    /// Where the packet ends.
    pub(super) end: usize,
}

/// What stands above IP.
#[derive(Clone, Debug)]
enum Transport {
    /// One of those with ports, by number.
    WithPorts(u8, Ports),
    /// Anything else.
    Without(u8),
}

/// The fields of a fragment: offset in units of 8 bytes, and the flag.
type Fragment = (u16, bool);

#[derive(Clone, Debug)]
enum Extension {
    /// Hop-by-hop, routing or destination options, and its length in units of
    /// 8 bytes beyond the first.
    Options(u8, u8),
    Fragment(Fragment),
    /// Words of 4 bytes beyond the first two.
    Authentication(u8),
}

#[derive(Clone, Debug)]
enum Network {
    V4 {
        addresses: [[u8; 4]; 2],
        option_words: u8,
        fragment: Fragment,
        authentication: Vec<u8>,
    },
    V6 {
        addresses: [[u8; 16]; 2],
        extensions: Vec<Extension>,
    },
}

/// What carries one packet in another.
#[derive(Clone, Debug)]
enum Carrier {
    /// IP in IP.
    Direct,
    /// Checksum, key and sequence number there or not, and Ethernet or IP in it.
    Gre([bool; 3], bool),
    EtherIp,
    EthernetInIp,
    Mpls(u8),
    Vxlan,
    /// Words of options.
    Geneve(u8),
    /// Words of extension headers.
    GtpU(Vec<u8>),
    /// Length and sequence numbers there or not, and bytes of padding.
    L2tp(bool, bool, Option<u8>),
}

/// What stands in front of the first IP header.
#[derive(Clone, Debug)]
struct Link {
    /// Types of VLAN tags, and their bits.
    tags: Vec<(u16, u16)>,
    /// PPPoE, and whether PPP's protocol field is compressed.
    pppoe: Option<bool>,
    labels: u8,
}

/// Any legal frame.
pub(super) fn any_frame() -> BoxedStrategy<Legal> {
    prop_oneof![2 => ipv4(), 2 => ipv6(), 1 => tunneled()].boxed()
}

/// Frames with tunnels.
pub(super) fn tunneled() -> BoxedStrategy<Legal> {
    let words = || vec(1u8..4, 0..3);
    let carrier = prop_oneof![
        4 => Just(Carrier::Direct),
        2 => (any::<[bool; 3]>(), any::<bool>())
            .prop_map(|(fields, ethernet)| Carrier::Gre(fields, ethernet)),
        1 => Just(Carrier::EtherIp),
        1 => Just(Carrier::EthernetInIp),
        1 => (1u8..=8).prop_map(Carrier::Mpls),
        1 => Just(Carrier::Vxlan),
        1 => (0u8..6).prop_map(Carrier::Geneve),
        1 => words().prop_map(Carrier::GtpU),
        1 => (any::<bool>(), any::<bool>(), prop::option::of(0u8..9))
            .prop_map(|(length, sequence, offset)| Carrier::L2tp(length, sequence, offset)),
    ];
    let unfragmented = network(true);
    (
        link(),
        vec((unfragmented, carrier), 1..MAX_LAYERS),
        network(false),
        transport(),
        vec(any::<u8>(), 0..40),
    )
        .prop_map(|(link, outer, innermost, transport, payload)| {
            write(&link, &outer, &innermost, &transport, &payload)
        })
        .boxed()
}

/// An IP header and what belongs to it, whole or not.
fn network(whole: bool) -> BoxedStrategy<Network> {
    prop_oneof![ipv4_header(whole), ipv6_header(whole)].boxed()
}

/// Frames with one IP layer, IPv4.
pub(super) fn ipv4() -> BoxedStrategy<Legal> {
    frame(ipv4_header(false))
}

/// Frames with one IP layer, IPv6.
pub(super) fn ipv6() -> BoxedStrategy<Legal> {
    frame(ipv6_header(false))
}

fn ipv4_header(whole: bool) -> BoxedStrategy<Network> {
    let fragment = if whole {
        any::<bool>().prop_map(|more| (0, more)).boxed()
    } else {
        prop_oneof![3 => Just((0, false)), 1 => (0u16..0x2000, any::<bool>())].boxed()
    };
    (
        any::<[[u8; 4]; 2]>(),
        0u8..=10,
        fragment,
        prop_oneof![3 => Just(Vec::new()), 1 => vec(0u8..6, 0..=8)],
    )
        .prop_map(
            |(addresses, option_words, fragment, authentication)| Network::V4 {
                addresses,
                option_words,
                fragment,
                authentication,
            },
        )
        .boxed()
}

fn ipv6_header(whole: bool) -> BoxedStrategy<Network> {
    let options = (prop::sample::select(&[0u8, 43, 60][..]), 0u8..4)
        .prop_map(|(kind, units)| Extension::Options(kind, units));
    let first = any::<bool>().prop_map(|more| Extension::Fragment((0, more)));
    let authentication = (0u8..6).prop_map(Extension::Authentication);
    let extension = if whole {
        prop_oneof![4 => options, 1 => first, 1 => authentication].boxed()
    } else {
        let later = (1u16..0x2000, any::<bool>()).prop_map(Extension::Fragment);
        prop_oneof![4 => options, 1 => first, 1 => later, 1 => authentication].boxed()
    };
    (any::<[[u8; 16]; 2]>(), vec(extension, 0..=8))
        .prop_map(|(addresses, extensions)| Network::V6 {
            addresses,
            extensions,
        })
        .boxed()
}

fn link() -> impl Strategy<Value = Link> {
    let tags = vec(
        (
            prop::sample::select(&[0x8100u16, 0x88a8, 0x9100][..]),
            any::<u16>(),
        ),
        0..=4,
    );
    (
        tags,
        prop_oneof![3 => Just(None), 1 => any::<bool>().prop_map(Some)],
        prop_oneof![3 => Just(0), 1 => 1u8..=8],
    )
        .prop_map(|(tags, pppoe, labels)| Link {
            tags,
            pppoe,
            labels,
        })
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        3 => (prop::sample::select(&[6u8, 17, 33, 132, 136][..]), any::<u16>(), any::<u16>()).prop_map(
            |(protocol, source, destination)| {
                // Not by chance a tunnel.
                let (source, destination) = (source & !1, destination & !1);
                let tunnels = [2152, 8472];
                let destination = if tunnels.contains(&destination) { 0 } else { destination };
                Transport::WithPorts(protocol, Ports { source, destination })
            }
        ),
        // ICMP, IGMP, ESP, ICMPv6, no next header, OSPF, an unassigned one.
        1 => prop::sample::select(&[1u8, 2, 50, 58, 59, 89, 200][..])
            .prop_map(Transport::Without),
    ]
}

fn frame(network: BoxedStrategy<Network>) -> BoxedStrategy<Legal> {
    (link(), network, transport(), vec(any::<u8>(), 0..40))
        .prop_map(|(link, network, transport, payload)| {
            write(&link, &[], &network, &transport, &payload)
        })
        .boxed()
}

/// Builds from the inside out.
fn write(
    link: &Link,
    outer: &[(Network, Carrier)],
    innermost: &Network,
    transport: &Transport,
    payload: &[u8],
) -> Legal {
    let (protocol, ports) = match transport {
        Transport::WithPorts(protocol, ports) => (*protocol, Some(*ports)),
        Transport::Without(protocol) => (*protocol, None),
    };
    let mut body = Vec::new();
    if let Some(ports) = ports {
        body.extend(ports.source.to_be_bytes());
        body.extend(ports.destination.to_be_bytes());
        // Lengths of 0, whatever they belong to.
        body.extend([0; 8]);
    }
    body.extend(payload);
    let behind_transport = body.len();

    let mut layers = Vec::new();
    let (mut bytes, mut layer) = ip(innermost, protocol, body);
    // In a later fragment the rest of the chain is out of reach.
    let hidden = layer.fragment_offset != 0 && is_extension(layer.family(), layer.protocol);
    if let Some(ports) = ports
        && layer.fragment_offset == 0
    {
        with_ports(&mut layer, ports);
    }
    for (network, carrier) in outer.iter().rev() {
        let (tunnel, protocol, ports, carried) = carry(carrier, network, &layer, bytes);
        layer.tunnel = tunnel as u8;
        layers.insert(0, layer);
        (bytes, layer) = ip(network, protocol, carried);
        if let Some(ports) = ports {
            with_ports(&mut layer, ports);
        }
    }
    layers.insert(0, layer);

    let mut expected = Packet {
        layer_count: layers.len() as u32,
        unparsed: if hidden {
            Counter::ExtensionHeaders as u32 + 1
        } else {
            0
        },
        vlan_tags: link.tags.len() as u8,
        ..Packet::default()
    };
    expected.layers[..layers.len()].copy_from_slice(&layers);
    for (id, (_, control)) in expected.vlan_ids.iter_mut().zip(&link.tags) {
        *id = control & 0x0fff;
    }
    let mut frame = link_bytes(link, layers[0].family(), bytes.len());
    let network = frame.len();
    frame.extend(bytes);
    Legal {
        expected,
        network,
        transport: frame.len() - behind_transport,
        end: frame.len(),
        bytes: frame,
    }
}

fn with_ports(layer: &mut IpLayer, ports: Ports) {
    layer.has_ports = 1;
    layer.source_port = ports.source;
    layer.destination_port = ports.destination;
}

/// Everything in front of an IP header, with `body` bytes from there on.
fn link_bytes(link: &Link, family: Family, body: usize) -> Vec<u8> {
    let ip = match family {
        Family::V4 => 0x0800u16,
        Family::V6 => 0x86dd,
    };
    let mpls = if link.labels > 0 { 0x8847 } else { ip };
    let last_type = if link.pppoe.is_some() { 0x8864 } else { mpls };
    let mut bytes = Vec::from([0x02; 12]);
    for (ether_type, control) in &link.tags {
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(control.to_be_bytes());
    }
    bytes.extend(last_type.to_be_bytes());
    let labels = labels(link.labels);
    if let Some(compressed) = link.pppoe {
        let protocol: u16 = match (link.labels, family) {
            (0, Family::V4) => 0x0021,
            (0, Family::V6) => 0x0057,
            _ => 0x0281,
        };
        // That of MPLS has no odd last byte alone: its first byte is even.
        let protocol = if compressed && protocol < 0x100 {
            Vec::from([protocol as u8])
        } else {
            Vec::from(protocol.to_be_bytes())
        };
        bytes.extend([0x11, 0, 0, 7]);
        bytes.extend(((protocol.len() + labels.len() + body) as u16).to_be_bytes());
        bytes.extend(protocol);
    }
    bytes.extend(labels);
    bytes
}

fn labels(count: u8) -> Vec<u8> {
    (1..=count)
        .flat_map(|label| [0, label, u8::from(label == count), 64])
        .collect()
}

/// An inner packet behind the header of what carries it: its kind, the
/// protocol that announces it, and the ports in front of it.
fn carry(
    carrier: &Carrier,
    outer: &Network,
    inner: &IpLayer,
    packet: Vec<u8>,
) -> (Tunnel, u8, Option<Ports>, Vec<u8>) {
    let outer_is_v4 = matches!(outer, Network::V4 { .. });
    let inner_is_v4 = inner.family() == Family::V4;
    let ether_type: u16 = if inner_is_v4 { 0x0800 } else { 0x86dd };
    let ethernet = |packet: Vec<u8>| {
        let mut bytes = Vec::from([0x02; 12]);
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(packet);
        bytes
    };
    let over_udp = |tunnel, destination: u16, body: Vec<u8>| {
        let ports = Ports {
            source: 4321,
            destination,
        };
        let mut bytes = Vec::from(ports.source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend(((8 + body.len()) as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(body);
        (tunnel, 17, Some(ports), bytes)
    };
    match carrier {
        Carrier::Direct => {
            let tunnel = match (inner_is_v4, outer_is_v4) {
                (true, true) => Tunnel::Ip4In4,
                (true, false) => Tunnel::Ip4In6,
                (false, true) => Tunnel::Ip6In4,
                (false, false) => Tunnel::Ip6In6,
            };
            (tunnel, if inner_is_v4 { 4 } else { 41 }, None, packet)
        }
        Carrier::Gre([checksum, key, sequence], with_ethernet) => {
            let mut bytes = Vec::from([
                u8::from(*checksum) << 7 | u8::from(*key) << 5 | u8::from(*sequence) << 4,
                0,
            ]);
            let of_type = if *with_ethernet { 0x6558 } else { ether_type };
            bytes.extend(of_type.to_be_bytes());
            for present in [checksum, key, sequence] {
                bytes.resize(bytes.len() + if *present { 4 } else { 0 }, 0xee);
            }
            bytes.extend(if *with_ethernet {
                ethernet(packet)
            } else {
                packet
            });
            (Tunnel::Gre, 47, None, bytes)
        }
        Carrier::EtherIp => {
            let mut bytes = Vec::from([0x30, 0]);
            bytes.extend(ethernet(packet));
            (Tunnel::EtherIp, 97, None, bytes)
        }
        Carrier::EthernetInIp => (Tunnel::EthernetInIp, 143, None, ethernet(packet)),
        Carrier::Mpls(count) => {
            let mut bytes = labels(*count);
            bytes.extend(packet);
            (Tunnel::MplsInIp, 137, None, bytes)
        }
        Carrier::Vxlan => {
            let mut bytes = Vec::from([0x08, 0, 0, 0, 0, 0, 42, 0]);
            bytes.extend(ethernet(packet));
            over_udp(Tunnel::Vxlan, 4789, bytes)
        }
        Carrier::Geneve(words) => {
            let mut bytes = Vec::from([*words, 0]);
            bytes.extend(ether_type.to_be_bytes());
            bytes.resize(8 + usize::from(*words) * 4, 0xee);
            bytes.extend(packet);
            over_udp(Tunnel::Geneve, 6081, bytes)
        }
        Carrier::GtpU(words) => {
            let mut rest = Vec::new();
            if !words.is_empty() {
                rest.extend([0, 0, 0, 0x85]);
            }
            for (index, words_of_it) in words.iter().enumerate() {
                rest.push(*words_of_it);
                rest.resize(rest.len() + usize::from(*words_of_it) * 4 - 2, 0xee);
                rest.push(if index + 1 < words.len() { 0x85 } else { 0 });
            }
            rest.extend(packet);
            let mut bytes = Vec::from([0x30 | u8::from(!words.is_empty()) << 2, 255]);
            bytes.extend((rest.len() as u16).to_be_bytes());
            bytes.extend([0, 0, 0, 42]);
            bytes.extend(rest);
            over_udp(Tunnel::GtpU, 2152, bytes)
        }
        Carrier::L2tp(with_length, sequence, offset) => {
            let mut rest = Vec::from([0, 5, 0, 6]);
            if *sequence {
                rest.extend([0, 1, 0, 0]);
            }
            if let Some(offset) = offset {
                rest.extend([0, *offset]);
                rest.resize(rest.len() + usize::from(*offset), 0xee);
            }
            rest.extend([0xff, 0x03, 0, if inner_is_v4 { 0x21 } else { 0x57 }]);
            rest.extend(packet);
            let mut bytes = Vec::from([
                u8::from(*with_length) << 6
                    | u8::from(*sequence) << 3
                    | u8::from(offset.is_some()) << 1,
                2,
            ]);
            if *with_length {
                bytes.extend(((4 + rest.len()) as u16).to_be_bytes());
            }
            bytes.extend(rest);
            over_udp(Tunnel::L2tp, 1701, bytes)
        }
    }
}

/// An IP header with all that belongs to it in front of `body`, and what the
/// parser sees of it.
fn ip(network: &Network, protocol: u8, mut body: Vec<u8>) -> (Vec<u8>, IpLayer) {
    let mut layer = IpLayer::default();
    let mut bytes = Vec::new();
    match network {
        Network::V4 {
            addresses: [source, destination],
            option_words,
            fragment: (offset, more),
            authentication,
        } => {
            layer.ip_version = 4;
            layer.source = AddressBytes::from_v4(*source);
            layer.destination = AddressBytes::from_v4(*destination);
            layer.fragment_offset = offset * 8;
            let chain: Vec<Extension> = authentication
                .iter()
                .map(|words| Extension::Authentication(*words))
                .collect();
            let (first, extensions) = chain_bytes(&chain, &mut layer, protocol);
            let header = 20 + usize::from(*option_words) * 4;
            let total = header + extensions.len() + body.len();
            bytes.extend([0x40 | (header / 4) as u8, 0]);
            bytes.extend((total as u16).to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend((offset | (u16::from(*more) << 13)).to_be_bytes());
            bytes.extend([64, first, 0, 0]);
            bytes.extend(source);
            bytes.extend(destination);
            bytes.resize(header, 1);
            bytes.extend(extensions);
        }
        Network::V6 {
            addresses: [source, destination],
            extensions,
        } => {
            layer.ip_version = 6;
            layer.source = AddressBytes::from_v6(*source);
            layer.destination = AddressBytes::from_v6(*destination);
            let (first, extensions) = chain_bytes(extensions, &mut layer, protocol);
            // Payload length 0 would mean a jumbogram.
            if extensions.is_empty() && body.is_empty() {
                body.push(0);
            }
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(((extensions.len() + body.len()) as u16).to_be_bytes());
            bytes.extend([first, 64]);
            bytes.extend(source);
            bytes.extend(destination);
            bytes.extend(extensions);
        }
    }
    bytes.extend(&body);
    (bytes, layer)
}

fn is_extension(family: Family, protocol: u8) -> bool {
    match family {
        Family::V4 => protocol == 51,
        Family::V6 => [0, 43, 44, 51, 60].contains(&protocol),
    }
}

/// The chain as bytes, and the number that announces its first header. In a
/// later fragment what follows is payload: `ip` gets the protocol and offset
/// that the parser sees there.
fn chain_bytes(chain: &[Extension], ip: &mut IpLayer, transport: u8) -> (u8, Vec<u8>) {
    let number = |index: usize| match chain.get(index) {
        Some(Extension::Options(kind, _)) => *kind,
        Some(Extension::Fragment(_)) => 44,
        Some(Extension::Authentication(_)) => 51,
        None => transport,
    };
    let mut bytes = Vec::new();
    ip.protocol = number(0);
    for (index, extension) in chain.iter().enumerate() {
        let next = number(index + 1);
        if ip.fragment_offset == 0 {
            ip.protocol = next;
        }
        let start = bytes.len();
        match extension {
            Extension::Options(_, units) => {
                bytes.extend([next, *units, 1, 4]);
                bytes.resize(start + (usize::from(*units) + 1) * 8, 0);
            }
            Extension::Fragment((offset, more)) => {
                bytes.extend([next, 0]);
                bytes.extend(((offset * 8) | u16::from(*more)).to_be_bytes());
                bytes.extend([0; 4]);
                if ip.fragment_offset == 0 {
                    ip.fragment_offset = offset * 8;
                }
            }
            Extension::Authentication(words) => {
                bytes.extend([next, *words, 0, 0]);
                bytes.resize(start + (usize::from(*words) + 2) * 4, 0);
            }
        }
    }
    (number(0), bytes)
}

const NO_LINK: Link = Link {
    tags: Vec::new(),
    pppoe: None,
    labels: 0,
};

/// A small IPv4 frame that carries `protocol`, for tests that break it.
pub(super) fn plain_ipv4(protocol: u8, body: &[u8]) -> Vec<u8> {
    let network = Network::V4 {
        addresses: [[203, 0, 113, 7], [198, 51, 100, 23]],
        option_words: 0,
        fragment: (0, false),
        authentication: Vec::new(),
    };
    write(&NO_LINK, &[], &network, &Transport::Without(protocol), body).bytes
}

/// A small IPv6 frame that carries `protocol`, for tests that break it.
pub(super) fn plain_ipv6(protocol: u8, body: &[u8]) -> Vec<u8> {
    let network = Network::V6 {
        addresses: [[0x20; 16], [0x2a; 16]],
        extensions: Vec::new(),
    };
    write(&NO_LINK, &[], &network, &Transport::Without(protocol), body).bytes
}

/// Whether a reason can come from a frame that was cut off.
pub(super) fn is_truncation(reason: Counter) -> bool {
    matches!(
        reason,
        Counter::TruncatedLink
            | Counter::TruncatedIp
            | Counter::ExtensionHeaders
            | Counter::TruncatedTunnel
            | Counter::Pppoe
            | Counter::Ppp
            | Counter::Mpls
    )
}
