//! What one tenant sees of another, and of the operator: nothing.

use serde_json::{Value, json};
use sluicegate::identity::Scope;

use crate::server::{Server, asking};

/// Every path that is the operator's, with methods.
const OPERATORS: [(&str, &str); 27] = [
    ("GET", "/tenants"),
    ("POST", "/tenants"),
    ("GET", "/tenants/other"),
    ("PATCH", "/tenants/other"),
    ("DELETE", "/tenants/other"),
    ("POST", "/tenants/other/suspend"),
    ("GET", "/messages"),
    ("GET", "/messages/m"),
    ("GET", "/message-statistics"),
    ("GET", "/dead-letters"),
    ("GET", "/dead-letters/d"),
    ("PATCH", "/dead-letters/d"),
    ("DELETE", "/dead-letters/d"),
    ("GET", "/dead-letters/export"),
    ("POST", "/dead-letters/purge"),
    ("POST", "/dead-letters/redrive"),
    ("GET", "/redrives"),
    ("POST", "/redrives/r/cancel"),
    ("GET", "/mq/queues"),
    ("POST", "/mq/queues"),
    ("GET", "/mq/queues/q"),
    ("DELETE", "/mq/queues/q"),
    ("POST", "/mq/publish"),
    ("GET", "/mq/subscriptions"),
    ("GET", "/mq/metrics"),
    ("GET", "/mq/status"),
    ("PUT", "/mq/queues/q"),
];

#[tokio::test]
async fn to_a_tenant_what_is_the_operators_does_not_exist() {
    let server = Server::start(&asking()).await;
    server.tenant("acme").await;
    server.tenant("other").await;
    let key = server.key(Some("acme"), &Scope::ALL).await;
    for (method, path) in OPERATORS {
        let answer = server.as_key(&key, method, &format!("/api/v1{path}"), json!({})).await;
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        answer.refused(404, "MQ_PATH_NOT_FOUND");
    }
    server.as_key(&key, "GET", "/metrics", Value::Null).await.refused(404, "MQ_PATH_NOT_FOUND");
}

#[tokio::test]
async fn a_tenant_neither_sees_nor_touches_keys_of_others() {
    let server = Server::start(&asking()).await;
    server.tenant("acme").await;
    server.tenant("other").await;
    let acme = server.key(Some("acme"), &[Scope::Admin]).await;
    let other = server.key(Some("other"), &[Scope::Admin]).await;
    let operator = server.key(None, &[Scope::Admin]).await;
    let own = server.as_key(&acme, "GET", "/api/v1/keys", Value::Null).await.expect(200);
    assert_eq!(own["keys"].as_array().map(Vec::len), Some(1), "{own}");
    for foreign in [&other, &operator] {
        let path = format!("/api/v1/keys/{}", &foreign[4..16]);
        for (method, path) in [("GET", path.clone()), ("DELETE", path.clone()), ("POST", format!("{path}/rotate"))] {
            let answer = server.as_key(&acme, method, &path, json!({})).await;
            answer.refused(404, "MQ_KEY_NOT_FOUND");
            assert_eq!(
                answer.text.replace(&foreign[4..16], "P"),
                server
                    .as_key(&acme, method, &path.replace(&foreign[4..16], "aaaaaaaaaaaa"), json!({}))
                    .await
                    .text
                    .replace("aaaaaaaaaaaa", "P"),
                "it is answered as one that is not there"
            );
        }
        server.as_key(foreign, "GET", "/api/v1/whoami", Value::Null).await.expect(200);
    }
    for path in ["/api/v1/keys?tenant=other", "/api/v1/keys?tenant=nobody"] {
        server.as_key(&acme, "GET", path, Value::Null).await.refused(404, "MQ_TENANT_NOT_FOUND");
    }
    let form = json!({ "name": "x", "scopes": ["read"], "tenant": "other" });
    server.as_key(&acme, "POST", "/api/v1/keys", form).await.refused(404, "MQ_TENANT_NOT_FOUND");
}

#[tokio::test]
async fn a_tenant_reads_its_own_audit_only() {
    let server = Server::start(&asking()).await;
    server.tenant("acme").await;
    server.tenant("other").await;
    let acme = server.key(Some("acme"), &[Scope::Admin]).await;
    let other = server.key(Some("other"), &[Scope::Admin]).await;
    let form = json!({ "name": "x", "scopes": ["read"] });
    server.as_key(&acme, "POST", "/api/v1/keys", form.clone()).await.expect(201);
    server.as_key(&other, "POST", "/api/v1/keys", form).await.expect(201);
    for query in ["", "?tenant=other"] {
        let entries = server.audit(&acme, query).await;
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(entries[0]["tenant"], "acme");
    }
    let exported = server.as_key(&acme, "GET", "/api/v1/audit/export?tenant=other", Value::Null).await;
    assert!(exported.text.contains("\"acme\"") && !exported.text.contains("\"other\""), "{exported:?}");
}
