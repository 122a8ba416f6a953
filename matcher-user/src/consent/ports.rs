//! Ports of a shared address: which of them a subscriber holds, and values
//! that differ from port to port.

use std::fmt;

/// The part of a shared address that a line is limited to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortLimit {
    /// `ports=1024-2047` or `ports=1024-2047,4096`.
    Ports(Vec<PortRange>),
    /// `map-e=a:4,k:8,psid:0x34` (RFC 7597 section 5.1): the ports whose `k`
    /// bits after the first `a` are the port-set id.
    MapE {
        /// Offset bits, 0-15. Where there are some, ports in which all of them
        /// are 0 belong to nobody.
        a: u8,
        /// Bits of the port-set id; `a + k` is at most 16.
        k: u8,
        /// Port-set id, below `2^k`.
        psid: u16,
    },
}

/// Ports from the first to the last, both included.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl PortRange {
    fn read(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(Self { first, last })
    }

    /// First port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Last port, inclusive.
    pub const fn last(self) -> u16 {
        self.last
    }

    fn touches(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl PortLimit {
    /// Reads the value of `ports=`.
    pub fn read_ports(text: &str) -> Option<Self> {
        text.split(',')
            .map(PortRange::read)
            .collect::<Option<_>>()
            .map(Self::Ports)
    }

    /// Reads the value of `map-e=`.
    pub fn read_map_e(text: &str) -> Option<Self> {
        let (mut a, mut k, mut psid) = (None, None, None);
        for part in text.split(',') {
            let (name, value) = part.split_once(':')?;
            let value: u16 = match value.strip_prefix("0x") {
                Some(hex) => u16::from_str_radix(hex, 16).ok()?,
                None => value.parse().ok()?,
            };
            let slot = match name {
                "a" => &mut a,
                "k" => &mut k,
                "psid" => &mut psid,
                _ => return None,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let (a, k, psid) = (u8::try_from(a?).ok()?, u8::try_from(k?).ok()?, psid?);
        let fits = a <= 15 && k <= 16 && a + k <= 16 && u32::from(psid) < 1 << k;
        fits.then_some(Self::MapE { a, k, psid })
    }

    /// The ranges of ports. Those of `ports=` come as they are written and may
    /// overlap; those of MAP-E ascend.
    pub fn ranges(&self) -> impl Iterator<Item = PortRange> + '_ {
        let (written, map_e) = match self {
            Self::Ports(ranges) => (ranges.as_slice(), None),
            Self::MapE { a, k, psid } => (&[] as &[_], Some((*a, *k, *psid))),
        };
        let computed = map_e.into_iter().flat_map(|(a, k, psid)| {
            // port = offset (a bits) | psid (k bits) | any (the rest); an
            // offset of 0 would reach into the well-known ports.
            let rest = 16u32.saturating_sub(u32::from(a) + u32::from(k));
            let offsets = u32::from(a > 0)..1 << a;
            offsets.filter_map(move |offset| {
                let first = offset << (16 - u32::from(a)) | u32::from(psid) << rest;
                Some(PortRange {
                    first: u16::try_from(first).ok()?,
                    last: u16::try_from(first + (1 << rest) - 1).ok()?,
                })
            })
        });
        written.iter().copied().chain(computed)
    }

    /// Whether the port is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.ranges()
            .any(|range| (range.first..=range.last).contains(&port))
    }

    /// Whether a port is in both.
    pub fn touches(&self, other: &Self) -> bool {
        self.ranges()
            .any(|range| other.ranges().any(|theirs| range.touches(theirs)))
    }
}

impl fmt::Display for PortLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(ranges) => {
                f.write_str("ports=")?;
                for (index, range) in ranges.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{}-{}", range.first, range.last)?;
                }
                Ok(())
            }
            Self::MapE { a, k, psid } => write!(f, "map-e=a:{a},k:{k},psid:{psid:#x}"),
        }
    }
}

/// Ports, first to last, that share a value.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortRun<T> {
    /// First port.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
    /// What holds for them.
    pub value: T,
}

/// Every port once, in order: the runs, which ascend and do not overlap, and
/// between them `outside`.
pub(super) fn every_port<T: Copy>(
    runs: &[PortRun<T>],
    outside: T,
) -> impl Iterator<Item = PortRun<T>> + '_ {
    let mut runs = runs.iter().copied().peekable();
    let mut next = Some(0u16);
    std::iter::from_fn(move || {
        let first = next?;
        let run = match runs.peek().copied() {
            Some(run) if run.first <= first => {
                runs.next();
                run
            }
            Some(run) => PortRun {
                first,
                last: run.first - 1,
                value: outside,
            },
            None => PortRun {
                first,
                last: u16::MAX,
                value: outside,
            },
        };
        next = run.last.checked_add(1);
        Some(run)
    })
}

/// Every port once, in order, with what `combine` makes of two partitions of
/// all ports.
pub(super) fn combined<A: Copy, B: Copy, C>(
    left: impl Iterator<Item = PortRun<A>>,
    right: impl Iterator<Item = PortRun<B>>,
    combine: impl Fn(A, B) -> C,
) -> impl Iterator<Item = PortRun<C>> {
    let (mut left, mut right) = (left, right);
    let (mut a, mut b) = (left.next(), right.next());
    std::iter::from_fn(move || {
        let (left_run, right_run) = (a?, b?);
        let last = left_run.last.min(right_run.last);
        let run = PortRun {
            first: left_run.first.max(right_run.first),
            last,
            value: combine(left_run.value, right_run.value),
        };
        if left_run.last == last {
            a = left.next();
        }
        if right_run.last == last {
            b = right.next();
        }
        Some(run)
    })
}

/// The runs that differ from `outside`, neighbours of one value joined.
pub(super) fn joined<T: Copy + PartialEq>(
    runs: impl IntoIterator<Item = PortRun<T>>,
    outside: T,
) -> Vec<PortRun<T>> {
    let mut joined: Vec<PortRun<T>> = Vec::new();
    for run in runs {
        if run.value == outside {
            continue;
        }
        match joined.last_mut() {
            Some(before)
                if before.value == run.value && before.last.checked_add(1) == Some(run.first) =>
            {
                before.last = run.last;
            }
            _ => joined.push(run),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map_e(a: u8, k: u8, psid: u16) -> Vec<(u16, u16)> {
        PortLimit::MapE { a, k, psid }
            .ranges()
            .map(|range| (range.first, range.last))
            .collect()
    }

    fn ports(ranges: &[(u16, u16)]) -> u32 {
        ranges
            .iter()
            .map(|(first, last)| u32::from(last - first) + 1)
            .sum()
    }

    #[test]
    fn map_e_port_sets_are_those_of_the_known_vectors() {
        let ranges = map_e(6, 8, 0x34);
        assert_eq!((ranges.len(), ports(&ranges)), (63, 252));
        assert_eq!((ranges[0], ranges[62]), ((1232, 1235), (64720, 64723)));
        let ranges = map_e(4, 8, 0x34);
        assert_eq!((ranges.len(), ports(&ranges)), (15, 240));
        assert_eq!((ranges[0], ranges[14]), ((4928, 4943), (62272, 62287)));
        assert_eq!(ports(&map_e(6, 6, 0x34)), 1008);
    }

    #[test]
    fn without_offset_bits_a_port_set_is_one_range_and_may_start_at_port_0() {
        assert_eq!(map_e(0, 8, 0), [(0, 255)]);
        assert_eq!(map_e(0, 8, 0x34), [(0x3400, 0x34ff)]);
        assert_eq!(map_e(0, 0, 0), [(0, u16::MAX)]);
        assert_eq!(map_e(0, 16, u16::MAX), [(u16::MAX, u16::MAX)]);
    }

    /// RFC 7597 section 5.1, read the other way: from the port to its set.
    fn holds(a: u8, k: u8, psid: u16, port: u16) -> bool {
        let (a, k, port) = (u32::from(a), u32::from(k), u32::from(port));
        let rest = 16 - a - k;
        let offset = port >> (16 - a);
        (a == 0 || offset > 0) && (port >> rest) & ((1 << k) - 1) == u32::from(psid)
    }

    proptest! {
        #[test]
        fn a_port_is_in_the_set_that_its_bits_name(a in 0u8..=15, k: u8, psid: u16) {
            let k = k % (17 - a);
            let psid = (u32::from(psid) % (1 << k)) as u16;
            let limit = PortLimit::MapE { a, k, psid };
            let mut inside = vec![false; 1 << 16];
            for range in limit.ranges() {
                for port in range.first..=range.last {
                    prop_assert!(!inside[usize::from(port)], "no port twice");
                    inside[usize::from(port)] = true;
                }
            }
            for port in 0..=u16::MAX {
                prop_assert_eq!(inside[usize::from(port)], holds(a, k, psid, port), "{}", port);
            }
        }

        #[test]
        fn joining_and_spreading_changes_no_port(
            runs in prop::collection::vec((0u16..40, 0u8..3), 0..20),
            other in prop::collection::vec((0u16..40, 0u8..3), 0..20),
        ) {
            let spread = |lengths: Vec<(u16, u8)>| {
                let mut at = 0u16;
                lengths
                    .into_iter()
                    .map(|(length, value)| {
                        let run = PortRun { first: at, last: at + length, value };
                        at += length + 2;
                        run
                    })
                    .collect::<Vec<_>>()
            };
            let find = |runs: &[PortRun<u8>], port: u16| {
                let run = runs.iter().find(|run| (run.first..=run.last).contains(&port));
                run.map_or(0, |run| run.value)
            };
            let (left, right) = (spread(runs), spread(other));
            let all: Vec<_> = combined(every_port(&left, 0), every_port(&right, 0), |a, b| a * 4 + b)
                .collect();
            prop_assert_eq!(all[0].first, 0);
            prop_assert_eq!(all[all.len() - 1].last, u16::MAX);
            prop_assert!(all.windows(2).all(|two| two[0].last + 1 == two[1].first));
            let few = joined(all, 0);
            for port in 0..2000 {
                prop_assert_eq!(find(&few, port), find(&left, port) * 4 + find(&right, port));
            }
        }
    }
}
