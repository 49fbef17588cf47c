//! What is written of changes and of denied attempts.

use serde_json::{Value, json};
use sluicegate::identity::Scope;

use crate::server::{Server, asking, queue};

#[tokio::test]
async fn changes_are_written_with_before_and_after_and_reads_are_not() {
    let server = Server::start(&asking()).await;
    let admin = server.key(None, &[Scope::Admin, Scope::Read, Scope::Ingest]).await;
    let actor = format!("key:{}", &admin[4..16]);
    server.as_key(&admin, "POST", "/api/v1/tenants", json!({ "name": "acme" })).await.expect(201);
    let change = json!({ "revision": 1, "display": "Acme" });
    server.as_key(&admin, "PATCH", "/api/v1/tenants/acme", change.clone()).await.expect(200);
    server.as_key(&admin, "PATCH", "/api/v1/tenants/acme", change).await.refused(409, "MQ_CONFLICT");
    server.as_key(&admin, "POST", "/api/v1/mq/queues", queue("orders")).await.expect(201);
    server.as_key(&admin, "GET", "/api/v1/mq/queues", Value::Null).await.expect(200);
    let entries = server.audit(&admin, "").await;
    let seen: Vec<(&str, &str, &str)> = entries
        .iter()
        .map(|e| {
            (
                e["action"].as_str().expect("text"),
                e["outcome"].as_str().expect("text"),
                e["resource"].as_str().expect("text"),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("queue.create", "done", "/api/v1/mq/queues"),
            ("tenant.update", "failed", "/api/v1/tenants/acme"),
            ("tenant.update", "done", "/tenants/acme"),
            ("tenant.create", "done", "/tenants/acme"),
        ]
    );
    let update = &entries[2];
    assert_eq!((&update["before"]["display"], &update["after"]["display"]), (&json!(""), &json!("Acme")));
    assert_eq!((&update["actor"], &update["address"]), (&json!(actor), &json!("127.0.0.1")));
    assert_eq!(server.audit(&admin, "?action=tenant.&outcome=done").await.len(), 2);
    let export = server.as_key(&admin, "GET", "/api/v1/audit/export", Value::Null).await;
    assert!(export.head.contains("application/x-ndjson"), "{export:?}");
    server.as_key(&admin, "GET", "/api/v1/audit?outcome=maybe", Value::Null).await.refused(400, "MQ_INVALID_REQUEST");
    server.as_key(&admin, "GET", "/api/v1/audit?since=yesterday", Value::Null).await.refused(400, "MQ_INVALID_REQUEST");
}

#[tokio::test]
async fn no_secret_is_in_the_audit() {
    let server = Server::start(&asking()).await;
    let admin = server.key(None, &[Scope::Admin]).await;
    let made =
        server.as_key(&admin, "POST", "/api/v1/keys", json!({ "name": "x", "scopes": ["read"] })).await.expect(201);
    let key = made["key"].as_str().expect("a key");
    let rotate = format!("/api/v1/keys/{}/rotate", made["prefix"].as_str().expect("a prefix"));
    let rotated = server.as_key(&admin, "POST", &rotate, json!({})).await.expect(200);
    let export = server.as_key(&admin, "GET", "/api/v1/audit/export", Value::Null).await.text;
    assert!(export.contains("key.create") && export.contains("key.rotate"), "{export}");
    for secret in [key, rotated["key"].as_str().expect("a key"), admin.as_str()] {
        assert!(!export.contains(&secret[17..]), "{export}");
    }
}

#[tokio::test]
async fn denied_attempts_are_written_once_and_then_counted() {
    let server = Server::start(&asking()).await;
    let admin = server.key(None, &[Scope::Admin]).await;
    for _ in 0..50 {
        server.call("DELETE", "/api/v1/mq/queues/orders", "", &Value::Null).await.refused(401, "MQ_UNAUTHORIZED");
    }
    let denied = server.audit(&admin, "?outcome=denied").await;
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!((&denied[0]["action"], &denied[0]["actor"]), (&json!("queue.delete"), &json!("nobody")));
}
