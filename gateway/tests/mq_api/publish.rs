use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sluicegate_connectors::cloudevents::print_time;
use sluicegate_store::queue::Settle;

use crate::server::Server;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

#[tokio::test]
async fn a_message_arrives_as_it_was_published() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    let text = r#"{"queue": "q", "id": "m-1", "type": "order.created", "source": "/shop", "subject": "s", "key": "k",
        "correlationId": "c", "headers": {"a": ["1", "2"], "b": "3"}, "priority": 9, "ttlMs": 60000,
        "data": {"n": 12345678901234567890.10,  "t": "x"}}"#;
    let published = server.post("/publish", text).await.expect(201);
    assert_eq!(published, json!({ "id": "m-1", "queue": "q", "state": "ready", "offset": 1, "deliverAt": null }));
    let consumer = server.consumer("q", "g").await;
    let claimed = consumer.claim(10, 1 << 20).await.expect("claimed");
    let message = &claimed[0].message;
    assert_eq!(&message.body.bytes()[..], br#"{"n": 12345678901234567890.10,  "t": "x"}"#);
    assert_eq!(
        (message.id.as_str(), message.kind.as_str(), message.source.as_str()),
        ("m-1", "order.created", "/shop")
    );
    assert_eq!((message.key.as_deref(), message.correlation_id.as_deref()), (Some(&b"k"[..]), Some("c")));
    assert_eq!(message.headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "a", "b"]);
    server.close().await;
}

#[tokio::test]
async fn delayed_and_scheduled_messages_wait_for_their_time() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    let delayed = json!({ "queue": "q", "id": "d", "data": 1, "delayMs": 60_000 });
    let delayed = server.post("/publish/delayed", delayed).await.expect(201);
    assert_eq!((&delayed["state"], &delayed["offset"]), (&json!("scheduled"), &json!(null)));
    let at = print_time(now_ms() + 1_500);
    let published = server.post("/publish/scheduled", json!({ "queue": "q", "id": "s", "data": 2, "at": at })).await;
    assert_eq!(published.expect(201)["deliverAt"], json!(at));
    let before = now_ms();
    let consumer = server.consumer("q", "g").await;
    let claim = consumer.claim(10, 1 << 20);
    let claimed = tokio::time::timeout(Duration::from_secs(30), claim).await.expect("in time").expect("claimed");
    let waited = now_ms() - before;
    assert_eq!(claimed.iter().map(|one| one.message.id.as_str()).collect::<Vec<_>>(), ["s"]);
    assert!(waited >= 1_000, "it came {waited} ms after it was asked for");
    let past = json!({ "queue": "q", "data": 3, "at": "2020-01-01T00:00:00Z" });
    assert_eq!(server.post("/publish/scheduled", past).await.expect(201)["state"], "ready");
    server.close().await;
}

#[tokio::test]
async fn a_batch_is_published_whole_or_not_at_all() {
    let server = Server::start().await;
    server.queue("q", json!({ "retention": { "maxMessages": 3 } })).await;
    let batch = |count: usize| {
        let messages: Vec<Value> = (0..count).map(|n| json!({ "id": format!("m-{n}"), "data": n })).collect();
        json!({ "queue": "q", "messages": messages })
    };
    let count = async || server.get("/queues/q").await.expect(200)["messages"].as_u64();
    let large = server.post("/publish/batch", batch(4)).await;
    large.refused(429, "MQ_QUEUE_FULL", "messages[3]");
    assert!(large.head.contains("retry-after: ") && large.body["retryAfter"].is_u64(), "{large:?}");
    assert_eq!((count().await, &large.body["details"]["index"]), (Some(0), &json!(3)));
    let done = server.post("/publish/batch", batch(2)).await.expect(201);
    assert_eq!(
        done["messages"][1],
        json!({ "id": "m-1", "queue": "q", "state": "ready", "offset": 2, "deliverAt": null })
    );
    server.post("/publish/batch", batch(2)).await.refused(429, "MQ_QUEUE_FULL", "messages[1]");
    assert_eq!(count().await, Some(2));
    let mut one_bad = batch(1);
    one_bad["messages"].as_array_mut().expect("messages").push(json!({ "data": 1, "priority": 10 }));
    server.post("/publish/batch", one_bad).await.refused(400, "MQ_INVALID_REQUEST", "messages[1]: `priority`");
    server.post("/publish/batch", batch(0)).await.refused(400, "MQ_INVALID_REQUEST", "1 to 1000");
    server.post("/publish/batch", batch(1_001)).await.refused(400, "MQ_INVALID_REQUEST", "1001; publish 1 to 1000");
    let mut elsewhere = batch(1);
    elsewhere["messages"][0]["queue"] = json!("other");
    server.post("/publish/batch", elsewhere).await.refused(400, "MQ_INVALID_REQUEST", "messages[0]: `queue`");
    assert_eq!(count().await, Some(2));
    server.close().await;
}

#[tokio::test]
async fn a_schema_is_held_against_every_way_of_publishing() {
    let server = Server::start().await;
    server.queue("orders", json!({ "schema": "order" })).await;
    let bad = json!({ "id": 7 });
    let refused = server.post("/publish", json!({ "queue": "orders", "data": bad })).await;
    refused.refused(422, "MQ_SCHEMA_VIOLATION", "order");
    assert_eq!(refused.body["details"]["errors"][0]["pointer"], "/id", "{refused:?}");
    let batch = json!({ "queue": "orders", "messages": [{ "data": { "id": "1" } }, { "data": {} }] });
    let refused = server.post("/publish/batch", batch).await;
    refused.refused(422, "MQ_SCHEMA_VIOLATION", "messages[1]");
    assert_eq!(refused.body["details"]["index"], 1);
    for path in ["/topics/orders/publish", "/queues/orders/tasks"] {
        server.post(path, json!({ "data": bad })).await.refused(422, "MQ_SCHEMA_VIOLATION", "order");
    }
    let text = json!({ "queue": "orders", "data": "no JSON", "contentType": "text/plain" });
    server.post("/publish", text).await.refused(422, "MQ_SCHEMA_VIOLATION", "");
    assert_eq!(server.get("/queues/orders").await.expect(200)["messages"], 0);
    server.post("/publish", json!({ "queue": "orders", "data": { "id": "o-1" } })).await.expect(201);
    server.close().await;
}

#[tokio::test]
async fn a_repeated_request_with_a_key_publishes_once() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    let form = json!({ "queue": "q", "data": 1, "idempotencyKey": "k-1" });
    let first = server.post("/publish", &form).await;
    assert!(!first.head.contains("idempotent-replayed"), "{first:?}");
    let again = server.post("/publish", &form).await;
    assert!(again.head.contains("idempotent-replayed: true"), "{again:?}");
    assert_eq!(first.expect(201), again.expect(201));
    let other = json!({ "queue": "q", "data": 2, "idempotencyKey": "k-1" });
    server.post("/publish", other).await.refused(422, "MQ_IDEMPOTENCY_KEY_REUSED", "new key");
    let header = "Idempotency-Key: k-2\r\n";
    let body = json!({ "queue": "q", "messages": [{ "data": 1 }, { "data": 2 }] }).to_string();
    let first = server.call_with("POST", "/publish/batch", header, &body).await.expect(201);
    let together = tokio::join!(
        server.call_with("POST", "/publish/batch", header, &body),
        server.call_with("POST", "/publish/batch", header, &body)
    );
    assert_eq!((first.clone(), first), (together.0.expect(201), together.1.expect(201)));
    assert_eq!(server.get("/queues/q").await.expect(200)["messages"], 3);
    let both = json!({ "queue": "q", "data": 1, "idempotencyKey": "a" }).to_string();
    let both = server.call_with("POST", "/publish", "Idempotency-Key: b\r\n", &both).await;
    both.refused(400, "MQ_INVALID_REQUEST", "differs");
    let long = json!({ "queue": "q", "data": 1, "idempotencyKey": "x".repeat(1_025) });
    server.post("/publish", long).await.refused(400, "MQ_INVALID_REQUEST", "1 to 1024");
    // Keys are told apart by queue, and a refused request leaves none behind.
    server.queue("r", json!({ "maxMessageBytes": 1_000 })).await;
    let large = |bytes: usize| json!({ "queue": "r", "data": "x".repeat(bytes), "idempotencyKey": "k-1" });
    server.post("/publish", large(2_000)).await.refused(413, "MQ_MESSAGE_TOO_LARGE", "which takes 1000");
    server.post("/publish", large(10)).await.expect(201);
    server.close().await;
}

#[tokio::test]
async fn topics_take_the_messages_of_their_kind() {
    let server = Server::start().await;
    server.queue("n", json!({})).await;
    server.queue("o", json!({ "kind": "ordered" })).await;
    server.queue("d", json!({ "kind": "delay", "delayMs": 60_000 })).await;
    let publish = async |topic: &str, form: Value| server.post(&format!("/topics/{topic}/publish"), form).await;
    publish("n", json!({ "data": 1 })).await.expect(201);
    publish("n", json!({ "data": 1, "messageType": "normal" })).await.expect(201);
    publish("n", json!({ "data": 1, "messageType": "delayed", "delayMs": 5_000 })).await.expect(201);
    publish("o", json!({ "data": 1, "messageType": "ordered", "key": "k" })).await.expect(201);
    let delayed = publish("d", json!({ "data": 1, "messageType": "delayed" })).await.expect(201);
    assert_eq!(delayed["state"], "scheduled", "the queue's own delay counts");
    for (topic, form, part) in [
        ("n", json!({ "data": 1, "messageType": "delayed" }), "`delayMs`"),
        ("n", json!({ "data": 1, "messageType": "normal", "delayMs": 1 }), "remove `delayMs`"),
        ("n", json!({ "data": 1, "messageType": "ordered", "key": "k" }), "kind `normal`"),
        ("o", json!({ "data": 1, "messageType": "ordered" }), "`key`"),
        ("o", json!({ "data": 1, "messageType": "normal" }), "kind `ordered`"),
        ("o", json!({ "data": 1, "priority": 3 }), "ordered"),
        ("o", json!({ "data": 1, "delayMs": 5_000 }), "ordered"),
        ("d", json!({ "data": 1, "messageType": "normal" }), "kind `delay`"),
        ("n", json!({ "data": 1, "messageType": "dead" }), "dead"),
        ("n", json!({ "data": 1, "queue": "o" }), "differs"),
    ] {
        publish(topic, form).await.refused(400, "MQ_INVALID_REQUEST", part);
    }
    let unknown = publish("nobody", json!({ "data": 1 })).await;
    unknown.refused(404, "MQ_QUEUE_NOT_FOUND", "POST /api/v1/mq/queues");
    server.close().await;
}

#[tokio::test]
async fn tasks_have_ids_and_states() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    let one = server.post("/queues/q/tasks", json!({ "id": "t-1", "data": 1, "priority": 9 })).await.expect(201);
    assert_eq!(one, json!({ "taskId": "t-1", "state": "ready", "offset": 1, "runAt": null }));
    let several = json!({ "tasks": [{ "id": "t-2", "data": 2 }, { "id": "t-3", "data": 3, "delayMs": 60_000 }] });
    let several = server.post("/queues/q/tasks", several).await.expect(201);
    assert_eq!(several["tasks"][0]["taskId"], "t-2");
    assert_eq!(several["tasks"][1]["state"], "scheduled");
    let state = async |id: &str| server.get(&format!("/queues/q/tasks/{id}")).await.expect(200)["state"].clone();
    assert_eq!((state("t-1").await, state("t-3").await), (json!("queued"), json!("scheduled")));

    let consumer = server.consumer("q", "g").await;
    let claimed = consumer.claim(1, 1 << 20).await.expect("claimed");
    assert_eq!(claimed[0].message.id, "t-1", "the higher priority first");
    assert_eq!((state("t-1").await, state("t-2").await), (json!("running"), json!("queued")));
    consumer.settle(&[Settle::release(claimed[0].token, Duration::from_secs(60))]).await.expect("released");
    assert_eq!(state("t-1").await, "retrying");
    let claimed = consumer.claim(1, 1 << 20).await.expect("claimed");
    consumer.settle(&[Settle::done(claimed[0].token)]).await.expect("settled");
    let task = server.get("/queues/q/tasks/t-2").await.expect(200);
    assert_eq!((&task["state"], &task["groups"][0]), (&json!("done"), &json!({ "group": "g", "state": "done" })));

    server.get("/queues/q/tasks/nobody").await.refused(404, "MQ_MESSAGE_NOT_FOUND", "nobody");
    server.get("/queues/nobody/tasks/t-1").await.refused(404, "MQ_QUEUE_NOT_FOUND", "nobody");
    let nothing = server.post("/queues/q/tasks", json!({ "tasks": [] })).await;
    nothing.refused(400, "MQ_INVALID_REQUEST", "`tasks` has 0");
    let unknown = server.post("/queues/q/tasks", json!({ "tasks": [{ "data": 1, "retries": 3 }] })).await;
    unknown.refused(400, "MQ_INVALID_REQUEST", "retries");
    server.post("/queues/q/tasks", json!({ "data": 1, "queue": "q" })).await.refused(
        400,
        "MQ_INVALID_REQUEST",
        "`queue`",
    );
    server.close().await;
}
