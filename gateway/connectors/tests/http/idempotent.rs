//! `Idempotency-Key`: a request that is repeated is answered as before, and its messages are taken once.

use std::sync::Arc;

use serde_json::{Value, json};
use sluicegate_connectors::http::{Ingress, ServerLimits, Spool};
use sluicegate_engine::delivery::Outcome;
use sluicegate_engine::message::Message;
use tokio::time::timeout;

use crate::client::{Client, DEADLINE, QUIET, Response, exchange, post};
use crate::outcomes::as_the_body_says;
use crate::pipeline::{Held, Pipeline, delivered, source};
use crate::server::Server;
use crate::spool::{Gate, MemorySpool, disk_full, until};

const KEY: (&str, &str) = ("idempotency-key", "\"k-1\"");

struct Fixture {
    ingress: Ingress,
    spool: Arc<MemorySpool>,
    server: Server,
}

impl Fixture {
    async fn new() -> Self {
        let (ingress, spool) = (Ingress::default(), MemorySpool::new());
        let server = Server::start(&ingress, ServerLimits::default()).await;
        Self { ingress, spool, server }
    }

    async fn accepting(&self) -> Held {
        self.spool.listen(&self.ingress, json!({})).await
    }

    async fn delivering(&self, rule: impl FnMut(&Message) -> Outcome + Send + 'static) -> Pipeline {
        let spool: Arc<dyn Spool> = self.spool.clone();
        Pipeline::run(source(&self.ingress, Some(spool), json!({ "path": "/in" })), rule).await
    }

    async fn held(&self, more: Value) -> Held {
        let mut config = json!({ "path": "/in" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spool: Arc<dyn Spool> = self.spool.clone();
        Held::connect(source(&self.ingress, Some(spool), config)).await
    }

    async fn say(&self, body: &str) -> Response {
        exchange(self.server.address, &post("/in", &[KEY], body.as_bytes())).await
    }

    async fn begin(&self, path: &str, body: &str) -> Client {
        let mut client = Client::connect(self.server.address).await;
        client.send(&post(path, &[KEY], body.as_bytes())).await;
        client
    }
}

/// Asks until the key is no longer in progress.
async fn once_done(fixture: &Fixture, body: &str) -> Response {
    let asking = async {
        loop {
            let answer = fixture.say(body).await;
            if answer.status != 409 {
                return answer;
            }
        }
    };
    timeout(DEADLINE, asking).await.expect("done in time")
}

fn assert_same(first: &Response, again: &Response) {
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(first.header("content-type"), again.header("content-type"));
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), (None, Some("true")));
}

#[tokio::test]
async fn a_repetition_is_answered_the_same_and_taken_once() {
    let fixture = Fixture::new().await;
    let _pipeline = fixture.accepting().await;
    let first = fixture.say("a").await;
    assert_eq!(first.status, 202);
    for _ in 0..2 {
        assert_same(&first, &fixture.say("a").await);
    }
    let bare = exchange(fixture.server.address, &post("/in", &[("idempotency-key", "k-1")], b"a")).await;
    assert_same(&first, &bare);
    assert_eq!(fixture.spool.bodies(), ["a"]);
    fixture.spool.with_entry(0, |entry| assert_eq!(entry.message.headers.text("idempotency-key"), None));
    assert_eq!(fixture.spool.recorded("k-1").unwrap().ttl.as_secs(), 86_400);

    let other = exchange(fixture.server.address, &post("/in", &[("idempotency-key", "k-2")], b"a")).await;
    assert_eq!((other.status, other.header("idempotency-replayed")), (202, None));
    let without = exchange(fixture.server.address, &post("/in", &[], b"a")).await;
    assert_eq!((without.status, without.header("idempotency-replayed")), (202, None));
    assert_eq!(fixture.spool.bodies().len(), 3);
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused() {
    let fixture = Fixture::new().await;
    let _pipeline = fixture.accepting().await;
    let text = ("content-type", "text/plain");
    let say = async |headers: &[(&str, &str)], body: &[u8]| {
        exchange(fixture.server.address, &post("/in", headers, body)).await
    };
    let first = say(&[KEY, text], b"a").await;
    assert_eq!(first.status, 202);
    for refused in [say(&[KEY, text], b"b").await, say(&[KEY], b"a").await] {
        assert_eq!((refused.status, refused.code()), (422, "MQ_IDEMPOTENCY_KEY_REUSED"));
        assert_eq!(refused.header("idempotency-replayed"), None);
    }
    assert_eq!(fixture.spool.bodies(), ["a"]);

    // However the same body was compressed, it is the same.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, b"a").unwrap();
    let compressed = say(&[KEY, text, ("content-encoding", "gzip")], &gzip.finish().unwrap()).await;
    assert_same(&first, &compressed);
}

#[tokio::test]
async fn of_two_requests_at_once_one_is_taken() {
    let fixture = Fixture::new().await;
    let _pipeline = fixture.accepting().await;
    fixture.spool.set(Gate::Before);
    let mut first = fixture.begin("/in", "a").await;
    fixture.spool.called(1).await;
    let second = fixture.say("a").await;
    assert_eq!((second.status, second.code()), (409, "MQ_IDEMPOTENCY_IN_PROGRESS"));
    assert_eq!(second.header("retry-after"), Some("1"));
    let other = fixture.say("b").await;
    assert_eq!((other.status, other.code()), (422, "MQ_IDEMPOTENCY_KEY_REUSED"));
    fixture.spool.set(Gate::Open);
    let first = first.response().await;
    assert_eq!(first.status, 202);
    assert_same(&first, &fixture.say("a").await);
    assert_eq!(fixture.spool.bodies(), ["a"]);
}

#[tokio::test]
async fn a_hundred_requests_at_once_are_taken_once() {
    let fixture = Fixture::new().await;
    let _pipeline = fixture.accepting().await;
    let address = fixture.server.address;
    let clients: Vec<_> =
        (0..100).map(|_| tokio::spawn(async move { exchange(address, &post("/in", &[KEY], b"a")).await })).collect();
    let mut ids = Vec::new();
    for client in clients {
        let answer = client.await.unwrap();
        match answer.status {
            202 => ids.push(answer.json()["id"].clone()),
            status => assert_eq!((status, answer.code()), (409, "MQ_IDEMPOTENCY_IN_PROGRESS")),
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "all that were taken have one id");
    assert_eq!(fixture.spool.bodies(), ["a"]);
}

#[tokio::test]
async fn what_was_refused_is_not_remembered() {
    let fixture = Fixture::new().await;
    let _pipeline = fixture.accepting().await;
    fixture.spool.refuse([disk_full()]);
    assert_eq!(fixture.say("a").await.status, 503);
    assert!(fixture.spool.recorded("k-1").is_none());
    let other = fixture.say("b").await;
    assert_eq!((other.status, other.header("idempotency-replayed")), (202, None));
    assert_eq!(fixture.spool.bodies(), ["b"]);
}

#[tokio::test]
async fn a_batch_has_one_key() {
    let fixture = Fixture::new().await;
    let _pipeline = fixture.accepting().await;
    let event = |id: &str| json!({ "specversion": "1.0", "id": id, "source": "/s", "type": "t", "data": id });
    let batch = json!([event("e-1"), event("e-2")]).to_string();
    let headers = [KEY, ("content-type", "application/cloudevents-batch+json")];
    let request = post("/in", &headers, batch.as_bytes());
    let first = exchange(fixture.server.address, &request).await;
    assert_eq!((first.status, first.json()["results"].as_array().unwrap().len()), (202, 2));
    assert_same(&first, &exchange(fixture.server.address, &request).await);
    assert_eq!(fixture.spool.bodies().len(), 2);
}

#[tokio::test]
async fn malformed_keys_are_refused_wherever_they_are_sent() {
    let fixture = Fixture::new().await;
    let _accepting = fixture.accepting().await;
    let delivering = Pipeline::delivering(&fixture.ingress, "/delivered").await;
    let too_long = "k".repeat(256);
    for bad in ["", "\"\"", "\"unfinished", "two words", "a,b", "\"a\";p=1", &too_long] {
        for path in ["/in", "/delivered"] {
            let request = post(path, &[("idempotency-key", bad)], b"x");
            let refused = exchange(fixture.server.address, &request).await;
            assert_eq!((refused.status, refused.code()), (400, "MQ_INVALID_HEADER"), "{path} {bad}");
            assert_eq!(refused.places(), ["idempotency-key"]);
        }
    }
    let twice = exchange(fixture.server.address, &post("/in", &[KEY, KEY], b"x")).await;
    assert_eq!((twice.status, twice.code()), (400, "MQ_INVALID_HEADER"));
    assert_eq!((fixture.spool.calls(), delivering.count()), (0, 0));
}

#[tokio::test]
async fn an_outcome_that_was_waited_for_replaces_the_recorded_answer() {
    for (body, status, again) in [("deliver", 200, 200), ("schema", 422, 422), ("park", 202, 202), ("target", 503, 202)]
    {
        let fixture = Fixture::new().await;
        let _pipeline = fixture.accepting().await;
        let mut client = fixture.begin("/in?wait=delivered", body).await;
        until(|| fixture.spool.bodies().len() == 1).await;
        assert_eq!(fixture.say(body).await.code(), "MQ_IDEMPOTENCY_IN_PROGRESS");
        fixture.spool.settle(0, as_the_body_says);
        let first = client.response().await;
        assert_eq!(first.status, status, "{body}");
        let repeated = fixture.say(body).await;
        assert_eq!((repeated.status, repeated.header("idempotency-replayed")), (again, Some("true")), "{body}");
        if status == again {
            assert_same(&first, &repeated);
        } else {
            // A dead letter holds it: whoever tries again must not be sent on for ever, nor send it twice.
            assert_eq!(repeated.json()["status"], "accepted");
        }
        assert_eq!(fixture.spool.bodies().len(), 1);
    }
}

#[tokio::test]
async fn an_outcome_that_cannot_be_recorded_is_told_all_the_same() {
    let fixture = Fixture::new().await;
    let _pipeline = fixture.accepting().await;
    let mut client = fixture.begin("/in?wait=delivered", "a").await;
    until(|| fixture.spool.bodies().len() == 1).await;
    fixture.spool.refuse([disk_full()]);
    fixture.spool.settle(0, |_| delivered());
    assert_eq!(client.response().await.status, 200);
    let repeated = fixture.say("a").await;
    assert_eq!((repeated.status, &repeated.json()["status"]), (202, &json!("accepted")));
    assert_eq!(fixture.spool.bodies().len(), 1);
}

#[tokio::test]
async fn delivered_answers_are_recorded_when_they_are_final() {
    for (body, status) in [("deliver", 200), ("drop", 200), ("park", 202), ("schema", 422), ("reject", 422)] {
        let fixture = Fixture::new().await;
        let pipeline = fixture.delivering(as_the_body_says).await;
        let first = fixture.say(body).await;
        assert_eq!(first.status, status, "{body}");
        assert_same(&first, &fixture.say(body).await);
        let other = fixture.say("other").await;
        assert_eq!((other.status, other.code()), (422, "MQ_IDEMPOTENCY_KEY_REUSED"), "{body}");
        assert_eq!(pipeline.count(), 1, "{body}");
    }
    for body in ["requeue", "target"] {
        let fixture = Fixture::new().await;
        let pipeline = fixture.delivering(as_the_body_says).await;
        for _ in 0..2 {
            let answer = fixture.say(body).await;
            assert_eq!((answer.status, answer.header("idempotency-replayed")), (503, None), "{body}");
        }
        assert_eq!(pipeline.count(), 2, "a 503 forgets the key");
        assert_eq!(fixture.say("deliver").await.status, 200, "even for another body");
    }
}

#[tokio::test]
async fn a_client_that_gives_up_and_comes_back_does_not_send_twice() {
    let fixture = Fixture::new().await;
    let mut held = fixture.held(json!({})).await;
    let gone = fixture.begin("/in", "a").await;
    let received = held.receive().await;
    drop(gone);
    let meanwhile = fixture.say("a").await;
    assert_eq!((meanwhile.status, meanwhile.code()), (409, "MQ_IDEMPOTENCY_IN_PROGRESS"));
    held.deliver(received).await;
    let answer = once_done(&fixture, "a").await;
    assert_eq!((answer.status, answer.header("idempotency-replayed")), (200, Some("true")));
    assert!(timeout(QUIET, held.connection.inlet.receive(1)).await.is_err(), "nothing came a second time");
}

#[tokio::test]
async fn a_client_that_waited_too_long_learns_the_outcome_by_asking_again() {
    let fixture = Fixture::new().await;
    let mut held = fixture.held(json!({ "timeout": "50ms" })).await;
    let mut client = fixture.begin("/in", "a").await;
    let received = held.receive().await;
    let late = client.response().await;
    assert_eq!((late.status, late.code()), (503, "MQ_OUTCOME_UNKNOWN"));
    assert!(late.json()["detail"].as_str().unwrap().contains("same idempotency key"));
    assert_eq!(late.json()["id"], received.message.id);
    assert_eq!(fixture.say("a").await.status, 409);
    held.deliver(received).await;
    let answer = once_done(&fixture, "a").await;
    assert_eq!((answer.status, answer.header("idempotency-replayed")), (200, Some("true")));
}

#[tokio::test]
async fn a_pipeline_that_dies_over_a_message_frees_its_key() {
    let fixture = Fixture::new().await;
    let mut held = fixture.held(json!({})).await;
    let mut client = fixture.begin("/in", "a").await;
    let _never_settled = held.receive().await;
    drop(held);
    assert_eq!(client.response().await.code(), "MQ_OUTCOME_UNKNOWN");
    let _pipeline = fixture.delivering(|_| delivered()).await;
    let answer = fixture.say("a").await;
    assert_eq!((answer.status, answer.header("idempotency-replayed")), (200, None));
}

#[tokio::test]
async fn nothing_is_delivered_while_keys_cannot_be_looked_up() {
    let fixture = Fixture::new().await;
    let pipeline = fixture.delivering(|_| delivered()).await;
    fixture.spool.refuse([disk_full()]);
    let refused = fixture.say("a").await;
    assert_eq!((refused.status, refused.code()), (503, "MQ_STORE_UNAVAILABLE"));
    assert_eq!(pipeline.count(), 0);
    assert_eq!(fixture.say("a").await.status, 200);
}

#[tokio::test]
async fn keys_in_progress_are_limited() {
    let limits = sluicegate_connectors::http::IngressLimits { max_keys_in_progress: 1, ..Default::default() };
    let (ingress, spool) = (Ingress::new(limits), MemorySpool::new());
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let fixture = Fixture { ingress, spool, server };
    let mut held = fixture.held(json!({})).await;
    let mut first = fixture.begin("/in", "a").await;
    let received = held.receive().await;
    let other = post("/in", &[("idempotency-key", "k-2")], b"b");
    let refused = exchange(fixture.server.address, &other).await;
    assert_eq!((refused.status, refused.code()), (503, "MQ_OVERLOADED"));
    held.deliver(received).await;
    assert_eq!(first.response().await.status, 200);
    let mut second = Client::connect(fixture.server.address).await;
    second.send(&other).await;
    let received = held.receive().await;
    held.deliver(received).await;
    assert_eq!(second.response().await.status, 200);
}

#[tokio::test]
async fn the_ingress_is_finished_when_the_last_answer_is_recorded() {
    let fixture = Fixture::new().await;
    let mut held = fixture.held(json!({})).await;
    let gone = fixture.begin("/in", "a").await;
    let received = held.receive().await;
    drop(gone);
    fixture.spool.set(Gate::Before);
    let calls = fixture.spool.calls();
    held.deliver(received).await;
    fixture.spool.called(calls + 1).await;
    assert!(timeout(QUIET, fixture.ingress.finished()).await.is_err(), "an answer is still to be recorded");
    fixture.spool.set(Gate::Open);
    timeout(DEADLINE, fixture.ingress.finished()).await.expect("finished in time");
    assert_eq!(fixture.spool.recorded("k-1").unwrap().answer.status, 200);
}
