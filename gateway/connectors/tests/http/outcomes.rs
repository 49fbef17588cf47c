//! The answer is the outcome.

use std::sync::Arc;

use serde_json::json;
use sluicegate_connectors::http::{Ingress, IngressLimits, ServerLimits};
use sluicegate_engine::dead_letter::DeadLetter;
use sluicegate_engine::delivery::{Outcome, Settlement};
use sluicegate_engine::failure::{FailureClass, Reason, SchemaError};
use sluicegate_engine::message::Message;

use crate::client::{Client, exchange, post};
use crate::pipeline::{Held, Pipeline, delivered};
use crate::server::Server;

pub fn dead(message: &Message, class: FailureClass, errors: &[(&str, &str)]) -> Outcome {
    let original = Arc::new(message.clone());
    let letter = DeadLetter {
        id: "dl-1".to_owned(),
        failed_at_ms: 1,
        pipeline: Arc::from("orders"),
        config_version: Arc::from("abc"),
        at_failure: Arc::clone(&original),
        original,
        step: Some(Arc::from("validate order")),
        target: None,
        class,
        error: format!("the {class} failure"),
        schema_errors: errors
            .iter()
            .map(|(pointer, text)| SchemaError { pointer: (*pointer).to_owned(), text: (*text).to_owned() })
            .collect(),
        plugin: None,
        plugin_digest: None,
        backtrace: Vec::new(),
        attempts: Vec::new(),
        trace_id: None,
        redrive_count: 0,
    };
    Outcome { settlement: Settlement::DeadLettered, dead_letters: vec![Arc::new(letter)], ..Outcome::default() }
}

/// Each message says in its body how it is to end.
pub fn as_the_body_says(message: &Message) -> Outcome {
    match message.body.bytes().as_ref() {
        b"drop" => Outcome {
            settlement: Settlement::Dropped,
            dropped: vec![Reason::new("test_order", "orders of tests go nowhere")],
            ..Outcome::default()
        },
        b"schema" => dead(message, FailureClass::Schema, &[("/id", "is missing"), ("/n", "is no number")]),
        b"reject" => dead(message, FailureClass::Rejected, &[]),
        b"target" => dead(message, FailureClass::TargetFailed, &[]),
        b"park" => Outcome { settlement: Settlement::Parked, ..Outcome::requeued("the target `eu` is down") },
        b"requeue" => Outcome::requeued("the gateway is stopping"),
        _ => delivered(),
    }
}

#[tokio::test]
async fn every_outcome_has_its_answer() {
    let ingress = Ingress::default();
    let pipeline = Pipeline::start(&ingress, json!({ "path": "/in" }), as_the_body_says).await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let say = async |body: &str| exchange(server.address, &post("/in", &[], body.as_bytes())).await;

    let answer = say("deliver").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json(), json!({ "id": pipeline.last().id, "status": "delivered", "targets": ["eu"] }));

    let answer = say("drop").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["status"], "filtered");
    assert_eq!(answer.json()["reason"], "test_order: orders of tests go nowhere");

    let answer = say("schema").await;
    assert_eq!((answer.status, answer.code()), (422, "MQ_SCHEMA_VIOLATION"));
    assert_eq!(answer.places(), ["/id", "/n"]);
    assert_eq!(answer.json()["deadLetter"], "dl-1");
    assert_eq!(answer.json()["id"], pipeline.last().id);

    let answer = say("reject").await;
    assert_eq!((answer.status, answer.code()), (422, "MQ_MESSAGE_REJECTED"));
    assert_eq!(answer.json()["class"], "rejected");

    let answer = say("target").await;
    assert_eq!((answer.status, answer.code()), (503, "MQ_PUBLISH_FAILED"));
    assert_eq!((&answer.json()["class"], &answer.json()["deadLetter"]), (&json!("target_failed"), &json!("dl-1")));
    assert!(answer.json()["detail"].as_str().unwrap().contains("kept as dead letter dl-1"));
    assert!(answer.header("retry-after").is_some());

    let answer = say("park").await;
    assert_eq!(answer.status, 202);
    let reason = "the target `eu` is down";
    assert_eq!(answer.json(), json!({ "id": pipeline.last().id, "status": "parked", "targets": [], "reason": reason }));

    let answer = say("requeue").await;
    assert_eq!((answer.status, answer.code()), (503, "MQ_NOT_DELIVERED"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("the gateway is stopping"));
}

#[tokio::test]
async fn a_batch_answers_for_each_of_its_messages() {
    let ingress = Ingress::default();
    let pipeline = Pipeline::start(&ingress, json!({ "path": "/in" }), as_the_body_says).await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let batch = async |bodies: &[&str]| {
        let event = |(index, body): (usize, &&str)| {
            json!({
                "specversion": "1.0", "id": format!("e-{index}"), "source": "/s", "type": "t",
                "datacontenttype": "text/plain", "data": body,
            })
        };
        let body = serde_json::Value::from_iter(bodies.iter().enumerate().map(event)).to_string();
        let headers = [("content-type", "application/cloudevents-batch+json; charset=utf-8")];
        exchange(server.address, &post("/in", &headers, body.as_bytes())).await
    };

    let answer = batch(&["a", "drop", "b"]).await;
    assert_eq!(answer.status, 200);
    let results = answer.json()["results"].as_array().unwrap().clone();
    assert_eq!(results.iter().map(|r| r["id"].as_str().unwrap()).collect::<Vec<_>>(), ["e-0", "e-1", "e-2"]);
    assert_eq!(
        results.iter().map(|r| r["status"].as_str().unwrap()).collect::<Vec<_>>(),
        ["delivered", "filtered", "delivered"]
    );

    let answer = batch(&["a", "schema"]).await;
    assert_eq!((answer.status, answer.code()), (422, "MQ_BATCH_INCOMPLETE"));
    assert_eq!(answer.json()["results"][1]["code"], "MQ_SCHEMA_VIOLATION");
    assert_eq!(answer.json()["results"][1]["errors"][0]["pointer"], "/id");

    let answer = batch(&["schema", "requeue", "a"]).await;
    assert_eq!((answer.status, answer.code()), (503, "MQ_BATCH_INCOMPLETE"));
    assert_eq!(answer.json()["results"][2]["status"], "delivered");

    let empty = batch(&[]).await;
    assert_eq!((empty.status, empty.json()), (200, json!({ "results": [] })));
    assert_eq!(pipeline.count(), 8);
}

#[tokio::test]
async fn a_client_that_waits_too_long_is_told_that_the_outcome_is_unknown() {
    let ingress = Ingress::default();
    let mut held = Held::with(&ingress, json!({ "path": "/in", "timeout": "50ms" })).await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let mut client = Client::connect(server.address).await;
    client.send(&post("/in", &[], b"x")).await;
    let received = held.receive().await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.code()), (503, "MQ_OUTCOME_UNKNOWN"));
    assert_eq!(answer.json()["id"], received.message.id);
    held.deliver(received).await;
}

#[tokio::test]
async fn a_message_goes_on_when_its_client_goes_away() {
    let ingress = Ingress::default();
    let mut held = Held::new(&ingress, "/in").await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let mut client = Client::connect(server.address).await;
    client.send(&post("/in", &[], b"kept")).await;
    let received = held.receive().await;
    drop(client);
    assert_eq!(received.message.body.bytes(), "kept");
    held.deliver(received).await;
    let mut next = Client::connect(server.address).await;
    next.send(&post("/in", &[], b"next")).await;
    let received = held.receive().await;
    held.deliver(received).await;
    assert_eq!(next.response().await.status, 200);
}

#[tokio::test]
async fn a_pipeline_that_cannot_follow_answers_429_at_once_and_takes_none_of_a_batch() {
    let limits = IngressLimits { max_queued_messages: 2, max_batch_messages: 2, ..IngressLimits::default() };
    let ingress = Ingress::new(limits);
    let mut held = Held::new(&ingress, "/in").await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(server.address).await;
        client.send(&post("/in", &[], b"x")).await;
        clients.push(client);
    }
    // Two of the three wait in the queue, whichever came first.
    let answers = clients.iter_mut().map(|client| Box::pin(client.response()));
    let (refused, index, _) = futures_util::future::select_all(answers).await;
    assert_eq!((refused.status, refused.code()), (429, "MQ_TOO_MANY_REQUESTS"));
    assert!(refused.header("retry-after").is_some());
    assert!(refused.json()["detail"].as_str().unwrap().contains("nothing was accepted"));
    clients.remove(index);
    for _ in 0..2 {
        let received = held.receive().await;
        held.deliver(received).await;
    }
    for mut client in clients {
        assert_eq!(client.response().await.status, 200);
    }
}

#[tokio::test]
async fn bodies_beyond_the_gateways_memory_are_answered_503_at_once() {
    let limits = IngressLimits { max_body_memory_bytes: 64 << 10, ..IngressLimits::default() };
    let ingress = Ingress::new(limits);
    let mut held = Held::new(&ingress, "/in").await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let mut first = Client::connect(server.address).await;
    first.send(&post("/in", &[], &[b'x'; 40 << 10])).await;
    let received = held.receive().await;
    let refused = exchange(server.address, &post("/in", &[], &[b'x'; 40 << 10])).await;
    assert_eq!((refused.status, refused.code()), (503, "MQ_OVERLOADED"));
    held.deliver(received).await;
    assert_eq!(first.response().await.status, 200);
    let mut second = Client::connect(server.address).await;
    second.send(&post("/in", &[], &[b'x'; 40 << 10])).await;
    let received = held.receive().await;
    held.deliver(received).await;
    assert_eq!(second.response().await.status, 200, "the memory was given back");
}

#[tokio::test]
async fn requests_are_counted_by_configured_path_and_status_only() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let ingress = Ingress::default();
    let _pipeline = Pipeline::start(&ingress, json!({ "path": "/in" }), as_the_body_says).await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    for (path, body) in [("/in", "x"), ("/in", "schema"), ("/in", "x"), ("/guess-1", "x"), ("/guess-2", "x")] {
        exchange(server.address, &post(path, &[], body.as_bytes())).await;
    }
    let rendered = rendered.render();
    for line in [
        "sluicegate_http_requests_total{path=\"/in\",status=\"200\"} 2",
        "sluicegate_http_requests_total{path=\"/in\",status=\"422\"} 1",
        "sluicegate_http_requests_total{path=\"(unknown)\",status=\"404\"} 2",
    ] {
        assert!(rendered.contains(line), "{line}\n{rendered}");
    }
    assert!(!rendered.contains("guess"), "{rendered}");
}
