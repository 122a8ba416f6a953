//! All feeds as one list: every indicator once, whoever lists it, with an id
//! that stays.
//!
//! Two entries are the same indicator when value, qualifier and validity
//! agree ([`IndicatorSet::merge`]). Ids come from the [`Catalog`], which
//! outlives the process and never gives an id twice, because hits carry ids
//! and may be read long after the list has changed.

mod catalog;
mod catalog_file;
mod lookup;
pub mod report;

use std::{cmp::Ordering, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;

pub use self::{
    catalog::Catalog,
    catalog_file::CatalogError,
    lookup::{Covering, Mismatch},
};
use crate::{
    feeds::FeedEntry,
    hit::IndicatorSummary,
    indicator::{Indicator, IndicatorId, Qualifier},
};

/// What makes an indicator itself and not another one.
type Identity = (IpNet, Qualifier, Option<Timestamp>, Option<Timestamp>);

fn identity(indicator: &Indicator) -> Identity {
    (
        indicator.value,
        indicator.qualifier,
        indicator.valid_from,
        indicator.valid_until,
    )
}

fn entry_identity(entry: &FeedEntry) -> Identity {
    (
        entry.value,
        entry.qualifier,
        entry.valid_from,
        entry.valid_until,
    )
}

/// The ids that 32 bits can hold are used up: 4,294,967,295 different
/// indicators have been listed since the catalog was begun.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no indicator ids are left; stop the agent, remove the indicator catalog and the pinned maps, \
     and start again"
)]
pub struct NoIdsLeft;

/// The current list: every indicator once.
#[derive(Clone, Debug, Default)]
pub struct IndicatorSet {
    /// In order of identity.
    list: Vec<Arc<Indicator>>,
    /// In order of id.
    by_id: Vec<Arc<Indicator>>,
    /// Prefix lengths that occur, longest first: IPv4, IPv6.
    lengths: [Vec<u8>; 2],
}

impl IndicatorSet {
    /// Merges feeds (name, entries) into one list.
    ///
    /// What the catalog knows keeps its id, whatever is new gets the next
    /// ones, in order of value; the catalog that is returned knows both, and
    /// remembers since `now` what is no longer listed. Save it before any
    /// kernel map holds the new ids: an id that a crash makes us forget would
    /// be given again.
    ///
    /// Where feeds differ, the indicator has the highest confidence, the
    /// earliest first and the latest last sighting, and the malware name of
    /// the first feed by name (then line) that gives one. Neither the order
    /// of the feeds nor that of their entries matters; a feed may come in
    /// several parts under one name.
    ///
    /// # Errors
    ///
    /// When no ids are left.
    pub fn merge(
        previous: &Catalog,
        feeds: &[(&str, &[FeedEntry])],
        now: Timestamp,
    ) -> Result<(Self, Catalog), NoIdsLeft> {
        let mut entries: Vec<(&str, &FeedEntry)> = feeds
            .iter()
            .flat_map(|(name, entries)| entries.iter().map(|entry| (*name, entry)))
            .collect();
        entries.sort_unstable_by(|(a_name, a), (b_name, b)| {
            entry_identity(a)
                .cmp(&entry_identity(b))
                .then_with(|| a_name.cmp(b_name))
                .then_with(|| a.line.cmp(&b.line))
                .then_with(|| a.malware.cmp(&b.malware))
        });
        let mut update = previous.update(now);
        let mut list = Vec::with_capacity(entries.len());
        for same in entries.chunk_by(|(_, a), (_, b)| entry_identity(a) == entry_identity(b)) {
            if let Some(merged) = merged(same) {
                list.push(update.list(merged)?);
            }
        }
        list.shrink_to_fit();
        Ok((Self::new(list), update.finish()))
    }

    /// `list` is in order of identity.
    fn new(list: Vec<Arc<Indicator>>) -> Self {
        let mut occurs = [[false; 129]; 2];
        for indicator in &list {
            let family = usize::from(indicator.value.addr().is_ipv6());
            if let Some(length) = occurs
                .get_mut(family)
                .and_then(|lengths| lengths.get_mut(usize::from(indicator.value.prefix_len())))
            {
                *length = true;
            }
        }
        let lengths = occurs.map(|lengths| {
            (0u8..=128)
                .zip(lengths)
                .filter_map(|(length, occurs)| occurs.then_some(length))
                .rev()
                .collect()
        });
        Self {
            by_id: by_id(&list),
            list,
            lengths,
        }
    }

    /// The indicator with an id, if it is listed now. For one that is no
    /// longer, ask [`Catalog::get`].
    pub fn get(&self, id: IndicatorId) -> Option<&Indicator> {
        find_id(&self.by_id, id)
    }

    /// All indicators, IPv4 first, in order of value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Indicator> {
        self.list.iter().map(Arc::as_ref)
    }

    /// How many indicators.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// No indicator at all.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// One indicator from the entries that say the same, which are in order of
/// feed name and line. The id is the catalog's to give. `None` for none.
fn merged(same: &[(&str, &FeedEntry)]) -> Option<Indicator> {
    let (_, first) = same.first()?;
    let mut feeds: Vec<String> = Vec::with_capacity(1);
    for (name, _) in same {
        if feeds.last().is_none_or(|last| last != name) {
            feeds.push((*name).to_owned());
        }
    }
    let entries = || same.iter().map(|(_, entry)| *entry);
    Some(Indicator {
        id: IndicatorId(0),
        value: first.value,
        qualifier: first.qualifier,
        feeds,
        malware: entries().find_map(|entry| entry.malware.clone()),
        confidence: entries().filter_map(|entry| entry.confidence).max(),
        first_seen: entries().filter_map(|entry| entry.first_seen).min(),
        last_seen: entries().filter_map(|entry| entry.last_seen).max(),
        valid_from: first.valid_from,
        valid_until: first.valid_until,
    })
}

fn by_id(list: &[Arc<Indicator>]) -> Vec<Arc<Indicator>> {
    let mut by_id = list.to_vec();
    by_id.sort_by_cached_key(|indicator| indicator.id);
    by_id
}

fn find_id(by_id: &[Arc<Indicator>], id: IndicatorId) -> Option<&Indicator> {
    let position = by_id
        .binary_search_by_key(&id, |indicator| indicator.id)
        .ok()?;
    by_id.get(position).map(Arc::as_ref)
}

/// What a hit says about its indicator.
pub fn summary(indicator: &Indicator) -> IndicatorSummary {
    IndicatorSummary {
        id: indicator.id,
        value: indicator.value_text(),
        qualifier: indicator.qualifier,
        feeds: indicator.feeds.clone(),
        malware: indicator.malware.clone(),
        confidence: indicator.confidence,
    }
}

/// What changed from one list to another, each part in order of value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff<'a> {
    /// Only the new list has them.
    pub added: Vec<&'a Indicator>,
    /// Only the old list has them.
    pub removed: Vec<&'a Indicator>,
    /// Both lists have them (value, qualifier and validity agree) and
    /// something else differs: old, new.
    pub changed: Vec<(&'a Indicator, &'a Indicator)>,
}

/// Compares two lists.
pub fn diff<'a>(old: &'a IndicatorSet, new: &'a IndicatorSet) -> Diff<'a> {
    let mut diff = Diff::default();
    let mut olds = old.list.iter().peekable();
    let mut news = new.list.iter().peekable();
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return diff,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => identity(old).cmp(&identity(new)),
        };
        let old = if order.is_le() { olds.next() } else { None };
        let new = if order.is_ge() { news.next() } else { None };
        match (old, new) {
            // Most stay as they are and are shared by both lists.
            (Some(old), Some(new)) if !Arc::ptr_eq(old, new) && old != new => {
                diff.changed.push((old, new));
            }
            (Some(old), None) => diff.removed.push(old),
            (None, Some(new)) => diff.added.push(new),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
