//! Groups: who has read how far.

use super::consumer::Consumer;
use super::error::QueueError;
use super::queues::Queues;

/// A group, as it was when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The queue it reads.
    pub queue: String,
    /// Its name.
    pub name: String,
    /// Whether it gets nothing until it is resumed.
    pub paused: bool,
    /// Messages it has not been given yet.
    pub lag: u64,
    /// Messages it has been given and has not settled, those included that are to come again.
    pub pending: u64,
    /// Consumers that have joined and not left, of all gateways.
    pub consumers: u64,
    /// Messages that retention removed before the group had settled them.
    pub lost: u64,
    /// Messages that expired before the group was given them.
    pub expired: u64,
    /// When it was created.
    pub created_at_ms: u64,
    /// When it last claimed or settled something, or was created.
    pub last_activity_ms: u64,
}

/// Where a group begins that is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the oldest message there is.
    #[default]
    Earliest,
    /// With what is published from now on.
    Latest,
}

/// Where a group is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// With the oldest message there is.
    Earliest,
    /// With what is published from now on.
    Latest,
    /// With the message at this place, from 1.
    Offset(u64),
    /// With the first message published at this time or later, milliseconds since the Unix epoch.
    Time(u64),
}

impl Queues {
    /// Makes a group, and says whether it is new. One that exists stays where it is.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `TooMany`.
    pub async fn create_group(&self, queue: &str, group: &str, start: Start) -> Result<bool, QueueError> {
        let _ = (queue, group, start);
        unimplemented!()
    }

    /// The groups of a queue, by name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn groups(&self, queue: &str) -> Result<Vec<Group>, QueueError> {
        let _ = queue;
        unimplemented!()
    }

    /// One group.
    ///
    /// # Errors
    /// `NotFound`, `GroupNotFound`.
    pub async fn group(&self, queue: &str, group: &str) -> Result<Group, QueueError> {
        let _ = (queue, group);
        unimplemented!()
    }

    /// Gives the group nothing any more, on any gateway. What it holds it may settle.
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn pause(&self, queue: &str, group: &str) -> Result<(), QueueError> {
        let _ = (queue, group);
        unimplemented!()
    }

    /// Goes on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn resume(&self, queue: &str, group: &str) -> Result<(), QueueError> {
        let _ = (queue, group);
        unimplemented!()
    }

    /// Lets the group go on from another place. What it holds counts as settled.
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn reset(&self, queue: &str, group: &str, position: Position) -> Result<(), QueueError> {
        let _ = (queue, group, position);
        unimplemented!()
    }

    /// Removes a group. A consumer that claims again finds it gone.
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn delete_group(&self, queue: &str, group: &str) -> Result<(), QueueError> {
        let _ = (queue, group);
        unimplemented!()
    }

    /// Joins a group as a new consumer, and makes the group where it is missing.
    ///
    /// # Errors
    /// As [`create_group`](Self::create_group).
    pub async fn join(&self, queue: &str, group: &str, start: Start) -> Result<Consumer, QueueError> {
        let _ = (queue, group, start);
        unimplemented!()
    }
}
