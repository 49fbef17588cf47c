//! Bad input over HTTP: an exact status, a problem document, and a gateway that goes on.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sluicegate_tests::gateway::{Gateway, http_client};

use crate::raw_client::exchange;

const CONFIG: &str = "
pipelines:
  orders:
    source: { http: { path: /ingest/orders } }
    steps: [{ validate: { schema: order } }]
    targets: { log: { file: { path: orders.jsonl } } }
  events:
    source: { http: { path: /ingest/events, format: cloudevents } }
    targets: { log: { file: { path: events.jsonl, format: event } } }
  envelopes:
    source: { http: { path: /ingest/envelopes, format: envelope } }
    targets: { log: { file: { path: envelopes.jsonl, format: event } } }
  raw:
    source: { http: { path: /ingest/raw, format: raw } }
    targets: { log: { file: { path: raw.jsonl, format: event } } }
schemas:
  order:
    inline:
      type: object
      required: [id, items]
      properties: { id: { type: string }, items: { type: array, items: { type: integer, minimum: 1 } } }
";

const GOOD: &str = r#"{"id":"o-1","items":[1,2]}"#;

/// What was sent, and what must come back.
struct Case {
    what: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
}

fn case(what: &'static str, path: &'static str, body: impl Into<Vec<u8>>, status: u16, code: &'static str) -> Case {
    Case { what, path, headers: Vec::new(), body: body.into(), status, code }
}

impl Case {
    fn with(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

fn cases() -> Vec<Case> {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let event = r#"{"specversion":"1.0","id":"e-1","source":"s","type":"t","data":1}"#;
    let (event_type, batch_type) = ("application/cloudevents+json", "application/cloudevents-batch+json");
    let batch = |count: usize| format!("[{}]", vec![event; count].join(","));
    vec![
        case("malformed JSON", "/ingest/orders", r#"{"id":"#, 422, "MQ_SCHEMA_VIOLATION"),
        case("no body", "/ingest/orders", "", 422, "MQ_SCHEMA_VIOLATION"),
        case("deeply nested JSON", "/ingest/orders", deep, 422, "MQ_SCHEMA_VIOLATION"),
        case("bytes that are no text", "/ingest/orders", [0xff, 0xfe, 0x00], 422, "MQ_SCHEMA_VIOLATION"),
        case("a schema violation", "/ingest/orders", r#"{"id":7,"items":[0]}"#, 422, "MQ_SCHEMA_VIOLATION"),
        case("a body over 1 MiB", "/ingest/orders", vec![b'x'; (1 << 20) + 1], 413, "MQ_BODY_TOO_LARGE"),
        case("an unknown encoding", "/ingest/orders", GOOD, 415, "MQ_UNSUPPORTED_ENCODING")
            .with("content-encoding", "br"),
        case("no gzip where it says gzip", "/ingest/orders", GOOD, 400, "MQ_BODY_UNDECODABLE")
            .with("content-encoding", "gzip"),
        case("an unknown path", "/ingest/nothing", GOOD, 404, "MQ_PATH_NOT_FOUND"),
        // In binary mode any content type may be an event's; what is missing are the attributes.
        case("another content type and no attributes", "/ingest/events", GOOD, 400, "MQ_INVALID_EVENT")
            .with("content-type", "text/plain"),
        case("an event that is none", "/ingest/events", "{}", 400, "MQ_INVALID_EVENT").with("content-type", event_type),
        case("an event that is no JSON", "/ingest/events", "{", 400, "MQ_INVALID_EVENT")
            .with("content-type", event_type),
        case("an event of another version", "/ingest/events", event.replace("1.0", "0.3"), 400, "MQ_INVALID_EVENT")
            .with("content-type", event_type),
        case("a binary event without source", "/ingest/events", "1", 400, "MQ_INVALID_EVENT")
            .with("ce-specversion", "1.0")
            .with("ce-id", "1")
            .with("ce-type", "t"),
        case("an event attribute that is no UTF-8", "/ingest/events", "1", 400, "MQ_INVALID_EVENT")
            .with("ce-specversion", "1.0")
            .with("ce-id", [0xff, 0xfe])
            .with("ce-source", "s")
            .with("ce-type", "t"),
        case("a batch that is no array", "/ingest/events", event, 400, "MQ_INVALID_EVENT")
            .with("content-type", batch_type),
        case("a batch with a bad event", "/ingest/events", format!("[{event},{{}}]"), 400, "MQ_INVALID_EVENT")
            .with("content-type", batch_type),
        case("a batch over 1,000", "/ingest/events", batch(1_001), 413, "MQ_BATCH_TOO_LARGE")
            .with("content-type", batch_type),
        case("an envelope that is none", "/ingest/envelopes", r#"{"type":7}"#, 400, "MQ_INVALID_ENVELOPE"),
        case("an envelope of another type", "/ingest/envelopes", "x", 415, "MQ_UNSUPPORTED_MEDIA_TYPE")
            .with("content-type", "text/plain"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_gets_its_status_and_a_problem_document() -> Result<()> {
    let gateway = Gateway::start(CONFIG).await?;
    let client = http_client()?;
    let mut wrong = String::new();
    for case in cases() {
        let mut request = client.post(gateway.url(case.path));
        for (name, value) in &case.headers {
            request = request.header(*name, value.as_slice());
        }
        let answer = request.body(case.body).send().await.with_context(|| case.what)?;
        let (status, kind) = (answer.status().as_u16(), answer.headers().get("content-type").cloned());
        let problem: Value = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
        let complete = ["type", "title", "detail"].iter().all(|member| problem[member].is_string());
        if status != case.status
            || problem["status"] != case.status
            || problem["code"] != case.code
            || kind.is_none_or(|kind| kind != "application/problem+json")
            || !complete
        {
            writeln!(wrong, "{}: expected {} {}, got {status} {problem}", case.what, case.status, case.code)?;
        }
        // One message's fault is never another's.
        let good = client.post(gateway.url("/ingest/orders")).body(GOOD).send().await?;
        assert_eq!(good.status(), 200, "after {}: {}", case.what, good.text().await?);
    }
    assert!(wrong.is_empty(), "{wrong}");
    let lines = std::fs::read_to_string(gateway.folder().join("orders.jsonl"))?;
    assert_eq!(lines.lines().count(), cases().len(), "one line for each good order");
    assert!(lines.lines().all(|line| line == GOOD));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_schema_violation_is_listed_with_its_place() -> Result<()> {
    let gateway = Gateway::start(CONFIG).await?;
    let bad = json!({ "id": 7, "items": [1, 0, "x"] }).to_string();
    let answer = http_client()?.post(gateway.url("/ingest/orders")).body(bad).send().await?;
    assert_eq!(answer.status(), 422);
    let problem: Value = serde_json::from_slice(&answer.bytes().await?)?;
    let mut pointers: Vec<&str> =
        problem["errors"].as_array().into_iter().flatten().filter_map(|error| error["pointer"].as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/id", "/items/1", "/items/2"], "{problem}");
    // The same, kept: the refused message is a dead letter that can be shown.
    let id = problem["deadLetter"].as_str().with_context(|| format!("no deadLetter in {problem}"))?;
    let shown = gateway.command(&["dlq", "show", id, "--json", "--data-dir", "data"]).await?;
    let shown: Value = serde_json::from_str(&shown)?;
    assert_eq!(shown["class"], "schema");
    assert_eq!(shown["schema_errors"].as_array().map(Vec::len), Some(3), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_refused_and_told_which_is_right() -> Result<()> {
    let gateway = Gateway::start(CONFIG).await?;
    let answer = http_client()?.get(gateway.url("/ingest/orders")).send().await?;
    assert_eq!(answer.status(), 405);
    assert_eq!(answer.headers().get("allow").context("no Allow")?, "POST");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_and_malformed_requests_are_refused() -> Result<()> {
    let gateway = Gateway::start(CONFIG).await?;
    let cut = "POST /ingest/orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{\"id\":";
    let answer = exchange(gateway.address(), cut.as_bytes(), true).await?;
    // The client may be gone before it can be told; what counts is that half a body is never a message.
    assert!([0, 400].contains(&answer.status), "{answer:?}");
    let chunked =
        "POST /ingest/orders HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nbody\r\n0\r\n\r\n";
    let answer = exchange(gateway.address(), chunked.as_bytes(), true).await?;
    assert!([0, 400].contains(&answer.status), "{answer:?}");
    for malformed in ["nonsense\r\n\r\n", "POST /ingest/orders HTTP/9.9\r\n\r\n", "POST /in gest HTTP/1.1\r\n\r\n"] {
        let answer = exchange(gateway.address(), malformed.as_bytes(), true).await?;
        assert!([0, 400, 505].contains(&answer.status), "{malformed:?}: {answer:?}");
    }
    let lines = std::fs::read_to_string(gateway.folder().join("orders.jsonl")).unwrap_or_default();
    assert_eq!(lines, "", "a broken request became a message");
    assert_eq!(gateway.status("/health").await?, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_cut_off_and_hold_nobody_up() -> Result<()> {
    let gateway = Gateway::start(CONFIG).await?;
    let address = gateway.address();
    // A header that never ends: the limit is 10 s.
    let slow: Vec<_> = (0..50)
        .map(|_| tokio::spawn(exchange(address, b"POST /ingest/orders HTTP/1.1\r\nhost: x\r\nx-slow: ", false)))
        .collect();
    let client = http_client()?;
    for _ in 0..20 {
        let good = client.post(gateway.url("/ingest/orders")).body(GOOD).send().await?;
        assert_eq!(good.status(), 200);
    }
    for connection in slow {
        let answer = connection.await??;
        assert!([0, 408].contains(&answer.status), "{answer:?}");
    }
    // A body that never ends: the limit is 30 s.
    let unfinished = "POST /ingest/orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{";
    let answer = exchange(address, unfinished.as_bytes(), false).await?;
    assert_eq!(answer.status, 408, "{answer:?}");
    assert_eq!(answer.json()?["code"], "MQ_BODY_TIMEOUT");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_headers_and_bodies_pass_byte_for_byte() -> Result<()> {
    let gateway = Gateway::start(CONFIG).await?;
    // All that a field value may hold (RFC 9110, 5.5): visible characters, inner blanks and the upper half.
    let field: Vec<u8> = (0x21..=0x7e).chain([b' ', b'\t']).chain(0x80..=0xff).collect();
    let body: Vec<u8> = (0..=255).collect();
    let answer = http_client()?
        .post(gateway.url("/ingest/raw"))
        .header("content-type", "application/octet-stream; a=\"b c\"")
        .header("x-field", field.as_slice())
        .header("x-twice", "one")
        .header("x-twice", "two")
        .header("authorization", "Bearer not-for-the-message")
        .body(body.clone())
        .send()
        .await?;
    assert_eq!(answer.status(), 200);
    let line = std::fs::read_to_string(gateway.folder().join("raw.jsonl"))?;
    let event: Value = serde_json::from_str(&line)?;
    assert_eq!(event["datacontenttype"], "application/octet-stream; a=\"b c\"");
    let list: Value = serde_json::from_str(event["sluicegateheaders"].as_str().context("no header list")?)?;
    let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    assert_eq!(event["data_base64"], base64(&body));
    let list = list.as_array().context("no list")?;
    for expected in [json!(["x-field", base64(&field), "base64"]), json!(["x-twice", "one"]), json!(["x-twice", "two"])]
    {
        assert!(list.contains(&expected), "{expected} is not in {list:?}");
    }
    assert!(!line.contains("not-for-the-message"), "the sender's credentials became part of the message");
    Ok(())
}
