//! Which indicators cover an address, and which of them match.

use std::{cmp::Reverse, fmt, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;

use super::{IndicatorSet, identity};
use crate::{
    indicator::{DomainName, Indicator, Qualifier},
    protocol::Protocol,
};

/// An indicator whose value covers the address asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covering<'a> {
    /// The indicator.
    pub indicator: &'a Indicator,
    /// Why it does not match; empty when it does.
    pub mismatches: Vec<Mismatch>,
}

/// Why an indicator that covers an address does not match.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It is limited to this port, and the packet has another one or none.
    Port(u16),
    /// It is limited to this protocol, and the packet has another.
    Protocol(Protocol),
    /// It is valid from this time on, which is still to come.
    NotYetValid(Timestamp),
    /// It was valid until this time.
    Expired(Timestamp),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "only port {port}"),
            Self::Protocol(protocol) => write!(f, "only protocol {protocol}"),
            Self::NotYetValid(from) => write!(f, "not valid before {from}"),
            Self::Expired(until) => write!(f, "expired at {until}"),
        }
    }
}

impl IndicatorSet {
    /// All indicators that match a packet to or from `addr` at `at`, the most
    /// specific first: the longest prefix; within it those with a port, then
    /// those with a protocol; then the lower id.
    ///
    /// `port` is `None` for a packet without ports (ICMP, later fragments):
    /// an indicator that has a port does not match it. `protocol` is `None`
    /// when it does not matter, since no packet is without one.
    pub fn lookup(
        &self,
        addr: IpAddr,
        port: Option<u16>,
        protocol: Option<Protocol>,
        at: Timestamp,
    ) -> Vec<&Indicator> {
        self.covering(addr, port, protocol, at)
            .into_iter()
            .filter(|covering| covering.mismatches.is_empty())
            .map(|covering| covering.indicator)
            .collect()
    }

    /// All entries that speak of a name. Nothing matches names yet.
    pub fn covering_name(&self, name: &DomainName) -> Vec<&Indicator<DomainName>> {
        self.names().filter(|it| it.value.covers(name)).collect()
    }

    /// All indicators whose value covers `addr`, in the order of
    /// [`Self::lookup`], with the reasons why they do not match, if they do
    /// not.
    pub fn covering(
        &self,
        addr: IpAddr,
        port: Option<u16>,
        protocol: Option<Protocol>,
        at: Timestamp,
    ) -> Vec<Covering<'_>> {
        let [ipv4, ipv6] = &self.lengths;
        let lengths = if addr.is_ipv4() { ipv4 } else { ipv6 };
        let mut found = Vec::new();
        for length in lengths {
            let Ok(prefix) = IpNet::new(addr, *length) else {
                continue;
            };
            let prefix = prefix.trunc();
            let start = self
                .list
                .partition_point(|indicator| *identity(indicator).0 < prefix);
            let mut of_prefix: Vec<&Indicator> = self
                .list
                .iter()
                .skip(start)
                .map(AsRef::as_ref)
                .take_while(|indicator| indicator.value == prefix)
                .collect();
            of_prefix.sort_by_key(|indicator| {
                let Qualifier { protocol, port } = indicator.qualifier;
                (Reverse((port.is_some(), protocol.is_some())), indicator.id)
            });
            found.extend(of_prefix.into_iter().map(|indicator| Covering {
                indicator,
                mismatches: mismatches(indicator, port, protocol, at),
            }));
        }
        found
    }
}

fn mismatches(
    indicator: &Indicator,
    port: Option<u16>,
    protocol: Option<Protocol>,
    at: Timestamp,
) -> Vec<Mismatch> {
    let wanted = indicator.qualifier;
    [
        wanted
            .port
            .filter(|wanted| port != Some(*wanted))
            .map(Mismatch::Port),
        wanted
            .protocol
            .filter(|wanted| protocol.is_some_and(|protocol| protocol != *wanted))
            .map(Mismatch::Protocol),
        indicator
            .valid_from
            .filter(|from| at < *from)
            .map(Mismatch::NotYetValid),
        indicator
            .valid_until
            .filter(|until| *until <= at)
            .map(Mismatch::Expired),
    ]
    .into_iter()
    .flatten()
    .collect()
}
