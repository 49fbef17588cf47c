//! The queues of a store: making, changing, removing them.

use std::sync::Arc;

use super::error::QueueError;
use super::listing::Page;
use super::settings::Settings;
use crate::store::Store;

/// A queue, as it was when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its properties.
    pub settings: Settings,
    /// 1 at first, one more with each update.
    pub revision: u64,
    /// When it was created.
    pub created_at_ms: u64,
    /// When its properties were last changed.
    pub updated_at_ms: u64,
    /// Messages that have their place.
    pub messages: u64,
    /// Their size, and that of the scheduled ones, as stored.
    pub bytes: u64,
    /// Messages that wait for their time.
    pub scheduled: u64,
    /// How many groups read it.
    pub groups: u64,
    /// Offset of the newest message there ever was; 0 before the first.
    pub last_offset: u64,
}

/// The queues of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queues {
    pub(super) store: Arc<Store>,
}

impl Queues {
    /// Those of this store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Makes a queue. One that exists with the same properties is that queue.
    ///
    /// # Errors
    /// `Exists` with other properties, `Invalid`, `TooMany`.
    pub async fn create(&self, name: &str, settings: &Settings) -> Result<Queue, QueueError> {
        let _ = (&self.store, name, settings);
        unimplemented!()
    }

    /// One queue.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, name: &str) -> Result<Queue, QueueError> {
        let _ = name;
        unimplemented!()
    }

    /// Queues by name. `limit` is cut to 1 through [`MAX_PAGE_ITEMS`](super::MAX_PAGE_ITEMS); `after` is the
    /// [`Page::next`] of the page before.
    ///
    /// # Errors
    /// The store's trouble.
    pub async fn list(&self, limit: usize, after: Option<&str>) -> Result<Page<Queue>, QueueError> {
        let _ = (limit, after);
        unimplemented!()
    }

    /// Changes a queue's properties, if it still has the revision that was read.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`; `Invalid`, also for another kind.
    pub async fn update(&self, name: &str, revision: u64, settings: &Settings) -> Result<Queue, QueueError> {
        let _ = (name, revision, settings);
        unimplemented!()
    }

    /// Removes a queue with its messages and groups. Consumers find it gone at their next claim; what they hold they may
    /// settle.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, name: &str) -> Result<(), QueueError> {
        let _ = name;
        unimplemented!()
    }

    /// Removes all messages, scheduled ones included, and says how many; groups stay, with nothing pending. What is
    /// claimed is carried to its end. Messages that are published meanwhile stay.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn purge(&self, name: &str) -> Result<u64, QueueError> {
        let _ = name;
        unimplemented!()
    }
}
