//! What is remembered for a while is forgotten after it, in both databases: keys of deduplication and of requests,
//! receipts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluicegate_engine::deduplication::Deduplication;
use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_engine::receipt::{Receipt, Receipts as _};
use sluicegate_store::deduplication::StoreDeduplication;
use sluicegate_store::idempotency::{Idempotency, StoredAnswer};
use sluicegate_store::receipt::{Filter, ReceiptSettings, StoreReceipts};
use sluicegate_store::{Store, testing};
use sluicegate_tests::eventually;

use crate::both::{both, both_places};

const MINUTE_MS: i64 = 60_000;
const PATIENCE: Duration = Duration::from_secs(30);

fn message(id: &str) -> Message {
    Message { id: id.to_owned(), ..Message::new("/test", "test", id.to_owned()) }
}

async fn count(store: &Store, table: &str) -> i64 {
    testing::select(store, &format!("SELECT count(*) FROM {table}")).await.unwrap()
}

async fn only(store: &Store, table: &str, expected: i64) {
    eventually(&format!("{expected} rows are left in {table}"), PATIENCE, async || {
        let found = count(store, table).await;
        anyhow::ensure!(found == expected, "{found}");
        Ok(())
    })
    .await;
}

/// More than are deleted in one step.
const MANY: i64 = 1_200;

#[tokio::test]
async fn keys_go_from_the_disk_once_their_time_is_over_and_not_before() {
    both(async |store| {
        let pipeline: Arc<str> = "orders".into();
        let short = StoreDeduplication::new(Arc::clone(store), &pipeline, Duration::from_secs(60));
        let long = StoreDeduplication::new(Arc::clone(store), &pipeline, Duration::from_secs(3_600));
        for (deduplication, id) in [(&short, "short"), (&long, "long")] {
            deduplication.remember(&message(id)).await.unwrap();
        }
        let (numbers, key) = match testing::is_shared(store) {
            true => (format!("generate_series(1, {MANY}) AS s(n)"), "decode(lpad(to_hex(n), 64, '0'), 'hex')"),
            false => (
                format!(
                    "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {MANY}) SELECT n FROM s)"
                ),
                "CAST(printf('%032d', n) AS BLOB)",
            ),
        };
        let filled = format!(
            "INSERT INTO delivered (pipeline, key_hash, expires_at_ms) \
             SELECT 'other', {key}, (SELECT min(expires_at_ms) FROM delivered) FROM {numbers}"
        );
        assert_eq!(testing::execute(store, &filled).await, Ok(MANY as u64));
        for (key, ttl_secs) in [("short", 60), ("long", 3_600)] {
            let answer = StoredAnswer { status: 202, body: Bytes::from_static(b"{}") };
            let ttl = Duration::from_secs(ttl_secs);
            let conclusion = Idempotency { key: key.into(), fingerprint: [1; 32], answer, ttl };
            assert!(store.conclude(&pipeline, conclusion).await.unwrap());
        }
        // A sweep has gone over them by then.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!((count(store, "delivered").await, count(store, "idempotency").await), (MANY + 2, 2));
        testing::clock(store).set_by(2 * MINUTE_MS);
        only(store, "delivered", 1).await;
        only(store, "idempotency", 1).await;
        assert!(long.was_delivered(&message("long")).await.unwrap());
        assert!(!short.was_delivered(&message("short")).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn receipts_go_by_their_age_also_those_of_a_gateway_that_has_ended() {
    both_places(async |fresh| {
        let record = |receipts: &StoreReceipts, id: &str, began_at_ms: u64| {
            receipts.record(Receipt {
                message: Arc::new(message(id)),
                pipeline: "orders".into(),
                config_version: "v".into(),
                received_at_ms: began_at_ms,
                began_at_ms,
                ended_at_ms: began_at_ms,
                settlement: Settlement::Delivered,
                events: Vec::new(),
            });
        };
        let settings = ReceiptSettings { sample: 1.0, keep: Duration::from_secs(60) };
        let store = Arc::new(fresh.open().await);
        let receipts = StoreReceipts::start(Arc::clone(&store), settings);
        for index in 0..MANY {
            record(&receipts, &format!("m{index}"), now_ms() - 30_000);
        }
        record(&receipts, "young", now_ms() + 120_000);
        receipts.close().await;
        assert_eq!(count(&store, "receipts").await, MANY + 1);
        store.close().await;
        drop(store);

        let store = Arc::new(fresh.open().await);
        let receipts = StoreReceipts::start(Arc::clone(&store), settings);
        // Older than half of their time, and looked at: they stay.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(count(&store, "receipts").await, MANY + 1);
        testing::clock(&store).set_by(MINUTE_MS);
        only(&store, "receipts", 1).await;
        let left = store.reader().receipts(&Filter::default(), 10, None).await.unwrap().receipts;
        assert_eq!(left[0].message_id, "young");
        receipts.close().await;
        store.close().await;
    })
    .await;
}
