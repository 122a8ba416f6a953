//! What the kernel folded, stored once.

use rusqlite::{Connection, OptionalExtension, params};

use super::{CommitRange, Failure, RingIdentity, Store, StoreError};
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
        self.append_beside(hits, |transaction, path| {
            let failed = path.failed("write");
            let stored = stored(transaction, ring).map_err(failed)?;
            if stored.is_some_and(|stored| generation <= stored) {
                return Err(path.fails(Failure::FoldedAlready {
                    ring: ring.clone(),
                    generation,
                }));
            }
            transaction
                .execute(
                    "INSERT INTO folds (ring, stored) VALUES (?1, ?2)
                         ON CONFLICT (ring) DO UPDATE SET stored = excluded.stored",
                    params![ring.0, generation.cast_signed()],
                )
                .map(drop)
                .map_err(failed)
        })
    }

    /// The latest generation beside `ring` of which all that was folded is
    /// stored.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn folds_stored(&self, ring: &RingIdentity) -> Result<Option<u64>, StoreError> {
        stored(&self.db, ring).map_err(self.path.failed("read"))
    }
}

fn stored(db: &Connection, ring: &RingIdentity) -> rusqlite::Result<Option<u64>> {
    db.prepare_cached("SELECT stored FROM folds WHERE ring = ?1")?
        .query_row([&ring.0], |row| row.get::<_, i64>(0))
        .optional()
        .map(|stored| stored.map(i64::cast_unsigned))
}
