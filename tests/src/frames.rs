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

mod header;
mod tunnel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use self::header::{Fragment, Header};

/// A packet being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    headers: Vec<Header>,
    payload: Vec<u8>,
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

/// One PadN option that fills an extension header of `units` times eight bytes.
fn padding_options(units: u8) -> Vec<u8> {
    let length = usize::from(units.max(1)) * 8 - 2;
    let mut contents = vec![0; length];
    // Options are at most 255 bytes long; what is left is Pad1, all zeros.
    contents[0] = 1;
    contents[1] = (length - 2).min(255) as u8;
    contents
}

#[cfg(test)]
mod tests;
