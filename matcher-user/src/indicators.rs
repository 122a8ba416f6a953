//! All feeds as one list: every indicator once, whoever lists it, with an id
//! that stays.
//!
//! Two entries are the same indicator when value, qualifier and validity
//! agree ([`IndicatorSet::merge`]). Ids come from the [`Catalog`], which
//! outlives the process and never gives an id twice, because hits carry ids
//! and may be read long after the list has changed.

mod by_id;
mod catalog;
mod catalog_file;
mod lookup;
pub mod report;

use std::{
    cmp::{Ordering, Reverse},
    hint::black_box,
    iter::repeat,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use jiff::Timestamp;

use self::{by_id::ById, catalog::Memory};
pub use self::{
    catalog::Catalog,
    catalog_file::CatalogError,
    lookup::{Covering, Mismatch},
};
use crate::{
    feeds::FeedEntry,
    hit::IndicatorSummary,
    indicator::{DomainName, Indicator, IndicatorId, Qualifier, Said, Statement, value_text},
    threads::both,
};

/// What makes an indicator itself and not another one.
type Identity<'a, V> = (&'a V, Qualifier, Option<Timestamp>, Option<Timestamp>);

fn identity<V>(indicator: &Indicator<V>) -> Identity<'_, V> {
    (
        &indicator.value,
        indicator.qualifier,
        indicator.valid_from,
        indicator.valid_until,
    )
}

fn entry_identity<V>(entry: &FeedEntry<V>) -> Identity<'_, V> {
    (
        &entry.value,
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

/// What one feed lists.
#[derive(Copy, Clone, Debug)]
pub struct Listed<'a> {
    /// The feed's name.
    pub feed: &'a str,
    /// Its addresses and prefixes.
    pub entries: &'a [FeedEntry],
    /// Its names.
    pub names: &'a [FeedEntry<DomainName>],
}

impl<'a> From<(&'a str, &'a [FeedEntry])> for Listed<'a> {
    /// A feed without names.
    fn from((feed, entries): (&'a str, &'a [FeedEntry])) -> Self {
        Self {
            feed,
            entries,
            names: &[],
        }
    }
}

/// The current list: every indicator once.
#[derive(Clone, Debug, Default)]
pub struct IndicatorSet {
    /// In order of identity.
    list: Vec<Arc<Indicator>>,
    by_id: ById,
    /// In order of identity.
    names: Vec<Arc<Indicator<DomainName>>>,
    /// Prefix lengths that occur, longest first: IPv4, IPv6.
    lengths: [Vec<u8>; 2],
}

impl IndicatorSet {
    /// Merges feeds into one list.
    ///
    /// What the catalog knows keeps its id, whatever is new gets the next
    /// ones, in order of value; the catalog that is returned knows both, and
    /// remembers since `now` what is no longer listed. Save it before any
    /// kernel map holds the new ids: an id that a crash makes us forget would
    /// be given again.
    ///
    /// What each feed says is kept beside what the others say; the indicator
    /// sums it up ([`Indicator::confidence`] and so on). Neither the order of
    /// the feeds nor that of their entries matters; a feed may come in several
    /// parts under one name.
    ///
    /// # Errors
    ///
    /// When no ids are left.
    pub fn merge<'a, F>(
        previous: &Catalog,
        feeds: &[F],
        now: Timestamp,
    ) -> Result<(Self, Catalog), NoIdsLeft>
    where
        F: Copy + Into<Listed<'a>>,
    {
        let feeds: Vec<Listed<'a>> = feeds.iter().map(|feed| (*feed).into()).collect();
        let feed_names = Interned::new(&feeds);
        let numbered = || {
            feeds
                .iter()
                .filter_map(|it| Some((it, feed_names.number(it.feed)?)))
        };
        let entries = numbered().flat_map(|(it, feed)| it.entries.iter().zip(repeat(feed)));
        let (list, addresses, next_id) = merged(
            &feed_names,
            entries,
            &previous.addresses,
            previous.next_id,
            now,
        )?;
        let entries = numbered().flat_map(|(it, feed)| it.names.iter().zip(repeat(feed)));
        let (names, known_names, next_id) =
            merged(&feed_names, entries, &previous.names, next_id, now)?;
        let catalog = Catalog {
            addresses,
            names: known_names,
            next_id,
        };
        Ok((Self::new(list, names), catalog))
    }

    /// `list` is in order of identity.
    fn new(list: Vec<Arc<Indicator>>, names: Vec<Arc<Indicator<DomainName>>>) -> Self {
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
            by_id: ById::new(&list, |it| it.id),
            list,
            names,
            lengths,
        }
    }

    /// The address or prefix with an id, if it is listed now. For one that is
    /// no longer, ask [`Catalog::get`].
    pub fn get(&self, id: IndicatorId) -> Option<&Indicator> {
        self.by_id.find(&self.list, |it| it.id, id).map(Arc::as_ref)
    }

    /// All addresses and prefixes, IPv4 first, in order of value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Indicator> {
        self.list.iter().map(Arc::as_ref)
    }

    /// All names, in order of value. Nothing matches them yet (R8).
    pub fn names(&self) -> impl ExactSizeIterator<Item = &Indicator<DomainName>> {
        self.names.iter().map(Arc::as_ref)
    }

    /// The addresses and names that are kept when these are asked.
    pub fn filtered(
        &self,
        address: impl Fn(&Indicator) -> bool,
        name: impl Fn(&Indicator<DomainName>) -> bool,
    ) -> Self {
        Self::new(
            self.list.iter().filter(|it| address(it)).cloned().collect(),
            self.names.iter().filter(|it| name(it)).cloned().collect(),
        )
    }

    /// The prefixes that are listed and cover an address, longest first, as
    /// people write them, each once.
    pub fn covering_values(&self, address: IpAddr) -> Vec<String> {
        let mut values: Vec<IpNet> = self
            .iter()
            .map(|indicator| indicator.value)
            .filter(|value| value.contains(&address))
            .collect();
        values.sort_unstable_by_key(|value| Reverse(value.prefix_len()));
        values.dedup();
        values.into_iter().map(value_text).collect()
    }

    /// How many addresses and prefixes.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// No address and no prefix at all.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Names of feeds, each kept once, in order: a name's number is its place.
struct Interned(Vec<Arc<str>>);

impl Interned {
    fn new(feeds: &[Listed<'_>]) -> Self {
        let mut names: Vec<Arc<str>> = feeds.iter().map(|it| it.feed.into()).collect();
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    fn number(&self, name: &str) -> Option<u32> {
        let place = self.0.binary_search_by(|known| (**known).cmp(name)).ok()?;
        u32::try_from(place).ok()
    }

    fn get(&self, number: u32) -> Option<&Arc<str>> {
        self.0.get(number as usize)
    }
}

/// The first bits of a value, in the order of values: a smaller value never has
/// a greater key. Comparing keys spares a sort of a million entries most of its
/// ways into memory.
trait SortKey {
    fn sort_key(&self) -> u128;
}

impl SortKey for IpNet {
    fn sort_key(&self) -> u128 {
        match self {
            Self::V4(net) => u128::from(u32::from(net.addr())) << 95,
            Self::V6(net) => 1 << 127 | u128::from(net.addr()) >> 1,
        }
    }
}

impl SortKey for DomainName {
    fn sort_key(&self) -> u128 {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(self.as_str().bytes()) {
            *to = from;
        }
        u128::from_be_bytes(bytes)
    }
}

/// The list, what is known now, and the next id.
type Merged<V> = (Vec<Arc<Indicator<V>>>, Memory<V>, u32);

/// The sort key of an entry's value, the number of its feed, and the entry.
type Keyed<'a, V> = (u128, u32, &'a FeedEntry<V>);

fn merged<'a, V: Clone + Ord + SortKey + Send + Sync + 'a>(
    feeds: &Interned,
    entries: impl Iterator<Item = (&'a FeedEntry<V>, u32)>,
    previous: &Memory<V>,
    next_id: u32,
    now: Timestamp,
) -> Result<Merged<V>, NoIdsLeft> {
    let mut entries: Vec<Keyed<'_, V>> = entries
        .map(|(entry, feed)| (entry.value.sort_key(), feed, entry))
        .collect();
    sort(&mut entries);
    let mut update = previous.update(next_id, now);
    let mut list = Vec::with_capacity(entries.len());
    let (one, other) = halves(&entries);
    let (one, other) = both(
        entries.len(),
        || indicators(feeds, one),
        || indicators(feeds, other),
    );
    for indicator in one.into_iter().chain(other) {
        list.push(update.list(indicator)?);
    }
    list.shrink_to_fit();
    let (known, next_id) = update.finish();
    Ok((list, known, next_id))
}

/// Sorts by identity, then by feed and place.
fn sort<V: Ord + Sync>(entries: &mut [Keyed<'_, V>]) {
    fn order<V: Ord>(
        (a_key, a_feed, a): &Keyed<'_, V>,
        (b_key, b_feed, b): &Keyed<'_, V>,
    ) -> Ordering {
        a_key
            .cmp(b_key)
            .then_with(|| entry_identity(a).cmp(&entry_identity(b)))
            .then_with(|| a_feed.cmp(b_feed))
            .then_with(|| (a.part, a.line).cmp(&(b.part, b.line)))
            .then_with(|| a.said.cmp(&b.said))
    }
    let all = entries.len();
    let (one, other) = entries.split_at_mut(all / 2);
    both(
        all,
        || one.sort_unstable_by(order),
        || {
            other.sort_unstable_by(order);
        },
    );
    // The stable sort finds the two runs and merges them.
    entries.sort_by(order);
}

fn are_same<V: Ord>((a_key, _, a): &Keyed<'_, V>, (b_key, _, b): &Keyed<'_, V>) -> bool {
    a_key == b_key && entry_identity(a) == entry_identity(b)
}

/// About half of the sorted entries, and the rest: what is the same stays
/// together.
fn halves<'s, 'a, V: Ord>(entries: &'s [Keyed<'a, V>]) -> (&'s [Keyed<'a, V>], &'s [Keyed<'a, V>]) {
    let mut middle = entries.len() / 2;
    while let Some([one, other]) = middle
        .checked_sub(1)
        .and_then(|before| entries.get(before..=middle))
        && are_same(one, other)
    {
        middle += 1;
    }
    entries.split_at(middle)
}

/// What is said of the last indicator. The next one shares it where the same is said,
/// as of most of a long list.
#[derive(Default)]
struct LastSaid(Arc<[Arc<Statement>]>);

impl LastSaid {
    fn share(&mut self, statements: &[Arc<Statement>]) -> Arc<[Arc<Statement>]> {
        let is_same = |(a, b): (&Arc<Statement>, &Arc<Statement>)| Arc::ptr_eq(a, b);
        if self.0.len() != statements.len() || !self.0.iter().zip(statements).all(is_same) {
            self.0 = statements.into();
        }
        Arc::clone(&self.0)
    }
}

/// Entries that are fetched at once.
const TOGETHER: usize = 32;

/// Reads a little of each of the first entries. They lie in memory in the order of
/// the feed: where each is read only when its turn comes, each is waited for.
fn fetch<V>(entries: &[Keyed<'_, V>]) {
    for (_, _, entry) in entries.iter().take(TOGETHER) {
        // An entry is longer than a line of the cache.
        black_box((
            entry.line,
            entry.valid_until.is_some(),
            entry.said.id.is_some(),
        ));
    }
}

/// What the sorted entries say, each indicator once, with the id 0, which is the
/// catalog's to give.
fn indicators<V: Clone + Ord>(
    feeds: &Interned,
    entries: &[Keyed<'_, V>],
) -> Vec<Arc<Indicator<V>>> {
    let mut list = Vec::with_capacity(entries.len());
    // Most entries of a long list say the same, namely nothing: the last
    // statement of each feed is shared by those that follow, and so are all
    // statements of the last indicator.
    let mut last: Vec<Option<Arc<Statement>>> = vec![None; feeds.0.len()];
    let mut last_said = LastSaid::default();
    let mut statements: Vec<Arc<Statement>> = Vec::new();
    let (mut at, mut fetched) = (0, 0);
    for same in entries.chunk_by(are_same) {
        if at >= fetched {
            fetched = at + TOGETHER;
            fetch(entries.get(at..).unwrap_or_default());
        }
        at += same.len();
        let Some((_, _, first)) = same.first() else {
            continue;
        };
        statements.clear();
        for (_, number, entry) in same {
            let (Some(feed), Some(last)) = (feeds.get(*number), last.get_mut(*number as usize))
            else {
                continue;
            };
            if statements
                .iter()
                .any(|it| it.feed == *feed && it.said == *entry.said)
            {
                continue;
            }
            let statement = match last {
                Some(last) if last.said == *entry.said => Arc::clone(last),
                _ => {
                    let feed = Arc::clone(feed);
                    let said = Said::clone(&entry.said);
                    Arc::clone(last.insert(Arc::new(Statement { feed, said })))
                }
            };
            statements.push(statement);
        }
        list.push(Arc::new(Indicator {
            id: IndicatorId(0),
            value: first.value.clone(),
            qualifier: first.qualifier,
            valid_from: first.valid_from,
            valid_until: first.valid_until,
            statements: last_said.share(&statements),
        }));
    }
    list
}

/// What a hit says about its indicator.
pub fn summary(indicator: &Indicator) -> IndicatorSummary {
    IndicatorSummary {
        id: indicator.id,
        value: indicator.value_text(),
        qualifier: indicator.qualifier,
        feeds: indicator.feeds(),
        malware: indicator.malware(),
        confidence: indicator.confidence(),
    }
}

/// What changed from one list to another, each part in order of value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff<'a, V = IpNet> {
    /// Only the new list has them.
    pub added: Vec<&'a Indicator<V>>,
    /// Only the old list has them.
    pub removed: Vec<&'a Indicator<V>>,
    /// Both lists have them (value, qualifier and validity agree) and
    /// something else differs: old, new.
    pub changed: Vec<(&'a Indicator<V>, &'a Indicator<V>)>,
}

impl<V> Diff<'_, V> {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Compares the addresses and prefixes of two lists.
pub fn diff<'a>(old: &'a IndicatorSet, new: &'a IndicatorSet) -> Diff<'a> {
    difference(&old.list, &new.list)
}

/// Compares the names of two lists.
pub fn diff_of_names<'a>(old: &'a IndicatorSet, new: &'a IndicatorSet) -> Diff<'a, DomainName> {
    difference(&old.names, &new.names)
}

fn difference<'a, V: Ord>(
    old: &'a [Arc<Indicator<V>>],
    new: &'a [Arc<Indicator<V>>],
) -> Diff<'a, V> {
    let mut diff = Diff {
        added: Vec::new(),
        removed: Vec::new(),
        changed: Vec::new(),
    };
    let mut olds = old.iter().peekable();
    let mut news = new.iter().peekable();
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
