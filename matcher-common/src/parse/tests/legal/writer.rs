//! The bytes of a legal frame, and what the parser must say of them.

use std::vec::Vec;

use super::*;

/// Writes a frame from the inside out.
pub(super) fn write(
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
