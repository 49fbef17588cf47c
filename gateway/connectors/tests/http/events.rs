//! CloudEvents and envelopes, good and bad, over the wire.

use serde_json::{Value, json};
use sluicegate_connectors::http::{Ingress, ServerLimits};

use crate::client::{Response, exchange, post};
use crate::pipeline::{Pipeline, delivered};
use crate::server::Server;

struct Fixture {
    server: Server,
    pipeline: Pipeline,
}

impl Fixture {
    async fn new(config: Value) -> Self {
        let ingress = Ingress::default();
        let pipeline = Pipeline::start(&ingress, config, |_| delivered()).await;
        Self { server: Server::start(&ingress, ServerLimits::default()).await, pipeline }
    }

    async fn send(&self, headers: &[(&str, &str)], body: &str) -> Response {
        exchange(self.server.address, &post("/in", headers, body.as_bytes())).await
    }
}

const BINARY: [(&str, &str); 6] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "e-1"),
    ("ce-source", "/shop"),
    ("ce-type", "order.created"),
    ("ce-greeting", "gr%C3%BC%C3%9F%20dich"),
    ("content-type", "application/json"),
];

fn event(id: &str) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": "order.created", "data": { "a": 1.50 } })
}

#[tokio::test]
async fn a_binary_event() {
    let fixture = Fixture::new(json!({ "path": "/in" })).await;
    let answer = fixture.send(&BINARY, "{\"a\" : 1}").await;
    assert_eq!((answer.status, &answer.json()["id"]), (200, &json!("e-1")));
    let message = fixture.pipeline.last();
    assert_eq!(message.body.bytes(), "{\"a\" : 1}");
    assert_eq!((message.source.as_str(), message.kind.as_str()), ("/shop", "order.created"));
    assert_eq!(message.headers.text("greeting"), Some("grüß dich"));
    assert_eq!(message.content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn all_mistakes_of_a_binary_event_are_listed() {
    let fixture = Fixture::new(json!({ "path": "/in" })).await;
    let answer = fixture
        .send(&[("ce-specversion", "2.0"), ("ce-type", ""), ("ce-time", "noon"), ("ce-x_y", "1"), ("ce-s", "%zz")], "")
        .await;
    assert_eq!((answer.status, answer.code()), (400, "MQ_INVALID_EVENT"));
    assert_eq!(answer.places(), ["ce-id", "ce-s", "ce-source", "ce-specversion", "ce-time", "ce-type", "ce-x_y"]);
    let twice = [&BINARY[..], &[("ce-id", "e-2")]].concat();
    let answer = fixture.send(&twice, "").await;
    assert_eq!((answer.status, answer.places()), (400, vec!["ce-id".to_owned()]));
    assert_eq!(answer.json()["errors"][0]["detail"], "comes more than once");
    assert_eq!(fixture.pipeline.count(), 0);
}

#[tokio::test]
async fn structured_events() {
    let fixture = Fixture::new(json!({ "path": "/in" })).await;
    let structured = [("content-type", "application/cloudevents+json; charset=UTF-8")];
    let answer = fixture.send(&structured, &event("e-2").to_string()).await;
    assert_eq!((answer.status, &answer.json()["id"]), (200, &json!("e-2")));
    assert_eq!(fixture.pipeline.last().body.bytes(), "{\"a\":1.5}");

    let mut bad = event("e-3");
    bad["source"] = json!(7.5);
    bad["data_base64"] = json!("?");
    bad.as_object_mut().unwrap().remove("type");
    let answer = fixture.send(&structured, &bad.to_string()).await;
    assert_eq!((answer.status, answer.code()), (400, "MQ_INVALID_EVENT"));
    assert_eq!(answer.places(), ["/data_base64", "/source", "/type"]);
    for body in ["", "{", "7", "\u{feff}{}", &"{\"a\":".repeat(200)] {
        let answer = fixture.send(&structured, body).await;
        assert_eq!((answer.status, answer.code()), (400, "MQ_INVALID_EVENT"), "{body}");
        assert_eq!(answer.places(), [""]);
    }
    assert_eq!(fixture.pipeline.count(), 1);
}

#[tokio::test]
async fn batches() {
    let fixture = Fixture::new(json!({ "path": "/in" })).await;
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let many = |count: usize| Value::from_iter((0..count).map(|i| event(&format!("e-{i}")))).to_string();
    let answer = fixture.send(&batch, &many(1_000)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["results"].as_array().map(Vec::len), Some(1_000));
    assert_eq!(fixture.pipeline.count(), 1_000);

    let answer = fixture.send(&batch, &many(1_001)).await;
    assert_eq!((answer.status, answer.code()), (413, "MQ_BATCH_TOO_LARGE"));
    let answer = fixture.send(&batch, &format!("[{},{{\"id\":\"\"}},null]", event("e-1"))).await;
    assert_eq!((answer.status, answer.code()), (400, "MQ_INVALID_EVENT"));
    assert_eq!(answer.places(), ["/1/id", "/1/source", "/1/specversion", "/1/type", "/2"]);
    let answer = fixture.send(&batch, &event("e-1").to_string()).await;
    assert_eq!((answer.status, answer.places()), (400, vec![String::new()]));
    let large = format!("[{}]", " ".repeat(4 << 20));
    let answer = fixture.send(&batch, &large).await;
    assert_eq!((answer.status, answer.code()), (413, "MQ_BODY_TOO_LARGE"));
    assert_eq!(fixture.pipeline.count(), 1_000, "a batch is accepted whole or not at all");
}

#[tokio::test]
async fn envelopes() {
    let fixture = Fixture::new(json!({ "path": "/in", "format": "envelope" })).await;
    let json_type = [("content-type", "application/json")];
    let envelope = json!({
        "id": "m-1", "type": "shop.order.created", "timestamp": "2026-11-20T12:00:00Z", "source": "shop",
        "correlationId": "c-1", "data": { "a": 1 }, "metadata": { "tenant": "acme" },
    });
    let answer = fixture.send(&json_type, &envelope.to_string()).await;
    assert_eq!((answer.status, &answer.json()["id"]), (200, &json!("m-1")));
    let message = fixture.pipeline.last();
    assert_eq!(message.correlation_id.as_deref(), Some("c-1"));
    assert_eq!((message.body.bytes().as_ref(), message.headers.text("tenant")), (&b"{\"a\":1}"[..], Some("acme")));

    let answer = fixture.send(&json_type, "{\"id\":7,\"timestamp\":\"noon\"}").await;
    assert_eq!((answer.status, answer.code()), (400, "MQ_INVALID_ENVELOPE"));
    assert_eq!(answer.places(), ["/data", "/id", "/timestamp", "/type"]);
    let answer = fixture.send(&[("content-type", "text/plain")], "x").await;
    assert_eq!((answer.status, answer.code()), (415, "MQ_UNSUPPORTED_MEDIA_TYPE"));
}

#[tokio::test]
async fn other_formats_of_events_and_paths_for_events_only() {
    let fixture = Fixture::new(json!({ "path": "/in", "format": "cloudevents" })).await;
    let answer = fixture.send(&[("content-type", "application/cloudevents+xml")], "<event/>").await;
    assert_eq!((answer.status, answer.code()), (415, "MQ_UNSUPPORTED_MEDIA_TYPE"));
    let answer = fixture.send(&[("content-type", "application/json")], "{}").await;
    assert_eq!((answer.status, answer.code()), (400, "MQ_INVALID_EVENT"));
    assert_eq!(answer.places(), ["ce-id", "ce-source", "ce-specversion", "ce-type"]);
}
