//! The store of a running gateway.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_engine::failure::Failure;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::database::{BUSY_TIMEOUT, Database};
use crate::dead_letter::StoredLetter;
use crate::error::StoreError;
use crate::reader::Reader;
use crate::schema;
use crate::writer::{MAX_QUEUED_RECORDS, Pending, Writer};

/// Largest record: below SQLite's own limit of 1,000,000,000 bytes a row.
const MAX_RECORD_BYTES: usize = 900_000_000;

/// The embedded store. Writing goes through one task, reading through a [`Reader`].
///
/// ```no_run
/// # async fn example(letter: std::sync::Arc<sluicegate_engine::dead_letter::DeadLetter>) -> Result<(), Box<dyn std::error::Error>> {
/// use sluicegate_engine::dead_letter::DeadLetters;
/// use sluicegate_store::Store;
///
/// let store = Store::open("data".as_ref()).await?;
/// store.record(&letter).await?; // durable from here on
/// let found = store.reader().show(&letter.id).await?;
/// store.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Store {
    reader: Reader,
    queue: mpsc::Sender<Pending>,
    /// Tells the writer to finish.
    stop: Arc<Notify>,
    /// The writer's task, until someone closes the store.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store in `data_dir`, making the folder (mode 0700), the file (0600) and the schema where they are
    /// missing, and bringing an older schema up to date. Several processes may have it open. Must be called within a
    /// Tokio runtime.
    ///
    /// # Errors
    /// `Folder`, `NotPermitted`, `Full`: the place is no good. `Locked`: another process kept it locked for 5 seconds.
    /// `Damaged`, `Foreign`, `Newer`: the file is not for this program to write to; it is left as it is.
    pub async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_within(data_dir, BUSY_TIMEOUT).await
    }

    pub(crate) async fn open_within(data_dir: &Path, busy_timeout: Duration) -> Result<Self, StoreError> {
        let database = Database::create(data_dir, busy_timeout).await?;
        let mut connection = database.connect_writing().await?;
        schema::migrate(&mut connection, &database).await?;
        Ok(Self::start(database, connection))
    }

    pub(crate) fn start(database: Database, connection: SqliteConnection) -> Self {
        let (queue, receiver) = mpsc::channel(MAX_QUEUED_RECORDS);
        let stop = Arc::new(Notify::new());
        let writer = Writer::new(database.clone(), connection, receiver, Arc::clone(&stop));
        let writer = Mutex::new(Some(tokio::spawn(writer.run())));
        Self { reader: Reader::new(database), queue, stop, writer }
    }

    /// Reads what is stored.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Writes what is queued, answers it, and closes the file. Records that come later fail. Dropping the store instead
    /// abandons what is queued: nobody was told that it is durable.
    pub async fn close(&self) {
        self.stop.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the store's writer failed");
        }
        self.reader.close().await;
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.take() {
            writer.abort();
        }
    }
}

#[async_trait]
impl DeadLetters for Store {
    /// Durable (committed and synced) when it returns `Ok`. If the call is dropped before, the record may or may not be
    /// written; recording it again is harmless.
    async fn record(&self, letter: &Arc<DeadLetter>) -> Result<(), Failure> {
        let stopped = || Failure::transient("cannot write a dead letter: the store is closed; restart the gateway");
        let letter = StoredLetter::new(letter)
            .map_err(|error| Failure::permanent(format!("cannot write dead letter {}: {error}", letter.id)))?;
        if letter.size_bytes() > MAX_RECORD_BYTES {
            return Err(Failure::permanent(format!(
                "cannot write a dead letter of {} bytes: a record has at most {MAX_RECORD_BYTES}; lower the source's body limit",
                letter.size_bytes()
            )));
        }
        let (answer, answered) = oneshot::channel();
        self.queue.send(Pending { letter, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}
