//! What clients do wrong, by mistake or on purpose: an exact status and a problem document, and the gateway goes on.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sluicegate_connectors::http::{Ingress, ServerLimits};

use crate::client::{Client, exchange, post};
use crate::pipeline::Pipeline;
use crate::server::Server;

struct Fixture {
    server: Server,
    pipeline: Pipeline,
}

impl Fixture {
    async fn new(config: serde_json::Value) -> Self {
        Self::with(config, ServerLimits::default()).await
    }

    async fn with(config: serde_json::Value, limits: ServerLimits) -> Self {
        let ingress = Ingress::default();
        let pipeline = Pipeline::start(&ingress, config, |_| crate::pipeline::delivered()).await;
        Self { server: Server::start(&ingress, limits).await, pipeline }
    }

    /// Sends, checks the refusal, and checks that nothing came through and the gateway still works.
    async fn refuses(&self, request: &[u8], status: u16, code: &str) -> crate::client::Response {
        let before = self.pipeline.count();
        let answer = exchange(self.server.address, request).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.json());
        assert_eq!(self.pipeline.count(), before);
        let good = exchange(self.server.address, &post("/in", &[], b"good")).await;
        assert_eq!(good.status, 200);
        answer
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there() {
    let fixture = Fixture::new(json!({ "path": "/in" })).await;
    let problem = fixture.refuses(&post("/other", &[], b"x"), 404, "MQ_PATH_NOT_FOUND").await;
    assert!(!problem.json().to_string().contains("/in\""), "other paths are not listed");
    fixture.refuses(&post("/in/", &[], b"x"), 404, "MQ_PATH_NOT_FOUND").await;
    fixture.refuses(&post("/in/../in", &[], b"x"), 404, "MQ_PATH_NOT_FOUND").await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let request = format!("{method} /in HTTP/1.1\r\nhost: x\r\n\r\n");
        let problem = fixture.refuses(request.as_bytes(), 405, "MQ_METHOD_NOT_ALLOWED").await;
        assert_eq!(problem.header("allow"), Some("POST"), "{method}");
    }
    let with_query = exchange(fixture.server.address, &post("/in?a=b", &[], b"x")).await;
    assert_eq!(with_query.status, 200);
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let fixture = Fixture::new(json!({ "path": "/in", "max_body": "100B" })).await;
    fixture.refuses(&post("/in", &[], &[b'x'; 101]), 413, "MQ_BODY_TOO_LARGE").await;
    let fits = exchange(fixture.server.address, &post("/in", &[], &[b'x'; 100])).await;
    assert_eq!(fits.status, 200);
    // Nobody said how much would come.
    let chunks = format!("{}0\r\n\r\n", "10\r\n0123456789abcdef\r\n".repeat(7));
    let request = format!("POST /in HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
    fixture.refuses(request.as_bytes(), 413, "MQ_BODY_TOO_LARGE").await;
    // By its own word: refused before a byte of it came.
    let declared = b"POST /in HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 99999999999\r\n\r\n";
    fixture.refuses(declared, 413, "MQ_BODY_TOO_LARGE").await;
}

#[tokio::test]
async fn a_client_that_keeps_sending_too_much_gets_its_answer() {
    let fixture = Fixture::new(json!({ "path": "/in", "max_body": "1KiB" })).await;
    let mut client = Client::connect(fixture.server.address).await;
    client.send_what_is_taken(&post("/in", &[], &vec![b'x'; 3 << 20])).await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.code()), (413, "MQ_BODY_TOO_LARGE"));
    assert_eq!(answer.json()["limitBytes"], 1_024);
}

#[tokio::test]
async fn compressed_bodies_good_and_bad() {
    let fixture = Fixture::new(json!({ "path": "/in" })).await;
    let zipped = gzip(b"hello");
    let answer = exchange(fixture.server.address, &post("/in", &[("content-encoding", "gzip")], &zipped)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(fixture.pipeline.last().body.bytes(), "hello");
    assert!(fixture.pipeline.last().headers.get("content-encoding").is_none(), "it is undone");

    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 1 << 20, "the bomb itself is within the limit: {}", bomb.len());
    let gzipped = [("content-encoding", "gzip")];
    fixture.refuses(&post("/in", &gzipped, &bomb), 413, "MQ_BODY_TOO_LARGE").await;
    fixture.refuses(&post("/in", &gzipped, b"not gzip"), 400, "MQ_BODY_UNDECODABLE").await;
    fixture.refuses(&post("/in", &gzipped, &zipped[..zipped.len() - 4]), 400, "MQ_BODY_UNDECODABLE").await;
    for unknown in ["br", "deflate", "zstd", "gzip, gzip"] {
        let request = post("/in", &[("content-encoding", unknown)], b"x");
        let problem = fixture.refuses(&request, 415, "MQ_UNSUPPORTED_ENCODING").await;
        assert_eq!(problem.header("accept-encoding"), Some("gzip"));
    }
}

#[tokio::test]
async fn bodies_that_end_early() {
    let fixture = Fixture::new(json!({ "path": "/in" })).await;
    let mut client = Client::connect(fixture.server.address).await;
    client.send(b"POST /in HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nonly this").await;
    client.finish().await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.code()), (400, "MQ_BODY_INCOMPLETE"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("nothing was accepted"));
    let bad_chunk = b"POST /in HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n";
    fixture.refuses(bad_chunk, 400, "MQ_BODY_INCOMPLETE").await;
    let mut gone = Client::connect(fixture.server.address).await;
    gone.send(b"POST /in HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nonly this").await;
    drop(gone);
    fixture.refuses(bad_chunk, 400, "MQ_BODY_INCOMPLETE").await;
}

#[tokio::test]
async fn bodies_that_come_too_slowly() {
    let limits = ServerLimits { body_read: Duration::from_millis(100), ..ServerLimits::default() };
    let fixture = Fixture::with(json!({ "path": "/in" }), limits).await;
    let mut client = Client::connect(fixture.server.address).await;
    client.send(b"POST /in HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nonly this").await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.code()), (408, "MQ_BODY_TIMEOUT"));
    client.assert_closed().await;
    assert_eq!(fixture.pipeline.count(), 0);
}

#[tokio::test]
async fn headers_that_are_too_many_too_large_or_impossible() {
    let fixture = Fixture::new(json!({ "path": "/in" })).await;
    let many: Vec<(String, String)> = (0..105).map(|i| (format!("x-{i}"), "1".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    fixture.refuses(&post("/in", &many, b"x"), 431, "MQ_HEADERS_TOO_LARGE").await;
    let large = "x".repeat(40_000);
    fixture.refuses(&post("/in", &[("x-large", &large)], b"x"), 431, "MQ_HEADERS_TOO_LARGE").await;
    let huge = "x".repeat(200_000);
    let mut client = Client::connect(fixture.server.address).await;
    client.send_what_is_taken(&post("/in", &[("x-huge", &huge)], b"x")).await;
    assert_eq!(client.response().await.status, 431);
    for impossible in [
        &b"POST /in HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n"[..],
        b"POST /in HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /in HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /in HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"POST /in HTTP/1.1\r\nhost: x\r\nx-a: a\0b\r\n\r\n",
    ] {
        let answer = exchange(fixture.server.address, impossible).await;
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(impossible));
    }
    assert_eq!(exchange(fixture.server.address, &post("/in", &[], b"x")).await.status, 200);
}

#[tokio::test]
async fn header_values_that_are_not_utf_8() {
    let fixture = Fixture::new(json!({ "path": "/in" })).await;
    let with = |name: &str| {
        let head = format!("POST /in HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n{name}: a");
        [head.as_bytes(), b"\xff\xfe\r\n\r\n"].concat()
    };
    let answer = exchange(fixture.server.address, &with("x-bytes")).await;
    assert_eq!(answer.status, 200, "a message's headers are bytes");
    assert_eq!(fixture.pipeline.last().headers.get("x-bytes").unwrap().as_ref(), b"a\xff\xfe");
    let problem = fixture.refuses(&with("content-type"), 400, "MQ_INVALID_HEADER").await;
    assert_eq!(problem.places(), ["content-type"]);
    let problem = fixture.refuses(&with("ce-id"), 400, "MQ_INVALID_EVENT").await;
    assert_eq!(problem.places(), ["ce-id", "ce-source", "ce-specversion", "ce-type"]);
}

#[tokio::test]
async fn raw_bodies_pass_whatever_they_are() {
    let fixture = Fixture::new(json!({ "path": "/in" })).await;
    let deep = "[".repeat(100_000);
    for body in [&b"{\"a\":"[..], deep.as_bytes(), b"\xff\x00\xfe", b"", &[7; 1 << 20]] {
        let request = post("/in", &[("content-type", "application/json")], body);
        let answer = exchange(fixture.server.address, &request).await;
        assert_eq!(answer.status, 200, "malformed bodies are for the pipeline's validation to refuse");
        let message = fixture.pipeline.last();
        assert_eq!(message.body.bytes(), body);
        assert_eq!(message.content_type.as_deref(), Some("application/json"));
    }
}
