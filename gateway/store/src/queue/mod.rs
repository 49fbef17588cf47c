//! Managed durable streams.
//!
//! A queue keeps every message until its retention removes it, whether or not somebody has read it. *Groups* read it, each
//! on its own: the consumers of a group share its messages, and each message is given to one of them until it is
//! settled. A message that was claimed and not settled comes again, as the next attempt: at least once.
//!
//! A message that cannot be opened (its key is not there, or it was changed) stops no group: it is logged, counted
//! (`sluicegate_queue_messages_unreadable_total`) and set aside. It stays in the queue as it is, pending, and is tried again
//! ten minutes later and whenever a consumer joins; should retention remove it first, it counts as lost.
//!
//! [`Queues`] manages queues and publishes, [`Consumer`] reads as part of a group, [`Keeper`] does what is due by itself:
//! scheduled messages, retention, expiry. Times are milliseconds since the Unix epoch.
//!
//! ```no_run
//! # async fn example(store: std::sync::Arc<sluicegate_store::Store>) -> Result<(), sluicegate_store::queue::QueueError> {
//! use sluicegate_engine::message::Message;
//! use sluicegate_store::queue::{Publication, Queues, Settings, Settle, Start};
//!
//! let queues = Queues::new(store);
//! queues.create("orders", &Settings::default()).await?;
//! queues.publish("orders", vec![Publication::new(Message::new("shop", "order.created", "{}"))]).await?;
//!
//! let consumer = queues.join("orders", "billing", Start::Earliest).await?;
//! for claimed in consumer.claim(10, 1 << 20).await? {
//!     consumer.settle(&[Settle::done(claimed.token)]).await?;
//! }
//! consumer.leave().await?;
//! # Ok(())
//! # }
//! ```

mod batch;
mod claimed;
mod claiming;
mod consumer;
mod error;
mod given_out;
mod group;
mod keeper;
mod listing;
mod message;
mod progress;
mod publishing;
mod queues;
mod removal;
mod room;
mod settings;
mod settling;
mod sql;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Once};
pub use claimed::{Claimed, Settle, Settlement};
pub use consumer::{Consumer, MAX_CLAIM_MESSAGES};
pub use error::QueueError;
pub use group::{Group, Position, Start};
pub use keeper::Keeper;
pub use listing::{MAX_PAGE_ITEMS, Page};
pub use message::{Listed, MAX_BATCH_MESSAGES, Publication, Published, State, Which};
pub use progress::{Pending, Progress};
pub use queues::{Queue, Queues};
pub use settings::{
    AtLimit, Compression, DEFAULT_MAX_MESSAGES, DEFAULT_PRIORITY, HIGHEST_PRIORITY, Kind, LARGEST_MESSAGE_BYTES,
    LONGEST_AGE, LONGEST_DELAY, MAX_GROUPS, MAX_NAME_CHARS, MAX_QUEUES, Retention, Settings, is_name,
};
