//! The store of a running gateway.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::change::Change;
use crate::database::{BUSY_TIMEOUT, Backend, Connection, Database, Postgres, Sqlite, create_folder};
use crate::deduplication::UnderwayKeys;
use crate::drive::drive;
use crate::error::StoreError;
use crate::expiry;
use crate::inbox::Ledgers;
use crate::leases::{self, Leave, Owner};
use crate::options::StoreOptions;
use crate::place::Location;
use crate::reader::{Question, Reader, joined};
use crate::schema;
use crate::signals::Signals;
use crate::vault::{self, Vault};
use crate::writer::{Queue, Writer};

/// Held by the gateway whose data folder it is; the system releases it when the gateway dies.
pub(crate) const LOCK_FILE: &str = "gateway.lock";
/// How long a gateway that starts waits for one that ends.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// How long taking leave may take; who does not is found dead after the lease term.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// The store: one writer, a [`Reader`], and news between gateways.
///
/// ```no_run
/// # async fn example(letter: std::sync::Arc<sluicegate_engine::dead_letter::DeadLetter>) -> Result<(), Box<dyn std::error::Error>> {
/// use sluicegate_engine::dead_letter::DeadLetters;
/// use sluicegate_store::{Location, Store};
///
/// let store = Store::open(&Location::embedded("data")).await?;
/// store.record(&letter).await?; // durable from here on
/// let found = store.reader().show(&letter.id).await?;
/// store.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Store {
    reader: Reader,
    vault: Arc<Vault>,
    queue: Queue,
    signals: Arc<Signals>,
    owner: Arc<Mutex<Owner>>,
    is_gateway: bool,
    /// Tells the writer to finish.
    stop: Arc<Notify>,
    /// Answered when the writer has ended, until someone closes the store.
    writer: Mutex<Option<oneshot::Receiver<()>>>,
    /// What is known of inboxes beside what is stored, see [`inbox`](crate::inbox).
    ledgers: Ledgers,
    /// Which messages are under way, see [`deduplication`](crate::deduplication).
    underway: UnderwayKeys,
    /// Of a gateway on PostgreSQL: its heartbeat and its ear. Aborted with the store.
    tasks: Mutex<JoinSet<()>>,
}

impl Store {
    /// Opens the store for a gateway, making and bringing up to date whatever is missing: the data folder (mode 0700)
    /// and its file (0600), the schema. One gateway at a time has a data folder; any number share a PostgreSQL. Must be
    /// called within a Tokio runtime.
    ///
    /// # Errors
    /// `InUse`: another gateway has the data folder. `Folder`, `NotPermitted`, `Full`: the place is no good. `Locked`:
    /// another process kept the file locked for 5 seconds. `Url`, `Unreachable`, `Credentials`, `Connections`,
    /// `ReadOnly`, `Encoding`: the server is no good. `Damaged`, `Foreign`, `Newer`: the database is not for this
    /// program to write to; it is left as it is.
    /// `Encrypted`, `MasterKey`: the store's bodies are encrypted with another master key than the one given, if any.
    pub async fn open(options: impl Into<StoreOptions>) -> Result<Self, StoreError> {
        Self::open_within(options, BUSY_TIMEOUT).await
    }

    pub(crate) async fn open_within(
        options: impl Into<StoreOptions>,
        busy_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let StoreOptions { location, encryption } = options.into();
        let owner = Owner::new();
        match location {
            Location::Embedded { data_dir } => {
                let name = owner.clone();
                let opened = tokio::task::spawn_blocking(move || {
                    let lock = lock(&data_dir)?;
                    let database = Database::Sqlite(Sqlite::create(&data_dir, busy_timeout)?).encrypted(encryption);
                    let connection = drive(join(&database, &name, true))?;
                    Ok((database, connection, lock))
                });
                let (database, connection, lock) = joined(opened.await, "open the store")?;
                Ok(Self::start(database, connection, owner, Role::OnlyGateway { _lock: lock }))
            }
            Location::Shared { url } => {
                let reading = tokio::task::spawn_blocking(move || Postgres::new(&url));
                let database = Database::Postgres(joined(reading.await, "read the store's URL")?).encrypted(encryption);
                let connection = join(&database, &owner, false).await?;
                Ok(Self::start(database, connection, owner, Role::Gateway))
            }
        }
    }

    /// Opens the store for a command, to write beside gateways that run, or while none does. The schema must be this
    /// program's own version. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for `InUse`; `Missing` when no gateway has used it yet; `Older`.
    pub async fn open_beside(options: impl Into<StoreOptions>) -> Result<Self, StoreError> {
        let StoreOptions { location, encryption } = options.into();
        let (database, connection) = match location {
            Location::Embedded { data_dir } => {
                let opened = tokio::task::spawn_blocking(move || {
                    let database = Database::Sqlite(Sqlite::find(&data_dir, BUSY_TIMEOUT)?).encrypted(encryption);
                    // Looks before it touches: opening to write would turn any file into a database.
                    drive(async {
                        let mut connection = database.connect_reading().await?;
                        schema::check(&mut connection, database.place()).await?;
                        vault::reload(&mut connection, database.vault()).await
                    })?;
                    drive(database.connect_writing()).map(|connection| (database, connection))
                });
                joined(opened.await, "open the store")?
            }
            Location::Shared { url } => {
                let reading = tokio::task::spawn_blocking(move || Postgres::new(&url));
                let database = Database::Postgres(joined(reading.await, "read the store's URL")?).encrypted(encryption);
                let mut connection = database.connect_writing().await?;
                schema::check(&mut connection, database.place()).await?;
                vault::reload(&mut connection, database.vault()).await?;
                (database, connection)
            }
        };
        Ok(Self::start(database, connection, Owner::new(), Role::Command))
    }

    pub(crate) fn start(database: Database, connection: Connection, owner: Owner, role: Role) -> Self {
        let (stop, signals) = (Arc::new(Notify::new()), Arc::new(Signals::default()));
        let (owner, is_gateway) = (Arc::new(Mutex::new(owner)), !matches!(role, Role::Command));
        let (writer, queue) =
            Writer::new(database.clone(), connection, Arc::clone(&owner), Arc::clone(&signals), Arc::clone(&stop));
        let (ended, writer_ended) = oneshot::channel();
        let mut tasks = JoinSet::new();
        match &database {
            Database::Sqlite(_) => {
                let run = move || {
                    drive(writer.run());
                    // The data folder is free only once nobody writes to it any more.
                    drop(role);
                    tell(ended);
                };
                let spawned = std::thread::Builder::new().name("store".to_owned()).spawn(run);
                if let Err(error) = spawned {
                    tracing::error!(%error, "cannot start the store's thread");
                }
            }
            Database::Postgres(postgres) => {
                tokio::spawn(async move {
                    writer.run().await;
                    tell(ended);
                });
                if is_gateway {
                    tasks.spawn(leases::keep_alive(queue.clone()));
                    tasks.spawn(leases::listen(postgres.clone(), Arc::clone(&signals)));
                }
            }
        }
        let (writer, vault) = (Mutex::new(Some(writer_ended)), Arc::clone(database.vault()));
        let reader = Reader::new(database);
        if is_gateway {
            tasks.spawn(expiry::sweep(queue.clone()));
            tasks.spawn(vault::keep_up(Arc::clone(&vault), reader.clone(), Arc::clone(&signals)));
        }
        let (ledgers, underway) = (Ledgers::new(reader.database().clock().clone()), UnderwayKeys::default());
        let tasks = Mutex::new(tasks);
        Self { reader, vault, queue, signals, owner, is_gateway, stop, writer, ledgers, underway, tasks }
    }

    /// Reads what is stored.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Seals bodies before they are written; rows of answers open them.
    pub(crate) fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// Applies a change; durable (committed and synced) when it returns `Ok`. Waits for room in the queue first (1,024
    /// changes, 64 MiB). If the call is dropped before it returns, the change may or may not be made; so it is after a
    /// transient error, when the connection broke while it was being committed.
    ///
    /// # Errors
    /// What the change fails with, or what is wrong with the store.
    pub(crate) async fn change<C: Change>(&self, change: C) -> Result<C::Output, StoreError> {
        self.queue.change(change).await
    }

    /// Hands a change in and does not wait for its end; `false` if there is no room for it now.
    pub(crate) fn submit<C: Change>(&self, change: C) -> bool {
        self.queue.submit(change)
    }

    /// Answers a question, while the writer writes and when it cannot. Cancel safe.
    ///
    /// # Errors
    /// What the question fails with, or what is wrong with the store.
    pub(crate) async fn ask<Q: Question>(&self, question: Q) -> Result<Q::Output, StoreError> {
        self.reader.ask(question).await
    }

    /// Milliseconds since the Unix epoch by this gateway's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.reader.database().clock().now_ms()
    }

    /// Which database it is in.
    pub(crate) fn backend(&self) -> Backend {
        self.reader.database().backend()
    }

    /// What contradicts the store's limits.
    pub(crate) fn refused(&self, cause: String) -> StoreError {
        StoreError::Database { place: self.reader.database().place().clone(), doing: "accept messages", cause }
    }

    pub(crate) fn ledgers(&self) -> &Ledgers {
        &self.ledgers
    }

    pub(crate) fn underway(&self) -> &UnderwayKeys {
        &self.underway
    }

    /// News of what is committed here, and on PostgreSQL by other gateways.
    pub(crate) fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// Under which name this gateway claims at the moment; changes ask their transaction for it.
    pub(crate) fn owner(&self) -> Owner {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of the queue that are free.
    #[cfg(test)]
    pub(crate) fn queue_room(&self) -> usize {
        self.queue.room_bytes()
    }

    /// Writes what is queued, answers it, and closes the store. Changes that come later fail. A gateway's claims are
    /// released. Dropping the store instead writes what is queued in the background, as far as the runtime lives on.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = writer {
            if self.is_gateway {
                match tokio::time::timeout(LEAVE_LIMIT, self.change(Leave(self.owner()))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "leaving without a word"),
                    Err(_) => tracing::debug!("leaving without a word"),
                }
            }
            self.stop.notify_one();
            if ended.await.is_err() {
                tracing::error!("the store's writer failed");
            }
        }
        self.reader.close().await;
    }
}

#[cfg(test)]
impl Store {
    /// Closes the files without giving back what this gateway has claimed, as if it had been killed.
    pub(crate) async fn close_without_leaving(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.stop.notify_one();
        if let Some(ended) = writer {
            ended.await.expect("the writer ends");
        }
        self.reader.close().await;
    }
}

/// Who opens a store.
#[derive(Debug)]
pub(crate) enum Role {
    /// The only one, by this lock.
    OnlyGateway {
        _lock: File,
    },
    Gateway,
    Command,
}

fn tell(ended: oneshot::Sender<()>) {
    if ended.send(()).is_err() {
        tracing::debug!("the store was dropped, not closed");
    }
}

/// Connects and registers a gateway.
async fn join(database: &Database, owner: &Owner, is_alone: bool) -> Result<Connection, StoreError> {
    let mut connection = database.connect_writing().await?;
    schema::migrate(&mut connection, database.place()).await?;
    vault::begin(&mut connection, database.vault()).await?;
    leases::join(&mut connection, owner, is_alone).await?;
    Ok(connection)
}

/// Takes the data folder. Blocks for two seconds at most.
#[expect(clippy::disallowed_methods, reason = "on a thread for what blocks")]
pub(crate) fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let refused = |error: std::io::Error| StoreError::Folder { path: data_dir.to_owned(), cause: error.to_string() };
    let folder = create_folder(data_dir)?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(folder.join(LOCK_FILE)).map_err(refused)?;
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: folder }),
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
    }
}
