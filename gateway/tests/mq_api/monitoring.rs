use std::sync::Arc;

use serde_json::json;
use sluicegate::server::Snapshot;

use crate::server::Server;

#[tokio::test]
async fn metrics_count_what_happened() {
    let server = Server::start().await;
    server.queue("a", json!({ "maxMessageBytes": 1_000 })).await;
    server.queue("b", json!({})).await;
    for n in 0..3 {
        server.post("/publish", json!({ "queue": "a", "data": n })).await.expect(201);
    }
    server.post("/publish", json!({ "queue": "b", "data": 1, "delayMs": 60_000 })).await.expect(201);
    let large = json!({ "queue": "a", "data": "x".repeat(2_000) });
    server.post("/publish", large).await.refused(413, "MQ_MESSAGE_TOO_LARGE", "1000");
    let consumer = server.consumer("a", "g").await;
    consumer.claim(2, 1 << 20).await.expect("claimed");

    let metrics = server.get("/metrics").await.expect(200);
    for (member, value) in [
        ("streams", 2),
        ("groups", 1),
        ("messages", 3),
        ("scheduled", 1),
        ("pending", 2),
        ("lag", 1),
        ("activeConsumers", 1),
        ("windowSeconds", 60),
    ] {
        assert_eq!(metrics[member], value, "{member} in {metrics}");
    }
    let published = &metrics["published"];
    assert_eq!(
        (&published["total"], &published["failed"], &published["errorRate"]),
        (&json!(4), &json!(1), &json!(0.2))
    );
    assert!(published["perSecond"].as_f64().is_some_and(|rate| rate > 0.0), "{metrics}");
    for latency in ["average", "p95", "p99"] {
        assert!(published["latencyMs"][latency].as_f64().is_some_and(|ms| ms > 0.0), "{metrics}");
    }

    let topics = server.get("/metrics/topics").await.expect(200);
    assert_eq!((&topics["topics"][0]["name"], &topics["topics"][0]["published"]["total"]), (&json!("a"), &json!(3)));
    assert_eq!((&topics["topics"][0]["lag"], &topics["topics"][1]["scheduled"]), (&json!(1), &json!(1)));
    let page = server.get("/metrics/topics?limit=1").await.expect(200);
    assert!(page["next"].is_string() && page["topics"].as_array().is_some_and(|topics| topics.len() == 1));
    let consumers = server.get("/metrics/consumers").await.expect(200);
    let consumer = &consumers["consumers"][0];
    assert_eq!((&consumer["group"], &consumer["lag"], &consumer["pending"]), (&json!("g"), &json!(1), &json!(2)));
    assert_eq!((&consumer["consumers"], &consumer["consumed"]["total"]), (&json!(1), &json!(0)));
    server.get("/metrics/consumers?limit=0").await.refused(400, "MQ_INVALID_REQUEST", "1 to 1000");
    server.get("/metrics/topics?x=1").await.refused(400, "MQ_INVALID_REQUEST", "x");
    server.close().await;
}

#[tokio::test]
async fn health_and_status_say_how_database_and_server_are() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    let health = server.get("/health").await.expect(200);
    assert_eq!((&health["status"], &health["database"]["status"]), (&json!("up"), &json!("up")));
    assert_eq!(health["connections"], json!({ "total": 0, "connected": 0, "missing": [] }));
    let status = server.get("/status").await.expect(200);
    assert_eq!((&status["queues"]["streams"], &status["pipelines"]), (&json!(1), &json!(["p"])));
    assert!(status["uptimeSeconds"].is_u64() && status["version"].is_string(), "{status}");

    server.snapshot.send_replace(Arc::new(Snapshot { stopping: true, ..Snapshot::default() }));
    let health = server.get("/health").await.expect(503);
    assert_eq!((&health["status"], &health["stopping"]), (&json!("down"), &json!(true)));
    server.snapshot.send_replace(Arc::default());
    server.store.close().await;
    let health = server.get("/health").await.expect(503);
    assert_eq!((&health["status"], &health["database"]["status"]), (&json!("down"), &json!("down")));
    let refused = server.get("/metrics").await;
    refused.refused(503, "MQ_STORE_UNAVAILABLE", "closed");
    assert!(refused.body["retryAfter"].is_u64() && refused.head.contains("retry-after: 5"), "{refused:?}");
    let publish = server.post("/publish", json!({ "queue": "q", "data": 1 })).await;
    publish.refused(503, "MQ_PUBLISH_FAILED", "closed");
    server.close().await;
}

#[tokio::test]
async fn the_queue_service_tells_status_health_metrics_and_lag() {
    let server = Server::start().await;
    for name in ["a", "b"] {
        server.queue(name, json!({})).await;
    }
    for n in 0..3 {
        server.post("/publish", json!({ "queue": "a", "data": n })).await.expect(201);
    }
    let consumer = server.consumer("a", "g").await;
    consumer.claim(1, 1 << 20).await.expect("claimed");
    server.consumer("a", "h").await;
    let lag = server.get_below_api("/queue/consumer/lag").await.expect(200);
    assert_eq!(lag["queues"].as_array().map(Vec::len), Some(1), "only those that are read: {lag}");
    let queue = &lag["queues"][0];
    assert_eq!((&queue["queue"], &queue["lag"], &queue["pending"]), (&json!("a"), &json!(3), &json!(1)));
    assert_eq!((&queue["groups"][0]["group"], &queue["groups"][0]["lag"]), (&json!("g"), &json!(2)));
    assert_eq!(server.get_below_api("/queue/consumer/lag?queue=b").await.expect(200)["queues"], json!([]));
    let unknown = server.get_below_api("/queue/consumer/lag?queue=nobody").await;
    unknown.refused(404, "MQ_QUEUE_NOT_FOUND", "nobody");
    let both = server.get_below_api("/queue/consumer/lag?queue=a&limit=1").await;
    both.refused(400, "MQ_INVALID_REQUEST", "`limit`");

    let metrics = server.get_below_api("/queue/metrics").await.expect(200);
    assert_eq!((&metrics["produced"]["total"], &metrics["windowSeconds"]), (&json!(3), &json!(60)));
    assert_eq!((&metrics["depth"], &metrics["pending"], &metrics["lag"]), (&json!(3), &json!(1), &json!(5)));
    assert!(metrics["produced"]["latencyMs"]["p95"].as_f64().is_some_and(|ms| ms > 0.0), "{metrics}");
    assert!(metrics["consumed"]["errorRate"].is_number(), "{metrics}");
    assert_eq!(server.get_below_api("/queue/status").await.expect(200)["queues"]["streams"], 2);
    assert_eq!(server.get_below_api("/queue/health").await.expect(200)["status"], "up");
    server.store.close().await;
    assert_eq!(server.get_below_api("/queue/health").await.expect(503)["status"], "down");
    server.close().await;
}
