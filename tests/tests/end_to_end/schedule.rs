//! Messages with a time of their own: they come within a second of it over a kill, on both stores, unless they are taken
//! back; and nobody may ask for a time more than 30 days ahead.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::webhook::Webhook;
use sluicegate_tests::{eventually, servers};

use crate::clients::ARRIVAL_LIMIT;
use crate::posting::number;

/// How long the messages wait: longer than a gateway takes to start again.
const WAIT: Duration = Duration::from_secs(8);
/// The longest time ahead.
const LONGEST_MS: u64 = 30 * 86_400_000;
const INGEST: &str = "/ingest/orders";
const PUBLISH: &str = "/api/v1/mq/publish";

fn scheduled(store: Option<&str>, hook: &str) -> String {
    let store = store.map(|url| format!("store: '{url}'\n")).unwrap_or_default();
    format!(
        "{store}queues: {{ orders: {{}}, waiting: {{}} }}
pipelines:
  queued:
    source: {{ queue: orders }}
    targets: {{ hook: {{ http: {{ url: '{hook}' }} }} }}
  posted:
    source: {{ http: {{ path: {INGEST}, respond: accepted }} }}
    targets: {{ hook: {{ http: {{ url: '{hook}' }} }} }}
"
    )
}

/// Sends JSON (or nothing); the answer's status and document.
async fn send(gateway: &Gateway, method: &str, path: &str, form: Value) -> Result<(u16, Value)> {
    let mut request = http_client()?.request(method.parse()?, gateway.url(path));
    if !form.is_null() {
        request = request.header("content-type", "application/json").body(form.to_string());
    }
    let answer = request.send().await?;
    let (status, text) = (answer.status().as_u16(), answer.text().await?);
    Ok((status, serde_json::from_str(&text).with_context(|| format!("{method} {path}: {status} {text}"))?))
}

async fn expect(gateway: &Gateway, method: &str, path: &str, form: Value, status: u16) -> Result<Value> {
    let (found, document) = send(gateway, method, path, form.clone()).await?;
    ensure!(found == status, "{method} {path} with {form} is answered {found}: {document}");
    Ok(document)
}

fn rfc3339(time: SystemTime) -> Result<String> {
    let ms = i64::try_from(time.duration_since(UNIX_EPOCH)?.as_millis())?;
    Ok(jiff::Timestamp::from_millisecond(ms)?.to_string())
}

/// Posts a CloudEvent with a delivery time; the answer's status.
async fn post(gateway: &Gateway, number: usize, due: SystemTime) -> Result<u16> {
    let event = json!({
        "specversion": "1.0", "id": format!("e-{number}"), "source": "/test", "type": "t",
        "deliverytime": rfc3339(due)?, "data": { "number": number },
    });
    let request = http_client()?.post(gateway.url(INGEST)).header("content-type", "application/cloudevents+json");
    Ok(request.body(event.to_string()).send().await?.status().as_u16())
}

async fn fires_on_time(store: Option<String>) -> Result<()> {
    let hook = Webhook::start().await?;
    let mut gateway = Gateway::start(&scheduled(store.as_deref(), &hook.url())).await?;
    let due = SystemTime::now() + WAIT;
    let at = json!({ "queue": "orders", "data": { "number": 1 }, "at": rfc3339(due)? });
    expect(&gateway, "POST", &format!("{PUBLISH}/scheduled"), at, 201).await?;
    let delay = json!({ "queue": "orders", "data": { "number": 2 }, "delayMs": WAIT.as_millis() as u64 });
    expect(&gateway, "POST", &format!("{PUBLISH}/delayed"), delay, 201).await?;
    ensure!(post(&gateway, 3, due).await? == 202);
    let cancelled =
        json!({ "queue": "orders", "id": "no", "data": { "number": 4 }, "delayMs": WAIT.as_millis() as u64 });
    expect(&gateway, "POST", &format!("{PUBLISH}/delayed"), cancelled, 201).await?;
    gateway.kill()?;
    gateway.restart().await?;
    expect(&gateway, "DELETE", "/api/v1/mq/queues/orders/messages/no", Value::Null, 200).await?;
    // On a machine so busy that the restart has taken longer, the time begins to count now.
    let counted_from = due.max(SystemTime::now());
    let received = eventually("they come", WAIT + ARRIVAL_LIMIT, async || {
        let received = hook.received();
        ensure!(received.len() >= 3, "{} have come", received.len());
        Ok(received)
    })
    .await;
    let mut numbers = Vec::new();
    for request in received {
        // The second one's time was set a little after the others'.
        let slack = Duration::from_millis(250);
        ensure!(request.at >= due, "{} came before its time", number(&request.body)?);
        let late = request.at.duration_since(counted_from).unwrap_or_default();
        ensure!(late < Duration::from_secs(1) + slack, "{} came {late:?} late", number(&request.body)?);
        numbers.push(number(&request.body)?);
    }
    numbers.sort_unstable();
    ensure!(numbers == [1, 2, 3], "{numbers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_messages_come_on_time_though_the_gateway_was_killed_in_the_embedded_store() -> Result<()> {
    fires_on_time(None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_messages_come_on_time_though_the_gateway_was_killed_in_postgresql() -> Result<()> {
    fires_on_time(Some(servers::postgres().await?.new_database().await?)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_can_be_taken_back_until_it_is_claimed() -> Result<()> {
    let hook = Webhook::start().await?;
    let gateway = Gateway::start(&scheduled(None, &hook.url())).await?;
    let message =
        |queue: &str, id: &str, number: usize| json!({ "queue": queue, "id": id, "data": { "number": number } });
    let place = |queue: &str, id: &str| format!("/api/v1/mq/queues/{queue}/messages/{id}");

    // Ready, and nobody has claimed it: the group is paused.
    let group = json!({ "queue": "waiting", "group": "g", "paused": true });
    expect(&gateway, "POST", "/api/v1/mq/subscriptions", group, 201).await?;
    expect(&gateway, "POST", PUBLISH, message("waiting", "ready", 1), 201).await?;
    expect(&gateway, "DELETE", &place("waiting", "ready"), Value::Null, 200).await?;
    expect(&gateway, "GET", &place("waiting", "ready"), Value::Null, 404).await?;
    expect(&gateway, "DELETE", &place("waiting", "ready"), Value::Null, 404).await?;

    // Claimed: its webhook has not answered yet.
    hook.hold();
    expect(&gateway, "POST", PUBLISH, message("orders", "claimed", 2), 201).await?;
    eventually("it is under way", ARRIVAL_LIMIT, async || {
        ensure!(hook.received().len() == 1, "{} requests", hook.received().len());
        Ok(())
    })
    .await;
    let refused = expect(&gateway, "DELETE", &place("orders", "claimed"), Value::Null, 409).await?;
    ensure!(refused["code"] == "MQ_MESSAGE_CLAIMED", "{refused}");
    hook.release();
    eventually("it is delivered all the same", ARRIVAL_LIMIT, async || {
        ensure!(hook.accepted_count() == 1, "it is not");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_more_than_30_days_ahead_is_refused_everywhere() -> Result<()> {
    let hook = Webhook::start().await?;
    let gateway = Gateway::start(&scheduled(None, &hook.url())).await?;
    let delayed = |delay_ms: u64| json!({ "queue": "orders", "id": "d", "data": 1, "delayMs": delay_ms });
    let refused = expect(&gateway, "POST", &format!("{PUBLISH}/delayed"), delayed(LONGEST_MS + 1), 400).await?;
    ensure!(refused["code"] == "MQ_INVALID_REQUEST", "{refused}");
    ensure!(refused["message"].as_str().is_some_and(|text| text.contains("30 days")), "{refused}");
    expect(&gateway, "POST", &format!("{PUBLISH}/delayed"), delayed(LONGEST_MS), 201).await?;
    expect(&gateway, "DELETE", "/api/v1/mq/queues/orders/messages/d", Value::Null, 200).await?;

    let beyond = SystemTime::now() + Duration::from_millis(LONGEST_MS) + Duration::from_secs(60);
    let at = json!({ "queue": "orders", "data": 1, "at": rfc3339(beyond)? });
    expect(&gateway, "POST", &format!("{PUBLISH}/scheduled"), at.clone(), 400).await?;
    // All of a batch or nothing.
    let batch =
        json!({ "queue": "orders", "messages": [{ "data": 1, "delayMs": 1_000 }, { "data": 2, "at": at["at"] }] });
    expect(&gateway, "POST", &format!("{PUBLISH}/batch"), batch, 400).await?;
    let queue = expect(&gateway, "GET", "/api/v1/mq/queues/orders", Value::Null, 200).await?;
    ensure!(queue["messages"] == 0 && queue["scheduled"] == 0, "{queue}");

    ensure!(post(&gateway, 1, beyond).await? == 400, "ingestion holds a message for that long, too");
    let within = SystemTime::now() + Duration::from_millis(LONGEST_MS) - Duration::from_secs(60);
    ensure!(post(&gateway, 2, within).await? == 202);
    ensure!(hook.received().is_empty());
    Ok(())
}
