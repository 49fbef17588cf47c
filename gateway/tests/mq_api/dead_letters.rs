//! Dead letters and redrive jobs over HTTP: every verb, and what each of them refuses. That jobs redeliver is for
//! `end_to_end`: nothing runs here that would carry them out.

use std::sync::Arc;

use serde_json::{Value, json};
use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters as _};
use sluicegate_engine::failure::FailureClass;
use sluicegate_engine::message::Message;

use crate::server::Server;

fn letter(id: &str, class: FailureClass, error: &str) -> DeadLetter {
    let mut message = Message::new("/orders", "order.created", r#"{"n":1}"#);
    message.id = format!("m-{id}");
    let message = Arc::new(message);
    DeadLetter {
        id: id.to_owned(),
        failed_at_ms: 1_763_654_400_000,
        pipeline: "p".into(),
        config_version: "0123456789ab".into(),
        original: Arc::clone(&message),
        at_failure: message,
        step: None,
        target: Some("out".into()),
        class,
        error: error.to_owned(),
        schema_errors: Vec::new(),
        plugin: None,
        plugin_digest: None,
        backtrace: Vec::new(),
        attempts: Vec::new(),
        trace_id: None,
        redrive_count: 0,
    }
}

/// With three letters of two causes.
async fn filled() -> Server {
    let server = Server::start().await;
    for (id, class, error) in [
        ("0193-a", FailureClass::TargetFailed, "connection refused"),
        ("0193-b", FailureClass::TargetFailed, "connection refused"),
        ("0194-c", FailureClass::Rejected, "no such customer"),
    ] {
        server.store.record(&Arc::new(letter(id, class, error))).await.expect("recorded");
    }
    server
}

fn ids(page: &Value) -> Vec<&str> {
    page["deadLetters"].as_array().into_iter().flatten().filter_map(|letter| letter["id"].as_str()).collect()
}

#[tokio::test]
async fn letters_are_listed_searched_grouped_and_shown() {
    let server = filled().await;
    let all = server.get_below_api("/dead-letters").await.expect(200);
    assert_eq!(ids(&all).len(), 3);
    let first = server.get_below_api("/dead-letters?limit=2").await.expect(200);
    let next = first["next"].as_str().expect("more");
    let rest = server.get_below_api(&format!("/dead-letters?limit=2&after={next}")).await.expect(200);
    assert_eq!((ids(&first).len(), ids(&rest).len(), &rest["next"]), (2, 1, &json!(null)));
    for (query, found) in [("class=rejected", "0194-c"), ("text=customer", "0194-c"), ("messageId=m-0193-a", "0193-a")]
    {
        let page = server.get_below_api(&format!("/dead-letters?{query}")).await.expect(200);
        assert_eq!(ids(&page), [found], "{query}");
    }
    let none = server.get_below_api("/dead-letters?until=2020-01-01T00:00:00Z").await.expect(200);
    assert_eq!(ids(&none), Vec::<&str>::new());
    let groups = server.get_below_api("/dead-letters/groups").await.expect(200);
    assert_eq!((&groups["groups"][0]["count"], &groups["groups"][1]["count"]), (&json!(2), &json!(1)));
    let shown = server.get_below_api("/dead-letters/0194").await.expect(200);
    assert_eq!((&shown["id"], &shown["error"]), (&json!("0194-c"), &json!("no such customer")));
    for (path, status, code, part) in [
        ("/dead-letters/0193", 400, "MQ_INVALID_REQUEST", "0193"),
        ("/dead-letters/nobody", 404, "MQ_DEAD_LETTER_NOT_FOUND", "nobody"),
        ("/dead-letters?class=explosion", 400, "MQ_INVALID_REQUEST", "there are"),
        ("/dead-letters?since=yesterday", 400, "MQ_INVALID_REQUEST", "`since`"),
        ("/dead-letters?limit=0", 400, "MQ_INVALID_REQUEST", "`limit`"),
        ("/dead-letters?colour=red", 400, "MQ_INVALID_REQUEST", "colour"),
        ("/dead-letters?after=x", 400, "MQ_INVALID_REQUEST", "page token"),
        ("/dead-letters/export?limit=5", 400, "MQ_INVALID_REQUEST", "leave `limit` out"),
    ] {
        server.get_below_api(path).await.refused(status, code, part);
    }
    server.close().await;
}

#[tokio::test]
async fn letters_are_edited_deleted_and_purged() {
    let server = filled().await;
    let edit = json!({ "body": { "n": 2 }, "headers": [{ "name": "h", "value": "v" }], "by": "me" });
    let edited = server.call_below_api("PATCH", "/dead-letters/0194-c", &edit).await.expect(200);
    assert_eq!((&edited["edit"]["by"], &edited["edit"]["headers"][0]["name"]), (&json!("me"), &json!("h")));
    let undone = server.call_below_api("PATCH", "/dead-letters/0194-c", json!({ "undo": true })).await.expect(200);
    assert_eq!(undone["edit"], json!(null));
    for (form, part) in [
        (json!({}), "undo"),
        (json!({ "body": 1, "bodyText": "x" }), ""),
        (json!({ "bodyBase64": "?" }), "ase64"),
        (json!({ "undo": true, "body": 1 }), "undo"),
        (json!({ "surprise": 1 }), "surprise"),
    ] {
        let refused = server.call_below_api("PATCH", "/dead-letters/0194-c", &form).await;
        refused.refused(400, "MQ_INVALID_REQUEST", part);
    }
    server.call_below_api("DELETE", "/dead-letters/0194-c", "").await.expect(204);
    server.call_below_api("DELETE", "/dead-letters/0194-c", "").await.refused(
        404,
        "MQ_DEAD_LETTER_NOT_FOUND",
        "0194-c",
    );
    server.call_below_api("POST", "/dead-letters/purge", "").await.refused(400, "MQ_INVALID_REQUEST", "filter");
    let filter = json!({ "filter": { "class": "target_failed" } });
    let purged = server.call_below_api("POST", "/dead-letters/purge", filter).await.expect(200);
    assert_eq!(purged, json!({ "deleted": 2 }));
    server.close().await;
}

#[tokio::test]
async fn redrive_jobs_are_made_shown_and_controlled() {
    let server = filled().await;
    let create = async |form: Value| server.call_below_api("POST", "/dead-letters/redrive", form).await;
    for (form, part) in [
        (json!({}), "either `ids` or a `filter`"),
        (json!({ "ids": ["0194-c"], "filter": {} }), "either `ids` or a `filter`"),
        (json!({ "ids": [] }), "`ids`"),
        (json!({ "filter": {}, "ratePerSecond": 0 }), "`ratePerSecond`"),
        (json!({ "filter": {}, "limit": 5 }), "dry run"),
        (json!({ "filter": {}, "from": "middle" }), "middle"),
        (json!({ "filter": {}, "dryRun": true, "limit": 0 }), "`limit`"),
    ] {
        create(form).await.refused(400, "MQ_INVALID_REQUEST", part);
    }
    create(json!({ "ids": ["nobody"] })).await.refused(404, "MQ_DEAD_LETTER_NOT_FOUND", "nobody");
    let nothing = create(json!({ "filter": { "pipeline": "other" } })).await;
    nothing.refused(404, "MQ_DEAD_LETTER_NOT_FOUND", "nothing to redrive");

    let job = create(json!({ "ids": ["0194"], "ratePerSecond": 7, "by": "me" })).await.expect(201);
    let id = job["id"].as_str().expect("an id").to_owned();
    assert_eq!((&job["counts"]["total"], &job["ratePerSecond"]), (&json!(1), &json!(7)));
    let control = async |verb: &str| server.call_below_api("POST", &format!("/redrives/{id}/{verb}"), "").await;
    assert_eq!(control("pause").await.expect(200)["state"], "paused");
    assert_eq!(control("resume").await.expect(200)["state"], "running");
    let items = server.get_below_api(&format!("/redrives/{id}/items?state=pending")).await.expect(200);
    assert_eq!(items["items"][0]["deadLetter"], "0194-c");
    control("cancel").await.expect(200);
    control("resume").await.refused(409, "MQ_CONFLICT", "already");
    let listed = server.get_below_api("/redrives").await.expect(200);
    assert_eq!(listed["redrives"][0]["id"], *id);
    for (path, status, code, part) in [
        ("/redrives?state=pending", 400, "MQ_INVALID_REQUEST", "items"),
        ("/redrives?limit=0", 400, "MQ_INVALID_REQUEST", "`limit`"),
        ("/redrives/nobody", 404, "MQ_REDRIVE_NOT_FOUND", "nobody"),
        ("/redrives/nobody/items", 404, "MQ_REDRIVE_NOT_FOUND", "nobody"),
    ] {
        server.get_below_api(path).await.refused(status, code, part);
    }
    let unfit = server.get_below_api(&format!("/redrives/{id}/items?state=lost")).await;
    unfit.refused(400, "MQ_INVALID_REQUEST", "there are");
    server.close().await;
}
