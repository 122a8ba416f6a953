//! Which lengths a filter asks for.
//!
//! Every length asked for costs a load wherever the gate is open. So the
//! lengths of a list are gathered at a few levels: a prefix shorter than its
//! level is spread over it (exact, many keys), a longer one is cut to it (one
//! key, but neighbours become a maybe). Hosts are a level of their own, and of
//! nobody else: what may be one is asked for in a table of hosts.

use super::{
    Family,
    near::{Gate, Lengths, Reach},
};
use matcher_common::table::filter::{DIRECT_BITS, MAX_LEVELS};

/// Levels besides the hosts, at most.
const LEVELS: usize = MAX_LEVELS as usize;
/// Spreading by more bits than these costs no more: it is out of the question.
const FAR: u8 = 24;
/// A neighbourhood that becomes a maybe, in keys.
const CUT: u128 = 4;

/// What becomes of the prefixes of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A bit for each value of the first bits.
    Direct,
    /// Keys of this length, spread or cut.
    Level(u8),
}

/// The levels of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Levels {
    /// Levels in use, except for hosts; ascending.
    pub(super) prefixes: Vec<u8>,
    /// By length.
    pub(super) places: [Place; 129],
    /// Hosts.
    pub(super) host_keys: u64,
    /// Keys of the prefixes after spreading and cutting.
    pub(super) prefix_keys: u64,
    /// The gate, if there is one.
    pub(super) gate: Option<Gate>,
    /// The reach.
    pub(super) reach: Reach,
}

/// Keys that spreading may make out of a list of this many entries, at most.
pub(super) const fn spread_limit(entries: u64) -> u64 {
    entries * 2 + 65_536
}

/// Chooses the levels for a list with these lengths.
pub(super) fn choose(family: Family, lengths: &Lengths) -> Levels {
    let host = family.host();
    let count = |length: u8| lengths.get(usize::from(length)).copied().unwrap_or(0);
    let used: Vec<u8> = (DIRECT_BITS as u8 + 1..host)
        .filter(|length| count(*length) > 0)
        .collect();
    let entries: u64 = lengths.iter().sum();
    let wanted = best(&used, count, entries);

    let mut levels: Vec<u8> = wanted.iter().map(|(_, level)| *level).collect();
    levels.dedup();
    let mut found = Levels {
        prefixes: Vec::new(),
        places: [Place::Direct; 129],
        host_keys: count(host),
        prefix_keys: 0,
        gate: Gate::new(family, lengths, entries),
        reach: Reach::new(family, lengths),
    };
    set(&mut found.places, host, Place::Level(host));
    // The least spreading first, until the bound is met; the rest is cut.
    let mut by_growth = wanted;
    by_growth.sort_by_key(|(length, level)| level.saturating_sub(*length));
    let mut spread = 0_u64;
    for (length, level) in by_growth {
        let mut level = level;
        let mut keys = count(length);
        if level > length {
            let growth = keys.saturating_mul(
                1_u64
                    .checked_shl((level - length).into())
                    .unwrap_or(u64::MAX),
            );
            if growth.saturating_add(spread) <= spread_limit(entries) {
                spread += growth;
                keys = growth;
            } else {
                let below = levels.iter().rev().find(|below| **below <= length);
                let Some(below) = below else {
                    set(&mut found.places, length, Place::Direct);
                    continue;
                };
                level = *below;
            }
        }
        set(&mut found.places, length, Place::Level(level));
        found.prefix_keys += keys;
        found.prefixes.push(level);
    }
    found.prefixes.sort_unstable();
    found.prefixes.dedup();
    found
}

fn set(places: &mut [Place; 129], length: u8, place: Place) {
    if let Some(slot) = places.get_mut(usize::from(length)) {
        *slot = place;
    }
}

/// The level of each used length, ascending, at the least cost in keys.
fn best(used: &[u8], count: impl Fn(u8) -> u64, entries: u64) -> Vec<(u8, u8)> {
    let level_cost = u128::from(4096 + entries / 32);
    // For each candidate: the cost of all used lengths before the n-th.
    let sums: Vec<Vec<u128>> = used
        .iter()
        .map(|level| {
            let mut sum = 0;
            std::iter::once(0)
                .chain(used.iter().map(|length| {
                    sum += u128::from(count(*length)) * cost(*length, *level);
                    sum
                }))
                .collect()
        })
        .collect();
    let between = |candidate: usize, from: usize, to: usize| {
        let sums = sums.get(candidate)?;
        Some(sums.get(to)? - sums.get(from)?)
    };

    // ways[groups][n]: least cost of the first n lengths with that many
    // levels, the first length of the last group, and its candidate.
    type Way = (u128, usize, usize);
    let mut ways: Vec<Vec<Option<Way>>> = vec![vec![None; used.len() + 1]; LEVELS + 1];
    if let Some(start) = ways.first_mut().and_then(|row| row.first_mut()) {
        *start = Some((0, 0, 0));
    }
    let before = |ways: &[Vec<Option<Way>>], groups: usize, n: usize| {
        ways.get(groups)
            .and_then(|row| row.get(n))
            .copied()
            .flatten()
    };
    for to in 1..=used.len() {
        for groups in 1..=LEVELS {
            let mut least: Option<Way> = None;
            for from in 0..to {
                for candidate in from..to {
                    let (Some((so_far, ..)), Some(keys)) = (
                        before(&ways, groups - 1, from),
                        between(candidate, from, to),
                    ) else {
                        continue;
                    };
                    let total = so_far + keys + level_cost;
                    if least.is_none_or(|(known, ..)| total < known) {
                        least = Some((total, from, candidate));
                    }
                }
            }
            if let Some(slot) = ways.get_mut(groups).and_then(|row| row.get_mut(to)) {
                *slot = least;
            }
        }
    }

    let mut to = used.len();
    let mut groups = (0..=LEVELS)
        .filter(|groups| before(&ways, *groups, to).is_some())
        .min_by_key(|groups| before(&ways, *groups, to).map(|(cost, ..)| cost))
        .unwrap_or(0);
    let mut chosen = Vec::new();
    while to > 0 {
        let Some((_, from, candidate)) = before(&ways, groups, to) else {
            break;
        };
        let Some(level) = used.get(candidate).copied() else {
            break;
        };
        chosen.extend(
            used.iter()
                .take(to)
                .skip(from)
                .rev()
                .map(|length| (*length, level)),
        );
        groups = groups.saturating_sub(1);
        to = from;
    }
    chosen.reverse();
    chosen
}

/// What one prefix costs at a level, in keys.
fn cost(length: u8, level: u8) -> u128 {
    let far = length.abs_diff(level);
    let keys = (1_u128 << far.min(FAR)) + u128::from(far);
    if level < length { keys * CUT } else { keys }
}

#[cfg(test)]
mod tests {
    use super::super::near;
    use super::*;

    fn levels(family: Family, counts: &[(u8, u64)]) -> Levels {
        choose(family, &near::tests::lengths(counts))
    }

    #[test]
    fn few_lengths_are_levels_of_their_own() {
        let found = levels(Family::V6, &[(32, 90_000), (48, 90_000), (128, 900_000)]);
        assert_eq!(found.prefixes, [32, 48]);
        assert_eq!(found.host_keys, 900_000);
        assert_eq!(found.prefix_keys, 180_000);
        let gate = Gate {
            level: 33,
            keys: 270_000,
        };
        assert_eq!(found.gate, Some(gate));
    }

    #[test]
    fn a_list_of_prefixes_has_no_gate() {
        let found = levels(Family::V6, &[(56, 1_000_000)]);
        assert_eq!(found.prefixes, [56]);
        assert_eq!((found.prefix_keys, found.gate), (1_000_000, None));
    }

    #[test]
    fn short_prefixes_and_hosts_take_no_level() {
        let found = levels(Family::V4, &[(0, 1), (8, 20), (16, 500), (32, 5)]);
        assert!(found.prefixes.is_empty());
        assert_eq!(found.places[8], Place::Direct);
        assert_eq!(found.places[32], Place::Level(32));
        assert_eq!((found.host_keys, found.prefix_keys), (5, 0));
    }

    #[test]
    fn prefixes_of_two_addresses_are_not_among_the_hosts() {
        let found = levels(Family::V4, &[(30, 100), (31, 100), (32, 1_000)]);
        assert_eq!(found.host_keys, 1_000);
        assert_eq!(
            (found.prefixes.as_slice(), found.prefix_keys),
            (&[31][..], 300)
        );
    }

    #[test]
    fn all_lengths_at_once_stay_within_the_bounds() {
        for family in [Family::V4, Family::V6] {
            for count in [1, 1_000, 100_000] {
                let all: Vec<(u8, u64)> = (0..=family.host()).map(|at| (at, count)).collect();
                let entries = count * all.len() as u64;
                let found = levels(family, &all);
                assert!(found.prefixes.len() <= LEVELS);
                let keys = found.host_keys + found.prefix_keys;
                assert!(
                    keys <= entries + spread_limit(entries),
                    "{family:?} {count}"
                );
            }
        }
    }
}
