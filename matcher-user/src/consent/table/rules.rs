//! What lines say, before it is known what covers what.

use std::{collections::HashMap, sync::Arc};

use ipnet::IpNet;

use crate::consent::{
    list::ListKind,
    ports::{PortLimit, PortRun, combined, every_port, joined},
    purpose::{Purpose, PurposeSet},
};

/// What lines say of the same ports of the same prefix.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Says {
    granted: PurposeSet,
    refused: PurposeSet,
}

impl Says {
    pub(super) fn new(kind: ListKind, purposes: PurposeSet) -> Self {
        match kind {
            ListKind::OptIn => Self {
                granted: purposes,
                refused: PurposeSet::NONE,
            },
            ListKind::OptOut | ListKind::Exclusion => Self {
                granted: PurposeSet::NONE,
                refused: purposes,
            },
        }
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self {
            granted: self.granted.union(other.granted),
            refused: self.refused.union(other.refused),
        }
    }

    pub(super) fn allowed(self, base: PurposeSet) -> PurposeSet {
        base.union(self.granted).without(self.refused).lawful()
    }
}

/// One line in force.
#[derive(Copy, Clone, Debug)]
pub(super) struct Rule<'a> {
    pub(super) net: IpNet,
    pub(super) says: Says,
    /// Only these ports, if it is limited.
    pub(super) ports: Option<&'a PortLimit>,
}

/// The rules that cover one of the prefixes or lie in one, each once. `rules`
/// are sorted by prefix.
pub(super) fn touching<'a>(rules: &[Rule<'a>], nets: &[IpNet]) -> Vec<Rule<'a>> {
    let from = |net: IpNet| rules.partition_point(|rule| rule.net < net);
    let after = |net: IpNet| rules.partition_point(|rule| rule.net <= net);
    let mut found: Vec<usize> = Vec::new();
    for net in nets {
        for length in 0..net.prefix_len() {
            if let Ok(around) = IpNet::new(net.network(), length) {
                let around = around.trunc();
                found.extend(from(around)..after(around));
            }
        }
        // Whatever lies in the prefix stands together, from itself to its
        // last address.
        if let Ok(last) = IpNet::new(net.broadcast(), net.max_prefix_len()) {
            found.extend(from(*net)..after(last));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
        .into_iter()
        .filter_map(|index| rules.get(index).copied())
        .collect()
}

/// What lines say of single ports, beside what they say of all: runs that
/// ascend and do not overlap. None where no line is limited to ports.
pub(super) type PortSays = Option<Arc<[PortRun<Says>]>>;

/// Works out what lines say port by port.
#[derive(Default)]
pub(super) struct PortSets<'a> {
    /// Thousands of sharers hold one of few port sets.
    known: HashMap<(&'a PortLimit, Says), Arc<[PortRun<Says>]>>,
}

impl<'a> PortSets<'a> {
    /// What the lines of one prefix say together.
    pub(super) fn of(&mut self, rules: &[Rule<'a>]) -> PortSays {
        let mut limited = rules
            .iter()
            .filter_map(|rule| rule.ports.map(|ports| (ports, rule.says)));
        let first = limited.next()?;
        let Some(second) = limited.next() else {
            let (ports, says) = first;
            let runs = self
                .known
                .entry((ports, says))
                .or_insert_with(|| accumulated([(ports, says)]).into());
            return Some(Arc::clone(runs));
        };
        Some(accumulated([first, second].into_iter().chain(limited)).into())
    }
}

/// What an outer prefix and a prefix inside it say together.
pub(super) fn united(outer: &PortSays, own: PortSays) -> PortSays {
    match (outer, own) {
        (None, own) => own,
        (Some(outer), None) => Some(Arc::clone(outer)),
        (Some(outer), Some(own)) => {
            let nothing = Says::default();
            let runs = combined(
                every_port(outer, nothing),
                every_port(&own, nothing),
                Says::with,
            );
            Some(joined(runs, nothing).into())
        }
    }
}

/// How many of the lines at a port grant or refuse each purpose.
#[derive(Default)]
struct Counts([[u32; Purpose::ALL.len()]; 2]);

impl Counts {
    fn change(&mut self, says: Says, by: impl Fn(u32) -> u32) {
        let [granted, refused] = &mut self.0;
        for (counts, set) in [(granted, says.granted), (refused, says.refused)] {
            for (count, purpose) in counts.iter_mut().zip(Purpose::ALL) {
                if set.contains(purpose) {
                    *count = by(*count);
                }
            }
        }
    }

    fn says(&self) -> Says {
        let [granted, refused] = self.0.map(|counts| {
            counts
                .iter()
                .zip(Purpose::ALL)
                .filter(|(count, _)| **count > 0)
                .map(|(_, purpose)| purpose)
                .collect()
        });
        Says { granted, refused }
    }
}

/// One sweep over the ports at which a range begins or has ended.
fn accumulated<'a>(lines: impl IntoIterator<Item = (&'a PortLimit, Says)>) -> Vec<PortRun<Says>> {
    let mut turns: Vec<(u32, bool, Says)> = Vec::new();
    for (ports, says) in lines {
        for range in ports.ranges() {
            turns.push((range.first.into(), true, says));
            turns.push((u32::from(range.last) + 1, false, says));
        }
    }
    turns.sort_unstable_by_key(|(at, ..)| *at);
    let mut counts = Counts::default();
    let mut runs = Vec::with_capacity(turns.len() / 2);
    let mut since = 0;
    for here in turns.chunk_by(|(a, ..), (b, ..)| a == b) {
        let Some((at, ..)) = here.first() else {
            continue;
        };
        if let (Ok(first), Some(Ok(last))) =
            (u16::try_from(since), at.checked_sub(1).map(u16::try_from))
            && since < *at
        {
            runs.push(PortRun {
                first,
                last,
                value: counts.says(),
            });
        }
        for (_, begins, says) in here {
            if *begins {
                counts.change(*says, |count| count.saturating_add(1));
            } else {
                counts.change(*says, |count| count.saturating_sub(1));
            }
        }
        since = *at;
    }
    joined(runs, Says::default())
}
