//! Receipts as they are kept and asked for: what happened to a message, one [`Stretch`] at a time. [`StoreReceipts`] keeps
//! them off the messages' way; a [`Reader`](crate::Reader) answers what is asked.

mod keeper;
mod kept;
mod read;
mod store_receipts;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::receipt::Event;

pub use kept::{MAX_EVENTS, MAX_TEXT_CHARS};
pub use store_receipts::{ReceiptSettings, StoreReceipts};

/// Most receipts on one page.
pub const MAX_PAGE_RECEIPTS: usize = 1_000;

/// Most stretches of one message that [`Reader::trail`](crate::Reader::trail) shows: the latest.
pub const MAX_STRETCHES: usize = 1_000;

/// How a stretch of a message's way ended: the name of a [`Settlement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// Every target confirmed.
    Delivered,
    /// A step dropped it on purpose.
    Dropped,
    /// The inbox holds it, or a part of it.
    Parked,
    /// A dead letter holds it.
    DeadLettered,
    /// Its source, or the inbox, delivers it again later.
    Postponed,
    /// It was given back to its source.
    Requeued,
}

impl Ending {
    /// Every ending.
    pub const ALL: [Self; 6] =
        [Self::Delivered, Self::Dropped, Self::Parked, Self::DeadLettered, Self::Postponed, Self::Requeued];

    /// The name used in records and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
            Self::Parked => "parked",
            Self::DeadLettered => "dead_lettered",
            Self::Postponed => "postponed",
            Self::Requeued => "requeued",
        }
    }

    /// The ending of that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.name() == name)
    }
}

impl From<Settlement> for Ending {
    fn from(settlement: Settlement) -> Self {
        match settlement {
            Settlement::Delivered => Self::Delivered,
            Settlement::Dropped => Self::Dropped,
            Settlement::Parked => Self::Parked,
            Settlement::DeadLettered => Self::DeadLettered,
            Settlement::Postponed { .. } => Self::Postponed,
            Settlement::Requeued => Self::Requeued,
        }
    }
}

/// A stretch of a message's way, without what happened on it. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The message's id.
    pub message_id: String,
    /// Its CloudEvents source.
    pub source: String,
    /// Its CloudEvents type.
    pub kind: String,
    /// What it answers or belongs to.
    pub correlation_id: Option<String>,
    /// Its ordering key.
    pub key: Option<Bytes>,
    /// The W3C trace id, if it had one.
    pub trace_id: Option<String>,
    /// Length of the body as received; nothing else is kept of it.
    pub body_bytes: u64,
    /// The pipeline.
    pub pipeline: String,
    /// The version of the configuration.
    pub config_version: String,
    /// How the stretch ended.
    pub ending: Ending,
    /// How many attempts failed on it.
    pub failures: u64,
    /// When the gateway received the message.
    pub received_at_ms: u64,
    /// When the stretch began.
    pub began_at_ms: u64,
    /// When it ended.
    pub ended_at_ms: u64,
}

/// A stretch of a message's way.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// Whose, where and when.
    pub summary: Summary,
    /// What happened, in order; texts are cut after [`MAX_TEXT_CHARS`].
    pub events: Vec<Event>,
    /// How many are missing in the middle: a receipt has at most [`MAX_EVENTS`].
    pub events_left_out: u64,
}

/// All that is known of the messages of one id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trail {
    /// In the order they began.
    pub stretches: Vec<Stretch>,
    /// Whether there were more than [`MAX_STRETCHES`], so that the first ones are missing.
    pub is_cut: bool,
}

/// Which receipts are wanted: those that match everything that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of messages with this correlation id.
    pub correlation_id: Option<String>,
    /// Of messages with this key.
    pub key: Option<Bytes>,
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// Which ended so.
    pub ending: Option<Ending>,
    /// On which an attempt failed, or which ended in a dead letter.
    pub failed: bool,
    /// Which began at this time or later, milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Which began before this time, milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
}

/// Some receipts, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// At most as many as were asked for.
    pub receipts: Vec<Summary>,
    /// Gets the next page, when there is more.
    pub next: Option<String>,
}

/// How many receipts of one pipeline ended in one way. With sampling these are no counts of messages; the metrics are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The pipeline.
    pub pipeline: String,
    /// The ending.
    pub ending: Ending,
    /// How many.
    pub receipts: u64,
    /// How many attempts failed on them.
    pub failures: u64,
}
