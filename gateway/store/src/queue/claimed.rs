//! What a consumer is given, and what it says has become of it.

use std::time::Duration;

use sluicegate_engine::message::Message;

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
        /// At most 30 days; more is cut.
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
