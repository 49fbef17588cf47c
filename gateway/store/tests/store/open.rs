use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use sluicegate_engine::dead_letter::DeadLetters;
use sluicegate_store::{Reader, STORE_FILE, Store, StoreError};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use crate::sample;

/// A connection past the store, to spoil things.
async fn connect(data_dir: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(data_dir.join(STORE_FILE)).create_if_missing(true);
    options.connect().await.unwrap()
}

async fn spoil(data_dir: &Path, sql: &'static str) {
    let mut connection = connect(data_dir).await;
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn folder_and_file_are_made_for_their_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let data_dir = parent.path().join("new/data");
    let store = Store::open(&data_dir).await.unwrap();
    store.record(&Arc::new(sample::letter())).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(&data_dir.join(format!("{STORE_FILE}{suffix}"))), 0o600, "{suffix}");
    }
    store.close().await;
}

#[tokio::test]
async fn many_may_open_a_new_store_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let data_dir = folder.path().to_owned();
            tokio::spawn(async move {
                let store = Store::open(&data_dir).await?;
                store.record(&Arc::new(sample::letter())).await.unwrap();
                store.close().await;
                Ok::<(), StoreError>(())
            })
        })
        .collect();
    for opened in opening {
        assert_eq!(opened.await.unwrap(), Ok(()));
    }
    let reader = Reader::open(folder.path()).await.unwrap();
    assert_eq!(reader.count(&Default::default()).await, Ok(8));
}

#[tokio::test]
async fn a_store_is_found_again_with_all_that_was_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let letter = Arc::new(sample::letter());
    let store = Store::open(folder.path()).await.unwrap();
    store.record(&letter).await.unwrap();
    store.close().await;
    store.record(&letter).await.expect_err("a closed store records nothing");
    let store = Store::open(folder.path()).await.unwrap();
    assert_eq!(store.reader().show(&letter.id).await.as_ref(), Ok(&*letter));
    store.close().await;
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_is_an_error_with_a_remedy() {
    let parent = tempfile::tempdir().unwrap();
    std::fs::write(parent.path().join("file"), "").unwrap();
    let data_dir = parent.path().join("file/data");
    let error = Store::open(&data_dir).await.err().unwrap();
    assert!(matches!(&error, StoreError::Folder { path, .. } if *path == data_dir), "{error:?}");
    assert!(error.to_string().contains("set data_dir to another folder"), "{error}");
}

#[tokio::test]
async fn there_is_nothing_to_read_where_no_gateway_ran() {
    let folder = tempfile::tempdir().unwrap();
    let missing = |path: &Path| StoreError::Missing { path: path.join(STORE_FILE) };
    let nowhere = folder.path().join("nowhere");
    assert_eq!(Reader::open(&nowhere).await.err(), Some(missing(&nowhere)));
    assert_eq!(Reader::open(folder.path()).await.err(), Some(missing(folder.path())));
    std::fs::write(folder.path().join(STORE_FILE), "").unwrap();
    let empty = folder.path().canonicalize().unwrap();
    assert_eq!(Reader::open(folder.path()).await.err(), Some(missing(&empty)), "an empty file");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_reported_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(STORE_FILE);
    let noise = "not a database at all. ".repeat(200);
    std::fs::write(&path, &noise).unwrap();
    let error = Store::open(folder.path()).await.err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("move the file away"), "{error}");
    let error = Reader::open(folder.path()).await.err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), noise);
}

#[tokio::test]
async fn a_damaged_page_is_reported_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    let letter = Arc::new(sample::letter());
    store.record(&letter).await.unwrap();
    store.close().await;
    let path = folder.path().join(STORE_FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    // Spare the first page: it holds the header and the schema.
    bytes[4_096..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let reader = Reader::open(folder.path()).await.unwrap();
    let error = reader.show(&letter.id).await.err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    let store = Store::open(folder.path()).await.unwrap();
    let failure = store.record(&Arc::new(sample::letter())).await.err().unwrap();
    assert!(failure.text.contains("damaged"), "{}", failure.text);
    store.close().await;
}

#[tokio::test]
async fn a_newer_schema_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    Store::open(folder.path()).await.unwrap().close().await;
    spoil(folder.path(), "PRAGMA user_version = 99").await;
    let newer = StoreError::Newer { path: folder.path().canonicalize().unwrap().join(STORE_FILE), found: 99, known: 1 };
    assert_eq!(Store::open(folder.path()).await.err(), Some(newer.clone()));
    assert_eq!(Reader::open(folder.path()).await.err(), Some(newer.clone()));
    assert!(newer.to_string().contains("use the newer gateway"), "{newer}");
}

#[tokio::test]
async fn another_programs_database_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    spoil(folder.path(), "CREATE TABLE customers (name TEXT)").await;
    let foreign = StoreError::Foreign { path: folder.path().canonicalize().unwrap().join(STORE_FILE) };
    assert_eq!(Store::open(folder.path()).await.err(), Some(foreign.clone()));
    assert_eq!(Reader::open(folder.path()).await.err(), Some(foreign));
    let mut connection = connect(folder.path()).await;
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema").fetch_all(&mut connection).await.unwrap();
    assert_eq!(tables, ["customers"]);
}
