//! RabbitMQ: the load and the bare loop on lapin. Durable queues, persistent messages, publisher confirms.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind};

use super::broker::{Broker, Names, Receiving, Sending};
use super::load;

/// Confirms outstanding while the source is filled.
const FILL_WINDOW: usize = 1_000;
/// How long one `receive` waits.
const RECEIVE_WAIT: Duration = Duration::from_secs(1);
/// A message that no queue takes comes back.
const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };
/// AMQP's delivery mode of messages that survive a restart.
const PERSISTENT: u8 = 2;

pub(super) struct Rabbitmq {
    url: String,
    names: Names,
    connection: Connection,
    channel: Channel,
}

impl Rabbitmq {
    pub async fn connect(url: &str, names: Names) -> anyhow::Result<Self> {
        let connection = connect(url).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { url: url.to_owned(), names, connection, channel })
    }
}

async fn connect(url: &str) -> anyhow::Result<Connection> {
    let connected = Connection::connect(url, ConnectionProperties::default()).await;
    connected.context("cannot connect to RabbitMQ; check --amqp-url and that the broker runs")
}

fn properties() -> BasicProperties {
    BasicProperties::default()
        .with_type(load::KIND.into())
        .with_content_type(load::CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
}

fn check(confirmed: lapin::Result<Confirmation>) -> anyhow::Result<()> {
    match confirmed? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) => anyhow::bail!("RabbitMQ returned a message: {:?}", returned.error()),
        Confirmation::Nack(_) => anyhow::bail!("RabbitMQ refused a message"),
        Confirmation::NotRequested => anyhow::bail!("RabbitMQ does not confirm"),
    }
}

#[async_trait]
impl Broker for Rabbitmq {
    fn names(&self) -> &Names {
        &self.names
    }

    async fn create(&mut self) -> anyhow::Result<()> {
        self.remove().await?;
        let (channel, Names { source, target }) = (&self.channel, &self.names);
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(target.as_str().into(), ExchangeKind::Direct, durable, FieldTable::default()).await?;
        for queue in [source, target] {
            channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
        }
        let (queue, exchange) = (target.as_str().into(), target.as_str().into());
        let key = target.as_str().into();
        channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default()).await?;
        Ok(())
    }

    async fn fill(&mut self, messages: u64, body_bytes: usize) -> anyhow::Result<()> {
        let mut confirms = FuturesOrdered::new();
        for number in 0..messages {
            let (queue, body) = (self.names.source.as_str().into(), load::body(number, 0, body_bytes));
            confirms.push_back(self.channel.basic_publish("".into(), queue, MANDATORY, &body, properties()).await?);
            if confirms.len() >= FILL_WINDOW
                && let Some(confirmed) = confirms.next().await
            {
                check(confirmed)?;
            }
        }
        while let Some(confirmed) = confirms.next().await {
            check(confirmed)?;
        }
        Ok(())
    }

    async fn arrived(&mut self) -> anyhow::Result<u64> {
        let options = QueueDeclareOptions::durable().passive();
        let queue =
            self.channel.queue_declare(self.names.target.as_str().into(), options, FieldTable::default()).await?;
        Ok(queue.message_count().into())
    }

    async fn ends(&self) -> anyhow::Result<(Box<dyn Sending>, Box<dyn Receiving>)> {
        let sender = connect(&self.url).await?;
        let channel = sender.create_channel().await?;
        let sending = SendingEnd { queue: self.names.source.clone(), channel, _connection: sender };
        let receiver = connect(&self.url).await?;
        let channel = receiver.create_channel().await?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let queue = self.names.target.as_str().into();
        let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
        Ok((Box::new(sending), Box::new(ReceivingEnd { consumer, _channel: channel, _connection: receiver })))
    }

    async fn remove(&mut self) -> anyhow::Result<()> {
        // Removing what is not there is a success in AMQP.
        for queue in [&self.names.source, &self.names.target] {
            self.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
        }
        let exchange = self.names.target.as_str().into();
        self.channel.exchange_delete(exchange, ExchangeDeleteOptions::default()).await?;
        ensure!(self.connection.status().connected(), "the connection to RabbitMQ is gone");
        Ok(())
    }
}

/// The channel and connection stay open as long as this.
struct SendingEnd {
    queue: String,
    channel: Channel,
    _connection: Connection,
}

#[async_trait]
impl Sending for SendingEnd {
    async fn send(&mut self, _number: u64, body: Vec<u8>) -> anyhow::Result<()> {
        // Without confirms on this channel, the future is ready at once.
        let queue = self.queue.as_str().into();
        match self.channel.basic_publish("".into(), queue, MANDATORY, &body, properties()).await?.await? {
            Confirmation::NotRequested => Ok(()),
            other => check(Ok(other)),
        }
    }
}

struct ReceivingEnd {
    consumer: Consumer,
    _channel: Channel,
    _connection: Connection,
}

#[async_trait]
impl Receiving for ReceivingEnd {
    async fn receive(&mut self) -> anyhow::Result<Vec<Vec<u8>>> {
        let Ok(first) = tokio::time::timeout(RECEIVE_WAIT, self.consumer.next()).await else { return Ok(Vec::new()) };
        let first: Delivery = first.context("RabbitMQ has ended the consumer")??;
        let mut bodies = vec![first.data];
        while let Some(Some(next)) = self.consumer.next().now_or_never() {
            bodies.push(next?.data);
        }
        Ok(bodies)
    }
}

/// Consumes, publishes with a confirm, acknowledges: as fast as lapin goes with `in_flight` messages on the way, and
/// with several acknowledged by one frame where several are confirmed.
pub(super) async fn bare_loop(url: &str, queue: &str, exchange: &str, in_flight: u16) -> anyhow::Result<()> {
    let connection = connect(url).await?;
    let reading = connection.create_channel().await?;
    reading.basic_qos(in_flight, BasicQosOptions::default()).await?;
    let writing = connection.create_channel().await?;
    writing.confirm_select(ConfirmSelectOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer = reading.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    let mut confirms = FuturesOrdered::new();
    loop {
        tokio::select! {
            delivery = consumer.next(), if confirms.len() < usize::from(in_flight) => {
                let delivery: Delivery = delivery.context("RabbitMQ has ended the consumer")??;
                let (to, key, properties) = (exchange.into(), exchange.into(), delivery.properties);
                let confirm = writing.basic_publish(to, key, MANDATORY, &delivery.data, properties).await?;
                let tag = delivery.delivery_tag;
                confirms.push_back(confirm.map(move |confirmed| (tag, confirmed)));
            }
            Some((tag, confirmed)) = confirms.next() => {
                check(confirmed)?;
                let mut last = tag;
                while let Some(Some((tag, confirmed))) = confirms.next().now_or_never() {
                    check(confirmed)?;
                    last = tag;
                }
                reading.basic_ack(last, BasicAckOptions { multiple: true }).await?;
            }
        }
    }
}
