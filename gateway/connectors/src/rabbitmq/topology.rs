//! Declares exchanges, queues and bindings. Declaring what exists with the same properties does nothing, so all of it is
//! done at every connect.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};
use sluicegate_engine::failure::Failure;

use super::declaration::{BindingConfig, Declare, ExchangeConfig, ExchangeProperties, QueueOptions, arguments};
use super::endpoint::Endpoint;
use super::refusal;
use crate::quantity::Span;

/// What one source, target or dead-letter queue needs on the broker.
pub(super) struct Topology<'a> {
    pub declare: Declare,
    pub exchange: Option<&'a ExchangeConfig>,
    pub queue: Option<(&'a str, &'a QueueOptions)>,
    pub message_ttl: Option<Span>,
    pub bindings: &'a [BindingConfig],
}

impl Topology<'_> {
    /// Declares or checks everything, on a channel of its own: a refused declaration closes its channel.
    ///
    /// # Errors
    /// Permanent where the broker has something else than configured, refuses or lacks it.
    pub async fn declare(&self, connection: &Connection, endpoint: &Endpoint) -> Result<(), Failure> {
        if self.declare == Declare::Never {
            return Ok(());
        }
        let channel = connection
            .create_channel()
            .await
            .map_err(|error| refusal::on_connect(&error, "opening a channel", endpoint))?;
        if let Some(exchange) = self.exchange {
            self.declare_exchange(&channel, exchange, endpoint).await?;
        }
        if let Some((queue, options)) = self.queue {
            self.declare_queue(&channel, queue, options, endpoint).await?;
            if self.declare == Declare::Create {
                self.bind(&channel, queue, endpoint).await?;
            }
        }
        channel.close(200, "OK".into()).await.map_err(|error| refusal::lost(&error, "closing a channel", endpoint))?;
        self.log(endpoint);
        Ok(())
    }

    async fn declare_exchange(
        &self,
        channel: &Channel,
        exchange: &ExchangeConfig,
        endpoint: &Endpoint,
    ) -> Result<(), Failure> {
        let passive = ExchangeProperties::default();
        let (properties, passively) = match (&exchange.properties, self.declare) {
            (Some(properties), Declare::Create) => (properties, false),
            (_, Declare::Passive) => (&passive, true),
            // Known by its name alone: what is wrong with it shows when it is used.
            (_, Declare::Create | Declare::Never) => return Ok(()),
        };
        let options = ExchangeDeclareOptions {
            passive: passively,
            durable: properties.durable,
            auto_delete: properties.auto_delete,
            internal: properties.internal,
            nowait: false,
        };
        channel
            .exchange_declare(
                short(&exchange.name, "exchange")?,
                kind(&properties.kind),
                options,
                arguments(&properties.arguments),
            )
            .await
            .map_err(|error| {
                refusal::on_connect(
                    &error,
                    &format!("declaring {} exchange `{}`", properties.kind, exchange.name),
                    endpoint,
                )
            })
    }

    async fn declare_queue(
        &self,
        channel: &Channel,
        queue: &str,
        options: &QueueOptions,
        endpoint: &Endpoint,
    ) -> Result<(), Failure> {
        let mut table = arguments(&options.arguments);
        if let Some(ttl) = self.message_ttl {
            table.insert("x-message-ttl".into(), millis(ttl.0));
        }
        let options = QueueDeclareOptions {
            passive: self.declare == Declare::Passive,
            durable: options.durable,
            exclusive: options.exclusive,
            auto_delete: options.auto_delete,
            nowait: false,
        };
        channel
            .queue_declare(short(queue, "queue")?, options, table)
            .await
            .map(drop)
            .map_err(|error| refusal::on_connect(&error, &format!("declaring queue `{queue}`"), endpoint))
    }

    async fn bind(&self, channel: &Channel, queue: &str, endpoint: &Endpoint) -> Result<(), Failure> {
        for binding in self.bindings {
            let Some(exchange) = binding.exchange.as_deref().or(self.exchange.map(|exchange| exchange.name.as_str()))
            else {
                continue;
            };
            channel
                .queue_bind(
                    short(queue, "queue")?,
                    short(exchange, "exchange")?,
                    short(&binding.pattern, "binding pattern")?,
                    QueueBindOptions::default(),
                    arguments(&binding.arguments),
                )
                .await
                .map_err(|error| {
                    let doing =
                        format!("binding queue `{queue}` to exchange `{exchange}` with pattern `{}`", binding.pattern);
                    refusal::on_connect(&error, &doing, endpoint)
                })?;
        }
        Ok(())
    }

    fn log(&self, endpoint: &Endpoint) {
        let patterns: Vec<&str> = self.bindings.iter().map(|binding| binding.pattern.as_str()).collect();
        tracing::info!(
            system = "rabbitmq",
            server = endpoint.host_port(),
            vhost = endpoint.vhost(),
            exchange = self.exchange.map(|exchange| exchange.name.as_str()),
            kind = self.exchange.and_then(|exchange| exchange.properties.as_ref()).map(|p| p.kind.as_str()),
            queue = self.queue.map(|(queue, _)| queue),
            bindings = patterns.join(", "),
            passive = self.declare == Declare::Passive,
            "declared"
        );
    }
}

/// Arguments of a delay queue: messages wait `ttl_ms`, then go back to `queue`; the delay queue is deleted once it has
/// been out of use for `expires_ms`.
pub(super) fn delay_queue_arguments(queue: &str, quorum: bool, ttl_ms: u32, expires_ms: u32) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ttl_ms.into()));
    table.insert("x-expires".into(), AMQPValue::LongLongInt(expires_ms.into()));
    table.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    table.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(queue.into()));
    if quorum {
        table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        table.insert("x-dead-letter-strategy".into(), AMQPValue::LongString("at-least-once".into()));
        table.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    }
    table
}

/// A string as AMQP carries names.
///
/// # Errors
/// Permanent, if it is longer than 255 bytes.
pub(super) fn short(text: &str, what: &str) -> Result<ShortString, Failure> {
    ShortString::try_new(text).map_err(|_| {
        Failure::permanent(format!("rabbitmq: the {what} has {} bytes, AMQP allows 255: shorten it", text.len()))
    })
}

fn kind(kind: &str) -> ExchangeKind {
    match kind {
        "topic" => ExchangeKind::Topic,
        "direct" => ExchangeKind::Direct,
        "fanout" => ExchangeKind::Fanout,
        "headers" => ExchangeKind::Headers,
        _ => ExchangeKind::Custom(kind.to_owned()),
    }
}

fn millis(span: std::time::Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}
