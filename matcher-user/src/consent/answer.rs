//! What the subscribers at one address allow.

use std::sync::Arc;

use matcher_common::abi::MAX_PORT_RANGES;

use super::{
    ports::{PortRun, combined, every_port, joined},
    purpose::PurposeSet,
};

/// What the subscribers at one address allow, whatever the port, or port by
/// port where several share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The same for every port.
    Whole(PurposeSet),
    /// Not the same for every port.
    ByPort(Arc<PortAnswers>),
}

/// What those who share an address allow, port by port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortAnswers {
    outside: PurposeSet,
    portless: PurposeSet,
    ranges: Arc<[PortRun<PurposeSet>]>,
}

impl PortAnswers {
    /// Purposes allowed for ports outside every range.
    pub fn outside(&self) -> PurposeSet {
        self.outside
    }

    /// Purposes allowed when the port cannot be known: what is allowed for
    /// every port.
    pub fn portless(&self) -> PurposeSet {
        self.portless
    }

    /// The ranges that differ from [`PortAnswers::outside`]: they ascend and do
    /// not overlap; 1 to [`MAX_PORT_RANGES`].
    pub fn ranges(&self) -> &Arc<[PortRun<PurposeSet>]> {
        &self.ranges
    }

    fn runs(&self) -> impl Iterator<Item = PortRun<PurposeSet>> + '_ {
        every_port(&self.ranges, self.outside)
    }

    /// What any port allows.
    fn any(&self) -> PurposeSet {
        self.ranges
            .iter()
            .fold(self.outside, |any, run| any.union(run.value))
    }
}

impl Answer {
    /// The answer of these runs, which ascend and do not overlap, and of
    /// `outside` for all other ports.
    ///
    /// More ranges than the kernel takes make an answer for the whole address
    /// that allows what every port allows: doubt favours the subscriber.
    pub fn new(outside: PurposeSet, runs: impl IntoIterator<Item = PortRun<PurposeSet>>) -> Self {
        let ranges = joined(runs, outside);
        let ports: u32 = ranges
            .iter()
            .map(|run| u32::from(run.last) - u32::from(run.first) + 1)
            .sum();
        let in_ranges = ranges
            .iter()
            .map(|run| run.value)
            .reduce(PurposeSet::intersection);
        let portless = match in_ranges {
            None => outside,
            Some(in_ranges) if ports > u32::from(u16::MAX) => in_ranges,
            Some(in_ranges) => in_ranges.intersection(outside),
        };
        let same_everywhere = match ranges.as_slice() {
            [] => true,
            [_] => ports > u32::from(u16::MAX),
            _ => false,
        };
        let too_many = u32::try_from(ranges.len()).map_or(true, |count| count > MAX_PORT_RANGES);
        if same_everywhere || too_many {
            return Self::Whole(portless);
        }
        Self::ByPort(Arc::new(PortAnswers {
            outside,
            portless,
            ranges: ranges.into(),
        }))
    }

    /// What is allowed for packets with this port; `None` for those whose port
    /// cannot be known.
    pub fn allowed(&self, port: Option<u16>) -> PurposeSet {
        match self {
            Self::Whole(allowed) => *allowed,
            Self::ByPort(by_port) => match port {
                None => by_port.portless,
                Some(port) => {
                    let after = by_port.ranges.partition_point(|run| run.first <= port);
                    after
                        .checked_sub(1)
                        .and_then(|index| by_port.ranges.get(index))
                        .filter(|run| port <= run.last)
                        .map_or(by_port.outside, |run| run.value)
                }
            },
        }
    }

    /// What both allow, port by port.
    pub fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Self::Whole(a.intersection(*b)),
            (Self::Whole(a), Self::ByPort(b)) | (Self::ByPort(b), Self::Whole(a)) => {
                if a.covers(b.any()) {
                    return Self::ByPort(Arc::clone(b));
                }
                let narrowed = b.ranges.iter().map(|run| PortRun {
                    value: run.value.intersection(*a),
                    ..*run
                });
                Self::new(b.outside.intersection(*a), narrowed)
            }
            (Self::ByPort(a), Self::ByPort(b)) if a == b => self.clone(),
            (Self::ByPort(a), Self::ByPort(b)) => {
                let both = combined(a.runs(), b.runs(), PurposeSet::intersection);
                Self::new(a.outside.intersection(b.outside), both)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::consent::any_answer::any_runs;

    fn by_search(outside: PurposeSet, runs: &[PortRun<PurposeSet>], port: u16) -> PurposeSet {
        runs.iter()
            .find(|run| (run.first..=run.last).contains(&port))
            .map_or(outside, |run| run.value)
    }

    proptest! {
        #[test]
        fn every_port_has_its_answer_and_no_port_that_of_all(
            (outside, runs) in any_runs(4, 12),
            (other_outside, other_runs) in any_runs(4, 12),
        ) {
            let one = Answer::new(outside, runs.clone());
            let other = Answer::new(other_outside, other_runs.clone());
            let both = one.and(&other);
            let mut of_all = PurposeSet::ALL;
            let mut of_both = PurposeSet::ALL;
            for port in (0..80).chain([u16::MAX]) {
                let expected = by_search(outside, &runs, port);
                prop_assert_eq!(one.allowed(Some(port)), expected);
                of_all = of_all.intersection(expected);
                let expected = expected.intersection(by_search(other_outside, &other_runs, port));
                prop_assert_eq!(both.allowed(Some(port)), expected);
                of_both = of_both.intersection(expected);
            }
            prop_assert_eq!(one.allowed(None), of_all);
            prop_assert_eq!(both.allowed(None), of_both);
            prop_assert_eq!(one.and(&one), one);
        }
    }

    #[test]
    fn when_every_port_says_the_same_there_are_no_ranges() {
        let run = |first, last, bits| PortRun {
            first,
            last,
            value: PurposeSet::from_bits(bits),
        };
        let all = Answer::new(
            PurposeSet::ALL,
            [run(0, 999, 1), run(1000, 1000, 1), run(1001, u16::MAX, 1)],
        );
        assert_eq!(all, Answer::Whole(PurposeSet::from_bits(1)));
        // Nothing lies outside: what it would be does not count.
        let halves = Answer::new(PurposeSet::NONE, [run(0, 999, 3), run(1000, u16::MAX, 5)]);
        assert_eq!(halves.allowed(None), PurposeSet::from_bits(1));
    }

    #[test]
    fn an_address_with_more_ranges_than_the_kernel_takes_allows_what_all_allow() {
        let run = |port: u16, bits| PortRun {
            first: port,
            last: port,
            value: PurposeSet::from_bits(bits),
        };
        let many = (0..=u16::MAX).map(|port| run(port, if port % 2 == 0 { 3 } else { 5 }));
        let answer = Answer::new(PurposeSet::ALL, many);
        assert_eq!(answer, Answer::Whole(PurposeSet::from_bits(1)));
    }
}
