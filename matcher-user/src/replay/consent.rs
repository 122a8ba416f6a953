//! Consent as it stood when a packet was captured.

use jiff::Timestamp;

use crate::{
    config::TableConfig,
    consent::ConsentLists,
    kernel::{KernelError, tables::Tables},
    tables::consent::ConsentEntries,
};

/// 128 MiB of them.
const MOST_PORT_RANGES: u32 = 1 << 24;

/// The consent lists, and the table that the kernel has of them.
///
/// Lines come into force at times of their own, and captures jump in time,
/// backwards too: the kernel's table is replaced whenever a packet's time
/// leaves the span for which the table is right.
pub(super) struct ConsentInTime {
    lists: ConsentLists,
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
        Self { lists, span: None }
    }

    /// Entries that a table can have at most, at any time: a line has one in
    /// each space.
    pub(super) fn most_entries(&self) -> usize {
        let inputs = self.lists.inputs();
        let lines: usize = inputs.lists.iter().map(|list| list.entries.len()).sum();
        lines.saturating_mul(inputs.spaces.len() + 1)
    }

    /// Room for port ranges. How many there are depends on what lies in what;
    /// this is twice what lines that do not cover each other need, and never
    /// less than the agent's usual room when any line has ports.
    pub(super) fn most_port_ranges(&self) -> u32 {
        let inputs = self.lists.inputs();
        let ranges: usize = inputs
            .lists
            .iter()
            .flat_map(|list| &list.entries)
            .filter_map(|entry| entry.ports.as_deref())
            .map(|ports| ports.ranges().count())
            .sum();
        if ranges == 0 {
            return 1;
        }
        let most = ranges.saturating_mul(4 * (inputs.spaces.len() + 1));
        u32::try_from(most)
            .unwrap_or(u32::MAX)
            .clamp(TableConfig::default().max_port_ranges, MOST_PORT_RANGES)
    }

    /// Makes the kernel's table right for a packet of this time.
    pub(super) fn apply(
        &mut self,
        time: Timestamp,
        kernel: &mut Tables,
    ) -> Result<(), KernelError> {
        if let Some(table) = self.table_for(time) {
            let change = kernel.set_consent(&table)?;
            if change.without_room > 0 {
                return Err(KernelError::Failed {
                    action: "writing the port ranges of the opt-out list".into(),
                    reason: format!("{} shared addresses find no room", change.without_room),
                });
            }
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
        Some(ConsentEntries::from(&compiled))
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
            let mut table = None;
            for time in times {
                let time = at(time);
                table = consent.table_for(time).or(table);
                let fresh = ConsentInTime::new(lists.clone()).table_for(time);
                prop_assert_eq!(&table, &fresh);
            }
        }
    }
}
