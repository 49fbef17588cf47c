//! The RabbitMQ connector against a real broker.

mod consuming;
mod dead_letters;
mod declaring;
mod faults;
mod not_waiting;
mod publishing;
mod tls;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use lapin::message::Delivery;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation};
use serde_json::Value;
use sluicegate_connectors::http::Ingress;
use sluicegate_connectors::rabbitmq::{RabbitmqSource, RabbitmqTarget, SourceConfig, TargetConfig};
use sluicegate_connectors::registry::BuildContext;
use sluicegate_engine::delivery::{Outcome, Received, Settled, Settlement};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::Message;
use sluicegate_engine::source::{Connection, Inlet, Source};
use sluicegate_engine::target::{Outlet, Target};
use sluicegate_tests::servers;

/// Longest wait for anything that takes milliseconds.
const SOON: Duration = Duration::from_secs(20);
/// How long nothing must happen for nothing to be going to happen.
const QUIET: Duration = Duration::from_millis(300);

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

/// Settings with the shared broker's url.
async fn on_shared(mut settings: Value) -> Result<Value> {
    settings["url"] = servers::rabbitmq().await?.url().into();
    Ok(settings)
}

async fn source(settings: Value) -> Result<RabbitmqSource> {
    let config: SourceConfig = serde_json::from_value(on_shared(settings).await?)?;
    anyhow::ensure!(config.problems().is_empty(), "{:?}", config.problems());
    Ok(RabbitmqSource::new(&config, &context()))
}

async fn consume(settings: Value) -> Result<Connection> {
    Ok(source(settings).await?.connect().await?)
}

async fn target(settings: Value) -> Result<RabbitmqTarget> {
    let config: TargetConfig = serde_json::from_value(on_shared(settings).await?)?;
    anyhow::ensure!(config.problems().is_empty(), "{:?}", config.problems());
    Ok(RabbitmqTarget::new(&config, &context()))
}

async fn outlet(settings: Value) -> Result<Arc<dyn Outlet>> {
    Ok(target(settings).await?.connect().await?)
}

/// A bare client's channel on the shared broker, in confirm mode.
async fn channel() -> Result<Channel> {
    let channel = servers::rabbitmq().await?.connect().await?.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

async fn declare(channel: &Channel, queue: &str) -> Result<()> {
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    Ok(())
}

/// Publishes; an error if no queue takes it.
async fn publish(
    channel: &Channel,
    exchange: &str,
    routing_key: &str,
    properties: BasicProperties,
    body: &[u8],
) -> Result<()> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let confirm = channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties).await?.await?;
    anyhow::ensure!(confirm == Confirmation::Ack(None), "not taken: {confirm:?}");
    Ok(())
}

async fn publish_bodies(channel: &Channel, queue: &str, bodies: impl IntoIterator<Item = String>) -> Result<()> {
    for body in bodies {
        publish(channel, "", queue, BasicProperties::default(), body.as_bytes()).await?;
    }
    Ok(())
}

/// The next message of a queue, settled at once.
async fn take(channel: &Channel, queue: &str) -> Result<Delivery> {
    let message = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await?;
    Ok(message.with_context(|| format!("queue {queue} is empty"))?.delivery)
}

/// How many messages are ready in a queue.
async fn ready(channel: &Channel, queue: &str) -> Result<u32> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(queue.into(), options, FieldTable::default()).await?.message_count())
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

/// Nothing comes for a while.
async fn nothing_comes(inlet: &mut dyn Inlet) -> Result<()> {
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

fn settled(received: Received, settlement: Settlement) -> Settled {
    let outcome = Outcome { settlement, ..Outcome::default() };
    Settled::new(received.token, Arc::new(received.message), outcome)
}

fn all_settled(received: Vec<Received>, settlement: Settlement) -> Vec<Settled> {
    received.into_iter().map(|received| settled(received, settlement)).collect()
}

fn bodies(received: &[Received]) -> Vec<String> {
    received.iter().map(|received| String::from_utf8_lossy(received.message.body.bytes()).into_owned()).collect()
}

fn message(kind: &str, body: impl Into<bytes::Bytes>) -> Arc<Message> {
    Arc::new(Message::new("test", kind, body.into()))
}
