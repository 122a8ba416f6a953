//! Which lengths a filter asks for.
//!
//! Every length asked for costs a load wherever the gate is open. So the
//! lengths of a list are gathered at a few levels: a prefix shorter than its
//! level is spread over it (exact, many keys), a longer one is cut to it (one
//! key, but neighbours become a maybe). Hosts are a level of their own, and of
//! nobody else: what may be one is asked for in a table of hosts.

use super::Family;
use matcher_common::table::filter::{DIRECT_BITS, GATE_LEVEL_V4, GATE_LEVEL_V6, MAX_LEVELS};

/// Levels besides the hosts, at most.
const LEVELS: usize = MAX_LEVELS as usize;
/// Spreading by more bits than these costs no more: it is out of the question.
const FAR: u8 = 24;
/// A neighbourhood that becomes a maybe, in keys.
const CUT: u128 = 4;

/// Number of prefixes of each length.
pub(super) type Lengths = [u64; 129];

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
    /// Bits that the prefixes set in the gate, at most; `None`: so many that
    /// it would be open nearly everywhere, and is left out.
    pub(super) gate_keys: Option<u64>,
    /// First bits of an address that the reach goes by; `None`: there is none.
    pub(super) reach_bits: Option<u32>,
}

/// Keys that spreading may make out of a list of this many entries, at most.
pub(super) const fn spread_limit(entries: u64) -> u64 {
    entries * 2 + 65_536
}

/// Keys of a gate, at most: where prefixes are not few beside the hosts, a
/// gate costs a load and spares none.
pub(super) const fn gate_limit(entries: u64) -> u64 {
    entries / 4 + 4_096
}

/// First bits of an IPv4 address that a reach may go by, 128 KiB at most: as many
/// as make one of sixteen bits set or fewer, else as many as there may be.
const LEAST_REACH_BITS: u32 = 16;
const MOST_REACH_BITS: u32 = 20;
const REACH_SPARES: u64 = 16;
/// With more than one of so many bits set a reach costs a load and spares few.
const REACH_SPARES_AT_LEAST: u64 = 4;

/// Bits of a reach, at most.
pub(super) const fn reach_limit() -> u64 {
    1 << MOST_REACH_BITS
}

/// How many first bits of an address the reach of these prefixes goes by.
fn reach_bits(family: Family, lengths: &Lengths) -> Option<u32> {
    let set = |bits: u32| {
        lengths
            .iter()
            .take(usize::from(family.host()))
            .zip(0_u32..)
            .map(|(count, length)| count.saturating_mul(1 << bits.saturating_sub(length)))
            .fold(0, u64::saturating_add)
    };
    let spares = |bits: u32, times: u64| set(bits).saturating_mul(times) <= 1 << bits;
    if family == Family::V6 || set(0) == 0 || !spares(MOST_REACH_BITS, REACH_SPARES_AT_LEAST) {
        return None;
    }
    let enough = (LEAST_REACH_BITS..MOST_REACH_BITS).find(|bits| spares(*bits, REACH_SPARES));
    Some(enough.unwrap_or(MOST_REACH_BITS))
}

/// Length of the prefixes that the gate knows.
pub(super) const fn gate_level(family: Family) -> u8 {
    match family {
        Family::V4 => GATE_LEVEL_V4 as u8,
        Family::V6 => GATE_LEVEL_V6 as u8,
    }
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
        gate_keys: None,
        reach_bits: reach_bits(family, lengths),
    };
    set(&mut found.places, host, Place::Level(host));
    // The least spreading first, until the bound is met; the rest is cut.
    let mut by_growth = wanted;
    by_growth.sort_by_key(|(length, level)| level.saturating_sub(*length));
    let mut spread = 0_u64;
    let mut gate_keys = 0_u64;
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
        let growth = gate_level(family).saturating_sub(length);
        gate_keys = gate_keys.saturating_add(count(length) << growth);
    }
    found.prefixes.sort_unstable();
    found.prefixes.dedup();
    found.gate_keys = (gate_keys <= gate_limit(entries)).then_some(gate_keys);
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
    use super::*;

    fn levels(family: Family, counts: &[(u8, u64)]) -> Levels {
        let mut lengths = [0; 129];
        for (length, count) in counts {
            lengths[usize::from(*length)] = *count;
        }
        choose(family, &lengths)
    }

    #[test]
    fn few_lengths_are_levels_of_their_own() {
        let found = levels(Family::V6, &[(32, 90_000), (48, 90_000), (128, 900_000)]);
        assert_eq!(found.prefixes, [32, 48]);
        assert_eq!(found.host_keys, 900_000);
        assert_eq!(found.prefix_keys, 180_000);
        assert_eq!(found.gate_keys, Some(180_000));
    }

    #[test]
    fn a_list_of_prefixes_has_no_gate() {
        let found = levels(Family::V6, &[(56, 1_000_000)]);
        assert_eq!(found.prefixes, [56]);
        assert_eq!((found.prefix_keys, found.gate_keys), (1_000_000, None));
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
    fn a_reach_is_as_fine_as_its_prefixes_are_many() {
        let bits = |counts: &[(u8, u64)]| levels(Family::V4, counts).reach_bits;
        assert_eq!(bits(&[(24, 1), (32, 1_000_000)]), Some(16));
        assert_eq!(bits(&[(8, 3), (24, 200)]), Some(16));
        assert_eq!(bits(&[(24, 20_000)]), Some(19));
        assert_eq!(bits(&[(24, 100_000)]), Some(20));
        // Prefixes are nearly everywhere, or nowhere.
        assert_eq!(bits(&[(24, 1_000_000)]), None);
        assert_eq!(bits(&[(0, 1)]), None);
        assert_eq!(bits(&[(32, 1_000)]), None);
        assert_eq!(levels(Family::V6, &[(48, 10)]).reach_bits, None);
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
