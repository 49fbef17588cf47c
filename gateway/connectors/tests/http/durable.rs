//! `respond: accepted`: 202 once the messages are on disk, and never without.

use serde_json::json;
use sluicegate_connectors::http::{HttpSource, Ingress, IngressLimits, Respond, ServerLimits, SourceConfig};
use sluicegate_connectors::registry::BuildContext;
use tokio::time::timeout;

use crate::client::{Client, QUIET, Response, exchange, post};
use crate::pipeline::{Held, Pipeline, context, delivered};
use crate::server::Server;
use crate::spool::{Gate, MemorySpool, disk_full, until};

async fn start(ingress: &Ingress) -> Server {
    Server::start(ingress, ServerLimits::default()).await
}

async fn batch(server: &Server, bodies: &[&str]) -> Response {
    let event = |(index, body): (usize, &&str)| {
        json!({
            "specversion": "1.0", "id": format!("e-{index}"), "source": "/s", "type": "t",
            "datacontenttype": "text/plain", "data": body,
        })
    };
    let body = serde_json::Value::from_iter(bodies.iter().enumerate().map(event)).to_string();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    exchange(server.address, &post("/in", &headers, body.as_bytes())).await
}

#[tokio::test]
async fn the_answer_comes_only_when_the_message_is_on_disk() {
    let (ingress, spool) = (Ingress::default(), MemorySpool::new());
    let mut pipeline = spool.listen(&ingress, json!({ "kind": "order.posted" })).await;
    let server = start(&ingress).await;
    let mut client = Client::connect(server.address).await;
    for gate in [Gate::Before, Gate::After] {
        spool.set(gate);
        let calls = spool.calls();
        client.send(&post("/in", &[("x-a", "1"), ("traceparent", TRACE_PARENT)], b"body")).await;
        spool.called(calls + 1).await;
        client.assert_silent().await;
        spool.set(Gate::Open);
        let answer = client.response().await;
        assert_eq!((answer.status, answer.header("content-type")), (202, Some("application/json")));
        assert_eq!(answer.header("idempotency-replayed"), None);
        let id = spool.with_entry(spool.bodies().len() - 1, |entry| entry.message.id.clone());
        assert_eq!(answer.json(), json!({ "id": id, "status": "accepted" }));
    }
    assert_eq!(spool.bodies(), ["body", "body"]);
    spool.with_entry(0, |entry| {
        assert_eq!((&*entry.pipeline, entry.ordered), ("orders", false));
        let message = &entry.message;
        assert_eq!((message.kind.as_str(), message.source.as_str(), message.attempt), ("order.posted", "orders", 1));
        assert_eq!((message.headers.text("x-a"), message.trace_parent.as_deref()), (Some("1"), Some(TRACE_PARENT)));
    });
    // The pipeline reads its inbox; what was put there must not come a second time from the source.
    assert!(timeout(QUIET, pipeline.connection.inlet.receive(1)).await.is_err());
}

const TRACE_PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn an_ordered_pipeline_says_so_to_its_spool() {
    let (ingress, spool) = (Ingress::default(), MemorySpool::new());
    let config = json!({ "path": "/in", "respond": "accepted", "key": { "header": "x-key" } });
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    let context = BuildContext { spool: Some(spool.clone()), ordered: true, ..context(&ingress) };
    let _pipeline = Held::connect(HttpSource::new(&config, &context)).await;
    let server = start(&ingress).await;
    assert_eq!(exchange(server.address, &post("/in", &[("x-key", "k")], b"x")).await.status, 202);
    spool.with_entry(0, |entry| assert!(entry.ordered && entry.message.key.as_deref() == Some(b"k")));
}

#[tokio::test]
async fn nothing_is_answered_202_that_the_store_refuses() {
    let (ingress, spool) = (Ingress::default(), MemorySpool::new());
    let _pipeline = spool.listen(&ingress, json!({})).await;
    let server = start(&ingress).await;
    for query in ["/in", "/in?wait=delivered"] {
        spool.refuse([disk_full()]);
        let refused = exchange(server.address, &post(query, &[], b"lost")).await;
        assert_eq!((refused.status, refused.code()), (503, "MQ_STORE_UNAVAILABLE"));
        assert_eq!(refused.header("retry-after"), Some("7"));
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("the disk is full") && detail.contains("nothing was accepted"), "{detail}");
    }
    assert!(spool.bodies().is_empty());
    assert_eq!(exchange(server.address, &post("/in", &[], b"kept")).await.status, 202, "it recovers by itself");
    assert_eq!(spool.bodies(), ["kept"]);
}

#[tokio::test]
async fn a_store_that_does_not_answer_in_time_leaves_it_open_and_says_so() {
    let (ingress, spool) = (Ingress::default(), MemorySpool::new());
    let _pipeline = spool.listen(&ingress, json!({ "timeout": "50ms" })).await;
    let server = start(&ingress).await;
    for gate in [Gate::Before, Gate::After] {
        spool.set(gate);
        let answer = exchange(server.address, &post("/in", &[], b"x")).await;
        assert_eq!((answer.status, answer.code()), (503, "MQ_OUTCOME_UNKNOWN"), "{gate:?}");
        assert!(answer.header("retry-after").is_some());
    }
}

#[tokio::test]
async fn a_batch_is_taken_whole_or_not_at_all() {
    let (ingress, spool) = (Ingress::default(), MemorySpool::new());
    let _pipeline = spool.listen(&ingress, json!({ "max_backlog": 3 })).await;
    let server = start(&ingress).await;
    let answer = batch(&server, &["a", "b"]).await;
    assert_eq!(answer.status, 202);
    let results = json!([{ "id": "e-0", "status": "accepted" }, { "id": "e-1", "status": "accepted" }]);
    assert_eq!(answer.json(), json!({ "results": results }));

    let full = batch(&server, &["c", "d"]).await;
    assert_eq!((full.status, full.code()), (429, "MQ_BACKLOG_FULL"));
    assert_eq!(full.header("retry-after"), Some("7"), "rounded up");
    let never = batch(&server, &["c", "d", "e", "f"]).await;
    assert_eq!((never.status, never.code()), (413, "MQ_BATCH_TOO_LARGE"));
    assert_eq!(spool.bodies(), ["a", "b"]);

    let empty = batch(&server, &[]).await;
    assert_eq!((empty.status, empty.json()), (200, json!({ "results": [] })));
    assert_eq!(batch(&server, &["c"]).await.status, 202);
    assert_eq!(exchange(server.address, &post("/in", &[], b"d")).await.code(), "MQ_BACKLOG_FULL");
    assert_eq!(spool.bodies(), ["a", "b", "c"]);
}

#[tokio::test]
async fn the_backlog_is_limited_in_bytes_too() {
    let (ingress, spool) = (Ingress::default(), MemorySpool::new());
    let limits = json!({ "max_body": "8B", "max_backlog_bytes": "10B" });
    let _pipeline = spool.listen(&ingress, limits).await;
    let server = start(&ingress).await;
    assert_eq!(exchange(server.address, &post("/in", &[], b"12345678")).await.status, 202);
    let full = exchange(server.address, &post("/in", &[], b"123")).await;
    assert_eq!((full.status, full.code()), (429, "MQ_BACKLOG_FULL"));
    assert_eq!(exchange(server.address, &post("/in", &[], b"12")).await.status, 202);
}

#[tokio::test]
async fn bodies_leave_the_gateways_memory_with_the_answer() {
    let limits = IngressLimits { max_body_memory_bytes: 64 << 10, ..IngressLimits::default() };
    let (ingress, spool) = (Ingress::new(limits), MemorySpool::new());
    let _pipeline = spool.listen(&ingress, json!({})).await;
    let server = start(&ingress).await;
    for _ in 0..3 {
        assert_eq!(exchange(server.address, &post("/in", &[], &[b'x'; 40 << 10])).await.status, 202);
    }
    spool.set(Gate::Before);
    let mut held = Client::connect(server.address).await;
    held.send(&post("/in", &[], &[b'x'; 40 << 10])).await;
    spool.called(4).await;
    let refused = exchange(server.address, &post("/in", &[], &[b'x'; 40 << 10])).await;
    assert_eq!((refused.status, refused.code()), (503, "MQ_OVERLOADED"), "what is not on disk yet counts");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_half_done() {
    let (ingress, spool) = (Ingress::default(), MemorySpool::new());
    let _pipeline = spool.listen(&ingress, json!({})).await;
    let server = start(&ingress).await;
    spool.set(Gate::Before);
    let mut gone = Client::connect(server.address).await;
    gone.send(&post("/in", &[("idempotency-key", "k")], b"x")).await;
    spool.called(1).await;
    drop(gone);
    spool.set(Gate::Open);
    // As soon as the server has seen it go, its key is free again.
    let answer = loop {
        let answer = exchange(server.address, &post("/in", &[("idempotency-key", "k")], b"x")).await;
        if answer.status != 409 {
            break answer;
        }
    };
    assert_eq!(answer.status, 202);
    assert_eq!(spool.bodies(), ["x"], "whichever of the two was taken, one was");
}

#[tokio::test]
async fn a_path_without_a_store_says_so() {
    let ingress = Ingress::default();
    let _accepted = Held::with(&ingress, json!({ "path": "/accepted", "respond": "accepted" })).await;
    let pipeline = Pipeline::delivering(&ingress, "/delivered").await;
    let server = start(&ingress).await;
    for (path, headers) in [("/accepted", &[][..]), ("/delivered", &[("idempotency-key", "k")][..])] {
        let refused = exchange(server.address, &post(path, headers, b"x")).await;
        assert_eq!((refused.status, refused.code()), (503, "MQ_STORE_UNAVAILABLE"), "{path}");
        assert!(refused.json()["detail"].as_str().unwrap().contains("without the store"));
    }
    assert_eq!(pipeline.count(), 0);
    assert_eq!(exchange(server.address, &post("/delivered", &[], b"x")).await.status, 200);
    let config: SourceConfig = serde_json::from_value(json!({ "path": "/a" })).unwrap();
    assert_eq!(config.respond, Respond::Delivered, "a store is needed only where it is asked for");
}

#[tokio::test]
async fn a_thousand_requests_during_twenty_reloads_are_all_kept_once() {
    let (ingress, spool) = (Ingress::default(), MemorySpool::new());
    let server = start(&ingress).await;
    let mut pipeline = spool.listen(&ingress, json!({})).await;
    let address = server.address;
    let clients: Vec<_> = (0..10)
        .map(|client| {
            tokio::spawn(async move {
                let mut connection = Client::connect(address).await;
                for i in 0..100 {
                    connection.send(&post("/in", &[], format!("{client}-{i}").as_bytes())).await;
                    let answer = connection.response().await;
                    assert_eq!(answer.status, 202, "{}", answer.json());
                }
            })
        })
        .collect();
    for round in 0..20 {
        let count = spool.bodies().len();
        if round % 2 == 0 {
            // Beside its successor, or before it.
            let successor = spool.listen(&ingress, json!({})).await;
            drop(std::mem::replace(&mut pipeline, successor));
        } else {
            drop(pipeline);
            tokio::task::yield_now().await;
            pipeline = spool.listen(&ingress, json!({})).await;
        }
        until(|| spool.bodies().len() >= (count + 10).min(1_000)).await;
    }
    for client in clients {
        client.await.unwrap();
    }
    let mut bodies = spool.bodies();
    assert_eq!(bodies.len(), 1_000);
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 1_000);
}

#[tokio::test]
async fn a_pipeline_that_begins_to_accept_delivers_what_its_predecessor_left() {
    let (ingress, spool) = (Ingress::default(), MemorySpool::new());
    let mut older = Held::new(&ingress, "/in").await;
    let server = start(&ingress).await;
    let event = |id: &str| json!({ "specversion": "1.0", "id": id, "source": "/s", "type": "t" });
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let mut split = Client::connect(server.address).await;
    split.send(&post("/in", &headers, json!([event("e-1"), event("e-2")]).to_string().as_bytes())).await;
    let half = older.receive().await;
    let mut newer = spool.listen(&ingress, json!({})).await;
    older.deliver(half).await;
    drop(older.connection.inlet);
    let left = newer.receive().await;
    assert_eq!(left.message.id, "e-2");
    newer.settle(left, delivered()).await;
    assert_eq!(split.response().await.status, 200, "its client was promised the outcome");
    assert!(spool.bodies().is_empty());
}
