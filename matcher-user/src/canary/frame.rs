//! The canary's packet: UDP over IP over Ethernet, with right checksums.

use std::net::IpAddr;

use crate::{canary::PROTOCOL, config::CanaryConfig, hit::Direction};

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// For whoever finds it in a dump of memory.
const PAYLOAD: &[u8] = b"matcher canary: no traffic";
const UDP_HEADER: usize = 8;

/// The packet of one flow; `port` is the subscriber's, and tells it from
/// others.
pub fn frame(config: &CanaryConfig, direction: Direction, port: u16) -> Vec<u8> {
    let ((source, source_port), (destination, destination_port)) = match direction {
        Direction::Outbound => ((config.subscriber, port), (config.remote, config.port)),
        Direction::Inbound => ((config.remote, config.port), (config.subscriber, port)),
    };
    let length = u16::try_from(UDP_HEADER + PAYLOAD.len()).unwrap_or(u16::MAX);
    let mut udp = Vec::new();
    udp.extend(source_port.to_be_bytes());
    udp.extend(destination_port.to_be_bytes());
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(PAYLOAD);
    let (source, destination) = (octets(source), octets(destination));
    // RFC 768, RFC 8200 section 8.1: over a pseudo-header too.
    let mut summed = [source.as_slice(), destination.as_slice()].concat();
    summed.extend([0, PROTOCOL.0]);
    summed.extend(length.to_be_bytes());
    summed.extend(&udp);
    let sum = match checksum(&summed) {
        0 => u16::MAX,
        sum => sum,
    };
    put(&mut udp, 6, sum);

    // Locally administered, nobody's.
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    if source.len() == 4 {
        frame.extend(ETHERTYPE_IPV4);
        let mut header = vec![0x45, 0];
        header.extend((length + 20).to_be_bytes());
        // No id, may not be fragmented, 64 hops.
        header.extend([0, 0, 0x40, 0, 64, PROTOCOL.0, 0, 0]);
        header.extend(&source);
        header.extend(&destination);
        let sum = checksum(&header);
        put(&mut header, 10, sum);
        frame.extend(header);
    } else {
        frame.extend(ETHERTYPE_IPV6);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([PROTOCOL.0, 64]);
        frame.extend(&source);
        frame.extend(&destination);
    }
    frame.extend(udp);
    frame
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(slot) = bytes.get_mut(at..at + 2) {
        slot.copy_from_slice(&value.to_be_bytes());
    }
}

/// The Internet checksum, RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
