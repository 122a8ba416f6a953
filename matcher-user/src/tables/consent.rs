//! How one consent table becomes the next without a moment in which a
//! subscriber is allowed what neither the old nor the new one allows.

use super::Covering;
use crate::consent::{Answer, ConsentTable, PurposeSet, SpacePrefix};

/// Entries of a kernel consent table, each prefix once: in a space the longest
/// prefix wins.
pub type Entries = Vec<(SpacePrefix, Answer)>;

/// A consent table: entries, and the purposes allowed where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsentEntries {
    /// Entries, each prefix once.
    pub entries: Entries,
    /// Purposes allowed outside every entry.
    pub default: PurposeSet,
}

impl From<&ConsentTable> for ConsentEntries {
    fn from(table: &ConsentTable) -> Self {
        Self {
            entries: table.entries().collect(),
            default: table.default_allowed(),
        }
    }
}

/// The writes from one table to the next, to be carried out in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// First the default is narrowed to this.
    pub narrow_default: PurposeSet,
    /// Then these entries are written: each allows only what both tables
    /// allow, port by port.
    pub restrict: Entries,
    /// Then these, each with its new value.
    pub grant: Entries,
    /// Then these are removed.
    pub remove: Vec<SpacePrefix>,
    /// Last the default becomes this.
    pub final_default: PurposeSet,
}

impl Transition {
    /// Whether the tables are the same: there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.restrict.is_empty()
            && self.grant.is_empty()
            && self.remove.is_empty()
            && self.narrow_default == self.final_default
    }
}

/// Plans the way from `old` to `new`.
///
/// Until the restrictions are complete every address and port is allowed at
/// most what `old` allows; from then on at most what `new` allows. No write
/// changes the answer where both agree.
pub fn transition(old: &ConsentEntries, new: &ConsentEntries) -> Transition {
    let mut merged: Vec<(SpacePrefix, Option<&Answer>, Option<&Answer>)> = old
        .entries
        .iter()
        .map(|(at, answer)| (*at, Some(answer), None))
        .chain(
            new.entries
                .iter()
                .map(|(at, answer)| (*at, None, Some(answer))),
        )
        .collect();
    merged.sort_by_key(|(at, ..)| *at);
    merged.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = earlier.1.or(later.1);
            earlier.2 = earlier.2.or(later.2);
        }
        same
    });

    let (old_default, new_default) = (Answer::Whole(old.default), Answer::Whole(new.default));
    let mut plan = Transition {
        narrow_default: old.default.intersection(new.default),
        final_default: new.default,
        ..Transition::default()
    };
    for space in merged.chunk_by(|a, b| a.0.space == b.0.space) {
        // What the old and the new table answer for the prefix at hand.
        let mut covering: Covering<(&Answer, &Answer)> = Covering::new();
        for (at, old_value, new_value) in space {
            let (old_outer, new_outer) = covering
                .enter(&at.prefix)
                .copied()
                .unwrap_or((&old_default, &new_default));
            let old_answer = old_value.unwrap_or(old_outer);
            let new_answer = new_value.unwrap_or(new_outer);
            covering.push(at.prefix, (old_answer, new_answer));

            let both = old_answer.and(new_answer);
            match new_value {
                Some(value) if **value != both => plan.grant.push((*at, (*value).clone())),
                Some(_) => {}
                None => plan.remove.push(*at),
            }
            if *old_value != Some(&both) {
                plan.restrict.push((*at, both));
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consent::{PortRun, any_answer::any_runs};
    use ipnet::{IpNet, Ipv4Net};
    use proptest::prelude::*;
    use std::{collections::BTreeMap, net::IpAddr};

    #[derive(Clone, PartialEq, Debug)]
    struct Table {
        entries: BTreeMap<SpacePrefix, Answer>,
        default: PurposeSet,
    }

    impl Table {
        fn of(entries: &ConsentEntries) -> Self {
            Self {
                entries: entries.entries.iter().cloned().collect(),
                default: entries.default,
            }
        }

        fn answer(&self, space: u32, address: IpAddr, port: Option<u16>) -> PurposeSet {
            self.entries
                .iter()
                .filter(|(at, _)| at.space == space && at.prefix.contains(&address))
                .max_by_key(|(at, _)| at.prefix.prefix_len())
                .map_or(self.default, |(_, answer)| answer.allowed(port))
        }

        /// Whether no one is allowed more than in the other table.
        fn is_within(&self, other: &Self) -> bool {
            (0..2).all(|space| {
                (0..16u32).all(|host| {
                    let ports = (0..8).map(Some).chain([None, Some(u16::MAX)]);
                    ports.into_iter().all(|port| {
                        let address = IpAddr::V4(host.into());
                        other
                            .answer(space, address, port)
                            .covers(self.answer(space, address, port))
                    })
                })
            })
        }
    }

    fn answer() -> impl Strategy<Value = Answer> {
        any_runs(3, 4).prop_map(|(outside, runs)| Answer::new(outside, runs))
    }

    fn table() -> impl Strategy<Value = ConsentEntries> {
        let entry = (0u32..2, 0u32..16, 28u8..=32, answer());
        (prop::collection::vec(entry, 0..8), 0u8..4).prop_map(|(entries, default)| {
            let unique: BTreeMap<_, _> = entries
                .into_iter()
                .map(|(space, host, length, answer)| {
                    let net = Ipv4Net::new(host.into(), length).unwrap().trunc();
                    let prefix = IpNet::from(net);
                    (SpacePrefix { space, prefix }, answer)
                })
                .collect();
            ConsentEntries {
                entries: unique.into_iter().collect(),
                default: PurposeSet::from_bits(default),
            }
        })
    }

    proptest! {
        #[test]
        fn no_write_on_the_way_allows_more_than_the_old_or_the_new_table(
            old in table(),
            new in table(),
        ) {
            let plan = transition(&old, &new);
            let (before, after) = (Table::of(&old), Table::of(&new));
            let mut now = before.clone();

            now.default = plan.narrow_default;
            prop_assert!(now.is_within(&before));
            for (at, answer) in &plan.restrict {
                now.entries.insert(*at, answer.clone());
                prop_assert!(now.is_within(&before));
            }
            prop_assert!(now.is_within(&after));
            for (at, answer) in &plan.grant {
                now.entries.insert(*at, answer.clone());
                prop_assert!(now.is_within(&after));
            }
            for at in &plan.remove {
                now.entries.remove(at);
                prop_assert!(now.is_within(&after));
            }
            now.default = plan.final_default;
            prop_assert_eq!(now, after);
        }

        #[test]
        fn a_table_becomes_itself_without_a_write(table in table()) {
            let plan = transition(&table, &table);
            prop_assert!(plan.restrict.is_empty() && plan.grant.is_empty());
            prop_assert!(plan.remove.is_empty());
        }
    }

    #[test]
    fn an_opt_out_is_one_write() {
        let old = ConsentEntries {
            entries: vec![],
            default: PurposeSet::ALL,
        };
        let one = "203.0.113.7/32".parse::<IpNet>().unwrap();
        let ports = [PortRun {
            first: 1024,
            last: 2047,
            value: PurposeSet::NONE,
        }];
        for answer in [
            Answer::Whole(PurposeSet::NONE),
            Answer::new(PurposeSet::ALL, ports),
        ] {
            let new = ConsentEntries {
                entries: vec![(one.into(), answer)],
                default: PurposeSet::ALL,
            };
            let plan = transition(&old, &new);
            assert_eq!(plan.restrict, new.entries);
            assert!(plan.grant.is_empty() && plan.remove.is_empty());
        }
    }
}
