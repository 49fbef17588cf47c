//! What can go wrong with queues: what users cause, by what it is, and the store's own trouble.

use std::time::Duration;

use crate::error::StoreError;

/// Why something was not done with a queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// There is no such queue.
    #[error("there is no queue `{queue}`; create it, or check the name")]
    NotFound {
        /// As asked for.
        queue: String,
    },
    /// There is no such group.
    #[error("the queue `{queue}` has no group `{group}`; a group is created when its first consumer joins")]
    GroupNotFound {
        /// The queue.
        queue: String,
        /// As asked for.
        group: String,
    },
    /// There is no such message, or no more.
    #[error("the queue `{queue}` holds no message {message}")]
    MessageNotFound {
        /// The queue.
        queue: String,
        /// As asked for.
        message: String,
    },
    /// It exists, with other properties.
    #[error("the queue `{queue}` exists already, with other properties; update it, or choose another name")]
    Exists {
        /// The queue.
        queue: String,
    },
    /// Somebody else has changed it since it was read.
    #[error("the queue `{queue}` has been changed meanwhile and is at revision {revision}; read it again")]
    Conflict {
        /// The queue.
        queue: String,
        /// Its revision now.
        revision: u64,
    },
    /// No room for a message.
    #[error("the queue `{queue}` is full ({limit}); let its groups settle messages, raise the limit, or purge it")]
    Full {
        /// The queue.
        queue: String,
        /// Which limit, such as `10000 messages`.
        limit: String,
        /// When it may be worth trying again.
        retry_after: Duration,
    },
    /// The message is larger than the queue takes.
    #[error("a message of {bytes} bytes is too large for the queue `{queue}`, which takes {limit_bytes}")]
    TooLarge {
        /// The queue.
        queue: String,
        /// Body, attributes and headers together.
        bytes: u64,
        /// The queue's largest message.
        limit_bytes: u64,
    },
    /// It cannot be cancelled any more.
    #[error("the message {message} of the queue `{queue}` has been claimed already and cannot be cancelled")]
    Claimed {
        /// The queue.
        queue: String,
        /// As asked for.
        message: String,
    },
    /// A value that cannot be used.
    #[error("{what}: {text}")]
    Invalid {
        /// Which value.
        what: String,
        /// What it is to be like.
        text: String,
    },
    /// A limit of the store.
    #[error("there are {limit} {what} already, the most there can be; delete some")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        limit: u64,
    },
    /// A message of a batch that is published whole or not at all.
    #[error("message {index} of the batch, counted from 0: {error}; none of it was published")]
    InBatch {
        /// From 0.
        index: usize,
        /// What is wrong with it.
        error: Box<QueueError>,
    },
    /// An idempotency key came again with something else.
    #[error("the idempotency key was used for another request to the queue `{queue}`; choose a new key")]
    KeyReused {
        /// The queue.
        queue: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
