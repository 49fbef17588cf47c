//! Queues, groups and messages as both backends have them.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};
use sluicegate_connectors::redis::EntryId;
use sluicegate_store::queue::{self, Progress, Settings};

pub use sluicegate_store::queue::Page;

/// Who keeps a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The gateway's store.
    Store,
    /// A Redis Stream.
    Redis,
}

impl Backend {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Redis => "redis",
        }
    }
}

/// Where a message stands in its queue: a number in the store, an entry id in Redis. Written as a number or as a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// From 1.
    Offset(u64),
    /// Such as `1700000000000-0`.
    Entry(EntryId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset(offset) => offset.fmt(f),
            Self::Entry(id) => id.fmt(f),
        }
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().map(Self::Offset).or_else(|_| text.parse().map(Self::Entry))
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Offset(offset) => serializer.serialize_u64(*offset),
            Self::Entry(id) => serializer.collect_str(id),
        }
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Place;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an offset, or the id of an entry such as `1700000000000-0`")
            }

            fn visit_u64<E: Error>(self, offset: u64) -> Result<Place, E> {
                Ok(Place::Offset(offset))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Place, E> {
                text.parse().map_err(|()| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

/// A queue, as it was when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptQueue {
    /// Its name.
    pub name: String,
    /// Who keeps it.
    pub backend: Backend,
    /// Its properties; of a queue in Redis those that Redis can have count.
    pub settings: Settings,
    /// 1 at first, one more with each update; only the store counts them.
    pub revision: Option<u64>,
    /// When it was created, if the backend knows.
    pub created_at_ms: Option<u64>,
    /// When its properties were last changed, if the backend knows.
    pub updated_at_ms: Option<u64>,
    /// Messages that have their place.
    pub messages: u64,
    /// What they take, as stored; in Redis about, if it tells.
    pub bytes: Option<u64>,
    /// Messages that wait for their time.
    pub scheduled: u64,
    /// How many groups read it.
    pub groups: u64,
    /// Place of the newest message there ever was.
    pub last_place: Option<Place>,
    /// Why nothing is known of what it holds: its backend cannot be asked.
    pub unavailable: Option<String>,
}

/// A group, as it was when it was asked for. `None` is what the backend does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptGroup {
    /// The queue it reads.
    pub queue: String,
    /// Who keeps that.
    pub backend: Backend,
    /// Its name.
    pub name: String,
    /// Whether it gets nothing until it is resumed.
    pub paused: bool,
    /// Messages it has not been given yet.
    pub lag: Option<u64>,
    /// Messages it has been given and has not settled.
    pub pending: u64,
    /// Consumers that have joined and not left.
    pub consumers: u64,
    /// Messages that retention removed before the group had settled them.
    pub lost: Option<u64>,
    /// Messages that expired before the group was given them.
    pub expired: Option<u64>,
    /// When it was created.
    pub created_at_ms: Option<u64>,
    /// When it last claimed or settled something, or was created.
    pub last_activity_ms: Option<u64>,
}

/// Whether a message can be given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptState {
    /// It has its place.
    Stored {
        /// Which.
        place: Place,
        /// Since when.
        published_at_ms: u64,
    },
    /// It waits for its time.
    Scheduled {
        /// Until when.
        deliver_at_ms: u64,
    },
}

/// What a list shows of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMessage {
    /// The message's id.
    pub id: String,
    /// Whether it can be given out.
    pub state: KeptState,
    /// 0 to 9, where queues have priorities.
    pub priority: Option<u8>,
    /// The message's key.
    pub key: Option<Bytes>,
    /// When it is not given out any more.
    pub expires_at_ms: Option<u64>,
    /// Body, attributes and headers, before compression.
    pub size_bytes: u64,
}

/// A message that a group has been given and has not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPending {
    /// The group.
    pub group: String,
    /// `Claimed` or `Retrying`.
    pub progress: Progress,
    /// The message.
    pub message: KeptMessage,
}

/// A message that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPublished {
    /// The message's id.
    pub id: String,
    /// Its place in the queue; `None` while it is scheduled.
    pub place: Option<Place>,
    /// When it gets its place, if it is scheduled.
    pub deliver_at_ms: Option<u64>,
}

/// A batch that was published whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBatch {
    /// One for each message, in order.
    pub published: Vec<KeptPublished>,
    /// Whether it was published before, by a request with the same key; nothing was published now.
    pub repeated: bool,
}

/// Which message is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichKept<'a> {
    /// The newest with this id.
    Id(&'a str),
    /// The one at this place.
    Place(Place),
}

/// Where a group is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptPosition {
    /// With the oldest message there is.
    Earliest,
    /// With what is published from now on.
    Latest,
    /// With the message at this place, or the next there is.
    Place(Place),
    /// With the first message published at this time or later, milliseconds since the Unix epoch.
    Time(u64),
}

impl From<queue::Queue> for KeptQueue {
    fn from(queue: queue::Queue) -> Self {
        Self {
            name: queue.name,
            backend: Backend::Store,
            settings: queue.settings,
            revision: Some(queue.revision),
            created_at_ms: Some(queue.created_at_ms),
            updated_at_ms: Some(queue.updated_at_ms),
            messages: queue.messages,
            bytes: Some(queue.bytes),
            scheduled: queue.scheduled,
            groups: queue.groups,
            last_place: Some(Place::Offset(queue.last_offset)),
            unavailable: None,
        }
    }
}

impl From<queue::Group> for KeptGroup {
    fn from(group: queue::Group) -> Self {
        Self {
            queue: group.queue,
            backend: Backend::Store,
            name: group.name,
            paused: group.paused,
            lag: Some(group.lag),
            pending: group.pending,
            consumers: group.consumers,
            lost: Some(group.lost),
            expired: Some(group.expired),
            created_at_ms: Some(group.created_at_ms),
            last_activity_ms: Some(group.last_activity_ms),
        }
    }
}

impl From<queue::Listed> for KeptMessage {
    fn from(listed: queue::Listed) -> Self {
        let state = match listed.state {
            queue::State::Stored { offset, published_at_ms } => {
                KeptState::Stored { place: Place::Offset(offset), published_at_ms }
            }
            queue::State::Scheduled { deliver_at_ms } => KeptState::Scheduled { deliver_at_ms },
        };
        Self {
            id: listed.id,
            state,
            priority: Some(listed.priority),
            key: listed.key,
            expires_at_ms: listed.expires_at_ms,
            size_bytes: listed.size_bytes,
        }
    }
}

impl From<queue::Pending> for KeptPending {
    fn from(pending: queue::Pending) -> Self {
        Self { group: pending.group, progress: pending.progress, message: pending.message.into() }
    }
}

impl From<queue::Batch> for KeptBatch {
    fn from(batch: queue::Batch) -> Self {
        let published = |one: queue::Published| KeptPublished {
            id: one.id,
            place: one.offset.map(Place::Offset),
            deliver_at_ms: one.deliver_at_ms,
        };
        Self { published: batch.published.into_iter().map(published).collect(), repeated: batch.repeated }
    }
}

/// A page of one kind as a page of another.
pub(super) fn page<T, U: From<T>>(page: Page<T>) -> Page<U> {
    Page { items: page.items.into_iter().map(U::from).collect(), next: page.next }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let entry = Place::Entry(EntryId { millis: 1_700_000_000_000, sequence: 7 });
        for (place, written) in [(Place::Offset(5), json!(5)), (entry, json!("1700000000000-7"))] {
            assert_eq!(json!(place), written);
            assert_eq!(serde_json::from_value::<Place>(written).expect("a place"), place);
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for wrong in [json!(-1), json!("x"), json!("1-"), json!(1.5), json!(null)] {
            assert!(serde_json::from_value::<Place>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
