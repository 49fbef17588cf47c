//! A pipeline's inbox: the messages that the gateway itself keeps for it. What was accepted and has not been carried yet
//! (the spool), what waits for another attempt or for its time (parked), and what is to be redriven. It survives the
//! gateway.
//!
//! The inbox is a second source of its pipeline, driven like any other; what is new is that its messages may go on in the
//! middle of their way.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::dead_letter::Attempt;
use crate::failure::Failure;
use crate::lanes::Lanes;
use crate::message::Message;
use crate::source::Source;

/// Where on its way a message goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Waypoint {
    /// Before the first step.
    #[default]
    Start,
    /// At the step of this name; at the start, with the message as received, if there is no such step any more.
    Step(Arc<str>),
    /// At the publication to the target of this name; a dead letter if there is no such target any more.
    Target(Arc<str>),
}

impl Waypoint {
    /// The lane its messages wait in: empty, or the target's name. Messages of one lane wait for the same thing, so a
    /// target that is down holds up its own lane and no other.
    pub fn lane(&self) -> &str {
        match self {
            Self::Start | Self::Step(_) => "",
            Self::Target(name) => name,
        }
    }
}

/// How far a message had come when it was put into the inbox.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// Where it goes on.
    pub waypoint: Waypoint,
    /// The attempt that is made next at that place, from 1.
    pub attempt: u32,
    /// How often a connection was lost under it.
    pub disconnects: u32,
    /// What has failed so far, oldest first.
    pub attempts: Vec<Attempt>,
    /// When the gateway received it, milliseconds since the Unix epoch: `max_age` counts from here.
    pub received_at_ms: u64,
    /// The dead letter it comes from, if it is being redriven.
    pub redrive: Option<Redrive>,
}

/// A dead letter on its way again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// Its id. If the message fails again, the record keeps it.
    pub letter: Arc<str>,
    /// How often it has been redriven, this time included.
    pub count: u32,
}

/// A message in the inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As received: what a dead letter keeps.
    pub original: Arc<Message>,
    /// As it goes on; the same as `original` when no step had changed it.
    pub message: Arc<Message>,
    /// How far it has come.
    pub progress: Progress,
    /// Not to be delivered before, milliseconds since the Unix epoch; 0 for at once.
    pub not_before_ms: u64,
    /// Whether messages of its key that are put into the same lane later wait for it.
    pub ordered: bool,
}

/// Keeps the inbox of one pipeline.
///
/// Whoever puts a message in at [`Waypoint::Start`] sets `not_before_ms` to the message's own delivery time, if it has one.
///
/// Its source gives out ready messages of open [lanes](Lanes), the oldest first, with their [`Progress`]; of the ordered
/// messages of a lane with the same key only the first. It `postpones`: `Settlement::Postponed` comes with the
/// entry's new content in [`Outcome::parked`](crate::delivery::Outcome::parked), which replaces the old in place.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// The source to read it with.
    fn source(&self, lanes: Lanes) -> Box<dyn Source>;

    /// Puts a message in; durable when it returns `Ok`. If the call is dropped before, the message may or may not be in.
    ///
    /// # Errors
    /// The message is not in; it stays in flight.
    async fn park(&self, entry: Entry) -> Result<(), Failure>;

    /// Lane and key of every ordered message that is in, one entry a message; asked once, before the pipeline starts.
    ///
    /// # Errors
    /// Tried again until it succeeds.
    async fn ordered_keys(&self) -> Result<Vec<(String, Bytes)>, Failure>;
}
