//! Hits to findings: which subscriber address made contact with a C&C, and
//! what shows it. Pure; the clock is passed in.
//!
//! The rule (design decision 8, R9; in doubt for the subscriber):
//!
//! - Only packets that **the subscriber sent**, on an interface where its
//!   address cannot be forged, are contacts. Outbound packets from anywhere
//!   else, and inbound packets, are never counted.
//! - They count only in flows in which the subscriber **spoke first**. Listed
//!   hosts scan the whole Internet, and anyone can forge a packet from them:
//!   the subscriber's reset or ICMP error in return says nothing of an
//!   infection. A flow is both addresses, both ports and the protocol, until
//!   it has been silent for two hours; packets without ports (ICMP, later
//!   fragments) go by addresses and protocol.
//! - By default the remote end (address, port, protocol) must have
//!   **answered** in such a flow: an inbound hit within [`PAIRING_WINDOW`] of
//!   an outbound one.
//!
//! - Where the kernel saw too many flows to tell them apart
//!   ([`Hit::several_flows`]), nobody knows who began them: such packets prove no
//!   contact. The subscriber's own among them are counted where a contact with
//!   the same indicator is proved otherwise; inbound ones may have provoked
//!   what the subscriber sent right after.
//!
//! Hits that are no further apart than the window may be observed in any
//! order.
//!
//! # Memory
//!
//! Bounded by [`MAX_ENDPOINTS`], [`MAX_CONTACTS`] and [`MAX_FLOWS`] in all;
//! for one address by [`CONTACTS_PER_ENDPOINT`] remote ends with 64 flows, 16
//! ports and 8 indicators each; in time by the retention. What was turned away
//! is counted in [`Beyond`]; the hits themselves are in the store.

mod beyond;
mod contact;
mod finding;
mod flow;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::{
    beyond::BeyondBound,
    contact::{Contact, ForgottenInbound, oldest},
    finding::finding,
    flow::{Mark, hour_of},
};
pub use self::{
    finding::{Contacts, Finding, LISTED, Remote, Rule},
    flow::PAIRING_WINDOW,
};
use crate::{
    hit::{Direction, Hit, SubscriberAddress},
    indicator::Quality,
};

/// Subscriber addresses that are watched at the same time.
pub const MAX_ENDPOINTS: usize = 131_072;
/// Of these, addresses that never spoke first to a C&C: those that a C&C
/// scans, or that a forger names. The oldest gives way.
pub const MAX_UNPROVEN: usize = 32_768;
/// Pairs of a subscriber address and a remote end.
pub const MAX_CONTACTS: usize = 262_144;
/// Flows that are watched for an answer.
pub const MAX_FLOWS: usize = 262_144;
/// Remote ends of one subscriber address.
pub const CONTACTS_PER_ENDPOINT: usize = 32;

/// Number of a stored hit: grows with every hit, is never given twice, also
/// not after deletion. 0 is before the first.
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Cursor(pub u64);

/// What makes a finding.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The remote end must have answered (design decision 8).
    pub require_two_way: bool,
    /// Least number of the subscriber's own packets to remote ends that meet
    /// the rule.
    pub min_contacts: u32,
    /// What an indicator must reach before a hit of it counts (R20).
    pub quality: Quality,
    /// How long hits are kept (R4).
    pub retention: Duration,
}

impl Policy {
    /// Hits before this time are to be forgotten at `now`: the first full
    /// hour within the retention. Whole hours, so that counts by hour and the
    /// stored hits are forgotten together; what is left over is forgotten
    /// early, never late.
    pub fn keep_from(&self, now: Timestamp) -> Timestamp {
        let hour = SignedDuration::try_from(self.retention)
            .ok()
            .and_then(|retention| now.checked_sub(retention).ok())
            .and_then(|oldest| {
                let hour = hour_of(oldest);
                let start = Timestamp::from_second(hour * 3600).ok()?;
                if start < oldest {
                    Timestamp::from_second((hour + 1) * 3600).ok()
                } else {
                    Some(start)
                }
            });
        hour.unwrap_or(Timestamp::MIN)
    }
}

/// How often a table was full since the start. What was seen is in the store;
/// a finding may lack it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Beyond {
    /// Subscriber addresses forgotten early or not watched.
    pub endpoints: u64,
    /// Remote ends forgotten early or not watched.
    pub contacts: u64,
    /// Flows forgotten before they were answered, or not watched.
    pub flows: u64,
}

#[derive(Debug, Default)]
struct Watched {
    contacts: BTreeMap<Remote, Contact>,
    beyond_bound: BeyondBound,
    forgotten_inbound: ForgottenInbound,
}

impl Watched {
    fn spoke_first(&self) -> bool {
        self.contacts
            .values()
            .any(|contact| contact.spoke_first().is_some())
    }

    fn last_in(&self) -> Option<Timestamp> {
        self.contacts.values().filter_map(Contact::last_in).max()
    }

    fn finding(&self, policy: &Policy, address: SubscriberAddress) -> Option<Finding> {
        finding(policy, address, &self.contacts, &self.beyond_bound)
    }

    fn size(&self) -> Size {
        Size {
            contacts: self.contacts.len(),
            flows: self.contacts.values().map(Contact::flow_count).sum(),
        }
    }
}

#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Size {
    contacts: usize,
    flows: usize,
}

impl Size {
    fn replace(&mut self, before: Self, after: Self) {
        self.contacts = self.contacts.saturating_sub(before.contacts) + after.contacts;
        self.flows = self.flows.saturating_sub(before.flows) + after.flows;
    }
}

/// Collects hits by subscriber address.
#[derive(Debug)]
pub struct Aggregator {
    policy: Policy,
    endpoints: BTreeMap<SubscriberAddress, Watched>,
    size: Size,
    /// Addresses in the order of their first hit; some have spoken first by
    /// now, and are let go when their turn comes.
    unproven: VecDeque<SubscriberAddress>,
    changed: BTreeSet<SubscriberAddress>,
    forgotten_inbound: ForgottenInbound,
    beyond: Beyond,
}

impl Aggregator {
    /// Starts with nothing.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            endpoints: BTreeMap::new(),
            size: Size::default(),
            unproven: VecDeque::new(),
            changed: BTreeSet::new(),
            forgotten_inbound: ForgottenInbound::default(),
            beyond: Beyond::default(),
        }
    }

    /// The policy that it was made with.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What met a full table so far.
    pub fn beyond(&self) -> Beyond {
        self.beyond
    }

    /// Takes a stored hit. Each record may be observed once.
    pub fn observe(&mut self, record: Cursor, hit: &Hit) {
        // A doubtful entry leads to no notification (R20).
        // What comes in still counts against the subscriber having begun.
        let indicator = &hit.indicator;
        let feeds = indicator.feeds.len();
        if hit.direction == Direction::Outbound
            && !self.policy.quality.reached(feeds, indicator.confidence)
        {
            return;
        }
        // A source address that may be forged says nothing (decision 8).
        if hit.direction == Direction::Outbound && !hit.source_validated {
            return;
        }
        let mark = Mark {
            time: hit.time,
            record,
        };
        let address = hit.subscriber_address();
        if !self.endpoints.contains_key(&address) && !self.admit(address) {
            self.beyond.endpoints += 1;
            self.note_forgotten(hit);
            return;
        }
        if hit.several_flows {
            let watched = self.endpoints.entry(address).or_default();
            match hit.direction {
                Direction::Inbound => watched.forgotten_inbound.note(Some(mark.time)),
                Direction::Outbound => watched.beyond_bound.observe(mark, hit),
            }
            self.changed.insert(address);
            return;
        }
        let room_for_contact = self.size.contacts < MAX_CONTACTS;
        let room_for_flow = self.size.flows < MAX_FLOWS;
        let blind = self.forgotten_inbound.may_have_provoked(mark.time);
        let watched = self.endpoints.entry(address).or_default();
        let before = watched.size();

        let remote = Remote {
            ip: hit.remote.ip,
            port: hit.remote.port,
            protocol: hit.protocol,
        };
        if !watched.contacts.contains_key(&remote) {
            let full = watched.contacts.len() >= CONTACTS_PER_ENDPOINT;
            if full || !room_for_contact {
                self.beyond.contacts += 1;
                // The oldest contact that the subscriber did not begin gives way.
                let victim = oldest(&watched.contacts, |contact| {
                    (contact.spoke_first().is_some(), contact.latest())
                })
                .filter(|key| {
                    watched
                        .contacts
                        .get(key)
                        .is_some_and(|contact| contact.spoke_first().is_none())
                });
                if let Some(contact) = victim.and_then(|key| watched.contacts.remove(&key)) {
                    watched.forgotten_inbound.note(contact.last_in());
                } else {
                    if hit.direction == Direction::Inbound {
                        watched.forgotten_inbound.note(Some(mark.time));
                    }
                    return;
                }
            }
        }
        let blind = blind || watched.forgotten_inbound.may_have_provoked(mark.time);
        self.beyond.flows +=
            watched
                .contacts
                .entry(remote)
                .or_default()
                .observe(mark, hit, blind, room_for_flow);
        let after = watched.size();
        self.size.replace(before, after);
        self.changed.insert(address);
    }

    /// Makes room for an address that was not watched so far.
    fn admit(&mut self, address: SubscriberAddress) -> bool {
        while self.unproven.len() >= MAX_UNPROVEN {
            let Some(oldest) = self.unproven.pop_front() else {
                break;
            };
            if let Some(watched) = self.endpoints.get(&oldest)
                && !watched.spoke_first()
            {
                self.forgotten_inbound.note(watched.last_in());
                self.remove(oldest);
                self.beyond.endpoints += 1;
            }
        }
        if self.endpoints.len() >= MAX_ENDPOINTS {
            return false;
        }
        self.unproven.push_back(address);
        true
    }

    fn note_forgotten(&mut self, hit: &Hit) {
        if hit.direction == Direction::Inbound {
            self.forgotten_inbound.note(Some(hit.time));
        }
    }

    fn remove(&mut self, address: SubscriberAddress) {
        if let Some(watched) = self.endpoints.remove(&address) {
            self.size.replace(watched.size(), Size::default());
        }
        self.changed.remove(&address);
    }

    /// Forgets all that was seen of these addresses, so that what may still be
    /// known of them can be observed anew (R2). Returns how many were watched.
    pub fn forget(&mut self, addresses: &BTreeSet<SubscriberAddress>) -> usize {
        self.retain(|address, watched| {
            let forgotten = addresses.contains(&address);
            if forgotten {
                watched.contacts.clear();
            }
            forgotten
        })
    }

    /// Forgets what the retention no longer covers at `now` (R4), and closes
    /// flows that have been silent for two hours. To be called at least once
    /// an hour. Returns how many subscriber addresses are no longer watched.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        let keep_from = self.policy.keep_from(now);
        self.retain(|_, watched| {
            for contact in watched.contacts.values_mut() {
                contact.expire(now, keep_from);
            }
            watched.contacts.retain(|_, contact| !contact.is_empty());
            watched.beyond_bound.expire(keep_from);
            watched.contacts.is_empty()
        })
    }

    /// Lets `change` at every address, drops those left empty, and counts for
    /// how many `change` said yes.
    fn retain(&mut self, mut change: impl FnMut(SubscriberAddress, &mut Watched) -> bool) -> usize {
        let mut counted = 0;
        let mut size = Size::default();
        self.endpoints.retain(|address, watched| {
            counted += usize::from(change(*address, watched));
            size.replace(Size::default(), watched.size());
            !watched.contacts.is_empty()
        });
        self.size = size;
        let endpoints = &self.endpoints;
        self.changed
            .retain(|address| endpoints.contains_key(address));
        self.unproven
            .retain(|address| endpoints.contains_key(address));
        counted
    }

    /// Everything that meets the rule now, by address.
    pub fn findings(&self) -> Vec<Finding> {
        self.endpoints
            .iter()
            .filter_map(|(address, watched)| watched.finding(&self.policy, *address))
            .collect()
    }

    /// What meets the rule and has new hits since the last call, by address.
    pub fn take_changed(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .filter_map(|address| {
                let watched = self.endpoints.get(&address)?;
                watched.finding(&self.policy, address)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
