//! Pairs of addresses for the packets of a row, each with a known answer.

use std::net::IpAddr;

use anyhow::{Result, bail};
use ipnet::IpNet;
use matcher_common::abi::Counter;
use matcher_user::kernel::bench::Flows;

use super::{
    Family,
    lists::{Covered, consenting, inside, remote},
};
use crate::{frames::Frame, traffic::Random};

/// What the packets of a row have in common.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A consenting subscriber and an address that is not listed.
    Miss,
    /// A consenting subscriber and a listed address.
    Hit,
    /// Two addresses that are no subscriber's.
    Transit,
    /// A subscriber who opted out and an address that is not listed.
    OptedOut,
}

impl Traffic {
    /// As the report writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Hit => "hit",
            Self::Transit => "transit",
            Self::OptedOut => "opted-out",
        }
    }

    /// The exit that every packet must take.
    pub fn exit(self) -> Counter {
        match self {
            Self::Miss => Counter::NoMatch,
            Self::Hit => Counter::Matched,
            Self::Transit => Counter::Transit,
            Self::OptedOut => Counter::OptedOut,
        }
    }

    /// Look-ups in the C&C tables for `packets`: one for each, or none (R1).
    pub fn lookups(self, packets: u64) -> u64 {
        match self {
            Self::Miss | Self::Hit => packets,
            Self::Transit | Self::OptedOut => 0,
        }
    }
}

/// Pairs of addresses; either end is the packet's source as often as the
/// other, in no order that a branch predictor learns.
///
/// `listed` are the C&C prefixes: those that hits go to, and that the others
/// keep away from.
///
/// # Errors
/// Addresses of two families, which would be a mistake of the benchmark.
pub fn flows(
    family: Family,
    traffic: Traffic,
    count: usize,
    listed: &[IpNet],
    opted_out: &[IpNet],
    random: &mut Random,
) -> Result<Flows> {
    let covered = Covered::by(listed);
    let unlisted = |random: &mut Random| loop {
        let address = remote(family, random);
        if !covered.contains(address) {
            break address;
        }
    };
    let mut flows = match family {
        Family::V4 => Flows::V4(Vec::with_capacity(count)),
        Family::V6 => Flows::V6(Vec::with_capacity(count)),
    };
    for _ in 0..count {
        let near = match traffic {
            Traffic::Miss | Traffic::Hit => consenting(family, random)?,
            Traffic::Transit => unlisted(random),
            Traffic::OptedOut => inside(*random.of(opted_out), random),
        };
        let far = match traffic {
            Traffic::Hit => inside(*random.of(listed), random),
            Traffic::Miss | Traffic::Transit | Traffic::OptedOut => unlisted(random),
        };
        if random.next() & 1 == 0 {
            push(&mut flows, near, far)?;
        } else {
            push(&mut flows, far, near)?;
        }
    }
    Ok(flows)
}

fn push(flows: &mut Flows, source: IpAddr, destination: IpAddr) -> Result<()> {
    match (flows, source, destination) {
        (Flows::V4(flows), IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut flow = [0; 8];
            flow[..4].copy_from_slice(&source.octets());
            flow[4..].copy_from_slice(&destination.octets());
            flows.push(flow);
        }
        (Flows::V6(flows), IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut flow = [0; 32];
            flow[..16].copy_from_slice(&source.octets());
            flow[16..].copy_from_slice(&destination.octets());
            flows.push(flow);
        }
        _ => bail!("{source} and {destination} are of two families"),
    }
    Ok(())
}

/// The packet whose addresses change: TCP without payload, the smallest that
/// carries ports and flags. Its IPv4 checksum is wrong once they have; nothing
/// that is measured reads it.
pub fn frame(family: Family) -> Vec<u8> {
    let ethernet = Frame::ethernet();
    match family {
        Family::V4 => ethernet.ipv4([192, 0, 2, 1], [192, 0, 2, 2]),
        Family::V6 => ethernet.ipv6(
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1],
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2],
        ),
    }
    .tcp(51_413, 443)
    .build()
}
