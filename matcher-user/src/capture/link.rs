//! Link types: what a captured packet starts with (the registry at
//! www.tcpdump.org/linktypes.html).

use std::{borrow::Cow, fmt};

use super::Packet;

/// What a captured packet starts with.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// An Ethernet header (1).
    Ethernet,
    /// An IPv4 or IPv6 header (101; 12 and 14, which BSDs write for it; 228 for
    /// IPv4 alone, 229 for IPv6 alone).
    RawIp,
    /// Another number of the registry, which is not read. Shown by its name.
    Other(u32),
}

/// Names of the link types that captures of IP networks come with.
const NAMES: [(u32, &str); 32] = [
    (0, "BSD loopback"),
    (6, "Token Ring"),
    (7, "ARCNET"),
    (8, "SLIP"),
    (9, "PPP"),
    (10, "FDDI"),
    (50, "PPP in HDLC framing"),
    (51, "PPPoE"),
    (100, "ATM (RFC 1483)"),
    (104, "Cisco HDLC"),
    (105, "IEEE 802.11"),
    (107, "Frame Relay"),
    (108, "OpenBSD loopback"),
    (109, "OpenBSD enc"),
    (113, "Linux cooked"),
    (117, "OpenBSD pflog"),
    (119, "Prism and 802.11"),
    (122, "IP over Fibre Channel"),
    (127, "radiotap and 802.11"),
    (129, "ARCNET on Linux"),
    (138, "IP over IEEE 1394"),
    (143, "DOCSIS"),
    (163, "AVS and 802.11"),
    (187, "Bluetooth HCI"),
    (189, "USB on Linux"),
    (192, "PPI"),
    (195, "IEEE 802.15.4"),
    (220, "USB on Linux, padded"),
    (239, "NFLOG"),
    (252, "Wireshark exported PDU"),
    (253, "Netlink"),
    (276, "Linux cooked v2"),
];

impl LinkType {
    /// From a number of the registry.
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Ethernet,
            12 | 14 | 101 | 228 | 229 => Self::RawIp,
            other => Self::Other(other),
        }
    }

    /// From the last field of a pcap file header, whose top six bits say
    /// whether, and how long, frame check sequences follow the packets.
    pub(super) fn from_pcap_header(field: u32) -> Self {
        Self::from_number(field & 0x03ff_ffff)
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match self {
            Self::Ethernet => return f.write_str("Ethernet"),
            Self::RawIp => return f.write_str("raw IP"),
            Self::Other(number) => number,
        };
        match NAMES.iter().find(|(named, _)| named == number) {
            Some((_, name)) => write!(f, "{name} (link type {number})"),
            None => write!(f, "link type {number}"),
        }
    }
}

/// The packet as an Ethernet frame, or `None` for link types that are not read.
///
/// Raw IP gets an Ethernet header of zero addresses whose type follows the
/// version in the first byte: 4 is 0x0800, 6 is 0x86dd. Another version, or no
/// byte at all, gets type 0: that is no EtherType, so such a packet is parsed,
/// and counted, as one that does not hold IP.
pub fn ethernet_frame(packet: &Packet) -> Option<Cow<'_, [u8]>> {
    match packet.link {
        LinkType::Ethernet => Some(Cow::Borrowed(&packet.data)),
        LinkType::RawIp => {
            let ethertype: u16 = match packet.data.first().map(|byte| byte >> 4) {
                Some(4) => 0x0800,
                Some(6) => 0x86dd,
                _ => 0,
            };
            let mut frame = Vec::with_capacity(14 + packet.data.len());
            frame.extend_from_slice(&[0; 12]);
            frame.extend_from_slice(&ethertype.to_be_bytes());
            frame.extend_from_slice(&packet.data);
            Some(Cow::Owned(frame))
        }
        LinkType::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn packet(link: LinkType, data: &[u8]) -> Packet {
        Packet {
            number: 1,
            time: Timestamp::UNIX_EPOCH,
            link,
            data: data.to_vec(),
            original_length: 0,
        }
    }

    #[test]
    fn raw_ip_gets_the_ethertype_of_its_version() {
        for (first, ethertype) in [(0x45, [0x08, 0x00]), (0x60, [0x86, 0xdd]), (0x05, [0, 0])] {
            let packet = packet(LinkType::RawIp, &[first, 0xff]);
            let frame = ethernet_frame(&packet).unwrap();
            assert_eq!(frame[..12], [0; 12]);
            assert_eq!(frame[12..14], ethertype);
            assert_eq!(frame[14..], [first, 0xff]);
        }
        assert_eq!(
            ethernet_frame(&packet(LinkType::RawIp, &[])).unwrap()[..],
            [0; 14]
        );
    }

    #[test]
    fn ethernet_stays_as_it_is_and_others_give_no_frame() {
        let ethernet = packet(LinkType::Ethernet, &[1, 2, 3]);
        assert_eq!(ethernet_frame(&ethernet).unwrap()[..], [1, 2, 3]);
        assert_eq!(ethernet_frame(&packet(LinkType::Other(113), &[1])), None);
    }

    #[test]
    fn link_types_are_shown_by_name() {
        assert_eq!(LinkType::from_number(1).to_string(), "Ethernet");
        assert_eq!(LinkType::from_number(229).to_string(), "raw IP");
        assert_eq!(
            LinkType::from_number(113).to_string(),
            "Linux cooked (link type 113)"
        );
        assert_eq!(LinkType::from_number(9999).to_string(), "link type 9999");
    }

    #[test]
    fn frame_check_bits_do_not_hide_the_link_type() {
        assert_eq!(LinkType::from_pcap_header(0x4400_0001), LinkType::Ethernet);
    }
}
