//! Changes, questions and announcements.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::dead_letter::DeadLetters;
use sluicegate_store::{StoreError, testing};
use sluicegate_tests::eventually;

use crate::both::{both, both_places};
use crate::dead_letters::sample;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_question_cannot_write() {
    both(async |store| {
        let refused = testing::select(store, "INSERT INTO gateways (id, seen_at_ms) VALUES ('x', 1) RETURNING 1").await;
        assert!(matches!(refused, Err(StoreError::NotPermitted { .. } | StoreError::ReadOnly { .. })), "{refused:?}");
        assert_eq!(testing::select(store, "SELECT count(*) FROM gateways WHERE id = 'x'").await, Ok(0));
    })
    .await;
}

#[tokio::test]
async fn a_change_that_fails_changes_nothing_and_the_next_one_does() {
    both(async |store| {
        let insert = "INSERT INTO gateways (id, seen_at_ms) VALUES ('a', 32503680000000)";
        assert_eq!(testing::execute(store, insert).await, Ok(1));
        for _ in 0..3 {
            let refused = testing::execute(store, insert).await;
            assert!(matches!(refused, Err(StoreError::Database { .. })), "{refused:?}");
        }
        let refused = testing::execute(store, "INSERT INTO nowhere VALUES (1)").await;
        assert!(matches!(refused, Err(StoreError::Database { .. })), "{refused:?}");
        assert_eq!(testing::execute(store, "DELETE FROM gateways WHERE id = 'a'").await, Ok(1));
    })
    .await;
}

/// Concurrently, so that good ones share transactions with bad ones.
#[tokio::test]
async fn neighbours_of_a_bad_change_are_committed() {
    both(async |store| {
        let mut changes = tokio::task::JoinSet::new();
        for number in 0..200_u32 {
            let store = Arc::clone(store);
            changes.spawn(async move {
                let is_good = number % 10 != 7;
                let id = if is_good { format!("'{number}'") } else { "NULL".to_owned() };
                let sql = format!("INSERT INTO gateways (id, seen_at_ms) VALUES ({id}, 32503680000000)");
                (is_good, testing::execute(&store, &sql).await)
            });
        }
        for (is_good, changed) in changes.join_all().await {
            assert_eq!(changed.is_ok(), is_good, "{changed:?}");
        }
        let count = "SELECT count(*) FROM gateways WHERE seen_at_ms = 32503680000000";
        assert_eq!(testing::select(store, count).await, Ok(180));
    })
    .await;
}

#[tokio::test]
async fn what_is_announced_wakes_this_gateway_once_it_is_committed() {
    both(async |store| {
        let (mut awaited, other) = (testing::subscribe(store, "queue orders"), testing::subscribe(store, "other"));
        let seen = *other.borrow();
        testing::announce(store, "queue orders").await.unwrap();
        tokio::time::timeout(SECOND, awaited.changed()).await.unwrap().unwrap();
        // PostgreSQL's listener wakes everyone once, when it has connected.
        assert!(other.borrow().wrapping_sub(seen) <= 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_announced_wakes_the_other_gateways_within_a_second() {
    let fresh = crate::both::Fresh::postgres().await;
    let (one, other) = (fresh.open().await, fresh.open().await);
    for topic in ["queue orders", "NUL \0 and \u{10} and ä"] {
        let mut awaited = testing::subscribe(&other, topic);
        // Once the listener is there; until then it would only be a matter of luck.
        eventually("the other one listens", Duration::from_secs(10), async || {
            testing::announce(&one, topic).await?;
            anyhow::ensure!(tokio::time::timeout(SECOND / 4, awaited.changed()).await.is_ok(), "nothing heard");
            Ok(())
        })
        .await;
        for _ in 0..20 {
            awaited.mark_unchanged();
            testing::announce(&one, topic).await.unwrap();
            tokio::time::timeout(SECOND, awaited.changed()).await.unwrap().unwrap();
        }
    }
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_closed_store_refuses_and_keeps_what_it_was_given() {
    both_places(async |fresh| {
        let store = Arc::new(fresh.open().await);
        let mut recording = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let store = Arc::clone(&store);
            recording.spawn(async move { store.record(&Arc::new(sample::letter())).await.is_ok() });
        }
        while testing::select(&store, "SELECT count(*) FROM dead_letters").await == Ok(0) {}
        store.close().await;
        let recorded = recording.join_all().await.into_iter().filter(|ok| *ok).count() as u64;
        let refused = store.record(&Arc::new(sample::letter())).await.unwrap_err();
        assert!(refused.text.contains("the store is closed"), "{refused}");
        assert!(matches!(testing::select(&store, "SELECT 1").await, Err(StoreError::Closed { .. })));
        let store = fresh.open().await;
        assert_eq!(store.reader().count(&Default::default()).await, Ok(recorded));
        store.close().await;
    })
    .await;
}
