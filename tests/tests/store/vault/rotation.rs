//! Keys change while messages are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_store::vault::DEFAULT_TENANT;
use sluicegate_store::{Location, Reader, Store, StoreError, StoreOptions};
use sluicegate_tests::eventually;
use tokio::task::JoinHandle;

use super::{key, letter, refused, with};
use crate::both::{Fresh, both_places};

/// Records until it is told to stop; returns what was recorded.
fn record(store: &Arc<Store>, stop: &Arc<AtomicBool>) -> JoinHandle<Vec<Arc<DeadLetter>>> {
    let (store, stop) = (Arc::clone(store), Arc::clone(stop));
    tokio::spawn(async move {
        let mut recorded = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let letter = letter();
            store.record(&letter).await.unwrap();
            recorded.push(letter);
        }
        recorded
    })
}

async fn all_are_there(reader: &Reader, letters: &[Arc<DeadLetter>]) {
    assert!(!letters.is_empty());
    for letter in letters {
        assert_eq!(reader.show(&letter.id).await.as_ref(), Ok(&**letter));
    }
}

async fn versions(reader: &Reader) -> Vec<(u32, bool)> {
    let keys = reader.keys().await.unwrap();
    keys.versions.iter().map(|key| (key.version, key.retired_at_ms.is_none())).collect()
}

#[tokio::test]
async fn a_data_key_is_rotated_beside_a_gateway_that_writes() {
    both_places(async |fresh| {
        let options = with(&fresh.location, 1, &[]);
        let gateway = Arc::new(Store::open(&options).await.unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let recording = record(&gateway, &stop);
        for version in 2..5 {
            let command = Store::open_beside(&options).await.unwrap();
            assert_eq!(command.rotate_key(DEFAULT_TENANT).await, Ok(version));
            // The gateway reads at once what is encrypted with a key it has not seen.
            let letter = letter();
            command.record(&letter).await.unwrap();
            assert_eq!(gateway.reader().show(&letter.id).await.as_ref(), Ok(&*letter));
            command.close().await;
        }
        stop.store(true, Ordering::Relaxed);
        all_are_there(gateway.reader(), &recording.await.unwrap()).await;
        assert_eq!(versions(gateway.reader()).await, [(1, false), (2, false), (3, false), (4, true)]);
        gateway.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_running_gateway_takes_up_a_new_key_by_itself() {
    let fresh = Fresh::sqlite();
    let options = with(&fresh.location, 1, &[]);
    let gateway = Store::open(&options).await.unwrap();
    let command = Store::open_beside(&options).await.unwrap();
    command.rotate_key(DEFAULT_TENANT).await.unwrap();
    command.close().await;
    let Location::Embedded { data_dir } = &fresh.location else { unreachable!("this is SQLite") };
    let connection = rusqlite::Connection::open(data_dir.join(sluicegate_store::STORE_FILE)).unwrap();
    eventually("the new version encrypts", Duration::from_secs(20), async || {
        let letter = letter();
        gateway.record(&letter).await.unwrap();
        let sql = "SELECT original_body FROM dead_letters WHERE id = $1";
        let stored: Vec<u8> = connection.query_row(sql, [&letter.id], |row| row.get(0)).unwrap();
        // The form, the tenant's name after its length, then the version.
        let version = &stored[2 + DEFAULT_TENANT.len()..][..4];
        anyhow::ensure!(version == [0, 0, 0, 2], "version {version:?}");
        Ok(())
    })
    .await;
    gateway.close().await;
}

#[tokio::test]
async fn the_master_key_is_changed_at_a_start() {
    both_places(async |fresh| {
        let old = Arc::new(Store::open(with(&fresh.location, 1, &[])).await.unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let recording = record(&old, &stop);
        old.rotate_key(DEFAULT_TENANT).await.unwrap();
        if matches!(fresh.location, Location::Embedded { .. }) {
            stop.store(true, Ordering::Relaxed);
        }
        let letters = if stop.load(Ordering::Relaxed) {
            let letters = recording.await.unwrap();
            old.close().await;
            let new = Store::open(with(&fresh.location, 2, &[9, 1])).await.unwrap();
            new.close().await;
            letters
        } else {
            // Another gateway starts with the new key while this one writes with the old: its data keys are the same.
            let new = Store::open(with(&fresh.location, 2, &[1])).await.unwrap();
            let letter = letter();
            old.record(&letter).await.unwrap();
            assert_eq!(new.reader().show(&letter.id).await.as_ref(), Ok(&*letter));
            stop.store(true, Ordering::Relaxed);
            let letters = recording.await.unwrap();
            old.close().await;
            new.close().await;
            letters
        };
        let error = refused(with(&fresh.location, 1, &[])).await;
        assert!(matches!(error, StoreError::MasterKey { .. }), "{error:?}");
        let alone = Store::open(with(&fresh.location, 2, &[])).await.unwrap();
        assert_eq!(alone.reader().keys().await.unwrap().master_key, Some(key(2).fingerprint()));
        all_are_there(alone.reader(), &letters).await;
        alone.close().await;
    })
    .await;
}

#[tokio::test]
async fn gateways_that_start_together_make_one_key() {
    let fresh = Fresh::postgres().await;
    let starting: Vec<_> = (0..8)
        .map(|_| {
            let options: StoreOptions = with(&fresh.location, 1, &[]);
            tokio::spawn(async move { Store::open(options).await.unwrap() })
        })
        .collect();
    let mut stores = Vec::new();
    for store in starting {
        stores.push(store.await.unwrap());
    }
    let letter = letter();
    stores[0].record(&letter).await.unwrap();
    for store in &stores {
        assert_eq!(versions(store.reader()).await, [(1, true)]);
        assert_eq!(store.reader().show(&letter.id).await.as_ref(), Ok(&*letter));
    }
    for store in stores {
        store.close().await;
    }
}

#[tokio::test]
async fn each_tenant_has_keys_of_its_own() {
    both_places(async |fresh| {
        let store = Store::open(with(&fresh.location, 1, &[])).await.unwrap();
        assert_eq!(store.ensure_key("acme").await, Ok(1));
        assert_eq!(store.ensure_key("acme").await, Ok(1));
        assert_eq!(store.rotate_key("acme").await, Ok(2));
        let keys = store.reader().keys().await.unwrap();
        let named: Vec<(&str, u32)> = keys.versions.iter().map(|key| (&*key.tenant, key.version)).collect();
        assert_eq!(named, [("acme", 1), ("acme", 2), (DEFAULT_TENANT, 1)]);
        assert!(matches!(store.rotate_key("").await, Err(StoreError::Database { .. })));
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn there_is_nothing_to_rotate_without_encryption() {
    both_places(async |fresh| {
        let store = fresh.open().await;
        assert!(matches!(store.rotate_key(DEFAULT_TENANT).await, Err(StoreError::NotEncrypted { .. })));
        assert_eq!(store.reader().keys().await.unwrap().master_key, None);
        store.close().await;
    })
    .await;
}
