//! The registry: one enum and one match each for sources and targets. A new connector adds its folder and a line here.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_engine::source::Source;
use sluicegate_engine::target::Target;

use crate::http::{Ingress, Spool};
use crate::{file, generate, http, queue, rabbitmq, redis, stdio};

/// What a connector is given when it is built. Nothing here does I/O.
#[derive(Clone)]
pub struct BuildContext {
    /// The pipeline's name: default for consumer names, groups and the CloudEvents `source`.
    pub pipeline: Arc<str>,
    /// Folder of the configuration file: relative paths start here.
    pub base_dir: PathBuf,
    /// Folder for checkpoints.
    pub data_dir: PathBuf,
    /// Where HTTP sources announce their paths.
    pub ingress: Ingress,
    /// Where HTTP sources put what they accept. Without it, a path that answers `accepted` or a request with an
    /// `Idempotency-Key` is answered 503.
    pub spool: Option<Arc<dyn Spool>>,
    /// Whether the pipeline keeps the order of messages with the same key.
    pub ordered: bool,
    /// The gateway's own queues.
    pub queues: queue::Access,
}

impl BuildContext {
    /// Whether the pipeline is a tenant's: names in the operator's files have no slash.
    pub fn is_tenants(&self) -> bool {
        self.pipeline.contains('/')
    }
}

impl fmt::Debug for BuildContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildContext")
            .field("pipeline", &self.pipeline)
            .field("base_dir", &self.base_dir)
            .field("data_dir", &self.data_dir)
            .field("ingress", &self.ingress)
            .field("spool", &self.spool.is_some())
            .field("ordered", &self.ordered)
            .field("queues", &self.queues)
            .finish()
    }
}

/// A mistake or risk found without I/O.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer (RFC 6901) from the connector's own settings to the value; empty for the whole.
    pub pointer: String,
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What a connector can promise as configured; `check` derives and prints the pipeline's guarantee from these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// Whether a message survives a crash of the gateway or of the other side on this end.
    pub at_least_once: bool,
    /// Why, in a few words: `unacknowledged messages are redelivered by the broker`.
    pub because: String,
    /// Settings that are legal but unsafe.
    pub warnings: Vec<Problem>,
}

/// A source's settings, externally tagged by the system's name.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SourceConfig {
    /// HTTP ingestion on the gateway's own server.
    Http(http::SourceConfig),
    /// A RabbitMQ queue.
    Rabbitmq(rabbitmq::SourceConfig),
    /// A Redis Stream, read as a consumer group.
    Redis(redis::SourceConfig),
    /// A file of JSON Lines.
    File(file::SourceConfig),
    /// Standard input, a message a line.
    Stdio(stdio::SourceConfig),
    /// One of the gateway's own queues.
    Queue(queue::SourceConfig),
    /// Made-up messages, for trials.
    Generate(generate::SourceConfig),
}

/// A target's settings, externally tagged by the system's name.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum TargetConfig {
    /// A webhook.
    Http(http::TargetConfig),
    /// A RabbitMQ exchange or queue.
    Rabbitmq(rabbitmq::TargetConfig),
    /// A Redis Stream.
    Redis(redis::TargetConfig),
    /// A file of JSON Lines.
    File(file::TargetConfig),
    /// Standard output, a message a line.
    Stdio(stdio::TargetConfig),
    /// One of the gateway's own queues.
    Queue(queue::TargetConfig),
}

impl SourceConfig {
    /// The system's name, as in the configuration.
    pub fn system(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Rabbitmq(_) => "rabbitmq",
            Self::Redis(_) => "redis",
            Self::File(_) => "file",
            Self::Stdio(_) => "stdio",
            Self::Queue(_) => "queue",
            Self::Generate(_) => "generate",
        }
    }

    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Http(config) => config.problems(),
            Self::Rabbitmq(config) => config.problems(),
            Self::Redis(config) => config.problems(),
            Self::File(config) => config.problems(),
            Self::Stdio(config) => config.problems(),
            Self::Queue(config) => config.problems(),
            Self::Generate(config) => config.problems(),
        }
    }

    /// What this source promises, with the `queues` that are declared.
    pub fn promise(&self, queues: &queue::Declarations) -> Promise {
        match self {
            Self::Http(config) => config.promise(),
            Self::Rabbitmq(config) => config.promise(),
            Self::Redis(config) => config.promise(),
            Self::File(config) => config.promise(),
            Self::Stdio(config) => config.promise(),
            Self::Queue(config) => config.promise(queues.get(&config.name)),
            Self::Generate(config) => config.promise(),
        }
    }

    /// The source, not yet connected.
    pub fn build(&self, context: &BuildContext) -> Box<dyn Source> {
        match self {
            Self::Http(config) => Box::new(http::HttpSource::new(config, context)),
            Self::Rabbitmq(config) => Box::new(rabbitmq::RabbitmqSource::new(config, context)),
            Self::Redis(config) => Box::new(redis::RedisSource::new(config, context)),
            Self::File(config) => Box::new(file::FileSource::new(config, context)),
            Self::Stdio(config) => Box::new(stdio::StdioSource::new(config, context)),
            Self::Queue(config) => queue::source(config, context),
            Self::Generate(config) => Box::new(generate::GenerateSource::new(config, context)),
        }
    }
}

impl TargetConfig {
    /// The system's name, as in the configuration.
    pub fn system(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Rabbitmq(_) => "rabbitmq",
            Self::Redis(_) => "redis",
            Self::File(_) => "file",
            Self::Stdio(_) => "stdio",
            Self::Queue(_) => "queue",
        }
    }

    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Http(config) => config.problems(),
            Self::Rabbitmq(config) => config.problems(),
            Self::Redis(config) => config.problems(),
            Self::File(config) => config.problems(),
            Self::Stdio(config) => config.problems(),
            Self::Queue(config) => config.problems(),
        }
    }

    /// What this target promises, with the `queues` that are declared.
    pub fn promise(&self, queues: &queue::Declarations) -> Promise {
        match self {
            Self::Http(config) => config.promise(),
            Self::Rabbitmq(config) => config.promise(),
            Self::Redis(config) => config.promise(),
            Self::File(config) => config.promise(),
            Self::Stdio(config) => config.promise(),
            Self::Queue(config) => config.promise(queues.get(&config.name)),
        }
    }

    /// The target, not yet connected.
    pub fn build(&self, context: &BuildContext) -> Box<dyn Target> {
        match self {
            Self::Http(config) => Box::new(http::HttpTarget::new(config, context)),
            Self::Rabbitmq(config) => Box::new(rabbitmq::RabbitmqTarget::new(config, context)),
            Self::Redis(config) => Box::new(redis::RedisTarget::new(config, context)),
            Self::File(config) => Box::new(file::FileTarget::new(config, context)),
            Self::Stdio(config) => Box::new(stdio::StdioTarget::new(config, context)),
            Self::Queue(config) => queue::target(config, context),
        }
    }
}
