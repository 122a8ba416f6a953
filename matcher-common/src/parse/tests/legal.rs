//! Frames with legal headers of every kind the parser reads, each beside what
//! the parser must say of it.

use proptest::{collection::vec, prelude::*};
use std::vec::Vec;

use super::super::{Family, IpLayer, Parsed, Ports, Unparsed};

/// A frame, and what is known of it because it was written so.
#[derive(Clone, Debug)]
pub(super) struct Legal {
    pub(super) bytes: Vec<u8>,
    pub(super) expected: Parsed,
    /// Where the link layer's payload starts.
    pub(super) network: usize,
    /// Where the transport header starts.
    pub(super) transport: usize,
    /// Where the packet ends.
    pub(super) end: usize,
}

/// What stands above IP.
#[derive(Clone, Debug)]
enum Transport {
    /// TCP, UDP or SCTP, by number.
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

/// Any legal frame.
pub(super) fn any_frame() -> BoxedStrategy<Legal> {
    prop_oneof![ipv4(), ipv6()].boxed()
}

/// Frames whose IP layer is IPv4.
pub(super) fn ipv4() -> BoxedStrategy<Legal> {
    let fragment = prop_oneof![3 => Just((0, false)), 1 => (0u16..0x2000, any::<bool>())];
    let network = (
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
        );
    frame(tags(), network, transport())
}

/// Frames whose IP layer is IPv6.
pub(super) fn ipv6() -> BoxedStrategy<Legal> {
    let extension = prop_oneof![
        4 => (prop::sample::select(&[0u8, 43, 60][..]), 0u8..4)
            .prop_map(|(kind, units)| Extension::Options(kind, units)),
        1 => any::<bool>().prop_map(|more| Extension::Fragment((0, more))),
        1 => (1u16..0x2000, any::<bool>()).prop_map(Extension::Fragment),
        1 => (0u8..6).prop_map(Extension::Authentication),
    ];
    let network =
        (any::<[[u8; 16]; 2]>(), vec(extension, 0..=8)).prop_map(|(addresses, extensions)| {
            Network::V6 {
                addresses,
                extensions,
            }
        });
    frame(tags(), network, transport())
}

/// Types of up to two VLAN tags, and the bits beside them.
fn tags() -> impl Strategy<Value = Vec<(u16, u16)>> {
    vec(
        (
            prop::sample::select(&[0x8100u16, 0x88a8, 0x9100][..]),
            any::<u16>(),
        ),
        0..=2,
    )
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        3 => (prop::sample::select(&[6u8, 17, 132][..]), any::<u16>(), any::<u16>()).prop_map(
            |(protocol, source, destination)| {
                Transport::WithPorts(protocol, Ports { source, destination })
            }
        ),
        // ICMP, IGMP, ESP, ICMPv6, no next header, OSPF, an unassigned one.
        1 => prop::sample::select(&[1u8, 2, 50, 58, 59, 89, 200][..])
            .prop_map(Transport::Without),
    ]
}

fn frame(
    tags: impl Strategy<Value = Vec<(u16, u16)>> + 'static,
    network: impl Strategy<Value = Network> + 'static,
    transport: impl Strategy<Value = Transport> + 'static,
) -> BoxedStrategy<Legal> {
    (tags, network, transport, vec(any::<u8>(), 0..40))
        .prop_map(|(tags, network, transport, payload)| {
            write(&tags, &network, &transport, &payload)
        })
        .boxed()
}

fn write(tags: &[(u16, u16)], network: &Network, transport: &Transport, payload: &[u8]) -> Legal {
    let mut bytes = Vec::from([0x02; 12]);
    for (ether_type, control) in tags {
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(control.to_be_bytes());
    }
    let (protocol, mut body) = match transport {
        Transport::WithPorts(protocol, ports) => {
            let mut header = Vec::new();
            header.extend(ports.source.to_be_bytes());
            header.extend(ports.destination.to_be_bytes());
            header.extend([0; 8]);
            (*protocol, header)
        }
        Transport::Without(protocol) => (*protocol, Vec::new()),
    };
    body.extend(payload);

    let mut ip = IpLayer {
        family: Family::V4,
        source: [0; 16],
        destination: [0; 16],
        protocol,
        fragment_offset: 0,
        has_ports: false,
        ports: Ports {
            source: 0,
            destination: 0,
        },
    };
    let network_start = bytes.len() + 2;
    let transport_start;
    match network {
        Network::V4 {
            addresses: [source, destination],
            option_words,
            fragment: (offset, more),
            authentication,
        } => {
            bytes.extend([0x08, 0x00]);
            ip.source[..4].copy_from_slice(source);
            ip.destination[..4].copy_from_slice(destination);
            ip.fragment_offset = offset * 8;
            let chain: Vec<Extension> = authentication
                .iter()
                .map(|words| Extension::Authentication(*words))
                .collect();
            let (first, extensions) = chain_bytes(&chain, &mut ip, protocol);
            let header = 20 + usize::from(*option_words) * 4;
            let total = header + extensions.len() + body.len();
            bytes.extend([0x40 | (header / 4) as u8, 0]);
            bytes.extend((total as u16).to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend((offset | (u16::from(*more) << 13)).to_be_bytes());
            bytes.extend([64, first, 0, 0]);
            bytes.extend(source);
            bytes.extend(destination);
            bytes.resize(network_start + header, 1);
            bytes.extend(extensions);
            transport_start = bytes.len();
        }
        Network::V6 {
            addresses: [source, destination],
            extensions,
        } => {
            bytes.extend([0x86, 0xdd]);
            ip.family = Family::V6;
            ip.source = *source;
            ip.destination = *destination;
            let (first, extensions) = chain_bytes(extensions, &mut ip, protocol);
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
            transport_start = bytes.len();
        }
    }
    bytes.extend(&body);
    if let Transport::WithPorts(_, ports) = transport
        && ip.fragment_offset == 0
    {
        ip.has_ports = true;
        ip.ports = *ports;
    }
    // In a later fragment the rest of the chain is out of reach.
    let hidden = ip.fragment_offset != 0 && is_extension(ip.family, ip.protocol);
    Legal {
        expected: Parsed {
            vlan_tags: tags.len() as u8,
            has_ip: true,
            ip,
            outcome: if hidden {
                Err(Unparsed::ExtensionHeaders)
            } else {
                Ok(())
            },
        },
        network: network_start,
        transport: transport_start,
        end: bytes.len(),
        bytes,
    }
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

/// A small IPv4 frame that carries `protocol`, for tests that break it.
pub(super) fn plain_ipv4(protocol: u8, body: &[u8]) -> Vec<u8> {
    let network = Network::V4 {
        addresses: [[203, 0, 113, 7], [198, 51, 100, 23]],
        option_words: 0,
        fragment: (0, false),
        authentication: Vec::new(),
    };
    write(&[], &network, &Transport::Without(protocol), body).bytes
}

/// A small IPv6 frame that carries `protocol`, for tests that break it.
pub(super) fn plain_ipv6(protocol: u8, body: &[u8]) -> Vec<u8> {
    let network = Network::V6 {
        addresses: [[0x20; 16], [0x2a; 16]],
        extensions: Vec::new(),
    };
    write(&[], &network, &Transport::Without(protocol), body).bytes
}

/// Whether a reason can come from a frame that was cut off.
pub(super) fn is_truncation(reason: Unparsed) -> bool {
    matches!(
        reason,
        Unparsed::TruncatedLink | Unparsed::TruncatedIp | Unparsed::ExtensionHeaders
    )
}
