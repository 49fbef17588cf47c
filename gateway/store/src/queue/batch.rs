//! Publishing all of a batch or nothing, and once for each idempotency key.

use std::sync::Arc;
use std::time::Duration;

use super::error::QueueError;
use super::message::{Publication, Published};
use super::queues::Queues;

/// Makes repetitions of a request known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// As the client gave it. Keys are told apart by queue.
    pub key: Arc<str>,
    /// sha256 of what makes two requests the same.
    pub fingerprint: [u8; 32],
    /// How long from now the key is known.
    pub ttl: Duration,
}

/// A batch that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// One for each message, in order.
    pub published: Vec<Published>,
    /// Whether it was published before, by a request with the same key; nothing was published now.
    pub repeated: bool,
}

impl Queues {
    /// Publishes all of a batch in one transaction or none of it; durable when it returns. With `once`, a repetition
    /// within its time publishes nothing and gets the first one's result; what was refused may be repeated.
    ///
    /// If the call is dropped, all or none may have been published.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), those of a message within [`QueueError::InBatch`]; `KeyReused` when the key was
    /// another request's. Nothing was published.
    pub async fn publish_all(
        &self,
        queue: &str,
        publications: Vec<Publication>,
        once: Option<Once>,
    ) -> Result<Batch, QueueError> {
        let _ = (queue, publications, once);
        unimplemented!()
    }
}
