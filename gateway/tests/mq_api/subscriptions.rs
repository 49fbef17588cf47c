use serde_json::{Value, json};
use sluicegate_store::queue::Settle;

use crate::server::Server;

#[tokio::test]
async fn a_group_is_made_followed_paused_moved_and_removed() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    for n in 0..3 {
        server.post("/publish", json!({ "queue": "q", "data": n })).await.expect(201);
    }
    let made = server.post("/subscriptions", json!({ "queue": "q", "group": "g", "offsetReset": "earliest" })).await;
    let made = made.expect(201);
    assert_eq!((&made["id"], &made["lag"], &made["paused"]), (&json!("q:g"), &json!(3), &json!(false)));
    server.post("/subscriptions", json!({ "queue": "q", "group": "g" })).await.expect(200);
    let latest = json!({ "queue": "q", "group": "late", "offsetReset": "latest", "paused": true });
    let late = server.post("/subscriptions", latest).await.expect(201);
    assert_eq!((&late["lag"], &late["paused"]), (&json!(0), &json!(true)));

    let consumer = server.consumer("q", "g").await;
    let claimed = consumer.claim(2, 1 << 20).await.expect("claimed");
    consumer.settle(&[Settle::done(claimed[0].token)]).await.expect("settled");
    let shown = server.get("/subscriptions/q:g").await.expect(200);
    assert_eq!((&shown["lag"], &shown["pending"], &shown["consumers"]), (&json!(1), &json!(1), &json!(1)));

    assert_eq!(server.post("/subscriptions/q:g/pause", "").await.expect(200)["paused"], true);
    assert_eq!(server.post("/subscriptions/q:g/resume", "").await.expect(200)["paused"], false);
    let lag = async |position: Value| {
        let moved = server.post("/subscriptions/q:g/reset", json!({ "position": position })).await.expect(200);
        assert_eq!(moved["pending"], 0);
        moved["lag"].clone()
    };
    assert_eq!(lag(json!("earliest")).await, 3);
    assert_eq!(lag(json!("latest")).await, 0);
    assert_eq!(lag(json!({ "offset": 3 })).await, 1);
    assert_eq!(lag(json!({ "time": "2020-01-01T00:00:00Z" })).await, 3);
    let updated = server.put("/subscriptions/q:g", json!({ "paused": true, "position": "latest" })).await.expect(200);
    assert_eq!((&updated["paused"], &updated["lag"]), (&json!(true), &json!(0)));
    let unchanged = server.put("/subscriptions/q:g", json!({})).await.expect(200);
    assert_eq!(unchanged["paused"], true);
    assert_eq!(server.put("/subscriptions/q:g", json!({ "paused": false })).await.expect(200)["paused"], false);

    let listed = server.get("/subscriptions?queue=q").await.expect(200);
    let names = |listed: &Value| -> Vec<String> {
        let all = listed["subscriptions"].as_array().expect("subscriptions");
        all.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(names(&listed), ["q:g", "q:late"]);
    server.queue("a", json!({})).await;
    server.post("/subscriptions", json!({ "queue": "a", "group": "x" })).await.expect(201);
    let page = server.get("/subscriptions?limit=1").await.expect(200);
    assert_eq!(names(&page), ["a:x"]);
    let next = page["next"].as_str().expect("more queues");
    assert_eq!(names(&server.get(&format!("/subscriptions?after={next}")).await.expect(200)), ["q:g", "q:late"]);

    assert_eq!(server.delete("/subscriptions/q:g").await.expect(200), json!({ "deleted": "q:g" }));
    server.get("/subscriptions/q:g").await.refused(404, "MQ_SUBSCRIPTION_NOT_FOUND", "`g`");
    server.close().await;
}

#[tokio::test]
async fn what_is_no_group_is_refused() {
    let server = Server::start().await;
    server.queue("q", json!({})).await;
    server.post("/subscriptions", json!({ "queue": "q", "group": "g" })).await.expect(201);
    for (form, status, code, part) in [
        (json!({ "group": "g" }), 400, "MQ_INVALID_REQUEST", "queue"),
        (json!({ "queue": "q", "group": "a b" }), 400, "MQ_INVALID_REQUEST", "1 to 128"),
        (json!({ "queue": "q", "group": "g", "offsetReset": "middle" }), 400, "MQ_INVALID_REQUEST", "middle"),
        (json!({ "queue": "q", "group": "g", "kind": "webhook" }), 400, "MQ_INVALID_REQUEST", "kind"),
        (json!({ "queue": "nobody", "group": "g" }), 404, "MQ_QUEUE_NOT_FOUND", "nobody"),
    ] {
        server.post("/subscriptions", form).await.refused(status, code, part);
    }
    for (method, path, body) in [
        ("GET", "", ""),
        ("DELETE", "", ""),
        ("PUT", "", "{}"),
        ("POST", "/pause", ""),
        ("POST", "/resume", ""),
        ("POST", "/reset", r#"{"position":"latest"}"#),
    ] {
        let call = async |id: &str| server.call(method, &format!("/subscriptions/{id}{path}"), body).await;
        call("q:nobody").await.refused(404, "MQ_SUBSCRIPTION_NOT_FOUND", "nobody");
        call("nobody:g").await.refused(404, "MQ_QUEUE_NOT_FOUND", "nobody");
        call("nonsense").await.refused(404, "MQ_SUBSCRIPTION_NOT_FOUND", "QUEUE:GROUP");
    }
    for (position, part) in [
        (json!("middle"), "middle"),
        (json!({ "offset": 0 }), "from 1"),
        (json!({ "offset": -1 }), "position"),
        (json!({ "time": "yesterday" }), "RFC 3339"),
        (json!({ "offset": 1, "time": "2020-01-01T00:00:00Z" }), "position"),
    ] {
        let refused = server.post("/subscriptions/q:g/reset", json!({ "position": position })).await;
        refused.refused(400, "MQ_INVALID_REQUEST", part);
    }
    server.post("/subscriptions/q:g/reset", "").await.refused(400, "MQ_INVALID_REQUEST", "position");
    server.put("/subscriptions/q:g", json!({ "position": null })).await.refused(400, "MQ_INVALID_REQUEST", "position");
    server.get("/subscriptions?queue=q&limit=1").await.refused(400, "MQ_INVALID_REQUEST", "`limit`");
    server.get("/subscriptions?queue=nobody").await.refused(404, "MQ_QUEUE_NOT_FOUND", "nobody");
    server.close().await;
}
