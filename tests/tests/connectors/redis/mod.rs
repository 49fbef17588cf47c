//! The Redis connector against a real Redis.

mod claiming;
mod consuming;
mod faults;
mod publishing;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::Value;
use sluicegate_connectors::http::Ingress;
use sluicegate_connectors::redis::{RedisSource, RedisTarget, SourceConfig, TargetConfig};
use sluicegate_connectors::registry::BuildContext;
use sluicegate_engine::delivery::{Outcome, Received, Settled, Settlement};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::source::{Connection, Inlet, Source};
use sluicegate_engine::target::{Outlet, Target};
use sluicegate_tests::servers;

/// Longest wait for anything that takes milliseconds.
const SOON: Duration = Duration::from_secs(20);
/// How long nothing must happen for nothing to be going to happen: three times the `claim_after` of these tests.
const QUIET: Duration = Duration::from_millis(900);
const CLAIM_AFTER: &str = "300ms";

fn context() -> BuildContext {
    BuildContext {
        pipeline: Arc::from("test"),
        base_dir: ".".into(),
        data_dir: ".".into(),
        ingress: Ingress::default(),
        spool: None,
        ordered: false,
        queues: Default::default(),
    }
}

/// Fills in the shared server's url unless there is one.
async fn with_url(mut settings: Value) -> Result<Value> {
    if settings.get("url").is_none() {
        settings["url"] = servers::redis().await?.url().into();
    }
    Ok(settings)
}

async fn source(settings: Value) -> Result<RedisSource> {
    let config: SourceConfig = serde_json::from_value(with_url(settings).await?)?;
    anyhow::ensure!(config.problems().is_empty(), "{:?}", config.problems());
    Ok(RedisSource::new(&config, &context()))
}

async fn consume(settings: Value) -> Result<Connection> {
    Ok(source(settings).await?.connect().await?)
}

async fn target(settings: Value) -> Result<RedisTarget> {
    let config: TargetConfig = serde_json::from_value(with_url(settings).await?)?;
    anyhow::ensure!(config.problems().is_empty(), "{:?}", config.problems());
    Ok(RedisTarget::new(&config, &context()))
}

async fn outlet(settings: Value) -> Result<Arc<dyn Outlet>> {
    Ok(target(settings).await?.connect().await?)
}

/// A bare client of the shared server.
async fn client() -> Result<MultiplexedConnection> {
    servers::redis().await?.connect().await
}

/// Adds an entry a body, in a foreign layout.
async fn add(client: &mut MultiplexedConnection, stream: &str, bodies: &[&str]) -> Result<()> {
    for body in bodies {
        cmd("XADD").arg(stream).arg("*").arg("data").arg(body).exec_async(client).await?;
    }
    Ok(())
}

/// How many entries are pending in group `test`.
async fn pending(client: &mut MultiplexedConnection, stream: &str) -> Result<u64> {
    let summary: Vec<redis::Value> = cmd("XPENDING").arg(stream).arg("test").query_async(client).await?;
    let count = summary.into_iter().next().context("an empty answer to XPENDING")?;
    Ok(redis::from_redis_value(count)?)
}

/// Exactly `count` messages, or whatever is wrong before they are there.
async fn receive(inlet: &mut dyn Inlet, count: usize) -> Result<Vec<Received>> {
    let mut received = Vec::new();
    while received.len() < count {
        let more = tokio::time::timeout(SOON, inlet.receive(count - received.len())).await;
        received.extend(more.with_context(|| format!("{} of {count} messages came", received.len()))??);
    }
    Ok(received)
}

/// Nothing comes for a while. The inlet may not be used any more: its read was cut off.
async fn nothing_comes(mut inlet: Box<dyn Inlet>) -> Result<()> {
    match tokio::time::timeout(QUIET, inlet.receive(1)).await {
        Err(_) => Ok(()),
        Ok(Ok(received)) => anyhow::bail!("came unexpectedly: {received:?}"),
        Ok(Err(failure)) => Err(failure.into()),
    }
}

/// What the inlet fails with.
async fn failure(inlet: &mut dyn Inlet) -> Result<Failure> {
    match tokio::time::timeout(SOON, inlet.receive(1)).await.context("neither message nor failure")? {
        Err(failure) => Ok(failure),
        Ok(received) => anyhow::bail!("came instead of a failure: {received:?}"),
    }
}

fn all_settled(received: Vec<Received>, settlement: Settlement) -> Vec<Settled> {
    let outcome = Outcome { settlement, ..Outcome::default() };
    received.into_iter().map(|r| Settled::new(r.token, Arc::new(r.message), outcome.clone())).collect()
}

fn bodies(received: &[Received]) -> Vec<String> {
    received.iter().map(|r| String::from_utf8_lossy(r.message.body.bytes()).into_owned()).collect()
}
