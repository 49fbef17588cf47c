//! A queue that Redis keeps, between pipelines: order, bodies byte for byte, groups of their own, and nothing lost when
//! the gateway or Redis is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::servers::Redis;
use sluicegate_tests::webhook::Webhook;
use sluicegate_tests::{eventually, unique};

use crate::clients::{ARRIVAL_LIMIT, numbers_in_file};
use crate::posting::{Posting, await_all};

/// Messages that the webhook holds when the gateway is killed: claimed, and not settled.
const HELD: usize = 8;

/// What is posted goes to a queue that two groups read: one writes to a file, the other sends to a webhook.
fn config(redis: &Redis, queue: &str, hook: &str) -> String {
    format!(
        "queues:
  {queue}: {{ backend: {{ redis: {{ url: '{}' }} }} }}
pipelines:
  in:
    source: {{ http: {{ path: /ingest/orders, respond: accepted, key: {{ header: x-key }} }} }}
    targets: {{ queue: {{ queue: {queue} }} }}
    order_by: key
    retry: {{ initial_delay: 50ms, max_delay: 500ms, max_attempts: 1000 }}
  out:
    source: {{ queue: {queue} }}
    targets: {{ log: {{ file: {{ path: out.jsonl }} }} }}
    order_by: key
    retry: {{ initial_delay: 50ms, max_delay: 500ms, max_attempts: 1000 }}
  audit:
    source: {{ queue: {{ name: {queue}, group: auditors }} }}
    targets: {{ hook: {{ http: {{ url: '{hook}', format: raw }} }} }}
    retry: {{ initial_delay: 50ms, max_delay: 500ms, max_attempts: 1000 }}
",
        redis.url()
    )
}

/// The numbers in the file by key, in the order in which they were written.
fn by_key(file: &Path) -> Result<BTreeMap<u64, Vec<u64>>> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut found = BTreeMap::<u64, Vec<u64>>::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line)?;
        let member = |name: &str| value[name].as_u64().with_context(|| format!("no {name} in {line}"));
        found.entry(member("key")?).or_default().push(member("number")?);
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn order_bodies_and_groups_are_kept() -> Result<()> {
    const KEYS: u64 = 4;
    const PER_KEY: u64 = 50;
    let (redis, hook, queue) = (Redis::start().await?, Webhook::start().await?, unique("orders"));
    let gateway = Gateway::start(&config(&redis, &queue, &hook.url())).await?;
    let url = gateway.url("/ingest/orders");
    // Spaces, escapes and the order of members are the sender's affair.
    let body =
        |key: u64, number: u64| format!("{{ \"number\" :{number},\t\"key\": {key}, \"text\":\"\\u00fcber \\/\" }}\r\n");
    let mut clients = tokio::task::JoinSet::new();
    for key in 0..KEYS {
        let (client, url) = (http_client()?, url.clone());
        clients.spawn(async move {
            for number in 0..PER_KEY {
                let request =
                    client.post(&url).header("x-key", key.to_string()).header("content-type", "application/json");
                let answer = request.body(body(key, number)).send().await?;
                ensure!(answer.status() == 202, "{key}/{number}: {}", answer.status());
            }
            Ok(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let expected: BTreeMap<u64, Vec<u64>> = (0..KEYS).map(|key| (key, (0..PER_KEY).collect())).collect();
    let out = gateway.folder().join("out.jsonl");
    eventually("the file has every message, of each key in order", ARRIVAL_LIMIT, async || {
        let found = by_key(&out)?;
        ensure!(found == expected, "{found:?}");
        Ok(())
    })
    .await;
    // The other group has had all of them, too, as they were sent.
    let sent: BTreeSet<String> = (0..KEYS).flat_map(|key| (0..PER_KEY).map(move |number| body(key, number))).collect();
    eventually("the webhook has every body as it was sent", ARRIVAL_LIMIT, async || {
        let received: Vec<_> = hook.received().into_iter().map(|request| request.body).collect();
        ensure!(received.len() == sent.len(), "{} of {}", received.len(), sent.len());
        let received: BTreeSet<String> =
            received.iter().map(|body| String::from_utf8(body.to_vec())).collect::<Result<_, _>>()?;
        ensure!(received == sent, "{received:?}");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_text_pass_byte_for_byte() -> Result<()> {
    let (redis, hook, queue) = (Redis::start().await?, Webhook::start().await?, unique("blobs"));
    let config = format!(
        "queues: {{ {queue}: {{ backend: {{ redis: {{ url: '{}' }} }} }} }}
pipelines:
  in:
    source: {{ http: {{ path: /ingest/blobs, respond: accepted, format: raw }} }}
    targets: {{ queue: {{ queue: {queue} }} }}
  out:
    source: {{ queue: {queue} }}
    targets: {{ hook: {{ http: {{ url: '{}', format: raw }} }} }}
",
        redis.url(),
        hook.url()
    );
    let gateway = Gateway::start(&config).await?;
    let large: Vec<u8> = (0..500_000_u32).map(|n| n.wrapping_mul(2_654_435_761) as u8).collect();
    let bodies: [Vec<u8>; 5] = [(0..=255).collect(), vec![0; 3], b"\r\n\r\n".to_vec(), vec![0xff, 0xfe, 0xfd], large];
    for body in &bodies {
        let request = http_client()?.post(gateway.url("/ingest/blobs")).body(body.clone());
        let answer = request.header("content-type", "application/octet-stream").send().await?;
        ensure!(answer.status() == 202, "{} bytes: {}", body.len(), answer.status());
    }
    let expected: BTreeSet<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    eventually("all arrive as they were", ARRIVAL_LIMIT, async || {
        let received = hook.received();
        let found: BTreeSet<&[u8]> = received.iter().map(|request| &request.body[..]).collect();
        ensure!(
            found == expected,
            "lengths: {:?}",
            received.iter().map(|request| request.body.len()).collect::<Vec<_>>()
        );
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_gateway_and_redis_are_killed() -> Result<()> {
    let (mut redis, hook, queue) = (Redis::start().await?, Webhook::start().await?, unique("orders"));
    let mut gateway = Gateway::start(&config(&redis, &queue, &hook.url())).await?;
    let posting = Posting::start(vec![gateway.url("/ingest/orders")], 8)?;
    for _ in 0..2 {
        posting.await_more(150).await;
        hook.hold();
        eventually("messages are under way to the webhook", ARRIVAL_LIMIT, async || {
            let held = hook.received().iter().filter(|request| !request.answered).count();
            ensure!(held >= HELD, "{held}");
            Ok(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..200))).await;
        gateway.kill()?;
        hook.release();
        gateway.restart().await?;
        posting.await_more(150).await;
        redis.kill()?;
        redis.restart().await?;
    }
    posting.await_more(150).await;
    let accepted = posting.stop().await;
    await_all(&hook, &accepted, ARRIVAL_LIMIT).await;
    let out = gateway.folder().join("out.jsonl");
    eventually("the other group has everything", ARRIVAL_LIMIT, async || {
        let found: BTreeSet<usize> = numbers_in_file(&out)?.into_iter().collect();
        let missing = accepted.difference(&found).count();
        ensure!(missing == 0, "{missing} of {} are missing", accepted.len());
        Ok(())
    })
    .await;
    Ok(())
}
