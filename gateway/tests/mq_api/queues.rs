use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn a_queue_is_made_shown_changed_and_removed() {
    let server = Server::start().await;
    let form = json!({
        "name": "orders", "kind": "normal", "retention": { "maxAgeMs": 3_600_000, "maxMessages": 10, "atLimit": "drop_oldest" },
        "maxMessageBytes": 2048, "compression": "zstd", "ttlMs": 60_000, "schema": "order",
    });
    let made = server.post("/queues", &form).await.expect(201);
    for member in ["name", "kind", "maxMessageBytes", "compression", "ttlMs", "schema"] {
        assert_eq!(made[member], form[member], "{made}");
    }
    assert_eq!(made["retention"]["maxMessages"], 10);
    assert_eq!(made["retention"]["maxBytes"], json!(null));
    assert_eq!((&made["revision"], &made["messages"], &made["groups"]), (&json!(1), &json!(0), &json!(0)));
    assert!(made["createdAt"].as_str().is_some_and(|time| time.ends_with('Z')), "{made}");
    assert_eq!(server.post("/queues", &form).await.expect(201)["revision"], 1, "the same queue once more");
    assert_eq!(server.get("/queues/orders").await.expect(200), made);

    let changed = server.put("/queues/orders", json!({ "ttlMs": null, "retention": { "maxMessages": 20 } })).await;
    let changed = changed.expect(200);
    assert_eq!((&changed["ttlMs"], &changed["retention"]["maxMessages"]), (&json!(null), &json!(20)));
    assert_eq!((&changed["retention"]["atLimit"], &changed["revision"]), (&json!("drop_oldest"), &json!(2)));
    let stale = server.put("/queues/orders", json!({ "revision": 1, "ttlMs": 5_000 })).await;
    stale.refused(409, "MQ_CONFLICT", "revision 2");
    assert_eq!(stale.body["details"], json!({ "queue": "orders", "revision": 2 }));

    assert_eq!(server.delete("/queues/orders").await.expect(200), json!({ "deleted": "orders" }));
    server.get("/queues/orders").await.refused(404, "MQ_QUEUE_NOT_FOUND", "`orders`");
    server.close().await;
}

#[tokio::test]
async fn the_list_has_pages() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.queue(name, json!({})).await;
    }
    let first = server.get("/queues?limit=2").await.expect(200);
    let names = |page: &serde_json::Value| -> Vec<String> {
        let queues = page["queues"].as_array().expect("queues");
        queues.iter().map(|queue| queue["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&first), ["a", "b"]);
    let next = first["next"].as_str().expect("a next page");
    let second = server.get(&format!("/queues?limit=2&after={next}")).await.expect(200);
    assert_eq!((names(&second), &second["next"]), (vec!["c".to_owned()], &json!(null)));
    for limit in ["0", "1001", "x", "-1"] {
        let refused = server.get(&format!("/queues?limit={limit}")).await;
        refused.refused(400, "MQ_INVALID_REQUEST", "");
    }
    server.get("/queues?offset=3").await.refused(400, "MQ_INVALID_REQUEST", "offset");
    server.close().await;
}

#[tokio::test]
async fn what_cannot_be_a_queue_is_refused() {
    let server = Server::start().await;
    server.queue("orders", json!({})).await;
    let named = |name: &str, more: serde_json::Value| {
        let mut form = more;
        form["name"] = name.into();
        form
    };
    for (form, code, status, part) in [
        (json!({}), "MQ_INVALID_REQUEST", 400, "`name` is missing"),
        (named("a b", json!({})), "MQ_INVALID_REQUEST", 400, "1 to 128"),
        (named(&"x".repeat(129), json!({})), "MQ_INVALID_REQUEST", 400, "1 to 128"),
        (named("q", json!({ "kind": "fifo" })), "MQ_INVALID_REQUEST", 400, "fifo"),
        (named("q", json!({ "partitions": 3 })), "MQ_INVALID_REQUEST", 400, "partitions"),
        (named("q", json!({ "retention": { "days": 3 } })), "MQ_INVALID_REQUEST", 400, "days"),
        (named("q", json!({ "maxMessageBytes": 67_108_865 })), "MQ_INVALID_REQUEST", 400, "64MiB"),
        (named("q", json!({ "maxMessageBytes": -1 })), "MQ_INVALID_REQUEST", 400, "maxMessageBytes"),
        (named("q", json!({ "ttlMs": 1 })), "MQ_INVALID_REQUEST", 400, "`ttlMs`: choose 1s to 3650d"),
        (named("q", json!({ "delayMs": 1_000 })), "MQ_INVALID_REQUEST", 400, "`delayMs`"),
        (named("q", json!({ "kind": "delay", "delayMs": 2_592_000_001_u64 })), "MQ_INVALID_REQUEST", 400, "30d"),
        (named("q", json!({ "schema": "nobody" })), "MQ_INVALID_REQUEST", 400, "there are order"),
        (named("q", json!({ "revision": 1 })), "MQ_INVALID_REQUEST", 400, "revision"),
        (named("orders", json!({ "ttlMs": 5_000 })), "MQ_QUEUE_EXISTS", 409, "other properties"),
    ] {
        server.post("/queues", &form).await.refused(status, code, part);
    }
    let both = server.post("/queues", named("q", json!({ "ttlMs": 1, "maxMessageBytes": 0 }))).await;
    assert_eq!(both.body["details"]["errors"].as_array().map(Vec::len), Some(2), "{both:?}");
    server.put("/queues/orders", json!({ "kind": "ordered" })).await.refused(400, "MQ_INVALID_REQUEST", "kind");
    server.put("/queues/orders", json!({ "name": "other" })).await.refused(400, "MQ_INVALID_REQUEST", "`name`");
    server.put("/queues/nobody", json!({})).await.refused(404, "MQ_QUEUE_NOT_FOUND", "`nobody`");
    server.put("/queues/declared", json!({})).await.refused(409, "MQ_CONFLICT", "under `queues`");
    server.delete("/queues/declared").await.refused(409, "MQ_CONFLICT", "under `queues`");
    server.delete("/queues/nobody").await.refused(404, "MQ_QUEUE_NOT_FOUND", "`nobody`");
    server.post("/queues/nobody/purge", "").await.refused(404, "MQ_QUEUE_NOT_FOUND", "`nobody`");
    server.close().await;
}

#[tokio::test]
async fn purging_leaves_the_queue_and_its_groups() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    server.post("/subscriptions", json!({ "queue": "q", "group": "g" })).await.expect(201);
    server.post("/publish", json!({ "queue": "q", "data": 1 })).await.expect(201);
    server.post("/publish/delayed", json!({ "queue": "q", "data": 1, "delayMs": 60_000 })).await.expect(201);
    assert_eq!(server.post("/queues/q/purge", "").await.expect(200), json!({ "queue": "q", "purged": 2 }));
    let queue = server.get("/queues/q").await.expect(200);
    assert_eq!((&queue["messages"], &queue["scheduled"], &queue["groups"]), (&json!(0), &json!(0), &json!(1)));
    assert_eq!(server.get("/subscriptions/q:g").await.expect(200)["lag"], 0);
    server.close().await;
}

#[tokio::test]
async fn a_queue_holds_ten_thousand_messages_unless_it_says_otherwise() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    assert_eq!(server.get("/queues/q").await.expect(200)["retention"]["maxMessages"], 10_000);
    // As it is shown it can be given back.
    let unlimited = json!({ "retention": { "maxMessages": null } });
    assert_eq!(server.put("/queues/q", &unlimited).await.expect(200)["retention"]["maxMessages"], json!(null));
    assert_eq!(server.put("/queues/q", json!({})).await.expect(200)["retention"]["maxMessages"], json!(null));
    server.close().await;
}

#[tokio::test]
async fn the_configuration_says_what_queues_are_like_that_do_not() {
    let server = Server::start_with("queue_defaults: { max_messages: 2, max_age: 2d, max_message: 512B }\n").await;
    server.queue("q", json!({})).await;
    let queue = server.get("/queues/q").await.expect(200);
    assert_eq!((&queue["retention"]["maxMessages"], &queue["maxMessageBytes"]), (&json!(2), &json!(512)));
    assert_eq!(queue["retention"]["maxAgeMs"], 172_800_000);
    for n in 0..2 {
        server.post("/publish", json!({ "queue": "q", "data": n })).await.expect(201);
    }
    let full = server.post("/publish", json!({ "queue": "q", "data": 3 })).await;
    full.refused(429, "MQ_QUEUE_FULL", "2 messages");
    assert!(full.head.contains("retry-after: "), "{full:?}");
    // Once a group has settled one, there is room.
    let consumer = server.consumer("q", "g").await;
    let claimed = consumer.claim(1, 1 << 20).await.expect("claimed");
    consumer.settle(&[sluicegate_store::queue::Settle::done(claimed[0].token)]).await.expect("settled");
    server.post("/publish", json!({ "queue": "q", "data": 3 })).await.expect(201);
    server.queue("own", json!({ "retention": { "maxMessages": 7 } })).await;
    let own = server.get("/queues/own").await.expect(200);
    assert_eq!((&own["retention"]["maxMessages"], &own["retention"]["maxAgeMs"]), (&json!(7), &json!(172_800_000)));
    let reset = server.put("/queues/own", json!({ "maxMessageBytes": null })).await.expect(200);
    assert_eq!(reset["maxMessageBytes"], 512);
    server.close().await;
}

#[tokio::test]
async fn topics_are_queues_under_another_name() {
    let server = Server::start().await;
    server.post("/topics", json!({ "name": "t", "compression": "zstd" })).await.expect(201);
    assert_eq!(server.get("/topics/t").await.expect(200), server.get("/queues/t").await.expect(200));
    assert_eq!(server.get("/topics").await.expect(200)["topics"][0]["name"], "t");
    server.put("/topics/t", json!({ "ttlMs": 60_000 })).await.expect(200);
    server.post("/topics/t/publish", json!({ "data": 1 })).await.expect(201);
    assert_eq!(server.delete("/topics/t").await.expect(200), json!({ "deleted": "t" }));
    server.get("/topics/t").await.refused(404, "MQ_QUEUE_NOT_FOUND", "`t`");
    server.close().await;
}
