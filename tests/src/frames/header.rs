//! Headers as they stand on the wire: how each names what follows it, and its
//! lengths and checksums.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::tunnel::Carrier;

const SOURCE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const DESTINATION_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
const HOP_LIMIT: u8 = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Ethernet,
    Vlan {
        ethertype: u16,
        tag: u16,
    },
    Ipv4 {
        source: Ipv4Addr,
        destination: Ipv4Addr,
        options: Vec<u8>,
        fragment: Fragment,
    },
    Ipv6 {
        source: Ipv6Addr,
        destination: Ipv6Addr,
    },
    /// Hop-by-hop options, routing or destination options: `protocol` says.
    Extension {
        protocol: u8,
        contents: Vec<u8>,
    },
    Ipv6Fragment(Fragment),
    Tcp {
        source: u16,
        destination: u16,
        flags: u8,
    },
    Udp {
        source: u16,
        destination: u16,
    },
    Icmp {
        kind: u8,
        code: u8,
    },
    Icmpv6 {
        kind: u8,
        code: u8,
    },
    Sctp {
        source: u16,
        destination: u16,
    },
    /// UDP-Lite: the checksum covers everything.
    UdpLite {
        source: u16,
        destination: u16,
    },
    /// A DCCP request.
    Dccp {
        source: u16,
        destination: u16,
    },
    /// An authentication header of 24 bytes.
    Authentication,
    Carrier(Carrier),
    /// Nothing on the wire: the header before it carries this EtherType or
    /// protocol.
    Announced(u16),
}

/// Where a fragment lies in its packet.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    /// In bytes, a multiple of eight.
    pub(super) offset: u16,
    pub(super) more: bool,
    pub(super) id: u32,
}

impl Header {
    /// The header before `body`; `next` is the header that `body` starts with.
    pub(super) fn bytes(&self, next: Option<&Self>, body: &[u8]) -> Vec<u8> {
        let ethertype = next.map_or(0, Self::ethertype).to_be_bytes();
        // "No next header" where nothing is said.
        let protocol = next.map_or(59, Self::protocol);
        match self {
            Self::Ethernet => [&DESTINATION_MAC[..], &SOURCE_MAC, &ethertype].concat(),
            Self::Vlan { tag, .. } => [tag.to_be_bytes(), ethertype].concat(),
            Self::Ipv4 {
                source,
                destination,
                options,
                fragment,
            } => {
                let header = 20 + options.len();
                let mut bytes = vec![0x40 | (header / 4) as u8, 0];
                bytes.extend(length(header + body.len()));
                bytes.extend((fragment.id as u16).to_be_bytes());
                bytes.extend(
                    ((fragment.offset / 8) | (u16::from(fragment.more) << 13)).to_be_bytes(),
                );
                bytes.extend([HOP_LIMIT, protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(options);
                let sum = checksum(&bytes).to_be_bytes();
                bytes[10..12].copy_from_slice(&sum);
                bytes
            }
            Self::Ipv6 {
                source,
                destination,
            } => {
                let mut bytes = vec![0x60, 0, 0, 0];
                bytes.extend(length(body.len()));
                bytes.extend([protocol, HOP_LIMIT]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes
            }
            Self::Extension { contents, .. } => {
                let mut bytes = vec![protocol, ((contents.len() + 2) / 8 - 1) as u8];
                bytes.extend(contents);
                bytes
            }
            Self::Ipv6Fragment(Fragment { offset, more, id }) => {
                let mut bytes = vec![protocol, 0];
                bytes.extend((offset | u16::from(*more)).to_be_bytes());
                bytes.extend(id.to_be_bytes());
                bytes
            }
            Self::Tcp {
                source,
                destination,
                flags,
            } => {
                let mut bytes = ports(*source, *destination);
                bytes.extend([
                    0,
                    0,
                    0,
                    1,
                    0,
                    0,
                    0,
                    1,
                    5 << 4,
                    *flags,
                    0xff,
                    0xff,
                    0,
                    0,
                    0,
                    0,
                ]);
                bytes
            }
            Self::Udp {
                source,
                destination,
            } => {
                let mut bytes = ports(*source, *destination);
                bytes.extend(length(8 + body.len()));
                bytes.extend([0, 0]);
                bytes
            }
            Self::Icmp { kind, code } | Self::Icmpv6 { kind, code } => {
                vec![*kind, *code, 0, 0, 0, 1, 0, 1]
            }
            Self::Sctp {
                source,
                destination,
            } => {
                let mut bytes = ports(*source, *destination);
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 0]);
                bytes
            }
            Self::UdpLite {
                source,
                destination,
            } => {
                let mut bytes = ports(*source, *destination);
                bytes.extend([0; 4]);
                bytes
            }
            Self::Dccp {
                source,
                destination,
            } => {
                let mut bytes = ports(*source, *destination);
                // Data offset, CCVal and coverage, checksum, then type request
                // with a short sequence number, and the service code.
                bytes.extend([5, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
                bytes
            }
            Self::Authentication => {
                let mut bytes = vec![protocol, 4];
                bytes.resize(24, 0);
                bytes
            }
            Self::Carrier(carrier) => carrier.bytes(next, body),
            Self::Announced(_) => Vec::new(),
        }
    }

    /// How Ethernet announces this header.
    pub(super) fn ethertype(&self) -> u16 {
        match self {
            Self::Vlan { ethertype, .. } => *ethertype,
            Self::Ipv4 { .. } => 0x0800,
            Self::Ipv6 { .. } => 0x86dd,
            Self::Ethernet => 0x6558,
            Self::Announced(ethertype) => *ethertype,
            Self::Carrier(carrier) => carrier.ethertype(),
            // Not known to Ethernet.
            _ => 0,
        }
    }

    /// How IP announces this header.
    pub(super) fn protocol(&self) -> u8 {
        match self {
            Self::Extension { protocol, .. } => *protocol,
            Self::Announced(protocol) => *protocol as u8,
            Self::Ipv6Fragment(_) => 44,
            Self::Ipv4 { .. } => 4,
            Self::Ipv6 { .. } => 41,
            Self::Tcp { .. } => 6,
            Self::Udp { .. } => 17,
            Self::Icmp { .. } => 1,
            Self::Icmpv6 { .. } => 58,
            Self::Sctp { .. } => 132,
            Self::UdpLite { .. } => 136,
            Self::Dccp { .. } => 33,
            Self::Authentication => 51,
            Self::Carrier(carrier) => carrier.protocol(),
            Self::Ethernet => 143,
            // Not known to IP.
            Self::Vlan { .. } => 59,
        }
    }

    /// Puts the checksum into `bytes`, which start with this header and go to
    /// the packet's end. The sum is over what is there, so that of a first
    /// fragment fits the fragment, not the packet.
    pub(super) fn fill_checksum(&self, outer: &[Self], bytes: &mut [u8]) {
        let (at, over_addresses) = match self {
            Self::Tcp { .. } => (16, true),
            Self::Udp { .. } => (6, true),
            Self::Icmp { .. } => (2, false),
            Self::Icmpv6 { .. } => (2, true),
            _ => return,
        };
        let mut summed = Vec::new();
        if over_addresses {
            let addresses = outer.iter().rev().find_map(|header| match header {
                Self::Ipv4 {
                    source,
                    destination,
                    ..
                } => Some([source.octets(), destination.octets()].concat()),
                Self::Ipv6 {
                    source,
                    destination,
                } => Some([source.octets(), destination.octets()].concat()),
                _ => None,
            });
            summed.extend(addresses.unwrap_or_default());
            summed.extend((bytes.len() as u32).to_be_bytes());
            summed.extend([0, 0, 0, self.protocol()]);
        }
        summed.extend(&*bytes);
        let sum = match checksum(&summed) {
            // RFC 768: a sum of 0 is sent as all ones, since 0 means "none".
            0 if matches!(self, Self::Udp { .. }) => 0xffff,
            sum => sum,
        };
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes)
        .unwrap_or_else(|_| panic!("{bytes} bytes do not fit into a 16-bit length"))
        .to_be_bytes()
}

/// The Internet checksum (RFC 1071).
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
