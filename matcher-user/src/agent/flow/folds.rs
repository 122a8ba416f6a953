//! What the kernel folded: from its tables into store and aggregation, each
//! packet once.

use jiff::Timestamp;

use super::Flow;
use crate::{
    consent::ConsentTable, indicator::IndicatorId, instance::InstanceError, kernel::tables::Tables,
};

impl Flow {
    /// Closes the generation in use, and stores what was folded in it. What
    /// cannot be stored stays in the kernel until the next call: then no
    /// generation is closed meanwhile, and packets are counted into the one in
    /// use.
    ///
    /// To be called before events that came later are drained: who spoke first
    /// is told by what was stored earlier.
    pub(in crate::agent) fn sweep(
        &mut self,
        tables: &mut Tables,
        consent: &ConsentTable,
    ) -> Result<(), InstanceError> {
        if !self.settled {
            // Left by a crash, or by a failure to store.
            if let Some(closed) = tables.closed_folds()? {
                self.settled = self.settle(tables, closed, consent)?;
                if !self.settled {
                    return Ok(());
                }
            }
        }
        let closed = tables.close_folds()?;
        self.settled = false;
        self.settled = self.settle(tables, closed, consent)?;
        Ok(())
    }

    /// Stores and empties a closed generation; false when it has to stay. A
    /// crash in between leaves one that is stored and not empty.
    fn settle(
        &mut self,
        tables: &mut Tables,
        closed: u64,
        consent: &ConsentTable,
    ) -> Result<bool, InstanceError> {
        let stored = self.store.folds_stored(&self.ring_id)?;
        if stored.is_none_or(|stored| stored < closed)
            && let Err(error) = self.store_folds(tables, closed, consent)?
        {
            tracing::error!("folded hits stay in the kernel: {error}");
            return Ok(false);
        }
        tables.clear_folds(closed)?;
        Ok(true)
    }

    fn store_folds(
        &mut self,
        tables: &mut Tables,
        closed: u64,
        consent: &ConsentTable,
    ) -> Result<Result<(), crate::store::StoreError>, InstanceError> {
        let keep_from = self.aggregator.policy().keep_from(Timestamp::now());
        let mut hits = Vec::new();
        let mut discarded = 0;
        for summary in tables.folds(closed)? {
            // Never evidence, whoever sent it.
            if summary.flow.indicator == IndicatorId::CANARY.0 {
                continue;
            }
            match self.admit(&summary, consent, keep_from)? {
                Some(hit) => hits.push(hit),
                None => discarded += 1,
            }
        }
        let range = match self.store.commit_folds(&self.ring_id, closed, &hits) {
            Ok(range) => range,
            Err(error) => return Ok(Err(error)),
        };
        self.discarded += discarded;
        self.observe(range, &hits);
        Ok(Ok(()))
    }
}
