//! All that passed between one subscriber address and one remote end.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::flow::{Flow, Hour, Mark, Pair, add_hour, hour_of};
use crate::{
    hit::{Direction, Hit, IndicatorSummary},
    indicator::Qualifier,
};

/// Flows of one contact that are watched at the same time. A bot opens a flow
/// for every beacon; each is settled once it has been silent for two hours.
pub(super) const MAX_FLOWS: usize = 64;
/// Ports of the subscriber that are kept: the latest.
pub(super) const MAX_PORTS: usize = 16;
/// Indicators that are kept for one remote end: the latest.
const MAX_INDICATORS: usize = 8;
/// A packet is taken for the answer to another within this time. Most answers
/// come within a second; ten leave room for slow hosts.
const ANSWER_TIME: SignedDuration = SignedDuration::from_secs(10);

/// The latest inbound packet that a full table had to forget: shortly after
/// it nobody can say who spoke first.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct ForgottenInbound(Option<Timestamp>);

impl ForgottenInbound {
    pub(super) fn note(&mut self, time: Option<Timestamp>) {
        self.0 = self.0.max(time);
    }

    pub(super) fn may_have_provoked(self, time: Timestamp) -> bool {
        self.0
            .is_some_and(|forgotten| time.duration_since(forgotten) <= ANSWER_TIME)
    }
}

/// What the flows that are over have shown, of those the subscriber began.
#[derive(Clone, Debug, Default)]
struct Settled {
    hours: BTreeMap<i64, Hour>,
    last_out: Option<Mark>,
    pair: Option<Pair>,
    ports: BTreeMap<u16, Mark>,
    dropped_port: Option<Mark>,
}

impl Settled {
    fn add(&mut self, port: Option<u16>, flow: &Flow) {
        for (number, hour) in flow.hours() {
            add_hour(&mut self.hours, *number, *hour);
        }
        self.last_out = self.last_out.max(flow.last_out());
        self.pair = self.pair.max(flow.pair());
        if let (Some(port), Some(mark)) = (port, flow.last_out()) {
            let latest = self.ports.entry(port).or_insert(mark);
            *latest = (*latest).max(mark);
            if self.ports.len() > MAX_PORTS
                && let Some(oldest) = oldest(&self.ports, |mark| *mark)
            {
                self.dropped_port = self.dropped_port.max(self.ports.remove(&oldest));
            }
        }
    }

    fn expire(&mut self, keep_from: Timestamp) {
        let kept = |mark: &Mark| mark.time >= keep_from;
        self.hours.retain(|hour, _| *hour >= hour_of(keep_from));
        self.last_out = self.last_out.filter(kept);
        self.pair = self.pair.filter(|pair| kept(&pair.earlier));
        self.ports.retain(|_, mark| kept(mark));
        self.dropped_port = self.dropped_port.filter(kept);
    }
}

/// What is kept of a contact.
#[derive(Clone, Debug, Default)]
pub(super) struct Contact {
    flows: BTreeMap<Option<u16>, Flow>,
    settled: Settled,
    indicators: BTreeMap<(String, Qualifier), (Mark, Arc<IndicatorSummary>)>,
    forgotten_inbound: ForgottenInbound,
    latest: Option<Timestamp>,
}

impl Contact {
    /// Takes an inbound hit, or an outbound one whose source is validated.
    /// `blind`: an inbound packet that provoked this one may have been
    /// forgotten. `room`: another flow may be watched. Returns how many flows
    /// it had to forget or to leave unwatched.
    pub(super) fn observe(&mut self, mark: Mark, hit: &Hit, blind: bool, room: bool) -> u64 {
        self.latest = self.latest.max(Some(mark.time));
        if hit.direction == Direction::Outbound {
            self.name(mark, hit);
        }
        self.watch(mark, hit, blind, room)
    }

    fn name(&mut self, mark: Mark, hit: &Hit) {
        let key = (hit.indicator.value.clone(), hit.indicator.qualifier);
        let newest = self
            .indicators
            .entry(key)
            .or_insert_with(|| (mark, Arc::clone(&hit.indicator)));
        if newest.0 < mark {
            *newest = (mark, Arc::clone(&hit.indicator));
        }
        if self.indicators.len() > MAX_INDICATORS
            && let Some(oldest) = oldest(&self.indicators, |(mark, _)| *mark)
        {
            self.indicators.remove(&oldest);
        }
    }

    fn watch(&mut self, mark: Mark, hit: &Hit, blind: bool, room: bool) -> u64 {
        let mut forgotten = 0;
        let port = hit.subscriber.port;
        if let Some(flow) = self.flows.get(&port)
            && flow.is_over_at(mark.time)
        {
            self.settle(port);
        }
        if !self.flows.contains_key(&port) {
            if self.flows.len() >= MAX_FLOWS {
                forgotten += self.make_room(mark.time);
            } else if !room {
                if hit.direction == Direction::Inbound {
                    self.forgotten_inbound.note(Some(mark.time));
                }
                return 1;
            }
        }
        let blind = hit.direction == Direction::Outbound
            && (blind || self.forgotten_inbound.may_have_provoked(mark.time));
        self.flows
            .entry(port)
            .or_insert_with(|| Flow::new(blind))
            .observe(hit.direction, mark, hit.packets);
        forgotten
    }

    /// Keeps of a flow that is over what it proved.
    fn settle(&mut self, port: Option<u16>) {
        if let Some(flow) = self.flows.remove(&port)
            && flow.subscriber_spoke_first()
        {
            self.settled.add(port, &flow);
        }
    }

    /// Gives up the oldest flow that the subscriber did not begin, else the
    /// oldest. Returns 1 when that may cost a two-way contact.
    fn make_room(&mut self, now: Timestamp) -> u64 {
        let Some(port) = oldest(&self.flows, |flow| {
            (flow.subscriber_spoke_first(), flow.latest())
        }) else {
            return 0;
        };
        let incomplete = self.flows.get(&port).is_some_and(|flow| {
            if !flow.subscriber_spoke_first() {
                self.forgotten_inbound
                    .note(flow.last_in().map(|mark| mark.time));
            }
            flow.pair().is_none() && !flow.is_over_at(now)
        });
        self.settle(port);
        u64::from(incomplete)
    }

    /// Latest packet that the subscriber sent in a flow it began.
    pub(super) fn spoke_first(&self) -> Option<Mark> {
        self.begun()
            .filter_map(|(_, flow)| flow.last_out())
            .max()
            .max(self.settled.last_out)
    }

    /// Latest two-way contact in a flow that the subscriber began.
    pub(super) fn pair(&self) -> Option<Pair> {
        self.begun()
            .filter_map(|(_, flow)| flow.pair())
            .max()
            .max(self.settled.pair)
    }

    fn begun(&self) -> impl Iterator<Item = (Option<u16>, &Flow)> {
        self.flows
            .iter()
            .filter(|(_, flow)| flow.subscriber_spoke_first())
            .map(|(port, flow)| (*port, flow))
    }

    /// What the subscriber sent in the flows that it began, by hour.
    pub(super) fn hours(&self) -> BTreeMap<i64, Hour> {
        let mut hours = self.settled.hours.clone();
        for (number, hour) in self.begun().flat_map(|(_, flow)| flow.hours()) {
            add_hour(&mut hours, *number, *hour);
        }
        hours
    }

    /// The subscriber's ports in the flows that it began, with their last use.
    pub(super) fn ports(&self) -> impl Iterator<Item = (u16, Mark)> {
        let live = self
            .begun()
            .filter_map(|(port, flow)| Some((port?, flow.last_out()?)));
        let settled = self.settled.ports.iter();
        live.chain(settled.map(|(port, mark)| (*port, *mark)))
    }

    /// There were more ports than are kept.
    pub(super) fn dropped_ports(&self) -> bool {
        self.settled.dropped_port.is_some()
    }

    /// What the remote end matched, each with the latest record that says so.
    pub(super) fn indicators(&self) -> impl Iterator<Item = &(Mark, Arc<IndicatorSummary>)> {
        self.indicators.values()
    }

    pub(super) fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Time of the latest hit.
    pub(super) fn latest(&self) -> Option<Timestamp> {
        self.latest
    }

    /// Latest inbound packet of the flows that are watched.
    pub(super) fn last_in(&self) -> Option<Timestamp> {
        let seen = self.flows.values().filter_map(Flow::last_in).max();
        seen.map(|mark| mark.time).max(self.forgotten_inbound.0)
    }

    /// Settles flows that are over, forgets what happened before `keep_from`.
    pub(super) fn expire(&mut self, now: Timestamp, keep_from: Timestamp) {
        let over: Vec<Option<u16>> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.is_over_at(now))
            .map(|(port, _)| *port)
            .collect();
        for port in over {
            self.settle(port);
        }
        for flow in self.flows.values_mut() {
            flow.expire(keep_from);
        }
        self.flows.retain(|_, flow| flow.latest().is_some());
        self.settled.expire(keep_from);
        self.indicators
            .retain(|_, (mark, _)| mark.time >= keep_from);
    }

    /// Nothing is left of it that could tell an answer from a beginning, or
    /// that shows a contact.
    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.settled.last_out.is_none()
    }
}

/// Key of the entry with the lowest rank.
pub(super) fn oldest<K: Clone, V, R: Ord>(
    map: &BTreeMap<K, V>,
    rank: impl Fn(&V) -> R,
) -> Option<K> {
    map.iter()
        .min_by_key(|(_, value)| rank(value))
        .map(|(key, _)| key.clone())
}
