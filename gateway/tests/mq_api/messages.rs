use std::time::Duration;

use serde_json::{Value, json};
use sluicegate_store::queue::Settle;

use crate::server::Server;

fn ids(page: &Value) -> Vec<&str> {
    page["messages"].as_array().expect("messages").iter().filter_map(|message| message["id"].as_str()).collect()
}

#[tokio::test]
async fn lists_are_by_state_and_have_pages() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    for id in ["a", "b", "c"] {
        server.post("/publish", json!({ "queue": "q", "id": id, "data": id })).await.expect(201);
    }
    for (id, delay) in [("late", 90_000), ("soon", 30_000)] {
        server.post("/publish", json!({ "queue": "q", "id": id, "data": 1, "delayMs": delay })).await.expect(201);
    }
    let first = server.get("/queues/q/messages?limit=2").await.expect(200);
    assert_eq!(ids(&first), ["a", "b"]);
    assert_eq!((&first["messages"][0]["state"], &first["messages"][0]["offset"]), (&json!("ready"), &json!(1)));
    let next = first["next"].as_str().expect("more");
    assert_eq!(ids(&server.get(&format!("/queues/q/messages?after={next}")).await.expect(200)), ["c"]);
    let scheduled = server.get("/queues/q/messages?state=scheduled").await.expect(200);
    assert_eq!(ids(&scheduled), ["soon", "late"]);
    assert_eq!(ids(&server.get("/queues/q/messages?state=claimed").await.expect(200)), Vec::<&str>::new());

    let consumer = server.consumer("q", "g").await;
    let claimed = consumer.claim(2, 1 << 20).await.expect("claimed");
    consumer.settle(&[Settle::release(claimed[1].token, Duration::from_secs(60))]).await.expect("released");
    let page = server.get("/queues/q/messages?state=claimed&limit=1").await.expect(200);
    assert_eq!((ids(&page), &page["messages"][0]["state"]), (vec!["a"], &json!("claimed")));
    assert_eq!((&page["messages"][0]["group"], &page["messages"][0]["attempt"]), (&json!("g"), &json!(1)));
    let next = page["next"].as_str().expect("more");
    let page = server.get(&format!("/queues/q/messages?state=claimed&after={next}")).await.expect(200);
    assert_eq!((ids(&page), &page["messages"][0]["state"]), (vec!["b"], &json!("retrying")));
    assert!(page["messages"][0]["notBefore"].is_string(), "{page}");

    server.get("/queues/q/messages?state=dead").await.refused(400, "MQ_INVALID_REQUEST", "dead");
    for state in ["ready", "scheduled", "claimed"] {
        let path = format!("/queues/q/messages?state={state}&after=x");
        server.get(&path).await.refused(400, "MQ_INVALID_REQUEST", "page token");
        let path = format!("/queues/nobody/messages?state={state}");
        server.get(&path).await.refused(404, "MQ_QUEUE_NOT_FOUND", "nobody");
    }
    server.close().await;
}

#[tokio::test]
async fn a_message_is_shown_with_its_body_and_its_groups() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    let form = json!({
        "queue": "q", "id": "m/1 ä", "type": "t", "source": "s", "key": "k", "headers": { "h": ["1", "2"] },
        "data": { "a": [1] }, "ttlMs": 60_000,
    });
    server.post("/publish", form).await.expect(201);
    server.post("/publish", json!({ "queue": "q", "id": "bytes", "dataBase64": "AP8=" })).await.expect(201);
    server.post("/publish", json!({ "queue": "q", "id": "text", "data": "hi", "contentType": "text/plain" })).await;
    let shown = server.get("/queues/q/messages/m%2F1%20%C3%A4").await.expect(200);
    for (member, value) in [
        ("id", json!("m/1 ä")),
        ("type", json!("t")),
        ("source", json!("s")),
        ("key", json!("k")),
        ("headers", json!({ "h": ["1", "2"] })),
        ("data", json!({ "a": [1] })),
        ("contentType", json!("application/json")),
        ("offset", json!(1)),
        ("groups", json!([])),
    ] {
        assert_eq!(shown[member], value, "{shown}");
    }
    assert!(shown["expiresAt"].is_string(), "{shown}");
    assert_eq!(server.get("/queues/q/messages/2?by=offset").await.expect(200)["dataBase64"], "AP8=");
    assert_eq!(server.get("/queues/q/messages/text").await.expect(200)["data"], "hi");
    let consumer = server.consumer("q", "g").await;
    consumer.claim(1, 1 << 20).await.expect("claimed");
    let shown = server.get("/queues/q/messages/1?by=offset").await.expect(200);
    assert_eq!(shown["groups"], json!([{ "group": "g", "state": "claimed", "attempt": 1 }]));

    server.get("/queues/q/messages/99?by=offset").await.refused(404, "MQ_MESSAGE_NOT_FOUND", "99");
    server.get("/queues/q/messages/x?by=offset").await.refused(400, "MQ_INVALID_REQUEST", "no offset");
    server.get("/queues/q/messages/nobody").await.refused(404, "MQ_MESSAGE_NOT_FOUND", "nobody");
    server.get("/queues/nobody/messages/m").await.refused(404, "MQ_QUEUE_NOT_FOUND", "nobody");
    server.get("/queues/q/messages/text?force=true").await.refused(400, "MQ_INVALID_REQUEST", "DELETE");
    server.get("/queues/q/messages/%FF").await.refused(400, "MQ_INVALID_REQUEST", "path");
    server.close().await;
}

#[tokio::test]
async fn a_message_can_be_taken_back_until_it_is_claimed() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    for (id, delay) in [("ready", 0), ("scheduled", 60_000), ("claimed", 0)] {
        let form = json!({ "queue": "q", "id": id, "data": 1, "delayMs": delay, "priority": if id == "claimed" { 9 } else { 4 } });
        server.post("/publish", form).await.expect(201);
    }
    let consumer = server.consumer("q", "g").await;
    let claimed = consumer.claim(1, 1 << 20).await.expect("claimed");
    assert_eq!(claimed[0].message.id, "claimed");
    for id in ["ready", "scheduled"] {
        let removed = server.delete(&format!("/queues/q/messages/{id}")).await.expect(200);
        assert_eq!(removed, json!({ "queue": "q", "removed": id }));
        server.delete(&format!("/queues/q/messages/{id}")).await.refused(404, "MQ_MESSAGE_NOT_FOUND", id);
    }
    let refused = server.delete("/queues/q/messages/claimed").await;
    refused.refused(409, "MQ_MESSAGE_CLAIMED", "force=true");
    assert_eq!(refused.body["details"], json!({ "queue": "q", "message": "claimed" }));
    server.delete("/queues/q/messages/3?by=offset").await.refused(400, "MQ_INVALID_REQUEST", "force=true");
    server.delete("/queues/q/messages/claimed?force=true").await.expect(200);
    let queue = server.get("/queues/q").await.expect(200);
    assert_eq!((&queue["messages"], &queue["scheduled"]), (&json!(0), &json!(0)));
    server.delete("/queues/nobody/messages/m").await.refused(404, "MQ_QUEUE_NOT_FOUND", "nobody");
    server.close().await;
}
