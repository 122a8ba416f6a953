//! What the kernel folded: packets that are counted and have no event of their
//! own (design decision 7). Two halves, one of which packets use.

use std::time::Duration;

use aya::maps::Map;
use matcher_common::abi::{
    BEYOND_BOUND, Bound, BoundKey, Flow, Fold, HitEvent, Setting, hit_flags,
};

use super::{KernelError, batch::Hash, grace::wait_for_packets, tables::Tables};

/// How packets are folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folding {
    /// How often whoever drains the ring buffer calls
    /// [`Tables::close_folds`]. Twice that after its last event, a flow gets
    /// another one. Zero: nothing is folded.
    pub window: Duration,
    /// Events of one subscriber and one indicator in a window.
    pub bound: u32,
}

/// The tables.
pub(super) struct Folds {
    even: Half,
    odd: Half,
}

struct Half {
    flows: Hash<Flow, Fold>,
    bounds: Hash<BoundKey, Bound>,
}

impl Folds {
    pub(super) fn collect(
        get: &mut impl FnMut(&str) -> Result<Map, KernelError>,
    ) -> Result<Self, KernelError> {
        let mut half = |flows, bounds| -> Result<Half, KernelError> {
            Ok(Half {
                flows: Hash::open(flows, get(flows)?)?,
                bounds: Hash::open(bounds, get(bounds)?)?,
            })
        };
        Ok(Self {
            even: half("FOLDS_EVEN", "BOUNDS_EVEN")?,
            odd: half("FOLDS_ODD", "BOUNDS_ODD")?,
        })
    }

    fn half(&mut self, generation: u64) -> &mut Half {
        if generation & 1 == 0 {
            &mut self.even
        } else {
            &mut self.odd
        }
    }
}

/// Entries of a table of bounds, for so many flows: most subscribers have
/// several flows to one indicator.
pub(super) fn bounds_for(max_flows: u32) -> u32 {
    (max_flows / 2).max(1)
}

impl Tables {
    /// How packets are folded from now on. What is folded already stays until
    /// the generation is closed.
    pub fn set_folding(&mut self, folding: Folding) -> Result<(), KernelError> {
        let window = u64::try_from(folding.window.as_nanos()).unwrap_or(u64::MAX);
        self.set(Setting::FoldBound, folding.bound.into())?;
        self.set(Setting::FoldWindowNs, window)
    }

    /// How packets are folded.
    pub fn folding(&self) -> Result<Folding, KernelError> {
        Ok(Folding {
            window: Duration::from_nanos(self.setting(Setting::FoldWindowNs)?),
            bound: u32::try_from(self.setting(Setting::FoldBound)?).unwrap_or(u32::MAX),
        })
    }

    /// The generation that was closed last, if any was; no packet uses it. Its
    /// half is what [`Tables::close_folds`] opens next: it must have been
    /// cleared by then.
    pub fn closed_folds(&self) -> Result<Option<u64>, KernelError> {
        let closed = self.setting(Setting::FoldGeneration)?.checked_sub(1);
        if closed.is_some() {
            // Who closed it may have died before the last packet was done.
            wait_for_packets();
        }
        Ok(closed)
    }

    /// Begins a new generation, waits until no packet uses the one before, and
    /// gives that one's number. Only for who drains the ring buffer.
    pub fn close_folds(&mut self) -> Result<u64, KernelError> {
        let closed = self.setting(Setting::FoldGeneration)?;
        self.set(Setting::FoldGeneration, closed.wrapping_add(1))?;
        wait_for_packets();
        Ok(closed)
    }

    /// A summary of each flow with folded packets in a closed generation, and of
    /// what was beyond the bounds. A summary stands for at most `u32::MAX`
    /// packets; where there were more, there are more summaries.
    pub fn folds(&mut self, closed: u64) -> Result<Vec<HitEvent>, KernelError> {
        let half = self.folds.half(closed);
        let mut summaries = Vec::new();
        for (flow, fold) in half.flows.entries()? {
            summarise(&mut summaries, flow, fold.folded, fold.last_ns);
        }
        for (key, bound) in half.bounds.entries()? {
            if key.lane & BEYOND_BOUND != 0 {
                let mut flow = bound.flow;
                flow.flags |= hit_flags::SEVERAL_FLOWS;
                summarise(&mut summaries, flow, bound.count, bound.last_ns);
            }
        }
        // A hash has no order; who reads the hits wants one.
        summaries.sort_by_key(|summary| summary.boot_ns);
        Ok(summaries)
    }

    /// Empties a closed generation.
    pub fn clear_folds(&mut self, closed: u64) -> Result<(), KernelError> {
        let half = self.folds.half(closed);
        half.flows.clear()?;
        half.bounds.clear()
    }
}

fn summarise(summaries: &mut Vec<HitEvent>, flow: Flow, mut packets: u64, last_ns: u64) {
    while packets > 0 {
        let here = u32::try_from(packets).unwrap_or(u32::MAX);
        packets -= u64::from(here);
        summaries.push(HitEvent {
            boot_ns: last_ns,
            packets: here,
            flow,
            ..HitEvent::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_how_many_and_many_packets_take_several() {
        for packets in [0, 1, u64::from(u32::MAX), u64::from(u32::MAX) + 1, 3 << 32] {
            let mut summaries = Vec::new();
            summarise(&mut summaries, Flow::default(), packets, 7);
            let sum: u64 = summaries.iter().map(|one| u64::from(one.packets)).sum();
            assert_eq!(sum, packets);
            assert!(
                summaries
                    .iter()
                    .all(|one| one.packets > 0 && one.boot_ns == 7)
            );
        }
    }
}
