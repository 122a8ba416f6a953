//! Packets for tests, written as they read on the wire, outermost header first:
//!
//! ```
//! use matcher_tests::frames::Frame;
//!
//! let frame = Frame::ethernet()
//!     .vlan(100)
//!     .ipv4([203, 0, 113, 7], [198, 51, 100, 23])
//!     .tcp(51413, 443)
//!     .payload(b"hello")
//!     .build();
//! assert_eq!(frame.len(), 14 + 4 + 20 + 20 + 5);
//! ```
//!
//! Each header names what follows it (EtherType, protocol, next header), and
//! lengths and checksums are right, unless a test says otherwise: headers nest
//! as deep as a test wants, which makes tunnels too. To break a frame, build it
//! and change its bytes.

mod tunnel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use self::tunnel::Carrier;

/// A packet being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    headers: Vec<Header>,
    payload: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Header {
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
struct Fragment {
    /// In bytes, a multiple of eight.
    offset: u16,
    more: bool,
    id: u32,
}

/// TCP flags.
pub mod tcp_flags {
    /// The sender is done.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Resets a connection.
    pub const RST: u8 = 0x04;
    /// Data for the application.
    pub const PSH: u8 = 0x08;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

const SOURCE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const DESTINATION_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
const HOP_LIMIT: u8 = 64;
/// Source port of tunnels over UDP.
const TUNNEL_CLIENT: u16 = 54321;

impl Frame {
    /// Starts with an Ethernet header with locally administered addresses.
    pub fn ethernet() -> Self {
        Self {
            headers: vec![Header::Ethernet],
            payload: Vec::new(),
        }
    }

    /// Starts without a link layer, as in raw-IP captures.
    pub fn raw() -> Self {
        Self::default()
    }

    fn with(mut self, header: Header) -> Self {
        self.headers.push(header);
        self
    }

    /// An 802.1Q tag (0x8100).
    pub fn vlan(self, id: u16) -> Self {
        self.vlan_tag(0x8100, id)
    }

    /// An 802.1ad service tag (0x88a8), the outer of two.
    pub fn service_vlan(self, id: u16) -> Self {
        self.vlan_tag(0x88a8, id)
    }

    fn vlan_tag(self, ethertype: u16, id: u16) -> Self {
        self.with(Header::Vlan {
            ethertype,
            tag: id & 0x0fff,
        })
    }

    /// An IPv4 header.
    pub fn ipv4(self, source: impl Into<Ipv4Addr>, destination: impl Into<Ipv4Addr>) -> Self {
        self.with(Header::Ipv4 {
            source: source.into(),
            destination: destination.into(),
            options: Vec::new(),
            fragment: Fragment::default(),
        })
    }

    /// An IPv6 header.
    pub fn ipv6(self, source: impl Into<Ipv6Addr>, destination: impl Into<Ipv6Addr>) -> Self {
        self.with(Header::Ipv6 {
            source: source.into(),
            destination: destination.into(),
        })
    }

    /// An IPv4 or IPv6 header.
    ///
    /// # Panics
    /// The addresses are of two families.
    pub fn ip(self, source: IpAddr, destination: IpAddr) -> Self {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination),
            _ => panic!("{source} and {destination} are of two families"),
        }
    }

    /// Options of the IPv4 header before it, padded with zeros to four bytes.
    ///
    /// # Panics
    /// More than 40 bytes, or no IPv4 header before it.
    pub fn ipv4_options(mut self, bytes: &[u8]) -> Self {
        assert!(bytes.len() <= 40, "IPv4 has room for 40 bytes of options");
        match self.headers.last_mut() {
            Some(Header::Ipv4 { options, .. }) => {
                *options = bytes.to_vec();
                options.resize(bytes.len().next_multiple_of(4), 0);
            }
            other => panic!("options follow an IPv4 header, not {other:?}"),
        }
        self
    }

    /// Makes the IPv4 header before it that of a fragment, or adds a fragment
    /// header to the IPv6 header before it. A fragment with an offset starts in
    /// the middle of its packet: put [`Frame::protocol`] after it, not a
    /// transport header.
    ///
    /// # Panics
    /// The offset is no multiple of eight.
    pub fn fragment(mut self, offset: u16, more: bool, id: u32) -> Self {
        assert!(
            offset.is_multiple_of(8),
            "fragments start at multiples of eight"
        );
        let this = Fragment { offset, more, id };
        if let Some(Header::Ipv4 { fragment, .. }) = self.headers.last_mut() {
            *fragment = this;
            return self;
        }
        self.with(Header::Ipv6Fragment(this))
    }

    /// An IPv6 hop-by-hop options header of `units` times eight bytes.
    pub fn hop_by_hop(self, units: u8) -> Self {
        self.with(Header::Extension {
            protocol: 0,
            contents: padding_options(units),
        })
    }

    /// An IPv6 destination options header of `units` times eight bytes.
    pub fn destination_options(self, units: u8) -> Self {
        self.with(Header::Extension {
            protocol: 60,
            contents: padding_options(units),
        })
    }

    /// An IPv6 routing header of an unknown type with no segments left.
    pub fn routing(self) -> Self {
        self.with(Header::Extension {
            protocol: 43,
            contents: vec![253, 0, 0, 0, 0, 0],
        })
    }

    /// A TCP header of a segment in the middle of a connection.
    pub fn tcp(self, source: u16, destination: u16) -> Self {
        self.tcp_with(source, destination, tcp_flags::PSH | tcp_flags::ACK)
    }

    /// A TCP header with the given [`tcp_flags`].
    pub fn tcp_with(self, source: u16, destination: u16, flags: u8) -> Self {
        self.with(Header::Tcp {
            source,
            destination,
            flags,
        })
    }

    /// A UDP header.
    pub fn udp(self, source: u16, destination: u16) -> Self {
        self.with(Header::Udp {
            source,
            destination,
        })
    }

    /// An ICMP header of eight bytes (8, 0: echo request).
    pub fn icmp(self, kind: u8, code: u8) -> Self {
        self.with(Header::Icmp { kind, code })
    }

    /// An ICMPv6 header of eight bytes (128, 0: echo request).
    pub fn icmpv6(self, kind: u8, code: u8) -> Self {
        self.with(Header::Icmpv6 { kind, code })
    }

    /// An SCTP common header. Its checksum (CRC32c) is left 0.
    pub fn sctp(self, source: u16, destination: u16) -> Self {
        self.with(Header::Sctp {
            source,
            destination,
        })
    }

    /// A UDP-Lite header. Its checksum is left 0.
    pub fn udp_lite(self, source: u16, destination: u16) -> Self {
        self.with(Header::UdpLite {
            source,
            destination,
        })
    }

    /// A DCCP header of a request. Its checksum is left 0.
    pub fn dccp(self, source: u16, destination: u16) -> Self {
        self.with(Header::Dccp {
            source,
            destination,
        })
    }

    /// An authentication header of 24 bytes.
    pub fn authentication(self) -> Self {
        self.with(Header::Authentication)
    }

    /// Another Ethernet header, inside a tunnel.
    pub fn inner_ethernet(self) -> Self {
        self.with(Header::Ethernet)
    }

    /// PPPoE session stage and PPP.
    pub fn pppoe(self) -> Self {
        self.with(Header::Carrier(Carrier::Pppoe { session: 7 }))
            .ppp()
    }

    /// PPPoE session stage and PPP with its protocol field in one byte.
    pub fn pppoe_compressed(self) -> Self {
        self.with(Header::Carrier(Carrier::Pppoe { session: 7 }))
            .with(Header::Carrier(Carrier::Ppp {
                address_and_control: false,
                compressed: true,
            }))
    }

    /// PPP as short as it may be.
    pub fn ppp(self) -> Self {
        self.with(Header::Carrier(Carrier::Ppp {
            address_and_control: false,
            compressed: false,
        }))
    }

    /// PPP with address and control field.
    pub fn ppp_framed(self) -> Self {
        self.with(Header::Carrier(Carrier::Ppp {
            address_and_control: true,
            compressed: false,
        }))
    }

    /// An MPLS label; the last one if no other follows.
    pub fn mpls(self, label: u32) -> Self {
        self.with(Header::Carrier(Carrier::Mpls { label }))
    }

    /// GRE of four bytes.
    pub fn gre(self) -> Self {
        self.gre_with(false, None, false)
    }

    /// GRE with what it may carry; checksum and sequence number are 0.
    pub fn gre_with(self, checksum: bool, key: Option<u32>, sequence: bool) -> Self {
        self.with(Header::Carrier(Carrier::Gre {
            checksum,
            key,
            sequence,
        }))
    }

    /// PPTP's GRE, and PPP.
    pub fn pptp(self, acknowledgment: bool) -> Self {
        self.with(Header::Carrier(Carrier::Pptp { acknowledgment }))
            .ppp_framed()
    }

    /// EtherIP, and the Ethernet header in it.
    pub fn etherip(self) -> Self {
        self.with(Header::Carrier(Carrier::EtherIp))
            .inner_ethernet()
    }

    /// UDP to VXLAN's port, VXLAN, and the Ethernet header in it.
    pub fn vxlan(self) -> Self {
        self.udp(TUNNEL_CLIENT, 4789)
            .with(Header::Carrier(Carrier::Vxlan { network: 42 }))
            .inner_ethernet()
    }

    /// UDP to Geneve's port and Geneve with so many times four bytes of
    /// options.
    pub fn geneve(self, options: u8) -> Self {
        self.udp(TUNNEL_CLIENT, 6081)
            .with(Header::Carrier(Carrier::Geneve {
                network: 42,
                options,
            }))
    }

    /// UDP to GTP-U's port and GTP-U with extension headers of so many times
    /// four bytes each.
    pub fn gtp_u(self, extensions: &[u8], sequence: bool) -> Self {
        self.udp(2152, 2152).with(Header::Carrier(Carrier::GtpU {
            tunnel: 42,
            extensions: extensions.to_vec(),
            sequence,
        }))
    }

    /// UDP to L2TP's port, L2TPv2 with what it may carry, and PPP.
    pub fn l2tp(self, length: bool, sequence: bool, offset: Option<u16>) -> Self {
        self.udp(1701, 1701)
            .with(Header::Carrier(Carrier::L2tp {
                length,
                sequence,
                offset,
            }))
            .ppp_framed()
    }

    /// No header, but the number by which the header before it announces what
    /// follows: a protocol after IP, an EtherType after Ethernet or VLAN.
    pub fn protocol(self, number: u16) -> Self {
        self.with(Header::Announced(number))
    }

    /// What follows the headers.
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// The bytes.
    ///
    /// # Panics
    /// A header with a length of 16 bits is followed by more than fits.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = self.payload.clone();
        for (index, header) in self.headers.iter().enumerate().rev() {
            let (outer, from_here) = self.headers.split_at(index);
            let next = from_here.get(1);
            let mut with_header = header.bytes(next, &bytes);
            with_header.append(&mut bytes);
            header.fill_checksum(outer, &mut with_header);
            bytes = with_header;
        }
        bytes
    }
}

impl Header {
    /// The header before `body`; `next` is the header that `body` starts with.
    fn bytes(&self, next: Option<&Self>, body: &[u8]) -> Vec<u8> {
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
    fn ethertype(&self) -> u16 {
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
    fn protocol(&self) -> u8 {
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
    fn fill_checksum(&self, outer: &[Self], bytes: &mut [u8]) {
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

/// One PadN option that fills an extension header of `units` times eight bytes.
fn padding_options(units: u8) -> Vec<u8> {
    let length = usize::from(units.max(1)) * 8 - 2;
    let mut contents = vec![0; length];
    // Options are at most 255 bytes long; what is left is Pad1, all zeros.
    contents[0] = 1;
    contents[1] = (length - 2).min(255) as u8;
    contents
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests;
