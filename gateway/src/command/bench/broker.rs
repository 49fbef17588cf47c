//! What a measurement asks of a broker.

use std::fmt;

use async_trait::async_trait;
use sluicegate_engine::message::now_ms;

use super::{rabbitmq, redis};

/// A broker that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// RabbitMQ queue to RabbitMQ exchange and queue, with publisher confirms.
    Rabbitmq,
    /// Redis Stream to Redis Stream, through a consumer group.
    Redis,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rabbitmq => "RabbitMQ",
            Self::Redis => "Redis Streams",
        })
    }
}

/// The names of one measurement in the broker, which no other one has.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Queue or stream that is read.
    pub source: String,
    /// Exchange (and its queue), or stream, that is written.
    pub target: String,
}

impl Names {
    pub fn unique() -> Self {
        let stem = format!("sluicegate-bench-{}-{}", std::process::id(), now_ms());
        Self { source: format!("{stem}-source"), target: format!("{stem}-target") }
    }
}

/// A broker with a source and a target of this measurement.
#[async_trait]
pub(super) trait Broker: Send {
    /// The names given to it.
    fn names(&self) -> &Names;

    /// Makes source and target, both empty, and removes what earlier rounds left.
    async fn create(&mut self) -> anyhow::Result<()>;

    /// Puts that many messages into the source; all are stored when it returns.
    async fn fill(&mut self, messages: u64, body_bytes: usize) -> anyhow::Result<()>;

    /// How many messages are in the target.
    async fn arrived(&mut self) -> anyhow::Result<u64>;

    /// Two connections of their own: one to send to the source, one to receive from the target.
    async fn ends(&self) -> anyhow::Result<(Box<dyn Sending>, Box<dyn Receiving>)>;

    /// Removes source and target.
    async fn remove(&mut self) -> anyhow::Result<()>;
}

/// Sends single messages to the source.
#[async_trait]
pub(super) trait Sending: Send {
    /// Sends one; does not wait until it is stored.
    async fn send(&mut self, number: u64, body: Vec<u8>) -> anyhow::Result<()>;
}

/// Receives from the target.
#[async_trait]
pub(super) trait Receiving: Send {
    /// Waits for the next bodies, at most a second; none when there were none. Cancel safe: bodies are lost at worst.
    async fn receive(&mut self) -> anyhow::Result<Vec<Vec<u8>>>;
}

/// Connects to measure with.
pub(super) async fn connect(system: System, url: &str, names: Names) -> anyhow::Result<Box<dyn Broker>> {
    Ok(match system {
        System::Rabbitmq => Box::new(rabbitmq::Rabbitmq::connect(url, names).await?),
        System::Redis => Box::new(redis::Redis::connect(url, names).await?),
    })
}
