//! What a target writes, and what Redis refuses.

use std::sync::Arc;

use anyhow::Result;
use redis::cmd;
use serde_json::json;
use sluicegate_engine::failure::FailureKind;
use sluicegate_engine::message::Message;
use sluicegate_engine::source::Source;
use sluicegate_engine::target::Target;
use sluicegate_tests::servers::{self, Redis};
use sluicegate_tests::unique;

use super::{client, outlet, source, target};

fn messages(count: usize) -> Vec<Arc<Message>> {
    (0..count).map(|n| Arc::new(Message::new("tests", "t", n.to_string()))).collect()
}

#[tokio::test]
async fn a_stream_keeps_about_as_many_entries_as_it_may() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    let outlet = outlet(json!({ "stream": stream, "max_len": 100 })).await?;
    for batch in messages(1_000).chunks(200) {
        assert!(outlet.publish(batch).await.iter().all(Result::is_ok));
    }
    let length: u64 = cmd("XLEN").arg(&stream).query_async(&mut client).await?;
    // Redis trims whole nodes, of 100 entries by default.
    assert!((100..=300).contains(&length), "{length} entries");
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_no_stream_is_told() -> Result<()> {
    let (key, mut client) = (unique("k"), client().await?);
    cmd("SET").arg(&key).arg("text").exec_async(&mut client).await?;
    for result in outlet(json!({ "stream": key })).await?.publish(&messages(2)).await {
        let failure = result.expect_err("WRONGTYPE");
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert!(failure.text.contains("WRONGTYPE") && failure.text.contains(&key), "{}", failure.text);
    }
    let failure = source(json!({ "stream": key })).await?.connect().await.err().expect("WRONGTYPE");
    assert_eq!(failure.kind, FailureKind::Permanent);
    Ok(())
}

#[tokio::test]
async fn wrong_credentials_are_told_without_them() -> Result<()> {
    let (user, mut client) = (unique("user"), client().await?);
    let acl = ["SETUSER", &user, "on", ">right-secret", "~*", "+@all"];
    cmd("ACL").arg(&acl).exec_async(&mut client).await?;
    let url = servers::redis().await?.url().replace("redis://", &format!("redis://{user}:wrong-secret@"));
    let source_failure =
        source(json!({ "url": url, "stream": unique("s") })).await?.connect().await.err().expect("refused");
    let target_failure =
        target(json!({ "url": url, "stream": unique("s") })).await?.connect().await.err().expect("refused");
    for failure in [source_failure, target_failure] {
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert!(failure.text.contains("password") && !failure.text.contains("secret"), "{}", failure.text);
        assert!(failure.text.contains("127.0.0.1") || failure.text.contains("localhost"), "{}", failure.text);
    }
    // The settings beside the URL win over those in it.
    let settings = json!({ "url": url, "stream": unique("s"), "password": "right-secret" });
    assert_eq!(outlet(settings).await?.publish(&messages(1)).await, [Ok(())]);
    Ok(())
}

#[tokio::test]
async fn a_missing_right_is_told() -> Result<()> {
    let (user, stream, mut client) = (unique("user"), unique("s"), client().await?);
    let acl = ["SETUSER", &user, "on", ">p", "~*", "+@all", "-xadd"];
    cmd("ACL").arg(&acl).exec_async(&mut client).await?;
    let outlet = outlet(json!({ "stream": stream, "username": user, "password": "p" })).await?;
    let failure = outlet.publish(&messages(1)).await.remove(0).expect_err("refused");
    assert_eq!(failure.kind, FailureKind::Permanent);
    assert!(failure.text.contains("NOPERM"), "{}", failure.text);
    Ok(())
}

#[tokio::test]
async fn a_full_memory_is_worth_another_try() -> Result<()> {
    let server = Redis::start().await?;
    let mut client = server.connect().await?;
    let outlet = outlet(json!({ "url": server.url(), "stream": "s" })).await?;
    cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec_async(&mut client).await?;
    let failure = outlet.publish(&messages(1)).await.remove(0).expect_err("full");
    assert_eq!(failure.kind, FailureKind::Transient { retry_after: None });
    assert!(failure.text.contains("OOM"), "{}", failure.text);
    cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).exec_async(&mut client).await?;
    assert_eq!(outlet.publish(&messages(1)).await, [Ok(())]);
    Ok(())
}
