//! Queues kept in a Redis that is away: what is refused without it, and what goes on. With a Redis: `end_to_end`.

use serde_json::{Value, json};

use crate::server::Server;

/// Nothing listens on port 1.
const AWAY: &str = "queues:\n  away: { backend: { redis: { url: 'redis://:hunter2@127.0.0.1:1' } } }\n";

#[tokio::test]
async fn a_redis_that_is_away_is_told_and_spoils_nothing_else() {
    let server = Server::start_with(AWAY).await;
    server.queue("z", json!({})).await;
    server.queue("a", json!({})).await;
    let page = server.get("/queues").await.expect(200);
    let queues = page["queues"].as_array().expect("queues");
    let names: Vec<&Value> = queues.iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, ["a", "away", "z"]);
    assert_eq!((&queues[1]["backend"], &queues[1]["messages"]), (&json!("redis"), &json!(null)));
    assert!(queues[1]["unavailable"].as_str().is_some_and(|why| why.contains("127.0.0.1:1")), "{page}");
    assert!(queues[0]["unavailable"].is_null() && queues[0]["backend"] == "store", "{page}");
    let first = server.get("/queues?limit=2").await.expect(200);
    assert_eq!(first["next"], "away");
    assert_eq!(server.get("/queues?after=away").await.expect(200)["queues"][0]["name"], "z");
    assert_eq!(server.get("/queues?limit=1&after=a").await.expect(200)["next"], "away");

    for (method, path, body) in [
        ("GET", "/queues/away", ""),
        ("POST", "/queues/away/purge", ""),
        ("GET", "/queues/away/messages", ""),
        ("GET", "/queues/away/messages/m", ""),
        ("DELETE", "/queues/away/messages/m?force=true", ""),
        ("GET", "/subscriptions/away:g", ""),
        ("POST", "/subscriptions", r#"{"queue":"away","group":"g"}"#),
    ] {
        let refused = server.call(method, path, body).await;
        refused.refused(503, "MQ_BACKEND_UNAVAILABLE", "`away` is kept in Redis");
        assert_eq!((&refused.body["retryAfter"], &refused.body["details"]["queue"]), (&json!(5), &json!("away")));
        assert!(!refused.body.to_string().contains("hunter2"), "{refused:?}");
    }
    let publish = server.post("/publish", json!({ "queue": "away", "data": 1 })).await;
    publish.refused(503, "MQ_PUBLISH_FAILED", "`away`");
    let metrics = server.get("/metrics").await.expect(200);
    assert_eq!((&metrics["streams"], &metrics["unavailableStreams"]), (&json!(3), &json!(1)));
    assert_eq!(server.get("/health").await.expect(200)["database"]["status"], "up");
    server.close().await;
}

#[tokio::test]
async fn what_redis_streams_have_not_is_refused_by_name_and_with_a_way_out() {
    let server = Server::start_with(AWAY).await;
    for (path, form, part) in [
        ("/publish", json!({ "queue": "away", "data": 1, "priority": 5 }), "no priorities; leave `priority` out"),
        ("/publish/delayed", json!({ "queue": "away", "data": 1, "delayMs": 60_000 }), "no delayed or scheduled"),
    ] {
        let refused = server.post(path, form).await;
        refused.refused(422, "MQ_NOT_SUPPORTED", part);
        assert_eq!(refused.body["details"]["queue"], "away");
    }
    server.delete("/queues/away/messages/m").await.refused(422, "MQ_NOT_SUPPORTED", "force=true");
    server.get("/queues/away/messages/5?by=offset").await.refused(400, "MQ_INVALID_REQUEST", "entry ids");
    server.get("/queues/away/messages?after=x").await.refused(400, "MQ_INVALID_REQUEST", "page token");
    server.put("/queues/away", json!({})).await.refused(409, "MQ_CONFLICT", "under `queues`");
    server.delete("/queues/away").await.refused(409, "MQ_CONFLICT", "under `queues`");
    server.post("/queues", json!({ "name": "away" })).await.refused(409, "MQ_QUEUE_EXISTS", "kept in Redis");
    let group = json!({ "queue": "away", "group": "a b" });
    server.post("/subscriptions", group).await.refused(400, "MQ_INVALID_REQUEST", "1 to 128");
    // And the other way round: an entry id means nothing to the store.
    server.queue("q", json!({})).await;
    server.get("/queues/q/messages/5-1?by=offset").await.refused(400, "MQ_INVALID_REQUEST", "counts from 1");
    server.post("/subscriptions", json!({ "queue": "q", "group": "g" })).await.expect(201);
    let reset = json!({ "position": { "offset": "5-1" } });
    server.post("/subscriptions/q:g/reset", reset).await.refused(400, "MQ_INVALID_REQUEST", "counts from 1");
    server.close().await;
}
