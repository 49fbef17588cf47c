//! Tenants over the API: the operator's alone.

use serde_json::{Value, json};
use sluicegate::identity::Scope;

use crate::server::{Server, asking};

#[tokio::test]
async fn a_tenant_lives_from_creation_to_deletion() {
    let server = Server::start(&asking()).await;
    let admin = server.key(None, &[Scope::Admin]).await;
    let form =
        json!({ "name": "acme", "display": "Acme", "quotas": { "plugins": 3 }, "grants": { "targets": ["eu"] } });
    let made = server.as_key(&admin, "POST", "/api/v1/tenants", form.clone()).await.expect(201);
    assert_eq!(
        (&made["revision"], &made["quotas"]["plugins"], &made["quotas"]["queues"]),
        (&json!(1), &json!(3), &json!(100))
    );
    server.as_key(&admin, "POST", "/api/v1/tenants", form).await.refused(409, "MQ_TENANT_EXISTS");

    let change = json!({ "revision": 1, "quotas": { "queues": 5 } });
    let changed = server.as_key(&admin, "PATCH", "/api/v1/tenants/acme", change.clone()).await.expect(200);
    assert_eq!((&changed["quotas"]["queues"], &changed["quotas"]["plugins"]), (&json!(5), &json!(3)));
    server.as_key(&admin, "PATCH", "/api/v1/tenants/acme", change).await.refused(409, "MQ_CONFLICT");
    for form in [
        json!({ "name": "default" }),
        json!({ "name": "A" }),
        json!({ "name": "b", "quotas": { "plugin": 1 } }),
        json!({ "name": "b", "quotas": { "plugins": -1 } }),
        json!({ "name": "b", "grants": { "hosts": ["http://x"] } }),
        json!({ "name": "b", "quotas": 7 }),
    ] {
        server.as_key(&admin, "POST", "/api/v1/tenants", form).await.refused(400, "MQ_INVALID_REQUEST");
    }

    // The operator makes the tenant's first key; from then on the tenant makes its own.
    let form = json!({ "name": "first", "scopes": ["admin"], "tenant": "acme" });
    let first = server.as_key(&admin, "POST", "/api/v1/keys", form).await.expect(201);
    let tenant = first["key"].as_str().expect("a key").to_owned();
    let form = json!({ "name": "second", "scopes": ["read"] });
    let second = server.as_key(&tenant, "POST", "/api/v1/keys", form).await.expect(201);
    assert_eq!(second["tenant"], "acme");

    server.as_key(&admin, "DELETE", "/api/v1/tenants/acme", Value::Null).await.refused(409, "MQ_CONFLICT");
    server.as_key(&admin, "POST", "/api/v1/tenants/acme/suspend", Value::Null).await.expect(200);
    server.within_a_second(&tenant, "/api/v1/whoami", 403).await;
    server.as_key(&admin, "POST", "/api/v1/tenants/acme/resume", Value::Null).await.expect(200);
    server.within_a_second(&tenant, "/api/v1/whoami", 200).await;
    server.as_key(&admin, "POST", "/api/v1/tenants/acme/suspend", Value::Null).await.expect(200);
    server.as_key(&admin, "DELETE", "/api/v1/tenants/acme", Value::Null).await.expect(200);
    server.within_a_second(&tenant, "/api/v1/whoami", 401).await;
    server.as_key(&admin, "GET", "/api/v1/tenants/acme", Value::Null).await.refused(404, "MQ_TENANT_NOT_FOUND");
}
