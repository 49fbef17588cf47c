//! A member of a group: claims messages and settles them.

use std::time::Duration;

use sluicegate_engine::message::Message;

use super::error::QueueError;

/// Most messages of one claim.
pub const MAX_CLAIM_MESSAGES: usize = 1_000;

/// A message that is this consumer's to carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The message; its `attempt` counts how often it has been given out.
    pub message: Message,
    /// Settles it.
    pub token: u128,
    /// Its place in the queue.
    pub offset: u64,
}

/// What has become of a claimed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The group is through with it.
    Done,
    /// It is to come again, after this time, as the next attempt.
    Release {
        /// At most 30 days.
        after: Duration,
    },
}

/// A claimed message and what has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settle {
    /// The [`Claimed::token`].
    pub token: u128,
    /// What has become of it.
    pub settlement: Settlement,
}

impl Settle {
    /// The group is through with it.
    pub fn done(token: u128) -> Self {
        Self { token, settlement: Settlement::Done }
    }

    /// It is to come again, after this time.
    pub fn release(token: u128, after: Duration) -> Self {
        Self { token, settlement: Settlement::Release { after } }
    }
}

/// A member of a group. Dropping it without [`leave`](Self::leave) gives back what it holds a little later.
#[derive(Debug)]
pub struct Consumer {}

impl Consumer {
    /// Waits until there are messages and claims at most `max` of them (cut to 1 through [`MAX_CLAIM_MESSAGES`]): no
    /// more than `max_bytes` together, but at least one.
    ///
    /// Cancel safe: what was claimed for a call that was dropped is what the next call returns.
    ///
    /// # Errors
    /// `NotFound`, `GroupNotFound`: the queue or group was deleted.
    pub async fn claim(&self, max: usize, max_bytes: u64) -> Result<Vec<Claimed>, QueueError> {
        let _ = (max, max_bytes);
        unimplemented!()
    }

    /// Settles claimed messages; durable when it returns. Settling twice, or what a reset has settled, does nothing.
    ///
    /// # Errors
    /// The store's trouble; nothing is settled then, and settling again is right.
    pub async fn settle(&self, batch: &[Settle]) -> Result<(), QueueError> {
        let _ = batch;
        unimplemented!()
    }

    /// Leaves the group and gives back, at once, what was claimed and is not settled.
    ///
    /// # Errors
    /// The store's trouble; it is given back once this gateway is known to be gone.
    pub async fn leave(&self) -> Result<(), QueueError> {
        unimplemented!()
    }
}
