//! Indicators to C&C tables.

use ipnet::IpNet;
use jiff::Timestamp;
use matcher_common::abi::{MAX_RULES, Rule, RuleSpan, rule_flags};

use super::{Covering, in_tree_order};
use crate::indicator::{Indicator, value_text};

/// The C&C tables of one generation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IndicatorTables {
    /// Every listed prefix, each once, with the run of rules that its longest
    /// match leads to.
    pub prefixes: Vec<(IpNet, RuleSpan)>,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// More entries cover one prefix than a packet can be held against.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{prefix} is covered by {rules} entries (ports, protocols, times, wider prefixes); at most \
     {MAX_RULES} can cover one address. List it once without ports, or drop entries"
)]
pub struct TooManyRules {
    /// The prefix.
    pub prefix: String,
    /// Entries that cover it.
    pub rules: usize,
}

/// Compiles indicators. Within an address the order of rules is: longer
/// prefix first; then entries with a port; then those with a protocol; then
/// the lower id. The first that holds for the packet is the hit.
pub fn compile<'a>(
    indicators: impl IntoIterator<Item = &'a Indicator>,
) -> Result<IndicatorTables, TooManyRules> {
    let mut sorted: Vec<&Indicator> = indicators.into_iter().collect();
    sorted.sort_by(|a, b| {
        in_tree_order(&a.value, &b.value)
            .then_with(|| qualifiers(b).cmp(&qualifiers(a)))
            .then_with(|| a.id.cmp(&b.id))
    });

    // Nearly every entry is a prefix of its own, with one rule.
    let mut tables = IndicatorTables {
        prefixes: Vec::with_capacity(sorted.len()),
        rules: Vec::with_capacity(sorted.len()),
    };
    let mut covering: Covering<Box<[Rule]>> = Covering::new();
    for group in sorted.chunk_by(|a, b| a.value == b.value) {
        let Some(prefix) = group.first().map(|indicator| indicator.value) else {
            continue;
        };
        let inherited = covering.enter(&prefix);
        let first = tables.rules.len();
        tables
            .rules
            .extend(group.iter().map(|indicator| rule(indicator)));
        if let Some(inherited) = inherited {
            tables.rules.extend_from_slice(inherited);
        }
        let rules = tables.rules.get(first..).unwrap_or_default();
        let too_many = || TooManyRules {
            prefix: value_text(prefix),
            rules: rules.len(),
        };
        let count = u32::try_from(rules.len()).map_err(|_| too_many())?;
        if count > MAX_RULES {
            return Err(too_many());
        }
        let first = u32::try_from(first).map_err(|_| too_many())?;
        tables.prefixes.push((prefix, RuleSpan { first, count }));
        // Nothing lies in a single address.
        if prefix.prefix_len() < prefix.max_prefix_len() {
            covering.push(prefix, rules.into());
        }
    }
    Ok(tables)
}

fn qualifiers(indicator: &Indicator) -> (bool, bool) {
    let qualifier = &indicator.qualifier;
    (qualifier.port.is_some(), qualifier.protocol.is_some())
}

fn rule(indicator: &Indicator) -> Rule {
    let mut flags = 0;
    if indicator.qualifier.port.is_some() {
        flags |= rule_flags::PORT;
    }
    if indicator.qualifier.protocol.is_some() {
        flags |= rule_flags::PROTOCOL;
    }
    Rule {
        valid_from_ns: indicator.valid_from.map_or(0, unix_ns),
        valid_until_ns: indicator.valid_until.map_or(u64::MAX, unix_ns),
        indicator: indicator.id.0,
        port: indicator.qualifier.port.unwrap_or(0),
        protocol: indicator
            .qualifier
            .protocol
            .map_or(0, |protocol| protocol.0),
        flags,
    }
}

/// Unix time in nanoseconds; times before 1970 become 0, times after 2554 the
/// last one that fits.
pub fn unix_ns(time: Timestamp) -> u64 {
    let ns = time.as_nanosecond();
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::indicator::{IndicatorId, Qualifier};
    use crate::protocol::Protocol;
    use proptest::prelude::*;

    fn indicator(id: u32, value: &str, port: Option<u16>) -> Indicator {
        Indicator {
            qualifier: Qualifier {
                protocol: None,
                port,
            },
            ..Indicator::bare(IndicatorId(id), value.parse().unwrap(), "test")
        }
    }

    fn ids(tables: &IndicatorTables, prefix: &str) -> Vec<u32> {
        let prefix: IpNet = prefix.parse().unwrap();
        let span = tables
            .prefixes
            .iter()
            .find(|(candidate, _)| *candidate == prefix)
            .unwrap()
            .1;
        tables.rules[span.first as usize..][..span.count as usize]
            .iter()
            .map(|rule| rule.indicator)
            .collect()
    }

    #[test]
    fn a_host_under_a_prefix_knows_the_prefix_too() {
        let list = [
            indicator(1, "198.51.100.0/24", None),
            indicator(2, "198.51.100.7/32", Some(443)),
            indicator(3, "198.51.0.0/16", None),
            indicator(4, "198.51.101.0/24", None),
        ];
        let tables = compile(&list).unwrap();
        assert_eq!(ids(&tables, "198.51.100.7/32"), [2, 1, 3]);
        assert_eq!(ids(&tables, "198.51.100.0/24"), [1, 3]);
        assert_eq!(ids(&tables, "198.51.101.0/24"), [4, 3]);
        assert_eq!(ids(&tables, "198.51.0.0/16"), [3]);
    }

    #[test]
    fn within_one_prefix_the_narrower_entry_comes_first() {
        let mut narrow = indicator(9, "192.0.2.1/32", Some(53));
        narrow.qualifier.protocol = Some(Protocol::UDP);
        let list = [
            indicator(1, "192.0.2.1/32", None),
            indicator(5, "192.0.2.1/32", Some(53)),
            indicator(4, "192.0.2.1/32", Some(80)),
            narrow,
        ];
        let tables = compile(&list).unwrap();
        assert_eq!(ids(&tables, "192.0.2.1/32"), [9, 4, 5, 1]);
    }

    #[test]
    fn families_do_not_mix() {
        let list = [indicator(1, "0.0.0.0/0", None), indicator(2, "::/0", None)];
        let tables = compile(&list).unwrap();
        assert_eq!(ids(&tables, "0.0.0.0/0"), [1]);
        assert_eq!(ids(&tables, "::/0"), [2]);
    }

    #[test]
    fn more_rules_than_a_packet_can_be_held_against_are_refused_by_name() {
        let list: Vec<_> = (1..=MAX_RULES + 1)
            .map(|id| indicator(id, "192.0.2.1/32", Some(id as u16)))
            .collect();
        let error = compile(&list).unwrap_err();
        assert_eq!(error.prefix, "192.0.2.1");
        assert_eq!(error.rules, MAX_RULES as usize + 1);
        assert!(compile(&list[1..]).is_ok());
    }

    proptest! {
        #[test]
        fn the_longest_match_knows_every_entry_that_covers_an_address(
            entries in prop::collection::vec((0u32..64, 26u8..=32), 1..40),
            address in 0u32..64,
        ) {
            let list: Vec<_> = entries
                .iter()
                .enumerate()
                .map(|(index, (host, length))| {
                    let net = ipnet::Ipv4Net::new((*host).into(), *length).unwrap().trunc();
                    let mut entry = indicator(index as u32 + 1, "0.0.0.0/0", None);
                    entry.value = net.into();
                    entry
                })
                .collect();
            let tables = compile(&list).unwrap();
            let address = std::net::IpAddr::V4(address.into());
            let longest = tables
                .prefixes
                .iter()
                .filter(|(prefix, _)| prefix.contains(&address))
                .max_by_key(|(prefix, _)| prefix.prefix_len());
            let mut found: Vec<u32> = longest.map_or(vec![], |(_, span)| {
                tables.rules[span.first as usize..][..span.count as usize]
                    .iter()
                    .map(|rule| rule.indicator)
                    .collect()
            });
            found.sort_unstable();
            let expected: Vec<u32> = list
                .iter()
                .filter(|entry| entry.value.contains(&address))
                .map(|entry| entry.id.0)
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
