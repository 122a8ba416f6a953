//! What must survive a restart: hits, how far the ring is drained, and which
//! candidates were printed. SQLite, one file.
//!
//! **Exactly once**: hits and the position in the ring up to which they were
//! drained are stored in one transaction ([`Store::commit`]); the ring space
//! is released after it. After a kill at any moment the ring still holds what
//! was not stored, and [`Store::drained_to`] tells what was.
//!
//! **A power cut** may lose the commits since the last checkpoint (about 4
//! MB of log), together, never a part of one (`synchronous = NORMAL`): the
//! ring is lost then, too. Deletions are on disk when the call returns.

mod address;
mod erase;
mod error;
mod schema;

use std::{
    collections::HashMap,
    fmt,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

pub use self::error::{Failure, StoreError, StorePath};
pub use crate::aggregate::Cursor;
use crate::{
    candidate::CandidateId,
    hit::{Direction, Endpoint, Hit, IndicatorSummary},
    protocol::Protocol,
};

/// How long a call waits for another process to let go of the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// Directions as rows hold them.
const OUTBOUND: u8 = 0;
const INBOUND: u8 = 1;

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
        let failed = self.path.failed("write");
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let recorded = position_of(&transaction, ring).map_err(failed)?;
        if let Some(recorded) = recorded
            && (position < recorded || (position == recorded && !hits.is_empty()))
        {
            return Err(self.path.fails(Failure::Backwards {
                ring: ring.clone(),
                recorded,
                asked: position,
                hits: hits.len(),
            }));
        }
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
                    "INSERT INTO rings (ring, drained_to) VALUES (?1, ?2)
                         ON CONFLICT (ring) DO UPDATE SET drained_to = excluded.drained_to",
                    params![ring.0, position.cast_signed()],
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
                     source_validated, indicator
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

    fn hit(&self, row: &Row<'_>, shared: &mut Shared) -> Result<(Cursor, Hit), StoreError> {
        let failed = self.path.failed("read");
        let cursor: i64 = row.get(0).map_err(failed)?;
        let damaged = |field| self.path.fails(Failure::Row { cursor, field });
        let ip = |column, field| -> Result<IpAddr, StoreError> {
            row.get_ref(column)
                .ok()
                .and_then(|value| address::from_blob(value.as_blob().ok()?))
                .ok_or_else(|| damaged(field))
        };
        let indicator_row: i64 = row.get(12).map_err(|_| damaged("indicator"))?;
        let indicator = match shared.indicators.get(&indicator_row) {
            Some(known) => Arc::clone(known),
            None => {
                let text: String = self
                    .db
                    .prepare_cached("SELECT summary FROM indicators WHERE id = ?1")
                    .and_then(|mut select| select.query_row([indicator_row], |row| row.get(0)))
                    .map_err(failed)?;
                let summary: IndicatorSummary =
                    serde_json::from_str(&text).map_err(|_| damaged("indicator"))?;
                let summary = Arc::new(summary);
                shared
                    .indicators
                    .insert(indicator_row, Arc::clone(&summary));
                summary
            }
        };
        let time: i64 = row.get(1).map_err(|_| damaged("time"))?;
        let interface = match row.get_ref(2).map(|value| value.as_str_or_null()) {
            Ok(Ok(name)) => name.map(|name| shared.interface(name)),
            _ => return Err(damaged("interface")),
        };
        let sequence: i64 = row.get(10).map_err(|_| damaged("sequence"))?;
        let hit = Hit {
            time: Timestamp::from_nanosecond(time.into()).map_err(|_| damaged("time"))?,
            interface,
            direction: match row.get(3) {
                Ok(OUTBOUND) => Direction::Outbound,
                Ok(INBOUND) => Direction::Inbound,
                _ => return Err(damaged("direction")),
            },
            protocol: Protocol(row.get(4).map_err(|_| damaged("protocol"))?),
            subscriber: Endpoint {
                ip: ip(5, "subscriber_ip")?,
                port: row.get(6).map_err(|_| damaged("subscriber_port"))?,
            },
            remote: Endpoint {
                ip: ip(7, "remote_ip")?,
                port: row.get(8).map_err(|_| damaged("remote_port"))?,
            },
            indicator,
            packets: row.get(9).map_err(|_| damaged("packets"))?,
            sequence: sequence.cast_unsigned(),
            source_validated: row.get(11).map_err(|_| damaged("source_validated"))?,
        };
        Ok((Cursor(cursor.cast_unsigned()), hit))
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

    /// The id of the candidate for a subscriber address: the same on every
    /// call until its last hit is deleted, and never given to another.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn candidate_id(&mut self, address: IpAddr) -> Result<CandidateId, StoreError> {
        let blob = address::to_blob(address);
        let failed = self.path.failed("write");
        let select = |db: &Connection| {
            db.query_row(
                "SELECT id FROM candidates WHERE address = ?1",
                [&blob],
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
                "INSERT INTO candidates (address) VALUES (?1) RETURNING id",
                [&blob],
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

/// Rows of indicators that were stored through this connection, by the
/// place of the summary in memory: hits share it.
#[derive(Debug, Default)]
struct KnownIndicators(HashMap<*const IndicatorSummary, (Arc<IndicatorSummary>, i64)>);

impl KnownIndicators {
    /// Each feed reload brings new summaries; the old ones are let go.
    const LIMIT: usize = 65_536;

    fn row(&self, summary: &Arc<IndicatorSummary>) -> Option<i64> {
        self.0.get(&Arc::as_ptr(summary)).map(|(_, row)| *row)
    }

    /// Holding on to the summary keeps its place from being used again.
    fn remember(&mut self, summary: &Arc<IndicatorSummary>, row: i64) {
        if self.0.len() >= Self::LIMIT {
            self.clear();
        }
        self.0
            .insert(Arc::as_ptr(summary), (Arc::clone(summary), row));
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// What many hits have in common, read once.
#[derive(Default)]
struct Shared {
    indicators: HashMap<i64, Arc<IndicatorSummary>>,
    interfaces: HashMap<String, Arc<str>>,
}

impl Shared {
    fn interface(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.interfaces.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        self.interfaces.insert(name.to_owned(), Arc::clone(&shared));
        shared
    }
}

/// Nanoseconds since the epoch, where 64 bits hold them.
fn nanoseconds(time: Timestamp) -> Option<i64> {
    i64::try_from(time.as_nanosecond()).ok()
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

fn append(
    transaction: &Transaction<'_>,
    path: &StorePath,
    edge: i64,
    indicators: &mut KnownIndicators,
    hits: &[Hit],
) -> Result<CommitRange, StoreError> {
    let failed = path.failed("write");
    let first = last_rowid(transaction).map_err(failed)?.saturating_add(1);
    let mut insert = transaction
        .prepare_cached(
            "INSERT INTO hits (cursor, time, edge, interface, direction, protocol, subscriber_ip,
                 subscriber_port, remote_ip, remote_port, packets, sequence, source_validated,
                 indicator)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )
        .map_err(failed)?;
    let mut count = 0_u64;
    for hit in hits {
        let indicator = match indicators.row(&hit.indicator) {
            Some(row) => row,
            None => {
                let row = indicator_row(transaction, path, &hit.indicator)?;
                indicators.remember(&hit.indicator, row);
                row
            }
        };
        let time = nanoseconds(hit.time).ok_or_else(|| path.fails(Failure::Time(hit.time)))?;
        insert
            .execute(params![
                first.saturating_add(count).cast_signed(),
                time,
                edge,
                hit.interface.as_deref(),
                match hit.direction {
                    Direction::Outbound => OUTBOUND,
                    Direction::Inbound => INBOUND,
                },
                hit.protocol.0,
                address::to_blob(hit.subscriber.ip),
                hit.subscriber.port,
                address::to_blob(hit.remote.ip),
                hit.remote.port,
                hit.packets,
                hit.sequence.cast_signed(),
                hit.source_validated,
                indicator,
            ])
            .map_err(failed)?;
        count = count.saturating_add(1);
    }
    Ok(CommitRange { first, count })
}

fn indicator_row(
    transaction: &Transaction<'_>,
    path: &StorePath,
    summary: &IndicatorSummary,
) -> Result<i64, StoreError> {
    let text =
        serde_json::to_string(summary).map_err(|error| path.fails(Failure::Indicator(error)))?;
    let insert = || {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO indicators (summary) VALUES (?1)")?
            .execute([&text])?;
        transaction
            .prepare_cached("SELECT id FROM indicators WHERE summary = ?1")?
            .query_row([&text], |row| row.get(0))
    };
    insert().map_err(path.failed("write"))
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
