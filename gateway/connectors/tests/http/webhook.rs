//! The webhook target against receivers that answer in every way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use sluicegate_connectors::http::signature::{DEFAULT_TOLERANCE, verify};
use sluicegate_connectors::http::{HttpTarget, Ingress, MAX_RETRY_AFTER, ServerLimits, TargetConfig};
use sluicegate_engine::failure::{Failure, FailureKind};
use sluicegate_engine::message::Message;
use sluicegate_engine::target::{Outlet, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::pipeline::{Pipeline, context};
use crate::server::Server;

#[derive(Debug, Clone)]
struct Hit {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A receiver that answers as it is told, 204 when it is told nothing.
struct Receiver {
    server: Server,
    hits: Arc<Mutex<Vec<Hit>>>,
    answers: Arc<Mutex<VecDeque<Response>>>,
}

impl Receiver {
    async fn start() -> Self {
        let hits: Arc<Mutex<Vec<Hit>>> = Arc::default();
        let answers: Arc<Mutex<VecDeque<Response>>> = Arc::default();
        let (record, script) = (Arc::clone(&hits), Arc::clone(&answers));
        let app = Router::new().fallback(move |request: axum::extract::Request| {
            let (record, script) = (Arc::clone(&record), Arc::clone(&script));
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 8 << 20).await.unwrap();
                let path = parts.uri.path().to_owned();
                record.lock().unwrap().push(Hit { method: parts.method, path, headers: parts.headers, body });
                script.lock().unwrap().pop_front().unwrap_or_else(|| answer(204, &[], ""))
            }
        });
        Self { server: Server::serve(app, ServerLimits::default()).await, hits, answers }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    fn will_answer(&self, response: Response) {
        self.answers.lock().unwrap().push_back(response);
    }

    fn hits(&self) -> Vec<Hit> {
        self.hits.lock().unwrap().clone()
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

async fn outlet(config: Value) -> Arc<dyn Outlet> {
    let config: TargetConfig = serde_json::from_value(config).unwrap();
    assert_eq!(config.problems(), []);
    HttpTarget::new(&config, &context(&Ingress::default())).connect().await.unwrap()
}

fn message(id: &str) -> Arc<Message> {
    let mut message = Message::new("/shop", "order.created", "{\"a\": 1}");
    message.id = id.to_owned();
    message.content_type = Some("application/json".to_owned());
    Arc::new(message)
}

async fn one(outlet: &Arc<dyn Outlet>) -> Result<(), Failure> {
    outlet.publish(&[message("o-1")]).await.remove(0)
}

#[tokio::test]
async fn a_delivered_message_is_signed_and_complete() {
    let receiver = Receiver::start().await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let outlet = outlet(json!({
        "url": receiver.url("/hook?token=hunter2").replace("http://", "http://user:hunter3@"),
        "method": "PUT", "signing_secret": secret, "headers": { "x-api-key": "hunter4" },
    }))
    .await;
    one(&outlet).await.unwrap();
    let hit = receiver.hits().remove(0);
    assert_eq!((hit.method, hit.path.as_str()), (Method::PUT, "/hook"));
    assert_eq!(hit.body, "{\"a\": 1}");
    assert_eq!(hit.headers["x-api-key"], "hunter4");
    assert_eq!(hit.headers["authorization"], "Basic dXNlcjpodW50ZXIz");
    assert_eq!(hit.headers["ce-type"], "order.created");
    let text = |name: &str| hit.headers[name].to_str().unwrap();
    let now_secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let verified = verify(
        secret,
        text("webhook-id"),
        text("webhook-timestamp"),
        &hit.body,
        text("webhook-signature"),
        now_secs,
        DEFAULT_TOLERANCE,
    );
    assert_eq!(verified, Ok(()));
}

#[tokio::test]
async fn the_status_decides_between_another_try_and_none() {
    let receiver = Receiver::start().await;
    let outlet = outlet(json!({ "url": receiver.url("/hook") })).await;
    for status in [200, 201, 202, 204, 299] {
        receiver.will_answer(answer(status, &[], ""));
        assert_eq!(one(&outlet).await, Ok(()), "{status}");
    }
    for status in [408, 425, 429, 500, 502, 503, 504, 599] {
        receiver.will_answer(answer(status, &[], ""));
        let failure = one(&outlet).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Transient { retry_after: None }, "{status}");
        assert!(failure.text.contains(&status.to_string()), "{failure}");
    }
    for status in [300, 301, 302, 304, 307, 400, 401, 403, 404, 409, 410, 413, 422, 451] {
        let elsewhere = receiver.url("/elsewhere");
        receiver.will_answer(answer(status, &[("location", &elsewhere)], ""));
        let failure = one(&outlet).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Permanent, "{status}");
    }
    assert!(receiver.hits().iter().all(|hit| hit.path == "/hook"), "redirects are not followed");
}

#[tokio::test]
async fn retry_after_is_respected_within_its_limit() {
    let receiver = Receiver::start().await;
    let outlet = outlet(json!({ "url": receiver.url("/hook") })).await;
    let wish = async |value: &str| {
        receiver.will_answer(answer(503, &[("retry-after", value)], ""));
        match one(&outlet).await.unwrap_err().kind {
            FailureKind::Transient { retry_after } => retry_after,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wish("7").await, Some(Duration::from_secs(7)));
    assert_eq!(wish("86400").await, Some(MAX_RETRY_AFTER));
    assert_eq!(wish("Sun, 06 Nov 1994 08:49:37 GMT").await, Some(Duration::ZERO));
    assert_eq!(wish("Wed, 01 Jan 2200 00:00:00 GMT").await, Some(MAX_RETRY_AFTER));
    assert_eq!(wish("soon").await, None);
}

#[tokio::test]
async fn a_refusal_says_what_the_receiver_said_and_no_secret() {
    let receiver = Receiver::start().await;
    let outlet = outlet(json!({
        "url": receiver.url("/hook?token=hunter2"), "signing_secret": "hunter3",
        "headers": { "authorization": "Bearer hunter4" },
    }))
    .await;
    receiver.will_answer(answer(422, &[], "no such\norder; you sent Bearer hunter4 to /hook?token=hunter2"));
    let failure = one(&outlet).await.unwrap_err();
    assert!(failure.text.contains("no such order"), "{failure}");
    assert!(failure.text.contains(&receiver.url("/hook")), "{failure}");
    assert!(!failure.text.contains("hunter"), "{failure}");
    receiver.will_answer(answer(400, &[], "x".repeat(1 << 20)));
    let failure = one(&outlet).await.unwrap_err();
    assert!(failure.text.len() < 1_000, "{} bytes", failure.text.len());
    receiver.will_answer(answer(400, &[], vec![0xff; 2_000]));
    assert!(one(&outlet).await.unwrap_err().text.len() < 2_500);
}

#[tokio::test]
async fn every_attempt_has_the_same_id_and_messages_have_their_own() {
    let receiver = Receiver::start().await;
    let outlet = outlet(json!({ "url": receiver.url("/hook") })).await;
    receiver.will_answer(answer(503, &[], ""));
    assert!(one(&outlet).await.is_err());
    one(&outlet).await.unwrap();
    assert_eq!(outlet.publish(&[message("not plain: ä")]).await, [Ok(())]);
    let ids: Vec<_> = receiver.hits().iter().map(|hit| hit.headers["webhook-id"].clone()).collect();
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}

#[tokio::test]
async fn a_batch_is_sent_side_by_side_and_answered_in_order() {
    let receiver = Receiver::start().await;
    let outlet = outlet(json!({ "url": receiver.url("/hook"), "max_concurrent": 1 })).await;
    for status in [204, 400, 503, 204] {
        receiver.will_answer(answer(status, &[], ""));
    }
    let batch: Vec<_> = ["1", "2", "3", "4"].into_iter().map(message).collect();
    let results = outlet.publish(&batch).await;
    let kinds: Vec<_> = results.iter().map(|result| result.as_ref().map_err(|failure| failure.kind)).collect();
    assert_eq!(
        kinds,
        [Ok(&()), Err(FailureKind::Permanent), Err(FailureKind::Transient { retry_after: None }), Ok(&())]
    );
    let sent: Vec<_> = receiver.hits().iter().map(|hit| hit.headers["ce-id"].clone()).collect();
    assert_eq!(sent, ["1", "2", "3", "4"], "one at a time keeps the order");

    let config: TargetConfig =
        serde_json::from_value(json!({ "url": "http://localhost/", "max_concurrent": 7 })).unwrap();
    let batching = HttpTarget::new(&config, &context(&Ingress::default())).batching();
    assert_eq!((batching.max_messages, batching.max_concurrent), (1, 7));
}

#[tokio::test]
async fn receivers_that_are_not_there_hang_or_break_are_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = outlet(json!({ "url": format!("http://user:hunter2@{address}/hook?a=hunter3") })).await;
    let failure = one(&refused).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Transient { retry_after: None });
    assert!(failure.text.contains("no connection could be made"), "{failure}");
    assert!(!failure.text.contains("hunter"), "{failure}");

    let unknown = outlet(json!({ "url": "http://no-such-host.invalid/" })).await;
    assert!(matches!(one(&unknown).await.unwrap_err().kind, FailureKind::Transient { .. }));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hanging = outlet(json!({ "url": format!("http://{address}/"), "timeout": "50ms" })).await;
    let failure = one(&hanging).await.unwrap_err();
    assert!(failure.text.contains("no answer came within 50ms"), "{failure}");
    assert!(matches!(failure.kind, FailureKind::Transient { .. }));
    drop(listener);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let breaker = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 20").await.unwrap();
    });
    let broken = outlet(json!({ "url": format!("http://{address}/") })).await;
    let failure = one(&broken).await.unwrap_err();
    assert!(matches!(failure.kind, FailureKind::Transient { .. }), "{failure}");
    breaker.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_never_ends_is_a_confirmation_all_the_same() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endless = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4_096];
        let read = stream.read(&mut request).await.unwrap();
        assert!(read > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
    });
    let outlet = outlet(json!({ "url": format!("http://{address}/") })).await;
    assert_eq!(one(&outlet).await, Ok(()));
    endless.await.unwrap();
}

#[tokio::test]
async fn a_message_is_the_same_on_the_other_side() {
    let ingress = Ingress::default();
    let pipeline = Pipeline::delivering(&ingress, "/in").await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let mut sent = Message::new("/shop ü", "order.created", vec![0, 255, 10, 13, 7]);
    sent.subject = Some("100% \"sure\" €".to_owned());
    sent.content_type = Some("application/octet-stream".to_owned());
    sent.key = Some(bytes::Bytes::from_static(b"\xff\x00key"));
    sent.headers.append("X-Twice", "1");
    sent.headers.append("X-Twice", "2");
    sent.headers.append("binary", &b"\x00\xff"[..]);
    sent.expires_at_ms = Some(sent.time_ms + 60_000);
    sent.correlation_id = Some("c 1".to_owned());
    let sent = Arc::new(sent);
    for format in ["binary", "structured"] {
        let outlet = outlet(json!({ "url": format!("http://{}/in", server.address), "format": format })).await;
        assert_eq!(outlet.publish(&[Arc::clone(&sent)]).await, [Ok(())], "{format}");
        assert_eq!(pipeline.last(), *sent, "{format}");
    }
    let large = Arc::new(Message::new("/shop", "large", vec![b'x'; 1 << 20]));
    let outlet = outlet(json!({ "url": format!("http://{}/in", server.address) })).await;
    assert_eq!(outlet.publish(&[Arc::clone(&large)]).await, [Ok(())]);
    assert_eq!(pipeline.last(), *large);
}
