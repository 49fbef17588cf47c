//! What the gateway has accepted it keeps: through SIGKILL, restarts, dead targets and the death of another gateway.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::servers;
use sluicegate_tests::webhook::Webhook;

use crate::clients::{ARRIVAL_LIMIT, body, ensure_all, numbers_in_file};
use crate::posting::{Posting, await_all};

/// Ingestion answered 202, to a webhook.
fn spooled(store: Option<&str>, hook: &str) -> String {
    let store = store.map(|url| format!("store: '{url}'\n")).unwrap_or_default();
    format!(
        "{store}pipelines:
  orders:
    source: {{ http: {{ path: /ingest/orders, respond: accepted }} }}
    targets: {{ hook: {{ http: {{ url: '{hook}' }} }} }}
    retry: {{ initial_delay: 50ms, max_delay: 500ms, max_attempts: 1000 }}
    max_in_flight: 64
"
    )
}

async fn killed_again_and_again(store: Option<String>) -> Result<()> {
    const ROUNDS: usize = 6;
    let hook = Webhook::start().await?;
    let mut gateway = Gateway::start(&spooled(store.as_deref(), &hook.url())).await?;
    let posting = Posting::start(vec![gateway.url("/ingest/orders")], 16)?;
    for _ in 0..ROUNDS {
        posting.await_more(200).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..300))).await;
        gateway.kill()?;
        gateway.restart().await?;
    }
    posting.await_more(200).await;
    let accepted = posting.stop().await;
    assert!(accepted.len() >= ROUNDS * 200, "{}", accepted.len());
    await_all(&hook, &accepted, ARRIVAL_LIMIT).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_202_survives_kill_9_again_and_again_in_the_embedded_store() -> Result<()> {
    killed_again_and_again(None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_202_survives_kill_9_again_and_again_in_postgresql() -> Result<()> {
    killed_again_and_again(Some(servers::postgres().await?.new_database().await?)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_share_the_work_and_one_takes_over_when_the_other_dies() -> Result<()> {
    let database = servers::postgres().await?.new_database().await?;
    let hook = Webhook::start().await?;
    let config = spooled(Some(&database), &hook.url());
    let (mut first, second) = tokio::try_join!(Gateway::start(&config), Gateway::start(&config))?;
    let posting = Posting::start(vec![first.url("/ingest/orders"), second.url("/ingest/orders")], 16)?;
    posting.await_more(500).await;
    for gateway in [&first, &second] {
        eventually("both carry messages", ARRIVAL_LIMIT, async || {
            let settled = gateway.metric("sluicegate_messages_settled_total", &["settlement=\"delivered\""]).await?;
            ensure!(settled > 0.0, "one of them delivers nothing");
            Ok(())
        })
        .await;
    }
    // With answers held back, both have messages in flight.
    hook.hold();
    posting.await_more(300).await;
    first.kill()?;
    let accepted = posting.stop().await;
    hook.release();
    // What the dead one had claimed is free after the lease's term of 10 s.
    await_all(&hook, &accepted, Duration::from_secs(60)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_target_holds_neither_its_source_nor_the_other_targets() -> Result<()> {
    let mut hook = Webhook::start().await?;
    let config = format!(
        "pipelines:
  orders:
    source: {{ file: {{ path: in.jsonl, follow: true }} }}
    targets:
      out: {{ file: {{ path: out.jsonl }} }}
      hook: {{ http: {{ url: '{}' }} }}
    retry: {{ initial_delay: 50ms, max_delay: 1s, max_attempts: 1000 }}
    max_in_flight: 32
",
        hook.url()
    );
    let folder = sluicegate_tests::gateway::new_folder()?;
    let lines: String = (0..2_000).map(|number| body(number) + "\n").collect();
    std::fs::write(folder.path().join("in.jsonl"), lines)?;
    hook.kill().await;
    let mut gateway = Gateway::start_in(folder, &config).await?;
    let out = gateway.folder().join("out.jsonl");
    eventually("the living target has everything", ARRIVAL_LIMIT, async || {
        ensure_all(&numbers_in_file(&out)?, 0..2_000)
    })
    .await;
    // The source is through; what the dead target has not is in the inbox, and survives.
    gateway.kill()?;
    gateway.restart().await?;
    hook.restart().await?;
    await_all(&hook, &(0..2_000).collect(), ARRIVAL_LIMIT).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_message_waits_out_its_time_over_a_restart() -> Result<()> {
    let hook = Webhook::start().await?;
    hook.answer_next_with_retry_after(503, 6);
    let mut gateway = Gateway::start(&spooled(None, &hook.url()).replace("max_delay: 500ms", "max_delay: 60s")).await?;
    let began = Instant::now();
    let answer = http_client()?.post(gateway.url("/ingest/orders")).body(body(1)).send().await?;
    assert_eq!(answer.status(), 202);
    eventually("it was refused once", ARRIVAL_LIMIT, async || {
        ensure!(hook.received().len() == 1, "{} requests", hook.received().len());
        Ok(())
    })
    .await;
    // It is parked, not held: the settlement that replaces its entry is made before long.
    gateway.await_output("trying again in", ARRIVAL_LIMIT).await;
    gateway.stop().await?;
    gateway.restart().await?;
    await_all(&hook, &BTreeSet::from([1]), Duration::from_secs(30)).await;
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(6), "hastened: {waited:?}");
    assert_eq!(hook.received().len(), 2, "no try was lost and none was made twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn repetitions_of_what_was_delivered_are_dropped() -> Result<()> {
    let hook = Webhook::start().await?;
    let config = spooled(None, &hook.url()) + "    deduplicate: 1h\n";
    let mut gateway = Gateway::start(&config).await?;
    let client = http_client()?;
    let post = async |gateway: &Gateway, id: &str| {
        let event = format!(r#"{{"specversion":"1.0","id":"{id}","source":"/test","type":"t","data":{{"number":1}}}}"#);
        let request = client.post(gateway.url("/ingest/orders?wait=delivered")).body(event);
        let answer = request.header("content-type", "application/cloudevents+json").send().await?;
        anyhow::Ok((answer.status().as_u16(), serde_json::from_str::<Value>(&answer.text().await?)?["status"].clone()))
    };
    assert_eq!(post(&gateway, "a").await?, (200, "delivered".into()));
    assert_eq!(post(&gateway, "a").await?, (200, "filtered".into()));
    gateway.kill()?;
    gateway.restart().await?;
    assert_eq!(post(&gateway, "a").await?, (200, "filtered".into()), "remembered over a restart");
    assert_eq!(post(&gateway, "b").await?, (200, "delivered".into()));
    assert_eq!(hook.received().len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_answered_the_same_over_a_restart() -> Result<()> {
    let hook = Webhook::start().await?;
    let mut gateway = Gateway::start(&spooled(None, &hook.url())).await?;
    let client = http_client()?;
    let post = async |gateway: &Gateway, number: usize| {
        let request = client.post(gateway.url("/ingest/orders")).header("idempotency-key", "k-1").body(body(number));
        let answer = request.send().await?;
        anyhow::Ok((answer.status().as_u16(), serde_json::from_str::<Value>(&answer.text().await?)?["id"].clone()))
    };
    let first = post(&gateway, 1).await?;
    assert_eq!(first.0, 202);
    assert_eq!(post(&gateway, 1).await?, first);
    gateway.kill()?;
    gateway.restart().await?;
    assert_eq!(post(&gateway, 1).await?, first);
    assert_eq!(post(&gateway, 2).await?.0, 422, "another body under the same key");
    await_all(&hook, &BTreeSet::from([1]), ARRIVAL_LIMIT).await;
    // What was delivered at the moment of SIGKILL may come again, as the same message.
    let ids: BTreeSet<Option<Vec<u8>>> = hook
        .received()
        .iter()
        .map(|request| request.headers.get("webhook-id").map(|id| id.as_bytes().to_vec()))
        .collect();
    assert_eq!(ids.len(), 1, "one message was made of three requests");
    Ok(())
}
