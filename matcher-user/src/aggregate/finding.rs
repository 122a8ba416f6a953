//! What the contacts of one subscriber address amount to.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Cursor, Policy,
    beyond::BeyondBound,
    contact::{Contact, MAX_PORTS},
    flow::{Hour, Mark},
};
use crate::{
    hit::{IndicatorSummary, SubscriberAddress},
    indicator::Qualifier,
    protocol::Protocol,
};

/// Entries in each list of a [`Finding`].
pub const LISTED: usize = 16;

/// The other end of a contact.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Remote {
    /// Address that an indicator covers.
    pub ip: IpAddr,
    /// `None` for packets without ports.
    pub port: Option<u16>,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// How often.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contacts {
    /// Packets that the subscriber sent.
    pub count: u64,
    /// Hours of the UTC clock in which it did.
    pub distinct_hours: u64,
    /// A remote end answered.
    pub two_way: bool,
}

/// The rule that a finding met.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The subscriber spoke first and was answered.
    Answered,
    /// The subscriber spoke first; an answer is not asked for.
    OwnPackets,
}

/// A subscriber address that meets the rule, and what shows it. Lists hold
/// the latest [`LISTED`] entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The subscriber's address.
    pub address: SubscriberAddress,
    /// Its ports, sorted.
    pub ports: Vec<u16>,
    /// There were more ports.
    pub more_ports: bool,
    /// What the remote ends matched, by value.
    pub indicators: Vec<Arc<IndicatorSummary>>,
    /// There were more indicators.
    pub more_indicators: bool,
    /// Remote ends that meet the rule, sorted.
    pub remotes: Vec<Remote>,
    /// There were more remote ends.
    pub more_remotes: bool,
    /// The subscriber's first packet to them that is still kept.
    pub first_seen: Timestamp,
    /// The subscriber's last packet to them.
    pub last_seen: Timestamp,
    /// How often.
    pub contacts: Contacts,
    /// What it met.
    pub rule: Rule,
    /// Records that carry it: the first and last of an hour, and answers;
    /// sorted.
    pub records: Vec<Cursor>,
    /// Records of the subscriber's own packets in all.
    pub record_count: u64,
    /// The latest record that carries it. It grows with every new one, and is
    /// the same again when the finding is rebuilt from the store.
    pub revision: Cursor,
}

/// The finding about `address`, where its contacts meet the rule.
pub(super) fn finding(
    policy: &Policy,
    address: SubscriberAddress,
    contacts: &BTreeMap<Remote, Contact>,
    beyond_bound: &BeyondBound,
) -> Option<Finding> {
    let mut proof = Proof::default();
    for (remote, contact) in contacts {
        proof.add(*remote, contact, policy.require_two_way);
    }
    proof.count_beyond(beyond_bound);
    if proof.packets < u64::from(policy.min_contacts) {
        return None;
    }
    let rule = if policy.require_two_way {
        Rule::Answered
    } else {
        Rule::OwnPackets
    };
    proof.finding(address, rule)
}

/// The contacts of one address that meet the rule, added up.
#[derive(Default)]
struct Proof {
    packets: u64,
    record_count: u64,
    two_way: bool,
    first: Option<Mark>,
    last: Option<Mark>,
    hours: BTreeSet<i64>,
    records: BTreeSet<Cursor>,
    ports: BTreeMap<u16, Mark>,
    more_ports: bool,
    remotes: BTreeMap<Remote, Mark>,
    indicators: BTreeMap<(String, Qualifier), (Mark, Arc<IndicatorSummary>)>,
}

impl Proof {
    fn add(&mut self, remote: Remote, contact: &Contact, require_two_way: bool) {
        let pair = contact.pair();
        if contact.spoke_first().is_none() || (require_two_way && pair.is_none()) {
            return;
        }
        self.two_way |= pair.is_some();
        if let Some(pair) = pair {
            self.records
                .extend([pair.earlier.record, pair.later.record]);
        }
        for (number, hour) in contact.hours() {
            self.count(number, hour);
            let latest = self.remotes.entry(remote).or_insert(hour.last);
            *latest = (*latest).max(hour.last);
        }
        self.more_ports |= contact.dropped_ports();
        for (port, mark) in contact.ports() {
            let latest = self.ports.entry(port).or_insert(mark);
            *latest = (*latest).max(mark);
        }
        for (mark, summary) in contact.indicators() {
            let key = (summary.value.clone(), summary.qualifier);
            let latest = self
                .indicators
                .entry(key)
                .or_insert_with(|| (*mark, Arc::clone(summary)));
            if latest.0 < *mark {
                *latest = (*mark, Arc::clone(summary));
            }
        }
    }

    fn count(&mut self, number: i64, hour: Hour) {
        self.packets = self.packets.saturating_add(hour.packets);
        self.record_count = self.record_count.saturating_add(hour.records);
        self.hours.insert(number);
        self.records.extend([hour.first.record, hour.last.record]);
        self.first = Some(self.first.map_or(hour.first, |first| first.min(hour.first)));
        self.last = self.last.max(Some(hour.last));
    }

    /// Packets to the indicators of contacts that meet the rule.
    fn count_beyond(&mut self, beyond_bound: &BeyondBound) {
        let hours: Vec<(i64, Hour)> = self
            .indicators
            .keys()
            .flat_map(|indicator| beyond_bound.hours(indicator))
            .collect();
        for (number, hour) in hours {
            self.count(number, hour);
        }
    }

    fn finding(self, address: SubscriberAddress, rule: Rule) -> Option<Finding> {
        let (first, last) = (self.first?, self.last?);
        let revision = *self.records.last()?;
        let records: Vec<Cursor> = self.records.iter().rev().take(LISTED).copied().collect();
        let (ports, more_ports) = latest(self.ports, MAX_PORTS, |mark| *mark);
        let (remotes, more_remotes) = latest(self.remotes, LISTED, |mark| *mark);
        let (indicators, more_indicators) = latest(self.indicators, LISTED, |(mark, _)| *mark);
        Some(Finding {
            address,
            ports: ports.into_keys().collect(),
            more_ports: more_ports || self.more_ports,
            indicators: indicators
                .into_values()
                .map(|(_, summary)| summary)
                .collect(),
            more_indicators,
            remotes: remotes.into_keys().collect(),
            more_remotes,
            first_seen: first.time,
            last_seen: last.time,
            contacts: Contacts {
                count: self.packets,
                distinct_hours: u64::try_from(self.hours.len()).unwrap_or(u64::MAX),
                two_way: self.two_way,
            },
            rule,
            records: records.into_iter().rev().collect(),
            record_count: self.record_count,
            revision,
        })
    }
}

/// The `limit` entries of highest rank, and whether there were more.
fn latest<K: Ord + Clone, V, R: Ord>(
    map: BTreeMap<K, V>,
    limit: usize,
    rank: impl Fn(&V) -> R,
) -> (BTreeMap<K, V>, bool) {
    let mut entries: Vec<(K, V)> = map.into_iter().collect();
    entries.sort_by_key(|(_, value)| Reverse(rank(value)));
    let more = entries.len() > limit;
    entries.truncate(limit);
    (entries.into_iter().collect(), more)
}
