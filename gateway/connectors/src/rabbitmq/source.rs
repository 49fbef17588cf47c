//! The source: a queue, consumed by workers that each have a channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt, stream};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use sluicegate_engine::delivery::Received;
use sluicegate_engine::failure::Failure;
use sluicegate_engine::source::{Connection, Inlet, Source};

use super::config::SourceConfig;
use super::delay::DelayQueues;
use super::endpoint::Endpoint;
use super::mapping::{Arrival, Incoming};
use super::refusal;
use super::settler::{Ledger, RabbitmqSettler, Worker, token};
use super::topology::{Topology, short};
use crate::registry::BuildContext;

/// A RabbitMQ queue as a source.
pub struct RabbitmqSource {
    config: SourceConfig,
    /// Or why it cannot be reached whatever the broker does.
    endpoint: Result<Endpoint, Failure>,
    incoming: Incoming,
    /// Whether delay queues turned out to be impossible, see [`RabbitmqSettler`].
    cannot_park: Arc<AtomicBool>,
}

impl RabbitmqSource {
    /// Not yet connected.
    pub fn new(config: &SourceConfig, context: &BuildContext) -> Self {
        let endpoint = Endpoint::new(
            &config.url,
            config.tls.as_deref(),
            config.heartbeat,
            config.connection_timeout,
            &context.base_dir,
            format!("sluicegate {} source", context.pipeline),
        );
        let incoming = Incoming {
            pipeline: Arc::clone(&context.pipeline),
            queue: config.queue.clone(),
            retry_header: config.retry.header.clone(),
        };
        Self { config: config.clone(), endpoint, incoming, cannot_park: Arc::default() }
    }

    async fn begin(
        &self,
        connection: &lapin::Connection,
        endpoint: &Endpoint,
    ) -> Result<Vec<(Channel, Consumer)>, Failure> {
        let config = &self.config;
        let topology = Topology {
            declare: config.declare,
            exchange: config.exchange.as_deref(),
            queue: Some((&config.queue, &config.queue_options)),
            message_ttl: config.message_ttl,
            bindings: &config.effective_bindings(),
        };
        topology.declare(connection, endpoint).await?;
        let doing = format!("consuming queue `{}`", config.queue);
        let mut workers = Vec::with_capacity(config.concurrency.into());
        for worker in 0..config.concurrency.max(1) {
            let begun = async {
                let channel = connection.create_channel().await?;
                channel.basic_qos(config.prefetch.max(1), BasicQosOptions { global: false }).await?;
                Ok(channel)
            };
            let channel: Channel =
                begun.await.map_err(|error: lapin::Error| refusal::on_connect(&error, &doing, endpoint))?;
            let prefix = config.consumer_tag.as_deref().unwrap_or(&self.incoming.pipeline);
            let consumer = channel
                .basic_consume(
                    short(&config.queue, "queue")?,
                    short(&format!("{prefix}.{worker}"), "consumer tag")?,
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await
                .map_err(|error| refusal::on_connect(&error, &doing, endpoint))?;
            workers.push((channel, consumer));
        }
        Ok(workers)
    }

    fn delays(&self, endpoint: &Endpoint) -> DelayQueues {
        let config = &self.config;
        DelayQueues {
            queue: config.queue.clone(),
            quorum: config.queue_options.arguments.get("x-queue-type").is_some_and(|kind| kind == "quorum"),
            prefix: config.delay_prefix(),
            retry_header: config.retry.header.clone(),
            endpoint: endpoint.clone(),
            open: None,
        }
    }
}

#[async_trait]
impl Source for RabbitmqSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let endpoint = self.endpoint.clone()?;
        let connection = Arc::new(endpoint.connect().await?);
        let workers =
            endpoint.within_timeout("declaring and beginning to consume", self.begin(&connection, &endpoint)).await?;
        tracing::info!(
            system = "rabbitmq",
            server = endpoint.host_port(),
            vhost = endpoint.vhost(),
            queue = self.config.queue,
            workers = workers.len(),
            prefetch = self.config.prefetch,
            "consuming"
        );
        let mut arrivals = SelectAll::new();
        let mut settlers = Vec::with_capacity(workers.len());
        for (worker, (channel, consumer)) in workers.into_iter().enumerate() {
            let deliveries = consumer.map(move |delivery| (worker, Some(delivery)));
            // `SelectAll` forgets a stream that ends, and a consumer the broker cancels ends without an error.
            arrivals.push(deliveries.chain(stream::once(async move { (worker, None) })).boxed());
            settlers.push(Worker { channel, ledger: Ledger::default() });
        }
        let inlet =
            RabbitmqInlet { arrivals, incoming: self.incoming.clone(), endpoint: endpoint.clone(), failed: None };
        let delays = self.delays(&endpoint);
        let cannot_park = Arc::clone(&self.cannot_park);
        let postpones = !cannot_park.load(Ordering::Relaxed);
        let settler = RabbitmqSettler { connection, endpoint, workers: settlers, delays, cannot_park };
        Ok(Connection { inlet: Box::new(inlet), settler: Box::new(settler), resumes: false, postpones })
    }
}

/// The reading half. What is buffered here is limited by prefetch times workers. Dropping it cancels the consumers; what
/// was pushed and not received goes back to the queue when the settler closes the connection.
struct RabbitmqInlet {
    arrivals: SelectAll<BoxStream<'static, (usize, Option<lapin::Result<Delivery>>)>>,
    incoming: Incoming,
    endpoint: Endpoint,
    /// A failure that came after messages, for the next call.
    failed: Option<Failure>,
}

#[async_trait]
impl Inlet for RabbitmqInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure> {
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        let first = self.arrivals.next().await;
        let mut received = vec![self.received(first)?];
        while received.len() < max {
            let Some(next) = self.arrivals.next().now_or_never() else { break };
            match self.received(next) {
                Ok(message) => received.push(message),
                Err(failure) => {
                    self.failed = Some(failure);
                    break;
                }
            }
        }
        Ok(received)
    }
}

impl RabbitmqInlet {
    fn received(&self, arrival: Option<(usize, Option<lapin::Result<Delivery>>)>) -> Result<Received, Failure> {
        let doing = || format!("consuming queue `{}`", self.incoming.queue);
        match arrival {
            Some((worker, Some(Ok(delivery)))) => {
                let message = self.incoming.message(Arrival {
                    exchange: delivery.exchange.as_str(),
                    routing_key: delivery.routing_key.as_str(),
                    redelivered: delivery.redelivered,
                    properties: &delivery.properties,
                    body: delivery.data,
                });
                Ok(Received::new(message, token(worker, delivery.delivery_tag)))
            }
            Some((_, Some(Err(error)))) => Err(refusal::lost(&error, &doing(), &self.endpoint)),
            Some((worker, None)) => Err(Failure::disconnected(format!(
                "{}, RabbitMQ at {}: the broker cancelled worker {worker}'s consumer, or its channel was closed: the queue was \
                 deleted or its node stopped; it is declared again on the next connect, unless `declare` is off",
                doing(),
                self.endpoint
            ))),
            None => Err(Failure::disconnected(format!(
                "{}, RabbitMQ at {}: all consumers have ended",
                doing(),
                self.endpoint
            ))),
        }
    }
}
