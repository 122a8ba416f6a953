//! What one side, matcher or tshark, says of a packet, in the terms that both have.

use std::fmt;
use std::net::IpAddr;

/// One IP layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Number of what stands above the layer and its extension headers.
    pub protocol: u8,
    /// In bytes.
    pub fragment_offset: u32,
    /// Of the transport header directly above.
    pub source_port: Option<u16>,
    /// The same.
    pub destination_port: Option<u16>,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = |port: Option<u16>| port.map_or(String::new(), |port| format!(" port {port}"));
        write!(
            f,
            "{}{} > {}{} protocol {}",
            self.source,
            port(self.source_port),
            self.destination,
            port(self.destination_port),
            self.protocol
        )?;
        if self.fragment_offset > 0 {
            write!(f, " fragment at {}", self.fragment_offset)?;
        }
        Ok(())
    }
}

/// A packet as matcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours {
    /// Number in the capture, from 1.
    pub packet: u64,
    /// IP layers, outermost first.
    pub layers: Vec<Layer>,
    /// VLAN tags in front of everything.
    pub vlan_tags: usize,
    /// Why it was not read to its end, if so.
    pub unparsed: Option<String>,
}

/// A packet as tshark sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Theirs {
    /// IP layers, outermost first.
    pub layers: Vec<Layer>,
    /// VLAN tags in front of the outermost layer.
    pub vlan_tags: usize,
    /// The protocols in front of the outermost IP layer that are neither Ethernet nor VLAN tags.
    pub below: Vec<String>,
    /// Every protocol, lowest first.
    pub protocols: Vec<String>,
}
