//! A backup is made under load, and what comes back is what was acknowledged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluicegate_engine::dead_letter::DeadLetters;
use sluicegate_store::backup::{BackupError, MANIFEST_FILE, back_up, manifest, restore};
use sluicegate_store::{Location, STORE_FILE, Store, StoreError};
use tempfile::TempDir;

use super::{key, letter, with};

const NOW: &str = "2026-11-20T20:00:00Z";

async fn make(data_dir: &Path, destination: &Path) -> Result<(), BackupError> {
    let (data_dir, destination) = (data_dir.to_owned(), destination.to_owned());
    let made = tokio::task::spawn_blocking(move || {
        let mut last = None;
        let made = back_up(&data_dir, &destination, NOW, &mut |now| last = Some(now));
        if made.is_ok() {
            assert!(last.is_some_and(|last| last.done_bytes == last.total_bytes && last.total_bytes > 0));
        }
        made
    });
    made.await.unwrap().map(drop)
}

fn bring_back(backup: &Path, data_dir: &Path, is_forced: bool, stamp: &str) -> Result<(), BackupError> {
    restore(backup, data_dir, is_forced, stamp, &mut |_| ()).map(drop)
}

/// A backup of one letter.
async fn small() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let store = Store::open(&Location::embedded(&data_dir)).await.unwrap();
    let letter = letter();
    store.record(&letter).await.unwrap();
    std::fs::create_dir(data_dir.join("checkpoints")).unwrap();
    std::fs::write(data_dir.join("checkpoints/orders.json"), "{\"offset\":7}").unwrap();
    make(&data_dir, &folder.path().join("backup")).await.unwrap();
    store.close().await;
    (folder, letter.id.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_acknowledged_before_a_backup_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, backup, restored) =
        (folder.path().join("data"), folder.path().join("backup"), folder.path().join("restored"));
    let store = Arc::new(Store::open(with(&Location::embedded(&data_dir), 1, &[])).await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let (first, mut recorded) = tokio::sync::mpsc::channel(100_000);
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (store, stop, first) = (Arc::clone(&store), Arc::clone(&stop), first.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let letter = letter();
                    store.record(&letter).await.unwrap();
                    first.send(letter).await.unwrap();
                }
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 2_000 {
        acknowledged.push(recorded.recv().await.unwrap());
    }
    make(&data_dir, &backup).await.unwrap();
    let mut meanwhile = 0;
    while recorded.try_recv().is_ok() {
        meanwhile += 1;
    }
    assert!(meanwhile > 0, "writers go on while a backup is made");
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    store.close().await;

    assert_eq!(manifest(&backup).unwrap().master_key, Some(key(1).fingerprint()));
    bring_back(&backup, &restored, false, "1").unwrap();
    let store = Store::open(with(&Location::embedded(&restored), 1, &[])).await.unwrap();
    for letter in &acknowledged {
        assert_eq!(store.reader().show(&letter.id).await.as_ref(), Ok(&**letter));
    }
    store.close().await;
}

#[tokio::test]
async fn checkpoints_come_back_and_what_was_there_is_kept_aside() {
    let (folder, id) = small().await;
    let (data_dir, backup) = (folder.path().join("data"), folder.path().join("backup"));
    std::fs::write(data_dir.join("checkpoints/orders.json"), "{\"offset\":99}").unwrap();
    let refused = bring_back(&backup, &data_dir, false, "1").expect_err("it is not empty");
    assert!(matches!(refused, BackupError::NotEmpty { .. }) && refused.to_string().contains("--force"), "{refused}");
    bring_back(&backup, &data_dir, true, "1").unwrap();
    bring_back(&backup, &data_dir, true, "2").unwrap();
    let read = |path: &str| std::fs::read_to_string(data_dir.join(path)).unwrap();
    assert_eq!(read("checkpoints/orders.json"), "{\"offset\":7}");
    assert_eq!(read("before-restore-1/checkpoints/orders.json"), "{\"offset\":99}");
    assert_eq!(read("before-restore-2/checkpoints/orders.json"), "{\"offset\":7}");
    let store = Store::open(&Location::embedded(&data_dir)).await.unwrap();
    store.reader().show(&id).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_damaged_backup_is_refused_and_nothing_is_touched() {
    let (folder, _) = small().await;
    let (data_dir, backup) = (folder.path().join("data"), folder.path().join("backup"));
    let before = std::fs::read(data_dir.join(STORE_FILE)).unwrap();
    for file in [STORE_FILE, "checkpoints/orders.json"] {
        let whole = std::fs::read(backup.join(file)).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [&flipped[..], &whole[..whole.len() - 1]] {
            std::fs::write(backup.join(file), damaged).unwrap();
            let refused = bring_back(&backup, &data_dir, true, "1").expect_err("it is damaged");
            assert!(matches!(refused, BackupError::Damaged { .. }), "{refused:?}");
        }
        std::fs::write(backup.join(file), whole).unwrap();
    }
    let manifest = std::fs::read_to_string(backup.join(MANIFEST_FILE)).unwrap();
    for wrong in [
        manifest[1..].to_owned(),
        manifest.replace("checkpoints/orders.json", "../orders.json"),
        manifest.replace(STORE_FILE, "/etc/passwd"),
    ] {
        std::fs::write(backup.join(MANIFEST_FILE), wrong).unwrap();
        let refused = bring_back(&backup, &data_dir, true, "1").expect_err("it is no manifest of ours");
        assert!(matches!(refused, BackupError::Manifest { .. }), "{refused:?}");
    }
    std::fs::write(backup.join(MANIFEST_FILE), manifest.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let refused = bring_back(&backup, &data_dir, true, "1").expect_err("it is a newer program's");
    assert!(matches!(refused, BackupError::Newer { .. }), "{refused:?}");
    assert_eq!(std::fs::read(data_dir.join(STORE_FILE)).unwrap(), before);
    let mut names: Vec<_> = std::fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["checkpoints", "gateway.lock", STORE_FILE]);
}

#[tokio::test]
async fn a_running_gateway_is_not_overwritten() {
    let (folder, id) = small().await;
    let (data_dir, backup) = (folder.path().join("data"), folder.path().join("backup"));
    let store = Store::open(&Location::embedded(&data_dir)).await.unwrap();
    let refused = bring_back(&backup, &data_dir, true, "1").expect_err("a gateway runs");
    assert!(matches!(refused, BackupError::Store(StoreError::InUse { .. })), "{refused:?}");
    store.reader().show(&id).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn an_interrupted_restoration_lets_no_gateway_start_until_it_is_repeated() {
    let (folder, id) = small().await;
    let (data_dir, backup) = (folder.path().join("data"), folder.path().join("backup"));
    // As a kill between the moves leaves it: the old store is aside, the new one not yet in its place.
    std::fs::write(data_dir.join("restore.unfinished"), "").unwrap();
    std::fs::create_dir(data_dir.join(".restore-0")).unwrap();
    std::fs::remove_file(data_dir.join(STORE_FILE)).unwrap();
    let location = Location::embedded(&data_dir);
    let refused = Store::open(&location).await.expect_err("it does not start");
    assert!(matches!(&refused, StoreError::Unfinished { .. }), "{refused:?}");
    bring_back(&backup, &data_dir, true, "1").unwrap();
    assert!(!data_dir.join(".restore-0").exists());
    let store = Store::open(&location).await.unwrap();
    store.reader().show(&id).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_destination_that_is_there_is_left_alone_and_a_failure_leaves_nothing_behind() {
    let (folder, _) = small().await;
    let backup = folder.path().join("backup");
    let refused = make(&folder.path().join("data"), &backup).await.expect_err("it is there");
    assert!(matches!(refused, BackupError::Exists { .. }), "{refused:?}");
    let refused = make(&folder.path().join("nowhere"), &folder.path().join("other")).await.expect_err("no store");
    assert!(matches!(refused, BackupError::Store(StoreError::Missing { .. })), "{refused:?}");
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["backup", "data"]);
}
