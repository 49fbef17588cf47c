//! The statements that change stored entries. Two rules hold after each: of the ordered entries of a lane with the same
//! key the first, and only that, `leads`; and what is ready at once has a `ready_at_ms` above that of all such entries
//! before it, so that claims, which walk in that order, need not look behind them.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::ledger::Ledger;
use super::stored::{self, CONTENT_COLUMNS, StoredEntry};
use crate::change::Transaction;
use crate::database::{Backend, Connection, Value};
use crate::error::StoreError;
use crate::leases::Owner;

/// When an entry may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Readiness {
    pub timed: bool,
    pub ready_at_ms: u64,
}

impl Readiness {
    /// Not before this time; at once if it has come already. To be asked for within the change: see the module.
    pub fn new(ledger: &Ledger, not_before_ms: u64) -> Self {
        let now = ledger.clock.now_ms();
        if not_before_ms > now {
            Self { timed: true, ready_at_ms: not_before_ms }
        } else {
            Self { timed: false, ready_at_ms: ledger.books().stamp(now) }
        }
    }
}

/// On PostgreSQL, changes to ordered entries wait for each other: numbers are given out before entries can be seen, and
/// the first of a key must be known to be the first. One lock for all, so that nobody waits in a circle.
pub(super) async fn hold_order(connection: &mut Connection) -> Result<(), StoreError> {
    /// "SLGO".
    const ORDER_LOCK: i64 = 0x534c_474f;
    match connection.backend() {
        Backend::Sqlite => Ok(()),
        Backend::Postgres => connection.query("SELECT pg_advisory_xact_lock($1)", &[ORDER_LOCK.into()]).await.map(drop),
    }
}

pub(super) static INSERT: LazyLock<[String; 2]> = LazyLock::new(|| {
    let columns = CONTENT_COLUMNS.join(", ");
    let leads = "CASE WHEN EXISTS (SELECT 1 FROM inbox AS earlier WHERE earlier.pipeline = $1 AND earlier.lane = $2 \
        AND earlier.key_hash = $5) THEN 0 ELSE 1 END";
    ["1", leads].map(|leads| {
        format!(
            "INSERT INTO inbox (pipeline, lane, timed, ready_at_ms, {columns}, claimed_by, leads) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, {leads}) RETURNING seq"
        )
    })
});

/// Puts an entry in; returns its number. Of an ordered one, [`hold_order`] must have been called.
pub(super) async fn insert(
    transaction: &mut Transaction<'_>,
    ledger: &Ledger,
    entry: &StoredEntry,
    readiness: Readiness,
    claimed_by: Option<Owner>,
) -> Result<i64, StoreError> {
    let mut arguments = written(Arc::clone(&ledger.pipeline).into(), entry, readiness);
    arguments.push(claimed_by.into());
    let sql = &INSERT[usize::from(entry.key_hash.is_some())];
    match transaction.query_first(sql, &arguments).await? {
        Some(row) => row.integer(0),
        None => Err(transaction.failed("an insert returned no number")),
    }
}

pub(super) static REPLACE: LazyLock<[String; 2]> = LazyLock::new(|| {
    let mut content = String::new();
    for (index, column) in CONTENT_COLUMNS.iter().enumerate() {
        let written = write!(content, ", {column} = ${}", index + 5);
        debug_assert!(written.is_ok());
    }
    ["", " AND claimed_by = $16"].map(|mine| {
        format!(
            "UPDATE inbox SET lane = $2, timed = $3, ready_at_ms = $4{content}, claimed_by = NULL, leads = CASE WHEN EXISTS \
             (SELECT 1 FROM inbox AS earlier WHERE earlier.pipeline = $15 AND earlier.lane = $2 AND earlier.key_hash = $5 \
             AND earlier.seq < $1) THEN 0 ELSE 1 END WHERE seq = $1 AND pipeline = $15{mine} RETURNING leads"
        )
    })
});

/// Replaces an entry in place. Returns whether it was there.
pub(super) async fn replace(
    transaction: &mut Transaction<'_>,
    ledger: &Ledger,
    seq: i64,
    entry: &StoredEntry,
    readiness: Readiness,
) -> Result<bool, StoreError> {
    let mut arguments = written(seq.into(), entry, readiness);
    arguments.push(Arc::clone(&ledger.pipeline).into());
    let sql = match transaction.backend() {
        Backend::Sqlite => &REPLACE[0],
        Backend::Postgres => {
            arguments.push(transaction.owner().into());
            &REPLACE[1]
        }
    };
    let Some(row) = transaction.query_first(sql, &arguments).await? else { return Ok(false) };
    if let (Some(key_hash), 1) = (&entry.key_hash, row.integer(0)?) {
        // It has come before one that led until now.
        let sql = "UPDATE inbox SET leads = 0 WHERE leads = 1 AND seq = (SELECT seq FROM inbox WHERE pipeline = $1 \
            AND lane = $2 AND key_hash = $3 AND seq > $4 ORDER BY seq LIMIT 1)";
        let arguments = place(ledger, &entry.lane, key_hash).into_iter().chain([seq.into()]).collect::<Vec<_>>();
        transaction.execute(sql, &arguments).await?;
    }
    Ok(true)
}

/// `$1` to `$14` of statements that write an entry; `first` is what they find it by, or its pipeline. Two more may follow.
fn written(first: Value, entry: &StoredEntry, readiness: Readiness) -> Vec<Value> {
    let mut arguments = Vec::with_capacity(16);
    arguments.extend([first, Arc::clone(&entry.lane).into(), readiness.timed.into(), readiness.ready_at_ms.into()]);
    arguments.extend(entry.content());
    arguments
}

fn place(ledger: &Ledger, lane: &Arc<str>, key_hash: &Bytes) -> [Value; 3] {
    [Arc::clone(&ledger.pipeline).into(), Arc::clone(lane).into(), key_hash.clone().into()]
}

pub(super) const PROMOTE: &str = "UPDATE inbox SET leads = 1, timed = CASE WHEN timed = 1 AND ready_at_ms > $4 THEN 1 ELSE 0 END, \
        ready_at_ms = CASE WHEN timed = 1 AND ready_at_ms > $4 THEN ready_at_ms ELSE $5 END \
        WHERE leads = 0 AND seq = (SELECT seq FROM inbox WHERE pipeline = $1 AND lane = $2 AND key_hash = $3 \
        ORDER BY seq LIMIT 1) RETURNING timed, ready_at_ms";

/// Sees that the first of a key leads, after what led has gone. Returns when it may be claimed, if it is another.
pub(super) async fn promote(
    transaction: &mut Transaction<'_>,
    ledger: &Ledger,
    lane: &Arc<str>,
    key_hash: &Bytes,
) -> Result<Option<Readiness>, StoreError> {
    let now = ledger.clock.now_ms();
    let stamp = ledger.books().stamp(now);
    let arguments = place(ledger, lane, key_hash).into_iter().chain([now.into(), stamp.into()]).collect::<Vec<_>>();
    let Some(row) = transaction.query_first(PROMOTE, &arguments).await? else { return Ok(None) };
    transaction.announce(&ledger.topic);
    Ok(Some(Readiness { timed: row.integer(0)? != 0, ready_at_ms: row.unsigned(1)? }))
}

/// Entries of these numbers, for a statement's `WHERE`; `$1` is their [`list`].
pub(super) fn in_list(backend: Backend) -> &'static str {
    match backend {
        Backend::Sqlite => "seq IN (SELECT value FROM json_each('[' || $1 || ']'))",
        Backend::Postgres => "seq = ANY (CAST(string_to_array($1, ',') AS BIGINT[]))",
    }
}

/// `1,2,3`.
pub(super) fn list(seqs: impl IntoIterator<Item = i64>) -> Value {
    let mut list = String::new();
    for seq in seqs {
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&seq.to_string());
    }
    Value::Text(list)
}

/// Runs a statement on the entries of these numbers that are ours: on PostgreSQL, that this gateway still claims.
async fn execute_on(
    transaction: &mut Transaction<'_>,
    statement: &str,
    seqs: impl IntoIterator<Item = i64>,
) -> Result<u64, StoreError> {
    let backend = transaction.backend();
    let sql = format!("{statement} WHERE {}", in_list(backend));
    match backend {
        Backend::Sqlite => transaction.execute(&sql, &[list(seqs)]).await,
        Backend::Postgres => {
            let arguments = [list(seqs), transaction.owner().into()];
            transaction.execute(&format!("{sql} AND claimed_by = $2"), &arguments).await
        }
    }
}

/// Deletes entries; returns how many were there.
pub(super) async fn delete(
    transaction: &mut Transaction<'_>,
    seqs: impl IntoIterator<Item = i64>,
) -> Result<u64, StoreError> {
    execute_on(transaction, "DELETE FROM inbox", seqs).await
}

/// Gives claims back; only on PostgreSQL are they stored.
pub(super) async fn release(
    transaction: &mut Transaction<'_>,
    ledger: &Ledger,
    seqs: impl IntoIterator<Item = i64>,
) -> Result<(), StoreError> {
    if transaction.backend() == Backend::Postgres {
        execute_on(transaction, "UPDATE inbox SET claimed_by = NULL", seqs).await?;
    }
    transaction.announce(&ledger.topic);
    Ok(())
}

/// Sets an entry aside that cannot be opened, until it is taken up again. Returns whether it was there. Of an ordered one,
/// the next of its key is the caller's to [`promote`].
pub(super) async fn set_aside(transaction: &mut Transaction<'_>, seq: i64, again_ms: u64) -> Result<bool, StoreError> {
    let mut sql = "UPDATE inbox SET leads = 2, timed = 1, ready_at_ms = $2, key_hash = NULL, claimed_by = NULL \
        WHERE seq = $1"
        .to_owned();
    let mut arguments = vec![seq.into(), Value::from(again_ms)];
    if transaction.backend() == Backend::Postgres {
        arguments.push(transaction.owner().into());
        sql.push_str(" AND claimed_by = $3");
    }
    Ok(transaction.execute(&sql, &arguments).await? > 0)
}

/// Lets an entry be claimed again later, as this attempt. Returns whether it was there.
pub(super) async fn postpone(
    transaction: &mut Transaction<'_>,
    seq: i64,
    readiness: Readiness,
    attempt: u32,
) -> Result<bool, StoreError> {
    let Some(row) = transaction.query_first("SELECT progress FROM inbox WHERE seq = $1", &[seq.into()]).await? else {
        return Ok(false);
    };
    let progress = stored::with_attempt(&row, attempt)?;
    let mut sql =
        "UPDATE inbox SET timed = $2, ready_at_ms = $3, progress = $4, claimed_by = NULL WHERE seq = $1".to_owned();
    let mut arguments = vec![seq.into(), readiness.timed.into(), readiness.ready_at_ms.into(), Value::Text(progress)];
    if transaction.backend() == Backend::Postgres {
        arguments.push(transaction.owner().into());
        sql.push_str(" AND claimed_by = $5");
    }
    Ok(transaction.execute(&sql, &arguments).await? > 0)
}
