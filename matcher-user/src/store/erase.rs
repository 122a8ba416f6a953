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

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::{Transaction, TransactionBehavior};

use super::{Failure, Store, StoreError, address, rows::nanoseconds};
use crate::aggregate::Prefixes;

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

    /// Deletes the hits with an end in one of `prefixes`, and the candidates
    /// there (R2: what was recorded before an opt-out). Give all prefixes of
    /// an import at once: the file is rewritten once a call. Returns the
    /// number of hits.
    ///
    /// # Errors
    /// As for [`Store::purge_before`].
    pub fn erase_subscribers(&mut self, prefixes: &[IpNet]) -> Result<u64, StoreError> {
        let prefixes = Prefixes::new(prefixes);
        self.erase(|transaction| {
            transaction.execute_batch(
                "CREATE TEMP TABLE IF NOT EXISTS erased (address BLOB PRIMARY KEY) STRICT;
                 DELETE FROM temp.erased;",
            )?;
            let mut known = transaction.prepare(
                "SELECT subscriber_ip FROM hits UNION SELECT remote_ip FROM hits
                 UNION SELECT address FROM candidates",
            )?;
            let mut insert = transaction.prepare("INSERT INTO temp.erased VALUES (?1)")?;
            let mut rows = known.query([])?;
            while let Some(row) = rows.next()? {
                let blob = row.get_ref(0)?.as_blob()?;
                if address::from_blob(blob).is_some_and(|address| prefixes.contains(address)) {
                    insert.execute([blob])?;
                }
            }
            let hits = transaction.execute(
                "DELETE FROM hits WHERE subscriber_ip IN (SELECT address FROM temp.erased)
                 OR remote_ip IN (SELECT address FROM temp.erased)",
                [],
            )?;
            transaction.execute(
                "DELETE FROM candidates WHERE address IN (SELECT address FROM temp.erased)",
                [],
            )?;
            transaction.execute("DELETE FROM temp.erased", [])?;
            Ok(hits)
        })
    }

    /// [`Store::erase_subscribers`] for one prefix.
    ///
    /// # Errors
    /// As for [`Store::purge_before`].
    pub fn erase_subscriber(&mut self, prefix: IpNet) -> Result<u64, StoreError> {
        self.erase_subscribers(&[prefix])
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
                "DELETE FROM candidates WHERE address NOT IN (SELECT subscriber_ip FROM hits)",
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
