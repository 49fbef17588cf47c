//! What is written is encrypted, and read with the right key alone.

use std::path::Path;

use sluicegate_engine::dead_letter::DeadLetters;
use sluicegate_store::{Location, Reader, Store, StoreError};

use super::{SECRET, letter, refused, with};
use crate::both::{Fresh, both_places};

pub(super) fn shows_the_secret(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let showing = files.filter(|file| {
        let bytes = std::fs::read(file).unwrap();
        bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
    });
    showing.map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

pub(super) fn folder(fresh: &Fresh) -> &Path {
    match &fresh.location {
        Location::Embedded { data_dir } => data_dir,
        Location::Shared { .. } => unreachable!("this is SQLite"),
    }
}

#[tokio::test]
async fn neither_the_file_nor_its_log_shows_a_body() {
    let (plain, encrypted) = (Fresh::sqlite(), Fresh::sqlite());
    let store = plain.open().await;
    let letter = letter();
    store.record(&letter).await.unwrap();
    assert!(!shows_the_secret(folder(&plain)).is_empty(), "without encryption the search finds it");
    store.close().await;

    let store = Store::open(with(&encrypted.location, 1, &[])).await.unwrap();
    store.record(&letter).await.unwrap();
    assert_eq!(shows_the_secret(folder(&encrypted)), [""; 0], "while the gateway runs");
    assert_eq!(store.reader().show(&letter.id).await.as_ref(), Ok(&*letter));
    store.close().await;
    assert_eq!(shows_the_secret(folder(&encrypted)), [""; 0], "after it");
}

#[tokio::test]
async fn a_wrong_key_and_none_are_refused_at_the_start_and_nothing_is_changed() {
    both_places(async |fresh| {
        let store = Store::open(with(&fresh.location, 1, &[])).await.unwrap();
        let letter = letter();
        store.record(&letter).await.unwrap();
        store.close().await;

        let wrong = refused(with(&fresh.location, 2, &[3])).await;
        assert!(matches!(wrong, StoreError::MasterKey { .. }), "{wrong:?}");
        assert!(wrong.to_string().contains("previous_master_keys"), "{wrong}");
        let none = refused((&fresh.location).into()).await;
        assert!(matches!(none, StoreError::Encrypted { .. }), "{none:?}");
        assert!(none.to_string().contains("encryption.master_key"), "{none}");
        let reading = Reader::open(with(&fresh.location, 2, &[])).await.err().unwrap();
        assert!(matches!(reading, StoreError::MasterKey { .. }), "{reading:?}");

        let store = Store::open(with(&fresh.location, 1, &[])).await.unwrap();
        assert_eq!(store.reader().show(&letter.id).await.as_ref(), Ok(&*letter));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn without_a_key_everything_but_the_bodies_can_be_read_and_no_body_written() {
    both_places(async |fresh| {
        let store = Store::open(with(&fresh.location, 1, &[])).await.unwrap();
        let letter = letter();
        store.record(&letter).await.unwrap();

        let reader = Reader::open(&fresh.location).await.unwrap();
        assert!(matches!(reader.show(&letter.id).await, Err(StoreError::Encrypted { .. })));
        let shown = reader.show_readable(&letter.id).await.unwrap();
        assert!(matches!(shown.hidden, Some(StoreError::Encrypted { .. })), "{:?}", shown.hidden);
        assert_eq!(shown.body_bytes, letter.original.body.len() as u64);
        assert_eq!((&shown.kept.letter.id, &shown.kept.letter.error), (&letter.id, &letter.error));
        assert_eq!(shown.kept.letter.original.kind, letter.original.kind);
        assert!(shown.kept.letter.original.body.is_empty() && shown.kept.letter.at_failure.body.is_empty());

        let beside = Store::open_beside(&fresh.location).await.unwrap();
        let failure = beside.record(&super::letter()).await.expect_err("it would be written in the clear");
        assert!(failure.text.contains("no master key"), "{failure:?}");
        beside.close().await;
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_was_kept_before_encryption_stays_readable() {
    both_places(async |fresh| {
        let (before, after) = (letter(), letter());
        let store = fresh.open().await;
        store.record(&before).await.unwrap();
        store.close().await;
        let store = Store::open(with(&fresh.location, 1, &[])).await.unwrap();
        store.record(&after).await.unwrap();
        for letter in [before, after] {
            assert_eq!(store.reader().show(&letter.id).await.as_ref(), Ok(&*letter));
        }
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn rows_of_the_released_schema_stay_readable() {
    let fresh = Fresh::sqlite();
    let store = fresh.open().await;
    let letter = letter();
    store.record(&letter).await.unwrap();
    store.close().await;
    // As the released gateway wrote it: bodies as they came and no word on how.
    let path = folder(&fresh).join(sluicegate_store::STORE_FILE);
    let sql = format!(
        "UPDATE dead_letters SET original_body = x'{}', failing_body = x'{}', body_format = NULL",
        hex(letter.original.body.bytes()),
        hex(letter.at_failure.body.bytes())
    );
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch(&sql).unwrap();
    connection.close().unwrap();
    let store = Store::open(with(&fresh.location, 1, &[])).await.unwrap();
    assert_eq!(store.reader().show(&letter.id).await.as_ref(), Ok(&*letter));
    store.close().await;
}

#[tokio::test]
async fn a_body_moved_to_another_row_is_not_taken_for_its_own() {
    let fresh = Fresh::sqlite();
    let store = Store::open(with(&fresh.location, 1, &[])).await.unwrap();
    let (ours, theirs) = (letter(), letter());
    store.record(&ours).await.unwrap();
    store.record(&theirs).await.unwrap();
    let connection = rusqlite::Connection::open(folder(&fresh).join(sluicegate_store::STORE_FILE)).unwrap();
    let sql =
        "UPDATE dead_letters SET original_body = (SELECT original_body FROM dead_letters WHERE id = $1) WHERE id = $2";
    connection.execute(sql, [&theirs.id, &ours.id]).unwrap();
    let error = store.reader().show(&ours.id).await.expect_err("it is another's body");
    assert!(matches!(&error, StoreError::Damaged { cause, .. } if cause.contains("another's")), "{error:?}");
    assert_eq!(store.reader().show(&theirs.id).await.as_ref(), Ok(&*theirs));
    store.close().await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
