//! Removing messages: for room, for age, by purging. Always a few hundred in one transaction.

use async_trait::async_trait;

use super::error::QueueError;
use super::sql::{Cursors, Lock, QueueRow, execute_for, groups, no_queue, queue_named, topic, unblock};
use crate::change::{Change, Transaction};
use crate::database::{Connection, Row, Value};
use crate::error::StoreError;
use crate::store::Store;

/// Most messages one transaction removes.
pub(super) const MAX_STEP_MESSAGES: u64 = 500;

/// A message that is to go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doomed {
    pub offset: u64,
    pub priority: u64,
    pub stored_bytes: u64,
}

impl Doomed {
    /// From columns `msg_offset, priority, stored_bytes`.
    pub fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self { offset: row.unsigned(0)?, priority: row.unsigned(1)?, stored_bytes: row.unsigned(2)? })
    }
}

/// The oldest messages.
pub(super) async fn oldest(connection: &mut Connection, queue_id: u64) -> Result<Vec<Doomed>, StoreError> {
    let sql = "SELECT msg_offset, priority, stored_bytes FROM queue_messages WHERE queue_id = $1 \
               ORDER BY msg_offset LIMIT $2";
    let rows = connection.query(sql, &[queue_id.into(), MAX_STEP_MESSAGES.into()]).await?;
    rows.iter().map(Doomed::read).collect()
}

/// The oldest messages that every group has settled; none if there is no group.
pub(super) async fn consumed(connection: &mut Connection, queue_id: u64) -> Result<Vec<Doomed>, StoreError> {
    let least = |a: Cursors, b: Cursors| Cursors(std::array::from_fn(|p| a.0[p].min(b.0[p])));
    let Some(passed) = groups(connection, queue_id).await?.into_iter().map(|group| group.cursors).reduce(least) else {
        return Ok(Vec::new());
    };
    let sql = "SELECT msg_offset, priority, stored_bytes FROM queue_messages AS m \
               WHERE queue_id = $1 AND priority = $2 AND msg_offset <= $3 AND NOT EXISTS \
               (SELECT 1 FROM queue_groups AS g JOIN queue_claims AS c ON c.group_id = g.group_id \
                WHERE g.queue_id = $1 AND c.msg_offset = m.msg_offset) ORDER BY msg_offset LIMIT $4";
    let mut found = Vec::new();
    for (priority, cursor) in (0_u64..).zip(passed.0).filter(|(_, cursor)| *cursor > 0) {
        let values = [queue_id, priority, cursor, MAX_STEP_MESSAGES].map(Value::from);
        for row in connection.query(sql, &values).await? {
            found.push(Doomed::read(&row)?);
        }
    }
    found.sort_unstable_by_key(|doomed| doomed.offset);
    Ok(found)
}

/// Removes messages and counts them as lost by the groups that had not been given them. The queue's row is locked; its
/// counts are the caller's to save.
pub(super) async fn remove(
    connection: &mut Connection,
    queue: &mut QueueRow,
    doomed: &[Doomed],
) -> Result<(), StoreError> {
    for group in groups(connection, queue.queue_id).await? {
        let unseen = |message: &&Doomed| !group.cursors.have_passed(message.priority, message.offset);
        let lost = doomed.iter().filter(unseen).count() as u64;
        if lost > 0 {
            let sql = "UPDATE queue_groups SET lost = lost + $2 WHERE group_id = $1";
            connection.execute(sql, &[group.group_id.into(), lost.into()]).await?;
            metrics::counter!("sluicegate_queue_messages_lost_total", "queue" => queue.name.clone()).increment(lost);
        }
    }
    delete_rows(connection, queue, doomed).await
}

/// Removes messages and takes them out of the counts.
pub(super) async fn delete_rows(
    connection: &mut Connection,
    queue: &mut QueueRow,
    doomed: &[Doomed],
) -> Result<(), StoreError> {
    let offsets: Vec<u64> = doomed.iter().map(|message| message.offset).collect();
    let sql = "DELETE FROM queue_messages WHERE queue_id = $1 AND msg_offset IN (";
    execute_for(connection, sql, &[queue.queue_id.into()], &offsets).await?;
    queue.remove(doomed.len() as u64, doomed.iter().map(|message| message.stored_bytes).sum());
    Ok(())
}

/// One step of retention by age and size.
pub(super) struct Retain {
    pub queue: String,
}

#[async_trait]
impl Change for Retain {
    /// Whether there may be more to do.
    type Output = bool;

    fn size_bytes(&self) -> usize {
        64 << 10
    }

    fn doing(&self) -> &'static str {
        "remove old messages"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        // Another gateway that has it does the same, or publishes and is back soon.
        let Some(mut queue) = queue_named(transaction, &self.queue, Lock::Skip).await? else { return Ok(false) };
        let retention = queue.settings.retention;
        let limit_ms = transaction.now_ms().saturating_sub(retention.max_age.as_millis() as u64);
        let sql = "SELECT msg_offset, priority, stored_bytes, published_at_ms FROM queue_messages WHERE queue_id = $1 \
                   ORDER BY msg_offset LIMIT $2";
        let rows = transaction.query(sql, &[queue.queue_id.into(), MAX_STEP_MESSAGES.into()]).await?;
        // Limits can have been lowered since; then the oldest go, whatever happens to new ones.
        let mut count =
            retention.max_messages.map_or(0, |most| (queue.messages + queue.scheduled).saturating_sub(most));
        let mut bytes =
            retention.max_bytes.map_or(0, |most| (queue.bytes + queue.scheduled_bytes).saturating_sub(most));
        let mut doomed = Vec::new();
        for row in &rows {
            if row.unsigned(3)? > limit_ms && count == 0 && bytes == 0 {
                break;
            }
            let message = Doomed::read(row)?;
            count = count.saturating_sub(1);
            bytes = bytes.saturating_sub(message.stored_bytes);
            doomed.push(message);
        }
        if doomed.is_empty() {
            return Ok(false);
        }
        remove(transaction, &mut queue, &doomed).await?;
        queue.save(transaction).await?;
        Ok(doomed.len() as u64 == MAX_STEP_MESSAGES)
    }
}

/// One step of removing what has expired, of all queues.
pub(super) struct Expire;

#[async_trait]
impl Change for Expire {
    /// Whether there may be more to do.
    type Output = bool;

    fn size_bytes(&self) -> usize {
        64 << 10
    }

    fn doing(&self) -> &'static str {
        "remove expired messages"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        let sql = "SELECT msg_offset, priority, stored_bytes, queue_id FROM queue_messages \
                   WHERE expires_at_ms IS NOT NULL AND expires_at_ms <= $1 ORDER BY expires_at_ms LIMIT $2";
        let values = [transaction.now_ms(), MAX_STEP_MESSAGES].map(Value::from);
        let rows = transaction.query(sql, &values).await?;
        let mut by_queue = std::collections::BTreeMap::<u64, Vec<Doomed>>::new();
        for row in &rows {
            by_queue.entry(row.unsigned(3)?).or_default().push(Doomed::read(row)?);
        }
        let mut removed = 0;
        for (queue_id, found) in by_queue {
            let Some(mut queue) = super::sql::queue_numbered(transaction, queue_id, Lock::Skip).await? else {
                continue;
            };
            // Between the question and the lock another gateway may have removed some.
            let offsets: Vec<u64> = found.iter().map(|message| message.offset).collect();
            let sql = "SELECT msg_offset, priority, stored_bytes FROM queue_messages WHERE queue_id = $1 \
                       AND msg_offset IN (";
            let rows = super::sql::query_for(transaction, sql, &[queue_id.into()], &offsets).await?;
            let doomed: Vec<Doomed> = rows.iter().map(Doomed::read).collect::<Result<_, _>>()?;
            for group in groups(transaction, queue_id).await? {
                let unseen = |message: &&Doomed| !group.cursors.have_passed(message.priority, message.offset);
                let expired = doomed.iter().filter(unseen).count() as u64;
                let sql = "UPDATE queue_groups SET expired = expired + $2 WHERE group_id = $1";
                transaction.execute(sql, &[group.group_id.into(), expired.into()]).await?;
            }
            delete_rows(transaction, &mut queue, &doomed).await?;
            queue.save(transaction).await?;
            removed += doomed.len();
            metrics::counter!("sluicegate_queue_messages_expired_total", "queue" => queue.name.clone())
                .increment(doomed.len() as u64);
        }
        Ok(rows.len() as u64 == MAX_STEP_MESSAGES && removed > 0)
    }
}

/// One step of a purge.
#[derive(Debug, Clone)]
pub(super) struct Purge {
    queue: String,
    /// The newest messages it concerns, once it has begun: offset and number in the schedule.
    until: Option<(u64, u64)>,
}

impl Purge {
    pub fn new(queue: &str) -> Self {
        Self { queue: queue.to_owned(), until: None }
    }
}

/// What a step has done.
pub(super) struct Purged {
    pub removed: u64,
    /// What is left to do.
    pub next: Option<Purge>,
}

#[async_trait]
impl Change for Purge {
    type Output = Result<Purged, QueueError>;

    fn size_bytes(&self) -> usize {
        64 << 10
    }

    fn doing(&self) -> &'static str {
        "purge a queue"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let Some(mut queue) = queue_named(transaction, &self.queue, Lock::Wait).await? else {
            return Ok(Err(no_queue(&self.queue)));
        };
        let until = match self.until {
            Some(until) => until,
            None => (queue.last_offset, last_scheduled(transaction, queue.queue_id).await?),
        };
        let mut doomed = oldest(transaction, queue.queue_id).await?;
        doomed.retain(|message| message.offset <= until.0);
        let scheduled = doom_scheduled(transaction, queue.queue_id, until.1).await?;
        delete_rows(transaction, &mut queue, &doomed).await?;
        delete_scheduled(transaction, &mut queue, &scheduled).await?;
        queue.save(transaction).await?;
        let is_last = [doomed.len(), scheduled.len()].iter().all(|count| (*count as u64) < MAX_STEP_MESSAGES);
        let gone_until = if is_last { until.0 } else { doomed.last().map_or(0, |message| message.offset) };
        for group in groups(transaction, queue.queue_id).await? {
            let sql = "DELETE FROM queue_claims WHERE group_id = $1 AND msg_offset <= $2";
            if transaction.execute(sql, &[group.group_id.into(), gone_until.into()]).await? > 0
                && unblock(transaction, group.group_id).await? > 0
            {
                transaction.announce(topic(queue.queue_id));
            }
        }
        let removed = (doomed.len() + scheduled.len()) as u64;
        let next = (!is_last).then(|| Self { queue: self.queue.clone(), until: Some(until) });
        Ok(Ok(Purged { removed, next }))
    }
}

async fn last_scheduled(connection: &mut Connection, queue_id: u64) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(max(scheduled_id), 0) FROM queue_scheduled WHERE queue_id = $1";
    let row = connection.query_first(sql, &[queue_id.into()]).await?;
    Ok(row.map(|row| row.unsigned(0)).transpose()?.unwrap_or(0))
}

/// Scheduled messages up to a number: (number, bytes).
async fn doom_scheduled(connection: &mut Connection, queue_id: u64, until: u64) -> Result<Vec<(u64, u64)>, StoreError> {
    let sql = "SELECT scheduled_id, stored_bytes FROM queue_scheduled WHERE queue_id = $1 AND scheduled_id <= $2 \
               ORDER BY deliver_at_ms, scheduled_id LIMIT $3";
    let values = [queue_id, until, MAX_STEP_MESSAGES].map(Value::from);
    let rows = connection.query(sql, &values).await?;
    rows.iter().map(|row| Ok((row.unsigned(0)?, row.unsigned(1)?))).collect()
}

/// Removes scheduled messages and takes them out of the counts.
pub(super) async fn delete_scheduled(
    connection: &mut Connection,
    queue: &mut QueueRow,
    doomed: &[(u64, u64)],
) -> Result<(), StoreError> {
    let ids: Vec<u64> = doomed.iter().map(|(id, _)| *id).collect();
    execute_for(connection, "DELETE FROM queue_scheduled WHERE scheduled_id IN (", &[], &ids).await?;
    queue.scheduled = queue.scheduled.saturating_sub(doomed.len() as u64);
    queue.scheduled_bytes = queue.scheduled_bytes.saturating_sub(doomed.iter().map(|(_, bytes)| bytes).sum());
    Ok(())
}

/// Removes the messages of deleted queues, and at last the queues.
pub(super) async fn remove_deleted(store: &Store) -> Result<(), StoreError> {
    while store.change(RemoveDeleted).await? {}
    Ok(())
}

/// One step of it.
struct RemoveDeleted;

#[async_trait]
impl Change for RemoveDeleted {
    /// Whether there may be more to do.
    type Output = bool;

    fn size_bytes(&self) -> usize {
        64 << 10
    }

    fn doing(&self) -> &'static str {
        "remove a deleted queue's messages"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        let clause = Lock::Skip.clause(transaction);
        let sql = format!("SELECT queue_id FROM queues WHERE is_deleted = 1 ORDER BY queue_id LIMIT 1{clause}");
        let Some(row) = transaction.query_first(&sql, &[]).await? else { return Ok(false) };
        let values = [row.unsigned(0)?, MAX_STEP_MESSAGES].map(Value::from);
        let messages = "DELETE FROM queue_messages WHERE queue_id = $1 AND msg_offset IN \
                        (SELECT msg_offset FROM queue_messages WHERE queue_id = $1 ORDER BY msg_offset LIMIT $2)";
        let scheduled = "DELETE FROM queue_scheduled WHERE scheduled_id IN (SELECT scheduled_id FROM queue_scheduled \
                         WHERE queue_id = $1 ORDER BY deliver_at_ms, scheduled_id LIMIT $2)";
        let removed = transaction.execute(messages, &values).await? + transaction.execute(scheduled, &values).await?;
        if removed == 0 {
            transaction.execute("DELETE FROM queues WHERE queue_id = $1", &values[..1]).await?;
        }
        Ok(true)
    }
}
