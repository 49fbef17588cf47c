//! The queues of a store: making, changing, removing them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::error::QueueError;
use super::listing::{MAX_PAGE_ITEMS, Page};
use super::removal::{Purge, remove_deleted};
use super::settings::{MAX_QUEUES, Settings, check_name};
use super::sql::{Lock, QUEUE_COLUMNS, QueueRow, no_queue, queue_named, topic};
use crate::change::{Change, Transaction};
use crate::database::{Connection, Value};
use crate::error::StoreError;
use crate::reader::Question;
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
    /// Properties as they were last seen; whoever uses them finds out in his transaction whether they still hold.
    known: Arc<Mutex<HashMap<String, Arc<Known>>>>,
}

/// What publishing needs to know of a queue beforehand.
#[derive(Debug)]
pub(super) struct Known {
    pub queue_id: u64,
    pub revision: u64,
    pub settings: Settings,
}

/// Beyond so many, all are forgotten and looked up again.
const MAX_KNOWN: usize = 1_024;

impl Queues {
    /// Those of this store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, known: Arc::default() }
    }

    /// Makes a queue. One that exists with the same properties is that queue.
    ///
    /// # Errors
    /// `Exists` with other properties, `Invalid`, `TooMany`.
    pub async fn create(&self, name: &str, settings: &Settings) -> Result<Queue, QueueError> {
        check_name("queue", name)?;
        settings.check()?;
        let created = self.store.change(Create { name: name.to_owned(), settings: settings.clone() }).await??;
        if created {
            tracing::info!(queue = name, kind = settings.kind.name(), "created a queue");
        }
        self.get(name).await
    }

    /// One queue.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, name: &str) -> Result<Queue, QueueError> {
        self.store.ask(Get(name.to_owned())).await?.ok_or_else(|| no_queue(name))
    }

    /// Queues by name. `limit` is cut to 1 through [`MAX_PAGE_ITEMS`]; `after` is the [`Page::next`] of the page before.
    ///
    /// # Errors
    /// The store's trouble.
    pub async fn list(&self, limit: usize, after: Option<&str>) -> Result<Page<Queue>, QueueError> {
        let limit = limit.clamp(1, MAX_PAGE_ITEMS);
        Ok(self.store.ask(List { limit, after: after.unwrap_or_default().to_owned() }).await?)
    }

    /// Changes a queue's properties, if it still has the revision that was read.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`; `Invalid`, also for another kind.
    pub async fn update(&self, name: &str, revision: u64, settings: &Settings) -> Result<Queue, QueueError> {
        settings.check()?;
        self.store.change(Update { name: name.to_owned(), revision, settings: settings.clone() }).await??;
        self.get(name).await
    }

    /// Removes a queue with its messages and groups. Consumers find it gone at their next claim; what they hold they may
    /// settle.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, name: &str) -> Result<(), QueueError> {
        self.store.change(Delete(name.to_owned())).await??;
        tracing::info!(queue = name, "deleted a queue");
        // Whatever keeps this from its end: a keeper goes on with it.
        Ok(remove_deleted(&self.store).await?)
    }

    /// Removes all messages, scheduled ones included, and says how many; groups stay, with nothing pending. What is
    /// claimed is carried to its end. Messages that are published meanwhile stay.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn purge(&self, name: &str) -> Result<u64, QueueError> {
        let (mut purge, mut removed) = (Purge::new(name), 0);
        loop {
            let step = self.store.change(purge.clone()).await??;
            removed += step.removed;
            match step.next {
                Some(next) => purge = next,
                None => return Ok(removed),
            }
        }
    }

    /// A queue's properties, maybe of before.
    pub(super) async fn known(&self, name: &str) -> Result<Arc<Known>, QueueError> {
        let found = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        match found {
            Some(known) => Ok(known),
            None => self.look_up(name).await,
        }
    }

    /// A queue's properties as they are.
    pub(super) async fn look_up(&self, name: &str) -> Result<Arc<Known>, QueueError> {
        let row = self.store.ask(Find(name.to_owned())).await?;
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(QueueRow { queue_id, revision, settings, .. }) = row else {
            all.remove(name);
            return Err(no_queue(name));
        };
        let known = Arc::new(Known { queue_id, revision, settings });
        if all.len() >= MAX_KNOWN {
            all.clear();
        }
        all.insert(name.to_owned(), Arc::clone(&known));
        Ok(known)
    }
}

fn stored(settings: &Settings, connection: &Connection) -> Result<String, StoreError> {
    serde_json::to_string(settings).map_err(|error| connection.failed(format!("settings of a queue: {error}")))
}

struct Create {
    name: String,
    settings: Settings,
}

#[async_trait]
impl Change for Create {
    /// Whether it is new.
    type Output = Result<bool, QueueError>;

    fn size_bytes(&self) -> usize {
        1_024
    }

    fn doing(&self) -> &'static str {
        "create a queue"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let is_same = |found: &QueueRow| match found.settings == self.settings {
            true => Ok(false),
            false => Err(QueueError::Exists { queue: self.name.clone() }),
        };
        if let Some(found) = queue_named(transaction, &self.name, Lock::No).await? {
            return Ok(is_same(&found));
        }
        let count = transaction.query_first("SELECT count(*) FROM queues", &[]).await?;
        if count.map(|row| row.unsigned(0)).transpose()?.is_some_and(|count| count >= MAX_QUEUES) {
            return Ok(Err(QueueError::TooMany { what: "queues", limit: MAX_QUEUES }));
        }
        let sql = "INSERT INTO queues (name, is_deleted, settings, revision, created_at_ms, updated_at_ms, last_offset, \
                   last_published_ms, messages, bytes, scheduled, scheduled_bytes) \
                   VALUES ($1, 0, $2, 1, $3, $3, 0, 0, 0, 0, 0, 0) ON CONFLICT (name) DO NOTHING";
        let values =
            [self.name.as_str().into(), stored(&self.settings, transaction)?.into(), transaction.now_ms().into()];
        if transaction.execute(sql, &values).await? == 1 {
            return Ok(Ok(true));
        }
        // Another gateway was faster.
        match queue_named(transaction, &self.name, Lock::No).await? {
            Some(found) => Ok(is_same(&found)),
            None => Err(transaction.failed("a queue that exists cannot be found")),
        }
    }
}

struct Update {
    name: String,
    revision: u64,
    settings: Settings,
}

#[async_trait]
impl Change for Update {
    type Output = Result<(), QueueError>;

    fn size_bytes(&self) -> usize {
        1_024
    }

    fn doing(&self) -> &'static str {
        "update a queue"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let Some(found) = queue_named(transaction, &self.name, Lock::Wait).await? else {
            return Ok(Err(no_queue(&self.name)));
        };
        if found.revision != self.revision {
            return Ok(Err(QueueError::Conflict { queue: found.name, revision: found.revision }));
        }
        if found.settings.kind != self.settings.kind {
            let text = format!("a queue stays `{}`; make another one", found.settings.kind.name());
            return Ok(Err(QueueError::Invalid { what: "kind".to_owned(), text }));
        }
        let sql = "UPDATE queues SET settings = $2, revision = revision + 1, updated_at_ms = $3 WHERE queue_id = $1";
        let values = [found.queue_id.into(), stored(&self.settings, transaction)?.into(), transaction.now_ms().into()];
        transaction.execute(sql, &values).await?;
        Ok(Ok(()))
    }
}

/// Makes it disappear; its messages are removed afterwards, step by step.
struct Delete(String);

#[async_trait]
impl Change for Delete {
    type Output = Result<(), QueueError>;

    fn size_bytes(&self) -> usize {
        128
    }

    fn doing(&self) -> &'static str {
        "delete a queue"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let Some(found) = queue_named(transaction, &self.0, Lock::Wait).await? else {
            return Ok(Err(no_queue(&self.0)));
        };
        let id = [Value::from(found.queue_id)];
        // `#` is in no queue's name.
        let sql = "UPDATE queues SET is_deleted = 1, name = name || '#' || CAST(queue_id AS TEXT) WHERE queue_id = $1";
        transaction.execute(sql, &id).await?;
        for table in ["queue_claims", "queue_consumers"] {
            let sql = format!(
                "DELETE FROM {table} WHERE group_id IN (SELECT group_id FROM queue_groups WHERE queue_id = $1)"
            );
            transaction.execute(&sql, &id).await?;
        }
        transaction.execute("DELETE FROM queue_groups WHERE queue_id = $1", &id).await?;
        transaction.announce(topic(found.queue_id));
        Ok(Ok(()))
    }
}

/// Its properties and counts.
struct Find(String);

#[async_trait]
impl Question for Find {
    type Output = Option<QueueRow>;

    fn doing(&self) -> &'static str {
        "find a queue"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        queue_named(connection, &self.0, Lock::No).await
    }
}

const GROUP_COUNT: &str = "(SELECT count(*) FROM queue_groups AS g WHERE g.queue_id = queues.queue_id)";

struct Get(String);

#[async_trait]
impl Question for Get {
    type Output = Option<Queue>;

    fn doing(&self) -> &'static str {
        "find a queue"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let sql = format!("SELECT {QUEUE_COLUMNS}, {GROUP_COUNT} FROM queues WHERE name = $1 AND is_deleted = 0");
        connection.query_first(&sql, &[self.0.as_str().into()]).await?.as_ref().map(queue).transpose()
    }
}

struct List {
    limit: usize,
    after: String,
}

#[async_trait]
impl Question for List {
    type Output = Page<Queue>;

    fn doing(&self) -> &'static str {
        "list the queues"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let sql = format!(
            "SELECT {QUEUE_COLUMNS}, {GROUP_COUNT} FROM queues WHERE name > $1 AND is_deleted = 0 ORDER BY name LIMIT $2"
        );
        let values = [self.after.as_str().into(), (self.limit as u64 + 1).into()];
        let rows = connection.query(&sql, &values).await?;
        let items: Vec<Queue> = rows.iter().take(self.limit).map(queue).collect::<Result<_, _>>()?;
        let next = items.last().filter(|_| rows.len() > self.limit).map(|last| last.name.clone());
        Ok(Page { items, next })
    }
}

fn queue(row: &crate::database::Row) -> Result<Queue, StoreError> {
    let groups = row.unsigned(12)?;
    let found = QueueRow::read(row)?;
    Ok(Queue {
        name: found.name,
        settings: found.settings,
        revision: found.revision,
        created_at_ms: found.created_at_ms,
        updated_at_ms: found.updated_at_ms,
        messages: found.messages,
        bytes: found.bytes + found.scheduled_bytes,
        scheduled: found.scheduled,
        groups,
        last_offset: found.last_offset,
    })
}
