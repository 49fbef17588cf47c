//! Managed queues through the real binary: declared, published to over HTTP, read by a pipeline, over a kill.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::{Gateway, http_client};

use crate::clients::ARRIVAL_LIMIT;

const CONFIG: &str = "
schemas:
  order: { inline: { required: [number] } }
queues:
  orders: { schema: order }
  waiting: {}
pipelines:
  orders:
    source: { queue: orders }
    targets: { log: { file: { path: out.jsonl } } }
";

/// `METHOD /api/v1/mq…` answers this status; its body.
async fn call(gateway: &Gateway, method: &str, path: &str, body: Value, status: u16) -> Result<Value> {
    let url = gateway.url(&format!("/api/v1/mq{path}"));
    let mut request = http_client()?.request(method.parse()?, url);
    if !body.is_null() {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let answer = request.send().await?;
    let (found, text) = (answer.status(), answer.text().await?);
    ensure!(found == status, "{method} {path} is answered {found}: {text}");
    Ok(serde_json::from_str(&text)?)
}

/// The numbers in the pipeline's file, in order.
fn written(gateway: &Gateway) -> Result<Vec<u64>> {
    let text = match std::fs::read_to_string(gateway.folder().join("out.jsonl")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    text.lines().map(|line| serde_json::from_str::<Value>(line)?["number"].as_u64().context("a number")).collect()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_over_http_comes_out_of_the_pipeline() -> Result<()> {
    let gateway = Gateway::start(CONFIG).await?;
    let order = |number: u64| json!({ "queue": "orders", "data": { "number": number } });
    call(&gateway, "POST", "/publish", order(1), 201).await?;
    let batch = json!({ "queue": "orders", "messages": [{ "data": { "number": 2 } }, { "data": { "number": 3 } }] });
    call(&gateway, "POST", "/publish/batch", batch, 201).await?;
    let refused = call(&gateway, "POST", "/publish", json!({ "queue": "orders", "data": {} }), 422).await?;
    ensure!(refused["code"] == "MQ_SCHEMA_VIOLATION", "{refused}");
    eventually("all come out", ARRIVAL_LIMIT, async || {
        let mut numbers = written(&gateway)?;
        numbers.sort_unstable();
        ensure!(numbers == [1, 2, 3], "{numbers:?}");
        Ok(())
    })
    .await;
    let subscription = eventually("the group has settled them", ARRIVAL_LIMIT, async || {
        let subscription = call(&gateway, "GET", "/subscriptions/orders:orders", Value::Null, 200).await?;
        ensure!(subscription["lag"] == 0 && subscription["pending"] == 0, "{subscription}");
        Ok(subscription)
    })
    .await;
    ensure!(subscription["consumers"] == 1, "{subscription}");
    let metrics = call(&gateway, "GET", "/metrics", Value::Null, 200).await?;
    ensure!(metrics["published"]["total"] == 3 && metrics["consumed"]["total"] == 3, "{metrics}");
    ensure!(metrics["consumed"]["latencyMs"]["p99"].as_f64() > Some(0.0), "{metrics}");
    let health = call(&gateway, "GET", "/health", Value::Null, 200).await?;
    ensure!(health["status"] == "up", "{health}");

    // The commands see the same, beside the gateway.
    let groups = gateway.command(&["queue", "groups", "orders", "--config", "sluicegate.yaml", "--json"]).await?;
    ensure!(serde_json::from_str::<Value>(&groups)?["group"] == "orders", "{groups}");
    let words = ["queue", "publish", "orders", r#"{"number":4}"#, "--config", "sluicegate.yaml"];
    gateway.command(&words).await?;
    eventually("the command's message comes out", ARRIVAL_LIMIT, async || {
        ensure!(written(&gateway)?.contains(&4), "it has not");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_message_comes_within_a_second_of_its_time_unless_it_is_cancelled() -> Result<()> {
    let gateway = Gateway::start(CONFIG).await?;
    let delayed = |number: u64, delay_ms: u64| json!({ "queue": "orders", "id": format!("m-{number}"), "data": { "number": number }, "delayMs": delay_ms });
    let scheduled = call(&gateway, "POST", "/publish/delayed", delayed(1, 3_000), 201).await?;
    call(&gateway, "POST", "/publish/delayed", delayed(2, 2_000), 201).await?;
    call(&gateway, "DELETE", "/queues/orders/messages/m-2", Value::Null, 200).await?;
    let due = now_ms() + 3_000;
    let came = eventually("it comes out", ARRIVAL_LIMIT, async || {
        ensure!(written(&gateway)? == [1], "{:?}", written(&gateway)?);
        Ok(now_ms())
    })
    .await;
    // A little for the steps between the request and the clock here, and between the file and its reader.
    ensure!(came + 500 >= due, "it came {} ms before its time, {scheduled}", due - came);
    ensure!(came <= due + 1_500, "it came {} ms after its time, {scheduled}", came - due);
    let claimed = call(&gateway, "DELETE", "/queues/orders/messages/m-1", Value::Null, 409).await?;
    ensure!(claimed["code"] == "MQ_MESSAGE_CLAIMED", "{claimed}");
    ensure!(written(&gateway)? == [1], "the cancelled one came: {:?}", written(&gateway)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_neither_ready_nor_scheduled_messages() -> Result<()> {
    let mut gateway = Gateway::start(CONFIG).await?;
    let waiting: Vec<Value> = (0..50).map(|n| json!({ "id": format!("w-{n}"), "data": n })).collect();
    call(&gateway, "POST", "/publish/batch", json!({ "queue": "waiting", "messages": waiting }), 201).await?;
    let later = json!({ "queue": "waiting", "id": "later", "data": 1, "delayMs": 600_000 });
    call(&gateway, "POST", "/publish/delayed", later, 201).await?;
    let soon = json!({ "queue": "orders", "data": { "number": 7 }, "delayMs": 4_000 });
    let soon = call(&gateway, "POST", "/publish/delayed", soon, 201).await?;
    call(&gateway, "POST", "/subscriptions", json!({ "queue": "waiting", "group": "g" }), 201).await?;
    gateway.kill()?;
    gateway.restart().await?;
    let queue = call(&gateway, "GET", "/queues/waiting", Value::Null, 200).await?;
    ensure!(queue["messages"] == 50 && queue["scheduled"] == 1, "{queue}");
    let scheduled = call(&gateway, "GET", "/queues/waiting/messages/later", Value::Null, 200).await?;
    ensure!(scheduled["state"] == "scheduled", "{scheduled}");
    let group = call(&gateway, "GET", "/subscriptions/waiting:g", Value::Null, 200).await?;
    ensure!(group["lag"] == 50, "{group}");
    eventually("what was scheduled before the kill comes out", ARRIVAL_LIMIT, async || {
        ensure!(written(&gateway)? == [7], "{:?}, scheduled as {soon}", written(&gateway)?);
        Ok(())
    })
    .await;
    Ok(())
}
