//! The decision over one packet once more, in plain Rust: linear scans over
//! the lists as people wrote them. It knows neither the parser nor the
//! compiled tables, so that the kernel program can be held against it.
//!
//! [`worlds`] makes random lists and random packets to hold it against.

pub mod worlds;

use std::{cmp::Reverse, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use matcher_common::abi::{Counter, purposes, role};
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
    /// Every C&C entry.
    pub indicators: Vec<Indicator>,
    /// The time that validity is held against.
    pub now: Timestamp,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why it cannot be parsed to its end.
    pub unparsed: Option<Counter>,
    /// Source and destination; `None` where there is no IP header.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// IP protocol.
    pub protocol: u8,
    /// Source and destination port, where it has them.
    pub ports: Option<(u16, u16)>,
}

/// What the program has to do with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How the packet leaves.
    pub verdict: Counter,
    /// Look-ups in the C&C tables.
    pub lookups: u64,
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
}

impl Answer {
    /// What the kernel counts for the packet when the ring buffer has room.
    pub fn counts(&self, packet: &Packet) -> Counts {
        let lookups = match packet.addresses {
            Some((IpAddr::V6(_), _)) => Counter::LookupsV6,
            _ => Counter::LookupsV4,
        };
        let mut counts = vec![
            (self.verdict, 1),
            (Counter::Delivered, u64::from(self.hit.is_some())),
            (lookups, self.lookups),
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
            lookups: 0,
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
        let Some((source, destination)) = packet.addresses else {
            return unmatched(Counter::NotIp);
        };
        let from = self.is_subscriber(source);
        let to = self.is_subscriber(destination);
        if role == role::ACCESS && !from {
            return unmatched(Counter::ForeignSource);
        }
        if role == role::CORE && from {
            return unmatched(Counter::Spoofed);
        }
        if !from && !to {
            return unmatched(Counter::Transit);
        }
        let refuses = |address| self.allowed(address) & purposes::DETECT == 0;
        if (from && refuses(source)) || (to && refuses(destination)) {
            return unmatched(Counter::OptedOut);
        }

        let mut answer = unmatched(Counter::NoMatch);
        for (outbound, is_subscriber, remote) in [(true, from, destination), (false, to, source)] {
            if !is_subscriber || answer.hit.is_some() {
                continue;
            }
            let port = packet
                .ports
                .map(|(source, destination)| if outbound { destination } else { source });
            let (indicator, port_unknown) = self.find(remote, packet.protocol, port);
            answer.lookups += 1;
            answer.port_unknown += port_unknown;
            if let Some(indicator) = indicator {
                answer.verdict = Counter::Matched;
                answer.hit = Some(Hit {
                    outbound,
                    indicator,
                });
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

    /// The purposes that an address allows.
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
