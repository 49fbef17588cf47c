//! Keys over the API.

use serde_json::{Value, json};
use sluicegate::identity::Scope;
use sluicegate_store::tenant::Realm;
use sluicegate_store::{Location, Store};

use crate::server::{Server, asking};

const WHOAMI: &str = "/api/v1/whoami";

#[tokio::test]
async fn whoever_shows_nothing_or_nonsense_is_told_how_to() {
    let server = Server::start(&asking()).await;
    let key = server.key(None, &[Scope::Read]).await;
    let wrong = format!("{}{}", &key[..key.len() - 4], if key.ends_with("aaaa") { "bbbb" } else { "aaaa" });
    let (spaced, twice) =
        (format!("x-api-key: {wrong}\r\n"), format!("x-api-key: {key}\r\nauthorization: Bearer {key}\r\n"));
    for headers in [
        "",
        "authorization: Basic aHVudGVyMg==\r\n",
        "authorization: Bearer a.b.c\r\n",
        &spaced,
        &twice,
        "x-service-token: service-token-of-at-least-32-characters\r\n",
    ] {
        let answer = server.call("GET", WHOAMI, headers, &Value::Null).await;
        answer.refused(401, "MQ_UNAUTHORIZED");
        assert!(!answer.text.contains(&wrong[17..]) && !answer.text.contains("hunter2"), "{answer:?}");
    }
    for open in ["/health", "/ready"] {
        assert_eq!(server.call("GET", open, "", &Value::Null).await.status, 200, "{open}");
    }
    server.call("GET", "/metrics", "", &Value::Null).await.refused(401, "MQ_UNAUTHORIZED");
    // There are no metrics here, which only somebody known is told.
    assert_eq!(server.as_key(&key, "GET", "/metrics", Value::Null).await.status, 404);
    server.call("POST", "/ingest/orders", "", &json!({})).await.refused(401, "MQ_UNAUTHORIZED");
}

#[tokio::test]
async fn a_key_says_who_it_is_in_either_header() {
    let server = Server::start(&asking()).await;
    server.tenant("acme").await;
    let key = server.key(Some("acme"), &[Scope::Read, Scope::Ingest]).await;
    for header in [format!("x-api-key: {key}\r\n"), format!("AUTHORIZATION: bearer {key}\r\n")] {
        let me = server.call("GET", WHOAMI, &header, &Value::Null).await.expect(200);
        assert_eq!(me["identity"], format!("key:{}", &key[4..16]));
        assert_eq!((&me["tenant"], &me["scopes"]), (&json!("acme"), &json!(["ingest", "read"])));
        assert_eq!(me["address"], "127.0.0.1");
    }
}

#[tokio::test]
async fn a_key_is_made_rotated_and_revoked() {
    let server = Server::start(&asking()).await;
    let admin = server.key(None, &[Scope::Admin]).await;
    let form = json!({ "name": "ci", "scopes": ["read"], "expiresAt": "2999-01-01T00:00:00Z" });
    let made = server.as_key(&admin, "POST", "/api/v1/keys", form).await.expect(201);
    let (first, prefix) =
        (made["key"].as_str().expect("the key").to_owned(), made["prefix"].as_str().expect("a prefix").to_owned());
    server.as_key(&first, "GET", WHOAMI, Value::Null).await.expect(200);
    let path = format!("/api/v1/keys/{prefix}");
    let shown = server.as_key(&admin, "GET", &path, Value::Null).await;
    assert!(!shown.text.contains(&first[17..]), "shown once: {shown:?}");
    let rotated = server.as_key(&admin, "POST", &format!("{path}/rotate"), json!({ "grace": "1h" })).await.expect(200);
    let second = rotated["key"].as_str().expect("the key").to_owned();
    server.within_a_second(&second, WHOAMI, 200).await;
    server.as_key(&first, "GET", WHOAMI, Value::Null).await.expect(200);
    server.as_key(&admin, "DELETE", &path, Value::Null).await.expect(200);
    for key in [&first, &second] {
        server.within_a_second(key, WHOAMI, 401).await;
    }
    server.as_key(&admin, "POST", &format!("{path}/rotate"), json!({})).await.refused(409, "MQ_CONFLICT");
    server.as_key(&admin, "DELETE", "/api/v1/keys/aaaaaaaaaaaa", Value::Null).await.refused(404, "MQ_KEY_NOT_FOUND");
    for form in [
        json!({ "name": "x", "scopes": ["root"] }),
        json!({ "name": "x", "scopes": [] }),
        json!({ "name": "x" }),
        json!({ "name": "x", "scopes": ["read"], "expiresAt": "2001-01-01T00:00:00Z" }),
        json!({ "name": "x", "scopes": ["read"], "extra": 1 }),
    ] {
        server.as_key(&admin, "POST", "/api/v1/keys", form).await.refused(400, "MQ_INVALID_REQUEST");
    }
}

#[tokio::test]
async fn a_change_past_this_gateway_is_seen_within_a_second() {
    // As a command in another process makes it: SQLite tells nobody.
    let server = Server::start(&asking()).await;
    let key = server.key(None, &[Scope::Read]).await;
    server.as_key(&key, "GET", WHOAMI, Value::Null).await.expect(200);
    let beside = Store::open_beside(&Location::embedded(server.data_dir())).await.expect("the store");
    beside.revoke_api_key(&Realm::Operator, &key[4..16]).await.expect("revoked");
    beside.close().await;
    server.within_a_second(&key, WHOAMI, 401).await;
}

#[tokio::test]
async fn scopes_are_asked_for() {
    let server = Server::start(&asking()).await;
    let (reader, sender) = (server.key(None, &[Scope::Read]).await, server.key(None, &[Scope::Ingest]).await);
    let admin = server.key(None, &[Scope::Admin]).await;
    server.as_key(&reader, "GET", "/api/v1/mq/queues", Value::Null).await.expect(200);
    server.as_key(&sender, "GET", "/api/v1/mq/queues", Value::Null).await.refused(403, "MQ_FORBIDDEN");
    let queue = crate::server::queue("orders");
    server.as_key(&reader, "POST", "/api/v1/mq/queues", queue.clone()).await.refused(403, "MQ_FORBIDDEN");
    server.as_key(&admin, "POST", "/api/v1/mq/queues", queue).await.expect(201);
    server.as_key(&reader, "GET", "/api/v1/keys", Value::Null).await.refused(403, "MQ_FORBIDDEN");
    server.as_key(&reader, "GET", "/api/v1/audit", Value::Null).await.refused(403, "MQ_FORBIDDEN");
    server.as_key(&reader, "GET", "/api/v1/nothing", Value::Null).await.refused(404, "MQ_PATH_NOT_FOUND");
}

#[tokio::test]
async fn a_service_acts_for_the_tenant_it_names_below_internal_only() {
    let server = Server::start(&asking()).await;
    server.tenant("acme").await;
    let token = format!("x-service-token: {}\r\n", crate::server::SERVICE_TOKEN);
    server.call("GET", "/internal/mq/queues", &token, &Value::Null).await.expect(200);
    server.call("GET", "/api/v1/mq/queues", &token, &Value::Null).await.refused(401, "MQ_UNAUTHORIZED");
    server
        .call("GET", "/internal/mq/queues", "x-service-token: wrong\r\n", &Value::Null)
        .await
        .refused(401, "MQ_UNAUTHORIZED");
    // Until queues are the tenants' own, they do not exist for one.
    let acting = format!("{token}x-tenant-id: acme\r\n");
    server.call("GET", "/internal/mq/queues", &acting, &Value::Null).await.refused(404, "MQ_PATH_NOT_FOUND");
    for (tenant, status, code) in [("nobody", 403, "MQ_FORBIDDEN"), ("A/b", 400, "MQ_INVALID_REQUEST")] {
        let acting = format!("{token}x-tenant-id: {tenant}\r\n");
        server.call("GET", "/internal/mq/queues", &acting, &Value::Null).await.refused(status, code);
    }
    let key = server.key(None, &[Scope::Read]).await;
    let named = format!("x-api-key: {key}\r\nx-tenant-id: acme\r\n");
    let me = server.call("GET", "/api/v1/whoami", &named, &Value::Null).await.expect(200);
    assert_eq!(me["tenant"], Value::Null, "the tenant comes from the credential");
    server.call("GET", "/internal/tenants", &token, &Value::Null).await.refused(404, "MQ_PATH_NOT_FOUND");
}

#[tokio::test]
async fn on_loopback_nobody_is_asked() {
    let server = Server::start("").await;
    let me = server.call("GET", WHOAMI, "", &Value::Null).await.expect(200);
    assert_eq!(me["identity"], "local");
    let made = server.call("POST", "/api/v1/mq/queues", "", &crate::server::queue("orders")).await;
    made.expect(201);
    server.call("GET", "/internal/mq/queues", "", &Value::Null).await.expect(200);
    let entries = server.call("GET", "/api/v1/audit", "", &Value::Null).await.expect(200);
    assert_eq!(
        (&entries["entries"][0]["action"], &entries["entries"][0]["actor"]),
        (&json!("queue.create"), &json!("local"))
    );
}
