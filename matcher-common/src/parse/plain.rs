//! The two ends of a plain packet, without taking it apart: what nearly every
//! packet is judged by.

use super::{Frame, link::ether_type as known, tunnel, upper::protocol};

/// Where the IP header of a plain packet starts: behind one of Ethernet.
const IP: usize = 14;
/// Version 4, and a header of 20 bytes: no options.
const VERSION_AND_LENGTH: u8 = 0x45;
/// Ports that a packet must have room for behind its IP header.
const PORTS_LEN: u16 = 4;

/// Source and destination of TCP or UDP above IPv4, without VLAN tags, options,
/// a tunnel or a fragment offset; `None` for every other packet, of which
/// [`parse`](super::parse) tells what it is. What this gives is what it would
/// give.
#[inline(always)]
pub fn ends_v4<F: Frame + ?Sized>(frame: &F) -> Option<[[u8; 4]; 2]> {
    let [t0, t1, header @ ..]: [u8; 26] = frame.read(IP - 2)?;
    if u16::from_be_bytes([t0, t1]) != known::IPV4 {
        return None;
    }
    let total_len = u16::from_be_bytes([header[2], header[3]]);
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3, p0, p1, p2, p3] = header;
    if header[0] != VERSION_AND_LENGTH
        || total_len < 20 + PORTS_LEN
        || fragment_offset != 0
        || !ends_here(header[9], [p0, p1, p2, p3])
    {
        return None;
    }
    Some([[s0, s1, s2, s3], [d0, d1, d2, d3]])
}

/// The same for IPv6, without extension headers.
#[inline(always)]
pub fn ends_v6<F: Frame + ?Sized>(frame: &F) -> Option<[[u8; 16]; 2]> {
    if ether_type(frame)? != known::IPV6 {
        return None;
    }
    let [version, _, _, _, l0, l1, protocol, _] = frame.read(IP)?;
    let [source, destination] = [frame.read(IP + 8)?, frame.read(IP + 24)?];
    let ports = frame.read(IP + 40)?;
    // Length 0: segmentation left to the NIC, or a jumbogram.
    if version >> 4 != 6 || u16::from_be_bytes([l0, l1]) < PORTS_LEN || !ends_here(protocol, ports)
    {
        return None;
    }
    Some([source, destination])
}

#[inline(always)]
fn ether_type<F: Frame + ?Sized>(frame: &F) -> Option<u16> {
    frame.read(IP - 2).map(u16::from_be_bytes)
}

/// Whether this is TCP, or UDP that is no tunnel's.
#[inline(always)]
fn ends_here(protocol: u8, [s0, s1, d0, d1]: [u8; 4]) -> bool {
    match protocol {
        protocol::TCP => true,
        protocol::UDP => {
            let [source, destination] = [[s0, s1], [d0, d1]].map(u16::from_be_bytes);
            tunnel::announced(source, destination).is_none()
        }
        _ => false,
    }
}
