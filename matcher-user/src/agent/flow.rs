//! The way of a hit: ring buffer, store, aggregation, candidate.

mod folds;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use matcher_common::abi::Counter;

use super::Output;
use crate::{
    aggregate::{Aggregator, Cursor, Finding, Policy},
    canary,
    candidate::{Candidate, CandidateId},
    clock::{WallOffset, boot_now_ns},
    consent::{ConsentTable, Purpose},
    drain::{Names, bare_hit},
    feeds::NeverMatched,
    hit::{Direction, Hit, IndicatorSummary, SubscriberAddress},
    indicator::IndicatorId,
    indicators::Catalog,
    instance::{InstanceError, refuses},
    kernel::{attach, ring::Ring, tables::Counters},
    sinks::{JsonLines, TextLines},
    store::{RingIdentity, Store},
    verdicts::{Refuted, Verdicts},
};

/// Events read, stored and released together.
const BATCH: usize = 4_096;
/// Batches in a row before commands get their turn.
const BATCHES: usize = 16;
/// A candidate that grows is printed again at most so often.
const UPDATE_INTERVAL: Duration = Duration::from_secs(60);
/// Hits read at once when the aggregation is rebuilt.
const REBUILD_PAGE: usize = 10_000;

/// Where candidates go.
pub(super) enum Sink {
    Json(JsonLines<Box<dyn Output>>),
    Text(TextLines<Box<dyn Output>>),
}

impl Sink {
    pub(super) fn new(out: Box<dyn Output>, json: bool) -> Self {
        if json {
            Self::Json(JsonLines::new(out))
        } else {
            Self::Text(TextLines::new(out))
        }
    }
}

pub(super) struct Flow {
    store: Store,
    aggregator: Aggregator,
    names: Names,
    catalog: Catalog,
    catalog_path: PathBuf,
    offset: WallOffset,
    ring_id: RingIdentity,
    edge: String,
    sink: Sink,
    /// Findings that changed and are not printed yet.
    pending: BTreeMap<SubscriberAddress, Finding>,
    printed: HashMap<CandidateId, Instant>,
    /// What must not count, and is not recorded any more: what was found to be
    /// wrong, and the destinations that are never matched.
    refuted: Refuted,
    never_matched: NeverMatched,
    /// Canaries that came through and are not asked for yet.
    canaries: Vec<CanarySeen>,
    canaries_seen: u64,
    canary: Arc<IndicatorSummary>,
    /// Every closed generation of folded packets is stored and emptied.
    settled: bool,
    stored: u64,
    discarded: u64,
    candidates: u64,
}

/// What verdicts and allowed destinations did to candidates that were printed.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Withdrawals {
    /// Rested on nothing else.
    pub(super) withdrawn: u64,
    /// Printed again, without that or with what was taken back.
    pub(super) corrected: u64,
}

impl Withdrawals {
    /// For a person; none when nothing was done. `what`: what proves nothing.
    pub(super) fn text(self, what: &str) -> Option<String> {
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

/// Verdicts, in the words of [`Withdrawals::text`].
pub(super) const REFUTED: &str = "false positives";
/// Allowed destinations, likewise.
pub(super) const ALLOWED: &str = "destinations that are never matched";

/// The canary's event, read from the ring buffer and released.
#[derive(Copy, Clone, Debug)]
pub(super) struct CanarySeen {
    /// The port that tells one flow from another.
    pub(super) port: Option<u16>,
    /// Interface that it seemed to come in on.
    pub(super) ifindex: u32,
    /// From the program to the store's commit, nanoseconds.
    pub(super) latency_ns: u64,
}

impl Flow {
    pub(super) fn new(
        store: Store,
        policy: Policy,
        catalog_path: PathBuf,
        ring: &mut Ring,
        edge: String,
        sink: Sink,
    ) -> Result<Self, InstanceError> {
        let ring_id = RingIdentity(ring.id().0.clone());
        // What a crash kept the last agent from releasing is stored already.
        if let Some(position) = store.drained_to(&ring_id)? {
            ring.skip_to(position);
        }
        let mut flow = Self {
            catalog: Catalog::load(&catalog_path)?.unwrap_or_default(),
            catalog_path,
            aggregator: Aggregator::new(policy),
            store,
            names: Names::default(),
            offset: WallOffset::measure(),
            ring_id,
            edge,
            sink,
            pending: BTreeMap::new(),
            printed: HashMap::new(),
            refuted: Refuted::default(),
            never_matched: NeverMatched::default(),
            canaries: Vec::new(),
            canaries_seen: 0,
            canary: canary::summary(),
            settled: false,
            stored: 0,
            discarded: 0,
            candidates: 0,
        };
        flow.rebuild()?;
        Ok(flow)
    }

    /// Adds up again what is stored.
    fn rebuild(&mut self) -> Result<(), InstanceError> {
        self.observe_stored(|_| true)?;
        self.aggregator.expire(Timestamp::now());
        Ok(())
    }

    fn observe_stored(&mut self, wanted: impl Fn(&Hit) -> bool) -> Result<(), InstanceError> {
        let mut cursor = Cursor(0);
        loop {
            let page = self.store.hits_after(cursor, REBUILD_PAGE)?;
            for (at, hit) in &page {
                if wanted(hit) && self.counts(hit) {
                    self.aggregator.observe(*at, hit);
                }
                cursor = *at;
            }
            if page.len() < REBUILD_PAGE {
                return Ok(());
            }
        }
    }

    pub(super) fn set_policy(&mut self, policy: Policy) -> Result<(), InstanceError> {
        if *self.aggregator.policy() != policy {
            self.aggregator = Aggregator::new(policy);
            self.pending.clear();
            self.rebuild()?;
        }
        Ok(())
    }

    /// A hit of an indicator that may not be one shows nothing. What came in
    /// still counts against the subscriber having begun.
    fn counts(&self, hit: &Hit) -> bool {
        hit.direction == Direction::Inbound || self.may_be_kept(hit)
    }

    /// Neither found to be wrong nor never matched: else its hits are not kept,
    /// when they were matched before that was in force.
    fn may_be_kept(&self, hit: &Hit) -> bool {
        !self.never_matched.overlaps_text(&hit.indicator.value)
            && self.refuted.why_hit(&hit.indicator).is_none()
    }

    /// Takes up verdicts: candidates that rest on false positives alone are
    /// withdrawn, those that rest on other indicators too are printed again
    /// without them. What was taken back counts again.
    /// `starting`: what was printed was printed by an agent before this one.
    pub(super) fn take_up(
        &mut self,
        verdicts: &Verdicts,
        starting: bool,
    ) -> Result<Withdrawals, InstanceError> {
        let refuted = verdicts.refuted();
        if refuted == self.refuted {
            return Ok(Withdrawals::default());
        }
        let before = self.aggregator.findings();
        self.refuted = refuted;
        self.correct(before, starting)
    }

    /// The same for the destinations that are never matched.
    pub(super) fn spare(
        &mut self,
        never_matched: NeverMatched,
        starting: bool,
    ) -> Result<Withdrawals, InstanceError> {
        if never_matched == self.never_matched {
            return Ok(Withdrawals::default());
        }
        let before = self.aggregator.findings();
        self.never_matched = never_matched;
        self.correct(before, starting)
    }

    /// Adds up again, and corrects what was printed of `before`.
    fn correct(
        &mut self,
        before: Vec<Finding>,
        starting: bool,
    ) -> Result<Withdrawals, InstanceError> {
        let mut done = Withdrawals::default();
        self.aggregator = Aggregator::new(*self.aggregator.policy());
        self.pending.clear();
        self.rebuild()?;
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
                // An agent before this one has corrected it.
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
                        .filter_map(|indicator| self.why_out(indicator))
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

    /// Why an indicator proves nothing, for a person.
    fn why_out(&self, indicator: &IndicatorSummary) -> Option<String> {
        let value = &indicator.value;
        if let Some(verdict) = self.refuted.why_hit(indicator) {
            return Some(format!("{value} is a {}", verdict.reason()));
        }
        self.never_matched
            .overlaps_text(value)
            .then(|| format!("{value} is never matched now (an allowed destination)"))
    }

    fn write(&mut self, candidate: &Candidate) -> Result<(), InstanceError> {
        match &mut self.sink {
            Sink::Json(lines) => lines.write(candidate)?,
            Sink::Text(lines) => lines.write(candidate)?,
        }
        Ok(())
    }

    /// Canaries that came through since the last call.
    pub(super) fn take_canaries(&mut self) -> Vec<CanarySeen> {
        std::mem::take(&mut self.canaries)
    }

    /// Canaries that came through since the start.
    pub(super) fn canaries_seen(&self) -> u64 {
        self.canaries_seen
    }

    pub(super) fn set_catalog(&mut self, catalog: Catalog) {
        self.catalog = catalog;
        self.names.forget_indicators();
    }

    pub(super) fn set_offset(&mut self, offset: WallOffset) {
        self.offset = offset;
    }

    pub(super) fn last_cursor(&self) -> Result<u64, InstanceError> {
        Ok(self.store.last_cursor()?.0)
    }

    /// Stores what waits in the ring buffer, then releases it. True when there
    /// is more.
    pub(super) fn drain(
        &mut self,
        ring: &mut Ring,
        consent: &ConsentTable,
    ) -> Result<bool, InstanceError> {
        for _ in 0..BATCHES {
            let mut hits = Vec::new();
            let mut canaries = Vec::new();
            let mut read = 0;
            let keep_from = self.aggregator.policy().keep_from(Timestamp::now());
            while read < BATCH {
                let Some(event) = ring.next_event() else {
                    break;
                };
                read += 1;
                let event = event?;
                // Never evidence, whoever sent it.
                if event.flow.indicator == IndicatorId::CANARY.0 {
                    canaries.push(event);
                    continue;
                }
                self.know(IndicatorId(event.flow.indicator))?;
                let hit = self
                    .names
                    .hit(&event, self.offset, &self.catalog, attach::name);
                // Opted out since, too old to be kept (design decision 2), or matched
                // before a verdict or an allowed destination was in force.
                if !refuses(consent, &hit) && hit.time >= keep_from && self.may_be_kept(&hit) {
                    hits.push(hit);
                } else {
                    self.discarded += 1;
                }
            }
            if read == 0 {
                return Ok(false);
            }
            if let Err(error) = self.keep(ring, &hits) {
                ring.rewind();
                tracing::error!("hits stay in the ring buffer: {error}");
                return Ok(false);
            }
            // Only now: a canary that could not be released has not come through.
            for event in canaries {
                let hit = bare_hit(&event, self.canary.clone());
                self.canaries_seen += 1;
                self.canaries.push(CanarySeen {
                    port: hit.subscriber.port,
                    ifindex: event.flow.ifindex,
                    latency_ns: boot_now_ns().saturating_sub(event.boot_ns),
                });
            }
        }
        Ok(true)
    }

    /// A load saves the catalog before the kernel holds new ids, and tells us
    /// after: in between the file knows more than we do.
    fn know(&mut self, id: IndicatorId) -> Result<(), InstanceError> {
        if self.catalog.get(id).is_none()
            && let Some(catalog) = Catalog::load(&self.catalog_path)?
        {
            self.set_catalog(catalog);
        }
        Ok(())
    }

    fn keep(&mut self, ring: &mut Ring, hits: &[Hit]) -> Result<(), InstanceError> {
        let range = self.store.commit(&self.ring_id, ring.position(), hits)?;
        ring.release();
        self.stored += hits.len() as u64;
        // What is never matched has not come so far.
        for (cursor, hit) in range.cursors().zip(hits) {
            if self.counts(hit) {
                self.aggregator.observe(cursor, hit);
            }
        }
        Ok(())
    }

    /// Prints candidates that are new or have grown; `all`: also those that
    /// were printed a moment ago.
    pub(super) fn publish(&mut self, all: bool) -> Result<(), InstanceError> {
        for finding in self.aggregator.take_changed() {
            self.pending.insert(finding.address, finding);
        }
        let pending = std::mem::take(&mut self.pending);
        for (address, finding) in pending {
            let id = self.store.candidate_id(address)?;
            if self.store.published(id)? >= Some(finding.revision.0) {
                continue;
            }
            let recent = self
                .printed
                .get(&id)
                .is_some_and(|at| at.elapsed() < UPDATE_INTERVAL);
            if recent && !all {
                self.pending.insert(address, finding);
                continue;
            }
            let candidate = Candidate::infected(id, &self.edge, finding);
            self.write(&candidate)?;
            self.store.mark_published(id, candidate.revision())?;
            if self.printed.insert(id, Instant::now()).is_none() {
                self.candidates += 1;
            }
        }
        Ok(())
    }

    /// Erases what was recorded of subscribers who refuse now (R2).
    pub(super) fn forget_refusing(&mut self, consent: &ConsentTable) -> Result<(), InstanceError> {
        // Then no record has to be read.
        if consent.refused(Purpose::Detect).is_empty() {
            return Ok(());
        }
        let mut addresses = BTreeSet::new();
        let erased = self.store.erase_hits(|hit| {
            let refused = refuses(consent, hit);
            if refused {
                addresses.insert(hit.subscriber_address());
            }
            refused
        });
        if addresses.is_empty() {
            return erased.map(drop).map_err(Into::into);
        }
        // Even if the file could not be written.
        self.aggregator.forget(&addresses);
        self.pending
            .retain(|address, _| !addresses.contains(address));
        match erased {
            Ok(hits) => {
                tracing::info!(
                    "{hits} hits of {} subscriber addresses are erased, whose holders opted out",
                    addresses.len()
                );
            }
            Err(error) if error.is_deferred() => tracing::warn!("{error}"),
            Err(error) => return Err(error.into()),
        }
        // Others may share the address, and have not opted out.
        self.observe_stored(|hit| addresses.contains(&hit.subscriber_address()))
    }

    /// Erases what is past its retention (R4).
    pub(super) fn purge(&mut self, now: Timestamp) -> Result<(), InstanceError> {
        self.aggregator.expire(now);
        let keep_from = self.aggregator.policy().keep_from(now);
        match self.store.purge_before(keep_from) {
            Ok(0) => Ok(()),
            Ok(hits) => {
                tracing::info!("{hits} hits past their retention are erased");
                Ok(())
            }
            Err(error) if error.is_deferred() => {
                tracing::warn!("{error}");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How it went, on one line.
    pub(super) fn account(&self, counters: &Counters) -> String {
        format!(
            "{} packets seen, {} opted-out packets passed unmatched; {} matched = {} delivered + \
             {} folded + {} lost; this agent stored {} hits, discarded {}, printed {} candidates",
            counters.packets(),
            counters.get(Counter::OptedOut),
            counters.get(Counter::Matched),
            counters.get(Counter::Delivered),
            counters.get(Counter::Folded),
            counters.get(Counter::Lost),
            self.stored,
            self.discarded,
            self.candidates,
        )
    }
}
