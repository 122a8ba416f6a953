//! How one consent table becomes the next without a moment in which a
//! subscriber is allowed what neither the old nor the new one allows.

use ipnet::IpNet;

use super::{Covering, in_tree_order};

/// Entries of a kernel consent table: longest prefix wins, the value is the
/// set of allowed purposes.
pub type Entries = Vec<(IpNet, u32)>;

/// A consent table: entries, and the purposes allowed where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsentEntries {
    /// Entries, each prefix once.
    pub entries: Entries,
    /// Purposes allowed outside every entry.
    pub default: u32,
}

/// The writes from one table to the next, to be carried out in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// First the default is narrowed to this.
    pub narrow_default: u32,
    /// Then these entries are written: each allows only what both tables
    /// allow.
    pub restrict: Entries,
    /// Then these, each with its new value.
    pub grant: Entries,
    /// Then these are removed.
    pub remove: Vec<IpNet>,
    /// Last the default becomes this.
    pub final_default: u32,
}

/// Plans the way from `old` to `new`.
///
/// Until the restrictions are complete every address is allowed at most what
/// `old` allows; from then on at most what `new` allows. No write changes the
/// answer for an address for which both agree.
pub fn transition(old: &ConsentEntries, new: &ConsentEntries) -> Transition {
    let mut merged: Vec<(IpNet, Option<u32>, Option<u32>)> = old
        .entries
        .iter()
        .map(|(prefix, value)| (*prefix, Some(*value), None))
        .chain(
            new.entries
                .iter()
                .map(|(prefix, value)| (*prefix, None, Some(*value))),
        )
        .collect();
    merged.sort_by(|a, b| in_tree_order(&a.0, &b.0));
    merged.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = earlier.1.or(later.1);
            earlier.2 = earlier.2.or(later.2);
        }
        same
    });

    let mut plan = Transition {
        narrow_default: old.default & new.default,
        final_default: new.default,
        ..Transition::default()
    };
    // What the old and the new table answer for the prefix at hand.
    let mut covering: Covering<(u32, u32)> = Covering::new();
    for (prefix, old_value, new_value) in merged {
        let (old_outer, new_outer) = covering
            .enter(&prefix)
            .copied()
            .unwrap_or((old.default, new.default));
        let old_answer = old_value.unwrap_or(old_outer);
        let new_answer = new_value.unwrap_or(new_outer);
        covering.push(prefix, (old_answer, new_answer));

        let both = old_answer & new_answer;
        if old_value != Some(both) {
            plan.restrict.push((prefix, both));
        }
        match new_value {
            Some(value) if value != both => plan.grant.push((prefix, value)),
            Some(_) => {}
            None => plan.remove.push(prefix),
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeMap, net::IpAddr};

    #[derive(Clone)]
    struct Table {
        entries: BTreeMap<(IpAddr, u8), u32>,
        default: u32,
    }

    impl Table {
        fn of(entries: &ConsentEntries) -> Self {
            Self {
                entries: entries
                    .entries
                    .iter()
                    .map(|(prefix, value)| ((prefix.network(), prefix.prefix_len()), *value))
                    .collect(),
                default: entries.default,
            }
        }

        fn answer(&self, address: IpAddr) -> u32 {
            self.entries
                .iter()
                .filter(|((network, length), _)| {
                    IpNet::new(*network, *length).unwrap().contains(&address)
                })
                .max_by_key(|((_, length), _)| *length)
                .map_or(self.default, |(_, value)| *value)
        }

        fn write(&mut self, prefix: &IpNet, value: u32) {
            self.entries
                .insert((prefix.network(), prefix.prefix_len()), value);
        }
    }

    fn table() -> impl Strategy<Value = ConsentEntries> {
        let entry = (0u32..32, 27u8..=32, 0u32..4);
        (prop::collection::vec(entry, 0..12), 0u32..4).prop_map(|(entries, default)| {
            let unique: BTreeMap<_, _> = entries
                .into_iter()
                .map(|(host, length, value)| {
                    let net = ipnet::Ipv4Net::new(host.into(), length).unwrap().trunc();
                    ((net.network(), length), (IpNet::from(net), value))
                })
                .collect();
            ConsentEntries {
                entries: unique.into_values().collect(),
                default,
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
            let addresses = || (0u32..32).map(|host| IpAddr::V4(host.into()));

            let mut restricted = vec![];
            now.default = plan.narrow_default;
            restricted.push(now.clone());
            for (prefix, value) in &plan.restrict {
                now.write(prefix, *value);
                restricted.push(now.clone());
            }
            for state in restricted {
                for address in addresses() {
                    prop_assert_eq!(state.answer(address) & !before.answer(address), 0);
                }
            }
            let mut granted = vec![now.clone()];
            for (prefix, value) in &plan.grant {
                now.write(prefix, *value);
                granted.push(now.clone());
            }
            for prefix in &plan.remove {
                now.entries.remove(&(prefix.network(), prefix.prefix_len()));
                granted.push(now.clone());
            }
            now.default = plan.final_default;
            granted.push(now.clone());
            for state in granted {
                for address in addresses() {
                    prop_assert_eq!(state.answer(address) & !after.answer(address), 0);
                }
            }
            prop_assert_eq!(now.entries, after.entries);
            prop_assert_eq!(now.default, after.default);
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
            default: 31,
        };
        let new = ConsentEntries {
            entries: vec![("203.0.113.7/32".parse().unwrap(), 0)],
            default: 31,
        };
        let plan = transition(&old, &new);
        assert_eq!(plan.restrict, new.entries);
        assert!(plan.grant.is_empty() && plan.remove.is_empty());
    }
}
