//! Frames with legal headers of every kind the parser reads, each beside what
//! the parser must say of it.

use proptest::{collection::vec, prelude::*};
use std::vec::Vec;

use super::super::{Family, IpLayer, Packet, Ports};
use crate::abi::{AddressBytes, Counter, MAX_LAYERS, Tunnel};

mod writer;

use writer::write;

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
