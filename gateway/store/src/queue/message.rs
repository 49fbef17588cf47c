//! Messages of a queue: publishing, finding and removing them.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::message::Message;

use super::error::QueueError;
use super::listing::Page;
use super::queues::Queues;

/// Most messages of one call of [`Queues::publish`].
pub const MAX_BATCH_MESSAGES: usize = 1_000;

/// A message to publish. Its key, its expiry and its `deliver_at_ms` are the message's own.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The message. `deliver_at_ms` in the past, or none: at once (in delay queues: after the queue's delay), else then,
    /// to the second after it, at most 30 days ahead.
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
    /// Publishes up to [`MAX_BATCH_MESSAGES`]; durable when it returns. One result a message, in order: a message that
    /// is refused keeps no other back. Calls that come at the same time share a transaction.
    ///
    /// If the call is dropped, any of the messages may have been published.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` (too many messages) or the store's trouble: nothing was published. For a message: `Full`,
    /// `TooLarge` or `Invalid`.
    pub async fn publish(
        &self,
        queue: &str,
        publications: Vec<Publication>,
    ) -> Result<Vec<Result<Published, QueueError>>, QueueError> {
        let _ = (queue, publications);
        unimplemented!()
    }

    /// Takes back a scheduled message, until a group has claimed it.
    ///
    /// # Errors
    /// `NotFound`, `MessageNotFound`, `Claimed`.
    pub async fn cancel(&self, queue: &str, id: &str) -> Result<(), QueueError> {
        let _ = (queue, id);
        unimplemented!()
    }

    /// A message, as it is kept.
    ///
    /// # Errors
    /// `NotFound`, `MessageNotFound`.
    pub async fn message(&self, queue: &str, which: Which<'_>) -> Result<(Listed, Message), QueueError> {
        let _ = (queue, which);
        unimplemented!()
    }

    /// Messages that have their place, oldest first. `limit` is cut to 1 through
    /// [`MAX_PAGE_ITEMS`](super::MAX_PAGE_ITEMS); `after` is the [`Page::next`] of the page before.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when `after` is no page token.
    pub async fn messages(&self, queue: &str, limit: usize, after: Option<&str>) -> Result<Page<Listed>, QueueError> {
        let _ = (queue, limit, after);
        unimplemented!()
    }

    /// Messages that wait for their time, the next first; otherwise as [`messages`](Self::messages).
    ///
    /// # Errors
    /// As [`messages`](Self::messages).
    pub async fn scheduled(&self, queue: &str, limit: usize, after: Option<&str>) -> Result<Page<Listed>, QueueError> {
        let _ = (queue, limit, after);
        unimplemented!()
    }

    /// Removes a message, whether or not it has been read. One that is claimed is carried to its end.
    ///
    /// # Errors
    /// `NotFound`, `MessageNotFound`.
    pub async fn delete_message(&self, queue: &str, which: Which<'_>) -> Result<(), QueueError> {
        let _ = (queue, which);
        unimplemented!()
    }
}
