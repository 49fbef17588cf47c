//! What every path does with what is no request of it.

use serde_json::json;

use crate::server::Server;

const BODIES: [(&str, &str); 9] = [
    ("POST", "/queues"),
    ("PUT", "/queues/q"),
    ("POST", "/publish"),
    ("POST", "/publish/batch"),
    ("POST", "/publish/delayed"),
    ("POST", "/publish/scheduled"),
    ("POST", "/topics/q/publish"),
    ("POST", "/queues/q/tasks"),
    ("POST", "/subscriptions"),
];

#[tokio::test]
async fn malformed_deep_large_and_unknown_bodies_are_refused_everywhere() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    let deep = format!(r#"{{"queue":"q","data":{}{}}}"#, "[".repeat(64), "]".repeat(64));
    let huge = format!(r#"{{"queue":"q","data":"{}"}}"#, "x".repeat(5 << 20));
    for (method, path) in BODIES {
        for (body, part) in [
            ("{", "not JSON"),
            ("\u{0}", "not JSON"),
            (r#"{"queue":"q"} {}"#, "not JSON"),
            (&deep, "deeper than 64"),
            ("[]", ""),
            ("7", ""),
            ("null", ""),
            (r#"{"surprise":1}"#, "surprise"),
        ] {
            let refused = server.call(method, path, body).await;
            refused.refused(400, "MQ_INVALID_REQUEST", part);
        }
        let refused = server.call(method, path, &huge).await;
        refused.refused(413, "MQ_MESSAGE_TOO_LARGE", "");
    }
    assert_eq!(server.get("/queues/q").await.expect(200)["messages"], 0);
    let allowed = format!(r#"{{"queue":"q","data":{}{}}}"#, "[".repeat(63), "]".repeat(63));
    server.post("/publish", allowed).await.expect(201);
    server.close().await;
}

#[tokio::test]
async fn members_of_other_paths_are_refused_by_name() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    let base = json!({ "queue": "q", "data": 1 });
    let with = |name: &str, value: serde_json::Value| {
        let mut form = base.clone();
        form[name] = value;
        form
    };
    for (path, form, part) in [
        ("/publish", json!({ "data": 1 }), "`queue` is missing"),
        ("/publish", json!({ "queue": "", "data": 1 }), "`queue` is missing"),
        ("/publish", json!({ "queue": "q" }), "`data`"),
        ("/publish", with("at", json!("2030-01-01T00:00:00Z")), "/publish/scheduled"),
        ("/publish", with("messageType", json!("normal")), "/topics/{name}/publish"),
        ("/publish", with("partition", json!(1)), "partition"),
        ("/publish/delayed", base.clone(), "`delayMs` is missing"),
        ("/publish/delayed", with("delayMs", json!(-1)), "delayMs"),
        ("/publish/delayed", with("delayMs", json!(2_592_000_001_u64)), "2592000000"),
        ("/publish/scheduled", base.clone(), "`at` is missing"),
        ("/publish/scheduled", with("at", json!("2020-13-01T00:00:00Z")), "RFC 3339"),
        ("/publish/scheduled", with("at", json!("2199-01-01T00:00:00Z")), "30 days"),
        ("/publish/scheduled", with("delayMs", json!(1)), "/publish/delayed"),
    ] {
        let refused = server.post(path, &form).await;
        assert_eq!((refused.status, refused.code()), (400, "MQ_INVALID_REQUEST"), "{path} {form}: {refused:?}");
        assert!(refused.text().contains(part) || part == "RFC 3339", "{path} {form}: {refused:?}");
    }
    let nowhere = json!({ "queue": "nobody", "data": 1 });
    server.post("/publish", nowhere).await.refused(404, "MQ_QUEUE_NOT_FOUND", "nobody");
    server.close().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let server = Server::start().await;
    server.get("/nothing").await.refused(404, "MQ_PATH_NOT_FOUND", "no such path");
    server.get("/queues/q/r/s").await.refused(404, "MQ_PATH_NOT_FOUND", "no such path");
    for (method, path, allowed) in [
        ("PATCH", "/queues/q", "put"),
        ("GET", "/publish", "post"),
        ("DELETE", "/health", "get"),
        ("PUT", "/queues", "post"),
    ] {
        let refused = server.call(method, path, "").await;
        refused.refused(405, "MQ_METHOD_NOT_ALLOWED", "Allow");
        assert!(refused.head.contains("allow: ") && refused.head.contains(allowed), "{refused:?}");
    }
    server.close().await;
}
