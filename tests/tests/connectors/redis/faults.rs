//! Groups and streams deleted in use, servers that die or hang.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use redis::cmd;
use serde_json::json;
use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::failure::FailureKind;
use sluicegate_engine::message::Message;
use sluicegate_engine::source::Source;
use sluicegate_engine::target::Target;
use sluicegate_tests::servers::Redis;
use sluicegate_tests::{eventually, unique};

use super::{SOON, add, all_settled, bodies, client, failure, outlet, receive, source, target};

#[tokio::test]
async fn a_group_deleted_in_use_is_created_again_and_loses_nothing() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    let mut source = source(json!({ "stream": stream, "start": "latest", "block": "100ms" })).await?;
    let mut connection = source.connect().await?;
    add(&mut client, &stream, &["1", "2"]).await?;
    let held = receive(&mut *connection.inlet, 2).await?;
    cmd("XGROUP").arg(&["DESTROY", &stream, "test"]).exec_async(&mut client).await?;
    add(&mut client, &stream, &["3"]).await?;
    let lost = failure(&mut *connection.inlet).await?;
    assert_eq!(lost.kind, FailureKind::Disconnected, "{}", lost.text);
    // What is in flight settles without complaint and is not delivered a second time meanwhile.
    drop(connection);
    let mut connection = source.connect().await?;
    assert_eq!(bodies(&receive(&mut *connection.inlet, 1).await?), ["3"]);
    connection.settler.settle(&all_settled(held, Settlement::Delivered)).await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_deleted_in_use_is_created_again() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    let mut source = source(json!({ "stream": stream, "block": "100ms" })).await?;
    let mut connection = source.connect().await?;
    cmd("DEL").arg(&stream).exec_async(&mut client).await?;
    add(&mut client, &stream, &["new"]).await?;
    let lost = failure(&mut *connection.inlet).await?;
    assert_eq!(lost.kind, FailureKind::Disconnected, "{}", lost.text);
    drop(connection);
    let mut connection = source.connect().await?;
    assert_eq!(bodies(&receive(&mut *connection.inlet, 1).await?), ["new"]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed_by_both_ends() -> Result<()> {
    let mut server = Redis::start().await?;
    let settings = json!({ "url": server.url(), "stream": "s", "timeout": "300ms" });
    let outlet = outlet(settings.clone()).await?;
    let mut connection = source(settings).await?.connect().await?;
    add(&mut server.connect().await?, "s", &["1"]).await?;
    let held = receive(&mut *connection.inlet, 1).await?;
    server.pause()?;
    let begun = std::time::Instant::now();
    let lost = outlet.publish(&[Arc::new(Message::new("tests", "t", "2"))]).await.remove(0).expect_err("no answer");
    assert_eq!(lost.kind, FailureKind::Disconnected, "{}", lost.text);
    let batch = all_settled(held, Settlement::Delivered);
    let lost = connection.settler.settle(&batch).await.expect_err("no answer");
    assert_eq!(lost.kind, FailureKind::Disconnected, "{}", lost.text);
    let lost = failure(&mut *connection.inlet).await?;
    assert_eq!(lost.kind, FailureKind::Disconnected, "{}", lost.text);
    assert!(begun.elapsed() < Duration::from_secs(5), "noticed after {:?}", begun.elapsed());
    server.resume()?;
    Ok(())
}

#[tokio::test]
async fn a_killed_server_loses_nothing_that_was_confirmed_or_not_settled() -> Result<()> {
    let mut server = Redis::start().await?;
    let settings = json!({ "url": server.url(), "stream": "s", "timeout": "2s", "claim_after": "300ms" });
    let mut source = source(settings).await?;
    let mut target = target(json!({ "url": server.url(), "stream": "s", "timeout": "2s" })).await?;
    let message = |body: &'static str| Arc::new(Message::new("tests", "t", body));
    let outlet = target.connect().await?;
    assert_eq!(outlet.publish(&[message("1"), message("2")]).await, [Ok(()), Ok(())]);
    let mut connection = source.connect().await?;
    let held = receive(&mut *connection.inlet, 1).await?;
    server.kill()?;
    let lost = outlet.publish(&[message("3")]).await.remove(0).expect_err("dead");
    assert_eq!(lost.kind, FailureKind::Disconnected, "{}", lost.text);
    let lost = failure(&mut *connection.inlet).await?;
    assert_eq!(lost.kind, FailureKind::Disconnected, "{}", lost.text);
    drop(connection);
    let refused = source.connect().await.err().expect("dead");
    assert_eq!(refused.kind, FailureKind::Disconnected, "{}", refused.text);
    server.restart().await?;
    let outlet = eventually("the target connects", SOON, async || Ok(target.connect().await?)).await;
    assert_eq!(outlet.publish(&[message("3")]).await, [Ok(())]);
    let mut connection = source.connect().await?;
    assert_eq!(bodies(&receive(&mut *connection.inlet, 2).await?), ["2", "3"]);
    connection.settler.settle(&all_settled(held, Settlement::Delivered)).await?;
    Ok(())
}
