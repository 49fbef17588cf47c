//! What the connector needs of whoever keeps queues.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::delivery::{Received, Token};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::Message;

use super::config::Start;
use super::declaration::Declaration;

/// Keeps queues.
#[async_trait]
pub trait QueueBackend: Debug + Send + Sync {
    /// Sees to it that the queue exists and is as declared.
    ///
    /// # Errors
    /// Permanent when it exists as another kind.
    async fn declare(&self, queue: &str, declaration: &Declaration) -> Result<(), Failure>;

    /// Publishes a batch (never empty); durable when it returns. One result a message, in order.
    ///
    /// # Errors
    /// Nothing was published. Per message: transient when the queue is full, permanent when it does not take the message.
    async fn publish(&self, queue: &str, batch: Vec<Outgoing>) -> Result<Vec<Result<(), Failure>>, Failure>;

    /// Joins a group, which is made where it is missing.
    ///
    /// # Errors
    /// The queue does not exist, or its store fails.
    async fn join(&self, queue: &str, group: &str, start: Start) -> Result<Arc<dyn Member>, Failure>;
}

/// A member of a group.
#[async_trait]
pub trait Member: Send + Sync {
    /// Waits for messages and claims at most `max` of them. Cancel safe: what was claimed for a call that was dropped
    /// is what the next call returns.
    ///
    /// # Errors
    /// The store fails, or the queue or group [is gone](Self::is_gone).
    async fn claim(&self, max: usize) -> Result<Vec<Received>, Failure>;

    /// Settles claimed messages; durable when it returns, and harmless when repeated.
    ///
    /// # Errors
    /// Nothing is settled.
    async fn settle(&self, batch: &[(Token, Verdict)]) -> Result<(), Failure>;

    /// Gives back what is claimed and not settled, and is gone.
    ///
    /// # Errors
    /// It is given back later.
    async fn leave(&self) -> Result<(), Failure>;

    /// Whether nothing can be claimed any more: the queue or the group was deleted, or the member has left.
    fn is_gone(&self) -> bool;
}

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The message; its `deliver_at_ms` and `expires_at_ms` count.
    pub message: Arc<Message>,
    /// 0 to 9, if the target sets one.
    pub priority: Option<u8>,
    /// Not to be given out before this time has passed, if the target sets one; the message's own time does not count
    /// then.
    pub delay: Option<Duration>,
}

/// What has become of a claimed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The group is through with it.
    Done,
    /// It is to come again after this time.
    Again(Duration),
}
