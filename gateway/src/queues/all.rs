//! All queues, whoever keeps each of them: the one place that knows which backend to ask.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use sluicegate_connectors::queue::Declarations;
use sluicegate_engine::message::Message;
use sluicegate_store::queue::{MAX_PAGE_ITEMS, Once, Progress, Publication, QueueError, Queues, Settings, Which};

use super::error::QueuesError;
use super::in_redis::RedisQueue;
use super::kept::{KeptBatch, KeptMessage, KeptPending, KeptQueue, Page, Place, WhichKept, page};

/// The queues of the store, and those that the configuration keeps in Redis. Cheap to clone.
#[derive(Clone)]
pub struct AllQueues {
    pub(super) store: Queues,
    declared: Arc<dyn Fn() -> Arc<Declarations> + Send + Sync>,
    /// Those in Redis that were asked for, with their connections.
    in_redis: Arc<Mutex<HashMap<String, Arc<RedisQueue>>>>,
}

impl fmt::Debug for AllQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllQueues").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Who keeps a queue, and how it is asked.
pub(super) enum Keeper {
    /// The store, which may have no such queue.
    Store,
    /// A Redis Stream.
    Redis(Arc<RedisQueue>),
}

impl AllQueues {
    /// Those of the store, and of the configuration in force, which `declared` gives.
    pub fn new(store: &Queues, declared: impl Fn() -> Arc<Declarations> + Send + Sync + 'static) -> Self {
        Self { store: store.clone(), declared: Arc::new(declared), in_redis: Arc::default() }
    }

    /// The store's alone.
    pub fn store(&self) -> &Queues {
        &self.store
    }

    pub(super) fn keeper(&self, queue: &str) -> Keeper {
        let declared = (self.declared)();
        let Some(declaration) = declared.get(queue).filter(|declaration| declaration.redis().is_some()) else {
            return Keeper::Store;
        };
        let mut known = self.in_redis.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(queue) {
            // A reload may have moved it.
            Some(found) if found.declaration == *declaration => Keeper::Redis(Arc::clone(found)),
            Some(_) | None => match RedisQueue::new(queue, declaration) {
                Some(new) => {
                    let new = Arc::new(new);
                    known.insert(queue.to_owned(), Arc::clone(&new));
                    Keeper::Redis(new)
                }
                None => Keeper::Store,
            },
        }
    }

    /// One queue.
    ///
    /// # Errors
    /// `NotFound`; its backend cannot be asked.
    pub async fn get(&self, queue: &str) -> Result<KeptQueue, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.get(queue).await?.into()),
            Keeper::Redis(redis) => redis.get().await,
        }
    }

    /// What one queue is like; asks nobody about what it holds.
    ///
    /// # Errors
    /// `NotFound`; the store's trouble.
    pub async fn settings(&self, queue: &str) -> Result<Settings, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.get(queue).await?.settings),
            Keeper::Redis(redis) => Ok(redis.settings()),
        }
    }

    /// Queues by name, those in Redis included even when they cannot be asked. `limit` is cut to 1 through
    /// [`MAX_PAGE_ITEMS`]; `after` is the [`Page::next`] of the page before.
    ///
    /// # Errors
    /// The store's trouble.
    pub async fn list(&self, limit: usize, after: Option<&str>) -> Result<Page<KeptQueue>, QueuesError> {
        let limit = limit.clamp(1, MAX_PAGE_ITEMS);
        let Page { items, next } = self.store.list(limit, after).await?;
        let stored_to = next.as_deref();
        let declared = (self.declared)();
        let in_redis = declared.iter().filter(|(name, declaration)| {
            let is_here = after.is_none_or(|after| name.as_str() > after);
            // What comes after the store's last one is on the next page.
            declaration.redis().is_some() && is_here && stored_to.is_none_or(|last| name.as_str() < last)
        });
        let in_redis: Vec<&str> = in_redis.map(|(name, _)| name.as_str()).take(limit + 1).collect();
        // One that was in the store before it was moved to Redis is not shown twice.
        let stored = items.into_iter().filter(|queue| !in_redis.contains(&queue.name.as_str())).map(KeptQueue::from);
        let mut names: Vec<(String, Option<KeptQueue>)> =
            stored.map(|queue| (queue.name.clone(), Some(queue))).collect();
        names.extend(in_redis.iter().map(|name| ((*name).to_owned(), None)));
        names.sort_by(|a, b| a.0.cmp(&b.0));
        let is_more = names.len() > limit;
        names.truncate(limit);
        let next = if is_more { names.last().map(|(name, _)| name.clone()) } else { next };
        let looks = names.into_iter().map(async |(name, stored)| match stored {
            Some(queue) => Some(queue),
            None => match self.keeper(&name) {
                Keeper::Redis(redis) => Some(redis.look().await),
                // A reload has just moved it to the store.
                Keeper::Store => None,
            },
        });
        Ok(Page { items: join_all(looks).await.into_iter().flatten().collect(), next })
    }

    /// Makes a queue in the store. One that exists with the same properties is that queue.
    ///
    /// # Errors
    /// `Exists` with other properties, also in Redis; `Invalid`, `TooMany`.
    pub async fn create(&self, queue: &str, settings: &Settings) -> Result<KeptQueue, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.create(queue, settings).await?.into()),
            Keeper::Redis(_) => Err(QueueError::Exists { queue: queue.to_owned() }.into()),
        }
    }

    /// Changes a queue's properties, if it still has the revision that was read.
    ///
    /// # Errors
    /// As [`Queues::update`]; `Unsupported` in Redis.
    pub async fn update(&self, queue: &str, revision: u64, settings: &Settings) -> Result<KeptQueue, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.update(queue, revision, settings).await?.into()),
            Keeper::Redis(redis) => Err(redis.unsupported("properties of its own", DECLARED_HINT)),
        }
    }

    /// Removes a queue with its messages and groups.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` in Redis.
    pub async fn delete(&self, queue: &str) -> Result<(), QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.delete(queue).await?),
            Keeper::Redis(redis) => Err(redis.unsupported("queues without their declaration", DECLARED_HINT)),
        }
    }

    /// Removes all messages, scheduled ones included, and says how many; groups stay, with nothing before them.
    ///
    /// # Errors
    /// `NotFound`; its backend cannot be asked.
    pub async fn purge(&self, queue: &str) -> Result<u64, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.purge(queue).await?),
            Keeper::Redis(redis) => redis.purge().await,
        }
    }

    /// Publishes all of a batch or nothing: in the store it is on the disk when this returns, in Redis it is as safe as
    /// Redis is set to keep it.
    ///
    /// # Errors
    /// As [`Queues::publish_all`]; `Unsupported` for priorities and delays in Redis.
    pub async fn publish_all(
        &self,
        queue: &str,
        publications: Vec<Publication>,
        once: Option<Once>,
    ) -> Result<KeptBatch, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.publish_all(queue, publications, once).await?.into()),
            Keeper::Redis(redis) => redis.publish_all(&publications, once).await,
        }
    }

    /// Messages that have their place, oldest first; the token of a page is the place of its last message.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when `after` is no page token.
    pub async fn messages(
        &self,
        queue: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Page<KeptMessage>, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(page(self.store.messages(queue, limit, after).await?)),
            Keeper::Redis(redis) => redis.messages(limit, after).await,
        }
    }

    /// Messages that wait for their time, the next first. None in Redis.
    ///
    /// # Errors
    /// As [`messages`](Self::messages).
    pub async fn scheduled(
        &self,
        queue: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Page<KeptMessage>, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(page(self.store.scheduled(queue, limit, after).await?)),
            Keeper::Redis(_) => Ok(Page { items: Vec::new(), next: None }),
        }
    }

    /// What groups have been given and have not settled.
    ///
    /// # Errors
    /// As [`messages`](Self::messages).
    pub async fn pending(
        &self,
        queue: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Page<KeptPending>, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(page(self.store.pending(queue, limit, after).await?)),
            Keeper::Redis(redis) => redis.pending(limit, after).await,
        }
    }

    /// A message, as it is kept.
    ///
    /// # Errors
    /// `NotFound`, `MessageNotFound`.
    pub async fn message(&self, queue: &str, which: WhichKept<'_>) -> Result<(KeptMessage, Message), QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => {
                let (listed, message) = self.store.message(queue, in_store(which)?).await?;
                Ok((listed.into(), message))
            }
            Keeper::Redis(redis) => redis.message_of(which).await,
        }
    }

    /// How far each group is with a message, by the group's name.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub async fn progress(&self, queue: &str, which: WhichKept<'_>) -> Result<Vec<(String, Progress)>, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.progress(queue, in_store(which)?).await?),
            Keeper::Redis(redis) => redis.progress(which).await,
        }
    }

    /// Takes back a message until a group has claimed it.
    ///
    /// # Errors
    /// `NotFound`, `MessageNotFound`, `Claimed`; `Unsupported` in Redis, which may give it out at the same moment.
    pub async fn cancel(&self, queue: &str, id: &str) -> Result<(), QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.cancel(queue, id).await?),
            Keeper::Redis(redis) => Err(redis.unsupported(
                "way to take back only what nobody has claimed",
                "to remove it whoever has it, add `force=true` (the command: --force)",
            )),
        }
    }

    /// Removes a message, whether or not it has been read.
    ///
    /// # Errors
    /// `NotFound`, `MessageNotFound`.
    pub async fn delete_message(&self, queue: &str, which: WhichKept<'_>) -> Result<(), QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.delete_message(queue, in_store(which)?).await?),
            Keeper::Redis(redis) => redis.delete_message(which).await,
        }
    }
}

const DECLARED_HINT: &str = "change or remove its declaration in the configuration, under `queues`";

fn in_store(which: WhichKept<'_>) -> Result<Which<'_>, QueuesError> {
    match which {
        WhichKept::Id(id) => Ok(Which::Id(id)),
        WhichKept::Place(place) => Ok(Which::Offset(offset("offset", place)?)),
    }
}

pub(super) fn offset(what: &str, place: Place) -> Result<u64, QueuesError> {
    match place {
        Place::Offset(offset) => Ok(offset),
        Place::Entry(id) => {
            let text = format!("`{id}` is the id of an entry in Redis; a queue of the store counts from 1");
            Err(QueueError::Invalid { what: what.to_owned(), text }.into())
        }
    }
}
