//! Receipts: what happened to a message, event by event, for whoever asks later. They are kept off the message's way: making
//! one costs the way little, and losing one loses no message.

use std::sync::Arc;
use std::time::Duration;

use crate::delivery::Settlement;
use crate::failure::{FailureClass, Reason};
use crate::inbox::Waypoint;
use crate::message::Message;

/// One stretch of a message's way: from where the pipeline took it to where it was delivered, given up or put down again.
/// A message that was parked has several.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The message as received.
    pub message: Arc<Message>,
    /// The pipeline.
    pub pipeline: Arc<str>,
    /// See [`DeadLetter::config_version`](crate::dead_letter::DeadLetter::config_version).
    pub config_version: Arc<str>,
    /// When the gateway received the message, milliseconds since the Unix epoch.
    pub received_at_ms: u64,
    /// When this stretch began.
    pub began_at_ms: u64,
    /// When it ended.
    pub ended_at_ms: u64,
    /// How it ended.
    pub settlement: Settlement,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What.
    pub what: Happening,
}

impl Event {
    /// Whether it is worth keeping whatever the sampling says: something failed, or the message waited.
    pub fn is_trouble(&self) -> bool {
        match self.what {
            Happening::Resumed { .. }
            | Happening::Failed { .. }
            | Happening::Parked { .. }
            | Happening::DeadLettered { .. } => true,
            Happening::Step { .. } | Happening::Delivered { .. } => false,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// The message went on after it had been parked.
    Resumed {
        /// Where.
        waypoint: Waypoint,
        /// With which attempt.
        attempt: u32,
    },
    /// A step took a message.
    Step {
        /// Its name.
        step: Arc<str>,
        /// The digest of its plugin, if it has one.
        plugin_digest: Option<Arc<str>>,
        /// What it did.
        result: StepResult,
    },
    /// An attempt failed.
    Failed {
        /// The step or target.
        place: Arc<str>,
        /// The attempt, from 1.
        attempt: u32,
        /// What went wrong.
        error: String,
        /// How long until the next attempt; `None` if there is none.
        retry_after: Option<Duration>,
    },
    /// It waits in the inbox.
    Parked {
        /// Where it will go on.
        waypoint: Waypoint,
        /// Not before this time; 0 when it waits for its target or for messages before it.
        until_ms: u64,
        /// Why.
        why: String,
    },
    /// A target confirmed it.
    Delivered {
        /// The target's name.
        target: Arc<str>,
    },
    /// It became a dead letter.
    DeadLettered {
        /// The dead letter's id.
        id: String,
        /// Its class.
        class: FailureClass,
        /// What went wrong.
        error: String,
    },
}

/// What a step did with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// Let it pass as it was.
    Passed,
    /// Changed it, or made several of it.
    Made {
        /// How many.
        messages: usize,
    },
    /// Dropped it.
    Dropped(Reason),
    /// Sent it to these targets.
    Routed(Vec<Arc<str>>),
}

/// Keeps receipts.
pub trait Receipts: Send + Sync {
    /// Whether the receipt of a message that is delivered or dropped without any failure is to be kept (sampling).
    fn samples(&self, message: &Message) -> bool;

    /// Takes a receipt. Never waits: one that does not fit is counted and lost.
    fn record(&self, receipt: Receipt);
}
