//! The capture that the guest replays: one packet of each kind that must, or must not, match.

use std::net::IpAddr;

/// Packets in order: source, destination, destination port.
const PACKETS: [(&str, &str, u16); 8] = [
    // A subscriber to a C&C server, and its answer.
    ("203.0.113.7", "198.51.100.23", 443),
    ("198.51.100.23", "203.0.113.7", 51413),
    // To somebody else.
    ("203.0.113.7", "192.0.2.1", 443),
    // A subscriber who opted out.
    ("203.0.113.9", "198.51.100.23", 443),
    // The listed port, and another one.
    ("203.0.113.7", "198.51.100.80", 443),
    ("203.0.113.7", "198.51.100.80", 80),
    // IPv6, by prefix.
    ("2001:db8:1::7", "2001:db8:c2::5", 443),
    // Neither end is a subscriber.
    ("192.0.2.1", "198.51.100.23", 443),
];

/// The hits that the packets must give: number from 1, and the C&C's address.
pub const HITS: [(u32, &str); 4] = [
    (1, "198.51.100.23"),
    (2, "198.51.100.23"),
    (5, "198.51.100.80"),
    (7, "2001:db8:c2::5"),
];

/// The packets as a pcap file (link type Ethernet, microseconds).
pub fn pcap() -> Vec<u8> {
    let mut file = Vec::new();
    file.extend_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
    file.extend_from_slice(&[2, 0, 4, 0]);
    file.extend_from_slice(&[0; 8]);
    file.extend_from_slice(&65_535_u32.to_le_bytes());
    file.extend_from_slice(&1_u32.to_le_bytes());
    for (number, (source, destination, port)) in (0_u32..).zip(PACKETS) {
        let Some(frame) = frame(source, destination, port) else {
            continue;
        };
        let length = u32::try_from(frame.len()).unwrap_or_default();
        // From 22 November 2026 on, a second apart.
        for word in [1_795_305_600 + number, 0, length, length] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(&frame);
    }
    file
}

/// An Ethernet frame with an empty UDP datagram from port 51413; `None` when the addresses are
/// not of one family.
fn frame(source: &str, destination: &str, port: u16) -> Option<Vec<u8>> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    match (source.parse().ok()?, destination.parse().ok()?) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend_from_slice(&[0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend_from_slice(&source.octets());
            frame.extend_from_slice(&destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
            frame.extend_from_slice(&source.octets());
            frame.extend_from_slice(&destination.octets());
        }
        _ => return None,
    }
    frame.extend_from_slice(&51_413_u16.to_be_bytes());
    frame.extend_from_slice(&port.to_be_bytes());
    frame.extend_from_slice(&[0, 8, 0, 0]);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_is_in_the_file() {
        // Header, then per packet a record header, Ethernet, IP and UDP.
        assert_eq!(
            pcap().len(),
            24 + 7 * (16 + 14 + 20 + 8) + (16 + 14 + 40 + 8)
        );
    }

    #[test]
    fn every_expected_hit_names_an_end_of_its_packet() {
        for (packet, remote) in HITS {
            let (source, destination, _) = PACKETS[packet as usize - 1];
            assert!(remote == source || remote == destination, "packet {packet}");
        }
    }
}
