//! The memory of indicator ids.

use std::{iter::Peekable, slice, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;

use super::{IndicatorSet, NoIdsLeft, by_id::ById, identity};
use crate::{
    feeds::FeedEntry,
    indicator::{DomainName, Indicator, IndicatorId},
};

/// Every indicator that has an id: those listed, and those that were, so that
/// a hit in flight can still be explained. Ids are never given twice, even
/// when what had them is forgotten; addresses and names share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    pub(super) addresses: Memory<IpNet>,
    pub(super) names: Memory<DomainName>,
    /// The id that the next new indicator gets; 0 once none is left.
    pub(super) next_id: u32,
}

/// What is known of one kind of value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Memory<V> {
    /// In order of identity, no two the same.
    pub(super) known: Vec<Known<V>>,
    by_id: ById,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known<V> {
    pub(super) indicator: Arc<Indicator<V>>,
    /// When no feed listed it any more.
    pub(super) left: Option<Timestamp>,
}

impl<V> Known<V> {
    fn id(&self) -> IndicatorId {
        self.indicator.id
    }
}

impl Default for Catalog {
    /// Knows nothing; the first id is 1.
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new(), 1)
    }
}

impl Catalog {
    /// The address or prefix with an id, listed or no longer.
    pub fn get(&self, id: IndicatorId) -> Option<&Indicator> {
        self.addresses.get(id)
    }

    /// Every entry of exactly this address or prefix, listed or no longer.
    pub fn of_value(&self, value: IpNet) -> impl Iterator<Item = &Indicator> {
        self.addresses.of_value(value)
    }

    /// Every entry of exactly this name, listed or no longer.
    pub fn of_name(&self, name: &DomainName) -> impl Iterator<Item = &Indicator<DomainName>> {
        self.names.of_value(name.clone())
    }

    /// How many indicators are known, listed or no longer.
    pub fn len(&self) -> usize {
        self.addresses.known.len() + self.names.known.len()
    }

    /// Knows no indicator.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The addresses of one feed as it listed them last, so that they can stay
    /// in force when its file cannot be used. What other feeds say of them is
    /// not in it.
    pub fn listed_by(&self, feed: &str) -> Vec<FeedEntry> {
        self.addresses.listed_by(feed)
    }

    /// The names of one feed as it listed them last.
    pub fn names_listed_by(&self, feed: &str) -> Vec<FeedEntry<DomainName>> {
        self.names.listed_by(feed)
    }

    /// The list that was put in force last.
    pub fn current(&self) -> IndicatorSet {
        IndicatorSet::new(
            self.addresses.listed().map(Arc::clone).collect(),
            self.names.listed().map(Arc::clone).collect(),
        )
    }

    /// Forgets what has not been listed since `cutoff`, so that the catalog
    /// does not grow for ever; returns how many. Hits that carry a forgotten
    /// id can no longer be explained, so `cutoff` is at least as old as the
    /// oldest hit may be. The ids stay used.
    pub fn forget_left_before(&mut self, cutoff: Timestamp) -> usize {
        let before = self.len();
        self.addresses.forget_left_before(cutoff);
        self.names.forget_left_before(cutoff);
        before - self.len()
    }

    /// Both are in order of identity.
    pub(super) fn new(
        addresses: Vec<Known<IpNet>>,
        names: Vec<Known<DomainName>>,
        next_id: u32,
    ) -> Self {
        Self {
            addresses: Memory::new(addresses),
            names: Memory::new(names),
            next_id,
        }
    }

    /// An id that two indicators have.
    pub(super) fn id_given_twice(&self) -> Option<IndicatorId> {
        let mut ids: Vec<IndicatorId> = self.addresses.ids().chain(self.names.ids()).collect();
        ids.sort_unstable();
        ids.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some(*a),
            _ => None,
        })
    }
}

impl<V: Clone + Ord> Memory<V> {
    /// `known` is in order of identity.
    fn new(known: Vec<Known<V>>) -> Self {
        Self {
            by_id: ById::new(&known, Known::id),
            known,
        }
    }

    fn get(&self, id: IndicatorId) -> Option<&Indicator<V>> {
        let known = self.by_id.find(&self.known, Known::id, id)?;
        Some(&known.indicator)
    }

    fn ids(&self) -> impl Iterator<Item = IndicatorId> {
        self.known.iter().map(Known::id)
    }

    /// In order of identity.
    fn listed(&self) -> impl Iterator<Item = &Arc<Indicator<V>>> {
        self.known
            .iter()
            .filter(|known| known.left.is_none())
            .map(|known| &known.indicator)
    }

    fn of_value(&self, value: V) -> impl Iterator<Item = &Indicator<V>> {
        self.known
            .iter()
            .map(|known| known.indicator.as_ref())
            .filter(move |indicator| indicator.value == value)
    }

    fn listed_by(&self, feed: &str) -> Vec<FeedEntry<V>> {
        self.listed()
            .flat_map(|indicator| {
                let own = indicator
                    .statements
                    .iter()
                    .filter(|statement| &*statement.feed == feed);
                own.map(|statement| FeedEntry {
                    value: indicator.value.clone(),
                    qualifier: indicator.qualifier,
                    valid_from: indicator.valid_from,
                    valid_until: indicator.valid_until,
                    said: statement.said.clone().into(),
                    line: 0,
                    part: 0,
                })
            })
            .collect()
    }

    fn forget_left_before(&mut self, cutoff: Timestamp) {
        self.known
            .retain(|known| known.left.is_none_or(|left| left >= cutoff));
        *self = Self::new(std::mem::take(&mut self.known));
    }

    /// Begins a memory that follows this one.
    pub(super) fn update(&self, next_id: u32, now: Timestamp) -> Update<'_, V> {
        Update {
            old: self.known.iter().peekable(),
            known: Vec::with_capacity(self.known.len()),
            next_id,
            now,
        }
    }
}

/// A memory that takes up a new list, whose indicators come in order of
/// identity.
pub(super) struct Update<'a, V> {
    old: Peekable<slice::Iter<'a, Known<V>>>,
    known: Vec<Known<V>>,
    next_id: u32,
    now: Timestamp,
}

impl<V: Clone + Ord> Update<'_, V> {
    /// Gives an indicator its id.
    pub(super) fn list(
        &mut self,
        mut merged: Arc<Indicator<V>>,
    ) -> Result<Arc<Indicator<V>>, NoIdsLeft> {
        let this = identity(&merged);
        while let Some(old) = self.old.next_if(|old| identity(&old.indicator) < this) {
            self.keep(old);
        }
        let same = self.old.next_if(|old| identity(&old.indicator) == this);
        let id = match same {
            Some(old) => old.indicator.id,
            None if self.next_id == 0 => return Err(NoIdsLeft),
            None => {
                let id = self.next_id;
                self.next_id = id
                    .checked_add(1)
                    // The product's own.
                    .filter(|next| *next != IndicatorId::CANARY.0)
                    .unwrap_or(0);
                IndicatorId(id)
            }
        };
        // Nobody else has it yet: nothing is copied.
        Arc::make_mut(&mut merged).id = id;
        let indicator = match same {
            Some(old) if old.indicator == merged => Arc::clone(&old.indicator),
            _ => merged,
        };
        self.known.push(Known {
            indicator: Arc::clone(&indicator),
            left: None,
        });
        Ok(indicator)
    }

    /// Remembers one that is not listed.
    fn keep(&mut self, old: &Known<V>) {
        self.known.push(Known {
            indicator: Arc::clone(&old.indicator),
            left: old.left.or(Some(self.now)),
        });
    }

    /// The memory, and the next id.
    pub(super) fn finish(mut self) -> (Memory<V>, u32) {
        while let Some(old) = self.old.next() {
            self.keep(old);
        }
        (Memory::new(self.known), self.next_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        feeds::{Format, parse},
        indicators::IndicatorSet,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn merge(previous: &Catalog, text: &str, now: Timestamp) -> (IndicatorSet, Catalog) {
        let entries = parse(Format::Plain, text.as_bytes()).entries;
        IndicatorSet::merge(previous, &[("own", entries.as_slice())], now).unwrap()
    }

    fn ids(set: &IndicatorSet) -> Vec<(u32, String)> {
        set.iter().map(|it| (it.id.0, it.value_text())).collect()
    }

    #[test]
    fn ids_stay_and_are_never_given_twice() {
        let (first, catalog) = merge(&Catalog::default(), "192.0.2.2\n192.0.2.4", at(1));
        assert_eq!(
            ids(&first),
            [(1, "192.0.2.2".into()), (2, "192.0.2.4".into())]
        );
        let (second, catalog) = merge(&catalog, "192.0.2.1\n192.0.2.4", at(2));
        assert_eq!(
            ids(&second),
            [(3, "192.0.2.1".into()), (2, "192.0.2.4".into())]
        );
        // What left can still be explained, and is itself when it comes back.
        assert!(second.get(IndicatorId(1)).is_none());
        assert_eq!(
            catalog.get(IndicatorId(1)).unwrap().value_text(),
            "192.0.2.2"
        );
        let (third, mut catalog) = merge(&catalog, "192.0.2.2", at(3));
        assert_eq!(ids(&third), [(1, "192.0.2.2".into())]);
        // Forgotten ids stay used.
        assert_eq!(catalog.forget_left_before(at(3)), 0);
        assert_eq!(catalog.forget_left_before(at(4)), 2);
        assert_eq!(catalog.len(), 1);
        let (fourth, _) = merge(&catalog, "192.0.2.4", at(5));
        assert_eq!(ids(&fourth), [(4, "192.0.2.4".into())]);
    }

    #[test]
    fn what_left_earlier_is_forgotten_earlier() {
        let (_, catalog) = merge(&Catalog::default(), "192.0.2.1\n192.0.2.2", at(1));
        let (_, catalog) = merge(&catalog, "192.0.2.2", at(2));
        let (_, mut catalog) = merge(&catalog, "192.0.2.3", at(3));
        assert_eq!(catalog.forget_left_before(at(3)), 1);
        assert!(catalog.get(IndicatorId(1)).is_none());
        assert!(catalog.get(IndicatorId(2)).is_some());
    }

    #[test]
    fn the_last_id_is_given_and_no_more() {
        let catalog = Catalog::new(Vec::new(), Vec::new(), u32::MAX - 1);
        let (set, catalog) = merge(&catalog, "192.0.2.1", at(1));
        assert_eq!(ids(&set), [(u32::MAX - 1, "192.0.2.1".into())]);
        let (_, catalog) = merge(&catalog, "192.0.2.1", at(2));
        let entries = parse(Format::Plain, b"192.0.2.1\n192.0.2.2").entries;
        let answer = IndicatorSet::merge(&catalog, &[("own", entries.as_slice())], at(3));
        assert_eq!(answer.map(|_| ()), Err(NoIdsLeft));
    }
}
