//! What all statements about queues share.

use bytes::Bytes;
use sluicegate_engine::message::{Body, Message};

use super::error::QueueError;
use super::settings::{HIGHEST_PRIORITY, Settings};
use crate::database::{Backend, Connection, Row, Value};
use crate::error::StoreError;
use crate::stored_message;

/// Priorities there are.
pub(super) const PRIORITIES: usize = HIGHEST_PRIORITY as usize + 1;

/// A queue as it is stored.
#[derive(Debug, Clone)]
pub(super) struct QueueRow {
    pub queue_id: u64,
    pub name: String,
    pub settings: Settings,
    pub revision: u64,
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
    pub last_offset: u64,
    pub last_published_ms: u64,
    pub messages: u64,
    pub bytes: u64,
    pub scheduled: u64,
    pub scheduled_bytes: u64,
}

pub(super) const QUEUE_COLUMNS: &str = "queue_id, name, settings, revision, created_at_ms, updated_at_ms, last_offset, \
    last_published_ms, messages, bytes, scheduled, scheduled_bytes";

impl QueueRow {
    /// From a row that begins with [`QUEUE_COLUMNS`].
    pub fn read(row: &Row) -> Result<Self, StoreError> {
        let settings =
            serde_json::from_str(&row.text(2)?).map_err(|error| row.damaged(format!("settings: {error}")))?;
        Ok(Self {
            queue_id: row.unsigned(0)?,
            name: row.text(1)?,
            settings,
            revision: row.unsigned(3)?,
            created_at_ms: row.unsigned(4)?,
            updated_at_ms: row.unsigned(5)?,
            last_offset: row.unsigned(6)?,
            last_published_ms: row.unsigned(7)?,
            messages: row.unsigned(8)?,
            bytes: row.unsigned(9)?,
            scheduled: row.unsigned(10)?,
            scheduled_bytes: row.unsigned(11)?,
        })
    }

    /// Takes that many messages out of the counts.
    pub fn remove(&mut self, messages: u64, bytes: u64) {
        self.messages = self.messages.saturating_sub(messages);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Writes the counts back; the row is locked.
    pub async fn save(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let sql = "UPDATE queues SET last_offset = $2, last_published_ms = $3, messages = $4, bytes = $5, \
                   scheduled = $6, scheduled_bytes = $7 WHERE queue_id = $1";
        let values = [
            self.queue_id,
            self.last_offset,
            self.last_published_ms,
            self.messages,
            self.bytes,
            self.scheduled,
            self.scheduled_bytes,
        ];
        connection.execute(sql, &values.map(Value::from)).await.map(drop)
    }
}

/// Whether to lock a row for the rest of the transaction. With SQLite a change has the whole database.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lock {
    No,
    Wait,
    /// Takes a row that another holds for missing.
    Skip,
}

impl Lock {
    pub fn clause(self, connection: &Connection) -> &'static str {
        match (connection.backend(), self) {
            (Backend::Sqlite, _) | (Backend::Postgres, Self::No) => "",
            (Backend::Postgres, Self::Wait) => " FOR UPDATE",
            (Backend::Postgres, Self::Skip) => " FOR UPDATE SKIP LOCKED",
        }
    }
}

/// The queue of this name.
pub(super) async fn queue_named(
    connection: &mut Connection,
    name: &str,
    lock: Lock,
) -> Result<Option<QueueRow>, StoreError> {
    let clause = lock.clause(connection);
    let sql = format!("SELECT {QUEUE_COLUMNS} FROM queues WHERE name = $1 AND is_deleted = 0{clause}");
    connection.query_first(&sql, &[name.into()]).await?.as_ref().map(QueueRow::read).transpose()
}

/// The queue of this number, unless it was deleted.
pub(super) async fn queue_numbered(
    connection: &mut Connection,
    queue_id: u64,
    lock: Lock,
) -> Result<Option<QueueRow>, StoreError> {
    let clause = lock.clause(connection);
    let sql = format!("SELECT {QUEUE_COLUMNS} FROM queues WHERE queue_id = $1 AND is_deleted = 0{clause}");
    connection.query_first(&sql, &[queue_id.into()]).await?.as_ref().map(QueueRow::read).transpose()
}

pub(super) fn no_queue(name: &str) -> QueueError {
    QueueError::NotFound { queue: name.to_owned() }
}

/// A group as it is stored.
#[derive(Debug, Clone)]
pub(super) struct GroupRow {
    pub group_id: u64,
    pub name: String,
    pub is_paused: bool,
    pub generation: u64,
    pub cursors: Cursors,
    pub lost: u64,
    pub expired: u64,
    pub created_at_ms: u64,
    pub last_activity_ms: u64,
}

const GROUP_COLUMNS: &str =
    "group_id, name, is_paused, generation, cursors, lost, expired, created_at_ms, last_activity_ms";

impl GroupRow {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let cursors = row.text(4)?;
        Ok(Self {
            group_id: row.unsigned(0)?,
            name: row.text(1)?,
            is_paused: row.integer(2)? != 0,
            generation: row.unsigned(3)?,
            cursors: Cursors::parse(&cursors).ok_or_else(|| row.damaged(format!("cursors are `{cursors}`")))?,
            lost: row.unsigned(5)?,
            expired: row.unsigned(6)?,
            created_at_ms: row.unsigned(7)?,
            last_activity_ms: row.unsigned(8)?,
        })
    }
}

/// All groups of a queue, by name.
pub(super) async fn groups(connection: &mut Connection, queue_id: u64) -> Result<Vec<GroupRow>, StoreError> {
    let sql = format!("SELECT {GROUP_COLUMNS} FROM queue_groups WHERE queue_id = $1 ORDER BY name");
    connection.query(&sql, &[queue_id.into()]).await?.iter().map(GroupRow::read).collect()
}

/// The group of this name.
pub(super) async fn group_named(
    connection: &mut Connection,
    queue_id: u64,
    name: &str,
    lock: Lock,
) -> Result<Option<GroupRow>, StoreError> {
    let clause = lock.clause(connection);
    let sql = format!("SELECT {GROUP_COLUMNS} FROM queue_groups WHERE queue_id = $1 AND name = $2{clause}");
    connection.query_first(&sql, &[queue_id.into(), name.into()]).await?.as_ref().map(GroupRow::read).transpose()
}

/// The group of this number.
pub(super) async fn group_numbered(
    connection: &mut Connection,
    group_id: u64,
    lock: Lock,
) -> Result<Option<GroupRow>, StoreError> {
    let clause = lock.clause(connection);
    let sql = format!("SELECT {GROUP_COLUMNS} FROM queue_groups WHERE group_id = $1{clause}");
    connection.query_first(&sql, &[group_id.into()]).await?.as_ref().map(GroupRow::read).transpose()
}

/// For each priority, 0 first, the offset up to which a group has looked at messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursors(pub [u64; PRIORITIES]);

impl Cursors {
    /// All at one offset.
    pub fn at(offset: u64) -> Self {
        Self([offset; PRIORITIES])
    }

    pub fn text(&self) -> String {
        self.0.map(|offset| offset.to_string()).join(",")
    }

    fn parse(text: &str) -> Option<Self> {
        let offsets: Vec<u64> = text.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
        offsets.try_into().ok().map(Self)
    }

    /// Whether a message has been looked at.
    pub fn have_passed(&self, priority: u64, offset: u64) -> bool {
        usize::try_from(priority).ok().and_then(|priority| self.0.get(priority)).is_some_and(|cursor| offset <= *cursor)
    }
}

/// What a message's body belongs to. It is sealed before the message has its place.
pub(super) fn body_identity<'a>(queue_id: &'a [u8; 8], head: &'a str) -> [&'a [u8]; 3] {
    [b"queue ", queue_id, head.as_bytes()]
}

/// A message as it is kept.
pub(super) fn message(row: &Row, queue_id: u64, head: usize, stored_body: usize) -> Result<Message, StoreError> {
    let head = row.text(head)?;
    let body = row.once_unbound_body_of(stored_body, &body_identity(&queue_id.to_be_bytes(), &head))?;
    stored_message::message(&head, Body::from(body)).map_err(|cause| row.damaged(cause))
}

/// Sizes of statements over several rows: few, so that few are prepared, and large ones, so that few are sent.
const CHUNKS: [usize; 3] = [64, 8, 1];

/// `items` in pieces of 64, then 8, then 1.
pub(super) fn chunks<T>(mut items: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = CHUNKS.into_iter().find(|size| *size <= items.len())?;
        let (chunk, rest) = items.split_at(size);
        items = rest;
        Some(chunk)
    })
}

/// `$from, $from+1, …`
pub(super) fn placeholders(from: usize, count: usize) -> String {
    let names: Vec<String> = (from..from + count).map(|number| format!("${number}")).collect();
    names.join(", ")
}

/// Runs `INSERT INTO table (columns) VALUES …` for all rows.
pub(super) async fn insert_all(
    connection: &mut Connection,
    table: &str,
    columns: &[&str],
    rows: &[Vec<Value>],
) -> Result<(), StoreError> {
    let names = columns.join(", ");
    for chunk in chunks(rows) {
        let tuples: Vec<String> =
            (0..chunk.len()).map(|row| format!("({})", placeholders(1 + row * columns.len(), columns.len()))).collect();
        let sql = format!("INSERT INTO {table} ({names}) VALUES {}", tuples.join(", "));
        connection.execute(&sql, &chunk.concat()).await?;
    }
    Ok(())
}

/// Runs `before` + a list of these offsets + `)`, whose first values are `values`.
pub(super) async fn execute_for(
    connection: &mut Connection,
    before: &str,
    values: &[Value],
    offsets: &[u64],
) -> Result<u64, StoreError> {
    let mut changed = 0;
    for chunk in chunks(offsets) {
        let sql = format!("{before}{})", placeholders(values.len() + 1, chunk.len()));
        let all: Vec<Value> = values.iter().cloned().chain(chunk.iter().map(|offset| Value::from(*offset))).collect();
        changed += connection.execute(&sql, &all).await?;
    }
    Ok(changed)
}

/// As [`execute_for`], for a query.
pub(super) async fn query_for(
    connection: &mut Connection,
    before: &str,
    values: &[Value],
    offsets: &[u64],
) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    for chunk in chunks(offsets) {
        let sql = format!("{before}{})", placeholders(values.len() + 1, chunk.len()));
        let all: Vec<Value> = values.iter().cloned().chain(chunk.iter().map(|offset| Value::from(*offset))).collect();
        rows.extend(connection.query(&sql, &all).await?);
    }
    Ok(rows)
}

/// Lets go what waited for a message that is gone: the first of each lane is blocked by nothing.
pub(super) async fn unblock(connection: &mut Connection, group_id: u64) -> Result<u64, StoreError> {
    let sql = "UPDATE queue_claims SET is_blocked = 0 WHERE group_id = $1 AND is_blocked = 1 AND NOT EXISTS \
               (SELECT 1 FROM queue_claims AS earlier WHERE earlier.group_id = queue_claims.group_id \
                AND earlier.lane = queue_claims.lane AND earlier.msg_offset < queue_claims.msg_offset)";
    connection.execute(sql, &[group_id.into()]).await
}

/// Which lane a key is in: keys that share one by accident are kept in order together, which does no harm. 64-bit FNV-1a,
/// the same on every machine.
pub(super) fn lane(key: &Bytes) -> i64 {
    let hash = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash.cast_signed()
}

/// What those wait for who wait for messages of a queue.
pub(super) fn topic(queue_id: u64) -> String {
    format!("queue {queue_id}")
}

/// What keepers wait for: a message was scheduled.
pub(super) const SCHEDULED: &str = "queue schedule";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_were() {
        let mut cursors = Cursors::at(7);
        cursors.0[9] = u64::from(u32::MAX);
        assert_eq!(Cursors::parse(&cursors.text()), Some(cursors));
        assert_eq!(Cursors::parse("1,2"), None);
        assert!(cursors.have_passed(4, 7) && !cursors.have_passed(4, 8) && !cursors.have_passed(10, 1));
    }

    #[test]
    fn lists_are_cut_into_few_sizes() {
        let items: Vec<u32> = (0..150).collect();
        let sizes: Vec<usize> = chunks(&items).map(<[u32]>::len).collect();
        assert_eq!(sizes, [64, 64, 8, 8, 1, 1, 1, 1, 1, 1]);
        assert_eq!(placeholders(3, 2), "$3, $4");
    }
}
