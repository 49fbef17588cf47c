//! Why something was not done with a queue, wherever it is kept.

use sluicegate_engine::failure::Failure;
use sluicegate_store::queue::QueueError;

/// See the module.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QueuesError {
    /// What the store's queues refuse; of queues in Redis only what has nothing to do with the store.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Its backend has no such thing.
    #[error("the queue `{queue}` is kept in Redis, which has no {what}; {hint}")]
    Unsupported {
        /// The queue.
        queue: String,
        /// What was asked for.
        what: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// Redis cannot be asked, or refuses.
    #[error("the queue `{queue}` is kept in Redis: {failure}")]
    Redis {
        /// The queue.
        queue: String,
        /// What went wrong.
        failure: Failure,
    },
}

impl QueuesError {
    /// Whether there is no such queue.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Queue(QueueError::NotFound { .. }))
    }
}
