//! Settings of the `rabbitmq` connector.
//!
//! ```yaml
//! source:
//!   rabbitmq:
//!     url: '${AMQP_URL}'
//!     exchange: { name: market.events, kind: topic }
//!     queue: signal-service.events
//!     bindings: ['market.#', 'agent.#']
//!     prefetch: 64          # messages a worker holds unsettled
//!     concurrency: 4        # workers, each with its channel
//! targets:
//!   eu: { rabbitmq: { url: '${AMQP_URL}', exchange: orders, routing_key: 'eu.{kind}' } }
//! dead_letter: { rabbitmq: { exchange: dead.letter } }
//! ```

use schemars::JsonSchema;
use serde::Deserialize;

use super::declaration::{BindingConfig, Declare, ExchangeConfig, QueueOptions};
use super::endpoint::{CONNECTION_TIMEOUT, HEARTBEAT, TlsConfig};
use crate::quantity::{Secret, Span};

/// Settings of a source: a queue, consumed by one or more workers.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// `amqp://user:password@host:5672/vhost`, or `amqps://` for TLS.
    pub url: Secret,
    /// The queue to consume.
    pub queue: String,
    /// How the queue is declared.
    #[serde(default)]
    pub queue_options: QueueOptions,
    /// The exchange the queue is bound to. A name alone is not declared: `{ name: …, kind: topic }` is.
    #[serde(default)]
    pub exchange: Option<Box<ExchangeConfig>>,
    /// Routing patterns that bring messages from the exchange to the queue. A binding taken out here stays on the broker.
    #[serde(default)]
    pub bindings: Vec<BindingConfig>,
    /// true (default): exchange, queue and bindings are declared at every connect; passive: only checked to exist; false:
    /// neither.
    #[serde(default)]
    pub declare: Declare,
    /// Most unsettled messages a worker is given. Default 64.
    #[serde(default = "prefetch")]
    pub prefetch: u16,
    /// Workers: consumers of the queue, each on its own channel. Default 1. Messages of one worker keep their order.
    #[serde(default = "concurrency")]
    pub concurrency: u16,
    /// How long a message may wait in the declared queue before the broker drops it. Default: without limit.
    #[serde(default)]
    pub message_ttl: Option<Span>,
    /// How attempts are counted and where messages wait for the next.
    #[serde(default)]
    pub retry: RetryConfig,
    /// Prefix of the consumers' tags, shown by the broker. Default: the pipeline's name.
    #[serde(default)]
    pub consumer_tag: Option<String>,
    /// Interval of heartbeats; a connection silent for twice as long is given up. Default 10s.
    #[serde(default = "heartbeat")]
    pub heartbeat: Span,
    /// Longest connection attempt. Default 10s.
    #[serde(default = "connection_timeout")]
    pub connection_timeout: Span,
    /// TLS settings, for `amqps://`.
    #[serde(default)]
    pub tls: Option<Box<TlsConfig>>,
}

/// How a source counts attempts and parks messages that are to be tried again later.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryConfig {
    /// Header that holds the number of failed attempts. Default `x-retry-count`.
    #[serde(default = "retry_header")]
    pub header: String,
    /// Prefix of the delay queues' names, which go on with `.1000ms`, for a quorum queue with `.quorum.1000ms`. Default: the
    /// queue's name and `.delay`.
    #[serde(default)]
    pub queue_prefix: Option<String>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { header: retry_header(), queue_prefix: None }
    }
}

/// Settings of a target: an exchange, or a queue by way of the default exchange.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// `amqp://user:password@host:5672/vhost`, or `amqps://` for TLS.
    pub url: Secret,
    /// The exchange to publish to. A name alone is not declared: `{ name: …, kind: topic }` is.
    #[serde(default)]
    pub exchange: Option<Box<ExchangeConfig>>,
    /// The queue to publish to, instead of an exchange.
    #[serde(default)]
    pub queue: Option<String>,
    /// How the queue is declared.
    #[serde(default)]
    pub queue_options: QueueOptions,
    /// true (default): the exchange, if given with its properties, or the queue is declared at every connect; passive: only
    /// checked to exist; false: neither.
    #[serde(default)]
    pub declare: Declare,
    /// Text with `{kind}`, `{key}`, `{subject}`, `{id}`, `{source}` or `{header:NAME}` in it. It always decides: a key that
    /// a router gives is used where `{key}` stands. Default `{kind}`.
    #[serde(default)]
    pub routing_key: Option<String>,
    /// Whether a message no queue takes is a failure. Default true; with false the broker drops it silently.
    #[serde(default = "yes")]
    pub mandatory: bool,
    /// Whether the broker keeps messages on disk. Default true.
    #[serde(default = "yes")]
    pub persistent: bool,
    /// How long a message may wait in a queue before the broker drops it. Default: until the message's own expiry, if any.
    #[serde(default)]
    pub message_ttl: Option<Span>,
    /// Whether to add the CloudEvents attributes as `cloudEvents:` headers, for consumers that look for them. Default false:
    /// they travel as AMQP properties.
    #[serde(default)]
    pub cloud_events: bool,
    /// Longest wait for the broker's confirm of a batch. Default 10s.
    #[serde(default = "publish_timeout")]
    pub publish_timeout: Span,
    /// Interval of heartbeats; a connection silent for twice as long is given up. Default 10s.
    #[serde(default = "heartbeat")]
    pub heartbeat: Span,
    /// Longest connection attempt. Default 10s.
    #[serde(default = "connection_timeout")]
    pub connection_timeout: Span,
    /// TLS settings, for `amqps://`.
    #[serde(default)]
    pub tls: Option<Box<TlsConfig>>,
}

/// Settings of dead letters kept in RabbitMQ: an exchange and a queue bound to it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterConfig {
    /// `amqp://user:password@host:5672/vhost`. Default: the url of the pipeline's rabbitmq source, with its TLS settings.
    #[serde(default)]
    pub url: Option<Secret>,
    /// The dead-letter exchange. A name alone is declared as a durable topic exchange.
    pub exchange: ExchangeConfig,
    /// The queue that keeps the dead letters, bound to the exchange with `#`. Default: the exchange's name.
    #[serde(default)]
    pub queue: Option<String>,
    /// How the queue is declared.
    #[serde(default)]
    pub queue_options: QueueOptions,
    /// true (default): exchange, queue and binding are declared at every connect; passive: only checked to exist; false:
    /// neither.
    #[serde(default)]
    pub declare: Declare,
    /// Routing key of every dead letter. Default: the one the message came with, or else the pipeline's name.
    #[serde(default)]
    pub routing_key: Option<String>,
    /// Header that holds the number of failed attempts. Default `x-retry-count`.
    #[serde(default = "retry_header")]
    pub retry_header: String,
    /// Longest wait for the broker's confirm. Default 10s.
    #[serde(default = "publish_timeout")]
    pub publish_timeout: Span,
    /// Interval of heartbeats; a connection silent for twice as long is given up. Default 10s.
    #[serde(default = "heartbeat")]
    pub heartbeat: Span,
    /// Longest connection attempt. Default 10s.
    #[serde(default = "connection_timeout")]
    pub connection_timeout: Span,
    /// TLS settings, for `amqps://`.
    #[serde(default)]
    pub tls: Option<Box<TlsConfig>>,
}

fn yes() -> bool {
    true
}

fn prefetch() -> u16 {
    64
}

fn concurrency() -> u16 {
    1
}

fn retry_header() -> String {
    "x-retry-count".to_owned()
}

fn heartbeat() -> Span {
    HEARTBEAT
}

fn connection_timeout() -> Span {
    CONNECTION_TIMEOUT
}

fn publish_timeout() -> Span {
    Span::secs(10)
}
