//! What a target is: it connects, and its connection publishes batches. Targets never loop, retry or reconnect: the
//! [target driver](crate::target_driver) does.

use std::sync::Arc;

use async_trait::async_trait;

use crate::failure::Failure;
use crate::message::Message;

/// Where messages go.
#[async_trait]
pub trait Target: Send {
    /// Opens a connection: declares what the config asks for. Called again after each disconnect, with the old outlet
    /// dropped before.
    ///
    /// # Errors
    /// As [`Source::connect`](crate::source::Source::connect).
    async fn connect(&mut self) -> Result<Arc<dyn Outlet>, Failure>;

    /// How batches are best formed for this system.
    fn batching(&self) -> Batching {
        Batching::default()
    }
}

/// How the driver feeds a target. Batches are made of what waits, never by waiting for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Most messages in one call of `publish`.
    pub max_messages: usize,
    /// Most calls of `publish` at the same time. 1 keeps the order in which messages were handed over.
    pub max_concurrent: usize,
}

impl Default for Batching {
    fn default() -> Self {
        Self { max_messages: 128, max_concurrent: 4 }
    }
}

/// An open connection of a target.
#[async_trait]
pub trait Outlet: Send + Sync {
    /// Publishes `batch` (never empty) and waits until the other side has confirmed each message (publisher confirm,
    /// XADD reply, HTTP 2xx, fsync): one result a message, in the batch's order. Messages of a batch succeed and fail
    /// on their own.
    ///
    /// Not cancel safe in effect: if dropped, any of the messages may have been published.
    ///
    /// # Errors
    /// Per message. `Disconnected` leads to a new connection, after which those messages are published again.
    async fn publish(&self, batch: &[Arc<Message>]) -> Vec<Result<(), Failure>>;

    /// Flushes and says good-bye.
    ///
    /// # Errors
    /// Only logged.
    async fn close(&self) -> Result<(), Failure> {
        Ok(())
    }
}
