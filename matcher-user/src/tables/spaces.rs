//! The subscriber spaces as the kernel looks them up.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv6Net};
use matcher_common::abi::Nat64Bytes;

use crate::{
    consent::{Space, SpacePrefix},
    nat64::Nat64Prefix,
    subscribers::SubscriberSpaces,
};

/// Who is a subscriber, and in which space a packet is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceTables {
    /// Every prefix of every space.
    pub subscribers: BTreeSet<SpacePrefix>,
    /// The spaces of VLANs: outer id in the upper half, the inner one, or 0 for
    /// any, in the lower.
    pub vlans: BTreeMap<u32, u32>,
    /// NAT64 prefixes, and where their addresses carry the four bytes of an
    /// IPv4 address.
    pub nat64: BTreeMap<Ipv6Net, Nat64Bytes>,
}

impl SpaceTables {
    /// The tables of these spaces.
    pub fn new(spaces: &SubscriberSpaces, nat64: &[Nat64Prefix]) -> Self {
        Self {
            subscribers: spaces.prefixes().collect(),
            vlans: spaces.vlans().clone(),
            nat64: nat64
                .iter()
                .map(|prefix| (prefix.prefix(), prefix.places()))
                .collect(),
        }
    }

    /// Of space 0 alone.
    pub fn one(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            subscribers: prefixes
                .into_iter()
                .map(|prefix| prefix.trunc().into())
                .collect(),
            ..Self::default()
        }
    }

    /// The spaces besides 0, as consent depends on them.
    pub fn for_consent(&self) -> Vec<Space> {
        let mut spaces: BTreeMap<u32, Vec<IpNet>> = self
            .vlans
            .values()
            .map(|space| (*space, Vec::new()))
            .collect();
        for at in &self.subscribers {
            spaces.entry(at.space).or_default().push(at.prefix);
        }
        spaces.remove(&0);
        spaces
            .into_iter()
            .map(|(id, prefixes)| Space { id, prefixes })
            .collect()
    }

    /// Whether the same packet could be in another space, or be looked up as
    /// another address, than with the other tables, or be another's in a space
    /// besides 0.
    pub fn reads_packets_otherwise(&self, other: &Self) -> bool {
        let besides = |tables: &Self| {
            tables
                .subscribers
                .iter()
                .filter(|at| at.space != 0)
                .copied()
                .collect::<Vec<_>>()
        };
        self.vlans != other.vlans || self.nat64 != other.nat64 || besides(self) != besides(other)
    }
}
