//! Tunnels with a header of their own: GRE, EtherIP, and those above UDP.
//!
//! A UDP port alone proves nothing: where the header behind it cannot be that
//! of the tunnel, or carries signalling and no subscriber's packet, it is a
//! plain UDP packet.

use super::{
    Frame, Unparsed,
    cursor::{Cursor, header},
    link::{ether_type, of_tunnel_type},
};
use crate::abi::Tunnel;

/// UDP ports (IANA).
mod port {
    /// L2TP, RFC 2661 section 8.1.
    pub(super) const L2TP: u16 = 1701;
    /// GTP-U, 3GPP TS 29.281 section 4.4.2.
    pub(super) const GTP_U: u16 = 2152;
    /// VXLAN, RFC 7348 section 5.
    pub(super) const VXLAN: u16 = 4789;
    /// VXLAN as Linux sends it unless told otherwise.
    pub(super) const VXLAN_LINUX: u16 = 8472;
    /// VXLAN with the protocol of what follows (draft-ietf-nvo3-vxlan-gpe).
    pub(super) const VXLAN_GPE: u16 = 4790;
    /// Geneve, RFC 8926 section 3.3.
    pub(super) const GENEVE: u16 = 6081;
    /// MPLS, RFC 7510 section 3.
    pub(super) const MPLS: u16 = 6635;
}

const UDP_LEN: u32 = 8;

/// The header that the ports of a UDP packet announce.
#[inline(always)]
pub(super) fn announced(source: u16, destination: u16) -> Option<u32> {
    Some(match destination {
        port::L2TP => header::L2TP,
        port::GTP_U => header::GTP_U,
        port::VXLAN | port::VXLAN_LINUX | port::VXLAN_GPE => header::VXLAN,
        port::GENEVE => header::GENEVE,
        port::MPLS => header::MPLS,
        // An answer goes to whatever port asked.
        _ if source == port::L2TP => header::L2TP,
        _ => return None,
    })
}

/// Into the tunnel that the ports of a UDP packet announce, if any.
#[inline(always)]
pub(super) fn over_udp<F: Frame + ?Sized>(
    frame: &F,
    source: u16,
    destination: u16,
    cursor: &mut Cursor,
) {
    let Some(next) = announced(source, destination) else {
        return;
    };
    if next == header::MPLS {
        cursor.tunnel = Tunnel::MplsInIp as u32;
    }
    if let Some([l0, l1]) = cursor.peek::<_, 2>(frame, 4) {
        let length = u32::from(u16::from_be_bytes([l0, l1]));
        // 0: segmentation left to the NIC, or a jumbogram (RFC 2675 section 4).
        if length >= UDP_LEN {
            cursor.end_at(cursor.offset + length);
        }
    }
    cursor.advance(UDP_LEN, next);
}

/// Enters a tunnel, `length` bytes further on.
#[inline(always)]
fn enter(cursor: &mut Cursor, tunnel: Tunnel, length: u32, next: u32) {
    cursor.tunnel = tunnel as u32;
    cursor.advance(length, next);
}

/// A plain UDP packet after all.
#[inline(always)]
fn plain(cursor: &mut Cursor) -> Result<(), Unparsed> {
    cursor.next = header::DONE;
    Ok(())
}

/// RFC 2784, with key and sequence number (RFC 2890); version 1 is PPTP's (RFC
/// 2637 section 4.1).
#[inline(always)]
pub(super) fn gre<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ACKNOWLEDGMENT: u16 = 0x0080;
    const VERSION: u16 = 0x0007;

    let [f0, f1, t0, t1] = cursor
        .peek::<_, 4>(frame, 0)
        .ok_or(Unparsed::TruncatedTunnel)?;
    let flags = u16::from_be_bytes([f0, f1]);
    let ether_type = u16::from_be_bytes([t0, t1]);
    let present = |flag: u16| if flags & flag != 0 { 4 } else { 0 };
    // RFC 1701's source routes were never used, and move what follows.
    if flags & ROUTING != 0 {
        return Err(Unparsed::Tunnel);
    }
    match flags & VERSION {
        0 => {
            let length = 4 + present(CHECKSUM) + present(KEY) + present(SEQUENCE);
            enter(cursor, Tunnel::Gre, length, of_tunnel_type(ether_type)?);
        }
        1 if flags & KEY != 0 && ether_type == ether_type::PPP => {
            let length = 8 + present(SEQUENCE) + present(ACKNOWLEDGMENT);
            if flags & SEQUENCE == 0 {
                // An acknowledgment alone.
                return plain(cursor);
            }
            enter(cursor, Tunnel::Pptp, length, header::PPP);
        }
        _ => return Err(Unparsed::Tunnel),
    }
    Ok(())
}

/// RFC 3378 section 3: version 3 and twelve bits of zero, then Ethernet.
#[inline(always)]
pub(super) fn etherip<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    let bytes = cursor
        .peek::<_, 2>(frame, 0)
        .ok_or(Unparsed::TruncatedTunnel)?;
    if bytes != [0x30, 0] {
        return Err(Unparsed::Tunnel);
    }
    cursor.advance(2, header::ETHERNET);
    Ok(())
}

/// RFC 2661 section 3.1, data messages; version 3 (RFC 3931 section 4.1.2.1)
/// hides the length of its header.
#[inline(always)]
pub(super) fn l2tp<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    const CONTROL: u16 = 0x8000;
    const LENGTH: u16 = 0x4000;
    const SEQUENCE: u16 = 0x0800;
    const OFFSET: u16 = 0x0200;
    const VERSION: u16 = 0x000f;

    let Some([f0, f1, l0, l1]) = cursor.peek::<_, 4>(frame, 0) else {
        return plain(cursor);
    };
    let flags = u16::from_be_bytes([f0, f1]);
    match flags & VERSION {
        2 | 3 if flags & CONTROL != 0 => return plain(cursor),
        2 => {}
        3 => return Err(Unparsed::Tunnel),
        _ => return plain(cursor),
    }
    // Tunnel and session id.
    let mut length = 2 + 4;
    if flags & LENGTH != 0 {
        length += 2;
        cursor.end_at(cursor.offset + u32::from(u16::from_be_bytes([l0, l1])));
    }
    if flags & SEQUENCE != 0 {
        length += 4;
    }
    if flags & OFFSET != 0 {
        let [o0, o1] = cursor
            .peek::<_, 2>(frame, length)
            .ok_or(Unparsed::TruncatedTunnel)?;
        length += 2 + u32::from(u16::from_be_bytes([o0, o1]));
    }
    enter(cursor, Tunnel::L2tp, length, header::PPP);
    Ok(())
}

/// RFC 7348 section 5. All bits but one are reserved and ignored, but the one
/// that says that something else than Ethernet follows (draft-ietf-nvo3-vxlan-gpe):
/// what that is is not read.
#[inline(always)]
pub(super) fn vxlan<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    const VALID: u8 = 0x08;
    const NEXT_PROTOCOL: u8 = 0x04;
    const ETHERNET: u8 = 3;
    match cursor.peek::<_, 8>(frame, 0) {
        Some([flags, _, _, next, ..])
            if flags & NEXT_PROTOCOL != 0 && flags & VALID != 0 && next != ETHERNET =>
        {
            Err(Unparsed::Tunnel)
        }
        Some([flags, ..]) if flags & VALID != 0 => {
            enter(cursor, Tunnel::Vxlan, 8, header::ETHERNET);
            Ok(())
        }
        _ => plain(cursor),
    }
}

/// RFC 8926 section 3.4.
#[inline(always)]
pub(super) fn geneve<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    const CONTROL: u8 = 0x80;
    let Some([version_and_length, flags, t0, t1, ..]) = cursor.peek::<_, 8>(frame, 0) else {
        return plain(cursor);
    };
    if version_and_length >> 6 != 0 || flags & CONTROL != 0 {
        return plain(cursor);
    }
    let options = u32::from(version_and_length & 0x3f) * 4;
    let next = of_tunnel_type(u16::from_be_bytes([t0, t1]))?;
    enter(cursor, Tunnel::Geneve, 8 + options, next);
    Ok(())
}

/// 3GPP TS 29.281 section 5.1: G-PDUs carry packets, all else is signalling.
#[inline(always)]
pub(super) fn gtp_u<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    const VERSION_1: u8 = 0x30;
    const VERSION_MASK: u8 = 0xf0;
    const EXTENSION: u8 = 0x04;
    /// Any of the three that make the header four bytes longer.
    const LONGER: u8 = 0x07;
    const G_PDU: u8 = 255;

    let Some([flags, message, l0, l1, ..]) = cursor.peek::<_, 8>(frame, 0) else {
        return plain(cursor);
    };
    if flags & VERSION_MASK != VERSION_1 || message != G_PDU {
        return plain(cursor);
    }
    // The length counts what follows the first eight bytes.
    cursor.end_at(cursor.offset + 8 + u32::from(u16::from_be_bytes([l0, l1])));
    cursor.tunnel = Tunnel::GtpU as u32;
    if flags & LONGER == 0 {
        cursor.advance(8, 0);
        return gtp_u_payload(frame, cursor);
    }
    let [next] = cursor
        .peek::<_, 1>(frame, 11)
        .ok_or(Unparsed::TruncatedTunnel)?;
    if flags & EXTENSION != 0 && next != 0 {
        cursor.advance(12, header::GTP_U_EXTENSION);
        return Ok(());
    }
    cursor.advance(12, 0);
    gtp_u_payload(frame, cursor)
}

/// 3GPP TS 29.281 section 5.2.1: the length in units of four bytes first, the
/// type of the next one last.
#[inline(always)]
pub(super) fn gtp_u_extension<F: Frame + ?Sized>(
    frame: &F,
    cursor: &mut Cursor,
) -> Result<(), Unparsed> {
    let [units] = cursor
        .peek::<_, 1>(frame, 0)
        .ok_or(Unparsed::TruncatedTunnel)?;
    if units == 0 {
        return Err(Unparsed::Tunnel);
    }
    let length = u32::from(units) * 4;
    let [next] = cursor
        .peek::<_, 1>(frame, length - 1)
        .ok_or(Unparsed::TruncatedTunnel)?;
    if next != 0 {
        cursor.advance(length, header::GTP_U_EXTENSION);
        return Ok(());
    }
    cursor.advance(length, 0);
    gtp_u_payload(frame, cursor)
}

/// A packet of the user: IP as its first four bits say. Nothing else tells.
#[inline(always)]
fn gtp_u_payload<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    let [first] = cursor
        .peek::<_, 1>(frame, 0)
        .ok_or(Unparsed::TruncatedTunnel)?;
    cursor.next = match first >> 4 {
        4 => header::IPV4,
        6 => header::IPV6,
        _ => return Err(Unparsed::Tunnel),
    };
    Ok(())
}

/// RFC 7761 section 4.9: a Register carries a packet of whoever sends to the
/// group, which is not read. All else is between routers.
#[inline(always)]
pub(super) fn pim<F: Frame + ?Sized>(frame: &F, cursor: &mut Cursor) -> Result<(), Unparsed> {
    /// Version 2, type 1.
    const REGISTER: u8 = 0x21;
    match cursor.peek::<_, 1>(frame, 0) {
        Some([REGISTER]) => Err(Unparsed::Tunnel),
        _ => plain(cursor),
    }
}
