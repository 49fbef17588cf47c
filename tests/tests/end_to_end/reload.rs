//! Reload on SIGHUP: a transaction, under load, that loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::webhook::Webhook;
use sluicegate_tests::{eventually, servers, unique};

use crate::clients::{ARRIVAL_LIMIT, RECOVERY_LIMIT, body, ensure_all, numbers_in_file, open_queue, publish};

/// HTTP to a file of that name, with a step that differs by version.
fn orders(version: usize) -> String {
    format!(
        "pipelines:
  orders:
    source: {{ http: {{ path: /ingest/orders }} }}
    steps: [{{ transform: {{ plugin: jq, config: {{ program: '.version = {version}' }} }} }}]
    targets: {{ log: {{ file: {{ path: out.jsonl }} }} }}
"
    )
}

/// Posts until a line of `file` has the version: the reload is through.
async fn await_version(gateway: &Gateway, version: usize) {
    let client = http_client().expect("a client");
    let out = gateway.folder().join("out.jsonl");
    eventually(&format!("version {version} runs"), RECOVERY_LIMIT, async || {
        let answer = client.post(gateway.url("/ingest/orders")).body(r#"{"number":999999}"#).send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        let lines = std::fs::read_to_string(&out)?;
        ensure!(lines.contains(&format!(r#""version":{version}"#)), "no line has it");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_under_load_refuses_and_loses_nothing() -> Result<()> {
    let gateway = Gateway::start(&orders(0)).await?;
    let (next, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (next, stop, url) = (Arc::clone(&next), Arc::clone(&stop), gateway.url("/ingest/orders"));
            tokio::spawn(async move {
                let client = http_client()?;
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let answer = client.post(&url).body(body(number)).send().await?;
                    let status = answer.status();
                    ensure!(status == 200, "{number} was answered {status}: {}", answer.text().await?);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for version in 1..=5 {
        gateway.reload(&orders(version))?;
        await_version(&gateway, version).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    let posted = next.load(Ordering::Relaxed);
    assert!(posted > 50, "only {posted} messages: that was no load");
    let mut found = numbers_in_file(&gateway.folder().join("out.jsonl"))?;
    found.retain(|number| *number < 999_999);
    ensure_all(&found, 0..posted)?;
    assert_eq!(found.len(), posted, "some were carried twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_read_on_across_reloads() -> Result<()> {
    let broker = servers::rabbitmq().await?;
    let queue = unique("in");
    let config = |version: usize| {
        format!(
            "pipelines:
  orders:
    source: {{ rabbitmq: {{ url: '{}', queue: {queue}, prefetch: 16 }} }}
    steps: [{{ transform: {{ plugin: jq, config: {{ program: '.version = {version}' }} }} }}]
    targets: {{ log: {{ file: {{ path: out.jsonl }} }} }}
",
            broker.url()
        )
    };
    let channel = open_queue(broker, &queue).await?;
    let gateway = Gateway::start(&config(0)).await?;
    let out = gateway.folder().join("out.jsonl");
    for version in 1..=4 {
        let numbers = (version - 1) * 500..version * 500;
        publish(&channel, &queue, numbers.clone()).await?;
        gateway.reload(&config(version))?;
        eventually("all arrive", ARRIVAL_LIMIT, async || ensure_all(&numbers_in_file(&out)?, numbers.clone())).await;
    }
    let found = numbers_in_file(&out)?;
    assert_eq!(found.len(), 2_000, "a drained pipeline has settled what it delivered");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_reload_changes_nothing_and_says_why() -> Result<()> {
    let gateway = Gateway::start(&orders(1)).await?;
    await_version(&gateway, 1).await;
    for (bad, why) in [
        ("pipelines: { orders: { sorce: 1 } }", "sorce"),
        ("pipelines: [", "sluicegate.yaml"),
        (&orders(2).replace(".version = 2", ".version = = 2"), "jq"),
    ] {
        let before = gateway.output().len();
        gateway.reload(bad)?;
        eventually("the gateway says why", RECOVERY_LIMIT, async || {
            let output = gateway.output();
            ensure!(output[before..].contains(why), "it said {}", &output[before..]);
            Ok(())
        })
        .await;
        let answer = http_client()?.post(gateway.url("/ingest/orders")).body(body(1)).send().await?;
        assert_eq!(answer.status(), 200);
        assert_eq!(gateway.status("/ready").await?, 200);
        let last = std::fs::read_to_string(gateway.folder().join("out.jsonl"))?;
        assert!(last.lines().all(|line| line.contains(r#""version":1"#)), "something changed: {last}");
    }
    gateway.reload(&orders(3))?;
    await_version(&gateway, 3).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_target_does_not_block_a_reload_and_unchanged_pipelines_go_on() -> Result<()> {
    let (mut dead, held) = tokio::try_join!(Webhook::start(), Webhook::start())?;
    dead.kill().await;
    held.hold();
    let others = format!(
        "  failing:
    source: {{ http: {{ path: /ingest/failing }} }}
    targets: {{ hook: {{ http: {{ url: '{}' }} }} }}
    retry: {{ max_attempts: 100, initial_delay: 1s, max_delay: 60s }}
  unchanged:
    source: {{ http: {{ path: /ingest/unchanged }} }}
    targets: {{ hook: {{ http: {{ url: '{}', timeout: 60s }} }} }}
",
        dead.url(),
        held.url()
    );
    let gateway = Gateway::start(&format!("{}{others}", orders(1))).await?;
    let post = |path: &str, number: usize| {
        let request = http_client().expect("a client").post(gateway.url(path)).body(body(number));
        tokio::spawn(async move { anyhow::Ok(request.send().await?.status().as_u16()) })
    };
    let failing: Vec<_> = (0..20).map(|number| post("/ingest/failing", number)).collect();
    let in_flight = post("/ingest/unchanged", 1);
    eventually("the webhook has the request", ARRIVAL_LIMIT, async || {
        ensure!(held.received().len() == 1, "it does not");
        Ok(())
    })
    .await;
    // The failing pipeline changes too; what it has in flight cannot hold the new one up.
    let changed = others.replace("max_attempts: 100", "max_attempts: 2");
    gateway.reload(&format!("{}{changed}", orders(2)))?;
    await_version(&gateway, 2).await;
    held.release();
    assert_eq!(in_flight.await??, 200, "a message in flight of an unchanged pipeline");
    assert_eq!(held.received().len(), 1, "it was carried once");
    for answer in failing {
        answer.abort();
    }
    Ok(())
}
