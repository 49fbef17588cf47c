//! Messages of a queue: finding, listing and removing them. Publishing is [`publishing`](super::publishing)'s.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::message::Message;

use super::error::QueueError;
use super::listing::{MAX_PAGE_ITEMS, Page};
use super::queues::Queues;
use super::removal::{Doomed, delete_rows, delete_scheduled};
use super::sql::{self, Lock, groups, no_queue, queue_named, topic, unblock};
use crate::change::{Change, Transaction};
use crate::database::{Connection, Row, Value};
use crate::error::StoreError;
use crate::reader::Question;

/// Most messages of one call of [`Queues::publish`].
pub const MAX_BATCH_MESSAGES: usize = 1_000;

/// A message to publish. Its key, its expiry and its `deliver_at_ms` are the message's own.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The message. `deliver_at_ms` in the past, or none: at once (in delay queues: after the queue's delay), else then;
    /// at most 30 days ahead.
    pub message: Arc<Message>,
    /// 0 to 9, higher ones are given out first; [`DEFAULT_PRIORITY`](super::DEFAULT_PRIORITY) if `None`. Ordered queues
    /// take none.
    pub priority: Option<u8>,
    /// It is not given out any more after this time, counted from when it can first be; the queue's own and the
    /// message's `expires_at_ms` count if they are earlier.
    pub ttl: Option<Duration>,
}

impl Publication {
    /// With nothing special.
    pub fn new(message: impl Into<Arc<Message>>) -> Self {
        Self { message: message.into(), priority: None, ttl: None }
    }
}

/// A message that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The message's id.
    pub id: String,
    /// Its place in the queue, from 1; `None` while it is scheduled.
    pub offset: Option<u64>,
    /// When it gets its place, if it is scheduled.
    pub deliver_at_ms: Option<u64>,
}

/// Which message is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// The newest with this id.
    Id(&'a str),
    /// The one at this place.
    Offset(u64),
}

/// Whether a message can be given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has its place.
    Stored {
        /// From 1.
        offset: u64,
        /// Since when.
        published_at_ms: u64,
    },
    /// It waits for its time.
    Scheduled {
        /// Until when.
        deliver_at_ms: u64,
    },
}

/// What a list shows of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The message's id.
    pub id: String,
    /// Whether it can be given out.
    pub state: State,
    /// 0 to 9.
    pub priority: u8,
    /// The message's key.
    pub key: Option<bytes::Bytes>,
    /// When it is not given out any more.
    pub expires_at_ms: Option<u64>,
    /// Body, attributes and headers, before compression.
    pub size_bytes: u64,
}

impl Queues {
    /// Takes back a scheduled message, until a group has claimed it.
    ///
    /// # Errors
    /// `NotFound`, `MessageNotFound`, `Claimed`.
    pub async fn cancel(&self, queue: &str, id: &str) -> Result<(), QueueError> {
        let remove = Remove { queue: queue.to_owned(), which: Wanted::Id(id.to_owned()), unless_claimed: true };
        self.store.change(remove).await?
    }

    /// A message, as it is kept.
    ///
    /// # Errors
    /// `NotFound`, `MessageNotFound`.
    pub async fn message(&self, queue: &str, which: Which<'_>) -> Result<(Listed, Message), QueueError> {
        self.store.ask(Show { queue: queue.to_owned(), which: which.into() }).await?
    }

    /// Messages that have their place, oldest first. `limit` is cut to 1 through [`MAX_PAGE_ITEMS`]; `after` is the
    /// [`Page::next`] of the page before.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when `after` is no page token.
    pub async fn messages(&self, queue: &str, limit: usize, after: Option<&str>) -> Result<Page<Listed>, QueueError> {
        let after = after.map_or(Some(0), |token| token.parse().ok()).ok_or_else(page_token)?;
        let limit = limit.clamp(1, MAX_PAGE_ITEMS);
        self.store.ask(List { queue: queue.to_owned(), limit, after }).await?
    }

    /// Messages that wait for their time, the next first; otherwise as [`messages`](Self::messages).
    ///
    /// # Errors
    /// As [`messages`](Self::messages).
    pub async fn scheduled(&self, queue: &str, limit: usize, after: Option<&str>) -> Result<Page<Listed>, QueueError> {
        let position = |token: &str| {
            let (deliver_at_ms, id) = token.split_once('.')?;
            Some((deliver_at_ms.parse().ok()?, id.parse().ok()?))
        };
        let after = after.map_or(Some((0, 0)), position).ok_or_else(page_token)?;
        let limit = limit.clamp(1, MAX_PAGE_ITEMS);
        self.store.ask(ListScheduled { queue: queue.to_owned(), limit, after }).await?
    }

    /// Removes a message, whether or not it has been read. One that is claimed is carried to its end.
    ///
    /// # Errors
    /// `NotFound`, `MessageNotFound`.
    pub async fn delete_message(&self, queue: &str, which: Which<'_>) -> Result<(), QueueError> {
        self.store.change(Remove { queue: queue.to_owned(), which: which.into(), unless_claimed: false }).await?
    }
}

pub(super) fn page_token() -> QueueError {
    let text = "it is no page token; give the `next` of the page before, as it is".to_owned();
    QueueError::Invalid { what: "after".to_owned(), text }
}

/// [`Which`], owned.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    Id(String),
    Offset(u64),
}

impl From<Which<'_>> for Wanted {
    fn from(which: Which<'_>) -> Self {
        match which {
            Which::Id(id) => Self::Id(id.to_owned()),
            Which::Offset(offset) => Self::Offset(offset),
        }
    }
}

impl Wanted {
    pub fn missing(&self, queue: &str) -> QueueError {
        let message = match self {
            Self::Id(id) => format!("`{id}`"),
            Self::Offset(offset) => format!("at {offset}"),
        };
        QueueError::MessageNotFound { queue: queue.to_owned(), message }
    }
}

/// Columns of [`listed`] for a message that has its place; `stored_bytes` after them.
pub(super) const STORED: &str =
    "msg_offset, published_at_ms, priority, message_key, expires_at_ms, size_bytes, message_id, stored_bytes";
/// The same for one that waits.
const WAITING: &str =
    "scheduled_id, deliver_at_ms, priority, message_key, expires_at_ms, size_bytes, message_id, stored_bytes";

pub(super) fn listed(row: &Row, is_stored: bool) -> Result<Listed, StoreError> {
    let (number, time_ms) = (row.unsigned(0)?, row.unsigned(1)?);
    Ok(Listed {
        state: match is_stored {
            true => State::Stored { offset: number, published_at_ms: time_ms },
            false => State::Scheduled { deliver_at_ms: time_ms },
        },
        priority: u8::try_from(row.unsigned(2)?).map_err(|_| row.damaged("a priority above 255"))?,
        key: row.optional_bytes(3)?,
        expires_at_ms: row.optional_unsigned(4)?,
        size_bytes: row.unsigned(5)?,
        id: row.text(6)?,
    })
}

/// The row of a message, and whether it has its place: `columns` of [`STORED`] or [`WAITING`] and then `more`.
pub(super) async fn find(
    connection: &mut Connection,
    queue_id: u64,
    which: &Wanted,
    more: &str,
) -> Result<Option<(Row, bool)>, StoreError> {
    match which {
        Wanted::Offset(offset) => {
            let sql = format!("SELECT {STORED}{more} FROM queue_messages WHERE queue_id = $1 AND msg_offset = $2");
            let row = connection.query_first(&sql, &[queue_id.into(), (*offset).into()]).await?;
            Ok(row.map(|row| (row, true)))
        }
        Wanted::Id(id) => {
            // The index has the beginning of the id.
            let of = |columns: &str, table: &str, order: &str| {
                format!(
                    "SELECT {columns}{more} FROM {table} WHERE queue_id = $1 AND substr(message_id, 1, 200) = \
                     substr(CAST($2 AS TEXT), 1, 200) AND message_id = $2 ORDER BY {order} DESC LIMIT 1"
                )
            };
            let values = [Value::from(queue_id), id.as_str().into()];
            let waiting = connection.query_first(&of(WAITING, "queue_scheduled", "scheduled_id"), &values).await?;
            if let Some(row) = waiting {
                return Ok(Some((row, false)));
            }
            let stored = connection.query_first(&of(STORED, "queue_messages", "msg_offset"), &values).await?;
            Ok(stored.map(|row| (row, true)))
        }
    }
}

struct Show {
    queue: String,
    which: Wanted,
}

#[async_trait]
impl Question for Show {
    type Output = Result<(Listed, Message), QueueError>;

    fn doing(&self) -> &'static str {
        "find a message"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let Some(queue) = queue_named(connection, &self.queue, Lock::No).await? else {
            return Ok(Err(no_queue(&self.queue)));
        };
        Ok(match find(connection, queue.queue_id, &self.which, ", head, body").await? {
            Some((row, is_stored)) => Ok((listed(&row, is_stored)?, sql::message(&row, queue.queue_id, 8, 9)?)),
            None => Err(self.which.missing(&self.queue)),
        })
    }
}

struct List {
    queue: String,
    limit: usize,
    after: u64,
}

#[async_trait]
impl Question for List {
    type Output = Result<Page<Listed>, QueueError>;

    fn doing(&self) -> &'static str {
        "list messages"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let Some(queue) = queue_named(connection, &self.queue, Lock::No).await? else {
            return Ok(Err(no_queue(&self.queue)));
        };
        let sql = format!(
            "SELECT {STORED} FROM queue_messages WHERE queue_id = $1 AND msg_offset > $2 ORDER BY msg_offset LIMIT $3"
        );
        let values = [queue.queue_id, self.after, self.limit as u64 + 1].map(Value::from);
        let rows = connection.query(&sql, &values).await?;
        let shown = &rows[..rows.len().min(self.limit)];
        let items = shown.iter().map(|row| listed(row, true)).collect::<Result<_, _>>()?;
        let last = shown.last().filter(|_| rows.len() > self.limit);
        let next = last.map(|row| row.unsigned(0)).transpose()?.map(|offset| offset.to_string());
        Ok(Ok(Page { items, next }))
    }
}

struct ListScheduled {
    queue: String,
    limit: usize,
    after: (u64, u64),
}

#[async_trait]
impl Question for ListScheduled {
    type Output = Result<Page<Listed>, QueueError>;

    fn doing(&self) -> &'static str {
        "list scheduled messages"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let Some(queue) = queue_named(connection, &self.queue, Lock::No).await? else {
            return Ok(Err(no_queue(&self.queue)));
        };
        let sql = format!(
            "SELECT {WAITING} FROM queue_scheduled WHERE queue_id = $1 AND (deliver_at_ms, scheduled_id) > ($2, $3) \
             ORDER BY deliver_at_ms, scheduled_id LIMIT $4"
        );
        let values = [queue.queue_id, self.after.0, self.after.1, self.limit as u64 + 1].map(Value::from);
        let rows = connection.query(&sql, &values).await?;
        let shown = &rows[..rows.len().min(self.limit)];
        let items = shown.iter().map(|row| listed(row, false)).collect::<Result<_, _>>()?;
        let next = match shown.last().filter(|_| rows.len() > self.limit) {
            Some(row) => Some(format!("{}.{}", row.unsigned(1)?, row.unsigned(0)?)),
            None => None,
        };
        Ok(Ok(Page { items, next }))
    }
}

struct Remove {
    queue: String,
    which: Wanted,
    unless_claimed: bool,
}

#[async_trait]
impl Change for Remove {
    type Output = Result<(), QueueError>;

    fn size_bytes(&self) -> usize {
        256
    }

    fn doing(&self) -> &'static str {
        "remove a message"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let Some(mut queue) = queue_named(transaction, &self.queue, Lock::Wait).await? else {
            return Ok(Err(no_queue(&self.queue)));
        };
        let Some((row, is_stored)) = find(transaction, queue.queue_id, &self.which, "").await? else {
            return Ok(Err(self.which.missing(&self.queue)));
        };
        let (number, priority, stored_bytes) = (row.unsigned(0)?, row.unsigned(2)?, row.unsigned(7)?);
        if !is_stored {
            delete_scheduled(transaction, &mut queue, &[(number, stored_bytes)]).await?;
            queue.save(transaction).await?;
            return Ok(Ok(()));
        }
        let mut concerned = Vec::new();
        for group in groups(transaction, queue.queue_id).await? {
            // With its lock, so that it is not being claimed at this moment.
            let locked = match self.unless_claimed {
                true => sql::group_numbered(transaction, group.group_id, Lock::Wait).await?,
                false => Some(group),
            };
            concerned.extend(locked.filter(|group| group.cursors.have_passed(priority, number)));
        }
        if self.unless_claimed && !concerned.is_empty() {
            let message = row.text(6)?;
            return Ok(Err(QueueError::Claimed { queue: self.queue.clone(), message: format!("`{message}`") }));
        }
        for group in concerned {
            let sql = "DELETE FROM queue_claims WHERE group_id = $1 AND msg_offset = $2";
            transaction.execute(sql, &[group.group_id.into(), number.into()]).await?;
            if unblock(transaction, group.group_id).await? > 0 {
                transaction.announce(topic(queue.queue_id));
            }
        }
        delete_rows(transaction, &mut queue, &[Doomed { offset: number, priority, stored_bytes }]).await?;
        queue.save(transaction).await?;
        Ok(Ok(()))
    }
}
