use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluicegate_engine::dead_letter::DeadLetters;
use sluicegate_store::{Location, Place, Reader, STORE_FILE, Store, StoreError};

use crate::sample;

/// A connection past the store, to spoil things.
fn connect(data_dir: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(data_dir.join(STORE_FILE)).unwrap()
}

fn spoil(data_dir: &Path, sql: &'static str) {
    connect(data_dir).execute_batch(sql).unwrap();
}

fn at(data_dir: impl Into<PathBuf>) -> Location {
    Location::embedded(data_dir)
}

#[tokio::test]
async fn folder_and_file_are_made_for_their_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let data_dir = parent.path().join("new/data");
    let store = Store::open(&at(&data_dir)).await.unwrap();
    store.record(&Arc::new(sample::letter())).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(&data_dir.join(format!("{STORE_FILE}{suffix}"))), 0o600, "{suffix}");
    }
    store.close().await;
}

#[tokio::test]
async fn of_many_that_open_a_new_store_at_once_each_gets_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let location = at(folder.path());
            tokio::spawn(async move {
                let store = Store::open(&location).await?;
                store.record(&Arc::new(sample::letter())).await.unwrap();
                store.close().await;
                Ok::<(), StoreError>(())
            })
        })
        .collect();
    let mut opened = 0;
    for one in opening {
        match one.await.unwrap() {
            Ok(()) => opened += 1,
            // Only for who has waited two seconds.
            Err(error) => assert!(matches!(error, StoreError::InUse { .. }), "{error}"),
        }
    }
    let reader = Reader::open(&at(folder.path())).await.unwrap();
    assert!(opened > 0);
    assert_eq!(reader.count(&Default::default()).await, Ok(opened));
}

#[tokio::test]
async fn a_store_is_found_again_with_all_that_was_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let letter = Arc::new(sample::letter());
    let store = Store::open(&at(folder.path())).await.unwrap();
    store.record(&letter).await.unwrap();
    store.close().await;
    store.record(&letter).await.expect_err("a closed store records nothing");
    let store = Store::open(&at(folder.path())).await.unwrap();
    assert_eq!(store.reader().show(&letter.id).await.as_ref(), Ok(&*letter));
    store.close().await;
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_is_an_error_with_a_remedy() {
    let parent = tempfile::tempdir().unwrap();
    std::fs::write(parent.path().join("file"), "").unwrap();
    let data_dir = parent.path().join("file/data");
    let error = Store::open(&at(&data_dir)).await.err().unwrap();
    assert!(matches!(&error, StoreError::Folder { path, .. } if *path == data_dir), "{error:?}");
    assert!(error.to_string().contains("set data_dir to another folder"), "{error}");
}

#[tokio::test]
async fn there_is_nothing_to_read_where_no_gateway_ran() {
    let folder = tempfile::tempdir().unwrap();
    let missing = |path: &Path| StoreError::Missing { place: Place::file(path.join(STORE_FILE)) };
    let nowhere = folder.path().join("nowhere");
    assert_eq!(Reader::open(&at(&nowhere)).await.err(), Some(missing(&nowhere)));
    assert_eq!(Reader::open(&at(folder.path())).await.err(), Some(missing(folder.path())));
    std::fs::write(folder.path().join(STORE_FILE), "").unwrap();
    let empty = folder.path().canonicalize().unwrap();
    assert_eq!(Reader::open(&at(folder.path())).await.err(), Some(missing(&empty)), "an empty file");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_reported_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(STORE_FILE);
    let noise = "not a database at all. ".repeat(200);
    std::fs::write(&path, &noise).unwrap();
    let error = Store::open(&at(folder.path())).await.err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("move the file away"), "{error}");
    let error = Reader::open(&at(folder.path())).await.err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), noise);
}

#[tokio::test]
async fn a_damaged_page_is_reported_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&at(folder.path())).await.unwrap();
    let letter = Arc::new(sample::letter());
    store.record(&letter).await.unwrap();
    store.close().await;
    damage_pages(folder.path());
    let reader = Reader::open(&at(folder.path())).await.unwrap();
    let error = reader.show(&letter.id).await.err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    let refused = Store::open(&at(folder.path())).await.err().unwrap();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused:?}");
    let store = Store::open_beside(&at(folder.path())).await.unwrap();
    let failure = store.record(&Arc::new(sample::letter())).await.err().unwrap();
    assert!(failure.text.contains("damaged"), "{}", failure.text);
    store.close().await;
}

/// The first page of each table and index, but for those of the keys: whoever opens the store reads these, and the schema.
fn damage_pages(data_dir: &Path) {
    let connection = connect(data_dir);
    let page_bytes: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE rootpage > 1 AND tbl_name NOT IN ('master_key', 'data_keys')";
    let mut statement = connection.prepare(sql).unwrap();
    let pages: Vec<u32> = statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    drop(statement);
    drop(connection);
    let path = data_dir.join(STORE_FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    for page in pages {
        let (from, to) = ((page - 1) * page_bytes, page * page_bytes);
        bytes[from as usize..to as usize].fill(0xa5);
    }
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    Store::open(&at(folder.path())).await.unwrap().close().await;
    spoil(folder.path(), "PRAGMA user_version = 99");
    let newer = StoreError::Newer {
        place: Place::file(folder.path().canonicalize().unwrap().join(STORE_FILE)),
        found: 99,
        known: KNOWN,
    };
    assert_eq!(Store::open(&at(folder.path())).await.err(), Some(newer.clone()));
    assert_eq!(Reader::open(&at(folder.path())).await.err(), Some(newer.clone()));
    assert!(newer.to_string().contains("use the newer gateway"), "{newer}");
}

#[tokio::test]
async fn another_programs_database_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    spoil(folder.path(), "CREATE TABLE customers (name TEXT)");
    let foreign = StoreError::Foreign { place: Place::file(folder.path().canonicalize().unwrap().join(STORE_FILE)) };
    assert_eq!(Store::open(&at(folder.path())).await.err(), Some(foreign.clone()));
    assert_eq!(Reader::open(&at(folder.path())).await.err(), Some(foreign.clone()));
    let connection = connect(folder.path());
    let tables: String =
        connection.query_row("SELECT group_concat(name) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, "customers");
    assert_eq!(
        Store::open_beside(&at(folder.path())).await.err().map(|error| error.to_string()),
        Some(foreign.to_string())
    );
}

/// The schema's version of this program.
const KNOWN: i64 = 8;

#[tokio::test]
async fn the_first_releases_file_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let first = include_str!("../../migrations/sqlite/0001_dead_letters.sql");
    let connection = connect(folder.path());
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL").unwrap();
    connection.execute_batch(first).unwrap();
    connection.execute_batch("PRAGMA application_id = 1397507907; PRAGMA user_version = 1").unwrap();
    drop(connection);
    let older = StoreError::Older {
        place: Place::file(folder.path().canonicalize().unwrap().join(STORE_FILE)),
        found: 1,
        known: KNOWN,
    };
    assert_eq!(Reader::open(&at(folder.path())).await.err(), Some(older.clone()));
    assert_eq!(Store::open_beside(&at(folder.path())).await.err(), Some(older));
    let store = Store::open(&at(folder.path())).await.unwrap();
    let letter = Arc::new(sample::letter());
    store.record(&letter).await.unwrap();
    store.close().await;
    assert_eq!(Reader::open(&at(folder.path())).await.unwrap().show(&letter.id).await.as_ref(), Ok(&*letter));
}

#[tokio::test]
async fn one_gateway_at_a_time_and_commands_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let beside = Store::open_beside(&at(folder.path())).await.err();
    assert!(matches!(beside, Some(StoreError::Missing { .. })), "{beside:?}");
    let store = Store::open(&at(folder.path())).await.unwrap();
    let refused = Store::open(&at(folder.path())).await.err().unwrap();
    assert_eq!(refused, StoreError::InUse { path: folder.path().canonicalize().unwrap() });
    assert!(refused.to_string().contains("in use by another gateway; stop that one"), "{refused}");
    let writing: Vec<_> = (0..8)
        .map(|_| {
            let location = at(folder.path());
            tokio::spawn(async move {
                let command = Store::open_beside(&location).await?;
                command.record(&Arc::new(sample::letter())).await.unwrap();
                command.close().await;
                Ok::<(), StoreError>(())
            })
        })
        .collect();
    for wrote in writing {
        store.record(&Arc::new(sample::letter())).await.unwrap();
        assert_eq!(wrote.await.unwrap(), Ok(()));
    }
    assert_eq!(store.reader().count(&Default::default()).await, Ok(16));
    store.close().await;
    Store::open(&at(folder.path())).await.unwrap().close().await;
}

#[tokio::test]
async fn a_dropped_store_writes_what_it_was_given_and_frees_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&at(folder.path())).await.unwrap();
    store.record(&Arc::new(sample::letter())).await.unwrap();
    drop(store);
    let store = Store::open(&at(folder.path())).await.unwrap();
    assert_eq!(store.reader().count(&Default::default()).await, Ok(1));
    store.close().await;
}
