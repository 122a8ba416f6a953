//! Consent as it stood when a packet was captured.

use jiff::Timestamp;

use crate::{
    consent::ConsentLists,
    kernel::{KernelError, tables::Tables},
    tables::consent::{ConsentEntries, transition},
};

/// The consent lists, and the table that the kernel has of them.
///
/// Lines come into force at times of their own, and captures jump in time,
/// backwards too: the kernel's table is replaced whenever a packet's time
/// leaves the span for which the table is right.
pub(super) struct ConsentInTime {
    lists: ConsentLists,
    /// What the kernel has; at first nothing, which allows nothing.
    table: ConsentEntries,
    /// When the table is right; `None` until there is one.
    span: Option<Span>,
}

/// From `since` on, until before `until`; unbounded where there is none.
#[derive(Clone, Copy)]
struct Span {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Span {
    fn contains(self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| since <= time) && self.until.is_none_or(|until| time < until)
    }
}

impl ConsentInTime {
    pub(super) fn new(lists: ConsentLists) -> Self {
        Self {
            lists,
            table: ConsentEntries::default(),
            span: None,
        }
    }

    /// Entries that a table can have at most, at any time.
    pub(super) fn most_entries(&self) -> usize {
        self.lists
            .inputs()
            .lists
            .iter()
            .map(|list| list.entries.len())
            .sum()
    }

    /// Makes the kernel's table right for a packet of this time.
    pub(super) fn apply(
        &mut self,
        time: Timestamp,
        kernel: &mut Tables,
    ) -> Result<(), KernelError> {
        if let Some(table) = self.table_for(time) {
            kernel.change_consent(&transition(&self.table, &table))?;
            self.table = table;
        }
        Ok(())
    }

    /// The table for this time, when the present one is not right for it.
    fn table_for(&mut self, time: Timestamp) -> Option<ConsentEntries> {
        if self.span.is_some_and(|span| span.contains(time)) {
            return None;
        }
        let compiled = self.lists.compile(time);
        self.span = Some(Span {
            since: self.latest_start(time),
            until: compiled.valid_until(),
        });
        Some(ConsentEntries {
            entries: compiled
                .entries()
                .iter()
                .map(|(prefix, purposes)| (*prefix, u32::from(purposes.bits())))
                .collect(),
            default: u32::from(compiled.default_allowed().bits()),
        })
    }

    /// When the last of the lines came into force that are in force at `time`.
    fn latest_start(&self, time: Timestamp) -> Option<Timestamp> {
        self.lists
            .inputs()
            .lists
            .iter()
            .flat_map(|list| &list.entries)
            .filter_map(|entry| entry.from)
            .filter(|from| *from <= time)
            .max()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::consent::{ConsentModel, ConsentSources};

    fn lists(text: &str) -> ConsentLists {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let mut lists = ConsentLists::new(ConsentSources {
            model: ConsentModel::OptOut,
            lists: vec![file.path().into()],
            no_list: false,
            exclusions: vec![],
            notice_since: None,
            state_dir: None,
        });
        assert!(lists.reload().matching_allowed);
        lists
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_list_without_times_is_compiled_once() {
        let mut consent = ConsentInTime::new(lists("203.0.113.7\n"));
        assert!(consent.table_for(at(1_000)).is_some());
        for second in [0, -1_000_000, 2_000_000_000] {
            assert!(consent.table_for(at(second)).is_none(), "{second}");
        }
    }

    #[test]
    fn a_jump_back_within_the_span_compiles_nothing() {
        let mut consent = ConsentInTime::new(lists(
            "203.0.113.7 from=2026-01-01T00:00:00Z\n203.0.113.8 from=2026-03-01T00:00:00Z\n",
        ));
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(consent.table_for(time("2026-02-20T00:00:00Z")).is_some());
        assert!(consent.table_for(time("2026-01-01T00:00:00Z")).is_none());
        assert!(consent.table_for(time("2026-02-28T23:59:59Z")).is_none());
        assert!(consent.table_for(time("2026-03-01T00:00:00Z")).is_some());
        assert!(consent.table_for(time("2025-12-31T23:59:59Z")).is_some());
    }

    proptest! {
        #[test]
        fn whatever_the_order_of_times_the_table_is_that_of_the_time(
            froms in prop::collection::vec(0i64..40, 1..8),
            times in prop::collection::vec(0i64..40, 1..40),
        ) {
            let text: String = froms
                .iter()
                .enumerate()
                .map(|(host, from)| format!("203.0.113.{host} from={}\n", at(*from)))
                .collect();
            let lists = lists(&text);
            let mut consent = ConsentInTime::new(lists.clone());
            for time in times {
                let time = at(time);
                if let Some(table) = consent.table_for(time) {
                    consent.table = table;
                }
                let fresh = ConsentInTime::new(lists.clone()).table_for(time);
                prop_assert_eq!(Some(&consent.table), fresh.as_ref());
            }
        }
    }
}
