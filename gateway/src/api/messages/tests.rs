use std::sync::Arc;

use serde_json::{Value, json};
use sluicegate_connectors::http::{ServerLimits, serve};
use sluicegate_plugin_host::{HostConfig, PluginHost};
use sluicegate_store::queue::Queues;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api, QueueSchemas};
use crate::config::in_memory::load_text;
use crate::in_force::InForce;
use crate::queues::AllQueues;
use crate::trace::tests::filled;

/// The API over a store with some receipts, on a port of its own.
struct Served {
    address: std::net::SocketAddr,
    _folder: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl Served {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = filled(folder.path()).await;
        let text = "receipts: { sample: 0.25, keep: 2d }\n\
            pipelines: { p: { source: { stdio: {} }, targets: { t: { stdio: {} } } } }\n";
        let config = load_text(text).unwrap_or_else(|wrong| panic!("{wrong}")).config;
        let host = PluginHost::new(HostConfig::default()).expect("a host");
        let api = Api {
            queues: AllQueues::new(&Queues::new(Arc::clone(&store)), Arc::default),
            store,
            in_force: watch::channel(Arc::new(InForce::of(Arc::new(config.clone())))).1,
            states: watch::channel(Arc::default()).1,
            config: watch::channel(Arc::new(config)).1,
            host,
            meters: Arc::default(),
            schemas: QueueSchemas::default(),
            running: watch::channel(Arc::default()).1,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let served = serve(listener, api::router(api), ServerLimits::default(), stop.clone().cancelled_owned());
        tokio::spawn(async move { served.await.expect("served") });
        Self { address, _folder: folder, _stop: stop.drop_guard() }
    }

    /// Status and JSON of the answer.
    async fn get(&self, path: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }
}

#[tokio::test]
async fn a_message_is_shown_with_all_that_happened_to_it() {
    let served = Served::start().await;
    let (status, trace) = served.get("/api/v1/messages/m-1").await;
    assert_eq!(status, 200, "{trace}");
    assert_eq!(trace["status"], "dead_lettered");
    assert_eq!(
        (&trace["correlationId"], &trace["key"], &trace["bodyBytes"]),
        (&json!("c-1"), &json!("customer/7"), &json!(12))
    );
    let events = trace["events"].as_array().expect("events");
    let names: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(
        names,
        ["accepted", "step", "step", "step", "delivered", "failed", "parked", "resumed", "failed", "dead_lettered"]
    );
    assert_eq!(events[0], json!({ "at": "2025-11-20T16:00:00.000Z", "pipeline": "orders", "event": "accepted" }));
    assert_eq!(
        events[5],
        json!({ "at": "2025-11-20T16:00:00.050Z", "pipeline": "orders", "event": "failed", "failedAt": "eu",
            "attempt": 1, "error": "connection refused\u{1b}[2J", "retryAfterMs": 5_000 })
    );
    assert_eq!(
        events[6],
        json!({ "at": "2025-11-20T16:00:00.060Z", "pipeline": "orders", "event": "parked", "target": "eu",
            "until": "2025-11-20T16:00:05.060Z", "why": "refused" })
    );
    assert_eq!(trace["deadLetters"][0]["id"], "0193-a");
    assert!(!trace.to_string().contains("secret"), "nothing of the body: {trace}");

    let (_, waiting) = served.get("/api/v1/messages/m-2").await;
    assert_eq!(
        waiting["waiting"],
        json!([{ "pipeline": "orders", "target": "eu", "until": null, "why": "target `eu` is not connected" }])
    );
    let (status, slash) = served.get("/api/v1/messages/m%2F3").await;
    assert_eq!((status, &slash["events"][1]["reason"]["code"]), (200, &json!("unknown")));
}

#[tokio::test]
async fn an_unknown_message_is_explained() {
    let served = Served::start().await;
    let (status, problem) = served.get("/api/v1/messages/m-77").await;
    assert_eq!((status, &problem["code"]), (404, &json!("MQ_MESSAGE_NOT_FOUND")));
    let text = problem["message"].as_str().expect("a text");
    assert!(text.contains("25 % of them") && text.contains("`receipts.keep` is 2d"), "{text}");
}

#[tokio::test]
async fn messages_are_searched_by_pages() {
    let served = Served::start().await;
    let ids = |answer: &Value| -> Vec<String> {
        let messages = answer["messages"].as_array().expect("messages");
        messages.iter().map(|message| message["id"].as_str().expect("an id").to_owned()).collect()
    };
    let (mut all, mut path) = (Vec::new(), "/api/v1/messages?limit=3".to_owned());
    loop {
        let (status, page) = served.get(&path).await;
        assert_eq!(status, 200, "{page}");
        all.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/messages?limit=3&after={next}");
    }
    assert_eq!(all, ["m-1", "m/3", "m-2", "m-1"]);
    for (query, expected) in [
        ("correlationId=c-1&failed=true", vec!["m-1", "m-1"]),
        ("key=customer/7&settlement=parked", vec!["m-2", "m-1"]),
        ("pipeline=none", vec![]),
        ("since=2025-11-20T16:00:01Z&until=2025-11-20T16:00:02Z", vec!["m-2"]),
    ] {
        assert_eq!(ids(&served.get(&format!("/api/v1/messages?{query}")).await.1), expected, "{query}");
    }
    let (_, statistics) = served.get("/api/v1/message-statistics?failed=true").await;
    assert_eq!(
        statistics["statistics"],
        json!([
            { "pipeline": "orders", "settlement": "dead_lettered", "receipts": 1, "failures": 1 },
            { "pipeline": "orders", "settlement": "parked", "receipts": 1, "failures": 1 },
        ])
    );
}

#[tokio::test]
async fn what_is_not_asked_right_is_refused() {
    let served = Served::start().await;
    for (path, complaint) in [
        ("messages?settlement=lost", "none of delivered"),
        ("messages?since=yesterday", "RFC 3339"),
        ("messages?after=nonsense", "not a page token"),
        ("messages?colour=red", "unknown field"),
        ("messages?limit=-1", "does not fit"),
        ("messages?limit=0", "1 to 1000"),
        ("messages?limit=1001", "1 to 1000"),
        ("messages/%FF", "path does not fit"),
        ("dead-letters/%FF", "path does not fit"),
        ("redrives/%FF", "path does not fit"),
        ("message-statistics?limit=3", "one page"),
    ] {
        let (status, problem) = served.get(&format!("/api/v1/{path}")).await;
        assert_eq!((status, &problem["code"]), (400, &json!("MQ_INVALID_REQUEST")), "{path}: {problem}");
        assert!(problem["message"].as_str().is_some_and(|text| text.contains(complaint)), "{path}: {problem}");
    }
}
