//! A PostgreSQL that dies and comes back.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::dead_letter::DeadLetters;
use sluicegate_engine::failure::FailureKind;
use sluicegate_store::testing;
use sluicegate_tests::eventually;
use sluicegate_tests::servers::Postgres;

use crate::both::Fresh;
use crate::dead_letters::sample;

const RECOVERY: Duration = Duration::from_secs(30);

#[tokio::test]
async fn nothing_acknowledged_is_lost_with_a_killed_server_and_all_recovers_with_it() {
    let mut server = Postgres::start().await.unwrap();
    let fresh = Fresh::postgres_on(server.url()).await;
    let (store, other) = (Arc::new(fresh.open().await), fresh.open().await);
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        // Several at once, until each has been refused: the server dies under them.
        let mut recording = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let store = Arc::clone(&store);
            recording.spawn(async move {
                let mut recorded = Vec::new();
                loop {
                    let letter = Arc::new(sample::letter());
                    match store.record(&letter).await {
                        Ok(()) => recorded.push(letter.id.clone()),
                        Err(failure) => return (recorded, failure),
                    }
                }
            });
        }
        eventually("some are recorded", RECOVERY, async || {
            let count = store.reader().count(&Default::default()).await?;
            anyhow::ensure!(count > 100 * (round + 1), "{count}");
            Ok(())
        })
        .await;
        server.kill().unwrap();
        for (recorded, failure) in recording.join_all().await {
            assert_eq!(failure.kind, FailureKind::Transient { retry_after: None }, "{failure}");
            acknowledged.extend(recorded);
        }
        let refused = store.record(&Arc::new(sample::letter())).await.unwrap_err();
        assert!(refused.text.contains("see that PostgreSQL runs"), "{refused}");
        store.reader().count(&Default::default()).await.unwrap_err();

        let mut awaited = testing::subscribe(&other, "news");
        server.restart().await.unwrap();
        let count =
            eventually("reads recover", RECOVERY, async || Ok(store.reader().count(&Default::default()).await?)).await;
        assert!(count >= acknowledged.len() as u64);
        for id in &acknowledged {
            store.reader().show(id).await.unwrap_or_else(|error| panic!("acknowledged, then lost: {error}"));
        }
        eventually("changes recover", RECOVERY, async || {
            anyhow::ensure!(testing::announce(&store, "news").await.is_ok(), "refused");
            Ok(())
        })
        .await;
        // Missed or not, a listener that is back wakes everyone.
        tokio::time::timeout(RECOVERY, awaited.changed()).await.unwrap().unwrap();
    }
    store.close().await;
    other.close().await;
}
