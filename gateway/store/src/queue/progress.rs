//! How far groups are with single messages.

use super::error::QueueError;
use super::listing::Page;
use super::message::{Listed, Which};
use super::queues::Queues;

/// How far a group is with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It has not been given it yet.
    Waiting,
    /// A consumer has it.
    Claimed {
        /// Which attempt it is.
        attempt: u32,
    },
    /// It is to come again.
    Retrying {
        /// How often it has been given out.
        attempt: u32,
        /// Not before this time.
        not_before_ms: u64,
    },
    /// The group is through with it.
    Done,
}

/// A message that a group has been given and has not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The group.
    pub group: String,
    /// `Claimed` or `Retrying`.
    pub progress: Progress,
    /// The message.
    pub message: Listed,
}

impl Queues {
    /// How far each group of the queue is with a message, by the group's name. Empty for a scheduled one.
    ///
    /// # Errors
    /// `NotFound`, `MessageNotFound`.
    pub async fn progress(&self, queue: &str, which: Which<'_>) -> Result<Vec<(String, Progress)>, QueueError> {
        let _ = (queue, which);
        unimplemented!()
    }

    /// What groups have been given and have not settled, by offset and group; otherwise as
    /// [`messages`](Self::messages).
    ///
    /// # Errors
    /// As [`messages`](Self::messages).
    pub async fn pending(&self, queue: &str, limit: usize, after: Option<&str>) -> Result<Page<Pending>, QueueError> {
        let _ = (queue, limit, after);
        unimplemented!()
    }
}
