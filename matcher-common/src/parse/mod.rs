//! The packet parser: Ethernet, VLAN tags, IPv4 with options, IPv6 with
//! extension headers, and the ports of TCP, UDP and SCTP.
//!
//! Generic over [`Frame`], so the same code runs in the kernel (where each
//! read is a bounds check that the verifier follows) and on the host. Loops
//! have fixed bounds. Nothing beyond the headers is read (R3).

mod frame;
mod ip;
mod link;

pub use frame::Frame;
pub use ip::{MAX_EXTENSION_HEADERS, protocol};
pub use link::MAX_VLAN_TAGS;

use link::Network;

use crate::abi::{AddressBytes, Counter, ParseReport};

/// IP version of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, RFC 791.
    V4,
    /// IPv6, RFC 8200.
    V6,
}

/// Source and destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Port of the sender.
    pub source: u16,
    /// Port of the receiver.
    pub destination: u16,
}

/// One IP layer and what follows it.
///
/// Flat, without `Option`s: the verifier refuses a program that copies the
/// unset payload of a `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpLayer {
    /// IP version.
    pub family: Family,
    /// Source address.
    pub source: AddressBytes,
    /// Destination address.
    pub destination: AddressBytes,
    /// Protocol above IP and its extension headers.
    pub protocol: u8,
    /// Fragment offset in bytes; not 0 for a later fragment.
    pub fragment_offset: u16,
    has_ports: bool,
    ports: Ports,
}

impl IpLayer {
    /// The ports: `None` for protocols without ports, later fragments, and
    /// transport headers that are cut off before their ports.
    #[inline(always)]
    pub fn ports(&self) -> Option<Ports> {
        self.has_ports.then_some(self.ports)
    }
}

/// Why a packet was not parsed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// No IP above Ethernet.
    NotIp,
    /// The frame ends inside Ethernet or VLAN headers.
    TruncatedLink,
    /// More than [`MAX_VLAN_TAGS`] VLAN tags.
    VlanDepth,
    /// PPPoE session stage (RFC 2516).
    Pppoe,
    /// MPLS (RFC 3032).
    Mpls,
    /// The frame ends inside the IP header.
    TruncatedIp,
    /// Version, header length or total length that cannot be.
    MalformedIp,
    /// Extension headers cut off, in a later fragment (where they cannot be
    /// followed), or more than [`MAX_EXTENSION_HEADERS`].
    ExtensionHeaders,
    /// A tunnel inside IP.
    Tunnel,
}

impl Unparsed {
    /// The counter that a packet left for this reason bumps.
    pub const fn counter(self) -> Counter {
        match self {
            Self::NotIp => Counter::NotIp,
            Self::TruncatedLink => Counter::TruncatedLink,
            Self::VlanDepth => Counter::VlanDepth,
            Self::Pppoe => Counter::Pppoe,
            Self::Mpls => Counter::Mpls,
            Self::TruncatedIp => Counter::TruncatedIp,
            Self::MalformedIp => Counter::MalformedIp,
            Self::ExtensionHeaders => Counter::ExtensionHeaders,
            Self::Tunnel => Counter::Tunnel,
        }
    }
}

/// What the parser saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// VLAN tags in front of the payload.
    pub vlan_tags: u8,
    has_ip: bool,
    ip: IpLayer,
    outcome: Result<(), Unparsed>,
}

/// Parses a frame from its Ethernet header on.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Parsed {
    let mut parsed = Parsed {
        vlan_tags: 0,
        has_ip: false,
        ip: IpLayer {
            family: Family::V4,
            source: [0; 16],
            destination: [0; 16],
            protocol: 0,
            fragment_offset: 0,
            has_ports: false,
            ports: Ports {
                source: 0,
                destination: 0,
            },
        },
        outcome: Ok(()),
    };
    parsed.outcome = parse_layers(frame, &mut parsed);
    parsed
}

#[inline(always)]
fn parse_layers<F: Frame + ?Sized>(frame: &F, parsed: &mut Parsed) -> Result<(), Unparsed> {
    let mut network = Network {
        family: Family::V4,
        offset: 0,
    };
    link::parse(frame, &mut parsed.vlan_tags, &mut network)?;
    let mut upper = ip::Upper::default();
    ip::parse_header(frame, network, &mut parsed.ip, &mut upper)?;
    parsed.has_ip = true;
    ip::parse_upper(frame, &mut parsed.ip, &mut upper)
}

impl Parsed {
    /// The IP layer, where one was read.
    #[inline(always)]
    pub fn ip(&self) -> Option<&IpLayer> {
        self.has_ip.then_some(&self.ip)
    }

    /// Why parsing ended early, if it did. With an IP layer beside it, the
    /// packet holds something inside that this version cannot read, and whose
    /// packet it is cannot be known for sure.
    #[inline(always)]
    pub fn unparsed(&self) -> Option<Unparsed> {
        self.outcome.err()
    }

    /// The form in which the kernel hands the result to `matcher parse`.
    #[inline(always)]
    pub fn report(&self) -> ParseReport {
        let mut report = ParseReport {
            vlan_tags: self.vlan_tags,
            ..ParseReport::default()
        };
        if let Err(unparsed) = self.outcome {
            report.unparsed = unparsed.counter() as u32 + 1;
        }
        if let Some(ip) = self.ip() {
            report.source = ip.source;
            report.destination = ip.destination;
            report.fragment_offset = ip.fragment_offset;
            report.protocol = ip.protocol;
            report.ip_version = match ip.family {
                Family::V4 => 4,
                Family::V6 => 6,
            };
            if ip.has_ports {
                report.has_ports = 1;
                report.source_port = ip.ports.source;
                report.destination_port = ip.ports.destination;
            }
        }
        report
    }
}

#[cfg(test)]
mod tests;
