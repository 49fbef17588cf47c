//! Something breaks while messages flow: nothing acknowledged is lost, and messages flow again by themselves.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use lapin::options::QueueDeleteOptions;
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::servers::{self, RabbitMq, Redis};
use sluicegate_tests::webhook::Webhook;
use sluicegate_tests::{eventually, unique};

use crate::clients::{
    ARRIVAL_LIMIT, RECOVERY_LIMIT, add, await_stream, body, ensure_all, numbers_in_file, numbers_in_stream, open_queue,
    publish,
};

/// RabbitMQ to Redis, with a filter in between.
fn queue_to_stream(broker: &RabbitMq, queue: &str, redis: &Redis, stream: &str) -> String {
    format!(
        "pipelines:
  carry:
    source: {{ rabbitmq: {{ url: '{}', queue: {queue}, heartbeat: 1s }} }}
    steps: [{{ filter: {{ plugin: jq, config: {{ program: '.number >= 0' }} }} }}]
    targets: {{ out: {{ redis: {{ url: '{}', stream: {stream}, timeout: 2s }} }} }}
    max_in_flight: 64
",
        broker.url(),
        redis.url()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn both_brokers_die_one_after_the_other() -> Result<()> {
    let (mut broker, mut redis) = tokio::try_join!(RabbitMq::start(), Redis::start())?;
    let (queue, stream) = (unique("in"), unique("out"));
    let channel = open_queue(&broker, &queue).await?;
    let gateway = Gateway::start(&queue_to_stream(&broker, &queue, &redis, &stream)).await?;

    publish(&channel, &queue, 0..2_000).await?;
    await_stream(&redis, &stream, 0..50, ARRIVAL_LIMIT).await;
    broker.kill()?;
    broker.restart().await?;
    await_stream(&redis, &stream, 0..2_000, ARRIVAL_LIMIT).await;

    let channel = open_queue(&broker, &queue).await?;
    publish(&channel, &queue, 2_000..4_000).await?;
    await_stream(&redis, &stream, 2_000..2_050, ARRIVAL_LIMIT).await;
    redis.kill()?;
    redis.restart().await?;
    await_stream(&redis, &stream, 0..4_000, ARRIVAL_LIMIT).await;
    assert_eq!(gateway.status("/ready").await?, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_is_left_and_found_again() -> Result<()> {
    let (mut broker, redis) = tokio::try_join!(RabbitMq::start(), servers::redis())?;
    let (queue, stream) = (unique("in"), unique("out"));
    let channel = open_queue(&broker, &queue).await?;
    let mut gateway = Gateway::start(&queue_to_stream(&broker, &queue, redis, &stream)).await?;
    publish(&channel, &queue, 0..100).await?;
    await_stream(redis, &stream, 0..100, ARRIVAL_LIMIT).await;
    broker.pause()?;
    // Nothing is closed: only missing heartbeats (1 s) tell.
    gateway.await_status("/ready", 503, RECOVERY_LIMIT).await?;
    broker.resume()?;
    gateway.await_status("/ready", 200, RECOVERY_LIMIT).await?;
    let channel = open_queue(&broker, &queue).await?;
    publish(&channel, &queue, 100..200).await?;
    await_stream(redis, &stream, 0..200, RECOVERY_LIMIT).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_deleted_while_running_is_declared_again() -> Result<()> {
    let (broker, redis) = tokio::try_join!(servers::rabbitmq(), servers::redis())?;
    let (queue, stream) = (unique("in"), unique("out"));
    let channel = open_queue(broker, &queue).await?;
    let _gateway = Gateway::start(&queue_to_stream(broker, &queue, redis, &stream)).await?;
    publish(&channel, &queue, 0..100).await?;
    await_stream(redis, &stream, 0..100, ARRIVAL_LIMIT).await;
    channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    // Mandatory: taken only once the gateway has declared the queue again.
    eventually("the queue is there again", RECOVERY_LIMIT, async || publish(&channel, &queue, 100..101).await).await;
    publish(&channel, &queue, 101..200).await?;
    await_stream(redis, &stream, 0..200, RECOVERY_LIMIT).await;
    Ok(())
}

fn stream_to_file(redis: &Redis, stream: &str) -> String {
    format!(
        "pipelines:
  carry:
    source: {{ redis: {{ url: '{}', stream: {stream}, claim_after: 1s }} }}
    targets: {{ out: {{ file: {{ path: out.jsonl }} }} }}
",
        redis.url()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_or_stream_deleted_while_running_is_created_again() -> Result<()> {
    let redis = servers::redis().await?;
    let stream = unique("in");
    let mut client = redis.connect().await?;
    let gateway = Gateway::start(&stream_to_file(redis, &stream)).await?;
    let out = gateway.folder().join("out.jsonl");
    let arrive = async |numbers: std::ops::Range<usize>| {
        eventually("they arrive", RECOVERY_LIMIT, async || ensure_all(&numbers_in_file(&out)?, numbers.clone())).await;
    };
    add(&mut client, &stream, 0..100).await?;
    arrive(0..100).await;
    let destroyed: u64 = redis::cmd("XGROUP").arg("DESTROY").arg(&stream).arg("carry").query_async(&mut client).await?;
    assert_eq!(destroyed, 1, "the group is not called like the pipeline");
    add(&mut client, &stream, 100..200).await?;
    arrive(100..200).await;
    redis::cmd("DEL").arg(&stream).exec_async(&mut client).await?;
    add(&mut client, &stream, 200..300).await?;
    arrive(200..300).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_again_and_again_loses_nothing() -> Result<()> {
    let (broker, redis) = tokio::try_join!(servers::rabbitmq(), servers::redis())?;
    let (queue, stream) = (unique("in"), unique("out"));
    let channel = open_queue(broker, &queue).await?;
    let mut gateway = Gateway::start(&queue_to_stream(broker, &queue, redis, &stream)).await?;
    publish(&channel, &queue, 0..6_000).await?;
    for already in [100, 1_500, 3_000] {
        eventually("some have arrived", ARRIVAL_LIMIT, async || {
            let arrived = numbers_in_stream(redis, &stream).await?.len();
            ensure!(arrived >= already, "{arrived} of {already}");
            Ok(())
        })
        .await;
        gateway.kill()?;
        gateway.restart().await?;
    }
    await_stream(redis, &stream, 0..6_000, ARRIVAL_LIMIT).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_while_it_reads_a_stream_goes_on_where_it_was() -> Result<()> {
    let redis = servers::redis().await?;
    let stream = unique("in");
    let mut client = redis.connect().await?;
    add(&mut client, &stream, 0..5_000).await?;
    let mut gateway = Gateway::start(&stream_to_file(redis, &stream)).await?;
    let out = gateway.folder().join("out.jsonl");
    for already in [100, 2_000] {
        eventually("some have arrived", ARRIVAL_LIMIT, async || {
            let arrived = numbers_in_file(&out)?.len();
            ensure!(arrived >= already, "{arrived} of {already}");
            Ok(())
        })
        .await;
        gateway.kill()?;
        gateway.restart().await?;
    }
    eventually("all arrive", ARRIVAL_LIMIT, async || ensure_all(&numbers_in_file(&out)?, 0..5_000)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_200_is_there_after_a_kill() -> Result<()> {
    let config = "
pipelines:
  orders:
    source: { http: { path: /ingest/orders } }
    targets: { log: { file: { path: out.jsonl } } }
";
    let mut gateway = Gateway::start(config).await?;
    let (next, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (next, stop, url) = (Arc::clone(&next), Arc::clone(&stop), gateway.url("/ingest/orders"));
            tokio::spawn(async move {
                let (client, mut accepted) = (http_client()?, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let answer = client.post(&url).body(body(number)).send().await;
                    if answer.is_ok_and(|answer| answer.status() == 200) {
                        accepted.push(number);
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
                anyhow::Ok(accepted)
            })
        })
        .collect();
    let out = gateway.folder().join("out.jsonl");
    for already in [100, 300, 500] {
        eventually("some have arrived", ARRIVAL_LIMIT, async || {
            let arrived = numbers_in_file(&out)?.len();
            ensure!(arrived >= already, "{arrived} of {already}");
            Ok(())
        })
        .await;
        gateway.kill()?;
        gateway.restart().await?;
    }
    stop.store(true, Ordering::Relaxed);
    let mut accepted = Vec::new();
    for client in clients {
        accepted.extend(client.await??);
    }
    let found: HashSet<usize> = numbers_in_file(&out)?.into_iter().collect();
    for number in accepted {
        assert!(found.contains(&number), "{number} was answered 200 and is lost");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_target_does_not_slow_the_others() -> Result<()> {
    let mut webhook = Webhook::start().await?;
    let gateway = Gateway::start(&format!(
        "pipelines:
  orders:
    source: {{ http: {{ path: /ingest/orders }} }}
    steps: [{{ route: {{ plugin: jq, config: {{ program: 'if .number >= 1000 then \"hook\" else \"log\" end' }} }} }}]
    targets: {{ hook: {{ http: {{ url: '{}' }} }}, log: {{ file: {{ path: out.jsonl }} }} }}
    retry: {{ max_attempts: 4, initial_delay: 500ms, max_delay: 2s, factor: 2 }}
",
        webhook.url()
    ))
    .await?;
    let url = gateway.url("/ingest/orders");
    let client = http_client()?;
    webhook.kill().await;
    let to_the_dead: Vec<_> = (1_000..1_100)
        .map(|number| {
            let request = client.post(&url).body(body(number));
            tokio::spawn(async move { anyhow::Ok(request.send().await?.status().as_u16()) })
        })
        .collect();
    eventually("messages for the dead target are parked", ARRIVAL_LIMIT, async || {
        ensure!(gateway.metric("sluicegate_messages_parked_total", &[]).await? > 0.0, "none is");
        Ok(())
    })
    .await;
    for number in 0..100 {
        let start = Instant::now();
        let answer = client.post(&url).body(body(number)).send().await?;
        assert_eq!(answer.status(), 200);
        assert!(start.elapsed().as_secs() < 2, "{number} took {:?} beside a dead target", start.elapsed());
    }
    ensure_all(&numbers_in_file(&gateway.folder().join("out.jsonl"))?, 0..100)?;
    // Those for the dead one are kept, 202, or told to come back: 503 with a dead letter, 429.
    let mut kept = Vec::new();
    for (number, answer) in (1_000..).zip(to_the_dead) {
        match answer.await?? {
            202 => kept.push(number),
            status => assert!([429, 503].contains(&status), "{status}"),
        }
    }
    assert!(!kept.is_empty());
    webhook.restart().await?;
    eventually("what was kept is delivered", ARRIVAL_LIMIT, async || {
        let received = webhook.received();
        let missing =
            kept.iter().filter(|number| !received.iter().any(|request| request.body == body(**number))).count();
        ensure!(missing == 0, "{missing} are missing");
        Ok(())
    })
    .await;
    eventually("the target is used again", RECOVERY_LIMIT, async || {
        let status = client.post(&url).body(body(2_000)).send().await?.status().as_u16();
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await;
    assert!(webhook.received().iter().any(|request| request.body == body(2_000)));
    Ok(())
}
