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

    /// The way of a message of which [`was_delivered`](Self::was_delivered) said no is over, or is interrupted, whatever
    /// became of it; after `remember`, if that is called. Called once for each such answer.
    fn ended(&self, message: &Message);
}

/// Tells of the end of a message's way, also when its task is dropped.
pub(crate) struct Underway<'a> {
    deduplication: &'a dyn Deduplication,
    message: &'a Message,
}

impl<'a> Underway<'a> {
    pub fn new(deduplication: &'a dyn Deduplication, message: &'a Message) -> Self {
        Self { deduplication, message }
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.deduplication.ended(self.message);
    }
}
