//! Sources come and go while requests arrive.

use std::time::Duration;

use serde_json::json;
use sluicegate_connectors::http::{Ingress, IngressLimits, ServerLimits};
use sluicegate_engine::delivery::Outcome;

use crate::client::{Client, exchange, post};
use crate::pipeline::{Held, Pipeline};
use crate::server::Server;

#[tokio::test]
async fn the_newer_source_takes_over_and_the_older_one_finishes_what_it_has() {
    let ingress = Ingress::default();
    let mut older = Held::new(&ingress, "/in").await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let mut first = Client::connect(server.address).await;
    first.send(&post("/in", &[], b"first")).await;
    let in_flight = older.receive().await;

    let newer = Pipeline::delivering(&ingress, "/in").await;
    assert_eq!(exchange(server.address, &post("/in", &[], b"second")).await.status, 200);
    assert_eq!(newer.last().body.bytes(), "second");
    older.deliver(in_flight).await;
    assert_eq!(first.response().await.status, 200);
    drop(older);
    assert_eq!(exchange(server.address, &post("/in", &[], b"third")).await.status, 200);
    assert_eq!(newer.count(), 2);
}

#[tokio::test]
async fn an_older_source_does_not_take_its_path_back() {
    let ingress = Ingress::default();
    let mut older = Held::new(&ingress, "/in").await;
    let _newer = Pipeline::delivering(&ingress, "/in").await;
    // Its inlet stays silent until it is dropped: a failure would make its driver connect anew.
    let silence = tokio::time::timeout(Duration::from_millis(50), older.connection.inlet.receive(1)).await;
    assert!(silence.is_err());
}

#[tokio::test]
async fn what_the_older_source_did_not_take_goes_to_the_newer_one() {
    let ingress = Ingress::default();
    let mut older = Held::new(&ingress, "/in").await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let mut taken = Client::connect(server.address).await;
    taken.send(&post("/in", &[], b"taken")).await;
    let in_flight = older.receive().await;
    let batch = json!([
        { "specversion": "1.0", "id": "e-1", "source": "/s", "type": "t" },
        { "specversion": "1.0", "id": "e-2", "source": "/s", "type": "t" },
    ]);
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let mut split = Client::connect(server.address).await;
    split.send(&post("/in", &headers, batch.to_string().as_bytes())).await;
    let half = older.receive().await;
    assert_eq!(half.message.id, "e-1");

    // Drained: the inlet goes, the settler stays until all that was in flight is settled.
    let Held { connection, .. } = older;
    drop(connection.inlet);
    let newer = Pipeline::delivering(&ingress, "/in").await;
    let mut settler = connection.settler;
    for received in [in_flight, half] {
        let settled = sluicegate_engine::delivery::Settled::new(
            received.token,
            std::sync::Arc::new(received.message),
            crate::pipeline::delivered(),
        );
        settler.settle(&[settled]).await.unwrap();
    }
    assert_eq!(taken.response().await.status, 200);
    let answer = split.response().await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(newer.count(), 1);
    assert_eq!(newer.last().id, "e-2");
}

#[tokio::test]
async fn requests_wait_for_a_successor_and_no_longer() {
    let limits = IngressLimits { successor_wait: Duration::from_secs(10), ..IngressLimits::default() };
    let ingress = Ingress::new(limits);
    drop(Pipeline::delivering(&ingress, "/in").await);
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let mut waiting = Client::connect(server.address).await;
    waiting.send(&post("/in", &[], b"x")).await;
    let _successor = Pipeline::delivering(&ingress, "/in").await;
    assert_eq!(waiting.response().await.status, 200);

    let limits = IngressLimits { successor_wait: Duration::from_millis(50), ..IngressLimits::default() };
    let ingress = Ingress::new(limits);
    drop(Held::new(&ingress, "/in").await);
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let refused = exchange(server.address, &post("/in", &[], b"x")).await;
    assert_eq!((refused.status, refused.code()), (503, "MQ_PIPELINE_UNAVAILABLE"));
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test]
async fn a_pipeline_that_dies_over_a_message_leaves_no_client_waiting() {
    let ingress = Ingress::default();
    let mut held = Held::new(&ingress, "/in").await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let mut client = Client::connect(server.address).await;
    client.send(&post("/in", &[], b"x")).await;
    let _never_settled = held.receive().await;
    drop(held);
    let answer = client.response().await;
    assert_eq!((answer.status, answer.code()), (503, "MQ_OUTCOME_UNKNOWN"));
}

#[tokio::test]
async fn a_thousand_requests_during_twenty_reloads_are_all_delivered_once() {
    let ingress = Ingress::default();
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let start = async || {
        let seen = std::sync::Arc::clone(&seen);
        Pipeline::start(&ingress, json!({ "path": "/in" }), move |message| {
            seen.lock().unwrap().push(message.body.bytes().clone());
            Outcome::default()
        })
        .await
    };
    let mut pipeline = start().await;
    let address = server.address;
    let clients: Vec<_> = (0..10)
        .map(|client| {
            tokio::spawn(async move {
                let mut connection = Client::connect(address).await;
                for i in 0..100 {
                    connection.send(&post("/in", &[], format!("{client}-{i}").as_bytes())).await;
                    let answer = connection.response().await;
                    assert_eq!(answer.status, 200, "{}", answer.json());
                }
            })
        })
        .collect();
    for _ in 0..20 {
        let count = seen.lock().unwrap().len();
        let successor = start().await;
        // Stopped between two messages, as a drained pipeline is: its task yields only while it waits for more.
        drop(std::mem::replace(&mut pipeline, successor));
        let deadline = tokio::time::Instant::now() + crate::client::DEADLINE;
        while seen.lock().unwrap().len() < (count + 10).min(1_000) {
            assert!(tokio::time::Instant::now() < deadline, "messages go on");
            tokio::task::yield_now().await;
        }
    }
    for client in clients {
        client.await.unwrap();
    }
    let mut seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 1_000);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 1_000);
}
