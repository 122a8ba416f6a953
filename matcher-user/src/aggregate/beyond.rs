//! Packets of a subscriber that the kernel counted without telling their flows
//! apart.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    contact::oldest,
    flow::{Hour, Mark, add_hour, hour_of},
};
use crate::{hit::Hit, indicator::Qualifier};

/// Indicators of one subscriber address; the oldest gives way.
const MAX_INDICATORS: usize = 64;

/// An entry of a list, as people write it.
pub(super) type Indicator = (String, Qualifier);

/// What a subscriber address sent beyond the kernel's bound, by indicator and
/// hour.
#[derive(Clone, Debug, Default)]
pub(super) struct BeyondBound(BTreeMap<Indicator, BTreeMap<i64, Hour>>);

impl BeyondBound {
    /// Takes an outbound hit whose source is validated.
    pub(super) fn observe(&mut self, mark: Mark, hit: &Hit) {
        let key = (hit.indicator.value.clone(), hit.indicator.qualifier);
        let hour = Hour {
            packets: u64::from(hit.packets),
            records: 1,
            first: mark,
            last: mark,
        };
        add_hour(self.0.entry(key).or_default(), hour_of(mark.time), hour);
        if self.0.len() > MAX_INDICATORS
            && let Some(oldest) = oldest(&self.0, |hours| hours.keys().next_back().copied())
        {
            self.0.remove(&oldest);
        }
    }

    /// What was sent to addresses of an indicator.
    pub(super) fn hours(&self, indicator: &Indicator) -> impl Iterator<Item = (i64, Hour)> + '_ {
        let hours = self.0.get(indicator).into_iter().flatten();
        hours.map(|(number, hour)| (*number, *hour))
    }

    /// Forgets what happened before `keep_from`.
    pub(super) fn expire(&mut self, keep_from: Timestamp) {
        self.0.retain(|_, hours| {
            hours.retain(|hour, _| *hour >= hour_of(keep_from));
            !hours.is_empty()
        });
    }
}
