//! The decision over one packet once more, in plain Rust: linear scans over
//! the lists as people wrote them. It knows neither the parser nor the
//! compiled tables, so that the kernel program can be held against it.
//!
//! [`worlds`] makes random lists and random packets to hold it against.

pub mod worlds;

use std::{cmp::Reverse, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use matcher_common::abi::{Counter, Tunnel, purposes, role};
use matcher_user::indicator::Indicator;

use crate::kernel::Counts;

/// Everything a decision depends on beside the packet.
#[derive(Clone, Debug)]
pub struct World {
    /// Role of the interface ([`role`]), if it has one.
    pub role: Option<u32>,
    /// Nobody can forge a subscriber's address on the interface.
    pub source_validated: bool,
    /// The emergency stop is on.
    pub stopped: bool,
    /// Consent is known to be what it is: the deadline lies ahead.
    pub consent_confirmed: bool,
    /// The subscriber space.
    pub subscribers: Vec<IpNet>,
    /// Who allows what.
    pub consent: Consent,
    /// Who holds some ports of addresses, and refuses purposes for these.
    pub sharers: Vec<Sharer>,
    /// Every C&C entry.
    pub indicators: Vec<Indicator>,
    /// The time that validity is held against.
    pub now: Timestamp,
}

/// Someone who holds some ports of the addresses of a prefix.
#[derive(Clone, Debug)]
pub struct Sharer {
    /// The addresses.
    pub prefix: IpNet,
    /// First and last port.
    pub ports: (u16, u16),
    /// Bits of [`purposes`].
    pub refused: u32,
}

/// What consent says of one end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Allows,
    Refuses,
    /// Someone who shares the address refuses, and who it is cannot be known.
    Unknown,
}

/// Who allows what, as bits of [`purposes`].
#[derive(Clone, Debug)]
pub enum Consent {
    /// Everyone allows everything, less what all lines that cover an address
    /// refuse.
    Refusals(Vec<(IpNet, u32)>),
    /// The longest prefix says it, or else the second part.
    LongestPrefix(Vec<(IpNet, u32)>, u32),
}

/// What a packet says, known from how it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Why it cannot be parsed to its end.
    pub unparsed: Option<Counter>,
    /// The IP layers, outermost first.
    pub layers: Vec<Layer>,
}

/// One IP layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Source and destination.
    pub addresses: (IpAddr, IpAddr),
    /// IP protocol above the extension headers.
    pub protocol: u8,
    /// In bytes.
    pub fragment_offset: u16,
    /// Source and destination port, where it has them.
    pub ports: Option<(u16, u16)>,
    /// What it was found in.
    pub tunnel: Option<Tunnel>,
}

/// What the program has to do with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How the packet leaves.
    pub verdict: Counter,
    /// Look-ups in the C&C tables for IPv4 and for IPv6.
    pub lookups: (u64, u64),
    /// Entries with a port met by a packet without ports.
    pub port_unknown: u64,
    /// The hit, with [`Counter::Matched`].
    pub hit: Option<Hit>,
}

/// A match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The subscriber sent the packet.
    pub outbound: bool,
    /// Id of the indicator.
    pub indicator: u32,
    /// The layer that matched.
    pub layer: usize,
    /// The layer whose address is the subscriber's.
    pub subscriber_layer: usize,
}

impl Answer {
    /// What the kernel counts for the packet when the ring buffer has room.
    pub fn counts(&self) -> Counts {
        let mut counts = vec![
            (self.verdict, 1),
            (Counter::Delivered, u64::from(self.hit.is_some())),
            (Counter::LookupsV4, self.lookups.0),
            (Counter::LookupsV6, self.lookups.1),
            (Counter::PortUnknown, self.port_unknown),
        ];
        counts.retain(|(_, count)| *count > 0);
        counts.sort_unstable();
        counts
    }
}

impl World {
    /// The decision.
    pub fn decide(&self, packet: &Packet) -> Answer {
        let unmatched = |verdict| Answer {
            verdict,
            lookups: (0, 0),
            port_unknown: 0,
            hit: None,
        };
        if self.stopped {
            return unmatched(Counter::Stopped);
        }
        if !self.consent_confirmed {
            return unmatched(Counter::ConsentExpired);
        }
        let Some(role) = self.role else {
            return unmatched(Counter::InterfaceUnknown);
        };
        if let Some(reason) = packet.unparsed {
            return unmatched(reason);
        }
        let layers = &packet.layers;
        let senders: Vec<bool> = layers
            .iter()
            .map(|layer| self.is_subscriber(layer.addresses.0))
            .collect();
        let receivers: Vec<bool> = layers
            .iter()
            .map(|layer| self.is_subscriber(layer.addresses.1))
            .collect();
        let any_sender = senders.contains(&true);
        if role == role::ACCESS && !any_sender {
            return unmatched(Counter::ForeignSource);
        }
        if role == role::CORE && any_sender {
            return unmatched(Counter::Spoofed);
        }
        if !any_sender && !receivers.contains(&true) {
            return unmatched(Counter::Transit);
        }
        let asked: Vec<Asked> = layers
            .iter()
            .flat_map(|layer| {
                let (source, destination) = layer.addresses;
                [
                    (source, layer.ports.map(|ports| ports.0)),
                    (destination, layer.ports.map(|ports| ports.1)),
                ]
            })
            .filter(|(end, _)| self.is_subscriber(*end))
            .map(|(end, port)| self.ask(end, port))
            .collect();
        if asked.contains(&Asked::Refuses) {
            return unmatched(Counter::OptedOut);
        }
        if asked.contains(&Asked::Unknown) {
            return unmatched(Counter::SharedAddress);
        }

        let mut answer = unmatched(Counter::NoMatch);
        for (index, layer) in layers.iter().enumerate() {
            for (outbound, subscribers, remote) in [
                (true, &senders, layer.addresses.1),
                (false, &receivers, layer.addresses.0),
            ] {
                // The layer's own address, or the nearest around it.
                let known_by = (0..=index).rev().find(|known_by| subscribers[*known_by]);
                let Some(subscriber_layer) = known_by else {
                    continue;
                };
                let port = layer
                    .ports
                    .map(|(source, destination)| if outbound { destination } else { source });
                let (indicator, port_unknown) = self.find(remote, layer.protocol, port);
                match remote {
                    IpAddr::V4(_) => answer.lookups.0 += 1,
                    IpAddr::V6(_) => answer.lookups.1 += 1,
                }
                answer.port_unknown += port_unknown;
                if let Some(indicator) = indicator {
                    answer.verdict = Counter::Matched;
                    answer.hit = Some(Hit {
                        outbound,
                        indicator,
                        layer: index,
                        subscriber_layer,
                    });
                    return answer;
                }
            }
        }
        answer
    }

    /// Whether the address lies in the subscriber space.
    pub fn is_subscriber(&self, address: IpAddr) -> bool {
        self.subscribers
            .iter()
            .any(|prefix| covers(prefix, address))
    }

    /// Whether the holder of this port of the address allows detection.
    fn ask(&self, address: IpAddr, port: Option<u16>) -> Asked {
        if self.allowed(address) & purposes::DETECT == 0 {
            return Asked::Refuses;
        }
        let refused = self.sharers.iter().any(|sharer| {
            let (first, last) = sharer.ports;
            covers(&sharer.prefix, address)
                && sharer.refused & purposes::DETECT != 0
                && port.is_none_or(|port| (first..=last).contains(&port))
        });
        match (refused, port) {
            (false, _) => Asked::Allows,
            (true, Some(_)) => Asked::Refuses,
            (true, None) => Asked::Unknown,
        }
    }

    /// The purposes that an address allows, whoever shares it.
    pub fn allowed(&self, address: IpAddr) -> u32 {
        match &self.consent {
            Consent::Refusals(lines) => lines
                .iter()
                .filter(|(prefix, _)| covers(prefix, address))
                .fold(ALL_PURPOSES, |allowed, (_, refused)| allowed & !refused),
            Consent::LongestPrefix(entries, default) => entries
                .iter()
                .filter(|(prefix, _)| covers(prefix, address))
                .max_by_key(|(prefix, _)| prefix.prefix_len())
                .map_or(*default, |(_, allowed)| *allowed),
        }
    }

    /// The entry that speaks of the packet, and how many were passed over on
    /// the way to it for want of a port. The order: longer prefix first, then
    /// entries with a port, then those with a protocol, then the lower id.
    fn find(&self, remote: IpAddr, protocol: u8, port: Option<u16>) -> (Option<u32>, u64) {
        let mut entries: Vec<&Indicator> = self
            .indicators
            .iter()
            .filter(|entry| covers(&entry.value, remote))
            .collect();
        entries.sort_by_key(|entry| {
            (
                Reverse(entry.value.prefix_len()),
                entry.qualifier.port.is_none(),
                entry.qualifier.protocol.is_none(),
                entry.id,
            )
        });
        let mut port_unknown = 0;
        for entry in entries {
            let other_protocol = entry
                .qualifier
                .protocol
                .is_some_and(|wanted| wanted.0 != protocol);
            let too_early = entry.valid_from.is_some_and(|from| self.now < from);
            let too_late = entry.valid_until.is_some_and(|until| self.now >= until);
            if other_protocol || too_early || too_late {
                continue;
            }
            match (entry.qualifier.port, port) {
                (Some(_), None) => port_unknown += 1,
                (Some(wanted), Some(port)) if wanted != port => {}
                _ => return (Some(entry.id.0), port_unknown),
            }
        }
        (None, port_unknown)
    }
}

/// The five purposes of R2.
pub const ALL_PURPOSES: u32 = purposes::DETECT
    | purposes::NOTIFY
    | purposes::VULNERABLE
    | purposes::BLOCK
    | purposes::DISCOVER;

/// Whether the first bits of the address are those of the prefix.
fn covers(prefix: &IpNet, address: IpAddr) -> bool {
    let (prefix_bits, address_bits, width) = match (prefix.addr(), address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        _ => return false,
    };
    // A shift by the full width is none in Rust.
    let different: u128 = prefix_bits ^ address_bits;
    different
        .checked_shr(width - u32::from(prefix.prefix_len()))
        .unwrap_or(0)
        == 0
}
