//! The one who writes. Changes that arrive while a transaction is being synced to the disk wait together for the next
//! one: many concurrent changes cost one fsync (group commit), a lone change waits for nobody.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::change::{Change, Pending, Queued, Transaction};
use crate::database::{Backend, CHANNEL, Connection, Database, Value};
use crate::error::StoreError;
use crate::leases::{self, Owner};
use crate::signals::Signals;

/// Changes that may wait; further callers wait for room.
const MAX_QUEUED_CHANGES: usize = 1_024;
/// Bytes that may wait; a larger change waits until it is alone.
const MAX_QUEUED_BYTES: usize = 64 << 20;
/// Most changes of one transaction.
const MAX_BATCH_CHANGES: usize = 256;
/// A transaction is committed once it has this much, whatever waits.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// How often a transaction that conflicts with another gateway's is tried.
const MAX_CONFLICTS: u32 = 8;
/// After the first connection that failed, then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Where changes are handed in.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    changes: mpsc::Sender<Box<dyn Pending>>,
    room: Arc<Semaphore>,
}

impl Queue {
    /// Waits for room, then for its end.
    pub async fn change<C: Change>(&self, change: C) -> Result<C::Output, StoreError> {
        let doing = change.doing();
        let closed = || StoreError::Closed { doing };
        let bytes = change.size_bytes().clamp(1, MAX_QUEUED_BYTES);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let queued = Queued { change, output: None, answer, room };
        self.changes.send(Box::new(queued)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Hands a change in and does not wait for its end; `false` if there is no room for it now.
    pub fn submit<C: Change>(&self, change: C) -> bool {
        let permits = u32::try_from(change.size_bytes().clamp(1, MAX_QUEUED_BYTES)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(permits) else { return false };
        let queued = Queued { change, output: None, answer: oneshot::channel().0, room };
        self.changes.try_send(Box::new(queued)).is_ok()
    }

    #[cfg(test)]
    pub fn room_bytes(&self) -> usize {
        self.room.available_permits()
    }
}

pub(crate) struct Writer {
    database: Database,
    /// `None` after a failure: the next transaction begins on a new connection, so that nothing of a broken one remains.
    connection: Option<Connection>,
    queue: mpsc::Receiver<Box<dyn Pending>>,
    stop: Arc<Notify>,
    signals: Arc<Signals>,
    owner: Arc<Mutex<Owner>>,
    backoff: Backoff,
}

impl Writer {
    pub fn new(
        database: Database,
        connection: Connection,
        owner: Arc<Mutex<Owner>>,
        signals: Arc<Signals>,
        stop: Arc<Notify>,
    ) -> (Self, Queue) {
        let (changes, queue) = mpsc::channel(MAX_QUEUED_CHANGES);
        let connection = Some(connection);
        let writer = Self { database, connection, queue, stop, signals, owner, backoff: Backoff::default() };
        (writer, Queue { changes, room: Arc::new(Semaphore::new(MAX_QUEUED_BYTES)) })
    }

    /// Writes until it is told to stop and the queue is empty, or until nobody can send any more.
    pub async fn run(mut self) {
        let mut waiting = Vec::with_capacity(MAX_BATCH_CHANGES);
        loop {
            tokio::select! {
                // Not again after the first time: from then on the closed queue ends the loop.
                () = self.stop.notified(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
                received = self.queue.recv_many(&mut waiting, MAX_BATCH_CHANGES) => {
                    if received == 0 {
                        break;
                    }
                }
            }
            while !waiting.is_empty() {
                let rest = waiting.split_off(batch_length(waiting.iter().map(|change| change.size_bytes())));
                let batch = std::mem::replace(&mut waiting, rest);
                self.write(batch).await;
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(store = %self.database.place(), %error, "the store was not closed cleanly; nothing is lost");
        }
    }

    /// Writes a batch and answers everyone in it. When it fails for what one of them asked, each is tried alone.
    async fn write(&mut self, mut batch: Vec<Box<dyn Pending>>) {
        let error = match self.commit_again(&mut batch).await {
            Ok(()) => return batch.into_iter().for_each(|change| change.answer(Ok(()))),
            Err(error) => error,
        };
        if batch.len() == 1 || error.concerns_everyone() {
            self.fail(batch, &error);
        } else {
            let mut alone = batch.into_iter();
            while let Some(change) = alone.next() {
                let mut change = [change];
                match self.commit_again(&mut change).await {
                    Ok(()) => change.into_iter().for_each(|change| change.answer(Ok(()))),
                    Err(error) if error.concerns_everyone() => {
                        self.fail(change.into_iter().chain(alone.by_ref()), &error);
                    }
                    Err(error) => self.fail(change, &error),
                }
            }
        }
        self.connection = None;
    }

    fn fail(&self, changes: impl IntoIterator<Item = Box<dyn Pending>>, error: &StoreError) {
        let mut count = 0_usize;
        for change in changes {
            change.answer(Err(error.clone()));
            count += 1;
        }
        tracing::warn!(store = %self.database.place(), changes = count, %error, "changes not written");
    }

    /// Commits, again after conflicts with other gateways.
    async fn commit_again(&mut self, batch: &mut [Box<dyn Pending>]) -> Result<(), StoreError> {
        let mut conflicts = 0;
        loop {
            match self.commit(batch).await {
                Err(StoreError::Conflict { .. }) if conflicts < MAX_CONFLICTS => conflicts += 1,
                done => return done,
            }
        }
    }

    /// All of the batch or none of it, on the disk when it returns; then tells those who wait for its topics.
    async fn commit(&mut self, batch: &mut [Box<dyn Pending>]) -> Result<(), StoreError> {
        let mut connection = match self.connection.take().filter(|connection| !connection.is_broken()) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match transact(&mut connection, batch, &owner).await {
            Ok(Committed::Yes(topics)) => {
                self.connection = Some(connection);
                for topic in topics {
                    self.signals.bump(&topic);
                }
                Ok(())
            }
            Ok(Committed::OwnerIsGone) => {
                connection.roll_back().await?;
                let (place, doing) = (self.database.place().clone(), "renew this gateway's lease");
                let renewed = leases::renew(&mut connection, &owner).await?;
                tracing::warn!(
                    store = %place, old = owner.as_str(), new = renewed.as_str(),
                    "this gateway was paused for longer than its lease; what it had claimed is released"
                );
                *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = renewed;
                self.connection = Some(connection);
                Err(StoreError::Conflict { place, doing })
            }
            Err(error) => {
                // Unless it can be rolled back, the connection is dropped, and with it the transaction.
                if connection.is_broken() || connection.roll_back().await.is_err() {
                    return Err(error);
                }
                self.connection = Some(connection);
                Err(error)
            }
        }
    }

    async fn connect(&mut self) -> Result<Connection, StoreError> {
        if self.database.backend() == Backend::Postgres {
            self.backoff.wait().await;
        }
        let connected = self.database.connect_writing().await;
        match &connected {
            Ok(_) => self.backoff.succeeded(),
            Err(_) => self.backoff.failed(),
        }
        connected
    }
}

enum Committed {
    Yes(BTreeSet<String>),
    /// Not committed: it claims in the name of a gateway that has been found dead.
    OwnerIsGone,
}

async fn transact(
    connection: &mut Connection,
    batch: &mut [Box<dyn Pending>],
    owner: &Owner,
) -> Result<Committed, StoreError> {
    let (mut topics, mut claims) = (BTreeSet::new(), false);
    connection.set_doing(batch.first().map_or("write", |change| change.doing()));
    connection.begin().await?;
    for change in &mut *batch {
        connection.set_doing(change.doing());
        let mut transaction =
            Transaction { connection: &mut *connection, topics: &mut topics, owner, claims: &mut claims };
        change.apply(&mut transaction).await?;
    }
    if claims && !leases::is_alive(connection, owner).await? {
        return Ok(Committed::OwnerIsGone);
    }
    if connection.backend() == Backend::Postgres {
        for topic in &topics {
            let arguments = [Value::from(CHANNEL), Value::from(topic)];
            connection.query("SELECT pg_notify($1, $2)", &arguments).await?;
        }
    }
    connection.commit().await?;
    Ok(Committed::Yes(topics))
}

/// How many of the first changes make one transaction: at least one, however large.
fn batch_length(sizes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0_usize;
    let fits = |size: &usize| {
        bytes = bytes.saturating_add(*size);
        bytes <= MAX_BATCH_BYTES
    };
    sizes.take_while(fits).count().max(1)
}

/// When to connect again to a server that did not answer.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    pub async fn wait(&self) {
        if let Some(not_before) = self.not_before {
            tokio::time::sleep_until(not_before).await;
        }
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub fn failed(&mut self) {
        let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + pause);
    }
}

#[cfg(test)]
mod tests;
