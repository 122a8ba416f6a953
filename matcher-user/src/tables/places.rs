//! Which places of the kernel's array of port ranges are in use.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::consent::{PortRun, PurposeSet};

type Ranges = Arc<[PortRun<PurposeSet>]>;

/// A run of places.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Index of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// A place for ranges.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where.
    pub span: Span,
    /// The ranges are not there yet: write them before an entry leads there.
    pub is_new: bool,
}

/// The places of the array. Entries with the same ranges share a place: of a
/// hundred thousand sharers most hold one of a few hundred port sets.
#[derive(Debug)]
pub struct Places {
    by_start: BTreeMap<u32, u32>,
    by_count: BTreeSet<(u32, u32)>,
    /// Entries that lead to a place.
    users: HashMap<Span, usize>,
    by_ranges: HashMap<Ranges, Span>,
    /// Left, but packets may still look there.
    left: Vec<Span>,
    used: u32,
}

impl Places {
    /// `held` are the places in use, once for each entry that leads there, with
    /// what they hold; all others below `capacity` are free.
    pub fn new(capacity: u32, held: &[(Span, Ranges)]) -> Self {
        let mut places = Self {
            by_start: BTreeMap::new(),
            by_count: BTreeSet::new(),
            users: HashMap::new(),
            by_ranges: HashMap::new(),
            left: Vec::new(),
            used: 0,
        };
        let mut spans = BTreeSet::new();
        for (span, ranges) in held {
            *places.users.entry(*span).or_default() += 1;
            if spans.insert(*span) {
                places.by_ranges.insert(Arc::clone(ranges), *span);
            }
        }
        let mut free_from = 0;
        for span in spans {
            if let Some(count) = span.first.checked_sub(free_from).filter(|count| *count > 0) {
                places.free(Span {
                    first: free_from,
                    count,
                });
            }
            free_from = free_from.max(span.first.saturating_add(span.count));
            places.used = places.used.saturating_add(span.count);
        }
        if let Some(count) = capacity.checked_sub(free_from).filter(|count| *count > 0) {
            places.free(Span {
                first: free_from,
                count,
            });
        }
        places
    }

    /// Places in use, and those that were left and not reclaimed yet.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// A place for one more entry with these ranges: one that holds them
    /// already, or a free one. `None` when no free run is long enough.
    pub fn take(&mut self, ranges: &Ranges) -> Option<Taken> {
        if let Some(span) = self.by_ranges.get(ranges) {
            *self.users.entry(*span).or_default() += 1;
            return Some(Taken {
                span: *span,
                is_new: false,
            });
        }
        let count = u32::try_from(ranges.len()).ok()?;
        // The shortest run that is long enough.
        let (length, first) = *self.by_count.range((count, 0)..).next()?;
        self.by_count.remove(&(length, first));
        self.by_start.remove(&first);
        let span = Span { first, count };
        if length > count {
            self.free(Span {
                first: first + count,
                count: length - count,
            });
        }
        self.used = self.used.saturating_add(count);
        self.users.insert(span, 1);
        self.by_ranges.insert(Arc::clone(ranges), span);
        Some(Taken { span, is_new: true })
    }

    /// An entry no longer leads there.
    pub fn leave(&mut self, span: Span) {
        let Some(users) = self.users.get_mut(&span) else {
            return;
        };
        *users = users.saturating_sub(1);
        if *users == 0 {
            self.users.remove(&span);
            self.left.push(span);
        }
    }

    /// Whether places were left that [`Places::reclaim`] would free.
    pub fn anything_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Frees what was left. To be called when no packet looks there any more.
    pub fn reclaim(&mut self) {
        let left = std::mem::take(&mut self.left);
        let gone: BTreeSet<Span> = left
            .into_iter()
            .filter(|span| !self.users.contains_key(span))
            .collect();
        self.by_ranges.retain(|_, span| !gone.contains(span));
        for span in gone {
            self.used = self.used.saturating_sub(span.count);
            self.free(span);
        }
    }

    /// Adds a free run, joined with its neighbours.
    fn free(&mut self, span: Span) {
        let Span {
            mut first,
            mut count,
        } = span;
        let before = self.by_start.range(..first).next_back();
        if let Some((start, length)) = before.map(|(start, length)| (*start, *length))
            && start + length == first
        {
            self.by_start.remove(&start);
            self.by_count.remove(&(length, start));
            first = start;
            count += length;
        }
        if let Some(length) = self.by_start.remove(&(first + count)) {
            self.by_count.remove(&(length, first + count));
            count += length;
        }
        self.by_start.insert(first, count);
        self.by_count.insert((count, first));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(kind: u8) -> Ranges {
        // 1 to 4 ranges, told apart by the first.
        (0..=u16::from(kind % 4))
            .map(|index| PortRun {
                first: index * 256 + u16::from(kind),
                last: index * 256 + u16::from(kind),
                value: PurposeSet::NONE,
            })
            .collect()
    }

    /// What an array would hold: what is written never changes while an entry
    /// leads there, or a packet may look.
    #[derive(Default)]
    struct Array {
        entries: Vec<(Span, u8)>,
        still_read: Vec<(Span, u8)>,
    }

    impl Array {
        fn overlapped(&self, span: Span) -> bool {
            let all = self.entries.iter().chain(&self.still_read);
            all.into_iter().any(|(other, _)| {
                span.first < other.first + other.count && other.first < span.first + span.count
            })
        }
    }

    proptest! {
        #[test]
        fn no_place_is_written_while_an_entry_or_a_packet_reads_it(
            steps in prop::collection::vec((0u8..12, 0usize..20, 0u8..10), 0..120),
        ) {
            const CAPACITY: u32 = 24;
            let mut array = Array::default();
            let mut places = Places::new(CAPACITY, &[]);
            for (kind, which, step) in steps {
                match step {
                    0..5 => {
                        let wanted = ranges(kind);
                        if let Some(taken) = places.take(&wanted) {
                            prop_assert_eq!(taken.span.count as usize, wanted.len());
                            prop_assert!(taken.span.first + taken.span.count <= CAPACITY);
                            if taken.is_new {
                                prop_assert!(!array.overlapped(taken.span));
                            } else {
                                let there = array.entries.iter().chain(&array.still_read);
                                let found = there.into_iter().any(|entry| *entry == (taken.span, kind));
                                prop_assert!(found);
                            }
                            array.entries.push((taken.span, kind));
                        }
                    }
                    5..8 if which < array.entries.len() => {
                        let entry = array.entries.swap_remove(which);
                        places.leave(entry.0);
                        array.still_read.push(entry);
                    }
                    8 => {
                        array.still_read.clear();
                        places.reclaim();
                    }
                    // Another process takes over, after the packets are done.
                    9 => {
                        array.still_read.clear();
                        let held: Vec<_> = array
                            .entries
                            .iter()
                            .map(|(span, kind)| (*span, ranges(*kind)))
                            .collect();
                        places = Places::new(CAPACITY, &held);
                    }
                    _ => {}
                }
            }
            for (span, _) in std::mem::take(&mut array.entries) {
                places.leave(span);
            }
            places.reclaim();
            prop_assert_eq!(places.used(), 0);
            prop_assert_eq!(places.by_start, BTreeMap::from([(0, CAPACITY)]));
        }
    }
}
