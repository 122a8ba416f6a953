//! Headers that carry other packets, below IP or above it.

use super::{Frame, header::Header};

/// Source port of tunnels over UDP.
const TUNNEL_CLIENT: u16 = 54321;

impl Frame {
    /// Another Ethernet header, inside a tunnel.
    pub fn inner_ethernet(self) -> Self {
        self.with(Header::Ethernet)
    }

    /// PPPoE session stage and PPP.
    pub fn pppoe(self) -> Self {
        self.with(Header::Carrier(Carrier::Pppoe { session: 7 }))
            .ppp()
    }

    /// PPPoE session stage and PPP with its protocol field in one byte.
    pub fn pppoe_compressed(self) -> Self {
        self.with(Header::Carrier(Carrier::Pppoe { session: 7 }))
            .with(Header::Carrier(Carrier::Ppp {
                address_and_control: false,
                compressed: true,
            }))
    }

    /// PPP as short as it may be.
    pub fn ppp(self) -> Self {
        self.with(Header::Carrier(Carrier::Ppp {
            address_and_control: false,
            compressed: false,
        }))
    }

    /// PPP with address and control field.
    pub fn ppp_framed(self) -> Self {
        self.with(Header::Carrier(Carrier::Ppp {
            address_and_control: true,
            compressed: false,
        }))
    }

    /// An MPLS label; the last one if no other follows.
    pub fn mpls(self, label: u32) -> Self {
        self.with(Header::Carrier(Carrier::Mpls { label }))
    }

    /// GRE of four bytes.
    pub fn gre(self) -> Self {
        self.gre_with(false, None, false)
    }

    /// GRE with what it may carry; checksum and sequence number are 0.
    pub fn gre_with(self, checksum: bool, key: Option<u32>, sequence: bool) -> Self {
        self.with(Header::Carrier(Carrier::Gre {
            checksum,
            key,
            sequence,
        }))
    }

    /// PPTP's GRE, and PPP.
    pub fn pptp(self, acknowledgment: bool) -> Self {
        self.with(Header::Carrier(Carrier::Pptp { acknowledgment }))
            .ppp_framed()
    }

    /// EtherIP, and the Ethernet header in it.
    pub fn etherip(self) -> Self {
        self.with(Header::Carrier(Carrier::EtherIp))
            .inner_ethernet()
    }

    /// UDP to VXLAN's port, VXLAN, and the Ethernet header in it.
    pub fn vxlan(self) -> Self {
        self.udp(TUNNEL_CLIENT, 4789)
            .with(Header::Carrier(Carrier::Vxlan { network: 42 }))
            .inner_ethernet()
    }

    /// UDP to Geneve's port and Geneve with so many times four bytes of
    /// options.
    pub fn geneve(self, options: u8) -> Self {
        self.udp(TUNNEL_CLIENT, 6081)
            .with(Header::Carrier(Carrier::Geneve {
                network: 42,
                options,
            }))
    }

    /// UDP to GTP-U's port and GTP-U with extension headers of so many times
    /// four bytes each.
    pub fn gtp_u(self, extensions: &[u8], sequence: bool) -> Self {
        self.udp(2152, 2152).with(Header::Carrier(Carrier::GtpU {
            tunnel: 42,
            extensions: extensions.to_vec(),
            sequence,
        }))
    }

    /// UDP to L2TP's port, L2TPv2 with what it may carry, and PPP.
    pub fn l2tp(self, length: bool, sequence: bool, offset: Option<u16>) -> Self {
        self.udp(1701, 1701)
            .with(Header::Carrier(Carrier::L2tp {
                length,
                sequence,
                offset,
            }))
            .ppp_framed()
    }
}

/// A header of a tunnel or of a layer between Ethernet and IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// PPPoE session stage.
    Pppoe { session: u16 },
    /// PPP, with address and control field, and with the protocol field in one
    /// byte.
    Ppp {
        address_and_control: bool,
        compressed: bool,
    },
    /// One label; the last one if no other follows.
    Mpls { label: u32 },
    /// GRE; checksum and sequence number are 0.
    Gre {
        checksum: bool,
        key: Option<u32>,
        sequence: bool,
    },
    /// PPTP's GRE.
    Pptp { acknowledgment: bool },
    /// Ethernet in IP.
    EtherIp,
    /// VXLAN.
    Vxlan { network: u32 },
    /// Geneve with so many times four bytes of options.
    Geneve { network: u32, options: u8 },
    /// GTP-U with extension headers of so many times four bytes, and a sequence
    /// number.
    GtpU {
        tunnel: u32,
        extensions: Vec<u8>,
        sequence: bool,
    },
    /// L2TPv2 data.
    L2tp {
        length: bool,
        sequence: bool,
        offset: Option<u16>,
    },
}

impl Carrier {
    /// The header before `body`, which starts with `next`.
    pub(super) fn bytes(&self, next: Option<&Header>, body: &[u8]) -> Vec<u8> {
        let length = |bytes: usize| (bytes as u16).to_be_bytes();
        let ethertype = next.map_or(0, Header::ethertype).to_be_bytes();
        match self {
            Self::Pppoe { session } => {
                [&[0x11, 0][..], &session.to_be_bytes(), &length(body.len())].concat()
            }
            Self::Ppp {
                address_and_control,
                compressed,
            } => {
                let mut bytes = Vec::new();
                if *address_and_control {
                    bytes.extend([0xff, 0x03]);
                }
                let [high, low] = next.map_or(0, ppp_protocol).to_be_bytes();
                if !compressed {
                    bytes.push(high);
                }
                bytes.push(low);
                bytes
            }
            Self::Mpls { label } => {
                let last = !matches!(next, Some(Header::Carrier(Self::Mpls { .. })));
                (label << 12 | u32::from(last) << 8 | 64)
                    .to_be_bytes()
                    .to_vec()
            }
            Self::Gre {
                checksum,
                key,
                sequence,
            } => {
                let flags = u16::from(*checksum) << 15
                    | u16::from(key.is_some()) << 13
                    | u16::from(*sequence) << 12;
                let mut bytes = [flags.to_be_bytes(), ethertype].concat();
                if *checksum {
                    bytes.extend([0; 4]);
                }
                if let Some(key) = key {
                    bytes.extend(key.to_be_bytes());
                }
                if *sequence {
                    bytes.extend([0; 4]);
                }
                bytes
            }
            Self::Pptp { acknowledgment } => {
                let mut bytes = vec![0x30, if *acknowledgment { 0x81 } else { 0x01 }, 0x88, 0x0b];
                bytes.extend(length(body.len()));
                bytes.extend([0, 9, 0, 0, 0, 1]);
                if *acknowledgment {
                    bytes.extend([0, 0, 0, 2]);
                }
                bytes
            }
            Self::EtherIp => vec![0x30, 0],
            Self::Vxlan { network } => [[0x08, 0, 0, 0], (network << 8).to_be_bytes()].concat(),
            Self::Geneve { network, options } => {
                let mut bytes = vec![*options, 0];
                bytes.extend(ethertype);
                bytes.extend((network << 8).to_be_bytes());
                bytes.resize(8 + usize::from(*options) * 4, 0);
                bytes
            }
            Self::GtpU {
                tunnel,
                extensions,
                sequence,
            } => {
                let extended = !extensions.is_empty();
                let mut rest = Vec::new();
                if extended || *sequence {
                    rest.extend([0, 1, 0, if extended { PDU_SESSION } else { 0 }]);
                }
                for (index, units) in extensions.iter().enumerate() {
                    let start = rest.len();
                    rest.push(*units);
                    rest.resize(start + usize::from(*units) * 4, 0);
                    if index + 1 < extensions.len()
                        && let Some(next) = rest.last_mut()
                    {
                        *next = PDU_SESSION;
                    }
                }
                let flags = 0x30 | u8::from(extended) << 2 | u8::from(*sequence) << 1;
                let mut bytes = vec![flags, 255];
                bytes.extend(length(rest.len() + body.len()));
                bytes.extend(tunnel.to_be_bytes());
                bytes.extend(rest);
                bytes
            }
            Self::L2tp {
                length: with_length,
                sequence,
                offset,
            } => {
                let flags = 2_u16
                    | u16::from(*with_length) << 14
                    | u16::from(*sequence) << 11
                    | u16::from(offset.is_some()) << 9;
                let mut rest = vec![0, 5, 0, 6];
                if *sequence {
                    rest.extend([0, 1, 0, 0]);
                }
                if let Some(offset) = offset {
                    rest.extend(offset.to_be_bytes());
                    rest.resize(rest.len() + usize::from(*offset), 0);
                }
                let mut bytes = flags.to_be_bytes().to_vec();
                if *with_length {
                    bytes.extend(length(4 + rest.len() + body.len()));
                }
                bytes.extend(rest);
                bytes
            }
        }
    }

    pub(super) fn ethertype(&self) -> u16 {
        match self {
            Self::Pppoe { .. } => 0x8864,
            Self::Mpls { .. } => 0x8847,
            Self::Ppp { .. } => 0x880b,
            _ => 0,
        }
    }

    pub(super) fn protocol(&self) -> u8 {
        match self {
            Self::Gre { .. } | Self::Pptp { .. } => 47,
            Self::EtherIp => 97,
            Self::Mpls { .. } => 137,
            _ => 59,
        }
    }
}

/// 3GPP TS 29.281 section 5.2.1.
const PDU_SESSION: u8 = 0x85;

/// How PPP announces a header.
fn ppp_protocol(header: &Header) -> u16 {
    match header {
        Header::Ipv4 { .. } => 0x0021,
        Header::Ipv6 { .. } => 0x0057,
        Header::Carrier(Carrier::Mpls { .. }) => 0x0281,
        Header::Announced(number) => *number,
        _ => 0,
    }
}
