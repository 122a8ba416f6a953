//! Which candidate an address has, and what of it was printed.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Failure, Store, StoreError, address};
use crate::{candidate::CandidateId, hit::SubscriberAddress};

impl Store {
    /// The id of the candidate for a subscriber address: the same on every
    /// call until its last hit is deleted, and never given to another.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn candidate_id(&mut self, address: SubscriberAddress) -> Result<CandidateId, StoreError> {
        let key = params![address.space, address::to_blob(address.ip)];
        let failed = self.path.failed("write");
        let select = |db: &Connection| {
            db.query_row(
                "SELECT id FROM candidates WHERE space = ?1 AND address = ?2",
                key,
                |row| row.get(0),
            )
            .optional()
            .map_err(failed)
        };
        if let Some(id) = select(&self.db)? {
            return Ok(CandidateId(id));
        }
        self.db
            .query_row(
                "INSERT INTO candidates (space, address) VALUES (?1, ?2) RETURNING id",
                key,
                |row| row.get(0),
            )
            .map(CandidateId)
            .map_err(failed)
    }

    /// The highest revision of a candidate that was printed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn published(&self, id: CandidateId) -> Result<Option<u64>, StoreError> {
        let recorded: Option<Option<i64>> = self
            .db
            .query_row(
                "SELECT published FROM candidates WHERE id = ?1",
                [id.0],
                |row| row.get(0),
            )
            .optional()
            .map_err(self.path.failed("read"))?;
        Ok(recorded.flatten().map(i64::cast_unsigned))
    }

    /// Records that what was printed of a candidate no longer stands: its next
    /// revision is printed, whichever it is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn unpublish(&mut self, id: CandidateId) -> Result<(), StoreError> {
        self.db
            .execute(
                "UPDATE candidates SET published = NULL WHERE id = ?1",
                [id.0],
            )
            .map(drop)
            .map_err(self.path.failed("write"))
    }

    /// Records that a revision was printed. To be called after printing: a
    /// kill in between prints the same id and revision again.
    ///
    /// # Errors
    /// [`Failure::NoSuchCandidate`] when it was erased since.
    pub fn mark_published(&mut self, id: CandidateId, revision: u64) -> Result<(), StoreError> {
        let changed = self
            .db
            .execute(
                "UPDATE candidates SET published = max(ifnull(published, 0), ?2) WHERE id = ?1",
                params![id.0, revision.cast_signed()],
            )
            .map_err(self.path.failed("write"))?;
        if changed == 0 {
            return Err(self.path.fails(Failure::NoSuchCandidate(id)));
        }
        Ok(())
    }
}
