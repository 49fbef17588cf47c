//! The target: an exchange, or a queue by way of the default exchange.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use sluicegate_engine::failure::{Failure, FailureKind};
use sluicegate_engine::message::Message;
use sluicegate_engine::target::{Outlet, Target};

use super::config::TargetConfig;
use super::declaration::Declare;
use super::endpoint::Endpoint;
use super::mapping::Outgoing;
use super::publisher::{Publication, Publisher, Rejection};
use super::routing_key::RoutingKey;
use super::topology::{Topology, short};
use crate::registry::BuildContext;

/// A RabbitMQ exchange or queue as a target.
pub struct RabbitmqTarget {
    config: TargetConfig,
    /// Or why it cannot be reached whatever the broker does.
    endpoint: Result<Endpoint, Failure>,
}

impl RabbitmqTarget {
    /// Not yet connected.
    pub fn new(config: &TargetConfig, context: &BuildContext) -> Self {
        let endpoint = Endpoint::new(
            &config.url,
            config.tls.as_deref(),
            config.heartbeat,
            config.connection_timeout,
            &context.base_dir,
            format!("sluicegate {} target", context.pipeline),
        );
        Self { config: config.clone(), endpoint }
    }
}

#[async_trait]
impl Target for RabbitmqTarget {
    async fn connect(&mut self) -> Result<Arc<dyn Outlet>, Failure> {
        let endpoint = self.endpoint.clone()?;
        let config = &self.config;
        let routing_key =
            config.routing_key_template().map_err(|why| Failure::permanent(format!("rabbitmq: {why}")))?;
        let publisher = Publisher::open(&endpoint, config.mandatory, config.publish_timeout.0).await?;
        let topology = Topology {
            declare: config.declare,
            exchange: config.exchange.as_deref(),
            queue: config.queue.as_deref().map(|queue| (queue, &config.queue_options)),
            message_ttl: None,
            bindings: &[],
        };
        let declared = topology.declare(publisher.connection(), &endpoint);
        endpoint.within_timeout("declaring", declared).await?;
        let declares_exchange = config.declare == Declare::Create
            && config.exchange.as_deref().is_some_and(|exchange| exchange.properties.is_some());
        Ok(Arc::new(RabbitmqOutlet {
            publisher,
            exchange: config.exchange.as_deref().map(|exchange| exchange.name.clone()).unwrap_or_default(),
            routing_key,
            outgoing: Outgoing {
                persistent: config.persistent,
                expires: true,
                ttl: config.message_ttl.map(|ttl| ttl.0),
                cloud_events: config.cloud_events,
            },
            redeclares: declares_exchange || (config.queue.is_some() && config.declare == Declare::Create),
            endpoint,
            timeout: config.publish_timeout.0,
        }))
    }
}

struct RabbitmqOutlet {
    publisher: Publisher,
    endpoint: Endpoint,
    /// Empty for the default exchange.
    exchange: String,
    routing_key: RoutingKey,
    outgoing: Outgoing,
    /// Whether a new connection would create what turns out to be missing.
    redeclares: bool,
    timeout: Duration,
}

#[async_trait]
impl Outlet for RabbitmqOutlet {
    async fn publish(&self, batch: &[Arc<Message>]) -> Vec<Result<(), Failure>> {
        let mut results = Vec::with_capacity(batch.len());
        let mut publications = Vec::with_capacity(batch.len());
        for message in batch {
            results.push(self.publication(message).map(|publication| publications.push(publication)));
        }
        let mut confirms = self.publisher.publish(&publications).await.into_iter().zip(&publications);
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            if let Some((Err(rejection), publication)) = confirms.next() {
                *result = Err(self.failure(rejection, publication));
            }
        }
        results
    }

    async fn close(&self) -> Result<(), Failure> {
        self.publisher.close().await
    }
}

impl RabbitmqOutlet {
    fn publication(&self, message: &Message) -> Result<Publication, Failure> {
        let made = || {
            let routing_key = self.routing_key.fill(message)?;
            let properties = self.outgoing.properties(message)?.finish(self.publisher.frame_max_bytes())?;
            Ok((routing_key, properties))
        };
        let (routing_key, properties) = made().map_err(|why: String| {
            Failure::permanent(format!("publishing {}, RabbitMQ at {}: {why}", self.place(""), self.endpoint))
        })?;
        Ok(Publication {
            exchange: short(&self.exchange, "exchange")?,
            routing_key: short(&routing_key, "routing key")?,
            properties,
            body: message.body.bytes().clone(),
        })
    }

    fn failure(&self, rejection: Rejection, publication: &Publication) -> Failure {
        // What was declared at connect and is gone now comes back with the next connect.
        let gone = match &rejection {
            Rejection::Refused(error) => *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND),
            Rejection::Unroutable(_) => self.exchange.is_empty(),
            Rejection::Nacked | Rejection::Unconfirmed { .. } | Rejection::Lost(_) => false,
        };
        let failure =
            rejection.into_failure(&self.place(publication.routing_key.as_str()), &self.endpoint, self.timeout);
        if gone && self.redeclares { Failure { kind: FailureKind::Disconnected, ..failure } } else { failure }
    }

    fn place(&self, routing_key: &str) -> String {
        if self.exchange.is_empty() {
            format!("to queue `{routing_key}`")
        } else {
            format!("to exchange `{}` with routing key `{routing_key}`", self.exchange)
        }
    }
}
