//! The tables, and how an older file becomes a current one.

use rusqlite::{Connection, TransactionBehavior};

use super::{Failure, StoreError, StorePath};

/// "MTCH": tells our files from other SQLite files.
const APPLICATION_ID: i32 = 0x4d54_4348;

/// Step n brings the schema from version n to n + 1. Steps are never edited
/// once released, only added.
const MIGRATIONS: [&str; 3] = [
    // Version 1. No index on times or addresses: erasure reads the table once
    // and rewrites the file anyway, and hits are written far more often.
    "CREATE TABLE edges (
         id INTEGER PRIMARY KEY,
         name TEXT NOT NULL UNIQUE
     ) STRICT;
     -- By content: what a stored hit says does not change when a feed does.
     CREATE TABLE indicators (
         id INTEGER PRIMARY KEY,
         summary TEXT NOT NULL UNIQUE
     ) STRICT;
     -- R3: these fields and no others of the traffic.
     CREATE TABLE hits (
         cursor INTEGER PRIMARY KEY AUTOINCREMENT,
         time INTEGER NOT NULL,
         edge INTEGER NOT NULL REFERENCES edges (id),
         interface TEXT,
         direction INTEGER NOT NULL CHECK (direction IN (0, 1)),
         protocol INTEGER NOT NULL,
         subscriber_ip BLOB NOT NULL,
         subscriber_port INTEGER,
         remote_ip BLOB NOT NULL,
         remote_port INTEGER,
         packets INTEGER NOT NULL,
         sequence INTEGER NOT NULL,
         source_validated INTEGER NOT NULL CHECK (source_validated IN (0, 1)),
         indicator INTEGER NOT NULL REFERENCES indicators (id)
     ) STRICT;
     CREATE INDEX hits_by_indicator ON hits (indicator);
     CREATE TABLE rings (
         ring TEXT PRIMARY KEY,
         drained_to INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE candidates (
         id INTEGER PRIMARY KEY AUTOINCREMENT,
         address BLOB NOT NULL UNIQUE,
         published INTEGER
     ) STRICT;
     -- A row: rows were deleted, their bytes may still be in the files.
     CREATE TABLE unfinished_erasure (
         only INTEGER PRIMARY KEY CHECK (only = 1)
     ) STRICT;",
    // Version 2: tunnels, NAT64, and subscriber spaces of VLANs.
    "ALTER TABLE hits ADD COLUMN local_ip BLOB;
     ALTER TABLE hits ADD COLUMN tunnel INTEGER;
     ALTER TABLE hits ADD COLUMN outer_source_ip BLOB;
     ALTER TABLE hits ADD COLUMN outer_destination_ip BLOB;
     ALTER TABLE hits ADD COLUMN nat64_ip BLOB;
     ALTER TABLE hits ADD COLUMN space INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE hits ADD COLUMN vlan_ids INTEGER NOT NULL DEFAULT 0;
     CREATE TABLE candidates_by_space (
         id INTEGER PRIMARY KEY AUTOINCREMENT,
         space INTEGER NOT NULL,
         address BLOB NOT NULL,
         published INTEGER,
         UNIQUE (space, address)
     ) STRICT;
     INSERT INTO candidates_by_space (id, space, address, published)
         SELECT id, 0, address, published FROM candidates;
     -- An id that was given once is never given again.
     DELETE FROM sqlite_sequence WHERE name = 'candidates_by_space';
     INSERT INTO sqlite_sequence (name, seq)
         SELECT 'candidates_by_space', seq FROM sqlite_sequence WHERE name = 'candidates';
     DROP TABLE candidates;
     ALTER TABLE candidates_by_space RENAME TO candidates;",
    // Version 3: packets that the kernel folded.
    "ALTER TABLE hits ADD COLUMN several_flows INTEGER NOT NULL DEFAULT 0
         CHECK (several_flows IN (0, 1));
     -- Up to which generation folded packets are stored.
     CREATE TABLE folds (
         ring TEXT PRIMARY KEY,
         stored INTEGER NOT NULL
     ) STRICT;",
];

/// The schema version that this build writes.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// Sets the connection up and brings the schema to [`VERSION`].
pub(super) fn prepare(db: &mut Connection, path: &StorePath) -> Result<(), StoreError> {
    let sqlite = |doing| path.failed(doing);
    // Looked at before anything is changed: it may belong to somebody else.
    version(db, path)?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA secure_delete = ON;
         PRAGMA foreign_keys = ON;
         -- Nothing of a record may reach a temporary file.
         PRAGMA temp_store = MEMORY;",
    )
    .map_err(sqlite("open"))?;
    let transaction = db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(sqlite("lock"))?;
    let from = version(&transaction, path)?;
    for (version, migration) in (1_i32..).zip(MIGRATIONS).skip(from) {
        transaction
            .execute_batch(migration)
            .and_then(|()| transaction.pragma_update(None, "user_version", version))
            .and_then(|()| transaction.pragma_update(None, "application_id", APPLICATION_ID))
            .map_err(sqlite("migrate"))?;
    }
    transaction.commit().map_err(sqlite("migrate"))
}

/// The schema version of a file of ours; 0 for an empty file.
fn version(db: &Connection, path: &StorePath) -> Result<usize, StoreError> {
    let failed = path.failed("open");
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let application = number("application_id").map_err(failed)?;
    let found = number("user_version").map_err(failed)?;
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    let blank = application == 0 && found == 0 && tables == 0;
    if application != APPLICATION_ID && !blank {
        return Err(path.fails(Failure::NotOurs));
    }
    let found = usize::try_from(found).map_err(|_| path.fails(Failure::NotOurs))?;
    if found > VERSION {
        return Err(path.fails(Failure::Newer {
            found,
            known: VERSION,
        }));
    }
    Ok(found)
}
