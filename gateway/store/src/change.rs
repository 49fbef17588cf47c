//! What writes: changes, applied by one writer in transactions they share.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::database::Connection;
use crate::error::StoreError;
use crate::leases::Owner;

/// Something to write, all of it or nothing, see [`Store::change`](crate::Store::change).
#[async_trait]
pub(crate) trait Change: Send + 'static {
    /// What the caller is told once it is durable. A refusal that is no failure of the store belongs here.
    type Output: Send + 'static;

    /// About how much it takes in memory and on the disk: what waits is limited, and so is a transaction.
    fn size_bytes(&self) -> usize;

    /// For error texts: "cannot DOING in PLACE".
    fn doing(&self) -> &'static str {
        "write"
    }

    /// Does it. Awaits nothing but the transaction: all other changes wait for it.
    ///
    /// May be called again after a transaction was rolled back, so it must not use up what it was given; what it has
    /// done before is undone then.
    ///
    /// # Errors
    /// Fails this change alone: others of the same transaction are tried again without it.
    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError>;

    /// Called once it is durable, before the caller is told, and also when he waits no more. Must not block.
    fn committed(&mut self, _output: &mut Self::Output) {}
}

/// The transaction a change is applied in: a [`Connection`] with something to say once it is committed.
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) topics: &'a mut BTreeSet<String>,
    pub(crate) owner: &'a Owner,
    pub(crate) claims: &'a mut bool,
}

impl Transaction<'_> {
    /// Wakes those who wait for `topic`, here and at other gateways, once this is committed.
    pub fn announce(&mut self, topic: impl Into<String>) {
        self.topics.insert(topic.into());
    }

    /// Under which name to claim rows. What it has claimed is released when this gateway is found dead; a transaction
    /// that has asked for it is committed only while the gateway is known to be alive.
    pub fn owner(&mut self) -> Owner {
        *self.claims = true;
        self.owner.clone()
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
    }
}

/// A change in the queue, of whatever type.
#[async_trait]
pub(crate) trait Pending: Send {
    fn size_bytes(&self) -> usize;
    fn doing(&self) -> &'static str;
    /// Keeps the output for [`answer`](Self::answer).
    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError>;
    /// Tells the caller.
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

/// A change and whom to tell.
pub(crate) struct Queued<C: Change> {
    pub change: C,
    pub output: Option<C::Output>,
    pub answer: oneshot::Sender<Result<C::Output, StoreError>>,
    /// Of the queue's bytes, given back once it is answered.
    pub room: OwnedSemaphorePermit,
}

#[async_trait]
impl<C: Change> Pending for Queued<C> {
    fn size_bytes(&self) -> usize {
        self.change.size_bytes()
    }

    fn doing(&self) -> &'static str {
        self.change.doing()
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        self.output = Some(self.change.apply(transaction).await?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        let Self { mut change, output, answer, room } = *self;
        let doing = change.doing();
        let mut result = result.and_then(|()| output.ok_or(StoreError::Closed { doing }));
        if let Ok(output) = &mut result {
            change.committed(output);
        }
        // First, so that whoever has his answer finds the room free.
        drop(room);
        if answer.send(result).is_err() {
            tracing::debug!(doing, "nobody waits for this change any more");
        }
    }
}
