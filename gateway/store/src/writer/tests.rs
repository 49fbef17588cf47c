use std::path::Path;
use std::time::Duration;

use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_engine::failure::{Failure, FailureClass, FailureKind};
use sluicegate_engine::message::Message;

use async_trait::async_trait;

use super::*;
use crate::database::{Sqlite, SqliteConnection};
use crate::dead_letter::StoredLetter;
use crate::place::Location;
use crate::schema;
use crate::store::{Role, Store};

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
    let database = Database::Sqlite(Sqlite::create(data_dir, Duration::from_millis(100)).expect("a place"));
    let mut connection = database.connect_writing().await.expect("a connection");
    schema::migrate(&mut connection, database.place()).await.expect("a schema");
    connection.batch(pragma).await.expect("a pragma");
    Store::start(database, connection, Owner::new(), Role::Command)
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
    // A turn for them to queue their records.
    tokio::task::yield_now().await;
    recording
}

/// While the lock is held, the writer waits with what it took first, and all else waits for the writer.
fn locked(data_dir: &Path) -> SqliteConnection {
    let sqlite = Sqlite::find(data_dir, Duration::from_secs(1)).expect("a place");
    let mut other = sqlite.connect_writing().expect("a connection");
    other.batch("BEGIN IMMEDIATE").expect("a lock");
    other
}

fn unlock(mut lock: SqliteConnection) {
    lock.batch("ROLLBACK").expect("unlocked");
}

/// Until so many records of [`letter`] are in the queue.
async fn await_queued(store: &Store, records: usize) {
    let bytes = records
        * StoredLetter::new(&letter(), &crate::vault::Vault::new(crate::place::Place::file("store"), None))
            .expect("converted")
            .size_bytes();
    while store.queue_room() > MAX_QUEUED_BYTES - bytes {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_commit_is_synced_to_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let sqlite = Sqlite::create(folder.path(), Duration::from_secs(1)).expect("a place");
    let mut connection = sqlite.connect_writing().expect("a connection");
    let synchronous = connection.query("PRAGMA synchronous", &[]).expect("a row")[0].integer(0);
    let journal = connection.query("PRAGMA journal_mode", &[]).expect("a row")[0].text(0);
    assert_eq!((synchronous, journal), (Ok(2), Ok("wal".to_owned())), "2 is FULL");
}

#[tokio::test]
async fn records_that_wait_share_a_transaction() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Store::open(&Location::embedded(folder.path())).await.expect("a store"));
    store.record(&letter()).await.expect("recorded");
    let before = transactions_in_log(folder.path());
    let lock = locked(folder.path());
    let recording = record_all(&store, 250).await;
    await_queued(&store, 250).await;
    unlock(lock);
    for recorded in recording {
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
    let store = Arc::new(Store::open(&Location::embedded(folder.path())).await.expect("a store"));
    let lock = locked(folder.path());
    let recording = record_all(&store, 600).await;
    await_queued(&store, 600).await;
    unlock(lock);
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
    let store =
        Store::open_within(&Location::embedded(folder.path()), Duration::from_millis(100)).await.expect("a store");
    let lock = locked(folder.path());
    let locked = store.record(&letter()).await.expect_err("locked");
    assert_eq!(locked.kind, FailureKind::Transient { retry_after: None });
    assert!(locked.text.contains("another process has kept it locked for 100ms"), "{locked}");
    unlock(lock);
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
    let length = |sizes: &[usize]| batch_length(sizes.iter().copied());
    assert_eq!(length(&[MAX_BATCH_BYTES + 1, 1]), 1);
    assert_eq!(length(&[1, MAX_BATCH_BYTES, 1]), 1);
    assert_eq!(length(&[1, 1, 1]), 3);
}

/// Inserts a gateway, which fails when it is there already; says how often it was applied.
struct Insert {
    id: &'static str,
    applied: u32,
}

#[async_trait]
impl Change for Insert {
    type Output = u32;

    fn size_bytes(&self) -> usize {
        self.id.len()
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<u32, StoreError> {
        self.applied += 1;
        transaction.announce(self.id);
        let sql = "INSERT INTO gateways (seen_at_ms, id) VALUES ($2, $1)";
        transaction.execute(sql, &[self.id.into(), i64::from(self.applied).into()]).await?;
        Ok(self.applied)
    }
}

#[tokio::test]
async fn a_change_that_fails_fails_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Store::open(&Location::embedded(folder.path())).await.expect("a store"));
    store.change(Insert { id: "twice", applied: 0 }).await.expect("inserted");
    let (good, best) = (store.signals().subscribe("good"), store.signals().subscribe("best"));
    let twice = store.signals().subscribe("twice");
    // While the lock is held the first waits for it, and the others for the first: they share the next transaction.
    let lock = locked(folder.path());
    let insert = |id: &'static str| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.change(Insert { id, applied: 0 }).await })
    };
    let first = insert("first");
    let rest = ["good", "twice", "best"].map(insert);
    while store.queue_room() > MAX_QUEUED_BYTES - "first good twice best".replace(' ', "").len() {
        tokio::task::yield_now().await;
    }
    unlock(lock);
    assert!(first.await.expect("no panic").is_ok());
    let [good_inserted, twice_inserted, best_inserted] = rest;
    assert!(good_inserted.await.expect("no panic").is_ok());
    assert!(best_inserted.await.expect("no panic").is_ok());
    let refused = twice_inserted.await.expect("no panic").expect_err("it is there already");
    assert!(matches!(&refused, StoreError::Database { cause, .. } if cause.contains("UNIQUE")), "{refused:?}");
    assert!(good.has_changed().expect("open") && best.has_changed().expect("open"));
    assert!(!twice.has_changed().expect("open"), "what was rolled back is not announced");
    store.close().await;
}

#[tokio::test]
async fn claims_of_a_gateway_found_dead_are_made_under_a_new_name() {
    struct Claim;
    #[async_trait]
    impl Change for Claim {
        type Output = Owner;

        fn size_bytes(&self) -> usize {
            1
        }

        async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Owner, StoreError> {
            Ok(transaction.owner())
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&Location::embedded(folder.path())).await.expect("a store");
    let first = store.owner();
    assert_eq!(store.change(Claim).await.as_ref(), Ok(&first));
    let other = Sqlite::find(folder.path(), Duration::from_secs(1)).expect("a place");
    other.connect_writing().and_then(|mut other| other.batch("DELETE FROM gateways")).expect("swept");
    let second = store.change(Claim).await.expect("claimed");
    assert_ne!(second, first);
    assert_eq!(store.owner(), second);
    assert_eq!(store.change(Claim).await, Ok(second), "and kept");
    store.close().await;
}

#[tokio::test]
async fn bytes_that_wait_are_limited() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&Location::embedded(folder.path())).await.expect("a store");
    // Larger than all the room there is: alone, but written.
    struct Huge;
    #[async_trait]
    impl Change for Huge {
        type Output = ();

        fn size_bytes(&self) -> usize {
            MAX_QUEUED_BYTES * 2
        }

        async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
            transaction.query("SELECT 1", &[]).await.map(drop)
        }
    }
    assert_eq!(tokio::join!(store.change(Huge), store.change(Huge)), (Ok(()), Ok(())));
    let lock = locked(folder.path());
    let mut waiting = std::pin::pin!(store.change(Huge));
    assert!(futures_poll(waiting.as_mut()).is_pending());
    assert_eq!(store.queue_room(), 0);
    unlock(lock);
    assert_eq!(waiting.await, Ok(()));
    assert_eq!(store.queue_room(), MAX_QUEUED_BYTES);
    store.close().await;
}

fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}
