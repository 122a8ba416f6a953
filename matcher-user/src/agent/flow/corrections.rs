//! What was printed and is found to be wrong: candidates are withdrawn, or
//! printed again on what they rest on now.

use std::collections::BTreeMap;

use super::{Flow, each_stored};
use crate::{
    aggregate::{Aggregator, Finding},
    candidate::Candidate,
    feeds::NeverMatched,
    hit::{Direction, Hit, IndicatorSummary},
    instance::InstanceError,
    verdicts::Refuted,
};

/// What must not count, and is not recorded any more.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::agent) struct Excluded {
    /// What was found to be wrong.
    pub(in crate::agent) refuted: Refuted,
    /// Destinations that are allowed.
    pub(in crate::agent) never_matched: NeverMatched,
}

impl Excluded {
    /// Whether a hit is kept that was matched before this was in force.
    pub(super) fn keeps(&self, hit: &Hit) -> bool {
        !self.never_matched.overlaps_text(&hit.indicator.value)
            && self.refuted.why_hit(&hit.indicator).is_none()
    }

    /// Whether a stored hit shows anything. What came in still counts against
    /// the subscriber having begun.
    pub(super) fn counts(&self, hit: &Hit) -> bool {
        hit.direction == Direction::Inbound || self.keeps(hit)
    }

    /// Why an indicator proves nothing, for a person.
    fn why(&self, indicator: &IndicatorSummary) -> Option<String> {
        let value = &indicator.value;
        if let Some(verdict) = self.refuted.why_hit(indicator) {
            return Some(format!("{value} is a {}", verdict.reason()));
        }
        self.never_matched
            .overlaps_text(value)
            .then(|| format!("{value} is never matched now (an allowed destination)"))
    }

    /// What is not the same in the other, for a person.
    fn difference(&self, other: &Self) -> &'static str {
        match (
            self.refuted == other.refuted,
            self.never_matched == other.never_matched,
        ) {
            (false, true) => "false positives",
            (true, _) => "destinations that are never matched",
            (false, false) => "false positives and destinations that are never matched",
        }
    }
}

/// What became of candidates that were printed.
#[derive(Copy, Clone, Debug, Default)]
struct Corrections {
    /// Rested on nothing else.
    withdrawn: u64,
    /// Printed again, without that or with what was taken back.
    corrected: u64,
}

impl Flow {
    /// What is in force.
    pub(in crate::agent) fn excluded(&self) -> &Excluded {
        &self.excluded
    }

    /// Adds up what is stored, once everything that may not be kept is gone from
    /// the store. What another agent printed before `excluded` was in force is
    /// corrected; the text says what was done, for a person.
    pub(in crate::agent) fn start(
        &mut self,
        excluded: Excluded,
    ) -> Result<Option<String>, InstanceError> {
        let what = excluded.difference(&self.excluded);
        let policy = *self.aggregator.policy();
        // As that agent saw it, in the same pass over the store.
        let mut before = Aggregator::new(policy);
        let mut now = Aggregator::new(policy);
        each_stored(&self.store, |at, hit| {
            before.observe(at, hit);
            if excluded.counts(hit) {
                now.observe(at, hit);
            }
        })?;
        let time = jiff::Timestamp::now();
        before.expire(time);
        now.expire(time);
        self.aggregator = now;
        self.excluded = excluded;
        let done = self.correct(before.findings(), true)?;
        Ok(done.text(what))
    }

    /// Candidates that rest on what is excluded alone are withdrawn, those that
    /// rest on other indicators too are printed again without it. What was taken
    /// back counts again. The text says what was done, for a person.
    pub(in crate::agent) fn exclude(
        &mut self,
        excluded: Excluded,
    ) -> Result<Option<String>, InstanceError> {
        if excluded == self.excluded {
            return Ok(None);
        }
        let what = excluded.difference(&self.excluded);
        let before = self.aggregator.findings();
        self.excluded = excluded;
        self.rebuild(*self.aggregator.policy())?;
        let done = self.correct(before, false)?;
        Ok(done.text(what))
    }

    /// Corrects what was printed of `before`. `starting`: by an agent before
    /// this one, which may have corrected it too.
    fn correct(
        &mut self,
        before: Vec<Finding>,
        starting: bool,
    ) -> Result<Corrections, InstanceError> {
        let mut done = Corrections::default();
        let now: BTreeMap<_, Finding> = self
            .aggregator
            .findings()
            .into_iter()
            .map(|finding| (finding.address, finding))
            .collect();
        for finding in before {
            let id = self.store.candidate_id(finding.address)?;
            // What was never printed needs no correction.
            let Some(printed) = self.store.published(id)? else {
                continue;
            };
            match now.get(&finding.address) {
                Some(same) if *same == finding => {}
                Some(other) if starting && printed <= other.revision.0 => {}
                Some(_) => {
                    self.store.unpublish(id)?;
                    self.printed.remove(&id);
                    done.corrected += 1;
                }
                None => {
                    self.store.unpublish(id)?;
                    let mut whys: Vec<String> = finding
                        .indicators
                        .iter()
                        .filter_map(|indicator| self.excluded.why(indicator))
                        .collect();
                    whys.dedup();
                    let candidate =
                        Candidate::infected(id, &self.edge, finding).withdrawn(whys.join("; "));
                    self.write(&candidate)?;
                    done.withdrawn += 1;
                }
            }
        }
        Ok(done)
    }
}

impl Corrections {
    /// None when nothing was done. `what`: what proves nothing.
    fn text(self, what: &str) -> Option<String> {
        let Self {
            withdrawn,
            corrected,
        } = self;
        (withdrawn + corrected > 0).then(|| {
            format!(
                "candidates: {withdrawn} withdrawn, which rested on {what} alone; {corrected} \
                 printed again, on what they rest on now"
            )
        })
    }
}
