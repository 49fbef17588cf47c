//! The store cannot be written for a while: its PostgreSQL is killed, or another process keeps SQLite locked. Clients are
//! told to come again, nobody is told 202 for what is not kept, and all goes on by itself afterwards.

use anyhow::{Result, ensure};
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::Gateway;
use sluicegate_tests::servers::Postgres;
use sluicegate_tests::webhook::Webhook;

use crate::clients::{ARRIVAL_LIMIT, RECOVERY_LIMIT, in_inbox};
use crate::posting::{Posting, await_all};

fn config(store: Option<&str>, hook: &str) -> String {
    let store = store.map(|url| format!("store: '{url}'\n")).unwrap_or_default();
    format!(
        "{store}pipelines:
  orders:
    source: {{ http: {{ path: /ingest/orders, respond: accepted }} }}
    targets: {{ hook: {{ http: {{ url: '{hook}' }} }} }}
    retry: {{ initial_delay: 50ms, max_delay: 500ms, max_attempts: 1000 }}
    max_in_flight: 32
"
    )
}

/// Waits until admissions are refused.
async fn await_refusals(posting: &Posting) {
    eventually("admissions are refused", ARRIVAL_LIMIT, async || {
        ensure!(!posting.refused().is_empty(), "none is; {} were accepted", posting.accepted());
        Ok(())
    })
    .await;
}

/// Everything goes on, and nothing of it is missing in the end.
async fn ensure_recovered(gateway: &Gateway, store: Option<&str>, hook: &Webhook, posting: Posting) -> Result<()> {
    let before = posting.accepted();
    eventually("messages are accepted again", RECOVERY_LIMIT, async || {
        ensure!(posting.accepted() > before + 100, "{} since then", posting.accepted() - before);
        Ok(())
    })
    .await;
    let odd: Vec<_> = posting.refused().into_keys().filter(|refusal| *refusal != (503, true)).collect();
    ensure!(odd.is_empty(), "refused otherwise than by 503 with Retry-After: {odd:?}");
    let accepted = posting.stop().await;
    await_all(hook, &accepted, ARRIVAL_LIMIT).await;
    eventually("everything is settled", ARRIVAL_LIMIT, async || {
        let waiting = in_inbox(gateway, store).await?;
        ensure!(waiting == 0, "{waiting} wait");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgresql_is_waited_for() -> Result<()> {
    let (mut postgres, hook) = (Postgres::start().await?, Webhook::start().await?);
    let store = postgres.new_database().await?;
    let gateway = Gateway::start(&config(Some(&store), &hook.url())).await?;
    let posting = Posting::start(vec![gateway.url("/ingest/orders")], 8)?;
    posting.await_more(200).await;
    postgres.kill()?;
    await_refusals(&posting).await;
    ensure!(gateway.status("/health").await? == 200 && gateway.status("/metrics").await? == 200);
    ensure!(gateway.status("/api/v1/dead-letters").await? == 503, "nobody can tell what is in the store");
    postgres.restart().await?;
    ensure_recovered(&gateway, Some(&store), &hook, posting).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_sqlite_is_waited_for() -> Result<()> {
    let hook = Webhook::start().await?;
    let gateway = Gateway::start(&config(None, &hook.url())).await?;
    let posting = Posting::start(vec![gateway.url("/ingest/orders")], 8)?;
    posting.await_more(200).await;
    let path = gateway.folder().join("data/sluicegate.sqlite");
    let locking = tokio::task::spawn_blocking(move || {
        let connection = rusqlite::Connection::open(path)?;
        connection.busy_timeout(RECOVERY_LIMIT)?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        anyhow::Ok(connection)
    });
    let locked = locking.await??;
    await_refusals(&posting).await;
    // What only reads goes on.
    ensure!(gateway.status("/api/v1/dead-letters").await? == 200 && gateway.status("/api/v1/messages").await? == 200);
    gateway.command(&["dlq", "list", "--config", "sluicegate.yaml"]).await?;
    tokio::task::spawn_blocking(move || locked.execute_batch("ROLLBACK")).await??;
    ensure_recovered(&gateway, None, &hook, posting).await
}
