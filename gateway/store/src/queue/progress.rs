//! How far groups are with single messages.

use async_trait::async_trait;

use super::error::QueueError;
use super::listing::{MAX_PAGE_ITEMS, Page};
use super::message::{Listed, Wanted, Which, find, listed, page_token};
use super::queues::Queues;
use super::sql::{Lock, groups, no_queue, queue_named};
use crate::database::{Connection, Row, Value};
use crate::error::StoreError;
use crate::reader::Question;

/// How far a group is with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It has not been given it yet.
    Waiting,
    /// A consumer has it.
    Claimed {
        /// Which attempt it is.
        attempt: u32,
    },
    /// It is to come again.
    Retrying {
        /// How often it has been given out.
        attempt: u32,
        /// Not before this time.
        not_before_ms: u64,
    },
    /// The group is through with it, or passed it because it had expired.
    Done,
}

/// A message that a group has been given and has not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The group.
    pub group: String,
    /// `Claimed` or `Retrying`.
    pub progress: Progress,
    /// The message.
    pub message: Listed,
}

impl Queues {
    /// How far each group of the queue is with a message, by the group's name. Empty for a scheduled one.
    ///
    /// # Errors
    /// `NotFound`, `MessageNotFound`.
    pub async fn progress(&self, queue: &str, which: Which<'_>) -> Result<Vec<(String, Progress)>, QueueError> {
        self.store.ask(Follow { queue: queue.to_owned(), which: which.into() }).await?
    }

    /// What groups have been given and have not settled, by offset; otherwise as [`messages`](Self::messages).
    ///
    /// # Errors
    /// As [`messages`](Self::messages).
    pub async fn pending(&self, queue: &str, limit: usize, after: Option<&str>) -> Result<Page<Pending>, QueueError> {
        let position = |token: &str| {
            let (offset, group_id) = token.split_once('.')?;
            Some((offset.parse().ok()?, group_id.parse().ok()?))
        };
        let after = after.map_or(Some((0, 0)), position).ok_or_else(page_token)?;
        let limit = limit.clamp(1, MAX_PAGE_ITEMS);
        self.store.ask(ListPending { queue: queue.to_owned(), limit, after }).await?
    }
}

struct Follow {
    queue: String,
    which: Wanted,
}

#[async_trait]
impl Question for Follow {
    type Output = Result<Vec<(String, Progress)>, QueueError>;

    fn doing(&self) -> &'static str {
        "look at a message's progress"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let Some(queue) = queue_named(connection, &self.queue, Lock::No).await? else {
            return Ok(Err(no_queue(&self.queue)));
        };
        let Some((row, is_stored)) = find(connection, queue.queue_id, &self.which, "").await? else {
            return Ok(Err(self.which.missing(&self.queue)));
        };
        if !is_stored {
            return Ok(Ok(Vec::new()));
        }
        let (offset, priority) = (row.unsigned(0)?, row.unsigned(2)?);
        let mut all = Vec::new();
        for group in groups(connection, queue.queue_id).await? {
            let sql = "SELECT attempt, not_before_ms, consumer FROM queue_claims \
                       WHERE group_id = $1 AND msg_offset = $2";
            let claim = connection.query_first(sql, &[group.group_id.into(), offset.into()]).await?;
            let progress = match claim {
                Some(row) => progress(&row, 0)?,
                None if group.cursors.have_passed(priority, offset) => Progress::Done,
                None => Progress::Waiting,
            };
            all.push((group.name, progress));
        }
        Ok(Ok(all))
    }
}

/// From `attempt, not_before_ms, consumer`, the first of them at `from`.
fn progress(row: &Row, from: usize) -> Result<Progress, StoreError> {
    let attempt = u32::try_from(row.unsigned(from)?).map_err(|_| row.damaged("more attempts than there can be"))?;
    Ok(match (attempt, row.optional_text(from + 2)?) {
        // It waits for another of its key.
        (0, _) => Progress::Waiting,
        (attempt, Some(_)) => Progress::Claimed { attempt },
        (attempt, None) => Progress::Retrying { attempt, not_before_ms: row.unsigned(from + 1)? },
    })
}

struct ListPending {
    queue: String,
    limit: usize,
    after: (u64, u64),
}

#[async_trait]
impl Question for ListPending {
    type Output = Result<Page<Pending>, QueueError>;

    fn doing(&self) -> &'static str {
        "list what groups have claimed"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let Some(queue) = queue_named(connection, &self.queue, Lock::No).await? else {
            return Ok(Err(no_queue(&self.queue)));
        };
        let sql = "SELECT m.msg_offset, m.published_at_ms, m.priority, m.message_key, m.expires_at_ms, m.size_bytes, \
                   m.message_id, c.attempt, c.not_before_ms, c.consumer, g.name, g.group_id \
                   FROM queue_groups g JOIN queue_claims c ON c.group_id = g.group_id \
                   JOIN queue_messages m ON m.queue_id = g.queue_id AND m.msg_offset = c.msg_offset \
                   WHERE g.queue_id = $1 AND c.attempt > 0 AND (c.msg_offset, g.group_id) > ($2, $3) \
                   ORDER BY c.msg_offset, g.group_id LIMIT $4";
        let values = [queue.queue_id, self.after.0, self.after.1, self.limit as u64 + 1].map(Value::from);
        let rows = connection.query(sql, &values).await?;
        let shown = &rows[..rows.len().min(self.limit)];
        let pending =
            |row: &Row| Ok(Pending { group: row.text(10)?, progress: progress(row, 7)?, message: listed(row, true)? });
        let items = shown.iter().map(pending).collect::<Result<_, StoreError>>()?;
        let next = match shown.last().filter(|_| rows.len() > self.limit) {
            Some(row) => Some(format!("{}.{}", row.unsigned(0)?, row.unsigned(11)?)),
            None => None,
        };
        Ok(Ok(Page { items, next }))
    }
}
