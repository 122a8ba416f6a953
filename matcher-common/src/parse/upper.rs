//! What stands above IP: extension headers, ports, and the way into tunnels.

use super::{
    Frame, Unparsed,
    cursor::{Cursor, header},
    tunnel,
};
use crate::abi::{Packet, Tunnel};

/// Extension headers (and IPv4's authentication header) of one layer that are
/// followed. RFC 8200 section 4.1 lists seven, one of them twice.
pub const MAX_EXTENSION_HEADERS: u8 = 8;

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
    /// DCCP, RFC 4340.
    pub const DCCP: u8 = 33;
    /// IPv6 encapsulation, RFC 4213 and RFC 2473.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header, RFC 8200.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header, RFC 8200.
    pub const FRAGMENT: u8 = 44;
    /// GRE, RFC 2784.
    pub const GRE: u8 = 47;
    /// Authentication header, RFC 4302.
    pub const AUTHENTICATION: u8 = 51;
    /// Minimal encapsulation, RFC 2004.
    pub const MINIMAL: u8 = 55;
    /// IPv6 destination options, RFC 8200.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// IP within IP encapsulation ("IPIP", KA9Q).
    pub const IPIP: u8 = 94;
    /// Ethernet within IP, RFC 3378.
    pub const ETHERIP: u8 = 97;
    /// Encapsulation header, RFC 1241.
    pub const ENCAP: u8 = 98;
    /// PIM, RFC 7761.
    pub const PIM: u8 = 103;
    /// L2TPv3, RFC 3931.
    pub const L2TPV3: u8 = 115;
    /// SCTP, RFC 9260.
    pub const SCTP: u8 = 132;
    /// UDP-Lite, RFC 3828.
    pub const UDP_LITE: u8 = 136;
    /// MPLS in IP, RFC 4023.
    pub const MPLS: u8 = 137;
    /// Ethernet, RFC 8986.
    pub const ETHERNET: u8 = 143;
}

/// What the parser knows of each protocol number, so that no branch is needed
/// to tell extension headers apart.
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
        | protocol::PIM
        | protocol::L2TPV3
        | protocol::MPLS
        | protocol::ETHERNET => (TUNNEL, 0, 0),
        protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::DCCP | protocol::SCTP => {
            (PORTS, 0, 0)
        }
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

/// One extension header, or what stands behind the last.
#[inline(always)]
pub(super) fn upper<F: Frame + ?Sized>(
    frame: &F,
    cursor: &mut Cursor,
    packet: &mut Packet,
) -> Result<(), Unparsed> {
    let protocol = cursor.protocol as u8;
    let kind = kind_of(protocol);
    let extension = if cursor.ip_version == 4 {
        EXTENSION_V4
    } else {
        EXTENSION_V6
    };
    if kind.flags & extension != 0 {
        return skip_extension(frame, kind, cursor, packet);
    }
    cursor.next = header::DONE;
    if kind.flags & TUNNEL != 0 {
        return enter(cursor);
    }
    if kind.flags & PORTS != 0 && cursor.fragment_offset == 0 {
        ports(frame, cursor, packet);
    }
    Ok(())
}

/// Moves past an extension header. After a fragment header with an offset,
/// what follows is payload of a later fragment, whatever the next header says;
/// the same for IPv4. Where that payload would start with more extension
/// headers, what they lead to is out of reach: RFC 2473 puts destination
/// options in front of the packet in a tunnel.
#[inline(always)]
fn skip_extension<F: Frame + ?Sized>(
    frame: &F,
    kind: Kind,
    cursor: &mut Cursor,
    packet: &mut Packet,
) -> Result<(), Unparsed> {
    if cursor.fragment_offset != 0 || cursor.extensions >= u32::from(MAX_EXTENSION_HEADERS) {
        return Err(Unparsed::ExtensionHeaders);
    }
    // RFC 2675 section 3: a jumbogram has no fragment header.
    if kind.fragment_mask != 0 && cursor.jumbo != 0 {
        return Err(Unparsed::MalformedIp);
    }
    // RFC 8200 section 4: each is a multiple of eight octets long.
    let [next, units, high, low, ..] = cursor
        .peek::<_, 8>(frame, 0)
        .ok_or(Unparsed::ExtensionHeaders)?;
    let length = 8 + u32::from(units) * u32::from(kind.unit);
    // Before anything of it is believed: it may be padding.
    if cursor.offset + length > cursor.end {
        return Err(Unparsed::ExtensionHeaders);
    }
    let fragment_offset = u16::from_be_bytes([high, low]) & kind.fragment_mask;
    cursor.extensions += 1;
    cursor.protocol = u32::from(next);
    cursor.fragment_offset = u32::from(fragment_offset);
    if let Some(layer) = packet.innermost() {
        layer.protocol = next;
        layer.fragment_offset = fragment_offset;
    }
    cursor.advance(length, header::UPPER);
    Ok(())
}

/// Into a tunnel that stands directly above IP.
#[inline(always)]
fn enter(cursor: &mut Cursor) -> Result<(), Unparsed> {
    if cursor.fragment_offset != 0 {
        return Err(Unparsed::TunnelFragment);
    }
    let in_ipv4 = cursor.ip_version == 4;
    if cursor.protocol as u8 == protocol::PIM {
        cursor.next = header::PIM;
        return Ok(());
    }
    let (tunnel, next) = match cursor.protocol as u8 {
        protocol::IPV4 | protocol::IPIP if in_ipv4 => (Tunnel::Ip4In4, header::IPV4),
        protocol::IPV4 | protocol::IPIP => (Tunnel::Ip4In6, header::IPV4),
        protocol::IPV6 if in_ipv4 => (Tunnel::Ip6In4, header::IPV6),
        protocol::IPV6 => (Tunnel::Ip6In6, header::IPV6),
        protocol::GRE => (Tunnel::Gre, header::GRE),
        protocol::ETHERIP => (Tunnel::EtherIp, header::ETHERIP),
        protocol::MPLS => (Tunnel::MplsInIp, header::MPLS),
        protocol::ETHERNET => (Tunnel::EthernetInIp, header::ETHERNET),
        _ => return Err(Unparsed::Tunnel),
    };
    cursor.tunnel = tunnel as u32;
    cursor.next = next;
    Ok(())
}

/// Whether the protocol has ports, and they were not read.
#[inline(always)]
pub(super) fn misses_ports(cursor: &Cursor, packet: &Packet) -> bool {
    kind_of(cursor.protocol as u8).flags & PORTS != 0
        && cursor.fragment_offset == 0
        && packet.layers[0].has_ports == 0
}

#[inline(always)]
fn ports<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor, packet: &mut Packet) {
    let Some([s0, s1, d0, d1]) = cursor.peek::<_, 4>(frame, 0) else {
        return;
    };
    let source = u16::from_be_bytes([s0, s1]);
    let destination = u16::from_be_bytes([d0, d1]);
    if let Some(layer) = packet.innermost() {
        layer.has_ports = 1;
        layer.source_port = source;
        layer.destination_port = destination;
    }
    if cursor.protocol == u32::from(protocol::UDP) {
        tunnel::over_udp(frame, source, destination, cursor);
    }
}
