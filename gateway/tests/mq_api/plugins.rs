//! Uploads, good and hostile, compiled by the real subprocess.

use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sluicegate::bundled;
use sluicegate::compiling::Subprocess;
use sluicegate_plugin_host::Compiler as _;

use crate::server::{Answer, Server};

const VERSIONS: &str = "/api/v1/plugins/p/versions";
/// Every refusal comes within this time.
const LIMIT: Duration = Duration::from_secs(10);

async fn push(server: &Server, query: &str, component: &[u8]) -> Answer {
    let started = Instant::now();
    let answer = server.send("POST", &format!("{VERSIONS}{query}"), "", component).await;
    assert!(started.elapsed() < LIMIT, "it took {:?}", started.elapsed());
    answer
}

fn component(inner: &str) -> Vec<u8> {
    let text = format!(
        "(component {inner} (instance $i) (export \"sluicegate:plugin/lifecycle@0.1.0\" (instance $i)) \
         (export \"sluicegate:plugin/filtering@0.1.0\" (instance $i)))"
    );
    wat::parse_str(text).expect("valid text")
}

fn redact() -> Vec<u8> {
    bundled::component("redact").expect("built in").to_vec()
}

#[tokio::test]
async fn a_component_becomes_a_version_that_is_listed_downloaded_and_retired() {
    let server = Server::start().await;
    let redact = redact();
    let digest: String = Sha256::digest(&redact).iter().map(|byte| format!("{byte:02x}")).collect();
    let first = push(&server, &format!("?sha256={digest}"), &redact).await.expect(201);
    assert_eq!((&first["version"], &first["state"]), (&1.into(), &"uploaded".into()));
    assert_eq!(first["digest"], format!("sha256:{digest}"));
    assert_eq!(first["roles"], serde_json::json!(["transform"]));
    assert_eq!(push(&server, "", &redact).await.expect(200)["version"], 1, "the same again is no new version");
    let split = bundled::component("split").expect("built in");
    assert_eq!(push(&server, "", &split).await.expect(201)["version"], 2);

    let listed = server.send("GET", VERSIONS, "", b"").await.expect(200);
    let numbers: Vec<_> = listed["versions"].as_array().expect("a list").iter().map(|one| &one["version"]).collect();
    assert_eq!(numbers, [2, 1]);
    let shown = server.send("GET", &format!("{VERSIONS}/1"), "", b"").await.expect(200);
    assert!(shown["configSchema"].is_object());
    let retired = server.send("POST", &format!("{VERSIONS}/1/retire"), "", b"").await.expect(200);
    assert_eq!(retired["state"], "retired");
    let gone = server.send("GET", &format!("{VERSIONS}/1/component"), "", b"").await;
    gone.refused(404, "MQ_PLUGIN_NOT_FOUND", "is retired");
    let unknown = server.send("GET", &format!("{VERSIONS}/9"), "", b"").await;
    unknown.refused(404, "MQ_PLUGIN_NOT_FOUND", "there is no plugin `p`");
    server.close().await;
}

#[tokio::test]
async fn hostile_uploads_are_refused_in_words_and_in_time() {
    let server = Server::start().await;
    let redact = redact();
    let many_functions = component(&format!("(core module {})", "(func)".repeat(50_001)));
    let deep = component(&format!("{}{}", "(component ".repeat(9), ")".repeat(9)));
    let mut sections = component("");
    sections.extend_from_slice(&[0, 2, 1, b'x'].repeat(10_001));
    let invalid = component("(core module (func (result i32)))");
    let module = wat::parse_str("(module)").expect("valid text");
    for (what, bytes, part) in [
        ("nothing", &b""[..], "the file is empty"),
        ("truncated", &redact[..redact.len() / 2], "ends too early"),
        ("precompiled", b"\x7fELF\x02\x01\x01", "never accepted from outside"),
        ("a core module", &module, "a core module, not a component"),
        ("thousands of functions", &many_functions, "more than 50000 functions"),
        ("deep", &deep, "more than 8 levels of nesting"),
        ("sections", &sections, "more than 10000 sections"),
        ("invalid code", &invalid, "does not compile"),
    ] {
        println!("{what}");
        push(&server, "", bytes).await.refused(422, "MQ_PLUGIN_REFUSED", part);
    }
    let forged = push(&server, &format!("?sha256={}", "0".repeat(64)), &redact).await;
    forged.refused(422, "MQ_PLUGIN_REFUSED", "not 0000");
    let header = format!("repr-digest: sha-256=:{}=:\r\n", "A".repeat(43));
    let zeros = server.send("POST", VERSIONS, &header, &redact).await;
    zeros.refused(422, "MQ_PLUGIN_REFUSED", "not 0000");
    push(&server, "?sha256=12", &redact).await.refused(400, "MQ_INVALID_REQUEST", "64 hexadecimal digits");
    let large = server.send_length("POST", VERSIONS, 100 << 20, &[0; 16]).await;
    large.refused(413, "MQ_MESSAGE_TOO_LARGE", "more than 10485760 bytes");
    let name = server.send("POST", "/api/v1/plugins/A/versions", "", &redact).await;
    name.refused(400, "MQ_INVALID_REQUEST", "cannot be called `A`");
    // None of it has left anything behind, and the gateway still takes what is good.
    server.send("GET", VERSIONS, "", b"").await.refused(404, "MQ_PLUGIN_NOT_FOUND", "no plugin");
    assert_eq!(push(&server, "", &redact).await.expect(201)["version"], Value::from(1));
    server.close().await;
}

#[test]
fn what_takes_too_long_to_compile_is_ended_with_its_process() {
    let compiler = Subprocess::of(env!("CARGO_BIN_EXE_sluicegate").into()).within(Duration::from_millis(30));
    let jq = bundled::component("jq").expect("built in");
    let started = Instant::now();
    let refusal = compiler.compile(&jq).expect_err("too long");
    assert!(refusal.contains("takes longer than 30ms to compile"), "{refusal}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // And its turn is free again.
    for _ in 0..3 {
        assert!(compiler.compile(&jq).expect_err("too long").contains("takes longer"));
    }
}
