//! The one task that writes. Records that arrive while a transaction is being synced to the disk wait together for the
//! next one: many concurrent records cost one fsync (group commit), a lone record waits for nobody.

use std::sync::Arc;

use sluicegate_engine::failure::Failure;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::database::Database;
use crate::dead_letter::StoredLetter;
use crate::error::StoreError;

/// Records that may wait to be written; further callers wait for room.
pub(crate) const MAX_QUEUED_RECORDS: usize = 1_024;
/// Most records of one transaction.
const MAX_BATCH_RECORDS: usize = 256;
/// A transaction is committed once it has this much, whatever waits.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// A record to write and whom to tell.
pub(crate) struct Pending {
    pub letter: StoredLetter,
    pub answer: oneshot::Sender<Result<(), Failure>>,
}

pub(crate) struct Writer {
    database: Database,
    /// `None` after a failure: the next transaction begins on a new connection, so that nothing of a broken one remains.
    connection: Option<SqliteConnection>,
    queue: mpsc::Receiver<Pending>,
    stop: Arc<Notify>,
}

impl Writer {
    pub fn new(
        database: Database,
        connection: SqliteConnection,
        queue: mpsc::Receiver<Pending>,
        stop: Arc<Notify>,
    ) -> Self {
        Self { database, connection: Some(connection), queue, stop }
    }

    /// Writes until it is told to stop and the queue is empty, or until nobody can send any more.
    pub async fn run(mut self) {
        let mut waiting = Vec::with_capacity(MAX_BATCH_RECORDS);
        loop {
            tokio::select! {
                // Not again after the first time: from then on the closed queue ends the loop.
                () = self.stop.notified(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
                received = self.queue.recv_many(&mut waiting, MAX_BATCH_RECORDS) => {
                    if received == 0 {
                        break;
                    }
                }
            }
            while !waiting.is_empty() {
                let rest = waiting.split_off(batch_length(&waiting));
                let batch = std::mem::replace(&mut waiting, rest);
                self.write(batch).await;
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(store = %self.database.path.display(), %error, "the store was not closed cleanly; nothing is lost");
        }
    }

    /// Writes a batch and answers everyone in it.
    async fn write(&mut self, batch: Vec<Pending>) {
        let result = self.commit(&batch).await.map_err(|error| {
            self.connection = None;
            tracing::warn!(records = batch.len(), %error, "dead letters not written; their messages stay in flight");
            Failure::transient(error.to_string())
        });
        for pending in batch {
            if pending.answer.send(result.clone()).is_err() {
                tracing::debug!("nobody waits for this record any more");
            }
        }
    }

    /// All of the batch or none of it, on the disk when it returns.
    async fn commit(&mut self, batch: &[Pending]) -> Result<(), StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.database.connect_writing().await?,
        };
        let doing = self.database.doing("write dead letters");
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(|error| doing.failed(&error))?;
        for pending in batch {
            pending.letter.insert(&mut transaction).await.map_err(|error| doing.failed(&error))?;
        }
        transaction.commit().await.map_err(|error| doing.failed(&error))?;
        self.connection = Some(connection);
        Ok(())
    }
}

/// How many of the first records make one transaction: at least one, however large.
fn batch_length(waiting: &[Pending]) -> usize {
    let mut bytes = 0_usize;
    let fits = |pending: &&Pending| {
        bytes = bytes.saturating_add(pending.letter.size_bytes());
        bytes <= MAX_BATCH_BYTES
    };
    waiting.iter().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
    use sluicegate_engine::failure::{FailureClass, FailureKind};
    use sluicegate_engine::message::Message;

    use super::*;
    use crate::schema;
    use crate::store::Store;

    fn letter() -> Arc<DeadLetter> {
        let message = Arc::new(Message::new("/orders", "order.created", vec![b'x'; 1_024]));
        Arc::new(DeadLetter {
            id: uuid::Uuid::now_v7().to_string(),
            failed_at_ms: 1,
            pipeline: "orders".into(),
            config_version: "0123456789ab".into(),
            at_failure: Arc::clone(&message),
            original: message,
            step: Some("filter jq".into()),
            target: None,
            class: FailureClass::Trap,
            error: "trapped: unreachable".to_owned(),
            schema_errors: Vec::new(),
            plugin: Some("jq".to_owned()),
            plugin_digest: Some("sha256:00".to_owned()),
            backtrace: Vec::new(),
            attempts: Vec::new(),
            trace_id: None,
            redrive_count: 0,
        })
    }

    /// A store whose first connection has been told `pragma`; a later one has not.
    async fn hampered(data_dir: &Path, pragma: &'static str) -> Store {
        let database = Database::create(data_dir, Duration::from_millis(100)).await.expect("a place");
        let mut connection = database.connect_writing().await.expect("a connection");
        schema::migrate(&mut connection, &database).await.expect("a schema");
        sqlx::raw_sql(pragma).execute(&mut connection).await.expect("a pragma");
        Store::start(database, connection)
    }

    /// How many transactions the write-ahead log holds: its frames that end one carry the database's size in their
    /// header (https://www.sqlite.org/fileformat2.html#walformat).
    fn transactions_in_log(data_dir: &Path) -> usize {
        let log = std::fs::read(data_dir.join("sluicegate.sqlite-wal")).expect("a log");
        log[32..].chunks_exact(24 + 4_096).filter(|frame| frame[4..8] != [0; 4]).count()
    }

    async fn record_all(store: &Arc<Store>, records: usize) -> Vec<tokio::task::JoinHandle<Result<(), Failure>>> {
        let record = |_| {
            let store = Arc::clone(store);
            tokio::spawn(async move { store.record(&letter()).await })
        };
        let recording: Vec<_> = (0..records).map(record).collect();
        // One turn for each of them to queue its record.
        tokio::task::yield_now().await;
        recording
    }

    #[tokio::test]
    async fn every_commit_is_synced_to_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Database::create(folder.path(), Duration::from_secs(1)).await.expect("a place");
        let mut connection = database.connect_writing().await.expect("a connection");
        let synchronous: i64 =
            sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut connection).await.expect("a number");
        let journal: String =
            sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await.expect("a name");
        assert_eq!((synchronous, &*journal), (2, "wal"), "2 is FULL");
    }

    #[tokio::test]
    async fn records_that_wait_share_a_transaction() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(folder.path()).await.expect("a store"));
        store.record(&letter()).await.expect("recorded");
        let before = transactions_in_log(folder.path());
        for recorded in record_all(&store, 250).await {
            recorded.await.expect("no panic").expect("recorded");
        }
        let transactions = transactions_in_log(folder.path()) - before;
        assert!((1..=3).contains(&transactions), "250 records in {transactions} transactions");
        assert_eq!(store.reader().count(&Default::default()).await, Ok(251));
        store.close().await;
    }

    #[tokio::test]
    async fn closing_writes_what_is_queued_and_answers_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(folder.path()).await.expect("a store"));
        let recording = record_all(&store, 600).await;
        store.close().await;
        for recorded in recording {
            recorded.await.expect("no panic").expect("recorded");
        }
        let refused = store.record(&letter()).await.expect_err("closed");
        assert!(refused.text.contains("the store is closed"), "{refused}");
    }

    #[tokio::test]
    async fn a_lock_held_too_long_fails_the_records_for_now() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open_within(folder.path(), Duration::from_millis(100)).await.expect("a store");
        let other = Database::find(folder.path(), Duration::from_secs(1)).await.expect("a place");
        let mut other = other.connect_writing().await.expect("a connection");
        let lock = other.begin_with("BEGIN IMMEDIATE").await.expect("a lock");
        let locked = store.record(&letter()).await.expect_err("locked");
        assert_eq!(locked.kind, FailureKind::Transient { retry_after: None });
        assert!(locked.text.contains("another process has kept it locked for 100ms"), "{locked}");
        lock.rollback().await.expect("unlocked");
        store.record(&letter()).await.expect("recorded once the lock is gone");
        store.close().await;
    }

    #[tokio::test]
    async fn a_full_disk_fails_everyone_in_the_batch_and_writes_none_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(hampered(folder.path(), "PRAGMA max_page_count = 40").await);
        let recording = record_all(&store, 250).await;
        let mut refused = 0;
        for recorded in recording {
            if let Err(failure) = recorded.await.expect("no panic") {
                assert_eq!(failure.kind, FailureKind::Transient { retry_after: None });
                assert!(failure.text.contains("the disk is full; free some room"), "{failure}");
                refused += 1;
            }
        }
        assert!(refused > 0, "40 pages of 4 KiB cannot hold 250 records of 1 KiB");
        assert_eq!(store.reader().count(&Default::default()).await, Ok(250 - refused));
        store.record(&letter()).await.expect("recorded once there is room");
        store.close().await;
    }

    #[tokio::test]
    async fn a_file_that_has_become_read_only_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = hampered(folder.path(), "PRAGMA query_only = ON").await;
        let refused = store.record(&letter()).await.expect_err("read-only");
        assert!(refused.text.contains("let this user read and write the file"), "{refused}");
        assert!(refused.text.contains("sluicegate.sqlite"), "{refused}");
        store.close().await;
    }

    #[test]
    fn a_transaction_takes_at_least_one_record_and_not_many_bytes() {
        let pending = |bytes: usize| {
            let mut large = (*letter()).clone();
            large.original = Arc::new(Message::new("/s", "k", vec![0_u8; bytes]));
            large.at_failure = Arc::clone(&large.original);
            let letter = StoredLetter::new(&Arc::new(large)).expect("converted");
            Pending { letter, answer: oneshot::channel().0 }
        };
        assert_eq!(batch_length(&[pending(MAX_BATCH_BYTES + 1), pending(1)]), 1);
        assert_eq!(batch_length(&[pending(1), pending(MAX_BATCH_BYTES), pending(1)]), 1);
        assert_eq!(batch_length(&[pending(1), pending(1), pending(1)]), 3);
    }
}
