//! `?wait=delivered`: on disk first, then the outcome.

use std::sync::Arc;

use serde_json::{Value, json};
use sluicegate_connectors::http::{Ingress, ServerLimits};
use sluicegate_engine::delivery::{Outcome, Settlement};

use crate::client::{Client, exchange, post};
use crate::outcomes::as_the_body_says;
use crate::pipeline::{Held, Pipeline, delivered};
use crate::server::Server;
use crate::spool::{MemorySpool, until};

const WAITING: &str = "/in?wait=delivered";

struct Fixture {
    ingress: Ingress,
    spool: Arc<MemorySpool>,
    pipeline: Held,
    server: Server,
}

impl Fixture {
    async fn new(more: Value) -> Self {
        let (ingress, spool) = (Ingress::default(), MemorySpool::new());
        let pipeline = spool.listen(&ingress, more).await;
        let server = Server::start(&ingress, ServerLimits::default()).await;
        Self { ingress, spool, pipeline, server }
    }

    /// A client that waits for the outcome of a message that is on disk, as the one of this number.
    async fn waits(&self, body: &str, index: usize) -> Client {
        let mut client = Client::connect(self.server.address).await;
        client.send(&post(WAITING, &[], body.as_bytes())).await;
        until(|| self.spool.bodies().len() > index).await;
        client
    }
}

#[tokio::test]
async fn the_answer_is_the_outcome() {
    let fixture = Fixture::new(json!({})).await;
    let answers = [
        ("deliver", 200, json!("delivered"), json!(null)),
        ("drop", 200, json!("filtered"), json!(null)),
        ("park", 202, json!("parked"), json!(null)),
        ("schema", 422, json!(422), json!("MQ_SCHEMA_VIOLATION")),
        ("reject", 422, json!(422), json!("MQ_MESSAGE_REJECTED")),
        ("target", 503, json!(503), json!("MQ_PUBLISH_FAILED")),
        // The inbox keeps what was not decided, so that it is not to be sent again.
        ("requeue", 202, json!("parked"), json!(null)),
    ];
    for (index, (body, status, told, code)) in answers.into_iter().enumerate() {
        let mut client = fixture.waits(body, index).await;
        client.assert_silent().await;
        fixture.spool.settle(index, as_the_body_says);
        let answer = client.response().await;
        let document = answer.json();
        assert_eq!((answer.status, &document["status"], &document["code"]), (status, &told, &code), "{body}");
        let id = fixture.spool.with_entry(index, |entry| entry.message.id.clone());
        assert_eq!(document["id"], id, "{body}");
    }
    assert_eq!(fixture.spool.bodies().len(), 7);
}

#[tokio::test]
async fn a_postponed_message_is_kept_and_its_reason_told() {
    let fixture = Fixture::new(json!({})).await;
    let mut client = fixture.waits("x", 0).await;
    let after = std::time::Duration::from_secs(30);
    fixture.spool.settle(0, |_| Outcome {
        settlement: Settlement::Postponed { after, attempt: 2 },
        ..Outcome::requeued("the target `eu` is down")
    });
    let answer = client.response().await;
    assert_eq!((answer.status, &answer.json()["reason"]), (202, &json!("the target `eu` is down")));
}

#[tokio::test]
async fn who_waits_too_long_is_told_that_the_message_is_on_disk() {
    let fixture = Fixture::new(json!({ "timeout": "50ms" })).await;
    let answer = exchange(fixture.server.address, &post(WAITING, &[], b"slow")).await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("accepted")));
    assert!(answer.json()["reason"].as_str().unwrap().contains("on disk"), "{}", answer.json());
    assert_eq!(fixture.spool.bodies(), ["slow"]);

    let event = |id: &str| json!({ "specversion": "1.0", "id": id, "source": "/s", "type": "t" });
    let batch = json!([event("e-1"), event("e-2"), event("e-3")]).to_string();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let mut client = Client::connect(fixture.server.address).await;
    client.send(&post(WAITING, &headers, batch.as_bytes())).await;
    until(|| fixture.spool.bodies().len() == 4).await;
    fixture.spool.settle(2, |_| delivered());
    let answer = client.response().await;
    assert_eq!(answer.status, 202);
    let statuses: Vec<_> =
        answer.json()["results"].as_array().unwrap().iter().map(|result| result["status"].clone()).collect();
    assert_eq!(statuses, ["accepted", "delivered", "accepted"]);
}

#[tokio::test]
async fn a_batch_has_an_outcome_for_each_of_its_messages() {
    let fixture = Fixture::new(json!({})).await;
    let event = |id: &str| json!({ "specversion": "1.0", "id": id, "source": "/s", "type": "t" });
    let batch = json!([event("e-1"), event("e-2")]).to_string();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let rejected =
        |message: &_| crate::outcomes::dead(message, sluicegate_engine::failure::FailureClass::Rejected, &[]);
    for (first, second) in [(0, 1), (3, 2)] {
        let mut client = Client::connect(fixture.server.address).await;
        client.send(&post(WAITING, &headers, batch.as_bytes())).await;
        until(|| fixture.spool.bodies().len() > first.max(second)).await;
        fixture.spool.settle(first, |_| delivered());
        fixture.spool.settle(second, rejected);
        let answer = client.response().await;
        assert_eq!((answer.status, answer.code()), (422, "MQ_BATCH_INCOMPLETE"));
        let results = answer.json()["results"].as_array().unwrap().clone();
        assert_eq!(results[first % 2]["status"], "delivered");
        assert_eq!(results[second % 2]["code"], "MQ_MESSAGE_REJECTED");
    }
}

#[tokio::test]
async fn an_outcome_that_is_not_to_be_learned_is_no_failure() {
    let fixture = Fixture::new(json!({})).await;
    let mut client = fixture.waits("x", 0).await;
    fixture.spool.forget_who_waits();
    let answer = client.response().await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("accepted")));
}

#[tokio::test]
async fn who_waits_goes_on_waiting_when_the_pipeline_is_replaced() {
    let mut fixture = Fixture::new(json!({})).await;
    let mut client = fixture.waits("x", 0).await;
    fixture.pipeline = fixture.spool.listen(&fixture.ingress, json!({ "max_backlog": 9 })).await;
    client.assert_silent().await;
    drop(fixture.pipeline);
    fixture.pipeline = fixture.spool.listen(&fixture.ingress, json!({})).await;
    client.assert_silent().await;
    fixture.spool.settle(0, |_| delivered());
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn who_waits_is_answered_when_the_pipeline_has_stopped() {
    // Its own timeout is longer than a client of these tests has patience.
    let fixture = Fixture::new(json!({ "timeout": "300s" })).await;
    let mut client = fixture.waits("x", 0).await;
    drop(fixture.pipeline);
    let answer = client.response().await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("accepted")));
}

#[tokio::test]
async fn wait_has_one_value_and_other_parameters_mean_nothing() {
    let fixture = Fixture::new(json!({})).await;
    let delivering = Pipeline::delivering(&fixture.ingress, "/delivered").await;
    for query in ["wait", "wait=", "wait=accepted", "wait=Delivered", "a=b&wait=1", "wait=delivered&wait=x"] {
        for path in ["/in", "/delivered"] {
            let refused = exchange(fixture.server.address, &post(&format!("{path}?{query}"), &[], b"x")).await;
            assert_eq!((refused.status, refused.code()), (400, "MQ_INVALID_QUERY"), "{path}?{query}");
        }
    }
    assert_eq!((fixture.spool.bodies().len(), delivering.count()), (0, 0));
    let ignored = exchange(fixture.server.address, &post("/in?await=1&waits=x&&a", &[], b"x")).await;
    assert_eq!(ignored.status, 202);
    let same = exchange(fixture.server.address, &post("/delivered?wait=delivered", &[], b"x")).await;
    assert_eq!((same.status, &same.json()["status"]), (200, &json!("delivered")));
}
