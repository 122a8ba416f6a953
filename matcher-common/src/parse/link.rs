//! What stands below IP: Ethernet, VLAN tags, PPPoE, PPP and MPLS.

use super::{
    Frame, Unparsed,
    cursor::{Cursor, header},
};
use crate::abi::Packet;

/// VLAN tags (802.1Q, 802.1ad) behind one Ethernet header that are read; with
/// more the packet passes unmatched.
pub const MAX_VLAN_TAGS: u8 = 4;

/// Labels of an MPLS stack that are read.
pub const MAX_MPLS_LABELS: u8 = 8;

/// Ethernet header: two addresses and the type.
const ETHERNET_LEN: u32 = 14;
/// VLAN tag: control information and the next type.
const VLAN_LEN: u32 = 4;
/// PPPoE session header: version and type, code, session, length.
const PPPOE_LEN: u32 = 6;
/// MPLS label stack entry.
const MPLS_LEN: u32 = 4;

/// EtherTypes (IEEE 802 numbers, IANA).
pub(super) mod ether_type {
    pub(in crate::parse) const IPV4: u16 = 0x0800;
    pub(in crate::parse) const IPV6: u16 = 0x86dd;
    pub(in crate::parse) const VLAN: u16 = 0x8100;
    pub(in crate::parse) const PROVIDER_BRIDGING: u16 = 0x88a8;
    /// 802.1ad tags as sent before its type was assigned.
    pub(in crate::parse) const VLAN_DOUBLE: u16 = 0x9100;
    pub(in crate::parse) const PPPOE_SESSION: u16 = 0x8864;
    pub(in crate::parse) const MPLS_UNICAST: u16 = 0x8847;
    pub(in crate::parse) const MPLS_MULTICAST: u16 = 0x8848;
    /// Ethernet in GRE and Geneve.
    pub(in crate::parse) const TRANSPARENT_BRIDGING: u16 = 0x6558;
    /// PPP in GRE.
    pub(in crate::parse) const PPP: u16 = 0x880b;
    /// From here on it is a type, below a length (IEEE 802.3).
    pub(in crate::parse) const FIRST: u16 = 0x0600;
}

/// PPP protocol numbers (IANA).
mod ppp_protocol {
    pub(super) const IPV4: u16 = 0x0021;
    pub(super) const IPV6: u16 = 0x0057;
    pub(super) const MPLS_UNICAST: u16 = 0x0281;
    pub(super) const MPLS_MULTICAST: u16 = 0x0283;
}

#[inline(always)]
pub(super) fn ethernet<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    let ether_type = cursor
        .peek(frame, ETHERNET_LEN - 2)
        .ok_or(Unparsed::TruncatedLink)?;
    cursor.tags = 0;
    cursor.advance(ETHERNET_LEN, of_type(u16::from_be_bytes(ether_type))?);
    Ok(())
}

/// The header that a type announces.
#[inline(always)]
fn of_type(ether_type: u16) -> Result<u32, Unparsed> {
    Ok(match ether_type {
        ether_type::IPV4 => header::IPV4,
        ether_type::IPV6 => header::IPV6,
        ether_type::VLAN | ether_type::PROVIDER_BRIDGING | ether_type::VLAN_DOUBLE => header::VLAN,
        ether_type::PPPOE_SESSION => header::PPPOE,
        ether_type::MPLS_UNICAST | ether_type::MPLS_MULTICAST => header::MPLS,
        length if length < ether_type::FIRST => return Err(Unparsed::Llc),
        _ => return Err(Unparsed::NotIp),
    })
}

#[inline(always)]
pub(super) fn vlan<F: Frame + ?Sized>(
    frame: &F,
    cursor: &mut Cursor,
    packet: &mut Packet,
) -> Result<(), Unparsed> {
    if cursor.tags >= u32::from(MAX_VLAN_TAGS) {
        return Err(Unparsed::VlanDepth);
    }
    let [c0, c1, t0, t1] = cursor
        .peek::<_, 4>(frame, 0)
        .ok_or(Unparsed::TruncatedLink)?;
    cursor.tags += 1;
    // Tags inside a tunnel say nothing of where the packet comes from.
    if packet.layer_count == 0 && cursor.tunnel == 0 {
        let id = u16::from_be_bytes([c0, c1]) & 0x0fff;
        match cursor.tags {
            1 => packet.vlan_ids[0] = id,
            2 => packet.vlan_ids[1] = id,
            _ => {}
        }
        packet.vlan_tags = cursor.tags as u8;
    }
    cursor.advance(VLAN_LEN, of_type(u16::from_be_bytes([t0, t1]))?);
    Ok(())
}

/// RFC 2516 section 6: session stage.
#[inline(always)]
pub(super) fn pppoe<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    let [version_and_type, code, _, _, l0, l1] =
        cursor.peek::<_, 6>(frame, 0).ok_or(Unparsed::Pppoe)?;
    if version_and_type != 0x11 || code != 0 {
        return Err(Unparsed::Pppoe);
    }
    let length = u32::from(u16::from_be_bytes([l0, l1]));
    cursor.end_at(cursor.offset + PPPOE_LEN + length);
    cursor.advance(PPPOE_LEN, header::PPP);
    Ok(())
}

/// RFC 1661 section 2, with address and control field (RFC 1662 section 3.1)
/// or without, and with the protocol field compressed (RFC 1661 section 6.5) or
/// not.
#[inline(always)]
pub(super) fn ppp<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    let [a, b] = cursor.peek::<_, 2>(frame, 0).ok_or(Unparsed::Ppp)?;
    if a == 0xff && b == 0x03 {
        cursor.offset += 2;
    }
    let [a, b] = cursor.peek::<_, 2>(frame, 0).ok_or(Unparsed::Ppp)?;
    // The last byte of a number is odd, all before it are even.
    let (protocol, length) = if a & 1 == 1 {
        (u16::from(a), 1)
    } else {
        (u16::from_be_bytes([a, b]), 2)
    };
    let next = match protocol {
        ppp_protocol::IPV4 => header::IPV4,
        ppp_protocol::IPV6 => header::IPV6,
        ppp_protocol::MPLS_UNICAST | ppp_protocol::MPLS_MULTICAST => header::MPLS,
        _ => return Err(Unparsed::Ppp),
    };
    cursor.advance(length, next);
    Ok(())
}

/// One label. What follows the last one is told by its first four bits, as
/// routers tell it (RFC 4928 section 3): 4 and 6 are IP, a pseudowire's
/// control word starts with 0 (RFC 4385).
#[inline(always)]
pub(super) fn mpls<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    if cursor.labels >= u32::from(MAX_MPLS_LABELS) {
        return Err(Unparsed::Mpls);
    }
    let [_, _, bottom, _] = cursor.peek::<_, 4>(frame, 0).ok_or(Unparsed::Mpls)?;
    cursor.labels += 1;
    if bottom & 1 == 0 {
        cursor.advance(MPLS_LEN, header::MPLS);
        return Ok(());
    }
    let [first] = cursor.peek::<_, 1>(frame, MPLS_LEN).ok_or(Unparsed::Mpls)?;
    let next = match first >> 4 {
        4 => header::IPV4,
        6 => header::IPV6,
        _ => return Err(Unparsed::Mpls),
    };
    cursor.labels = 0;
    cursor.advance(MPLS_LEN, next);
    Ok(())
}

/// The header that a type announces in GRE and Geneve.
#[inline(always)]
pub(super) fn of_tunnel_type(ether_type: u16) -> Result<u32, Unparsed> {
    Ok(match ether_type {
        ether_type::IPV4 => header::IPV4,
        ether_type::IPV6 => header::IPV6,
        ether_type::TRANSPARENT_BRIDGING => header::ETHERNET,
        ether_type::MPLS_UNICAST | ether_type::MPLS_MULTICAST => header::MPLS,
        ether_type::PPP => header::PPP,
        _ => return Err(Unparsed::Tunnel),
    })
}
