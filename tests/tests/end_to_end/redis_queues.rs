//! Queues that Redis keeps, through the real binary: the same API and commands as for those of the store, and a pipeline
//! that reads one.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::{eventually, servers, unique};

use crate::clients::ARRIVAL_LIMIT;

/// A gateway with a queue `{prefix}-idle` that nobody reads, and `{prefix}-read`, which a pipeline reads.
struct Started {
    gateway: Gateway,
    idle: String,
    read: String,
}

async fn start() -> Result<Started> {
    let url = servers::redis().await?.url();
    let (idle, read) = (unique("idle"), unique("read"));
    let config = format!(
        "
schemas:
  order: {{ inline: {{ required: [number] }} }}
queues:
  {idle}: {{ backend: {{ redis: {{ url: '{url}' }} }} }}
  {read}: {{ schema: order, backend: {{ redis: {{ url: '{url}' }} }} }}
  stored: {{}}
pipelines:
  reader:
    source: {{ queue: {read} }}
    targets: {{ log: {{ file: {{ path: out.jsonl }} }} }}
"
    );
    Ok(Started { gateway: Gateway::start(&config).await?, idle, read })
}

impl Started {
    /// `METHOD /api/v1/mq…` answers this status; its body.
    async fn call(&self, method: &str, path: &str, body: Value, status: u16) -> Result<Value> {
        let mut request = http_client()?.request(method.parse()?, self.gateway.url(&format!("/api/v1/mq{path}")));
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await?;
        let (found, text) = (answer.status(), answer.text().await?);
        ensure!(found == status, "{method} {path} is answered {found}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, Value::Null, 200).await
    }

    /// `sluicegate queue …` with the gateway's configuration.
    async fn queue(&self, words: &[&str]) -> Result<String> {
        self.gateway.command(&[&["queue"], words, &["--config", "sluicegate.yaml"]].concat()).await
    }

    /// The numbers in the pipeline's file, in order.
    fn written(&self) -> Result<Vec<u64>> {
        let text = match std::fs::read_to_string(self.gateway.folder().join("out.jsonl")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read?,
        };
        text.lines().map(|line| serde_json::from_str::<Value>(line)?["number"].as_u64().context("a number")).collect()
    }
}

fn ids(page: &Value) -> Vec<&str> {
    page["messages"].as_array().into_iter().flatten().filter_map(|message| message["id"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_in_redis_is_published_to_listed_searched_and_purged() -> Result<()> {
    let started = start().await?;
    let queue = &started.idle;
    let empty = started.get(&format!("/queues/{queue}")).await?;
    ensure!(empty["messages"] == 0 && empty["backend"] == "redis" && empty["lastOffset"].is_null(), "{empty}");
    ensure!(ids(&started.get(&format!("/queues/{queue}/messages")).await?).is_empty(), "it is empty");

    let one = json!({ "queue": queue, "id": "m-0", "key": "k", "data": { "n": 0 }, "ttlMs": 600_000 });
    let one = started.call("POST", "/publish", one, 201).await?;
    ensure!(one["state"] == "ready" && one["offset"].as_str().is_some_and(|id| id.contains('-')), "{one}");
    let messages: Vec<Value> = (1..5).map(|n| json!({ "id": format!("m-{n}"), "data": n })).collect();
    let batch = json!({ "queue": queue, "messages": messages, "idempotencyKey": "batch-1" });
    let first = started.call("POST", "/publish/batch", batch.clone(), 201).await?;
    let again = started.call("POST", "/publish/batch", batch, 201).await?;
    ensure!(first == again, "{first} {again}");
    let other = json!({ "queue": queue, "messages": [{ "data": 9 }], "idempotencyKey": "batch-1" });
    let reused = started.call("POST", "/publish/batch", other, 422).await?;
    ensure!(reused["code"] == "MQ_IDEMPOTENCY_KEY_REUSED", "{reused}");

    let page = started.get(&format!("/queues/{queue}/messages?limit=3")).await?;
    ensure!(ids(&page) == ["m-0", "m-1", "m-2"], "published once: {page}");
    let next = page["next"].as_str().context("there is more")?;
    let rest = started.get(&format!("/queues/{queue}/messages?limit=3&after={next}")).await?;
    ensure!(ids(&rest) == ["m-3", "m-4"] && rest["next"].is_null(), "{rest}");
    let shown = started.get(&format!("/queues/{queue}/messages/m-0")).await?;
    ensure!(shown["data"] == json!({ "n": 0 }) && shown["key"] == "k" && shown["expiresAt"].is_string(), "{shown}");
    let place = one["offset"].as_str().context("a place")?;
    let by_place = started.get(&format!("/queues/{queue}/messages/{place}?by=offset")).await?;
    ensure!(by_place == shown, "{by_place}");
    let task = started.get(&format!("/queues/{queue}/tasks/m-1")).await?;
    ensure!(task["state"] == "queued", "{task}");

    let removed = started.call("DELETE", &format!("/queues/{queue}/messages/m-3?force=true"), Value::Null, 200).await?;
    ensure!(removed["removed"] == "m-3", "{removed}");
    let gone = started.get(&format!("/queues/{queue}/messages/m-3?by=id")).await;
    ensure!(gone.is_err_and(|error| error.to_string().contains("404")), "it is gone");
    let purged = started.call("POST", &format!("/queues/{queue}/purge"), Value::Null, 200).await?;
    ensure!(purged["purged"] == 4, "{purged}");
    let listed = started.get("/queues").await?;
    let found = listed["queues"].as_array().into_iter().flatten().find(|one| one["name"] == **queue);
    ensure!(found.is_some_and(|queue| queue["messages"] == 0), "{listed}");
    ensure!(listed["queues"].as_array().map(Vec::len) == Some(3), "those of Redis and of the store: {listed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_a_queue_in_redis_are_followed_moved_and_removed() -> Result<()> {
    let started = start().await?;
    let queue = &started.idle;
    let messages: Vec<Value> = (0..5).map(|n| json!({ "id": format!("m-{n}"), "data": n })).collect();
    let published = json!({ "queue": queue, "messages": messages });
    let published = started.call("POST", "/publish/batch", published, 201).await?;
    let group = |name: &str, start: &str| json!({ "queue": queue, "group": name, "offsetReset": start });
    let made = started.call("POST", "/subscriptions", group("g", "earliest"), 201).await?;
    ensure!(made["lag"] == 5 && made["pending"] == 0 && made["paused"] == false, "{made}");
    started.call("POST", "/subscriptions", group("g", "latest"), 200).await?;
    ensure!(
        started.call("POST", "/subscriptions", group("late", "latest"), 201).await?["lag"] == 0,
        "it begins at the end"
    );

    // Somebody reads two and settles one.
    let mut client = servers::redis().await?.connect().await?;
    let stream = format!("sluicegate:queue:{queue}");
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg("g").arg("c").arg("COUNT").arg(2).arg("STREAMS").arg(&stream).arg(">");
    read.query_async::<redis::Value>(&mut client).await?;
    let place = |at: usize| published["messages"][at]["offset"].as_str().context("a place");
    redis::cmd("XACK").arg(&stream).arg("g").arg(place(0)?).query_async::<u64>(&mut client).await?;
    let shown = started.get(&format!("/subscriptions/{queue}:g")).await?;
    ensure!(shown["lag"] == 3 && shown["pending"] == 1 && shown["consumers"] == 1, "{shown}");
    let claimed = started.get(&format!("/queues/{queue}/messages?state=claimed")).await?;
    ensure!(ids(&claimed) == ["m-1"] && claimed["messages"][0]["group"] == "g", "{claimed}");
    for (id, state) in [("m-0", "done"), ("m-1", "claimed"), ("m-2", "waiting")] {
        let message = started.get(&format!("/queues/{queue}/messages/{id}")).await?;
        ensure!(message["groups"][0]["state"] == state, "{id}: {message}");
    }
    let reset = async |position: Value| {
        started.call("POST", &format!("/subscriptions/{queue}:g/reset"), json!({ "position": position }), 200).await
    };
    let moved = reset(json!("earliest")).await?;
    ensure!(moved["lag"] == 5 && moved["pending"] == 0, "{moved}");
    ensure!(reset(json!("latest")).await?["lag"] == 0, "nothing is before it");
    reset(json!({ "offset": place(3)? })).await?;
    let answer = read.query_async::<redis::Value>(&mut client).await?;
    let read_ids = format!("{answer:?}");
    ensure!(read_ids.contains("m-3") && !read_ids.contains("m-2"), "{read_ids}");

    started.call("POST", &format!("/queues/{queue}/purge"), Value::Null, 200).await?;
    let purged = started.get(&format!("/subscriptions/{queue}:late")).await?;
    ensure!(purged["lag"] == 0, "what was purged is before nobody: {purged}");
    let lag = started.get(&format!("/subscriptions?queue={queue}")).await?;
    ensure!(lag["subscriptions"].as_array().map(Vec::len) == Some(2), "{lag}");
    started.call("DELETE", &format!("/subscriptions/{queue}:late"), Value::Null, 200).await?;
    let unknown = started.call("POST", &format!("/subscriptions/{queue}:late/pause"), Value::Null, 404).await?;
    ensure!(unknown["code"] == "MQ_SUBSCRIPTION_NOT_FOUND", "{unknown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pipeline_reads_nothing_from_redis_until_it_is_resumed() -> Result<()> {
    let started = start().await?;
    let queue = &started.read;
    let publish = async |number: u64, status: u16| {
        let message = json!({ "queue": queue, "data": { "number": number } });
        started.call("POST", "/publish", message, status).await
    };
    publish(1, 201).await?;
    let refused = json!({ "queue": queue, "data": {} });
    ensure!(
        started.call("POST", "/publish", refused, 422).await?["code"] == "MQ_SCHEMA_VIOLATION",
        "its schema counts"
    );
    eventually("the first comes out", ARRIVAL_LIMIT, async || {
        ensure!(started.written()? == [1], "{:?}", started.written()?);
        Ok(())
    })
    .await;
    let paused = started.call("POST", &format!("/subscriptions/{queue}:reader/pause"), Value::Null, 200).await?;
    ensure!(paused["paused"] == true, "{paused}");
    // The read that was under way when it was paused may give out one more.
    let mut number = 1;
    let held = eventually("messages stay", ARRIVAL_LIMIT, async || {
        number += 1;
        publish(number, 201).await?;
        let queue = started.get(&format!("/subscriptions/{queue}:reader")).await?;
        ensure!(queue["lag"].as_u64() > Some(2), "{queue}");
        Ok(number)
    })
    .await;
    ensure!(!started.written()?.contains(&held), "it is held: {:?}", started.written()?);
    let resumed = started.queue(&["resume", queue, "reader"]).await?;
    ensure!(resumed.contains("goes on"), "{resumed}");
    eventually("all come out", ARRIVAL_LIMIT, async || {
        let mut numbers = started.written()?;
        numbers.sort_unstable();
        ensure!(numbers == (1..=held).collect::<Vec<_>>(), "{numbers:?}");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_manage_queues_in_redis_too() -> Result<()> {
    let started = start().await?;
    let queue = &started.idle;
    let published = started.queue(&["publish", queue, r#"{"n":1}"#, "--id", "c-1"]).await?;
    ensure!(published.starts_with("c-1 at offset ") && published.contains('-'), "{published}");
    let listed = started.queue(&["list"]).await?;
    let row = listed.lines().find(|line| line.starts_with(queue.as_str())).context("it is listed")?;
    ensure!(row.split_whitespace().nth(2) == Some("redis") && row.split_whitespace().nth(3) == Some("1"), "{row}");
    ensure!(started.queue(&["messages", queue]).await?.contains("c-1"), "its messages are");
    let made = started.queue(&["reset", queue, "g", "--to", "earliest", "--create", "--yes"]).await?;
    ensure!(made.contains("1 messages before it"), "{made}");
    let groups = started.queue(&["groups", queue, "--json"]).await?;
    ensure!(serde_json::from_str::<Value>(&groups)?["lag"] == 1, "{groups}");
    let tailed = started.queue(&["tail", queue, "--group", "g", "--limit", "1", "--json"]).await?;
    ensure!(serde_json::from_str::<Value>(&tailed)?["id"] == "c-1", "{tailed}");
    let refused = started.queue(&["cancel", queue, "c-1"]).await.expect_err("Redis cannot take it back").to_string();
    ensure!(refused.contains("kept in Redis"), "{refused}");
    ensure!(started.queue(&["cancel", queue, "c-1", "--force"]).await?.contains("is removed"), "by force it can");
    let refused = started.queue(&["publish", queue, "1", "--priority", "9"]).await.expect_err("no priorities");
    ensure!(refused.to_string().contains("priorities"), "{refused}");
    ensure!(started.queue(&["purge", queue, "--yes"]).await?.starts_with("0 messages"), "it is empty");
    let refused = started.queue(&["delete", queue, "--yes"]).await.expect_err("it is declared").to_string();
    ensure!(refused.contains("change it there"), "{refused}");
    Ok(())
}
