//! Deletion that is real (R2, R4).
//!
//! `secure_delete` overwrites deleted rows, but not the copies that SQLite
//! leaves in the unused part of a page when it moves rows between pages, nor
//! the older pages in the write-ahead log. So each deletion ends with a
//! rewrite of the file (`VACUUM`) and a truncation of the log. Should the
//! process die in between, a row in `unfinished_erasure` has the next
//! [`Store::open`] finish it.
//!
//! Out of reach here: blocks that the file system has freed, its snapshots
//! and backups.

use jiff::Timestamp;
use rusqlite::{Transaction, TransactionBehavior};

use super::{Cursor, Failure, Store, StoreError, rows::nanoseconds};
use crate::hit::Hit;

/// Hits that are read at once.
const PAGE: usize = 4096;

impl Store {
    /// Deletes the hits before `time`, the candidates that have none left,
    /// and unused indicators (R4). Returns the number of hits.
    ///
    /// # Errors
    /// [`Failure::NotGoneYet`] when another process reads the store: the rows
    /// are deleted, their bytes wait for the next call.
    pub fn purge_before(&mut self, time: Timestamp) -> Result<u64, StoreError> {
        let before_rows = time < Timestamp::UNIX_EPOCH;
        let time = nanoseconds(time).unwrap_or(if before_rows { i64::MIN } else { i64::MAX });
        self.erase(|transaction| transaction.execute("DELETE FROM hits WHERE time < ?1", [time]))
    }

    /// Deletes the hits that `refused` says yes to, and the candidates that have
    /// none left (R2: what was recorded before an opt-out). Ask for all that is
    /// refused at once: the file is rewritten once a call.
    ///
    /// # Errors
    /// As for [`Store::purge_before`], and when a row is damaged.
    pub fn erase_hits(&mut self, mut refused: impl FnMut(&Hit) -> bool) -> Result<u64, StoreError> {
        let mut erased = Vec::new();
        let mut cursor = Cursor(0);
        loop {
            let page = self.hits_after(cursor, PAGE)?;
            for (at, hit) in &page {
                if refused(hit) {
                    erased.push(at.0.cast_signed());
                }
                cursor = *at;
            }
            if page.len() < PAGE {
                break;
            }
        }
        if erased.is_empty() {
            return Ok(0);
        }
        self.erase(|transaction| {
            let mut delete = transaction.prepare("DELETE FROM hits WHERE cursor = ?1")?;
            erased.iter().map(|cursor| delete.execute([cursor])).sum()
        })
    }

    fn erase(
        &mut self,
        delete: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize>,
    ) -> Result<u64, StoreError> {
        let failed = self.path.failed("delete records from");
        // Their rows may go.
        self.indicators.clear();
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let hits = delete(&transaction).map_err(failed)?;
        let candidates = transaction
            .execute(
                "DELETE FROM candidates WHERE (space, address) NOT IN
                 (SELECT space, subscriber_ip FROM hits)",
                [],
            )
            .map_err(failed)?;
        transaction
            .execute(
                "DELETE FROM indicators WHERE NOT EXISTS
                 (SELECT 1 FROM hits WHERE hits.indicator = indicators.id)",
                [],
            )
            .map_err(failed)?;
        if hits > 0 || candidates > 0 {
            transaction
                .execute("INSERT OR IGNORE INTO unfinished_erasure VALUES (1)", [])
                .map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        self.finish_erasure()?;
        Ok(u64::try_from(hits).unwrap_or(u64::MAX))
    }

    /// Removes from the files what was deleted from the tables.
    pub(super) fn finish_erasure(&mut self) -> Result<(), StoreError> {
        let failed = self.path.failed("remove deleted records from");
        let unfinished: bool = self
            .db
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM unfinished_erasure)",
                [],
                |row| row.get(0),
            )
            .map_err(failed)?;
        if !unfinished {
            return Ok(());
        }
        self.db.execute_batch("VACUUM").map_err(failed)?;
        let busy: bool = self
            .db
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(failed)?;
        if busy {
            return Err(self.path.fails(Failure::NotGoneYet));
        }
        self.db
            .execute("DELETE FROM unfinished_erasure", [])
            .map_err(failed)?;
        Ok(())
    }
}
