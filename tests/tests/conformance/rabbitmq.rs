//! RabbitMQ: a queue to a queue.

use anyhow::{Context, Result};
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, ByteArray, FieldArray, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Confirmation};
use sluicegate_tests::gateway::Gateway;
use sluicegate_tests::servers::{self, RabbitMq};
use sluicegate_tests::unique;
use tokio::sync::{Mutex, RwLock};

use crate::sample::{HEADER_PREFIX, Sample};
use crate::system::{ARRIVAL_LIMIT, System};

/// Messages published before their confirms are awaited.
const BATCH: usize = 200;
/// Where a message of RabbitMQ has its key.
const KEY_HEADER: &str = "key";

pub struct RabbitMqSystem {
    /// Of the system's own, if it may be killed.
    own: RwLock<Option<RabbitMq>>,
    url: String,
    source_queue: String,
    target_queue: String,
    publishing: Mutex<Option<Channel>>,
    consuming: Mutex<Option<Channel>>,
    arrived: Mutex<Vec<Sample>>,
}

impl RabbitMqSystem {
    async fn new(url: String, own: Option<RabbitMq>) -> Result<Self> {
        let system = Self {
            own: RwLock::new(own),
            url,
            source_queue: unique("conformance-in"),
            target_queue: unique("conformance-out"),
            publishing: Mutex::default(),
            consuming: Mutex::default(),
            arrived: Mutex::default(),
        };
        let channel = system.open().await?;
        for queue in [&system.source_queue, &system.target_queue] {
            channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
        }
        Ok(system)
    }

    async fn open(&self) -> Result<Channel> {
        let channel = servers::connect_to_rabbitmq(&self.url).await?.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// The channel kept in `slot`, or a new one if that is broken.
    async fn channel(&self, slot: &Mutex<Option<Channel>>) -> Result<Channel> {
        let mut slot = slot.lock().await;
        match slot.as_ref().filter(|channel| channel.status().connected()) {
            Some(channel) => Ok(channel.clone()),
            None => Ok(slot.insert(self.open().await?).clone()),
        }
    }

    async fn publish(&self, samples: &[Sample]) -> Result<()> {
        let channel = self.channel(&self.publishing).await?;
        let mut confirms = Vec::with_capacity(samples.len());
        for sample in samples {
            let queue = self.source_queue.as_str().into();
            let options = BasicPublishOptions::default();
            confirms.push(channel.basic_publish("".into(), queue, options, &sample.body, properties(sample)).await?);
        }
        for confirm in confirms {
            anyhow::ensure!(matches!(confirm.await?, Confirmation::Ack(None)), "the broker refused a message");
        }
        Ok(())
    }

    /// Takes what waits in the target queue. It is acknowledged only after it is kept here.
    async fn take(&self, arrived: &mut Vec<Sample>) -> Result<()> {
        let channel = self.channel(&self.consuming).await?;
        let mut last = None;
        while let Some(message) =
            channel.basic_get(self.target_queue.as_str().into(), BasicGetOptions::default()).await?
        {
            arrived.push(sample(&message.delivery.properties, &message.delivery.data)?);
            last = Some(message.delivery);
        }
        if let Some(last) = last {
            anyhow::ensure!(last.ack(BasicAckOptions { multiple: true }).await?, "the channel is gone");
        }
        Ok(())
    }
}

impl System for RabbitMqSystem {
    async fn shared() -> Result<Self> {
        Self::new(servers::rabbitmq().await?.url().to_owned(), None).await
    }

    async fn own() -> Result<Self> {
        let server = RabbitMq::start().await?;
        Self::new(server.url().to_owned(), Some(server)).await
    }

    fn source(&self) -> String {
        format!("rabbitmq: {{ url: '{}', queue: {} }}", self.url, self.source_queue)
    }

    fn target(&self) -> String {
        format!("rabbitmq: {{ url: '{}', queue: {} }}", self.url, self.target_queue)
    }

    fn telling_headers() -> Vec<(String, Vec<u8>)> {
        let header = |name: &str, value: &[u8]| (format!("{HEADER_PREFIX}{name}"), value.to_vec());
        vec![
            header("binary", &(0..=255).collect::<Vec<u8>>()),
            header("empty", b""),
            header("repeated", b"one"),
            header("repeated", b"two"),
            header("UPPER lower, and: odd", "Grüße".as_bytes()),
        ]
    }

    async fn produce(&self, _: &str, samples: &[Sample]) -> Result<()> {
        for batch in samples.chunks(BATCH) {
            sluicegate_tests::eventually("RabbitMQ confirms a batch", ARRIVAL_LIMIT, async || {
                self.publish(batch).await
            })
            .await;
        }
        Ok(())
    }

    async fn arrived(&self) -> Result<Vec<Sample>> {
        let mut arrived = self.arrived.lock().await;
        self.take(&mut arrived).await?;
        Ok(arrived.clone())
    }

    async fn disturb(&self, _: &mut Gateway) -> Result<()> {
        let mut own = self.own.write().await;
        let server = own.as_mut().context("only a broker of its own may be killed")?;
        server.kill()?;
        server.restart().await
    }
}

fn properties(sample: &Sample) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut names: Vec<&String> = sample.headers.iter().map(|(name, _)| name).collect();
    names.dedup();
    for name in names {
        let values: Vec<AMQPValue> = sample
            .headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| AMQPValue::LongString(LongString::from(value.clone())))
            .collect();
        let value = match <[AMQPValue; 1]>::try_from(values) {
            Ok([one]) => one,
            Err(several) => AMQPValue::FieldArray(FieldArray::from(several)),
        };
        headers.insert(name.as_str().into(), value);
    }
    if let Some(key) = &sample.key {
        headers.insert(KEY_HEADER.into(), AMQPValue::LongString(key.as_str().into()));
    }
    BasicProperties::default()
        .with_message_id(sample.id.as_str().into())
        .with_type("conformance.sample".into())
        .with_delivery_mode(2)
        .with_headers(headers)
}

fn sample(properties: &BasicProperties, body: &[u8]) -> Result<Sample> {
    let mut sample = Sample {
        id: properties.message_id().as_ref().context("a message without id")?.as_str().to_owned(),
        key: None,
        headers: Vec::new(),
        body: body.to_vec(),
    };
    for (name, value) in properties.headers().iter().flat_map(|table| table.inner().iter()) {
        if name.as_str() == KEY_HEADER {
            sample.key = Some(String::from_utf8(bytes(value)?)?);
        } else if name.as_str().starts_with(HEADER_PREFIX) {
            let values = match value {
                AMQPValue::FieldArray(values) => values.as_slice().to_vec(),
                one => vec![one.clone()],
            };
            for value in &values {
                sample.headers.push((name.as_str().to_owned(), bytes(value)?));
            }
        }
    }
    // A table has no order.
    let order: Vec<String> = RabbitMqSystem::telling_headers().into_iter().map(|(name, _)| name).collect();
    sample.headers.sort_by_key(|(name, _)| order.iter().position(|known| known == name));
    Ok(sample)
}

fn bytes(value: &AMQPValue) -> Result<Vec<u8>> {
    match value {
        AMQPValue::LongString(text) => Ok(text.as_bytes().to_vec()),
        AMQPValue::ByteArray(bytes) => Ok(ByteArray::as_slice(bytes).to_vec()),
        other => anyhow::bail!("a header that is no string: {other:?}"),
    }
}
