//! Deduplication: a message whose source and id were delivered before is dropped.

use async_trait::async_trait;

use crate::failure::Failure;
use crate::message::Message;

/// Remembers what was delivered. CloudEvents 1.0, section 3.1.1: source and id together identify an event.
#[async_trait]
pub trait Deduplication: Send + Sync {
    /// Whether a message with this source and id was delivered within the window. Cancel safe.
    ///
    /// # Errors
    /// The answer cannot be had now; the message is tried again.
    async fn was_delivered(&self, message: &Message) -> Result<bool, Failure>;

    /// Remembers that `message` was delivered. Called only after its targets have confirmed.
    ///
    /// # Errors
    /// It is not remembered, so a repetition would be delivered again. Only logged.
    async fn remember(&self, message: &Message) -> Result<(), Failure>;
}
