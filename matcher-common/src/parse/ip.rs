//! IPv4 (RFC 791), IPv6 (RFC 8200) and the ports above them.

use super::{Family, Frame, IpLayer, Ports, Unparsed, link::Network};

/// Extension headers (and IPv4's authentication header) that are followed.
/// RFC 8200 section 4.1 lists seven, one of them twice.
pub const MAX_EXTENSION_HEADERS: u8 = 8;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options, RFC 8200.
    pub const HOP_BY_HOP: u8 = 0;
    /// IPv4 encapsulation, RFC 2003.
    pub const IPV4: u8 = 4;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// UDP, RFC 768.
    pub const UDP: u8 = 17;
    /// IPv6 encapsulation, RFC 4213 and RFC 2473.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header, RFC 8200.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header, RFC 8200.
    pub const FRAGMENT: u8 = 44;
    /// GRE, RFC 2784.
    pub const GRE: u8 = 47;
    /// Minimal encapsulation, RFC 2004.
    pub const MINIMAL: u8 = 55;
    /// Authentication header, RFC 4302.
    pub const AUTHENTICATION: u8 = 51;
    /// IPv6 destination options, RFC 8200.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// IP within IP encapsulation ("IPIP", KA9Q).
    pub const IPIP: u8 = 94;
    /// Ethernet within IP, RFC 3378.
    pub const ETHERIP: u8 = 97;
    /// Encapsulation header, RFC 1241.
    pub const ENCAP: u8 = 98;
    /// L2TPv3, RFC 3931.
    pub const L2TPV3: u8 = 115;
    /// SCTP, RFC 9260.
    pub const SCTP: u8 = 132;
    /// MPLS in IP, RFC 4023.
    pub const MPLS: u8 = 137;
    /// Ethernet, RFC 8986.
    pub const ETHERNET: u8 = 143;
}

/// What stands above the IP header.
#[derive(Clone, Copy, Default)]
pub(super) struct Upper {
    protocol: u8,
    offset: usize,
    fragment_offset: u16,
    /// Where the IP layer says that its payload ends.
    end: usize,
}

#[inline(always)]
pub(super) fn parse_header<F: Frame + ?Sized>(
    frame: &F,
    network: Network,
    layer: &mut IpLayer,
    upper: &mut Upper,
) -> Result<(), Unparsed> {
    layer.family = network.family;
    match network.family {
        Family::V4 => ipv4(frame, network.offset, layer, upper),
        Family::V6 => ipv6(frame, network.offset, layer, upper),
    }
}

#[inline(always)]
pub(super) fn parse_upper<F: Frame + ?Sized>(
    frame: &F,
    layer: &mut IpLayer,
    upper: &mut Upper,
) -> Result<(), Unparsed> {
    let skipped = skip_extensions(frame, layer.family, upper);
    layer.protocol = upper.protocol;
    layer.fragment_offset = upper.fragment_offset;
    skipped?;
    if kind_of(upper.protocol).flags & TUNNEL != 0 {
        return Err(Unparsed::Tunnel);
    }
    if let Some(ports) = ports(frame, upper) {
        layer.has_ports = true;
        layer.ports = ports;
    }
    Ok(())
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    layer: &mut IpLayer,
    upper: &mut Upper,
) -> Result<(), Unparsed> {
    let header = frame
        .read::<IPV4_LEN>(offset)
        .ok_or(Unparsed::TruncatedIp)?;
    let header_len = ((header[0] & 0x0f) as usize) * 4;
    let total_len = u16::from_be_bytes([header[2], header[3]]) as usize;
    // Total length 0: segmentation left to the NIC ("BIG TCP").
    if header[0] >> 4 != 4 || header_len < IPV4_LEN || (total_len != 0 && total_len < header_len) {
        return Err(Unparsed::MalformedIp);
    }
    if header_len > IPV4_LEN && frame.read::<1>(offset + header_len - 1).is_none() {
        return Err(Unparsed::TruncatedIp);
    }
    layer.source[..4].copy_from_slice(&header[12..16]);
    layer.destination[..4].copy_from_slice(&header[16..20]);
    *upper = Upper {
        protocol: header[9],
        offset: offset + header_len,
        fragment_offset: (u16::from_be_bytes([header[6], header[7]]) & 0x1fff) * 8,
        end: if total_len == 0 {
            usize::MAX
        } else {
            offset + total_len
        },
    };
    Ok(())
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    layer: &mut IpLayer,
    upper: &mut Upper,
) -> Result<(), Unparsed> {
    let start = frame.read::<8>(offset).ok_or(Unparsed::TruncatedIp)?;
    if start[0] >> 4 != 6 {
        return Err(Unparsed::MalformedIp);
    }
    layer.source = frame.read(offset + 8).ok_or(Unparsed::TruncatedIp)?;
    layer.destination = frame.read(offset + 24).ok_or(Unparsed::TruncatedIp)?;
    let payload_len = u16::from_be_bytes([start[4], start[5]]) as usize;
    *upper = Upper {
        protocol: start[6],
        offset: offset + IPV6_LEN,
        fragment_offset: 0,
        // Payload length 0: a jumbogram (RFC 2675), or segmentation left to
        // the NIC.
        end: if payload_len == 0 {
            usize::MAX
        } else {
            offset + IPV6_LEN + payload_len
        },
    };
    Ok(())
}

/// What the parser knows of each protocol number, so that a loop over headers
/// needs no branch to tell them apart: with one, the kernel's verifier walks
/// every order in which headers may follow each other.
static KINDS: [Kind; 256] = kinds();

#[derive(Clone, Copy)]
struct Kind {
    flags: u8,
    /// Bytes that the header's length field counts in; every extension header
    /// has 8 bytes more. 0 where there is no such field.
    unit: u8,
    /// Bits of the third and fourth byte that are a fragment offset.
    fragment_mask: u16,
}

/// An extension header of IPv6.
const EXTENSION_V6: u8 = 1;
/// An extension header of IPv4.
const EXTENSION_V4: u8 = 1 << 1;
/// A packet inside the packet.
const TUNNEL: u8 = 1 << 2;
/// Starts with source and destination port.
const PORTS: u8 = 1 << 3;

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which refuses an index out of range"
)]
const fn kinds() -> [Kind; 256] {
    let mut kinds = [kind(0); 256];
    let mut number = 1;
    while number < kinds.len() {
        kinds[number] = kind(number as u8);
        number += 1;
    }
    kinds
}

const fn kind(number: u8) -> Kind {
    let (flags, unit, fragment_mask) = match number {
        // RFC 8200 section 4: 8-octet units, not counting the first.
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
            (EXTENSION_V6, 8, 0)
        }
        // RFC 8200 section 4.5: always 8 bytes.
        protocol::FRAGMENT => (EXTENSION_V6, 0, 0xfff8),
        // RFC 4302 section 2.2: 32-bit words minus 2.
        protocol::AUTHENTICATION => (EXTENSION_V6 | EXTENSION_V4, 4, 0),
        protocol::IPV4
        | protocol::IPV6
        | protocol::GRE
        | protocol::MINIMAL
        | protocol::IPIP
        | protocol::ETHERIP
        | protocol::ENCAP
        | protocol::L2TPV3
        | protocol::MPLS
        | protocol::ETHERNET => (TUNNEL, 0, 0),
        protocol::TCP | protocol::UDP | protocol::SCTP => (PORTS, 0, 0),
        _ => (0, 0, 0),
    };
    Kind {
        flags,
        unit,
        fragment_mask,
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "the table has an entry for every u8"
)]
#[inline(always)]
fn kind_of(protocol: u8) -> Kind {
    KINDS[protocol as usize]
}

/// Moves `upper` past extension headers. After a fragment header with an
/// offset, what follows is payload of a later fragment, whatever the next
/// header says; the same for IPv4. Where that payload would start with more
/// extension headers, what they lead to is out of reach: RFC 2473 puts
/// destination options in front of the packet in a tunnel.
#[inline(always)]
fn skip_extensions<F: Frame + ?Sized>(
    frame: &F,
    family: Family,
    upper: &mut Upper,
) -> Result<(), Unparsed> {
    let extension = match family {
        Family::V4 => EXTENSION_V4,
        Family::V6 => EXTENSION_V6,
    };
    let mut headers = 0;
    loop {
        let kind = kind_of(upper.protocol);
        if kind.flags & extension == 0 {
            return Ok(());
        }
        if upper.fragment_offset != 0 || headers == MAX_EXTENSION_HEADERS {
            return Err(Unparsed::ExtensionHeaders);
        }
        // RFC 2675 section 3: a jumbogram has no fragment header.
        if kind.fragment_mask != 0 && upper.end == usize::MAX {
            return Err(Unparsed::MalformedIp);
        }
        headers += 1;
        let [next, units, high, low] = frame
            .read::<4>(upper.offset)
            .ok_or(Unparsed::ExtensionHeaders)?;
        let length = 8 + units as usize * kind.unit as usize;
        // Before anything of it is believed: it may be padding.
        if upper.offset + length > upper.end {
            return Err(Unparsed::ExtensionHeaders);
        }
        upper.protocol = next;
        upper.fragment_offset = u16::from_be_bytes([high, low]) & kind.fragment_mask;
        upper.offset += length;
    }
}

#[inline(always)]
fn ports<F: Frame + ?Sized>(frame: &F, upper: &Upper) -> Option<Ports> {
    let has_ports = kind_of(upper.protocol).flags & PORTS != 0;
    if !has_ports || upper.fragment_offset != 0 || upper.offset + 4 > upper.end {
        return None;
    }
    let [s0, s1, d0, d1] = frame.read::<4>(upper.offset)?;
    Some(Ports {
        source: u16::from_be_bytes([s0, s1]),
        destination: u16::from_be_bytes([d0, d1]),
    })
}
