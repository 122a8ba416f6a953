//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use super::{
    Frame, Unparsed,
    cursor::{Cursor, header},
    upper::protocol,
};
use crate::abi::{AddressBytes, IpLayer, Packet};

const IPV4_LEN: u32 = 20;
const IPV6_LEN: u32 = 40;

/// Shortest packet that needs the jumbo payload option (RFC 2675 section 3).
const JUMBO_MIN: u32 = 65_536;
/// Type and length of that option.
const JUMBO_OPTION: [u8; 2] = [0xc2, 4];

#[inline(always)]
pub(super) fn ipv4<F: Frame + ?Sized>(
    frame: &F,
    cursor: &mut Cursor,
    packet: &mut Packet,
) -> Result<(), Unparsed> {
    let header = cursor
        .peek::<_, 20>(frame, 0)
        .ok_or(Unparsed::TruncatedIp)?;
    let header_len = u32::from(header[0] & 0x0f) * 4;
    let total_len = u32::from(u16::from_be_bytes([header[2], header[3]]));
    // Total length 0: segmentation left to the NIC ("BIG TCP").
    if header[0] >> 4 != 4 || header_len < IPV4_LEN || (total_len != 0 && total_len < header_len) {
        return Err(Unparsed::MalformedIp);
    }
    if header_len > IPV4_LEN && cursor.peek::<_, 1>(frame, header_len - 1).is_none() {
        return Err(Unparsed::TruncatedIp);
    }
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let (source, destination) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
    let fragment_offset = (u16::from_be_bytes([header[6], header[7]]) & 0x1fff) * 8;
    packet.push(IpLayer {
        source: AddressBytes::from_v4(source),
        destination: AddressBytes::from_v4(destination),
        fragment_offset,
        ip_version: 4,
        protocol: header[9],
        tunnel: cursor.tunnel as u8,
        ..IpLayer::default()
    })?;
    if total_len != 0 {
        cursor.end_at(cursor.offset + total_len);
    }
    cursor.ip_version = 4;
    cursor.protocol = u32::from(header[9]);
    cursor.fragment_offset = u32::from(fragment_offset);
    cursor.extensions = 0;
    cursor.tunnel = 0;
    cursor.jumbo = 0;
    cursor.advance(header_len, header::UPPER);
    Ok(())
}

#[inline(always)]
pub(super) fn ipv6<F: Frame + ?Sized>(
    frame: &F,
    cursor: &mut Cursor,
    packet: &mut Packet,
) -> Result<(), Unparsed> {
    let start = cursor.peek::<_, 8>(frame, 0).ok_or(Unparsed::TruncatedIp)?;
    if start[0] >> 4 != 6 {
        return Err(Unparsed::MalformedIp);
    }
    let source = cursor.peek(frame, 8).ok_or(Unparsed::TruncatedIp)?;
    let destination = cursor.peek(frame, 24).ok_or(Unparsed::TruncatedIp)?;
    packet.push(IpLayer {
        source: AddressBytes::from_v6(source),
        destination: AddressBytes::from_v6(destination),
        ip_version: 6,
        protocol: start[6],
        tunnel: cursor.tunnel as u8,
        ..IpLayer::default()
    })?;
    let payload_len = u32::from(u16::from_be_bytes([start[4], start[5]]));
    cursor.jumbo = 0;
    if payload_len != 0 {
        cursor.end_at(cursor.offset + IPV6_LEN + payload_len);
    } else {
        // Segmentation left to the NIC, unless the jumbo payload option says
        // otherwise.
        cursor.jumbo = 1;
        if start[6] == protocol::HOP_BY_HOP {
            jumbo_payload(frame, cursor)?;
        }
    }
    cursor.ip_version = 6;
    cursor.protocol = u32::from(start[6]);
    cursor.fragment_offset = 0;
    cursor.extensions = 0;
    cursor.tunnel = 0;
    cursor.advance(IPV6_LEN, header::UPPER);
    Ok(())
}

/// RFC 2675 section 2: the option in the hop-by-hop header behind the IPv6
/// header gives the length of everything that follows the IPv6 header.
#[inline(always)]
fn jumbo_payload<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    let Some([_, units, option, option_len, l0, l1, l2, l3]) = cursor.peek::<_, 8>(frame, IPV6_LEN)
    else {
        return Err(Unparsed::ExtensionHeaders);
    };
    if [option, option_len] == JUMBO_OPTION {
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length < JUMBO_MIN {
            return Err(Unparsed::MalformedIp);
        }
        cursor.end_at((cursor.offset + IPV6_LEN).saturating_add(length));
    } else if units == 0 {
        // RFC 2675 section 3: without that option, for which a longer header
        // would have room behind others, it is an error.
        return Err(Unparsed::MalformedIp);
    }
    Ok(())
}
