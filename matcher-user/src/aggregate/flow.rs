//! One conversation: the hits that share both addresses, both ports and the
//! protocol. Here it is decided who spoke first and whether the other side
//! answered.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Cursor;
use crate::hit::Direction;

/// An outbound and an inbound hit of one flow count as two-way contact when
/// they are at most this far apart.
pub const PAIRING_WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// After this much silence the same addresses and ports are a new flow.
pub(super) const IDLE: SignedDuration = SignedDuration::from_hours(2);

/// The hour since the epoch, in UTC.
pub(super) fn hour_of(time: Timestamp) -> i64 {
    time.as_second().div_euclid(3600)
}

/// When, and by which record.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) time: Timestamp,
    pub(super) record: Cursor,
}

/// An outbound and an inbound hit within [`PAIRING_WINDOW`]. The order of
/// pairs is that of their earlier halves: the greatest one lives longest.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    pub(super) earlier: Mark,
    pub(super) later: Mark,
}

impl Pair {
    fn within_window(a: Mark, b: Mark) -> Option<Self> {
        let (earlier, later) = if a <= b { (a, b) } else { (b, a) };
        (later.time.duration_since(earlier.time) <= PAIRING_WINDOW)
            .then_some(Self { earlier, later })
    }
}

/// The subscriber's own validated packets of one hour.
#[derive(Copy, Clone, Debug)]
pub(super) struct Hour {
    pub(super) packets: u64,
    pub(super) records: u64,
    pub(super) first: Mark,
    pub(super) last: Mark,
}

impl Hour {
    pub(super) fn add(&mut self, other: Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.records = self.records.saturating_add(other.records);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// Adds to an hour that may be new.
pub(super) fn add_hour(hours: &mut BTreeMap<i64, Hour>, number: i64, hour: Hour) {
    hours
        .entry(number)
        .and_modify(|known| known.add(hour))
        .or_insert(hour);
}

/// What is kept of one flow: its ends in time and totals by hour.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    hours: BTreeMap<i64, Hour>,
    first_out: Option<Mark>,
    last_out: Option<Mark>,
    first_in: Option<Mark>,
    last_in: Option<Mark>,
    pair: Option<Pair>,
    /// An inbound packet of this flow may have been forgotten, so that nobody
    /// knows who spoke first.
    blind: bool,
}

impl Flow {
    pub(super) fn new(blind: bool) -> Self {
        Self {
            hours: BTreeMap::new(),
            first_out: None,
            last_out: None,
            first_in: None,
            last_in: None,
            pair: None,
            blind,
        }
    }

    /// Takes an inbound hit, or an outbound one whose source is validated.
    pub(super) fn observe(&mut self, direction: Direction, mark: Mark, packets: u32) {
        if direction == Direction::Outbound {
            let hour = Hour {
                packets: u64::from(packets),
                records: 1,
                first: mark,
                last: mark,
            };
            add_hour(&mut self.hours, hour_of(mark.time), hour);
        }
        let (first, last, other) = match direction {
            Direction::Outbound => (&mut self.first_out, &mut self.last_out, self.last_in),
            Direction::Inbound => (&mut self.first_in, &mut self.last_in, self.last_out),
        };
        *first = Some(first.map_or(mark, |known| known.min(mark)));
        *last = Some(last.map_or(mark, |known| known.max(mark)));
        self.pair = self
            .pair
            .max(other.and_then(|other| Pair::within_window(mark, other)));
    }

    /// The subscriber's packet came before any of the other side's. What the
    /// other side (or a forger in its name) provoked, such as the reset that
    /// answers a scan, is no contact that the subscriber made.
    pub(super) fn subscriber_spoke_first(&self) -> bool {
        !self.blind
            && self
                .first_out
                .is_some_and(|out| self.first_in.is_none_or(|inbound| out < inbound))
    }

    /// What the subscriber sent in it, by hour.
    pub(super) fn hours(&self) -> &BTreeMap<i64, Hour> {
        &self.hours
    }

    /// The latest two-way contact in it, whoever spoke first.
    pub(super) fn pair(&self) -> Option<Pair> {
        self.pair
    }

    pub(super) fn last_out(&self) -> Option<Mark> {
        self.last_out
    }

    pub(super) fn last_in(&self) -> Option<Mark> {
        self.last_in
    }

    /// The latest hit, either way.
    pub(super) fn latest(&self) -> Option<Mark> {
        self.last_out.max(self.last_in)
    }

    /// `time` is so late that it belongs to a new flow.
    pub(super) fn is_over_at(&self, time: Timestamp) -> bool {
        self.latest()
            .is_none_or(|latest| time.duration_since(latest.time) > IDLE)
    }

    /// Forgets all times before `keep_from`; who spoke first stays known.
    pub(super) fn expire(&mut self, keep_from: Timestamp) {
        self.hours.retain(|hour, _| *hour >= hour_of(keep_from));
        for first in [&mut self.first_out, &mut self.first_in]
            .into_iter()
            .flatten()
        {
            first.time = first.time.max(keep_from);
        }
        for last in [&mut self.last_out, &mut self.last_in] {
            *last = last.filter(|mark| mark.time >= keep_from);
        }
        self.pair = self.pair.filter(|pair| pair.earlier.time >= keep_from);
    }
}
