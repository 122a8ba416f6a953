//! What the kernel folded, stored once.

use rusqlite::{OptionalExtension, TransactionBehavior, params};

use super::{CommitRange, Failure, RingIdentity, Store, StoreError, rows::append};
use crate::hit::Hit;

impl Store {
    /// Stores `hits` and that they are all that was folded in a generation of
    /// the tables beside `ring`: both or neither.
    ///
    /// # Errors
    /// [`Failure::FoldedAlready`] when that generation or a later one is stored.
    pub fn commit_folds(
        &mut self,
        ring: &RingIdentity,
        generation: u64,
        hits: &[Hit],
    ) -> Result<CommitRange, StoreError> {
        if self
            .folds_stored(ring)?
            .is_some_and(|stored| generation <= stored)
        {
            return Err(self.path.fails(Failure::FoldedAlready {
                ring: ring.clone(),
                generation,
            }));
        }
        let failed = self.path.failed("write");
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let appended = append(
            &transaction,
            &self.path,
            self.edge,
            &mut self.indicators,
            hits,
        )
        .and_then(|range| {
            transaction
                .execute(
                    "INSERT INTO folds (ring, stored) VALUES (?1, ?2)
                         ON CONFLICT (ring) DO UPDATE SET stored = excluded.stored",
                    params![ring.0, generation.cast_signed()],
                )
                .map_err(failed)?;
            transaction.commit().map_err(failed)?;
            Ok(range)
        });
        if appended.is_err() {
            // The rows of new indicators went with the transaction.
            self.indicators.clear();
        }
        appended
    }

    /// The latest generation beside `ring` of which all that was folded is
    /// stored.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn folds_stored(&self, ring: &RingIdentity) -> Result<Option<u64>, StoreError> {
        self.db
            .prepare_cached("SELECT stored FROM folds WHERE ring = ?1")
            .and_then(|mut select| {
                select
                    .query_row([&ring.0], |row| row.get::<_, i64>(0))
                    .optional()
            })
            .map(|stored| stored.map(i64::cast_unsigned))
            .map_err(self.path.failed("read"))
    }
}
