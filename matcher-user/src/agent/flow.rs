//! The way of a hit: ring buffer, store, aggregation, candidate.

mod corrections;
mod folds;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use matcher_common::abi::{Counter, HitEvent};

pub(super) use self::corrections::Excluded;
use super::Output;
use crate::{
    aggregate::{Aggregator, Cursor, Finding, Policy},
    canary,
    candidate::{Candidate, CandidateId},
    clock::{WallOffset, boot_now_ns},
    consent::{ConsentTable, Purpose},
    drain::{Names, bare_hit},
    hit::{Hit, IndicatorSummary, SubscriberAddress},
    indicator::IndicatorId,
    indicators::Catalog,
    instance::{InstanceError, refuses},
    kernel::{attach, ring::Ring, tables::Counters},
    sinks::{JsonLines, TextLines},
    store::{CommitRange, RingIdentity, Store},
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
    excluded: Excluded,
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
        Ok(Self {
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
            excluded: Excluded::default(),
            canaries: Vec::new(),
            canaries_seen: 0,
            canary: canary::summary(),
            settled: false,
            stored: 0,
            discarded: 0,
            candidates: 0,
        })
    }

    /// Adds up again what is stored.
    fn rebuild(&mut self, policy: Policy) -> Result<(), InstanceError> {
        let mut aggregator = Aggregator::new(policy);
        each_stored(&self.store, |at, hit| {
            if self.excluded.counts(hit) {
                aggregator.observe(at, hit);
            }
        })?;
        aggregator.expire(Timestamp::now());
        self.pending.clear();
        self.aggregator = aggregator;
        Ok(())
    }

    pub(super) fn set_policy(&mut self, policy: Policy) -> Result<(), InstanceError> {
        if *self.aggregator.policy() != policy {
            self.rebuild(policy)?;
        }
        Ok(())
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
        let mut events = Vec::with_capacity(Names::AHEAD);
        for _ in 0..BATCHES {
            let mut hits = Vec::new();
            let mut canaries = Vec::new();
            let (mut read, mut discarded) = (0, 0);
            let keep_from = self.aggregator.policy().keep_from(Timestamp::now());
            while read < BATCH {
                events.clear();
                ring.next_events(Names::AHEAD.min(BATCH - read), &mut events)?;
                if events.is_empty() {
                    break;
                }
                read += events.len();
                self.names.look_ahead(&events, &self.catalog);
                for event in &events {
                    // Never evidence, whoever sent it.
                    if event.flow.indicator == IndicatorId::CANARY.0 {
                        canaries.push(*event);
                        continue;
                    }
                    match self.admit(event, consent, keep_from)? {
                        Some(hit) => hits.push(hit),
                        None => discarded += 1,
                    }
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
            self.discarded += discarded;
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

    /// What an event says, when it may be recorded: its subscriber has not opted
    /// out since, it is not too old to be kept (design decision 2), and neither a
    /// verdict nor an allowed destination speaks against it, which came into
    /// force after it was matched.
    fn admit(
        &mut self,
        event: &HitEvent,
        consent: &ConsentTable,
        keep_from: Timestamp,
    ) -> Result<Option<Hit>, InstanceError> {
        self.know(IndicatorId(event.flow.indicator))?;
        let hit = self
            .names
            .hit(event, self.offset, &self.catalog, attach::name);
        let admitted =
            !refuses(consent, &hit) && hit.time >= keep_from && self.excluded.keeps(&hit);
        Ok(admitted.then_some(hit))
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
        self.observe(range, hits);
        Ok(())
    }

    /// Adds up what was stored just now.
    fn observe(&mut self, range: CommitRange, hits: &[Hit]) {
        self.stored += range.count();
        for (cursor, hit) in range.cursors().zip(hits) {
            self.aggregator.observe(cursor, hit);
        }
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
        each_stored(&self.store, |at, hit| {
            if addresses.contains(&hit.subscriber_address()) && self.excluded.counts(hit) {
                self.aggregator.observe(at, hit);
            }
        })?;
        Ok(())
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

fn each_stored(store: &Store, mut seen: impl FnMut(Cursor, &Hit)) -> Result<(), InstanceError> {
    let mut cursor = Cursor(0);
    loop {
        let page = store.hits_after(cursor, REBUILD_PAGE)?;
        for (at, hit) in &page {
            seen(*at, hit);
            cursor = *at;
        }
        if page.len() < REBUILD_PAGE {
            return Ok(());
        }
    }
}
