//! What must survive a restart: hits, how far the ring is drained, and which
//! candidates were printed. SQLite, one file.
//!
//! **Exactly once**: hits and the position in the ring up to which they were
//! drained are stored in one transaction ([`Store::commit`]); the ring space
//! is released after it. After a kill at any moment the ring still holds what
//! was not stored, and [`Store::drained_to`] tells what was. The same holds for
//! what the kernel folded ([`Store::commit_folds`]).
//!
//! **A power cut** may lose the commits since the last checkpoint (about 4
//! MB of log), together, never a part of one (`synchronous = NORMAL`): the
//! ring is lost then, too. Deletions are on disk when the call returns.

mod address;
mod candidates;
mod erase;
mod error;
mod folds;
mod rows;
mod schema;

use std::{
    fmt,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

pub use self::error::{Failure, StoreError, StorePath};
use self::rows::{KnownIndicators, Shared, append};
pub use crate::aggregate::Cursor;
use crate::hit::Hit;

/// How long a call waits for another process to let go of the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// Names one ring buffer for as long as it exists: boot id and map id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingIdentity(pub String);

impl fmt::Display for RingIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ring {}", self.0)
    }
}

/// The cursors that a commit gave to its hits, in their order.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct CommitRange {
    first: u64,
    count: u64,
}

impl CommitRange {
    /// One cursor for each hit.
    pub fn cursors(self) -> impl Iterator<Item = Cursor> {
        (self.first..self.first.saturating_add(self.count)).map(Cursor)
    }

    /// Number of hits.
    pub fn count(self) -> u64 {
        self.count
    }
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    path: StorePath,
    db: Connection,
    edge: i64,
    indicators: KnownIndicators,
}

impl Store {
    /// Opens or makes the file, readable for its owner only (mode 0600; the
    /// directory gets 0700 if it has to be made), brings its schema up to
    /// date and finishes a deletion that was cut short. `edge` is the name
    /// that new hits carry.
    ///
    /// # Errors
    /// When the file cannot be made or read, was written by a newer build or
    /// another program.
    pub fn open(path: &Path, edge: &str) -> Result<Self, StoreError> {
        let name = StorePath::file(path);
        make_private(path, &name)?;
        let db = Connection::open(path).map_err(name.failed("open"))?;
        Self::with(db, name, edge)
    }

    /// A store that ends with the process.
    ///
    /// # Errors
    /// When SQLite cannot be used at all.
    pub fn in_memory(edge: &str) -> Result<Self, StoreError> {
        let name = StorePath::memory();
        let db = Connection::open_in_memory().map_err(name.failed("open"))?;
        Self::with(db, name, edge)
    }

    fn with(mut db: Connection, path: StorePath, edge: &str) -> Result<Self, StoreError> {
        let failed = path.failed("open");
        db.busy_timeout(PATIENCE).map_err(failed)?;
        schema::prepare(&mut db, &path)?;
        db.execute("INSERT OR IGNORE INTO edges (name) VALUES (?1)", [edge])
            .map_err(failed)?;
        let edge = db
            .query_row("SELECT id FROM edges WHERE name = ?1", [edge], |row| {
                row.get(0)
            })
            .map_err(failed)?;
        let mut store = Self {
            path,
            db,
            edge,
            indicators: KnownIndicators::default(),
        };
        match store.finish_erasure() {
            // Somebody reads the file: the next deletion finishes it.
            Err(StoreError { failure, .. }) if matches!(*failure, Failure::NotGoneYet) => {}
            other => other?,
        }
        Ok(store)
    }

    /// Stores `hits` and that `ring` is drained up to `position`: both or
    /// neither.
    ///
    /// # Errors
    /// [`Failure::Backwards`] when `position` is below the stored one, or the
    /// same and there are hits: they are stored already.
    pub fn commit(
        &mut self,
        ring: &RingIdentity,
        position: u64,
        hits: &[Hit],
    ) -> Result<CommitRange, StoreError> {
        self.append_beside(hits, |transaction, path| {
            let failed = path.failed("write");
            let recorded = position_of(transaction, ring).map_err(failed)?;
            if let Some(recorded) = recorded
                && (position < recorded || (position == recorded && !hits.is_empty()))
            {
                return Err(path.fails(Failure::Backwards {
                    ring: ring.clone(),
                    recorded,
                    asked: position,
                    hits: hits.len(),
                }));
            }
            transaction
                .execute(
                    "INSERT INTO rings (ring, drained_to) VALUES (?1, ?2)
                         ON CONFLICT (ring) DO UPDATE SET drained_to = excluded.drained_to",
                    params![ring.0, position.cast_signed()],
                )
                .map(drop)
                .map_err(failed)
        })
    }

    /// Stores `hits` and what `record` records of where they came from: both or
    /// neither.
    fn append_beside(
        &mut self,
        hits: &[Hit],
        record: impl FnOnce(&Transaction<'_>, &StorePath) -> Result<(), StoreError>,
    ) -> Result<CommitRange, StoreError> {
        let failed = self.path.failed("write");
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        record(&transaction, &self.path)?;
        let appended = append(
            &transaction,
            &self.path,
            self.edge,
            &mut self.indicators,
            hits,
        )
        .and_then(|range| {
            transaction.commit().map_err(failed)?;
            Ok(range)
        });
        if appended.is_err() {
            // The rows of new indicators went with the transaction.
            self.indicators.clear();
        }
        appended
    }

    /// Up to where the hits of `ring` are stored; `None` for a ring that was
    /// never drained into this store.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn drained_to(&self, ring: &RingIdentity) -> Result<Option<u64>, StoreError> {
        position_of(&self.db, ring).map_err(self.path.failed("read"))
    }

    /// At most `limit` hits after `cursor`, in the order in which they were
    /// stored. Fewer than `limit` means that there are no more.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn hits_after(
        &self,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, Hit)>, StoreError> {
        let failed = self.path.failed("read");
        let mut select = self
            .db
            .prepare_cached(
                "SELECT cursor, time, interface, direction, protocol, subscriber_ip,
                     subscriber_port, remote_ip, remote_port, packets, sequence,
                     source_validated, indicator, local_ip, tunnel, outer_source_ip,
                     outer_destination_ip, nat64_ip, space, vlan_ids, several_flows
                 FROM hits WHERE cursor > ?1 ORDER BY cursor LIMIT ?2",
            )
            .map_err(failed)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = select
            .query(params![cursor.0.cast_signed(), limit])
            .map_err(failed)?;
        let mut shared = Shared::default();
        let mut hits = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            hits.push(self.hit(row, &mut shared)?);
        }
        Ok(hits)
    }

    /// The cursor of the last hit that was ever stored, deleted or not; 0
    /// before the first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_cursor(&self) -> Result<Cursor, StoreError> {
        last_rowid(&self.db)
            .map(Cursor)
            .map_err(self.path.failed("read"))
    }
}

fn position_of(db: &Connection, ring: &RingIdentity) -> rusqlite::Result<Option<u64>> {
    db.prepare_cached("SELECT drained_to FROM rings WHERE ring = ?1")?
        .query_row([&ring.0], |row| row.get::<_, i64>(0))
        .optional()
        .map(|position| position.map(i64::cast_unsigned))
}

fn last_rowid(db: &Connection) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'hits'")?
        .query_row([], |row| row.get::<_, i64>(0))
        .optional()
        .map(|last| last.unwrap_or(0).cast_unsigned())
}

/// The log and index files beside the database get its mode from SQLite.
fn make_private(path: &Path, name: &StorePath) -> Result<(), StoreError> {
    let failed = |doing| move |source| name.fails(Failure::File { doing, source });
    if let Some(directory) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed("make its directory"))?;
    }
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => Ok(()),
        // Not opened again here: closing it would drop the locks that another
        // store of this process may hold on it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mode = fs::metadata(path)
                .map_err(failed("read its mode"))?
                .permissions()
                .mode();
            if mode & 0o077 != 0 {
                fs::set_permissions(path, Permissions::from_mode(0o600))
                    .map_err(failed("make it private (mode 0600)"))?;
            }
            Ok(())
        }
        Err(error) => Err(failed("make the file")(error)),
    }
}

#[cfg(test)]
mod tests;
