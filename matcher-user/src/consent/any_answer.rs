//! Answers that differ from port to port, drawn for property tests.

use proptest::prelude::*;

use super::{PortRun, PurposeSet};

/// What holds outside every run, and fewer than `count` runs, each shorter than
/// `length` ports, with gaps or none between them. There are few answers, so
/// that neighbours meet.
pub(crate) fn any_runs(
    length: u16,
    count: usize,
) -> impl Strategy<Value = (PurposeSet, Vec<PortRun<PurposeSet>>)> {
    let run = (0u16..3, 1..length, 0u8..4);
    (0u8..4, prop::collection::vec(run, 0..count)).prop_map(|(outside, lengths)| {
        let mut at = 0;
        let runs = lengths
            .into_iter()
            .map(|(gap, length, bits)| {
                let first = at + gap;
                at = first + length;
                PortRun {
                    first,
                    last: at - 1,
                    value: PurposeSet::from_bits(bits),
                }
            })
            .collect();
        (PurposeSet::from_bits(outside), runs)
    })
}
