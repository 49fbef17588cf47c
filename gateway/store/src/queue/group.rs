//! Groups: who has read how far.

use async_trait::async_trait;

use super::consumer::Consumer;
use super::error::QueueError;
use super::queues::Queues;
use super::settings::{MAX_GROUPS, check_name};
use super::sql::{Cursors, GroupRow, Lock, QueueRow, group_named, groups, no_queue, queue_named, topic};
use crate::change::{Change, Transaction};
use crate::database::{Connection, Value};
use crate::error::StoreError;
use crate::reader::Question;

/// A group, as it was when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The queue it reads.
    pub queue: String,
    /// Its name.
    pub name: String,
    /// Whether it gets nothing until it is resumed.
    pub paused: bool,
    /// Messages it has not been given yet.
    pub lag: u64,
    /// Messages it has been given and has not settled, those included that are to come again.
    pub pending: u64,
    /// Of the pending ones, those that cannot be opened and are set aside.
    pub set_aside: u64,
    /// Consumers that have joined and not left, of all gateways.
    pub consumers: u64,
    /// Messages that retention removed before the group had settled them.
    pub lost: u64,
    /// Messages that expired before the group was given them.
    pub expired: u64,
    /// When it was created.
    pub created_at_ms: u64,
    /// When it last claimed or settled something, or was created.
    pub last_activity_ms: u64,
}

/// Where a group begins that is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the oldest message there is.
    #[default]
    Earliest,
    /// With what is published from now on.
    Latest,
}

/// Where a group is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// With the oldest message there is.
    Earliest,
    /// With what is published from now on.
    Latest,
    /// With the message at this place, from 1.
    Offset(u64),
    /// With the first message published at this time or later, milliseconds since the Unix epoch.
    Time(u64),
}

impl Queues {
    /// Makes a group, and says whether it is new. One that exists stays where it is.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `TooMany`.
    pub async fn create_group(&self, queue: &str, group: &str, start: Start) -> Result<bool, QueueError> {
        check_name("group", group)?;
        let create = Create { queue: queue.to_owned(), group: group.to_owned(), start };
        let (_, _, is_new) = self.store.change(create).await??;
        Ok(is_new)
    }

    /// The groups of a queue, by name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn groups(&self, queue: &str) -> Result<Vec<Group>, QueueError> {
        self.store.ask(Look { queue: queue.to_owned(), group: None }).await?
    }

    /// One group.
    ///
    /// # Errors
    /// `NotFound`, `GroupNotFound`.
    pub async fn group(&self, queue: &str, group: &str) -> Result<Group, QueueError> {
        let found = self.store.ask(Look { queue: queue.to_owned(), group: Some(group.to_owned()) }).await??;
        found.into_iter().next().ok_or_else(|| no_group(queue, group))
    }

    /// Gives the group nothing any more, on any gateway. What it holds it may settle.
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn pause(&self, queue: &str, group: &str) -> Result<(), QueueError> {
        self.alter(queue, group, Alteration::Pause).await
    }

    /// Goes on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn resume(&self, queue: &str, group: &str) -> Result<(), QueueError> {
        self.alter(queue, group, Alteration::Resume).await
    }

    /// Lets the group go on from another place. What it holds counts as settled.
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn reset(&self, queue: &str, group: &str, position: Position) -> Result<(), QueueError> {
        self.alter(queue, group, Alteration::Reset(position)).await
    }

    /// Removes a group. A consumer that claims again finds it gone.
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn delete_group(&self, queue: &str, group: &str) -> Result<(), QueueError> {
        self.alter(queue, group, Alteration::Delete).await
    }

    /// Joins a group as a new consumer, and makes the group where it is missing.
    ///
    /// # Errors
    /// As [`create_group`](Self::create_group).
    pub async fn join(&self, queue: &str, group: &str, start: Start) -> Result<Consumer, QueueError> {
        check_name("group", group)?;
        let create = Create { queue: queue.to_owned(), group: group.to_owned(), start };
        let (found, group_id, is_new) = self.store.change(create).await??;
        if is_new {
            tracing::info!(queue, group, "created a group");
        }
        Consumer::join(&self.store, &found, group_id, group).await
    }

    async fn alter(&self, queue: &str, group: &str, alteration: Alteration) -> Result<(), QueueError> {
        self.store.change(Alter { queue: queue.to_owned(), group: group.to_owned(), alteration }).await?
    }
}

pub(super) fn no_group(queue: &str, group: &str) -> QueueError {
    QueueError::GroupNotFound { queue: queue.to_owned(), group: group.to_owned() }
}

struct Create {
    queue: String,
    group: String,
    start: Start,
}

#[async_trait]
impl Change for Create {
    /// The queue, the group's number, and whether it is new.
    type Output = Result<(QueueRow, u64, bool), QueueError>;

    fn size_bytes(&self) -> usize {
        256
    }

    fn doing(&self) -> &'static str {
        "create a group"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        // With the lock: what is published from now on has a higher offset.
        let Some(queue) = queue_named(transaction, &self.queue, Lock::Wait).await? else {
            return Ok(Err(no_queue(&self.queue)));
        };
        if let Some(found) = group_named(transaction, queue.queue_id, &self.group, Lock::No).await? {
            return Ok(Ok((queue, found.group_id, false)));
        }
        let sql = "SELECT count(*) FROM queue_groups WHERE queue_id = $1";
        let count = transaction.query_first(sql, &[queue.queue_id.into()]).await?;
        if count.map(|row| row.unsigned(0)).transpose()?.is_some_and(|count| count >= MAX_GROUPS) {
            return Ok(Err(QueueError::TooMany { what: "groups", limit: MAX_GROUPS }));
        }
        let cursors = match self.start {
            Start::Earliest => Cursors::at(0),
            Start::Latest => Cursors::at(queue.last_offset),
        };
        let sql = "INSERT INTO queue_groups (queue_id, name, is_paused, generation, cursors, lost, expired, \
                   created_at_ms, last_activity_ms) VALUES ($1, $2, 0, 1, $3, 0, 0, $4, $4)";
        let values =
            [queue.queue_id.into(), self.group.as_str().into(), cursors.text().into(), transaction.now_ms().into()];
        transaction.execute(sql, &values).await?;
        match group_named(transaction, queue.queue_id, &self.group, Lock::No).await? {
            Some(made) => Ok(Ok((queue, made.group_id, true))),
            None => Err(transaction.failed("a group that was made cannot be found")),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Alteration {
    Pause,
    Resume,
    Reset(Position),
    Delete,
}

struct Alter {
    queue: String,
    group: String,
    alteration: Alteration,
}

#[async_trait]
impl Change for Alter {
    type Output = Result<(), QueueError>;

    fn size_bytes(&self) -> usize {
        256
    }

    fn doing(&self) -> &'static str {
        "change a group"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let Some(queue) = queue_named(transaction, &self.queue, Lock::Wait).await? else {
            return Ok(Err(no_queue(&self.queue)));
        };
        let Some(group) = group_named(transaction, queue.queue_id, &self.group, Lock::Wait).await? else {
            return Ok(Err(no_group(&self.queue, &self.group)));
        };
        let id = Value::from(group.group_id);
        let claims = "DELETE FROM queue_claims WHERE group_id = $1";
        let pause = "UPDATE queue_groups SET is_paused = $2 WHERE group_id = $1";
        match self.alteration {
            Alteration::Pause => transaction.execute(pause, &[id, true.into()]).await?,
            Alteration::Resume => transaction.execute(pause, &[id, false.into()]).await?,
            Alteration::Reset(position) => {
                let cursor = before(transaction, &queue, position).await?;
                transaction.execute(claims, std::slice::from_ref(&id)).await?;
                let sql = "UPDATE queue_groups SET cursors = $2, generation = generation + 1 WHERE group_id = $1";
                transaction.execute(sql, &[id, Cursors::at(cursor).text().into()]).await?
            }
            Alteration::Delete => {
                transaction.execute(claims, std::slice::from_ref(&id)).await?;
                let consumers = "DELETE FROM queue_consumers WHERE group_id = $1";
                transaction.execute(consumers, std::slice::from_ref(&id)).await?;
                transaction.execute("DELETE FROM queue_groups WHERE group_id = $1", &[id]).await?
            }
        };
        transaction.announce(topic(queue.queue_id));
        Ok(Ok(()))
    }
}

/// The offset before a position.
async fn before(connection: &mut Connection, queue: &QueueRow, position: Position) -> Result<u64, StoreError> {
    match position {
        Position::Earliest => Ok(0),
        Position::Latest => Ok(queue.last_offset),
        Position::Offset(offset) => Ok(offset.saturating_sub(1).min(queue.last_offset)),
        Position::Time(time_ms) => {
            // Times of publication never go back within a queue, so that its messages can be searched by halves.
            let sql = "SELECT msg_offset, published_at_ms FROM queue_messages WHERE queue_id = $1 AND msg_offset >= $2 \
                       ORDER BY msg_offset LIMIT 1";
            let (mut low, mut high) = (1, queue.last_offset + 1);
            while low < high {
                let middle = low + (high - low) / 2;
                let found = connection.query_first(sql, &[queue.queue_id.into(), middle.into()]).await?;
                match found {
                    Some(row) if row.unsigned(1)? < time_ms => low = row.unsigned(0)? + 1,
                    Some(_) | None => high = middle,
                }
            }
            Ok(low - 1)
        }
    }
}

struct Look {
    queue: String,
    /// All of them if `None`.
    group: Option<String>,
}

#[async_trait]
impl Question for Look {
    type Output = Result<Vec<Group>, QueueError>;

    fn doing(&self) -> &'static str {
        "look at a queue's groups"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let Some(queue) = queue_named(connection, &self.queue, Lock::No).await? else {
            return Ok(Err(no_queue(&self.queue)));
        };
        let found = match &self.group {
            None => groups(connection, queue.queue_id).await?,
            Some(name) => group_named(connection, queue.queue_id, name, Lock::No).await?.into_iter().collect(),
        };
        let mut all = Vec::with_capacity(found.len());
        for group in found {
            all.push(described(connection, &queue, group).await?);
        }
        Ok(Ok(all))
    }
}

async fn described(connection: &mut Connection, queue: &QueueRow, group: GroupRow) -> Result<Group, StoreError> {
    let mut lag = 0;
    for (priority, cursor) in (0_u64..).zip(group.cursors.0) {
        let sql = "SELECT count(*) FROM queue_messages WHERE queue_id = $1 AND priority = $2 AND msg_offset > $3";
        lag += count(connection, sql, &[queue.queue_id, priority, cursor].map(Value::from)).await?;
    }
    let id = [Value::from(group.group_id)];
    // What only waits for another of its key has not been given out yet.
    let waiting = "SELECT count(*) FROM queue_claims WHERE group_id = $1 AND attempt = 0";
    let pending = "SELECT count(*) FROM queue_claims WHERE group_id = $1 AND attempt > 0";
    let set_aside = "SELECT count(*) FROM queue_claims WHERE group_id = $1 AND is_blocked = 2";
    lag += count(connection, waiting, &id).await?;
    Ok(Group {
        queue: queue.name.clone(),
        paused: group.is_paused,
        lag,
        pending: count(connection, pending, &id).await?,
        set_aside: count(connection, set_aside, &id).await?,
        consumers: count(connection, "SELECT count(*) FROM queue_consumers WHERE group_id = $1", &id).await?,
        name: group.name,
        lost: group.lost,
        expired: group.expired,
        created_at_ms: group.created_at_ms,
        last_activity_ms: group.last_activity_ms,
    })
}

async fn count(connection: &mut Connection, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
    let row = connection.query_first(sql, values).await?;
    Ok(row.map(|row| row.unsigned(0)).transpose()?.unwrap_or(0))
}
